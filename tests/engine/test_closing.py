"""Rules on windows that close, against windows made again in plain Python."""

import random
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

import cep.engine.running_closes
import cep.engine.window_plan
from cep.engine.operator import Operator
from cep.errors import InvalidDurationError, RuleError, StateVersionError
from cep.rules import (
    avg,
    build_rule,
    count,
    e,
    emit,
    ewm,
    first,
    last,
    m,
    max,
    min,
    on,
    prev,
    py,
    quantile,
    seq,
    slope,
    std,
    sum,
    wavg,
)
from tests import oracles, streams
from tests.engine.test_state import run_with_restarts

TICK = on("test.tick", name="w")
KINDS = {
    "tumbling": (
        lambda step: step.tumbling("30ms"),
        lambda rows, key: oracles.closed_windows(rows, 30, 30, key),
    ),
    "hopping": (
        lambda step: step.hopping("30ms", every="7ms"),
        lambda rows, key: oracles.closed_windows(rows, 30, 7, key),
    ),
    "session": (
        lambda step: step.session("9ms"),
        lambda rows, key: oracles.closed_sessions(rows, 9, key),
    ),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def make_rows(seed, n=300, keys=3):
    """Rows with equal times, pauses, keys that fall silent, and absent values."""
    rng = random.Random(seed)
    t, rows = 3, []
    for i in range(n):
        t += rng.choice([0, 0, 1, 2, 5, 12]) + (400 if rng.random() < 0.01 else 0)
        rows.append(
            {
                "t": t,
                "type": rng.choice(["test.tick", "test.tick", "test.tack"]),
                "key": rng.choice([None, *"abcdefg"[: keys if i < n / 2 else 1]]),
                "x": rng.choice([None, rng.gauss(0, 3), rng.gauss(9, 1)]),
                "y": rng.random(),
                "text": rng.choice([None, "p", "q"]),
            }
        )
    return rows


def aggregates():
    return {
        "rows": count(),
        "count": count(e.x),
        "sum": sum(e.x),
        "avg": avg(e.x),
        "std": std(e.x),
        "min": min(e.x),
        "max": max(e.x),
        "first": first(e.x),
        "last": last(e.x),
    }


def closing(kind, *, step=TICK, key="key", where=None, **more):
    taken = KINDS[kind][0](step)
    if where is not None:
        taken = taken.where(where)
    times = {"start": e.window_start, "end": e.window_end, "at": e.event_time}
    given = {**aggregates(), **times, **more}
    return build_rule("closes", taken, [emit(**given)], key=key)


def expected(kind, rows, key="key"):
    """What windows say: (end, key, begin, aggregates)."""
    absolute = [row | {"t": row["t"] + streams.T0} for row in rows]
    return [
        (end, one, begin, oracles.aggregates(window, "x"))
        for end, one, begin, window in KINDS[kind][1](absolute, key)
    ]


def by_place(windows):
    return sorted(windows, key=lambda window: (window[0], str(window[1])))


def check(events, want):
    """Hold derived events against what windows say, in order of time."""
    assert [x.time_ns for x in events] == sorted(x.time_ns for x in events)
    found = []
    for event in events:
        values = dict(event.data["values"])
        begin, end, at = (values.pop(x) for x in ("start", "end", "at"))
        assert end == at == event.time_ns // 1_000_000
        found.append((end, event.key or None, begin, values))
    found, want = by_place(found), by_place(want)
    assert [x[:3] for x in found] == [x[:3] for x in want]
    for (*_, values), (*_, exact) in zip(found, want, strict=True):
        for name, value in values.items():
            if exact[name] is None:
                assert value is None
            else:
                assert value == pytest.approx(exact[name], rel=1e-9, abs=1e-9)


def entering(rows):
    return [r for r in rows if r["type"] == "test.tick" and r["key"] is not None]


@kinds
@pytest.mark.parametrize("seed", range(4))
def test_every_window_that_holds_an_event_is_told_of_once(kind, seed):
    rows = make_rows(seed)
    want = expected(kind, entering(rows))
    assert len(want) > 20
    check(streams.run(closing(kind), rows), want)


@kinds
@pytest.mark.parametrize("size", [1, 7, 100])
@pytest.mark.parametrize("whole", [False, True])
def test_cuts_and_restarts_change_nothing(kind, size, whole):
    rows = make_rows(5, n=150 if size == 1 else 300)
    made = closing(kind, key_of=e.key, p95=quantile(e.x, 0.95), text=last(e.text))
    want = sorted(streams.told(streams.run(made, rows)))
    cuts = streams.every(len(rows), size)
    found = run_with_restarts([made], rows, cuts, range(1, len(cuts) + 1, 2), whole)
    assert sorted(streams.told(found)) == want
    assert len(want) == len(expected(kind, entering(rows)))


@kinds
def test_only_events_that_satisfy_the_conditions_before_enter(kind):
    rows = make_rows(1)
    made = closing(kind, step=TICK.where((e.x > 0) & (e.y < 0.7)))
    few = [r for r in entering(rows) if (r["x"] or 0) > 0 and r["y"] < 0.7]
    check(streams.run(made, rows), expected(kind, few))


@kinds
def test_conditions_behind_are_on_the_window(kind):
    rows = make_rows(2)
    made = closing(kind, where=(count() >= 4) & (avg(e.x) > 3))
    want = [
        window
        for window in expected(kind, entering(rows))
        if window[3]["rows"] >= 4 and (window[3]["avg"] or 0) > 3
    ]
    assert want
    check(streams.run(made, rows), want)


@kinds
def test_without_a_key_the_windows_are_over_all(kind):
    rows = [row | {"key": None} for row in make_rows(3)]
    mine = [row for row in rows if row["type"] == "test.tick"]
    check(streams.run(closing(kind, key=None), rows), expected(kind, mine))


@kinds
def test_windows_are_taken_over_several_types(kind):
    rows = make_rows(4)
    made = closing(kind, step=on("test.tick", "test.tack"))
    check(streams.run(made, rows), expected(kind, [r for r in rows if r["key"]]))


def test_a_key_of_several_fields_splits_and_can_be_read():
    rows = [row | {"n": i % 2} for i, row in enumerate(make_rows(6))]
    step = TICK.tumbling("30ms").where(e.n == 1)
    made = build_rule("r", step, [emit(k=e.key, n=e.n, c=count())], key=["key", "n"])
    found = {(x.time_ns, x.key): x.data["values"] for x in streams.run(made, rows)}
    assert found
    odd = [r for r in entering(rows) if r["n"] == 1]
    for end, key, _, values in expected("tumbling", odd):
        said = {"k": key, "n": 1, "c": values["rows"]}
        assert found.pop((end * 1_000_000, f"{key}/1")) == said
    assert not found


# When -------------------------------------------------------------------------------


def ends(events):
    return [event.time_ns // 1_000_000 - streams.T0 for event in events]


def only_counts(step, **options):
    return build_rule("r", step, [emit(n=count())], **options)


def steps(rule, *parts):
    """Step through (rows, watermark) and return each step's (end, count)."""
    operator, found = Operator([rule]), []
    entry = 0
    for rows, mark in parts:
        rows = [row | {"entry": streams.T0 + entry + i} for i, row in enumerate(rows)]
        entry += len(rows)
        batch = operator.ingest(streams.columns(rows), 0)
        events = operator.step(batch, streams.ns(mark)).events
        counts = [x.data["values"]["n"] for x in events]
        found.append(list(zip(ends(events), counts, strict=True)))
    return found


@pytest.mark.parametrize("later", [[], [{"t": 20}]])
def test_a_window_closes_when_the_watermark_reaches_its_end(later):
    """With or without a further event, and one at the very end is not in it."""
    made = only_counts(TICK.tumbling("10ms"))
    first_part = [{"t": 11}, {"t": 19}]
    assert steps(made, (first_part, 19), (later, 20)) == [[], [(20, 2)]]


def test_a_session_closes_one_gap_after_its_last_event():
    made = only_counts(TICK.session("10ms"))
    parts = [([{"t": 0}], 5), ([{"t": 9}], 18), ([], 19), ([{"t": 19}], 28), ([], 29)]
    assert steps(made, *parts) == [[], [], [(19, 2)], [], [(29, 1)]]


def test_closing_comes_before_the_events_of_that_time_and_after_those_before():
    closed = TICK.tumbling("10ms").where(count() >= 2)
    rule = build_rule(
        "r", seq(closed).next(on("test.tick", name="t")), [emit(x=e.x, n=m.t.x)]
    )
    rows = [{"t": 1, "x": 1.0}, {"t": 9, "x": 2.0}, {"t": 10, "x": 3.0}, {"t": 11}]
    found = streams.run(rule, rows)
    assert [event.data["values"]["x"] for event in found] == [3.0]


def test_a_silent_key_is_told_of_until_its_windows_are_empty_and_not_again():
    made = only_counts(TICK.hopping("40ms", every="10ms"))
    operator = Operator([made])
    operator.step(operator.ingest(streams.columns([{"t": 5}]), 0), streams.ns(6))
    assert operator.waits_for_time()
    nothing = operator.ingest(streams.columns([]), 0)
    found = operator.step(nothing, streams.ns(10**9)).events
    assert ends(found) == [10, 20, 30, 40]
    assert not operator.waits_for_time()
    assert not operator.closes.is_due(streams.ns(10**10))


def test_windows_in_which_nothing_happened_are_not_told_of():
    made = only_counts(TICK.hopping("40ms", every="10ms"))
    rows = [{"t": 5}, {"t": 10_005}]
    near, far = [10, 20, 30, 40], [10_010, 10_020, 10_030, 10_040]
    assert ends(streams.run(made, rows)) == near + far


def test_what_is_still_open_closes_when_the_input_has_ended():
    made = only_counts(TICK.tumbling("1h"))
    rows = [{"t": 5}]
    assert streams.run(made, rows, end=None) == []
    assert len(streams.run(made, rows, end="inf")) == 1


def test_more_windows_at_once_than_are_told_of_in_one_go(monkeypatch):
    rows = [{"t": t, "key": f"k{t % 17}", "x": 1.0} for t in range(0, 900, 3)]
    both = [
        build_rule("a", TICK.hopping("40ms", every="5ms"), [emit(n=count())]),
        build_rule("b", TICK.session("7ms"), [emit(n=count())], key="key"),
    ]
    want = streams.told(streams.run(both, rows))
    assert len(want) > 400
    monkeypatch.setattr(cep.engine.running_closes, "OUT_ROWS", 3)
    assert streams.told(streams.run(both, rows)) == want


# Ids, limits, cooldown --------------------------------------------------------------


def test_the_lineage_is_the_last_event_and_ids_differ_by_the_end():
    made = only_counts(TICK.hopping("40ms", every="10ms"), key="key")
    rows = [{"t": 3, "key": "a", "id": 7}, {"t": 4, "key": "a", "id": 8}]
    found = streams.run(made, rows)
    assert len(found) == len({event.id for event in found}) == 4
    assert {event.lineage for event in found} == {("0" * 25 + "8",)}
    assert [event.steps for event in found] == [("w",)] * 4


def test_ids_differ_where_overlapping_windows_are_bound_together_with_one_event():
    step = on("test.tick", name="w").hopping("40ms", every="10ms")
    rule = build_rule("r", seq(step).then(on("test.tack", name="t")), [emit()])
    found = streams.run(rule, [{"t": 3}, {"t": 45, "type": "test.tack"}])
    assert len(found) == len({event.id for event in found}) == 4
    assert len({event.lineage for event in found}) == 1


def test_a_cooldown_is_counted_from_end_to_end():
    made = only_counts(TICK.hopping("40ms", every="10ms"), cooldown="20ms")
    rows = [{"t": 5}]
    assert ends(streams.run(made, rows)) == [10, 30]


def test_three_windows_in_a_row():
    """A pattern over windows reads the windows that its steps have bound."""
    rising = (
        on("test.tick", name="up")
        .tumbling("10ms")
        .where((count(m.up) == 0) | (first(e.x) > 0))
        .times(3)
        .consecutive()
    )
    rule = build_rule(
        "r",
        rising,
        [emit(begin=first(m.up).window_start, end=e.window_end, n=count())],
        after_match="past_last_event",
    )
    rows = [{"t": t, "x": 1.0 if t < 60 else -1.0} for t in range(0, 90, 3)]
    found = streams.run(rule, rows)
    assert [x.data["values"]["begin"] - streams.T0 for x in found] == [0, 30]
    assert ends(found) == [30, 60]


def test_other_windows_are_seen_as_they_are_at_the_end():
    step = TICK.tumbling("10ms")
    made = build_rule(
        "r",
        step,
        [
            emit(
                n=count(),
                long=count().over("25ms"),
                high=count().where(e.x > 0),
                tocks=count().of("test.tock"),
            )
        ],
    )
    rows = [{"t": t, "x": float(t % 4 - 1)} for t in range(0, 40, 2)]
    rows += [{"t": t, "type": "test.tock", "x": 0.0} for t in (1, 12, 13, 20)]
    found = [event.data["values"] for event in streams.run(made, rows)]
    assert [v["n"] for v in found] == [5, 5, 5, 5]
    assert [v["long"] for v in found] == [5, 10, 12, 12]
    assert [v["high"] for v in found] == [2, 3, 2, 3]
    assert [v["tocks"] for v in found] == [1, 2, 1, 0]


def test_an_event_that_a_function_fails_on_takes_no_window_with_it():
    def fails(x):
        return 1 / x

    step = TICK.where(py(fails, reads=[e.x]) > 0).tumbling("10ms")
    made = build_rule("r", step, [emit(n=count())])
    rows = [{"t": t, "x": float(t), "entry": (t, 0)} for t in range(25)]
    found = streams.run(made, rows)
    assert ends(found) == [10, 20, 30]
    assert [x.data["values"]["n"] for x in found] == [9, 10, 5]


def test_rows_that_limits_made_a_window_forget_are_not_told_of(monkeypatch):
    monkeypatch.setattr(cep.engine.window_plan, "ROWS", 10)
    made = only_counts(TICK.tumbling("1s"), key="key")
    rows = [{"t": i, "key": "a"} for i in range(5)]
    rows += [{"t": 9 + i, "key": "b"} for i in range(9)]
    found = streams.run(made, rows)
    assert [(x.key, x.data["values"]["n"]) for x in found] == [("b", 9)]


@kinds
def test_keys_are_given_back_when_their_windows_are_done(kind):
    rule = closing(kind, key="key", key_of=e.key)
    rows = [
        {"t": 4 * i, "key": f"k{i // 3}", "x": float(i), "type": "test.tick"}
        for i in range(300)
    ]
    want = streams.told(streams.run(rule, rows))
    operator, found, stored = Operator([rule]), [], {}
    for part in streams.cut_batches(
        streams.ordered(operator, rows), streams.every(300, 9)
    ):
        mark = int(part.time[-1]) + 1
        found += operator.step(part, mark).events
        operator.sweep(mark)
        assert operator.keys() < 20
        for name, blob in operator.delta().items():
            stored[name] = blob
            if blob is None:
                del stored[name]
        assert stored == operator.snapshot()
    nothing = operator.ingest(streams.columns([]), 0)
    found += operator.step(nothing, np.iinfo(np.int64).max).events
    assert streams.told(found) == want


# Others -----------------------------------------------------------------------------


def test_tumbling_windows_are_those_of_polars():
    rows = entering(make_rows(8))
    found = streams.run(closing("tumbling"), rows)
    frame = pl.DataFrame(rows).with_columns(
        at=pl.from_epoch(pl.col("t") + streams.T0, time_unit="ms")
    )
    theirs = frame.group_by_dynamic("at", every="30ms", group_by="key").agg(
        n=pl.len(), mean=pl.col("x").mean(), last=pl.col("x").drop_nulls().last()
    )
    want = {(k, at): (n, mean, x) for k, at, n, mean, x in theirs.iter_rows()}
    assert len(found) == len(want) > 20
    for event in found:
        values = event.data["values"]
        begin = datetime.fromtimestamp(values["start"] / 1000, UTC)
        n, mean, latest = want[event.key, begin.replace(tzinfo=None)]
        assert (values["rows"], values["last"]) == (n, latest)
        assert values["avg"] == (mean if mean is None else pytest.approx(mean))


def test_hopping_windows_are_those_of_polars():
    rows = entering(make_rows(9))
    found = streams.run(closing("hopping"), rows)
    frame = pl.DataFrame(rows).with_columns(
        at=pl.from_epoch(pl.col("t") + streams.T0, time_unit="ms")
    )
    options = {"every": "7ms", "period": "30ms", "start_by": "window"}
    theirs = frame.group_by_dynamic("at", group_by="key", **options).agg(n=pl.len())
    want = {(key, at): n for key, at, n in theirs.iter_rows()}
    told = {
        (x.key, datetime.fromtimestamp(x.data["values"]["start"] / 1000, UTC)): x
        for x in found
    }
    # Polars begins with the window of the first row, and leaves out those before.
    both = [(k, at) for k, at in told if (k, at.replace(tzinfo=None)) in want]
    assert len(both) == len(want) > 20
    for key, at in both:
        said = told[key, at].data["values"]["rows"]
        assert said == want[key, at.replace(tzinfo=None)]


# Definitions ------------------------------------------------------------------------


def test_it_reads_as_it_is_written_and_says_what_it_takes():
    step = TICK.where(e.x > 1).hopping("60s", every="1s").where(count() >= 100)
    rule = build_rule("r", step, [emit(spread=std(e.x))], key="key")
    text = (
        "on('test.tick', name='w').where((e.x > 1)).hopping('60s', every='1s')"
        ".where((count() >= 100))"
    )
    assert str(step) == text
    assert str(rule.pattern) == f"seq({text})"
    said = rule.describe()
    taken = "each window hopping('60s', every='1s') when it closes"
    assert f"w: test.tick where (e.x > 1), {taken}, where (count() >= 100)" in said
    assert "test.tick: key, x" in said
    assert "std(e.x) in the step's window of test.tick, per key" in said
    assert rule.sources == ("test.tick",)
    assert "flowchart" in str(rule.diagram())


def test_rules_differ_by_the_windows_they_take():
    made = [
        only_counts(TICK.tumbling("1s")),
        only_counts(TICK.tumbling("2s")),
        only_counts(TICK.hopping("2s", every="1s")),
        only_counts(TICK.session("2s")),
        only_counts(TICK.where(e.x > 1).tumbling("1s")),
        only_counts(TICK.where(e.x > 2).tumbling("1s")),
        only_counts(TICK.tumbling("1s"), key="key"),
    ]
    assert len({rule.hash for rule in made}) == len(made)
    assert only_counts(TICK.tumbling("1s")).hash == made[0].hash


def build(step, **values):
    return lambda: build_rule("r", step(), [emit(**values)], key="key")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (build(lambda: TICK, n=count()), "the aggregate has no window yet"),
        (build(lambda: TICK.where(avg(e.x) > 1)), "let the step take windows"),
        (build(lambda: TICK.tumbling("1s"), x=e.x), "as in last(e.x)"),
        (build(lambda: TICK.tumbling("1s"), x=e.type), "and no single event"),
        (build(lambda: TICK.tumbling("1s"), x=prev(e.x)), "and no single event"),
        (
            build(lambda: TICK.tumbling("1s"), x=ewm(e.x, half_life="1s")),
            "and no single event",
        ),
        (
            build(lambda: TICK.tumbling("1s"), x=py(abs, reads=[e.key])),
            "and no single event",
        ),
        (
            build(lambda: TICK.session("1s"), n=count().where(e.x > 1)),
            "sum(when(condition).then(1).otherwise(0))",
        ),
        (
            build(lambda: TICK.where(avg(e.x).over("1s") > 1).tumbling("1s")),
            "cannot depend on windows",
        ),
        (lambda: TICK.tumbling("1s").session("1s"), "takes windows already"),
        (lambda: TICK.tumbling("1500us"), "whole milliseconds"),
        (lambda: TICK.hopping("1s", every="2s"), "would leave out"),
        (lambda: TICK.hopping("1d", every="1ms"), "begin less often"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, text):
    with pytest.raises((RuleError, InvalidDurationError)) as caught:
        make()
    assert text in str(caught.value)


def test_paired_aggregates_are_there_too():
    made = build_rule(
        "r", TICK.tumbling("10ms"), [emit(v=wavg(e.x, e.y), s=slope(e.x))]
    )
    rows = [{"t": t, "x": 2.0 * t, "y": float(t)} for t in (1, 2, 4)]
    (found,) = streams.run(made, rows)
    want = oracles.pair_aggregates(rows, "x", "y")
    assert found.data["values"]["v"] == pytest.approx(want["wavg"])
    assert found.data["values"]["s"] == pytest.approx(2000.0)


def test_state_with_half_of_what_a_closing_window_needs_is_refused():
    import msgspec

    from tests.engine.test_state import packed

    operator = Operator([closing("hopping")])
    rows = make_rows(1, n=50)
    operator.step(streams.ordered(operator, rows), streams.ns(rows[-1]["t"]))
    state = operator.snapshot()
    name = next(name for name in state if name.startswith("w|"))
    parts = msgspec.msgpack.decode(state[name][6:])
    parts[-1] = parts[-1][:2]
    with pytest.raises(StateVersionError):
        Operator([closing("hopping")]).restore(state | {name: packed(parts)})
