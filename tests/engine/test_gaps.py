"""Gap limits: how long after the event bound before a step may still be taken."""

import itertools

import pytest

from cep.engine.operator import Operator
from cep.events.ids import words_to_ulid
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
            [("a", 0), ("b", 3), ("b", 0, "b<3", "b<3"), ("c", 0), ("b", 3)],
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


def go(pattern, word, end=None, cuts=(), restart=False, **options):
    """Run over a word, written "a0 b5": a letter an event, a number its time in ms.

    Matches are the places of their events and when they came out, ``01@5``; what ran
    out of time has a ``~`` before it.
    """
    rule = build_rule("r", pattern, [emit()], on_timeout=emit(), **options)
    rows = [
        {"t": int(part[1:]), "text": part[0], "id": i}
        for i, part in enumerate(word.split())
    ]
    operator = Operator([rule])
    places = {words_to_ulid(0, i): str(i) for i in range(len(rows))}
    found = []
    bounds = [0, *cuts, len(rows)]
    steps = [(rows[a:b], rows[b - 1]["t"]) for a, b in itertools.pairwise(bounds)]
    if end is not None:
        steps.append(([], end))
    for part, now in steps:
        if restart:
            state, operator = operator.snapshot(), Operator([rule])
            operator.restore(state)
        batch = streams.ordered(operator, part)
        for event in operator.step(batch, streams.ns(now)).events:
            at = (event.time_ns - streams.ns(0)) // 1_000_000
            bound = "".join(places[x] for x in event.lineage)
            found.append(f"{'~' * event.timeout}{bound}@{at}")
    return sorted(found, key=lambda text: (int(text.split("@")[1]), text))


THREE = seq(a).then(b).then(c)
RUN = seq(a).then(b.one_or_more()).then(c)


@pytest.mark.parametrize(
    ("pattern", "word", "found"),
    [
        # Every step: the first one, that in the middle, the last.
        (THREE.within_previous("3ms"), "a0 b2 c4", ["012@4"]),
        (THREE.within_previous("3ms"), "a0 b3 c4", ["~0@3"]),
        (THREE.within_previous("3ms"), "a0 b2 c5", ["~01@5"]),
        (THREE.within_previous("3ms"), "a0 x2 x4 b5 c6", ["~0@3"]),
        # However long the whole takes.
        (
            THREE.within_previous("3ms"),
            "a0 x1 b2 x3 c4 a9 b11 c13",
            ["024@4", "567@13"],
        ),
        # The shorter of gap and whole.
        (THREE.within_previous("3ms").within("4ms"), "a0 b2 c4", ["~01@4"]),
        (THREE.within_previous("3ms").within("5ms"), "a0 b2 c4", ["012@4"]),
        (THREE.within_previous("3ms").within("9ms"), "a0 b1 x9", ["~01@4"]),
        # One step alone.
        (seq(a).then(b.within_previous("3ms")).then(c), "a0 b2 c9", ["012@9"]),
        (seq(a).then(b.within_previous("3ms")).then(c), "a0 b3 c4", ["~0@3"]),
        (seq(a).then(b).then(c.within_previous("3ms")), "a0 b7 c9", ["012@9"]),
        (seq(a.within_previous("1ms")).then(b), "a5 b9", ["01@9"]),
        # Every repetition, also of a loop, also what passes over other events.
        (
            seq(a.times(3)).within_previous("3ms"),
            "a0 a2 a4 a7",
            ["012@4", "~12@7", "~2@7"],
        ),
        (
            seq(a).then(b.times(3).within_previous("3ms")),
            "a0 b2 b4 x5 b6",
            ["0124@6"],
        ),
        (seq(a).then(b.times(3).within_previous("3ms")), "a0 b2 b4 b7", ["~012@7"]),
        (
            seq(a).then(b.one_or_more()).within_previous("3ms"),
            "a0 b2 x3 b4 b7",
            ["01@2", "013@4", "~013@7"],
        ),
        # A repetition's limit does not hurry what follows it.
        (
            seq(a).then(b.one_or_more().within_previous("3ms")).then(c),
            "a0 b1 c9",
            ["012@9"],
        ),
        (
            seq(a).then(b.one_or_more().within_previous("3ms")).then(c),
            "a0 b1 b4 b6 c9",
            ["014@9"],
        ),
        # Neither does that of a step which may be left out.
        (seq(a).then(b.optional().within_previous("3ms")).then(c), "a0 c9", ["01@9"]),
        (
            seq(a).then(b.optional().within_previous("3ms")).then(c),
            "a0 x1 b5 c9",
            ["~0@3", "03@9"],
        ),
        # Groups: into each and within.
        (
            seq(a).then(seq(b).then(c).times(2)).within_previous("3ms"),
            "a0 b2 c4 b6 c8",
            ["01234@8"],
        ),
        (
            seq(a).then(seq(b).then(c).times(2).within_previous("3ms")),
            "a0 b2 c4 b7 c8",
            ["~012@7"],
        ),
        # Absences: how long to wait after the last event that was bound.
        (seq(a).then(b).not_then(c).within_previous("5ms"), "a0 b4 x9", ["01@9"]),
        (seq(a).then(b).not_then(c).within_previous("5ms"), "a0 b4 c8", []),
        (seq(a).then(b).not_then(c).within_previous("5ms"), "a0 b5 x10", ["~0@5"]),
        (seq(a).then(b).not_then(c.within_previous("5ms")), "a0 b9 c14", ["01@14"]),
        (
            seq(a).then(b).not_then(c.within_previous("5ms")).within("7ms"),
            "a0 b4 c8",
            ["01@7"],
        ),
        # A strict one: how soon the next event must come.
        (seq(a).not_next(b.within_previous("3ms")).then(c), "a0 x2 c9", ["02@9"]),
        (seq(a).not_next(b.within_previous("3ms")).then(c), "a0 x3 c9", ["~0@3"]),
        (seq(a).not_next(b).within_previous("3ms"), "a0 x2", ["0@2"]),
        (seq(a).not_next(b).within_previous("3ms"), "a0 x3", ["~0@3"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_limit_bounds_what_it_says(pattern, word, found):
    assert go(pattern, word) == found
    n = len(word.split())
    assert go(pattern, word, cuts=range(1, n)) == found
    assert go(pattern, word, cuts=range(1, n), restart=True) == found


def test_limits_run_out_on_the_watermark_and_not_on_the_next_event():
    pattern = THREE.within_previous("3ms")
    assert go(pattern, "a0 b2", end=4) == []
    assert go(pattern, "a0 b2", end=5) == ["~01@5"]
    assert go(pattern, "a0 b2", end=90) == ["~01@5"]
    assert go(seq(a).not_then(b).within_previous("3ms"), "a0", end=3) == ["0@3"]


def test_what_waits_for_several_limits_runs_out_at_the_last():
    """And what the shorter ones forbid by then is forbidden."""
    limited = b.one_or_more().within_previous("2ms")
    pattern = seq(a).then(limited).then(c.within_previous("6ms"))
    assert go(pattern, "a0 b1 c6") == ["012@6"]
    assert go(pattern, "a0 b1 b3 c6") == ["013@6"]
    assert go(pattern, "a0 b1 b2 c7", end=9) == ["0123@7", "~01@7"]
    assert go(pattern, "a0 b1 b2", end=9) == ["~01@7", "~012@8"]
