"""How the input is cut into batches changes nothing."""

import dataclasses
import functools
import runpy
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import cep
from cep.engine.operator import Operator
from tests import random_rules, streams

SETTINGS = settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def outcome(rules, batch_of, cuts):
    operator = Operator(rules)
    batch = batch_of(operator)
    events = streams.step_all(operator, streams.cut_batches(batch, cuts), end="inf")
    counts = [dataclasses.astuple(c) for c in operator.counts().values()]
    return sorted(streams.told(events)), counts


@pytest.mark.slow
@SETTINGS
@given(st.data())
def test_random_rules_over_random_rows(data):
    rule = data.draw(random_rules.rules())
    assume(rule is not None)
    rows = data.draw(random_rules.rows())
    n = len(rows)

    def batch_of(operator):
        return streams.ordered(operator, rows)

    whole = outcome([rule], batch_of, [])
    assert outcome([rule], batch_of, streams.every(n, 1)) == whole
    assert outcome([rule], batch_of, streams.every(n, 7)) == whole
    cuts = data.draw(st.lists(st.integers(0, n), max_size=5))
    assert outcome([rule], batch_of, cuts) == whole


# The rules of the demo, over the bundled sample --------------------------------

PIPELINE = Path(__file__).parents[2] / "pipelines" / "market_ai.py"


@functools.cache
def market_rules(cooled):
    rules = runpy.run_path(str(PIPELINE))["pipeline"].rules
    if cooled:
        return rules
    return [dataclasses.replace(rule, cooldown_ns=0) for rule in rules]


@functools.cache
def sample(begin_s, end_s):
    """Both streams of the sample between two moments, seconds from its begin."""
    frames = {n: cep.sample.frame(n) for n in ("market.events", "ai.events")}
    time = pl.col("event_time")
    origin = frames["market.events"]["event_time"].min()
    wanted = (time >= origin + pl.duration(seconds=begin_s)) & (
        time < origin + pl.duration(seconds=end_s)
    )
    return {name: frame.filter(wanted) for name, frame in frames.items()}


@functools.cache
def market_run(cooled, span, batch_rows):
    result = cep.run_rules(
        market_rules(cooled),
        sample(*span),
        batch_rows=batch_rows,
        max_out_of_orderness="250ms",
    )
    counts = {n: dataclasses.astuple(c) for n, c in result.counts.items()}
    return sorted(streams.told(result.events)), counts, result.accounting


@pytest.mark.parametrize("batch_rows", [1, 7, 1000])
@pytest.mark.parametrize("cooled", [True, False], ids=["cooldown", "every match"])
def test_the_demo_rules_over_a_slice_of_the_sample(cooled, batch_rows):
    span = (258, 266)
    whole = market_run(cooled, span, None)
    assert len(whole[0]) >= (5 if cooled else 300)
    assert market_run(cooled, span, batch_rows) == whole


@pytest.mark.slow
@pytest.mark.parametrize("batch_rows", [7, 997, 20_000])
def test_the_demo_rules_over_the_whole_sample(batch_rows):
    whole = market_run(True, (0, 10**6), None)
    assert {name for name, counts in whole[1].items() if counts[1]} == {
        rule.name for rule in market_rules(True)
    }
    assert market_run(True, (0, 10**6), batch_rows) == whole
