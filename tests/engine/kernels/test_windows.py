"""Sliding windows against plain Python, through rules that emit what they see."""

import math
import random

import numpy as np
import oracles
import pytest

from cep.engine.operator import Operator
from cep.events.columns import Column
from cep.rules import (
    avg,
    count,
    e,
    emit,
    first,
    last,
    max,
    min,
    on,
    rule,
    std,
    sum,
    var,
)
from tests import streams

NAMES = ["rows", "count", "sum", "avg", "var", "std", "min", "max", "first", "last"]


def every_aggregate(field, length, by, where=None):
    """All aggregates of one field over one window, as emitted fields."""
    made = {
        "rows": count(),
        "count": count(field),
        "sum": sum(field),
        "avg": avg(field),
        "var": var(field),
        "std": std(field),
        "min": min(field),
        "max": max(field),
        "first": first(field),
        "last": last(field),
    }
    return {
        name: (value if where is None else value.where(where)).over(length, by=by)
        for name, value in made.items()
    }


def teller(length="10ms", by="key", where=None, field=e.x):
    """A rule that emits all aggregates at every event."""

    @rule("teller")
    def made():
        return on("test.tick"), emit(**every_aggregate(field, length, by, where))

    return made


def make_rows(seed, n=400, keys=5):
    """Ties and gaps in time, absent values, values on a grid so that equals occur."""
    rng = random.Random(seed)
    t, rows = 0, []
    for _ in range(n):
        t += rng.choice([0, 0, 1, 1, 2, 3, 40])
        rows.append(
            {
                "t": t,
                "key": f"k{rng.randrange(keys)}",
                "x": rng.choice([None, rng.randrange(-20, 20) / 4, rng.gauss(0, 1e3)]),
                "flag": rng.choice([True, False, None]),
            }
        )
    return rows


def agree(found, expected):
    for name in NAMES:
        want, got = expected[name], found[name]
        if want is None or isinstance(want, int):
            assert got == want, name
        else:
            # A deviation near zero is what rounding leaves of it.
            assert got == pytest.approx(want, rel=1e-12, abs=1e-9), name


def values_of(events):
    return [event.data["values"] for event in events]


@pytest.mark.parametrize("length", [1, 2, 7, 64, 10**6])
@pytest.mark.parametrize("seed", range(4))
def test_every_aggregate_of_every_key_equals_the_oracle(seed, length):
    rows = make_rows(seed)
    found = values_of(streams.run(teller(f"{length}ms"), rows))
    assert len(found) == len(rows)
    for i, values in enumerate(found):
        window = oracles.sliding_window(rows, i, length, "key")
        agree(values, oracles.aggregates(window, "x"))


@pytest.mark.parametrize("seed", range(2))
def test_where_limits_which_events_enter_and_all_may_look(seed):
    rows = make_rows(seed)
    made = teller("20ms", where=(e.x > -2) & (e.flag == True))  # noqa: E712
    for i, values in enumerate(values_of(streams.run(made, rows))):
        window = oracles.sliding_window(
            rows,
            i,
            20,
            "key",
            lambda row: row["x"] is not None and row["x"] > -2 and row["flag"] is True,
        )
        agree(values, oracles.aggregates(window, "x"))


def test_a_window_over_all_events_and_one_by_two_fields_do_not_mix():
    rows = make_rows(7)
    for row in rows:
        row["text"] = "odd" if row["t"] % 2 else "even"
        row["both"] = (row["key"], row["text"])

    @rule("two", key="key")
    def two():
        apart = every_aggregate(e.x, "30ms", ["key", "text"])
        together = every_aggregate(e.x, "30ms", [])
        return on("test.tick"), emit(**apart), emit(**together)

    plain = [{k: v for k, v in row.items() if k != "both"} for row in rows]
    found = values_of(streams.run(two, plain))
    for i in range(len(rows)):
        window = oracles.sliding_window(rows, i, 30, "both")
        agree(found[2 * i], oracles.aggregates(window, "x"))
        window = oracles.sliding_window(rows, i, 30)
        agree(found[2 * i + 1], oracles.aggregates(window, "x"))


def test_an_event_exactly_as_old_as_the_window_has_left():
    rows = [{"t": t, "key": "a", "x": 1.0} for t in (0, 9, 10, 19, 20)]
    assert [v["rows"] for v in values_of(streams.run(teller("10ms"), rows))] == [
        1,
        2,
        2,
        2,
        2,
    ]


def test_of_equal_times_an_earlier_event_does_not_see_a_later_one():
    rows = [{"t": 5, "key": "a", "x": float(x)} for x in (1, 2, 3)]
    found = values_of(streams.run(teller("10ms"), rows))
    assert [v["sum"] for v in found] == [1, 3, 6]
    assert [v["last"] for v in found] == [1, 2, 3]


def test_events_of_other_types_neither_enter_nor_shift_a_window():
    rows = make_rows(3)
    for i, row in enumerate(rows):
        row["type"] = "test.tack" if i % 3 == 0 else "test.tick"
    ticks = [row for row in rows if row["type"] == "test.tick"]
    made = teller("15ms")

    @rule("other")
    def other():
        return on("test.tack"), emit(n=count().over("15ms", by="key"))

    events = streams.run([made, other], rows)
    found = values_of(x for x in events if x.rule == "teller")
    for i, values in enumerate(found):
        window = oracles.sliding_window(ticks, i, 15, "key")
        agree(values, oracles.aggregates(window, "x"))


def test_an_event_without_the_key_sees_no_window():
    rows = [{"t": 0, "key": "a", "x": 1.0}, {"t": 1, "x": 2.0}]
    assert values_of(streams.run(teller(), rows))[1] == dict.fromkeys(NAMES)


def test_keys_may_be_numbers_and_truth_values():
    rows = make_rows(5)
    for row in rows:
        row["number_key"] = len(row["key"] + str(row["t"])) / 2
        row["pair"] = (row["number_key"], row["flag"])

    made = teller("25ms", by=["number_key", "flag"])
    plain = [{k: v for k, v in row.items() if k != "pair"} for row in rows]
    for i, values in enumerate(values_of(streams.run(made, plain))):
        if rows[i]["flag"] is None:
            assert values["rows"] is None
            continue
        window = oracles.sliding_window(rows, i, 25, "pair")
        agree(values, oracles.aggregates(window, "x"))


def test_an_aggregate_may_be_of_a_computed_value():
    rows = make_rows(11)
    made = teller("12ms", field=abs(e.x) * 2 - 1)
    for row in rows:
        row["y"] = None if row["x"] is None else abs(row["x"]) * 2 - 1
    for i, values in enumerate(values_of(streams.run(made, rows))):
        window = oracles.sliding_window(rows, i, 12, "key")
        agree(values, oracles.aggregates(window, "y"))


# Numerics ----------------------------------------------------------------------


def column_run(made, times_ms, x, every):
    """Run over columns made directly; the rule sees a flag at every so many rows."""
    n = len(x)
    columns = streams.columns([{"t": 0, "key": "a", "x": 0.0, "flag": False}])
    columns = columns.take(np.zeros(n, np.int64))
    columns.entry_ms = streams.T0 + np.arange(n)
    columns.time_ms = streams.T0 + times_ms
    columns.id_lo = np.arange(n).astype(np.uint64)
    columns.fields["x"] = Column("float", x)
    columns.fields["flag"] = Column("bool", np.arange(n) % every == every - 1)
    operator = Operator([made])
    batch = operator.ingest(columns, 0)
    return values_of(operator.step(batch, int(batch.time[-1])).events)


def sampler(length):
    @rule("sampler")
    def made():
        seen = on("test.tick").where(e.flag == True)  # noqa: E712
        return seen, emit(**every_aggregate(e.x, length, "key"))

    return made


def exact(x, times, i, length):
    begin = np.searchsorted(times, times[i] - length, side="right")
    values = x[begin : i + 1].tolist()
    n = len(values)
    mean = math.fsum(values) / n
    return {
        "sum": math.fsum(values),
        "avg": mean,
        # Squares of values so far from zero need the shift to be exact here.
        "var": math.fsum((v - mean) ** 2 for v in values) / n,
        "min": min(values),
        "max": max(values),
    }


@pytest.mark.slow
@pytest.mark.parametrize("length", [100, 5_000, 200_000])
def test_deviation_at_price_64000_keeps_nine_digits_over_300000_events(length):
    rng = np.random.default_rng(0)
    n = 300_000
    x = 64_000 + 0.5 * rng.standard_normal(n)
    times = np.cumsum(rng.integers(0, 3, n))
    found = column_run(sampler(f"{length}ms"), times, x, every=7_500)
    assert len(found) == 40
    for j, values in enumerate(found):
        want = exact(x, times, 7_500 * (j + 1) - 1, length)
        for name in ("sum", "avg", "var"):
            assert values[name] == pytest.approx(want[name], rel=1e-9), name
        assert values["std"] == pytest.approx(math.sqrt(want["var"]), rel=1e-9)
        assert (values["min"], values["max"]) == (want["min"], want["max"])


@pytest.mark.parametrize("outlier", [1e12, 1e20, -1e30, 1e130, 1e300, 1.7e308])
def test_an_absurd_value_leaves_no_trace_once_it_has_left(outlier):
    """One wrong payload must not spoil the deviation of a busy key for ever."""
    rng = np.random.default_rng(1)
    n = 3_000
    x = 64_000 + 0.5 * rng.standard_normal(n)
    x[[500, 501, 900]] = outlier, outlier / 3, -outlier
    times = np.arange(n)
    found = column_run(sampler("100ms"), times, x, every=50)
    for j, values in enumerate(found):
        i = 50 * (j + 1) - 1
        if np.abs(x[max(0, i - 99) : i + 1]).max() > 1e6:
            continue
        want = exact(x, times, i, 100)
        for name in ("sum", "avg", "var"):
            assert values[name] == pytest.approx(want[name], rel=1e-9), name


def test_values_that_fall_slowly_from_an_absurd_height_leave_no_trace():
    n = 6_000
    x = 64_000 + 0.5 * np.random.default_rng(2).standard_normal(n)
    x[:4_000] += 1e25 * 0.985 ** np.arange(4_000)
    found = column_run(sampler("500ms"), np.arange(n), x, every=100)
    for j in range(50, 60):
        want = exact(x, np.arange(n), 100 * (j + 1) - 1, 500)
        for name in ("sum", "avg", "var"):
            assert found[j][name] == pytest.approx(want[name], rel=1e-9), name


def test_equal_values_have_no_deviation():
    rows = [{"t": t, "key": "a", "x": 0.1} for t in range(200)]
    for values in values_of(streams.run(teller("50ms"), rows)):
        assert values["std"] == pytest.approx(0, abs=1e-15)
        assert values["avg"] == pytest.approx(0.1, rel=1e-15)


@pytest.mark.parametrize("x", [14.16, 0.1, 165.98, 64_000.7, -1e-7 / 3])
def test_the_mean_of_equal_values_is_theirs_whatever_was_there_before(x):
    """Else `abs(e.x - mean) > 3 * deviation` is true of them, by rounding alone."""
    rng = np.random.default_rng(3)
    values = np.concatenate([x * rng.lognormal(0, 0.01, 3_000), np.full(600, x)])
    found = column_run(sampler("200ms"), np.arange(values.size), values, every=1)
    for row in found[3_200:]:
        assert row["avg"] == x
        assert row["std"] == pytest.approx(0, abs=1e-9 * abs(x))


@pytest.mark.slow
def test_a_window_of_many_rows_grows_and_empties():
    n = 50_000
    times = np.concatenate([np.arange(n), [10 * n]])
    x = np.arange(n + 1, dtype=float)
    found = column_run(sampler(f"{2 * n}ms"), times, x, every=n + 1)
    assert found[0]["rows"] == 1
    assert found[0]["sum"] == n
