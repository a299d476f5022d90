"""Diagrams are Mermaid flowcharts, whatever a rule's texts are."""

import re

import pytest

from cep.rules import build_rule, count, e, emit, last, m, on, seq
from cep.rules.automaton import build_states
from tests import streams  # noqa: F401  # registers the test events

LABEL = r'"(?:[\w .,_=+\-*/()\[\]\'~!?^:]|#\d+;|<br/>)*"'
NODE = rf"    (s\d+)(?:\(\[{LABEL}\]\)|\({LABEL}\)|\{{\{{{LABEL}\}}\}}|\[/{LABEL}/\]|"
NODE += rf"\(\(\({LABEL}\)\)\))"
EDGE = rf"    (s\d+) (?:==>|-\.->|-->)\|{LABEL}\| (s\d+)"


def parsed(text):
    """The nodes and edges of a flowchart; fails on any other line."""
    first, heading, direction, *lines, end = text.split("\n")
    assert (first, direction, end) == ("flowchart LR", "    direction LR", "  end")
    assert re.fullmatch(rf"  subgraph rule\[{LABEL}\]", heading)
    nodes = [x[1] for line in lines if (x := re.fullmatch(NODE, line))]
    edges = [x.groups() for line in lines if (x := re.fullmatch(EDGE, line))]
    assert len(nodes) + len(edges) == len(lines), text
    assert {name for edge in edges for name in edge} <= set(nodes)
    return nodes, edges


def made(pattern, **options):
    return build_rule("drawn", pattern, [emit()], **options)


A, B, C = (
    on(f"test.{t}", name=n) for t, n in [("tick", "a"), ("tack", "b"), ("tock", "c")]
)
UP = on("test.tick", name="up").where((count(m.up) == 0) | (e.x > last(m.up).x))
PATTERNS = [
    A,
    seq(A).next(B).then(C),
    seq(A.one_or_more().greedy()).then_any(B.between(0, 1)).then(C),
    seq(UP.at_least(3).until(e.x > 9)).next(C),
    seq(A).not_then(B).then(C.between(0, 3)).within("5s"),
    seq(A).not_then(B).within("5s"),
    seq(A).not_next(B),
    seq(A).then(seq(B).then(C).times(2)).within("10m").where(m.a.x > 0),
    seq(A.where(e.text == '"<b>x</b>"; |`%%{init}`\n[/#')).then(B),
]


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_every_pattern_is_drawn_in_the_grammar_with_all_its_states(pattern):
    rule = made(pattern)
    nodes, edges = parsed(str(rule.diagram()))
    reached, waiting = {}, [build_states(rule)]
    while waiting:
        state = waiting.pop()
        if id(state) not in reached:
            reached[id(state)] = state
            waiting += [edge.target for edge in state.edges]
    assert len(nodes) == len(set(nodes)) == len(reached)
    stops = [s for s in reached.values() if s.kind == "stop"]
    drawn = sum(len(s.edges) for s in reached.values()) - len(stops)
    assert len(edges) == drawn


def test_an_absence_shows_what_must_not_come_and_when_it_is_certain():
    rule = made(seq(A).not_then(B.where(e.x > 1)).within("30s"), key="key")
    assert str(rule.diagram()).split("\n") == [
        "flowchart LR",
        '  subgraph rule["drawn v1, key key, within 30s"]',
        "    direction LR",
        '    s0(["a<br/>test.tick"])',
        '    s1{{"no b<br/>match 30s after the first event"}}',
        '    s2[/"b came: no match"/]',
        '    s0 ==>|"take"| s1',
        '    s1 -->|"b comes if (e.x #62; 1)"| s2',
        '    s1 -.->|"ignore others"| s1',
        "  end",
    ]


def test_long_conditions_are_cut():
    text = str(made(A.where(e.text == "x" * 100)).diagram())
    assert "x" * 30 in text
    assert "x" * 60 not in text
    assert "#8230;" in text


def test_notebooks_get_the_drawing_and_others_the_text():
    diagram = made(A).diagram()
    bundle = diagram._repr_mimebundle_(include=None, exclude=None)
    assert bundle == {
        "text/plain": str(diagram),
        "text/markdown": f"```mermaid\n{diagram}\n```",
        "text/vnd.mermaid": str(diagram),
    }
