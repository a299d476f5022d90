"""What a step found, as columns; and what becomes of matches that run out of time."""

from dataclasses import replace

import numpy as np
import pytest

from cep.engine.operator import Operator
from cep.rules import Limits, build_rule, count, e, emit, m, on, seq
from tests import streams


def rise(**options):
    low = on("test.tick", name="low").where(e.x < 0)
    high = on("test.tick", name="high").where(e.x > m.low.x + 5)
    pattern = seq(low).then(high).within("10ms")
    return build_rule("rise", pattern, [emit(x=e.x, y=m.low.x)], key="key", **options)


def run(rule, rows, end=None):
    operator = Operator([rule])
    batch = streams.ordered(operator, rows)
    last = int(batch.time[-1]) if end is None else (streams.T0 + end) * 1_000_000
    return operator, operator.step(batch, last)


ROWS = [
    {"t": 0, "key": "a", "x": -1},
    {"t": 1, "key": "b", "x": -9},
    {"t": 2, "key": "a", "x": -2},
    {"t": 3, "key": "b", "x": 0},
    {"t": 4, "key": "a", "x": 7},
]


def test_columns_say_what_events_say():
    _, outputs = run(rise(), ROWS)
    (matches,) = outputs.matches
    assert len(outputs) == len(matches) == len(outputs.events) == 3
    assert matches.steps == ["low", "high"]
    for j, event in enumerate(matches.events):
        span = slice(*matches.offsets[j : j + 2])
        assert [matches.steps[v] for v in matches.variable[span]] == list(event.steps)
        assert matches.time_ns[j] == event.time_ns
        values = event.data["values"]
        assert [values["x"], values["y"]] == matches.values[j].tolist()
    assert not matches.timeout.any()


def test_events_survive_that_their_keys_are_given_back():
    operator, outputs = run(rise(), ROWS)
    expected, _ = run(rise(), ROWS)[1].events, None
    assert operator.sweep(2**62) == 2
    operator.step(streams.ordered(operator, [{"t": 5, "key": "c", "x": 1}]), 0)
    assert [event.key for event in outputs.events] == [x.key for x in expected]


def test_no_step_no_matches():
    _, outputs = run(rise(), [{"t": 0, "key": "a", "x": 1}])
    assert outputs.matches == [] == outputs.events


def timed(**options):
    return replace(rise(**options), timeouts=(emit(waited_from=m.low.x),))


def test_a_partial_match_that_runs_out_of_time_is_put_out_when_asked_for():
    _, outputs = run(timed(), ROWS[:3], end=12)
    found = [(x.time_ns // 1_000_000 - streams.T0, x.key) for x in outputs.events]
    assert found == [(10, "a"), (11, "b"), (12, "a")]
    assert all(x.timeout for x in outputs.events)
    assert [x.data["values"] for x in outputs.events] == [
        {"waited_from": -1},
        {"waited_from": -9},
        {"waited_from": -2},
    ]
    assert len({x.id for x in outputs.events}) == 3


def test_matches_and_time_outs_have_the_values_of_their_own_kind_alone():
    _, outputs = run(timed(), [*ROWS, {"t": 5, "key": "c", "x": -3}], end=100)
    (matches,) = outputs.matches
    assert {True, False} == set(matches.timeout.tolist())
    for values, timeout in zip(matches.values, matches.timeout, strict=True):
        assert np.isnan(values).tolist() == [timeout, timeout, not timeout]


def test_a_time_out_after_a_restart_knows_no_texts_of_matches():
    low, high = (on("test.tick", name=name) for name in ("low", "high"))
    made = build_rule(
        "r",
        seq(low.where(e.x < 0)).then(high.where(e.x > 5)).within("10ms"),
        [emit(text=m.low.text)],
        on_timeout=emit(n=count(m.low)),
    )
    operator, _ = run(made, [{"t": 0, "x": -1}])
    again = Operator([made])
    assert again.restore(operator.snapshot()) == []
    outputs = again.step(again.ingest(streams.columns([]), 0), 2**62)
    assert [event.data["values"] for event in outputs.events] == [{"n": 1}]


def test_time_outs_have_a_cooldown_of_their_own():
    operator, outputs = run(timed(cooldown="1s"), ROWS, end=100)
    told = [(x.key, x.timeout) for x in outputs.events]
    assert sorted(told) == [("a", False), ("b", False)]
    operator, outputs = run(timed(cooldown="1s"), ROWS[:3], end=100)
    assert [x.key for x in outputs.events] == ["a", "b"]
    assert operator.counts()["rise"].suppressed == 1


def test_time_outs_not_asked_for_are_counted():
    operator, outputs = run(rise(), ROWS[:3], end=12)
    assert outputs.events == []
    assert operator.counts()["rise"].timeouts == 3


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([-1, 9], "skip_target_is_first_event"),
        ([0, 9], "skip_target_missing"),
    ],
)
def test_a_skip_target_that_is_not_there_trips_the_rule_that_says_so(rows, why):
    low = on("test.tick", name="low").where(e.x < 0).optional()
    pattern = seq(low).next(on("test.tick", name="high").where(e.x > 5))
    rule = build_rule("skip", pattern, [emit()], after_match=("to_first", "low"))
    told = replace(rule, after_match=replace(rule.after_match, on_missing="trip"))
    data = [{"t": t, "x": x} for t, x in enumerate(rows)]
    operator, outputs = run(told, data)
    counts = operator.counts()["skip"]
    assert (counts.tripped, counts.tripped_why) == (True, why)
    other = Operator([told])
    other.restore(operator.snapshot())
    assert other.counts()["skip"].tripped_why == why
    _, outputs = run(rule, data)
    assert len(outputs) > 0


def test_more_outputs_than_fit_at_once_come_in_order():
    rule = build_rule(
        "many",
        seq(on("test.tick", name="s").one_or_more().any_combination())
        .next(on("test.tick", name="end").where(e.x == 1))
        .within("1s"),
        [emit(n=count(m.s))],
        limits=Limits(
            20_000, 10**7, matches_per_event=20_000, bindings_per_event=10**7
        ),
    )
    n = 14  # the last of them must be there, the others may
    rows = [{"t": t, "x": 0} for t in range(n)] + [{"t": n, "x": 1}]
    _, outputs = run(rule, rows)
    assert len(outputs) == 2 ** (n - 1)
    assert len({event.id for event in outputs.events}) == 2 ** (n - 1)
    (matches,) = outputs.matches
    assert np.all(np.diff(matches.time_ns) >= 0)


@pytest.mark.parametrize("size", [1, 2, 100])
def test_a_rule_that_trips_lets_all_its_partial_matches_go(size):
    low = on("test.tick", name="low")
    high = on("test.tack", name="high")
    limits = Limits(partials_per_key=2, policy="trip")
    pattern = seq(low).then(high).within("10ms")
    rule = build_rule("trips", pattern, [emit()], key="key", limits=limits)
    operator = Operator([rule])
    rows = [{"t": t, "key": k, "x": t} for t, k in enumerate("bcaaaaa")]
    batch = streams.ordered(operator, rows)
    for begin in range(0, len(rows), size):
        part = batch.take(slice(begin, begin + size))
        assert not operator.step(part, int(part.time[-1])).events
    counts = operator.counts()["trips"]
    assert (counts.tripped, counts.live_partials, counts.dropped_partials) == (
        True,
        0,
        5,
    )
    assert list(operator.snapshot()) == ["engine"]


def test_keys_of_several_parts_do_not_read_alike():
    rule = build_rule("r", on("test.tick"), [emit()], key=["key", "text"])
    rows = [
        {"t": 0, "key": "a/b", "text": "c"},
        {"t": 0, "key": "a", "text": "b/c"},
        {"t": 0, "key": "a\\", "text": "b"},
        {"t": 0, "key": "a\\/b", "text": "c"},
    ]
    events = run(rule, rows)[1].events
    assert [x.key for x in events] == [r"a\/b/c", r"a/b\/c", r"a\\/b", r"a\\\/b/c"]
    assert len({x.id for x in events}) == 4
    assert [x.data["key"] for x in events] == [x.key for x in events]
