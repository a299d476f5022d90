"""A backtest of five rules over millions of real trades and quotes.

The folder holds Parquet files, wherever they lie in it: ``*trades*`` with ``ts``,
``price`` and ``size`` or ``qty``; ``*quotes*`` and ``*book*`` with ``ts``, ``bid`` and
``ask``, or one side a row with ``side`` and ``price``, where the other side is the last
one of that symbol and exchange. If there are fewer rows than asked for, all are
repeated, later each time. Times are cut to milliseconds; rows are in order of time.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any, Final

import polars as pl

import cep
from cep import avg, count, e, emit, first, last, m, on, rule, seq, std

if TYPE_CHECKING:
    from pathlib import Path

ROWS: Final = 10_000_000
_VENUE: Final = ("venue", "market", "exchange")
_MARKET: Final = ["symbol", "venue"]
_DAY_MS: Final = 86_400_000


def rows_of(folder: Path, rows: int = ROWS) -> tuple[pl.DataFrame, int]:
    """Return so many rows of the stream ``market.events``, and how many are not copies.

    Raises
    ------
    FileNotFoundError
        If the folder has no such files.
    """
    parts = [
        found
        for path in sorted(folder.rglob("*.parquet"))
        if (found := _events(path)) is not None
    ]
    if not parts:
        message = f"{folder} has no trades and no quotes in Parquet files"
        raise FileNotFoundError(message)
    once = pl.concat(parts).sort("event_time", maintain_order=True)
    times = once["event_time"].dt.epoch("ms")
    shift = (int(times[-1]) - int(times[0])) // _DAY_MS * _DAY_MS + _DAY_MS
    copies = -(-rows // len(once))
    every = [
        once.with_columns(pl.col("event_time") + pl.duration(milliseconds=shift * n))
        for n in range(copies)
    ]
    return pl.concat(every, rechunk=True).head(rows), min(rows, len(once))


def _events(path: Path) -> pl.DataFrame | None:
    """Return a file's trades or quotes as events; None if it has neither."""
    kind = "market.trade" if "trades" in path.name else "market.quote"
    if not any(word in path.name for word in ("trades", "quotes", "book")):
        return None
    table = pl.read_parquet(path).sort("ts", maintain_order=True)
    venue = next((name for name in _VENUE if name in table.columns), None)
    symbol = pl.col("symbol").cast(pl.String)
    if "contract_month" in table.columns:
        symbol = symbol + pl.col("contract_month").cast(pl.String)
    table = table.with_columns(
        event_time=pl.col("ts").dt.cast_time_unit("ms"),
        symbol=symbol,
        venue=pl.col(venue).cast(pl.String) if venue else pl.lit(""),
        type=pl.lit(kind),
    )
    none = pl.lit(None, pl.Float64)
    if kind == "market.trade":
        amount = "size" if "size" in table.columns else "qty"
        table = table.with_columns(
            quantity=pl.col(amount).cast(pl.Float64), bid=none, ask=none
        )
    else:
        if "side" in table.columns:
            for side in ("bid", "ask"):
                own = pl.when(pl.col("side") == side).then("price")
                table = table.with_columns(own.forward_fill().over(_MARKET).alias(side))
        table = table.drop_nulls(["bid", "ask"]).with_columns(price=none, quantity=none)
    return table.select(
        "event_time", "type", *_MARKET, "price", "quantity", "bid", "ask"
    )


def _jump(sigmas: float) -> Any:
    mean, deviation = avg(e.price).over("10s"), std(e.price).over("10s")
    far = abs(e.price - mean)
    return (
        (count().over("10s") >= 30) & (far > sigmas * deviation) & (far > 5e-5 * mean)
    )


@rule("large", key=_MARKET, cooldown="60s")
def large() -> Any:
    trade = on("market.trade").where(e.quantity > 20 * avg(e.quantity).over(events=100))
    return trade, emit(quantity=e.quantity)


@rule("jump", key=_MARKET, cooldown="60s")
def jump() -> Any:
    return on("market.trade").where(_jump(4)), emit(price=e.price)


@rule("rising-run", key=_MARKET, cooldown="60s", after_match="past_last_event")
def rising_run() -> Any:
    up = (
        on("market.trade", name="up")
        .where((count(m.up) == 0) | (e.price > last(m.up).price))
        .at_least(5)
        .consecutive()
        .greedy()
    )
    fall = on("market.trade", name="fall").where(e.price <= last(m.up).price)
    return seq(up).next(fall).within("60s"), emit(
        gain=last(m.up).price / first(m.up).price - 1
    )


@rule("volume-after-jump", key=_MARKET, cooldown="60s")
def volume_after_jump() -> Any:
    start = on("market.trade", name="start").where(_jump(3))
    much = on("market.trade", name="much").where(e.quantity > 10 * m.start.quantity)
    return seq(start).then(much).within("2s"), emit(quantity=e.quantity)


@rule("wide-spread", key=_MARKET, cooldown="60s")
def wide_spread() -> Any:
    spread = e.ask - e.bid
    usual = avg(spread).over("60s")
    wide = (count().over("60s") >= 30) & (spread > 5 * usual)
    return on("market.quote").where(wide), emit(spread=spread, usual=usual)


RULES: Final = (large, jump, rising_run, volume_after_jump, wide_spread)


def backtests(_: str, given: argparse.Namespace) -> Any:
    """Return what a backtest costs: its rows by name, and CPU seconds.

    Without a folder there is nothing to run over, and no answer.
    """
    if given.data is None:
        return {"skipped: no --data": {}}, {}
    rows, ratios = measured(given.data, rows=given.rows, repeat=given.repeat)
    return rows, ratios


def measured(
    folder: Path, *, rows: int, repeat: int
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Return the least CPU seconds of several backtests, loading of files not counted.

    Raises
    ------
    AssertionError
        If rows are unaccounted for, or a second run finds something else.
    """
    data, real = rows_of(folder, rows)
    cep.backtest(RULES, data.head(20_000))  # compiles what is not compiled yet
    least, ids, found = float("inf"), None, None
    for _ in range(repeat):
        began = time.process_time()
        found = cep.backtest(RULES, data)
        least = min(least, time.process_time() - began)
        assert ids in (None, found.ids)
        ids = found.ids
    assert found is not None
    (counted,) = found.accounting.values()
    assert counted["read"] == len(data) == counted["processed"] + counted["duplicate"]
    table = {
        f"five rules, {len(data):,} rows": {
            "CPU s": least,
            "us a row": least / len(data) * 1e6,
            "trades": float((data["type"] == "market.trade").sum()),
            "not copies": float(real),
            "alerts": float(len(found.ids)),
        }
    }
    return table, {"backtest_cpu_s": least * ROWS / len(data)}
