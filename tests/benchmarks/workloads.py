"""The questions as rules, written as a user would, and what is known of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel

from cep import avg, count, e, emit, m, on, prev, register, rule, seq, std
from cep.engine.operator import Operator
from cep.events.registry import registry
from tests.benchmarks.questions import CONSTANTS
from tests.benchmarks.streams import SEED, STREAM, TYPES, VOLATILITY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cep.engine.operator import Outputs
    from cep.events.columns import EventColumns
    from cep.rules import Rule
    from tests.benchmarks.questions import Constants, Pairs

END = np.iinfo(np.int64).max

DEFAULT = (2_000_000, 200_000, SEED, VOLATILITY)
SMALL = (200_000, 20_000, SEED, VOLATILITY)
PUBLISHED = {
    DEFAULT: {
        "W1": (69_672, 76144559302, 76144559302),
        "W2": (103_622, 114944086251, 114944086251),
        "W2h": (10_910,),
        "W3": (11_640, 12819725837, 12914750972),
        "W3n": (73_905, 81496432197, 82003904895),
        "W4": (117_496, 129231542909, 129296181697),
        "W5": (4_235, 4642734129, 4653162787),
    },
    SMALL: {
        "W1": (6_840,),
        "W2": (10_358,),
        "W2h": (1_145,),
        "W3": (1_118,),
        "W3n": (6_738,),
        "W4": (11_669,),
        "W5": (440,),
    },
}
"""Known answers of (ticks, AI events, seed, volatility), sums where they are known."""

GOALS_US = {
    "W1": 0.03,
    "W2": 0.12,
    "W2h": 0.12,
    "W3": 0.12,
    "W3n": 0.25,
    "W4": 0.12,
    "W5": 0.08,
}
"""CPU per event on one core, columns in memory to matches, in microseconds."""


class Tick(BaseModel):
    seq: int
    sym: str
    price: float
    prev: float
    qty: float


class Requested(BaseModel):
    seq: int
    sym: str


class Completed(BaseModel):
    seq: int
    sym: str
    latency: float


for _name, _model in zip(TYPES, (Tick, Requested, Completed), strict=True):
    if _name not in registry:
        register(_name, stream=STREAM)(_model)


def rules(c: Constants = CONSTANTS) -> dict[str, Rule]:
    """Return the rules by the name of their question."""
    window, within, soon = f"{c.window_ms}ms", f"{c.within_ms}ms", f"{c.soon_ms}ms"

    @rule("W1")
    def large():
        notional = e.price * e.qty
        return on("bench.tick").where(notional > c.notional), emit(
            seq=e.seq, sym=e.sym, notional=notional
        )

    @rule("W2", key="sym")
    def outlier():
        mean, spread = avg(e.price).over(window), std(e.price).over(window)
        far = abs(e.price - mean) > c.sigmas * spread
        return on("bench.tick").where((count().over(window) >= c.least) & far), emit()

    @rule("W2h", key="sym")
    def volatile():
        hopping = on("bench.tick").hopping(window, every=f"{c.hop_ms}ms")
        wide = std(e.price) > c.spread * avg(e.price)
        return hopping.where((count() >= c.least) & wide), emit()

    def rebound():
        drop = on("bench.tick", name="drop").where(e.price < e.prev * (1 - c.drop))
        up = on("bench.tick", name="up").where(e.price > m.drop.price * c.rebound)
        big = on("bench.tick", name="big").where(e.qty > c.amount)
        return seq(drop).then(up).then(big).within(within), emit()

    @rule("W4", key="sym", after_match="past_last_event")
    def rising():
        up = on("bench.tick", name="up").where(e.price > prev(e.price))
        fall = on("bench.tick", name="fall").where(e.price < prev(e.price))
        rises = up.at_least(c.rises).consecutive().greedy()
        return seq(on("bench.tick", name="start")).next(rises).next(fall), emit()

    @rule("W5", key="sym")
    def slow_then_move():
        slow = on("bench.completed", name="slow").where(e.latency > c.latency)
        moved = (e.prev > 0) & (abs(e.price - e.prev) > c.move * e.prev)
        return seq(slow).then(on("bench.tick", name="move").where(moved)).within(
            soon
        ), emit()

    return {
        "W1": large,
        "W2": outlier,
        "W2h": volatile,
        "W3": rule("W3", key="sym", after_match="past_last_event")(rebound),
        "W3n": rule("W3n", key="sym")(rebound),
        "W4": rising,
        "W5": slow_then_move,
    }


def feed(operator: Operator, columns: EventColumns, cuts: Sequence[int]) -> Pairs:
    """Run an operator over columns in batches that begin at ``cuts``, to the end.

    Returns its matches as (start seq, end seq).
    """
    ends = [*cuts[1:], len(columns)]
    outputs = [
        step(operator, columns.slice(begin, end))
        for begin, end in zip(cuts, ends, strict=True)
    ]
    outputs.append(finish(operator, columns))
    return pairs(outputs)


def step(operator: Operator, columns: EventColumns) -> Outputs:
    """Take in columns; their last event's time is the watermark."""
    batch = operator.ingest(columns, 0)
    return operator.step(batch, int(batch.time[-1]) if len(batch) else 0)


def finish(operator: Operator, columns: EventColumns) -> Outputs:
    """Let time pass to its end, which releases what is held back."""
    return operator.step(operator.ingest(columns.slice(0, 0), 0), END)


def pairs(outputs: Sequence[Outputs]) -> Pairs:
    """Return the matches as (start seq, end seq); an event's id is its seq.

    Of a window that is the last event's seq and its end in ms.
    """
    found: Pairs = []
    for output in outputs:
        for matches in output.matches:
            first, last = matches.offsets[:-1], matches.offsets[1:] - 1
            starts, ends = matches.id_lo[first], matches.id_lo[last]
            if matches.compiled.takes_windows:
                ends = matches.time_ns // 1_000_000
            found += zip(starts.tolist(), ends.tolist(), strict=True)
    return found
