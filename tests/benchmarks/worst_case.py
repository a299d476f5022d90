"""The worst that a pattern can ask for: every subset of equal events.

A Kleene closure with any-combination over n events that all fit has 2**n partial
matches. The limit holds them, by its policy, and counts what it drops.
"""

from __future__ import annotations

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


def worst_case(events: int, cap: int = 10_000) -> dict[str, Any]:
    """Return what a policy costs and drops, for each policy."""
    columns = ticks_of(np.zeros(events, np.int64), ["S0"], np.ones(events))
    table = {}
    for policy in POLICIES:
        limits = Limits(partials_per_key=cap, policy=policy)

        @rule("every-subset", key="sym", limits=limits)
        def subsets():
            some = on("bench.tick", name="some").where(e.price > 0).one_or_more()
            never = on("bench.tick", name="never").where(e.price < 0)
            return seq(some.any_combination()).then(never), emit()

        before, operator = resident(), Operator([subsets])
        begin = time.process_time()
        for a in range(0, events, 100):
            step(operator, columns.slice(a, a + 100))
        seconds = time.process_time() - begin
        counts = operator.counts()["every-subset"]
        table[policy] = {
            "us": seconds / events * 1e6,
            "rss_mb": (resident() - before) / 1e6,
            "live": counts.live_partials,
            "dropped": counts.dropped_partials,
            "tripped": counts.tripped,
        }
    return {"events": events, "cap": cap, **table}
