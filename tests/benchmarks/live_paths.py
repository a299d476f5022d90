"""What the parts of the live benchmark do and how they measure it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from cep.bus import ColumnarReader
from cep.bus.connection import connect_redis
from cep.bus.keys import meta_key, state_key
from cep.bus.link import Link, packed
from cep.bus.publisher import CHUNK_ROWS, Publisher
from cep.bus.replies import Replies
from cep.pipeline import Runner
from tests.benchmarks.live_traffic import (
    MARKET,
    OUTPUT,
    STREAMS,
    T0_MS,
    fill,
    times,
    trades,
    whole_path,
)
from tests.benchmarks.measure import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis
    from numpy.typing import NDArray

PAGE = 2000  # entries of a stream in a reply, when replies are thrown away
DICTS = 50_000  # events that are read by redis-py
PACE = 10_000  # events a second under load
LOADED_SECONDS = 5
LARGE = 10.0  # quantity of one trade in a hundred, which leads to an output
WARM_TURNS = 10
PATIENCE_MS = 60_000
RESTARTED = "each_trade('restart', above=1e9)"


@dataclass(slots=True)
class Cost:
    """Seconds on the clock, of our CPU and of the server's."""

    wall: float = float("inf")
    client: float = float("inf")
    server: float = float("inf")

    def least(self, other: Cost) -> None:
        """Take over what is less in another run, each figure for itself."""
        self.wall = min(self.wall, other.wall)
        self.client = min(self.client, other.client)
        self.server = min(self.server, other.server)

    def row(self, events: int) -> dict[str, float]:
        """Return events a second, and microseconds an event."""
        return {
            "events_per_second": events / self.wall,
            "wall_us": self.wall / events * 1e6,
            "client_us": self.client / events * 1e6,
            "server_us": self.server / events * 1e6,
        }


@contextmanager
def measured(client: redis.Redis) -> Iterator[Cost]:
    """Measure what is done inside the block."""
    cost = Cost()
    server = _server_cpu(client)
    wall, cpu = time.perf_counter(), time.process_time()
    yield cost
    cost.wall = time.perf_counter() - wall
    cost.client = time.process_time() - cpu
    cost.server = _server_cpu(client) - server


def _server_cpu(client: redis.Redis) -> float:
    used: Any = client.info("cpu")
    return float(used["used_cpu_sys"]) + float(used["used_cpu_user"])


def in_turns(
    client: redis.Redis, repeat: int, runs: dict[str, Callable[[], object]]
) -> dict[str, Cost]:
    """Return the least cost of each; first each runs once, to be warm."""
    for run in runs.values():
        run()
    least = {name: Cost() for name in runs}
    for _ in range(repeat):
        for name, run in runs.items():
            with measured(client) as cost:
                run()
            least[name].least(cost)
    return least


# Reading ---------------------------------------------------------------------


class Drain:
    """The requests that read both streams, and how long the replies are.

    To receive them costs what no reader of these bytes can save: the next page is
    asked for before one is received, and nothing is looked at.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._link = Link(client)
        self._pages: list[tuple[bytes, int]] = []
        replies = Replies(client)
        positions = dict.fromkeys(STREAMS, b"0-0")
        while True:
            keys = [stream.encode() for stream in STREAMS]
            words = [b"XREAD", b"COUNT", b"%d" % PAGE, b"STREAMS", *keys]
            request = packed(*words, *positions.values())
            replies.send(request)
            found = replies.streams(0.0)
            if not found:
                break
            for stream, entries in found:
                positions[stream] = entries.entry_id(len(entries) - 1)
            self._pages.append((request, replies._end))
        replies.close()

    def __call__(self) -> None:
        """Receive everything."""
        buffer = memoryview(bytearray(1 << 20))
        self._link.send(self._pages[0][0])
        for (_, length), (request, _) in pairwise([*self._pages, (b"", 0)]):
            if request:
                self._link.send(request)
            while length:
                length -= self._link.receive_into(buffer[: min(length, len(buffer))])


def read_columns(client: redis.Redis) -> int:
    """Read both streams into typed columns; return how many events came."""
    total = 0
    with ColumnarReader(client, STREAMS) as reader:
        while pages := reader.read():
            total += sum(len(page.columns) for page in pages)
    return total


def read_dicts(client: redis.Redis, events: int) -> int:
    """Read trades as redis-py gives them into a typed polars frame, page by page."""
    payload = pl.Struct(
        {"symbol": pl.String, "price": pl.Float64, "quantity": pl.Float64}
    )
    position, total = b"0-0", 0
    while total < events:
        found: Any = client.xread({MARKET: position}, count=PAGE)
        rows = found[0][1]
        position = rows[-1][0]
        names = [name.decode() for name in rows[0][1]]
        frame = pl.DataFrame(
            {
                name: [fields[name.encode()].decode() for _, fields in rows]
                for name in names
            }
        ).with_columns(
            pl.col("timestamp").str.to_datetime("%Y-%m-%dT%H:%M:%S%.fZ"),
            pl.col("data").str.json_decode(payload),
        )
        total += len(frame.unnest("data"))
    return total


def reading(url: str, events: int, repeat: int) -> dict[str, dict[str, float]]:
    """Return the costs of thrown away replies, of columns and of dicts."""
    fill(url, events)
    few = min(DICTS, events // 2)
    with connect_redis(url) as client:
        drain = Drain(client)
        assert read_columns(client) == events
        runs: dict[str, Callable[[], object]] = {
            "drain": drain,
            "columns": lambda: read_columns(client),
        }
        least = in_turns(client, repeat, runs)
        dicts = in_turns(
            client, min(2, repeat), {"dicts": lambda: read_dicts(client, few)}
        )
    table = {name: cost.row(events) for name, cost in least.items()}
    return table | {"dicts": dicts["dicts"].row(few)}


# The whole path --------------------------------------------------------------


def whole(
    url: str, events: int, repeat: int, shares: tuple[float, ...]
) -> dict[str, dict[str, float]]:
    """Return the costs of thrown away replies and of whole runs of a pipeline.

    A run begins with connecting and ends with the last commit; ``shares`` are
    those of trades that lead to an output.
    """
    fill(url, events)
    outputs: dict[str, int] = {}
    with connect_redis(url) as client:

        def run(share: float) -> None:
            summary = Runner(whole_path("p", share), url, drain=True).run()
            assert summary.total.processed == events, summary.total

        def forget() -> None:
            client.delete(OUTPUT, *client.keys("cep:*"), *client.keys("dlq:*"))

        drain = Drain(client)
        drain()
        least = {"drain": Cost()}
        for turn in range(repeat + 1):
            with measured(client) as cost:
                drain()
            least["drain"].least(cost)
            for share in shares:
                name = f"{100 * share:g} % emitting"
                forget()
                with measured(client) as cost:
                    run(share)
                outputs[name] = client.xlen(OUTPUT)
                if turn:  # the first compiles
                    least.setdefault(name, Cost()).least(cost)
    table = {name: cost.row(events) for name, cost in least.items()}
    for name, count in outputs.items():
        table[name]["outputs"] = count
    return table


# Publishing ------------------------------------------------------------------


def publishing(url: str, events: int, repeat: int) -> dict[str, dict[str, float]]:
    """Return the costs of publishing columns, and the same commands from memory."""
    columns, when = trades(events), times(events, 1.0)
    with connect_redis(url) as client:
        publisher = Publisher(client)

        def publish() -> None:
            client.delete(MARKET)
            publisher.publish_columns(MARKET, "market.trade", columns, event_time=when)

        rows = publisher._rows(MARKET, "market.trade", columns, when)
        chunks = [
            b"".join(rows.commands(at, at + CHUNK_ROWS))
            for at in range(0, events, CHUNK_ROWS)
        ]

        def send() -> None:
            client.delete(MARKET)
            done = publisher._send(((chunk, CHUNK_ROWS) for chunk in chunks), events)
            assert sum(map(len, done)) == events

        least = in_turns(client, repeat, {"prebuilt": send, "columns": publish})
        assert client.xlen(MARKET) == events
    return {name: cost.row(events) for name, cost in least.items()}


# Latency ---------------------------------------------------------------------


@contextmanager
def running(url: str, definition: str) -> Iterator[None]:
    """Run a pipeline in a process of its own."""
    code = (
        "import sys; from cep.pipeline import Runner; "
        "from tests.benchmarks import live_traffic as traffic; "
        f"Runner(traffic.{definition}, sys.argv[1]).run()"
    )
    process = subprocess.Popen([sys.executable, "-c", code, url], cwd=ROOT)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def latency(url: str, turns: int) -> dict[str, float]:
    """Return milliseconds from XADD to the output that follows.

    An event is let go once the time of a later one has come. So on the idle
    pipeline two are sent as one, of which the first brings the output. Under load
    both times are those of the server, to the millisecond.
    """
    with connect_redis(url, longest_block_ms=PATIENCE_MS) as client:
        client.flushall()
        with running(url, "each_trade('idle')"):
            idle = _idle(client, turns)
        client.flushall()
        with running(url, f"each_trade('loaded', above={LARGE})"):
            loaded = _loaded(client)
    return {
        "idle_median_ms": float(np.median(idle)),
        "idle_p99_ms": float(np.quantile(idle, 0.99)),
        "loaded_median_ms": float(np.median(loaded)),
        "loaded_p99_ms": float(np.quantile(loaded, 0.99)),
        "loaded_max_ms": float(loaded.max()),
        "loaded_outputs": float(len(loaded)),
    }


def _commands(client: redis.Redis, n: int, when: NDArray[np.int64]) -> list[bytes]:
    rows = Publisher(client)._rows(MARKET, "market.trade", trades(n), when)
    return rows.commands(0, n)


def _idle(client: redis.Redis, turns: int) -> NDArray[np.float64]:
    n = 2 * (turns + WARM_TURNS)
    commands = _commands(client, n, T0_MS + np.arange(n))
    link, buffer = Link(client), memoryview(bytearray(1 << 16))
    rng = np.random.default_rng(4)
    took, outputs, position = [], 0, b"0-0"
    for turn in range(turns + WARM_TURNS):
        began = time.perf_counter()
        link.send(commands[2 * turn] + commands[2 * turn + 1])
        # One more comes with the second turn: what the first had to hold back.
        while outputs < 2 * turn + 1:
            found: Any = client.xread({OUTPUT: position}, block=PATIENCE_MS)
            outputs += len(found[0][1])
            position = found[0][1][-1][0]
        took.append(1e3 * (time.perf_counter() - began))
        link.receive_into(buffer)
        time.sleep(float(rng.uniform(0.02, 0.06)))
    link.drop()
    return np.array(took[WARM_TURNS:])


def _loaded(client: redis.Redis) -> NDArray[np.float64]:
    n = LOADED_SECONDS * PACE
    commands = _commands(client, n, T0_MS + np.arange(n) * 1000 // PACE)
    per_ms = PACE // 1000
    link, buffer = Link(client), memoryview(bytearray(1 << 20))
    # Two before all others, of which the first comes out once the pipeline runs.
    rows = Publisher(client)._rows(
        MARKET,
        "market.trade",
        {"symbol": ["S", "S"], "price": [1.0, 1.0], "quantity": [2 * LARGE, 1.0]},
        T0_MS - np.array([20, 10]),
    )
    link.send(b"".join(rows.commands(0, 2)))
    client.xread({OUTPUT: b"0-0"}, block=PATIENCE_MS)
    link.receive_into(buffer)
    client.delete(OUTPUT)
    began = time.perf_counter()
    for at in range(0, n, per_ms):
        time.sleep(max(0.0, began + at / PACE - time.perf_counter()))
        link.send(b"".join(commands[at : at + per_ms]))
        link.receive_into(buffer)
    link.drop()
    arrived = {
        fields[b"id"]: _ms(entry_id) for entry_id, fields in client.xrange(MARKET)
    }
    large = int((trades(n)["quantity"][:-per_ms] > LARGE).sum())
    while client.xlen(OUTPUT) < large:
        time.sleep(0.1)
    found = [
        _ms(entry_id) - arrived[json.loads(fields[b"metadata"])["lineage"][0].encode()]
        for entry_id, fields in client.xrange(OUTPUT)
    ]
    # The first second, in which the pipeline starts, does not count.
    return np.array(found[len(found) // LOADED_SECONDS :], np.float64)


def _ms(entry_id: bytes) -> int:
    return int(entry_id.partition(b"-")[0])


# Restart ---------------------------------------------------------------------


def restart(url: str, keys: int) -> dict[str, float]:
    """Return the seconds of a process that takes its state up and commits.

    Each key has a window; ``empty_s`` is the same process without any state.
    """
    with connect_redis(url) as client:
        client.flushall()
        empty = _process_seconds(url)
        client.flushall()
        publisher = Publisher(client)
        when = T0_MS + np.arange(2 * keys) // 10
        columns = trades(2 * keys, symbols=keys)
        publisher.publish_columns(MARKET, "market.trade", columns, event_time=when)
        end: Any = client.xrevrange(MARKET, count=1)
        with running(url, RESTARTED):
            while _position("restart", client) != end[0][0].decode():
                time.sleep(0.1)
        return {
            "restart_s": min(_process_seconds(url) for _ in range(3)),
            "empty_s": empty,
            "state_fields": float(client.hlen(state_key("restart"))),
        }


def _position(name: str, client: redis.Redis) -> str:
    positions: Any = client.hget(meta_key(name), "positions")
    found: str = json.loads(positions or "{}").get(MARKET, "")
    return found


def _process_seconds(url: str) -> float:
    code = (
        "import sys; from cep.pipeline import Runner; "
        "from tests.benchmarks import live_traffic as traffic; "
        f"runner = Runner(traffic.{RESTARTED}, sys.argv[1]); "
        "runner.stop(); runner.run()"
    )
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, url], cwd=ROOT, check=True)
    return time.perf_counter() - began
