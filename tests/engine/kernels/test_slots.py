"""Previous values and weighted means against plain Python, through rules."""

import datetime as dt

import oracles
import pandas as pd
import pytest

import cep.engine.running_slots
from cep.engine.operator import Operator
from cep.rules import build_rule, e, emit, ewm, on, prev, seq
from tests import streams
from tests.engine.kernels.test_windows import make_rows


def shown(rows, *types, key="key", cuts=(), **values):
    made = build_rule("shows", on(*(types or ["test.tick"])), [emit(**values)], key=key)
    return [x.data["values"] for x in streams.run(made, rows, cuts=cuts)]


@pytest.mark.parametrize("by", [None, [], ["key"]])
@pytest.mark.parametrize("seed", range(3))
def test_previous_values_are_those_of_the_event_before_of_the_key(seed, by):
    rows = make_rows(seed)
    for i, row in enumerate(rows):
        row["text"] = None if i % 7 == 0 else f"t{i % 5}"
    values = {"x": prev(e.x, by=by), "text": prev(e.text, by=by)}
    values |= {"twice": prev(e.x * 2, by=by), "flag": prev(e.flag, by=by)}
    key = None if by == [] else "key"
    for row in rows:
        row["twice"] = None if row["x"] is None else row["x"] * 2
    plain = [{k: v for k, v in row.items() if k != "twice"} for row in rows]
    for i, found in enumerate(shown(plain, **values)):
        for name in values:
            assert found[name] == oracles.previous(rows, i, name, key), name


def test_the_previous_event_is_one_of_the_types_of_the_step():
    rows = make_rows(1)
    for i, row in enumerate(rows):
        row["type"] = "test.tack" if i % 3 else "test.tick"
    tacks = [row for row in rows if row["type"] == "test.tack"]
    for i, found in enumerate(shown(rows, "test.tack", x=prev(e.x))):
        assert found["x"] == oracles.previous(tacks, i, "x", "key")
    for i, found in enumerate(shown(rows, "test.tack", "test.tick", x=prev(e.x))):
        assert found["x"] == oracles.previous(rows, i, "x", "key")


def test_a_condition_may_compare_with_the_previous_value():
    up = on("test.tick", name="up").where(e.x > prev(e.x))
    down = on("test.tick", name="down").where(e.x < prev(e.x))
    made = build_rule("peaks", seq(up).next(down), [emit(at=prev(e.x))])
    rows = [{"t": t, "x": float(x)} for t, x in enumerate([1, 2, 1, 1, 3, 2, 5])]
    assert [x.data["values"]["at"] for x in streams.run(made, rows)] == [2, 3]


@pytest.mark.parametrize("half_life", [1, 25, 10_000])
@pytest.mark.parametrize("seed", range(2))
def test_a_weighted_mean_equals_the_oracle_and_that_of_pandas(seed, half_life):
    rows = make_rows(seed)
    found = shown(rows, x=ewm(e.x, half_life=f"{half_life}ms"))
    for i, values in enumerate(found):
        want = oracles.weighted_mean(rows, i, "x", half_life, "key")
        assert values["x"] == (want and pytest.approx(want, rel=1e-9, abs=1e-12))
    mine = [i for i, r in enumerate(rows) if r["key"] == "k1" and r["x"] is not None]
    frame = pd.Series([rows[i]["x"] for i in mine])
    times = pd.to_datetime([rows[i]["t"] for i in mine], unit="ms")
    theirs = frame.ewm(
        halflife=dt.timedelta(milliseconds=half_life), times=times
    ).mean()
    assert [found[i]["x"] for i in mine] == pytest.approx(list(theirs), rel=1e-9)


def test_a_weighted_mean_outlasts_any_silence_and_passes_over_the_absurd():
    rows = [{"t": 0, "x": 3.0}, {"t": 10**9}, {"t": 2 * 10**9, "x": 1e300}]
    rows.append({"t": 2 * 10**9 + 1, "x": 7.0})
    found = shown(rows, key=None, x=ewm(e.x, half_life="1ms"))
    assert [v["x"] for v in found] == [3.0, 3.0, 3.0, 7.0]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_keys_not_seen_for_longest_are_forgotten_at_a_limit(monkeypatch, size):
    monkeypatch.setattr(cep.engine.running_slots, "KEYS", 3)
    rows = [{"t": t, "key": key, "x": float(t)} for t, key in enumerate("abcadbaad")]
    found = shown(rows, cuts=streams.every(len(rows), size), x=prev(e.x))
    #         a     b     c     a    d     b     a    a    d
    assert [v["x"] for v in found] == [None, None, None, 0, None, None, 3, 6, 4]
    operator = Operator(
        [build_rule("r", on("test.tick"), [emit(x=prev(e.x))], key="key")]
    )
    batch = streams.ordered(operator, rows)
    operator.step(batch.take(slice(0, 4)), int(batch.time[4]))
    restored = Operator(operator.plan.rules)
    restored.restore(operator.delta())
    batch = streams.ordered(restored, rows)
    events = restored.step(batch.take(slice(4, None)), int(batch.time[-1])).events
    assert [x.data["values"]["x"] for x in events] == [None, None, 3, 6, 4]
    assert restored.window_counts()["test.tick by key before"].forgotten == 2
    assert sum(v is None for n, v in restored.delta().items() if n[0] == "s") == 1
    assert len([n for n in restored.snapshot() if n[0] == "s"]) == 3
