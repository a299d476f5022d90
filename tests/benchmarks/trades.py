"""The questions on days of real trades, from Parquet files in a folder.

Files named ``*trades*.parquet`` are read, wherever they lie in the folder: ``ts``,
``price``, ``size`` or ``qty``, and what tells instruments apart. Rows of equal times
stay in the order of the file. Thresholds are quantiles of the file, so that each
question has answers; W5 is not asked, as trades have no AI events beside them. Prices
are whole cents, and at 2.5 deviations some of them lie on the bound exactly, where
rounding would decide; so W2 asks for a number of deviations that none can lie on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from tests.benchmarks.questions import Constants
from tests.benchmarks.streams import TICK, Stream
from tests.benchmarks.workload_costs import question_cost
from tests.benchmarks.workloads import rules

if TYPE_CHECKING:
    from pathlib import Path

INSTRUMENT = ("symbol", "market", "contract_month", "venue")


def trade_stream(path: Path) -> Stream:
    """Return a file's trades as ticks."""
    trades = pl.read_parquet(path).sort("ts", maintain_order=True)
    parts = [name for name in INSTRUMENT if name in trades.columns]
    amount = "size" if "size" in trades.columns else "qty"
    numbers = pl.struct(parts).rank("dense") - 1
    trades = trades.with_columns(sym=numbers.cast(pl.Int32)).with_columns(
        time=pl.col("ts").dt.epoch("ms"),
        prev=pl.col("price").shift(1).over("sym").fill_null(0.0),
        amount=pl.col(amount).cast(pl.Float64),
    )
    n = trades.height
    return Stream(
        np.arange(n, dtype=np.int64),
        trades["time"].to_numpy().copy(),
        np.full(n, TICK, np.int32),
        trades["sym"].to_numpy().copy(),
        trades["price"].to_numpy().copy(),
        trades["prev"].to_numpy().copy(),
        trades["amount"].to_numpy().copy(),
        np.zeros(n),
    )


def trade_constants(stream: Stream) -> Constants:
    """Return thresholds that a few in a hundred trades pass."""
    return Constants(
        notional=float(np.quantile(stream.price * stream.qty, 0.97)),
        amount=float(np.quantile(stream.qty, 0.95)),
        sigmas=2.4877,
        drop=1e-5,
        rebound=1.0002,
        least=30,
    )


def trades(folder: Path, repeat: int) -> dict[str, Any]:
    """Return the questions' costs on every file of trades, by its name."""
    table: dict[str, Any] = {}
    for path in sorted(folder.rglob("*trades*.parquet")):
        stream = trade_stream(path)
        c = trade_constants(stream)
        table[path.stem] = {
            name: question_cost(name, rule, stream, c, repeat)
            for name, rule in rules(c).items()
            if name != "W5"
        }
    return table
