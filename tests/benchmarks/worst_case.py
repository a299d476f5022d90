"""The worst that a pattern can ask for: every subset of equal events.

A Kleene closure with any-combination over n events that all fit has 2**n partial
matches. The limit holds them, by its policy, and counts what it drops. Where the
closure is followed by what never comes nothing matches; where it is the whole
pattern all of them do, and another limit holds what one event puts out.
"""

from __future__ import annotations

import itertools
import time
from typing import Any

import numpy as np

from cep import e, emit, on, rule, seq
from cep.engine.operator import Operator
from cep.rules import Limits
from tests.benchmarks.flatness import ticks_of
from tests.benchmarks.measure import resident
from tests.benchmarks.workloads import step

POLICIES = ("drop_oldest", "drop_new", "trip")


def every_subset():
    """Every subset of the events so far."""
    some = on("bench.tick", name="some").where(e.price > 0).one_or_more()
    return seq(some.any_combination()), emit()


def every_subset_then_never():
    """Every subset of the events so far, before what never comes."""
    closure, _ = every_subset()
    return closure.then(on("bench.tick", name="never").where(e.price < 0)), emit()


def worst_case(events: int, cap: int = 10_000) -> dict[str, Any]:
    """Return what a policy costs and drops, for each policy."""
    columns = ticks_of(np.zeros(events, np.int64), ["S0"], np.ones(events))
    table = {}
    for policy, matching in itertools.product(POLICIES, (False, True)):
        limits = Limits(partials_per_key=cap, policy=policy)
        given = rule("every-subset", key="sym", limits=limits)
        subsets = given(every_subset if matching else every_subset_then_never)
        before, operator = resident(), Operator([subsets])
        begin = time.process_time()
        for a in range(0, events, 100):
            step(operator, columns.slice(a, a + 100))
        seconds = time.process_time() - begin
        counts = operator.counts()["every-subset"]
        table[f"{policy}, matching" if matching else policy] = {
            "us": seconds / events * 1e6,
            "rss_mb": (resident() - before) / 1e6,
            "live": counts.live_partials,
            "dropped": counts.dropped_partials,
            "matches": counts.emitted,
            "dropped_matches": counts.dropped_outputs,
            "tripped": counts.tripped,
        }
    return {"events": events, "cap": cap, **table}
