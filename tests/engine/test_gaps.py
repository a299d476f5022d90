"""Gap limits: how long after the event bound before a step may still be taken."""

import pytest

from cep.rules import build_rule, e, emit, on, seq
from cep.rules.automaton import build_automaton
from tests import streams

assert streams  # registers test.tick


def letter(name):
    return on("test.tick", name=name).where(e.text == name)


a, b, c = map(letter, "abc")


def limits(pattern):
    """Each state that waits, with its gap in seconds and the limits of its steps."""
    made = build_rule("r", pattern, [emit()])
    found = []
    for state in build_automaton(made).states:
        if state.kind in ("final", "stop"):
            continue
        edges = [
            f"{edge.variable}<{expr.length_ns // 10**9}"
            for edge in state.edges
            for expr, _ in edge.literals
            if hasattr(expr, "length_ns")
        ]
        found.append((state.variable, state.gap_ns // 10**9, *edges))
    return found


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        # Of the whole: every step but the first event of the match.
        (
            seq(a).then(b).next(c).within_previous("3s"),
            [("a", 0), ("b", 3), ("c", 3)],
        ),
        (
            seq(a).then(b.one_or_more()).then(c.optional()).within_previous("3s"),
            [("a", 0), ("b", 3), ("b", 3), ("c", 3), ("b", 3), ("c", 3)],
        ),
        (
            seq(a.times(3)).within_previous("3s"),
            [("a", 0), ("a", 3), ("a", 3)],
        ),
        (
            seq(a).then(seq(b).then(c).times(2)).within_previous("3s"),
            [("a", 0), ("b", 3), ("c", 3), ("b", 3), ("c", 3)],
        ),
        # Of one step, and no other.
        (seq(a).then(b.within_previous("3s")).then(c), [("a", 0), ("b", 3), ("c", 0)]),
        (seq(a.within_previous("3s")).then(b), [("a", 0), ("b", 0)]),
        # Of a group: all its steps.
        (
            seq(a).then(seq(b).then(c).within_previous("3s")).then(letter("d")),
            [("a", 0), ("b", 3), ("c", 3), ("d", 0)],
        ),
        # The shorter of two.
        (
            seq(a).then(b.within_previous("1s")).then(c).within_previous("3s"),
            [("a", 0), ("b", 1), ("c", 3)],
        ),
        # A repetition: into each of them, and not into what follows.
        (
            seq(a).then(b.times(2).within_previous("3s")).then(c),
            [("a", 0), ("b", 3), ("b", 3), ("c", 0)],
        ),
        (
            seq(a).then(b.one_or_more().within_previous("3s")).then(c),
            [("a", 0), ("b", 3), ("b", 0, "b<3"), ("c", 0), ("b", 3)],
        ),
        (
            seq(a).then(b.one_or_more().within_previous("3s")),
            [("a", 0), ("b", 3), ("b", 3), ("b", 3)],
        ),
        # What may be skipped does not hurry what follows.
        (
            seq(a).next(b.optional().within_previous("3s")).next(c),
            [("a", 0), ("b", 0, "b<3"), ("c", 0)],
        ),
        (
            seq(a)
            .next(b.optional().within_previous("3s"))
            .next(c.within_previous("9s")),
            [("a", 0), ("b", 9, "b<3"), ("c", 9)],
        ),
        # Absences: in last place how long to wait, before a step how soon it comes.
        (seq(a).not_then(b).within_previous("3s"), [("a", 0), ("b", 3)]),
        (seq(a).not_then(b.within_previous("3s")), [("a", 0), ("b", 3)]),
        (
            seq(a).not_then(b.within_previous("3s")).within("5s"),
            [("a", 0), ("b", 3)],
        ),
        (seq(a).not_then(b).within("5s"), [("a", 0), ("b", 0)]),
        (seq(a).not_next(b).within_previous("3s"), [("a", 0), ("b", 3)]),
        (
            seq(a).not_next(b.within_previous("3s")).then(c),
            [("a", 0), ("b", 3), ("c", 0)],
        ),
        (
            seq(a).not_then(b).then(c).within_previous("3s"),
            [("a", 0), ("c", 3)],
        ),
    ],
    ids=lambda value: str(value)[:0],
)
def test_a_limit_is_at_every_step_that_it_bounds(pattern, found):
    assert limits(pattern) == found
