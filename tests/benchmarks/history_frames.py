"""Loading and scanning a stream of trades, and what redis-py alone takes."""

from __future__ import annotations

import argparse
import json
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
import polars as pl
import redis as redis_py

from cep.bus.connection import connect_redis
from cep.bus.link import packed
from cep.bus.ulid_columns import new_ulids, ulid_texts
from cep.events.timestamps import format_timestamp
from cep.frames import load, scan
from tests.benchmarks.measure import child

if TYPE_CHECKING:
    from collections.abc import Callable

STREAM: Final = "market.events"
PAGE: Final = 4000
LENGTH_MS: Final = 100_000_000
SIDES: Final = (b"buy", b"sell")
START_MS: Final = 1_700_000_000_000

_MEMORY: Final = """
import json, sys
from pathlib import Path
from cep.frames import load
from tests.benchmarks.measure import resident
load("market.events", url=sys.argv[1], limit=5000)
before = resident()
frame = load("market.events", url=sys.argv[1])
# Not ru_maxrss, which begins with what the parent had.
status = Path("/proc/self/status").read_text().split()
peak = 1024 * int(status[status.index("VmHWM:") + 1])
print(json.dumps([peak - before, frame.estimated_size(), len(frame)]))
"""


def fill(url: str, n: int) -> None:
    """Write so many trades of 28 hours, each arriving when it happened; once."""
    with connect_redis(url) as client:
        if client.xlen(STREAM) == n:
            return
        client.delete(STREAM)
        rng = np.random.default_rng(7)
        times = START_MS + LENGTH_MS // n * np.arange(n)
        ids = ulid_texts(*new_ulids(times))
        choices = rng.integers(0, 50, n).tolist()
        prices = (rng.integers(1, 10**7, n) / 100).tolist()
        connection: Any = client.connection_pool.get_connection()
        for start in range(0, n, PAGE):
            commands = [
                packed(
                    *(b"XADD", STREAM.encode(), b"%d-0" % times[i], b"id", ids[i]),
                    *(b"stream", STREAM.encode(), b"type", b"market.trade"),
                    *(b"version", b"1", b"timestamp"),
                    format_timestamp(int(times[i])).encode(),
                    *(b"correlation_id", b"", b"user_id", b"", b"data"),
                    b'{"symbol":"SYM%d-USD","price":%a,"quantity":%a,"side":"%b",'
                    b'"venue":"binance-spot"}'
                    % (choices[i], prices[i], (i % 999) / 8 + 1, SIDES[i % 2]),
                    *(b"metadata", b"{}"),
                )
                for i in range(start, min(n, start + PAGE))
            ]
            connection.send_packed_command([b"".join(commands)], check_health=False)
            for _ in commands:
                connection.read_response()
        client.connection_pool.release(connection)


def loading(
    url: str, given: argparse.Namespace
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Return what a typed frame of all entries costs, in microseconds an entry."""
    n = given.events
    fill(url, n)
    load(STREAM, url=url, limit=5000)
    ways: dict[str, tuple[Callable[[], Any], int]] = {
        "cep.load": (lambda: load(STREAM, url=url), given.repeat),
        "redis-py dicts, polars": (lambda: by_polars(rows_of(url)), 1),
        "redis-py dicts, pandas": (lambda: by_pandas(rows_of(url)), 1),
    }
    table = {}
    for name, (way, repeat) in ways.items():
        wall = cpu = float("inf")
        for _ in range(repeat):
            began, used = time.perf_counter(), time.process_time()
            frame = way()
            cpu = min(cpu, time.process_time() - used)
            wall = min(wall, time.perf_counter() - began)
            if len(frame) != n:
                raise RuntimeError(f"{name} gave {len(frame)} rows of {n}")
            del frame
        table[name] = {"wall us": 1e6 * wall / n, "client CPU us": 1e6 * cpu / n}
    ours, polars, pandas = (row["wall us"] for row in table.values())
    our_cpu, polars_cpu, pandas_cpu = (row["client CPU us"] for row in table.values())
    return table, {
        "load_of_polars_dicts": polars / ours,
        "load_of_pandas_dicts": pandas / ours,
        "load_cpu_of_polars_dicts": polars_cpu / our_cpu,
        "load_cpu_of_pandas_dicts": pandas_cpu / our_cpu,
    }


def rows_of(url: str) -> list[dict[str, Any]]:
    """Read all entries as one would by hand."""
    client = redis_py.Redis.from_url(url, decode_responses=True, protocol=2)
    rows = []
    start = "-"
    with client:
        while entries := client.xrange(STREAM, start, "+", count=PAGE):
            for entry_id, fields in entries:
                row = json.loads(fields["data"])
                row["event_time"], row["type"] = fields["timestamp"], fields["type"]
                row["event_id"], row["entry_id"] = fields["id"], entry_id
                rows.append(row)
            start = f"({entries[-1][0]}"
    return rows


def by_polars(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Make a typed frame of rows."""
    coded = pl.col("type", "symbol", "side", "venue").cast(pl.Categorical)
    times = pl.col("event_time").str.to_datetime("%+", time_zone="UTC")
    return pl.DataFrame(rows).with_columns(times.cast(pl.Datetime("ms", "UTC")), coded)


def by_pandas(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Make a typed frame of rows."""
    frame = pd.DataFrame(rows)
    frame["event_time"] = pd.to_datetime(frame["event_time"], format="ISO8601")
    coded = dict.fromkeys(["type", "symbol", "side", "venue"], "category")
    return frame.astype(coded)


def scanning(
    url: str, given: argparse.Namespace
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Return what queries read of the stream, by the bytes that the server sent."""
    n = given.events
    fill(url, n)
    at = pl.col("event_time")
    begin = datetime.fromtimestamp(START_MS / 1000, UTC)
    length = timedelta(milliseconds=LENGTH_MS)
    last = at >= begin + 0.99 * length
    middle = at.is_between(begin + 0.50 * length, begin + 0.51 * length)
    whole = scan(STREAM, url=url)
    bounded = scan(STREAM, url=url, max_delay="1s")
    queries = {
        "all": whole,
        "the last 1 %": whole.filter(last),
        "1 % in the middle": bounded.filter(middle),
        "two columns of all": whole.select("symbol", "price"),
        "the first 1,000": whole.head(1000),
    }
    with connect_redis(url) as client:
        table = {name: _read(client, query, n) for name, query in queries.items()}
    every = table["all"]["bytes"]
    for row in table.values():
        row["part read"] = row["bytes"] / every
    # Five minutes before the time asked for are read as well, 0.3 % of the stream.
    return table, {"scan_read": table["1 % in the middle"]["part read"]}


def _read(client: redis_py.Redis, query: pl.LazyFrame, n: int) -> dict[str, float]:
    before = _sent(client)
    began = time.perf_counter()
    rows = len(query.collect())
    seconds = time.perf_counter() - began
    return {
        "rows": rows,
        "ms": 1000 * seconds,
        "bytes": _sent(client) - before,
        "share of rows": rows / n,
    }


def _sent(client: redis_py.Redis) -> int:
    info: Any = client.info("stats")
    return int(info["total_net_output_bytes"])


def memory(
    url: str, given: argparse.Namespace
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Return the most that loading holds, beside the frame's own size."""
    fill(url, given.events)
    _, (peak, size, rows) = child(_MEMORY, url)
    if rows != given.events:
        raise RuntimeError(f"{rows} rows of {given.events}")
    row = {"peak MB": peak / 1e6, "frame MB": size / 1e6}
    return {"cep.load": row}, {"load_memory": peak / size}
