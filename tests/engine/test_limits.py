"""The limits on what one event may put out."""

import itertools

import pytest

import cep
from cep.engine import operator as operators
from cep.engine.operator import Operator
from cep.errors import UsageError
from cep.rules import Limits, build_rule, e, emit, on, seq
from tests import streams

POLICIES = ["drop_oldest", "drop_new", "trip"]


def closure(policy="drop_oldest", *, name="r", matches=8, held=10**6, **options):
    """Every subset of the events so far that holds the last one."""
    limits = Limits(
        partials_per_key=64,
        policy=policy,
        matches_per_event=matches,
        bindings_per_event=held,
    )
    some = on("test.tick", name="some").where(e.x > 0).one_or_more()
    pattern = seq(some.any_combination())
    return build_rule(name, pattern, [emit()], key="key", limits=limits, **options)


def equals(n, keys=("k",)):
    return [{"t": 0, "key": key, "x": 1} for _ in range(n) for key in keys]


def go(rule, rows, size, *, restart=False, end=0):
    operator, found, dropped = Operator([rule]), [], 0
    for begin in range(0, len(rows), size):
        if restart:
            dropped += operator.counts()["r"].dropped_outputs
            state, operator = operator.snapshot(), Operator([rule])
            operator.restore(state)
        part = streams.ordered(operator, rows).take(slice(begin, begin + size))
        found += operator.step(part, int(part.time[-1])).events
    found += operator.step(part.take(slice(0, 0)), streams.ns(end)).events
    counts = operator.counts()["r"]
    counts.dropped_outputs += dropped
    return [event.id for event in found], counts


@pytest.mark.parametrize("policy", POLICIES)
def test_closure_over_equal_events_meets_its_limit_however_it_is_cut(policy):
    rows = equals(40, keys=("k", "l"))
    whole, counts = go(closure(policy), rows, len(rows))
    assert len(set(whole)) == len(whole)
    for size, restart in itertools.product((1, 7, 64), (False, True)):
        ids, again = go(closure(policy), rows, size, restart=restart)
        assert sorted(ids) == sorted(whole)
        assert again.tripped == counts.tripped
        assert again.dropped_outputs == counts.dropped_outputs
    assert counts.tripped == (policy == "trip")
    if policy == "trip":
        # Events 1 to 4 have 1, 2, 4 and 8 subsets; of the fifth's 16 come 8.
        assert len(whole) == 15 + 15 + 8
        assert counts.dropped_outputs == 8
    else:
        assert len(whole) == 2 * (15 + 36 * 8)
        assert counts.dropped_outputs > 1_000


def test_what_began_first_comes_out_and_of_one_beginning_the_longest():
    rule = closure(matches=2)
    operator = Operator([rule])
    batch = streams.ordered(operator, equals(3))
    last = operator.step(batch, 2**62).events[-2:]
    assert [len(x.lineage) for x in last] == [3, 2]
    assert last[0].lineage[0] == last[1].lineage[0]
    assert operator.counts()["r"].dropped_outputs == 2


def test_one_match_comes_out_however_long_it_is():
    ids, counts = go(closure(held=1), equals(3), 3)
    assert (len(ids), counts.dropped_outputs) == (3, 1 + 3)


def test_what_a_cooldown_suppresses_does_not_count():
    ids, counts = go(closure("trip", matches=1, cooldown="1s"), equals(4), 1)
    assert len(ids) == 1
    assert (counts.suppressed, counts.dropped_outputs, counts.tripped) == (14, 0, False)


@pytest.mark.parametrize("policy", POLICIES)
def test_time_outs_of_one_moment_are_limited_as_well(policy):
    begin = on("test.tick", name="a").where(e.x > 0)
    pattern = seq(begin).then(on("test.tick", name="b").where(e.x < 0)).within("5ms")
    limits = Limits(policy=policy, matches_per_event=3)
    rule = build_rule("r", pattern, [emit()], on_timeout=emit(), limits=limits)
    rows = equals(5) + [{"t": 1, "x": 1}] * 2
    outcomes = [go(rule, rows, size, end=9) for size in (1, 3, 7)]
    assert outcomes[0] == outcomes[1] == outcomes[2]
    ids, counts = outcomes[0]
    # Five run out at one moment, two at the next, which a stopped rule drops.
    assert len(ids) == (3 if policy == "trip" else 5)
    assert counts.dropped_outputs == 2


def test_pieces_hold_together_what_a_step_returns(monkeypatch):
    monkeypatch.setattr(operators, "PIECE_BINDINGS", 200)
    monkeypatch.setattr("cep.engine.plan.OUT_BINDINGS", 100)
    monkeypatch.setattr(operators, "PART_ROWS", 16)
    rules = [closure(matches=64, held=500), closure(name="one", matches=1)]
    rows = equals(40, keys=("k", "l"))
    operator = Operator(rules)
    batch = streams.ordered(operator, rows)
    pieces = []
    pieces.append(operator.step(batch, 2**62, take=pieces.append))
    assert len(pieces) > 20
    for piece in pieces:
        assert sum(len(x.id_hi) for x in piece.matches) <= 200 + 2 * (500 + 40)
    other = Operator(rules)
    whole = other.step(streams.ordered(other, rows), 2**62)
    found = [x.id for piece in pieces for x in piece.events]
    assert sorted(found) == sorted(x.id for x in whole.events)


def trades(n):
    import polars as pl

    columns = {
        "type": ["market.trade"] * n,
        "event_time": pl.Series([0] * n).cast(pl.Datetime("ms", "UTC")),
        "symbol": ["X"] * n,
        "price": [1.0] * n,
        "quantity": [1.0] * n,
    }
    return pl.DataFrame(columns)


def every_run(**limits):
    trade = on("market.trade", name="a").one_or_more()
    return build_rule("runs", trade, [emit()], limits=Limits(**limits))


def test_the_printed_result_and_the_account_of_a_rule_name_the_limit():
    rule = every_run(matches_per_event=3)
    said = "limit: 3 matches an event and key, holding 10000 events"
    assert said in rule.describe()
    text = str(cep.run_rules(rule, trades(5)))
    assert "12 derived" in text
    assert "3 matches dropped at its limit of one event" in text


def test_a_result_that_would_grow_too_large_is_refused_with_the_rule_named():
    with pytest.raises(UsageError) as caught:
        cep.run_rules(every_run(), trades(60), most=500)
    assert "Rule 'runs' derives more than a result may hold: " in str(caught.value)
    assert "500 are allowed. Give the rule a cooldown" in str(caught.value)
