"""A partial match that the batch shows to die is left out, and nothing else changes."""

import dataclasses

import numpy as np
import pytest

from cep.engine.kernels import nfa
from cep.engine.operator import Operator
from cep.rules import Limits, build_rule, count, e, emit, last, m, on, prev, seq
from tests import streams

ROWS = 160


def tick(name, condition=None):
    step = on("test.tick", name=name)
    return step if condition is None else step.where(condition)


def patterns():
    start = tick("s")
    rise = tick("up", e.x > prev(e.x))
    fall = tick("fall", e.x < prev(e.x))
    low, high = tick("low", e.x < 1), tick("high", e.x > 2)
    rises = rise.at_least(2).consecutive().greedy()
    above = tick("above", (count(m.above) == 0) | (e.x >= last(m.above).x))
    return {
        "run": seq(start).next(rises).next(fall),
        "run or none": seq(start).next(rises.optional()).next(fall),
        "begun at a low": seq(low).next(rise.times(2)).then(fall),
        "not both": seq(low).next(rise).not_next(high).then(fall),
        "one or two": seq(start).next(tick("one", e.x > 1).between(1, 2)).next(low),
        "until": seq(low).next(rise.one_or_more().until(e.x > 3)).then(high),
        "compared with what is bound": seq(low).next(above.at_least(2)).next(fall),
    }


def outcome(rule, rows, size):
    """Outputs in order of release, and what is left, in batches of ``size``."""
    operator = Operator([rule])
    batches = streams.cut_batches(
        streams.ordered(operator, rows), streams.every(len(rows), size)
    )
    events = [x for b in batches for x in operator.step(b, int(b.time[-1])).events]
    counts = [dataclasses.astuple(c) for c in operator.counts().values()]
    return streams.told(events), counts, operator.snapshot()


@pytest.mark.parametrize("name", patterns())
@pytest.mark.parametrize("after", ["no_skip", "to_next", "past_last_event"])
def test_batches_equal_single_events(name, after):
    for seed in range(6):
        rng = np.random.default_rng(seed)
        xs, keys = rng.integers(0, 5, ROWS), rng.choice(list("aab"), ROWS)
        rows = [{"t": t, "key": str(keys[t]), "x": float(xs[t])} for t in range(ROWS)]
        limits = [
            Limits(),
            Limits(partials_per_key=2, policy="drop_new"),
            Limits(bindings_per_key=8),
            Limits(partials_per_key=3, policy="trip"),
        ][seed % 4]
        rule = build_rule(
            "r",
            patterns()[name],
            [emit(n=e.x)],
            key="key",
            after_match=after,
            limits=limits,
        )
        one_by_one = outcome(rule, rows, 1)
        assert outcome(rule, rows, ROWS) == one_by_one
        assert outcome(rule, rows, 37) == one_by_one


def test_some_are_left_out():
    rule = build_rule("r", patterns()["run"], [emit()], key="key")
    rows = [{"t": t, "key": "a", "x": float(-t)} for t in range(ROWS)]
    operator = Operator([rule])
    batch = streams.ordered(operator, rows)
    operator.step(batch, int(batch.time[-1]))
    (running,) = operator._rules
    assert operator.counts()["r"].live_partials == 1
    assert running.compiled.params(0)[nfa.R_AHEAD] == 1
