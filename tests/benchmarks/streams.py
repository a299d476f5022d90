"""The streams of the workloads: ticks and AI events, out of order by 50 ms at most.

One tick a millisecond over all symbols and one AI pair (requested, completed) per
so many ticks, event times up to 50 ms before arrival, equal times on purpose. A
price walks geometrically per symbol, a quantity is lognormal (0, 1), a latency
lognormal with a median of 800 ms.

The random calls and their order are fixed: a seed stands for one stream, and the
default one has the known answers of `tests.benchmarks.workloads.PUBLISHED`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from cep.events.columns import Column, EventColumns

if TYPE_CHECKING:
    from numpy.typing import NDArray

T0 = 1_700_000_000_000
SEED = 20240601
VOLATILITY = 5e-4
STREAM = "bench.events"
TICK, REQUESTED, COMPLETED = range(3)
TYPES = ["bench.tick", "bench.requested", "bench.completed"]


@dataclass(frozen=True, slots=True)
class Stream:
    """Events in order of (event time, arrival); arrays of shape ``(n,)``.

    ``seq`` is the number of arrival, ``time_ms`` event time, ``kind`` an index of
    `TYPES`, ``sym`` a number. Of ticks: ``price``, ``prev`` (the symbol's previous
    price in event time, 0 for its first) and ``qty``. ``latency`` in ms of completed
    AI events. Zero where an event has no such thing.
    """

    seq: NDArray[np.int64]
    time_ms: NDArray[np.int64]
    kind: NDArray[np.int32]
    sym: NDArray[np.int32]
    price: NDArray[np.float64]
    prev: NDArray[np.float64]
    qty: NDArray[np.float64]
    latency: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.seq)

    @property
    def symbols(self) -> int:
        """How many symbols there are, at most."""
        return int(self.sym.max(initial=-1)) + 1

    def head(self, n: int) -> Stream:
        """Return the first ``n`` events."""
        return Stream(*(getattr(self, field.name)[:n] for field in fields(self)))

    def columns(self) -> EventColumns:
        """Return the events as a reader delivers them; an event's id is its seq."""
        tick, n = self.kind == TICK, len(self)
        symbols = [f"S{i}" for i in range(self.symbols)]
        payload = {
            "sym": Column("str", self.sym, None, symbols),
            "price": Column("float", self.price, tick),
            "prev": Column("float", self.prev, tick),
            "qty": Column("float", self.qty, tick),
            "latency": Column("float", self.latency, self.kind == COMPLETED),
            "seq": Column("int", self.seq),
        }
        return EventColumns(
            STREAM,
            np.arange(n, dtype=np.int64),
            np.zeros(n, np.int64),
            self.time_ms,
            np.zeros(n, np.uint64),
            self.seq.astype(np.uint64),
            self.kind,
            TYPES,
            payload,
        )


def make_stream(
    ticks: int = 2_000_000,
    ai: int = 200_000,
    *,
    symbols: int = 100,
    seed: int = SEED,
    volatility: float = VOLATILITY,
) -> Stream:
    """Make ``ticks`` ticks and ``ai`` AI events, half of them requests.

    ``volatility`` is the standard deviation of the logarithm of one price step.
    """
    rng = np.random.default_rng(seed)
    pairs = ai // 2
    asked = np.sort(rng.uniform(0, ticks, pairs)) + 0.25
    latency = np.round(np.exp(rng.normal(np.log(800.0), 0.7, pairs)), 1)
    ai_symbol = rng.integers(0, symbols, pairs)
    rng.integers(20, 4000, pairs)  # the tokens of a request, which no rule reads

    arrival = np.concatenate([np.arange(ticks), asked, asked + latency])
    kind = np.repeat([TICK, REQUESTED, COMPLETED], [ticks, pairs, pairs])
    symbol = np.concatenate([rng.integers(0, symbols, ticks), ai_symbol, ai_symbol])
    latency = np.concatenate([np.zeros(ticks + pairs), latency])
    order = np.argsort(arrival, kind="stable")
    arrival, kind, symbol, latency = (
        column[order] for column in (arrival, kind, symbol, latency)
    )
    n = len(arrival)
    time = T0 + 50 + np.floor(arrival).astype(np.int64) - rng.integers(0, 51, n)
    tick = kind == TICK
    quantity = np.where(tick, np.round(np.exp(rng.normal(0.0, 1.0, n)), 4), 0.0)
    steps = rng.normal(0.0, volatility, n)

    price, previous = np.zeros(n), np.zeros(n)
    released = np.argsort(time, kind="stable")
    walked = released[tick[released]]
    walked = walked[np.argsort(symbol[walked], kind="stable")]
    ends = np.cumsum(np.bincount(symbol[walked], minlength=symbols))
    for number, rows in enumerate(np.split(walked, ends[:-1])):
        start = 20.0 + 4.0 * number
        price[rows] = np.round(start * np.exp(np.cumsum(steps[rows])), 4)
        previous[rows[1:]] = price[rows[:-1]]

    return Stream(
        released,
        time[released],
        kind[released].astype(np.int32),
        symbol[released].astype(np.int32),
        price[released],
        previous[released],
        quantity[released],
        latency[released],
    )
