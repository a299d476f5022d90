"""What the live benchmark publishes, and the pipelines that it runs.

Trades on ``market.events`` and inference requests on ``ai.events``, four to one
and in step with each other, event times up to 50 ms out of order.
"""

from __future__ import annotations

from math import exp
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from cep import avg, count, e, emit, m, max, min, on, rule, seq, std
from cep.bus.connection import connect_redis
from cep.bus.publisher import Publisher
from cep.pipeline import Pipeline, stream

if TYPE_CHECKING:
    from numpy.typing import NDArray

T0_MS = 1_700_000_000_000
MARKET, AI, OUTPUT = "market.events", "ai.events", "notification.events"
STREAMS = [MARKET, AI]
SYMBOLS = 100
OUT_OF_ORDER_MS = 50
TRADES_IN = 5  # of so many events all but one are trades


def trades(n: int, *, symbols: int = SYMBOLS) -> dict[str, Any]:
    """Return the columns of trades: prices in cents, quantities lognormal."""
    rng = np.random.default_rng(1)
    symbol = rng.permutation(np.arange(n) % symbols)
    return {
        "symbol": [f"S{number:06}" for number in symbol.tolist()],
        "price": np.round(100.0 + symbol % 100 + rng.normal(0.0, 0.5, n), 2),
        "quantity": np.round(np.exp(rng.normal(0.0, 1.0, n)), 4),
    }


def requests(n: int) -> dict[str, Any]:
    """Return the columns of inference requests."""
    rng = np.random.default_rng(2)
    return {
        "request_id": [f"r{number}" for number in range(n)],
        "context_tokens": rng.integers(1, 4001, n),
        "generated_tokens": rng.integers(1, 500, n),
    }


def times(n: int, step_ms: float) -> NDArray[np.int64]:
    """Return event times, one each ``step_ms``, out of order."""
    behind = np.random.default_rng(3).integers(0, OUT_OF_ORDER_MS + 1, n)
    arrived: NDArray[np.int64] = T0_MS + (np.arange(n) * step_ms).astype(np.int64)
    return arrived - behind


def fill(url: str, events: int) -> None:
    """Write events, a millisecond apart, to both streams of an emptied server."""
    ai = events // TRADES_IN
    market = events - ai
    with connect_redis(url) as client:
        client.flushall()
        publisher = Publisher(client)
        when = times(market, events / market)
        publisher.publish_columns(
            MARKET, "market.trade", trades(market), event_time=when
        )
        when = times(ai, events / ai)
        publisher.publish_columns(
            AI, "ai.inference.requested", requests(ai), event_time=when
        )


def whole_path(name: str, emitting: float) -> Pipeline:
    """Return a pipeline of five aggregates and a pattern of three steps.

    ``emitting`` is the share of trades that the aggregates' rule puts out.
    """
    large = exp(NormalDist().inv_cdf(1.0 - emitting))

    @rule("large", key="symbol")
    def large_trade():
        mean, spread = avg(e.price).over("60s"), std(e.price).over("60s")
        low, high = min(e.price).over("60s"), max(e.price).over("60s")
        seen = count().over("60s")
        here = on("market.trade").where((e.quantity > large) & (seen >= 1))
        return here, emit(
            price=e.price, mean=mean, spread=spread, low=low, high=high, count=seen
        )

    @rule("ask-drop-rise", cooldown="1s")
    def ask_drop_rise():
        asked = on("ai.inference.requested", name="asked")
        drop = on("market.trade", name="drop").where(e.quantity > 8.0)
        rise = on("market.trade", name="rise").where(e.price > m.drop.price + 1.0)
        return seq(asked.where(e.context_tokens > 3990)).then(drop).then(rise).within(
            "2s"
        ), emit(request=m.asked.request_id, symbol=e.symbol, price=e.price)

    bound = f"{OUT_OF_ORDER_MS}ms"
    streams = [stream(one, max_out_of_orderness=bound) for one in STREAMS]
    return Pipeline(name, (large_trade, ask_drop_rise), streams)


def each_trade(name: str, *, above: float = 0.0) -> Pipeline:
    """Return a pipeline with an output for each trade above a quantity."""

    @rule("each", key="symbol")
    def each():
        mean = avg(e.price).over("60s")
        return on("market.trade").where(e.quantity > above), emit(mean=mean)

    return Pipeline(name, (each,), [stream(MARKET, max_out_of_orderness="0ms")])
