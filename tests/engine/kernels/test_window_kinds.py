"""Windows of every kind and the aggregates over them, against plain Python."""

import math
import random

import numpy as np
import oracles
import polars as pl
import pytest

import cep.engine.window_plan
from cep.engine.operator import Operator
from cep.engine.window_plan import WindowCounts
from cep.errors import RuleError, UnknownEventTypeError
from cep.rules import (
    avg,
    build_rule,
    corr,
    count,
    cov,
    distinct,
    e,
    emit,
    last,
    max,
    on,
    prev,
    quantile,
    rate,
    slope,
    std,
    sum,
    wavg,
)
from tests import streams
from tests.engine.kernels.test_windows import agree, every_aggregate, make_rows

KINDS = {
    "time": (
        lambda a: a.over("20ms"),
        lambda *r, **o: oracles.sliding_window(*r, 20, **o),
    ),
    "long": (
        lambda a: a.over("10s"),
        lambda *r, **o: oracles.sliding_window(*r, 10_000, **o),
    ),
    "one": (
        lambda a: a.over(events=1),
        lambda *r, **o: oracles.last_events(*r, 1, **o),
    ),
    "events": (
        lambda a: a.over(events=13),
        lambda *r, **o: oracles.last_events(*r, 13, **o),
    ),
    "tumbling": (
        lambda a: a.tumbling("30ms"),
        lambda *r, **o: oracles.hopping_window(*r, 30, 30, **o),
    ),
    "hopping": (
        lambda a: a.hopping("30ms", every="7ms"),
        lambda *r, **o: oracles.hopping_window(*r, 30, 7, **o),
    ),
    "session": (
        lambda a: a.session("9ms"),
        lambda *r, **o: oracles.session(*r, 9, **o),
    ),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def two_sided(seed, n=400):
    rng = random.Random(seed)
    rows = make_rows(seed, n)
    for row in rows:
        row["y"] = rng.choice([None, rng.gauss(5, 2), rng.gauss(5, 2), 1.0])
        row["text"] = rng.choice([None, "a", "b", "c", "d"])
        row["t"] += 7  # no window of the clock begins with the first
    return rows


def shown(rows, /, *types, cuts=(), key="key", **values):
    made = build_rule("shows", on(*(types or ["test.tick"])), [emit(**values)], key=key)
    return [x.data["values"] for x in streams.run(made, rows, cuts=cuts)]


def near(want, rel=1e-9, scale=1e-9):
    return want if want is None else pytest.approx(want, rel=rel, abs=scale)


def absolute(rows):
    """Rows with times since the epoch, as the clock's windows see them."""
    return [row | {"t": row["t"] + streams.T0} for row in rows]


@kinds
@pytest.mark.parametrize("seed", range(2))
def test_every_aggregate_of_one_field_equals_the_oracle(kind, seed):
    over, window_of = KINDS[kind]
    rows = two_sided(seed)
    made = every_aggregate(e.x, "1ms", None)
    values = {name: over(_unwindowed(window)) for name, window in made.items()}
    values["text"] = over(last(e.text))
    values["flags"] = over(count(e.flag))
    for i, found in enumerate(shown(rows, **values)):
        window = window_of(absolute(rows), i, key="key")
        agree(found, oracles.aggregates(window, "x"))
        texts = [row["text"] for row in window if row["text"] is not None]
        assert found["text"] == (texts[-1] if texts else None)
        assert found["flags"] == len([r for r in window if r["flag"] is not None])


def _unwindowed(window):
    from cep.rules.windows import Aggregate

    return Aggregate(window.function, window.values)


@kinds
def test_orders_and_differences_of_one_field_equal_the_oracle(kind):
    over, window_of = KINDS[kind]
    rows = two_sided(3)
    quantiles = {f"q{q}": over(quantile(e.x, q / 100)) for q in (0, 10, 50, 99, 100)}
    found = shown(
        rows,
        **quantiles,
        numbers=over(distinct(e.x)),
        texts=over(distinct(e.text)),
        rate=over(rate(e.x)),
    )
    for i, values in enumerate(found):
        window = window_of(absolute(rows), i, key="key")
        present = [row for row in window if row["x"] is not None]
        numbers = [row["x"] for row in present]
        for q in (0, 10, 50, 99, 100):
            assert values[f"q{q}"] == near(oracles.quantile(numbers, q / 100), 1e-14)
        assert values["numbers"] == len(set(numbers))
        assert values["texts"] == len({row["text"] for row in window} - {None})
        passed = present[-1]["t"] - present[0]["t"] if present else 0
        want = (numbers[-1] - numbers[0]) / passed * 1000 if passed else None
        assert values["rate"] == near(want, 1e-12)


@kinds
@pytest.mark.parametrize("seed", range(2))
def test_aggregates_of_two_fields_equal_the_oracle(kind, seed):
    over, window_of = KINDS[kind]
    rows = two_sided(seed, 200)
    found = shown(
        rows,
        cov=over(cov(e.x, e.y)),
        corr=over(corr(e.x, e.y)),
        wavg=over(wavg(e.x, e.y)),
        slope=over(slope(e.x)),
        same=over(corr(e.y, e.y * 3 - 1)),
    )
    for i, values in enumerate(found):
        window = [
            row | {"s": row["t"] / 1000}
            for row in window_of(absolute(rows), i, key="key")
        ]
        want = oracles.pair_aggregates(window, "x", "y")
        for name in ("cov", "wavg"):
            assert values[name] == near(want[name]), name
        assert values["corr"] == near(want["corr"], scale=1e-7)
        times = oracles.pair_aggregates(window, "t", "x")["slope"]
        assert values["slope"] == near(times and times * 1000)
        same = oracles.pair_aggregates(window, "y", "y")["corr"]
        assert values["same"] == near(same)


@kinds
def test_where_and_other_types_enter_and_all_may_look(kind):
    over, window_of = KINDS[kind]
    rows = two_sided(5)
    for i, row in enumerate(rows):
        row["type"] = ("test.tick", "test.tack", "test.tock")[i % 3]
        if row["type"] == "test.tock":
            row["text"] = None
    values = {
        "own": over(sum(e.x)),
        "tacks": over(sum(e.x).of("test.tack")),
        "big": over(count().where(e.x > 1).of("test.tack", "test.tick")),
        "q": over(quantile(e.x, 0.5).of("test.tack")),
    }
    ticks = [i for i, row in enumerate(rows) if row["type"] == "test.tick"]
    for i, found in zip(ticks, shown(rows, **values), strict=True):

        def of(*types, where=lambda row: True, at=i):
            enters = lambda row: row["type"] in types and where(row)  # noqa: E731
            return window_of(absolute(rows), at, key="key", where=enters)

        tacks = oracles.aggregates(of("test.tack"), "x")
        numbers = [r["x"] for r in of("test.tack") if r["x"] is not None]
        big = of("test.tack", "test.tick", where=lambda r: (r["x"] or 0) > 1)
        assert found["own"] == near(oracles.aggregates(of("test.tick"), "x")["sum"])
        assert found["tacks"] == near(tacks["sum"])
        assert found["big"] == len(big)
        assert found["q"] == near(oracles.quantile(numbers, 0.5))


@kinds
@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.slow), 7])
def test_cuts_and_restarts_change_no_bit(kind, size):
    over, _ = KINDS[kind]
    rows = two_sided(6, 150)
    values = {
        "q": over(quantile(e.x, 0.7)),
        "std": over(std(e.x)),
        "sum": over(sum(e.x)),
        "corr": over(corr(e.x, e.y)),
        "slope": over(slope(e.y)),
        "texts": over(distinct(e.text)),
        "text": over(last(e.text)),
        "high": over(max(e.y)),
        "twice": over(avg(e.x - prev(e.x))),
    }
    made = build_rule("shows", on("test.tick"), [emit(**values)], key="key")
    expected = streams.told(streams.run(made, rows))
    operator, found = Operator([made]), []
    n = len(streams.ordered(operator, rows))
    for begin in range(0, n, size):
        batch = streams.ordered(operator, rows)
        part = batch.take(slice(begin, begin + size))
        found += operator.step(part, int(part.time[-1])).events
        state = operator.snapshot()
        operator = Operator([made])
        for text in ("zzz", "d", "b"):
            operator.plan.strings.code(text)
        operator.restore(dict(reversed(state.items())))
        assert operator.snapshot() == state
    assert streams.told(found) == expected


# What windows say of themselves, and refuse ---------------------------------------


def test_windows_read_as_they_are_written():
    where = e.x > 1
    for window, text in [
        (avg(e.x).over("60s"), "avg(e.x).over('60s')"),
        (count().over(events=100, by=[]), "count().over(events=100, by=[])"),
        (sum(e.x).tumbling("1m"), "sum(e.x).tumbling('60s')"),
        (std(e.x).hopping("60s", every="1s"), "std(e.x).hopping('60s', every='1s')"),
        (
            max(e.x).where(where).session("5s", by="key"),
            "max(e.x).where((e.x > 1)).session(gap='5s', by=['key'])",
        ),
        (
            quantile(e.x, 0.9).of("test.tack").over("1s"),
            "quantile(e.x, 0.9).of('test.tack').over('1s')",
        ),
        (corr(e.x, e.y).over("1s"), "corr(e.x, e.y).over('1s')"),
        (prev(e.x, by=[]), "prev(e.x, by=[])"),
    ]:
        assert str(window) == text


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: avg(e.x).over(), "a length of time or a number of events"),
        (lambda: avg(e.x).over("1s", events=3), "and not both"),
        (lambda: avg(e.x).over(events=0), "a whole number of events from 1"),
        (lambda: avg(e.x).over(events=True), "a whole number of events from 1"),
        (lambda: avg(e.x).hopping("1s", every="2s"), "would leave out"),
        (lambda: quantile(e.x, 1.5), "from 0 to 1"),
        (lambda: count().of(), "takes the names of event types"),
    ],
)
def test_what_no_window_can_be_is_refused(make, text):
    with pytest.raises(RuleError) as caught:
        make()
    assert text in str(caught.value)


def test_a_window_over_a_type_that_is_not_there_is_refused():
    with pytest.raises(UnknownEventTypeError):
        shown([], n=count().of("test.tickk").over("1s"))


def test_other_types_are_read_but_are_no_events_of_the_rule():
    made = build_rule(
        "r", on("test.tick"), [emit(n=count().of("test.tock").over("1s", by=[]))]
    )
    assert made.types == ("test.tick",)
    assert made.sources == ("test.tick", "test.tock")


# Two streams ---------------------------------------------------------------------


def test_two_streams_are_correlated_as_of_the_events_of_one():
    rng = random.Random(0)
    rows, t = [], 0
    for i in range(300):
        t += rng.choice([0, 1, 2, 15])
        kind = "test.tick" if i % 2 else "test.tock"
        rows.append({"t": t, "type": kind, "key": "a", "x": rng.gauss(0, 1)})
    other = last(e.x).of("test.tock").over("10ms")
    found = shown(rows, v=corr(e.x, other).over("50ms"), y=other)
    ticks = [dict(row) for row in rows if row["type"] == "test.tick"]
    at = 0
    # Of equal times, the stream of ticks comes first.
    ordered = sorted(rows, key=lambda row: (row["t"], row["type"] == "test.tock"))
    for i, row in enumerate(ordered):
        if row["type"] == "test.tock":
            continue
        before = [
            r
            for r in ordered[:i]
            if r["type"] == "test.tock" and row["t"] - 10 < r["t"]
        ]
        ticks[at]["y"] = before[-1]["x"] if before else None
        assert found[at]["y"] == ticks[at]["y"]
        window = oracles.sliding_window(ticks, at, 50)
        want = oracles.pair_aggregates(window, "x", "y")["corr"]
        assert found[at]["v"] == near(want)
        at += 1
    assert at == len(ticks)


# Where polars means the same -----------------------------------------------------


def test_polars_agrees_where_its_definition_does():
    rows = [row for row in two_sided(8) if row["key"] == "k1"]
    seen = {}
    for row in rows:  # polars' windows include later rows of the same time
        seen[row["t"]] = row
    rows = list(seen.values())
    frame = pl.DataFrame(
        {"t": [row["t"] for row in rows], "x": [row["x"] for row in rows]}
    ).with_columns(at=(pl.col("t") + streams.T0).cast(pl.Datetime("ms")))
    window = {"window_size": "50ms", "closed": "right"}
    theirs = frame.select(
        mean=pl.col("x").rolling_mean_by("at", **window),
        std=pl.col("x").rolling_std_by("at", **window, ddof=0),
        low=pl.col("x").rolling_min_by("at", **window),
        q=pl.col("x").rolling_quantile_by(
            "at", quantile=0.3, interpolation="linear", **window
        ),
    ).to_dicts()
    ours = shown(
        rows,
        mean=avg(e.x).over("50ms"),
        std=std(e.x).over("50ms"),
        low=_unwindowed(every_aggregate(e.x, "1ms", None)["min"]).over("50ms"),
        q=quantile(e.x, 0.3).over("50ms"),
    )
    for a, b in zip(ours, theirs, strict=True):
        for name in a:
            if b[name] is not None:
                assert a[name] == near(b[name], scale=1e-6), name


# Limits --------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_a_key_that_holds_too_many_rows_loses_its_oldest(monkeypatch, size):
    monkeypatch.setattr(cep.engine.window_plan, "ROWS_PER_KEY", 3)
    rows = [{"t": t, "key": "a", "x": float(t)} for t in range(10)]
    operator = Operator(
        [build_rule("r", on("test.tick"), [emit(n=sum(e.x).over("8ms"))])]
    )
    parts = streams.cut_batches(
        streams.ordered(operator, rows), streams.every(10, size)
    )
    found = [x.data["values"]["n"] for x in streams.step_all(operator, parts)]
    assert found == [0, 1, 3, 6, 9, 12, 15, 18, 21, 24]
    assert operator.window_counts() == {
        "test.tick by nothing over('8ms')": WindowCounts(3, 7, 0)
    }


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize("sweeps", [False, True])
def test_too_many_rows_in_all_forget_the_keys_not_seen_for_longest(
    monkeypatch, size, sweeps
):
    monkeypatch.setattr(cep.engine.window_plan, "ROWS_PER_KEY", 4)
    monkeypatch.setattr(cep.engine.window_plan, "ROWS", 6)
    rng = random.Random(2)
    rows = [
        {"t": 3 * t, "key": rng.choice("abcdefg"), "x": float(t)} for t in range(200)
    ]
    made = build_rule("r", on("test.tick"), [emit(n=count().over("40ms"))], key="key")
    operator, found = Operator([made]), []
    for part in streams.cut_batches(
        streams.ordered(operator, rows), streams.every(200, size)
    ):
        found += operator.step(part, int(part.time[-1])).events
        if sweeps:
            operator.sweep(int(part.time[-1]))
    held, seen = {}, []
    for row, event in zip(rows, found, strict=True):
        now, key = row["t"], row["key"]
        held = {k: [t for t in v if t > now - 40] for k, v in held.items()}
        held = {k: v for k, v in held.items() if v}
        mine = held.pop(key, [])
        if len(mine) == 4:
            mine.pop(0)
        while builtin_sum(map(len, held.values())) + len(mine) >= 6:
            held.pop(next(k for k in seen if k in held))
        mine.append(now)
        held[key] = mine
        seen = [k for k in seen if k != key] + [key]
        assert event.data["values"]["n"] == len(mine)
    assert operator.window_counts()["test.tick by key over('40ms')"].forgotten > 5


def builtin_sum(values):
    return math.fsum(values)


def test_memory_follows_what_windows_hold():
    """A burst is given back when its key has calmed down."""
    made = build_rule("r", on("test.tick"), [emit(n=count(e.x).over("1s"))], key="key")
    operator = Operator([made])
    one = streams.columns([{"t": 0, "key": "a", "x": 1.0}])
    for burst in range(20):
        columns = one.take(np.zeros(3_000, np.int64))
        columns.time_ms = streams.T0 + burst * 5_000 + np.arange(3_000) // 30
        batch = operator.ingest(columns, 0)
        operator.step(batch, int(batch.time[-1]))
    assert len(operator._windows[0].tables.times) <= 2**14


def test_an_event_without_a_value_takes_a_place_among_the_last():
    last_two = {"n": count().over(events=2), "sum": sum(e.x).over(events=2)}
    there = sum(e.x).where(~e.x.is_null()).over(events=2)
    rule = build_rule("r", on("test.tick"), [emit(**last_two, there=there)], key="key")
    rows = [{"t": t, "key": "a", "x": x} for t, x in enumerate([1, None, 4, None, 16])]
    values = [event.data["values"] for event in streams.run(rule, rows)]
    assert [x["n"] for x in values] == [1, 2, 2, 2, 2]
    assert [x["sum"] for x in values] == [1, 1, 4, 4, 16]
    assert [x["there"] for x in values] == [1, 1, 5, 5, 20]
