"""The questions that polars can say, on one thread.

W1, W2h and W5 mean the same. The others differ, and `DIFFERENCES` says how: polars
has no patterns, so W3 is missing, and its rolling windows end at the last row of a
time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from tests.benchmarks.streams import COMPLETED, TICK

if TYPE_CHECKING:
    from tests.benchmarks.questions import Constants
    from tests.benchmarks.streams import Stream

DIFFERENCES = {
    "W2": "of ticks of one symbol and millisecond each sees the later ones too",
    "W4": "without skip: a match may begin at the fall that ended the one before",
}


def frame(stream: Stream) -> pl.DataFrame:
    """Return the stream as a frame, in its order."""
    names = ("seq", "time_ms", "kind", "sym", "price", "prev", "qty", "latency")
    columns = {name: getattr(stream, name) for name in names}
    return pl.DataFrame(columns).with_columns(
        pl.col("time_ms").cast(pl.Datetime("ms")),
        pl.int_range(pl.len()).alias("row"),
    )


def w1(events: pl.DataFrame, c: Constants) -> pl.DataFrame:
    notional = pl.col("price") * pl.col("qty")
    hit = (pl.col("kind") == TICK) & (notional > c.notional)
    return (
        events.lazy()
        .filter(hit)
        .select("sym", notional.alias("notional"), start="seq", end="seq")
        .collect()
    )


def w2(events: pl.DataFrame, c: Constants) -> pl.DataFrame:
    price, length = pl.col("price"), f"{c.window_ms}ms"
    ticks = events.lazy().filter(pl.col("kind") == TICK)
    windows = ticks.with_columns(
        mean=price.rolling_mean_by("time_ms", length).over("sym"),
        std=price.rolling_std_by("time_ms", length, ddof=0).over("sym"),
        count=pl.ones(pl.len()).rolling_sum_by("time_ms", length).over("sym"),
    )
    far = (price - pl.col("mean")).abs() > c.sigmas * pl.col("std")
    hit = (pl.col("count") >= c.least) & far
    return windows.filter(hit).select(start="seq", end="seq").collect()


def w2h(events: pl.DataFrame, c: Constants) -> pl.DataFrame:
    price = pl.col("price")
    windows = (
        events.lazy()
        .filter(pl.col("kind") == TICK)
        .group_by_dynamic(
            "time_ms",
            every=f"{c.hop_ms}ms",
            period=f"{c.window_ms}ms",
            # By default the first window begins with the first row.
            offset=f"{c.hop_ms - c.window_ms}ms",
            group_by="sym",
        )
        .agg(n=pl.len(), mean=price.mean(), std=price.std(ddof=0), start=pl.last("seq"))
    )
    hit = (pl.col("n") >= c.least) & (pl.col("std") > c.spread * pl.col("mean"))
    end = pl.col("time_ms").dt.epoch("ms") + c.window_ms
    return windows.filter(hit).select("start", end=end).collect()


def w4(events: pl.DataFrame, c: Constants) -> pl.DataFrame:
    price, row = pl.col("price"), pl.int_range(pl.len())
    last = price.shift(1)
    same = pl.col("sym") == pl.col("sym").shift(1)
    begins = ~(same & (price > last)).fill_null(False)
    start = pl.when(begins).then(row).forward_fill().shift(1)
    fall = same & (price < last) & (row - 1 - start >= c.rises)
    return (
        events.lazy()
        .filter(pl.col("kind") == TICK)
        .select("sym", "seq", "price")
        .sort("sym", maintain_order=True)
        .select(
            fall=fall,
            start=pl.when(begins).then("seq").forward_fill().shift(1),
            end="seq",
        )
        .filter("fall")
        .select("start", "end")
        .collect()
    )


def w5(events: pl.DataFrame, c: Constants) -> pl.DataFrame:
    last, move = pl.col("prev"), (pl.col("price") - pl.col("prev")).abs()
    moves = (
        events.lazy()
        .filter((pl.col("kind") == TICK) & (last > 0) & (move > c.move * last))
        .select("row", "sym", moved="time_ms", end="seq")
    )
    slow = (
        events.lazy()
        .filter((pl.col("kind") == COMPLETED) & (pl.col("latency") > c.latency))
        .select("row", "sym", "time_ms", start="seq")
    )
    soon = pl.col("moved") < pl.col("time_ms") + pl.duration(milliseconds=c.soon_ms)
    return (
        slow.join_asof(
            moves, on="row", by="sym", strategy="forward", check_sortedness=False
        )
        .filter(soon)
        .select("start", "end")
        .collect()
    )


FRAMES = {"W1": w1, "W2": w2, "W2h": w2h, "W4": w4, "W5": w5}
