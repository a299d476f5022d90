"""Rules that call Python functions."""

import random
import re
from collections import Counter

import polars as pl
import pytest
import streams

from cep import (
    avg,
    count,
    e,
    emit,
    last,
    m,
    on,
    py,
    rule,
    run_rules,
    sample,
    seq,
)
from cep.engine import python_calls
from cep.engine.operator import Operator
from cep.errors import RuleError
from cep.rules import build_rule


def calling(name, *functions):
    @rule(name)
    def made():
        step = on("market.trade")
        for function in functions:
            step = step.where(py(function, reads=[e.price]) == 1)
        return step, emit(price=e.price)

    return made


def above(price):
    return price > 100


def below(price):
    return price < 100


def test_functions_of_one_name_are_told_apart_by_what_they_do():
    frame = sample.frame("market.events").filter(pl.col("type") == "market.trade")
    prices = frame["price"].head(500)
    middle = prices.median()
    high, low = (
        calling("high", lambda p: p > middle),
        calling("low", lambda p: p < middle),
    )
    counts = run_rules([high, low], frame.head(500)).counts
    assert counts["high"].matches == (prices > middle).sum()
    assert counts["low"].matches == (prices < middle).sum()


def test_functions_that_cannot_be_told_apart_are_refused():
    functions = [lambda p: p > 100, lambda p: p > 100]
    for rules in (
        [calling("both", *functions)],
        [calling("one", functions[0]), calling("two", functions[1])],
    ):
        with pytest.raises(RuleError, match=r"has the same name\. Write it with def"):
            Operator(rules)


def test_one_function_in_several_rules_is_fine():
    Operator([calling("one", above, below), calling("two", above)])


def test_what_failed_is_told_with_its_place_and_nothing_of_the_event():
    def fails(price):
        raise LookupError(f"no such price: {price}")

    frame = sample.frame("market.events").filter(pl.col("type") == "market.trade")
    result = run_rules(calling("fails", fails), frame.head(3))
    assert [failure.rule for failure in result.failures] == ["fails"] * 3
    assert re.fullmatch(
        r"py\(.*fails, reads=\[e\.price\]\) raised LookupError at test_python\.py:\d+",
        result.failures[0].what,
    )
    assert "3 events on which it failed" in str(result)


@pytest.mark.parametrize(
    ("answer", "told"),
    [("secret", "returned a str, not a number"), ([1], "returned a list, not a")],
)
def test_an_answer_that_is_no_number_is_a_failure(answer, told):
    def answers(price):
        return answer

    result = run_rules(calling("answers", answers), sample.frame("market.events")[:50])
    assert result.events == []
    assert {told in failure.what for failure in result.failures} == {True}
    assert "secret" not in result.failures[0].what


# Which events a rule sees, and when it trips ----------------------------------------


def fails_at(*bad):
    """A function that fails on events whose x is one of some."""

    def picky(x):
        if x in bad:
            raise ValueError
        return True

    return picky


def rising(function=None, name="rising"):
    """Two rising values in a row, then none for long: strict, iterative, absent."""
    low, high = on("test.tick", name="low"), on("test.tick", name="high")
    if function is not None:
        low = low.where(py(function, reads=[e.x]))
    high = high.where(e.x > last(m.low).x)
    quiet = on("test.tick", name="quiet").where(e.x > 50)
    pattern = seq(low).next(high).not_then(quiet).within("60s")
    return build_rule(name, pattern, [emit(x=m.high.x)])


def run(rules, rows, cut=None, restart=False):
    """Run over rows in batches of ``cut``; return ids, failures and the operator."""
    operator = Operator(rules)
    ids, failures, state = Counter(), Counter(), {}
    cut = cut or max(1, len(rows))
    for at in range(0, len(rows), cut):
        batch = operator.ingest(streams.columns(rows[at : at + cut]), 0)
        later = rows[at + cut : at + cut + 1]
        mark = (streams.T0 + later[0]["t"]) * 10**6 if later else 2**62
        outputs = operator.step(batch, mark)
        ids.update(event.id for event in outputs.events)
        failures.update((f.rule, f.entry_ms, f.time_ns) for f in outputs.failures)
        if restart:
            for name, blob in operator.delta().items():
                state.pop(name, None) if blob is None else state.update({name: blob})
            operator = Operator(rules)
            operator.restore(state)
    return ids, failures, operator


def made_rows(random_, n=80, every=1000):
    return [
        {
            "t": i * every + random_.randrange(every),
            "x": float(random_.randrange(9)),
            "entry": streams.T0 + i,
        }
        for i in range(n)
    ]


@pytest.mark.parametrize("seed", range(6))
def test_a_rule_does_not_see_what_it_failed_on_and_others_see_all(seed):
    rows = made_rows(random.Random(seed), every=20_000)
    kept = [row for row in rows if row["x"] not in (3, 7)]
    expected, none, _ = run([rising()], kept)
    assert len(expected) > 3
    assert not none
    found, failures, operator = run([rising(fails_at(3, 7))], rows)
    assert found == expected
    assert failures.total() == len(rows) - len(kept)
    assert not operator.counts()["rising"].tripped
    assert operator.counts()["rising"].errors == failures.total()
    others, _, _ = run([rising(name="other")], rows)
    both, _, _ = run([rising(fails_at(3, 7)), rising(name="other")], rows)
    assert both == others + found


@pytest.mark.parametrize("seed", range(6))
def test_failures_and_the_trip_do_not_depend_on_batches_and_restarts(seed):
    rows = made_rows(random.Random(seed), n=150, every=4000)
    rules = [rising(fails_at(3, 7)), rising(name="other")]
    expected, failures, operator = run(rules, rows)
    counts = operator.counts()
    assert counts["rising"].tripped_why == "errors"
    assert not counts["other"].tripped
    for cut in (1, 2, 7):
        for restart in (False, True):
            found, failed, again = run(rules, rows, cut, restart)
            assert found == expected
            assert failed == failures
            assert again.counts()["rising"].tripped


@pytest.mark.parametrize(
    ("times", "errors", "trips"),
    [
        ([0, 1, 2, 3], 4, False),
        ([0, 1, 2, 3, 60_000, 60_000], 5, True),
        ([0, 1, 2, 3, 60_001], 5, False),
        ([0, 1, 2, 3, 60_001, 60_001, 60_002], 6, True),
        ([5, 5, 5, 5, 5, 6], 5, True),
    ],
)
def test_five_errors_within_a_minute_of_event_time_trip(times, errors, trips):
    rows = [{"t": t, "x": 1.0} for t in times]
    rule_ = build_rule(
        "r", on("test.tick").where(py(fails_at(1.0), [e.x])), [emit(x=e.x)]
    )
    _, failures, operator = run([rule_], rows)
    assert (failures.total(), operator.counts()["r"].tripped) == (errors, trips)


def test_a_tripped_rule_calls_its_functions_no_more():
    calls = []

    def fails(x):
        calls.append(x)
        raise ValueError

    rule_ = build_rule("r", on("test.tick").where(py(fails, [e.x])), [emit()])
    run([rule_], [{"t": t, "x": 1.0} for t in range(50)], cut=10)
    assert len(calls) == 10


def test_a_window_counts_the_event_without_the_value():
    rule_ = build_rule(
        "r",
        on("test.tick"),
        [emit(n=count().over("10s"), mean=avg(py(picky_half, [e.x])).over("10s"))],
    )
    rows = [{"t": t, "x": x} for t, x in enumerate([2.0, 3.0, 4.0])]
    events = streams.run(rule_, rows)
    assert [event.data["values"] for event in events] == [
        {"n": 1, "mean": 1.0},
        {"n": 3, "mean": 1.5},
    ]


def picky_half(x):
    if x % 2:
        raise ArithmeticError
    return x / 2


def test_a_slow_function_is_told_and_changes_nothing(monkeypatch):
    monkeypatch.setattr(python_calls, "SLOW_SECONDS", -1.0)
    rule_ = build_rule("r", on("test.tick").where(py(fails_at(), [e.x])), [emit()])
    ids, _, operator = run([rule_], [{"t": 0, "x": 1.0}])
    assert len(ids) == 1
    [(name, cost)] = operator.python_calls.slow().items()
    assert name.startswith("py(")
    assert (cost.events, cost.worst_events) == (1, 1)
    monkeypatch.setattr(python_calls, "SLOW_SECONDS", 1e9)
    assert operator.python_calls.slow() == {}


@pytest.mark.parametrize("cut", [None, 1, 7])
def test_rows_that_tell_of_windows_do_not_shift_what_failed(cut):
    rows = made_rows(random.Random(3), every=20_000)
    step = on("test.tick").tumbling("10s").where(count() >= 1)
    told = build_rule("told", step, [emit(n=count())])
    alone, _, _ = run([rising(fails_at(3, 7))], rows)
    windows, _, _ = run([told], rows)
    both, failures, _ = run([rising(fails_at(3, 7)), told], rows, cut)
    assert both == alone + windows
    failed = {row["entry"] for row in rows if row["x"] in (3, 7)}
    assert {entry_ms for _, entry_ms, _ in failures} == failed
