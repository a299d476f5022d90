"""The live path: socket to columns, streams to commit, publishing, latency, restart.

``python -m tests.benchmarks live`` starts a server of its own, prints tables, with
``--json`` one object. Reading, the whole path and publishing stand beside what the
server itself can do: the same replies received and thrown away, the same commands
sent from memory. Runs take turns and the least counts. Goals that are missed are
marked and do not fail the run: times depend on the machine, and they mean what they
say only if two cores are free.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from cep.bus.connection import connect_redis
from cep.bus.embedded import EmbeddedServer
from tests.benchmarks import live_paths as paths
from tests.benchmarks.measure import machine

PARTS = ("read", "path", "publish", "latency", "restart")
GOALS: dict[str, tuple[str, float]] = {
    "read_wall": ("at most", 1.15),
    "read_cpu_of_dicts": ("at least", 12.0),
    "path_wall": ("at most", 1.3),
    "path_client_us": ("at most", 1.0),
    "publish_rate": ("at least", 0.9),
    "idle_median_ms": ("at most", 3.0),
    "loaded_p99_ms": ("at most", 10.0),
    "restart_s": ("at most", 2.0),
}
"""What is asked, by the name it has in ``ratios``."""

EMITTING = (0.01, 0.05)


def options(words: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks live",
        description="The live path beside what the server itself can do.",
        epilog="example: python -m tests.benchmarks live --quick --only read",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--quick", action="store_true", help="a tenth of the events")
    parser.add_argument("--events", type=int, help="events of both streams together")
    parser.add_argument("--keys", type=int, help="keys with state before a restart")
    parser.add_argument("--repeat", type=int, help="runs of which the least counts")
    parser.add_argument("--url", help="a server to use; it is emptied")
    parser.add_argument(
        "--only", action="append", choices=PARTS, help="this part (may be repeated)"
    )
    given = parser.parse_args(words)
    given.events = given.events or (50_000 if given.quick else 500_000)
    given.keys = given.keys or (10_000 if given.quick else 100_000)
    given.repeat = given.repeat or (2 if given.quick else 5)
    given.only = given.only or PARTS
    return given


def main(words: list[str]) -> int:
    """Run the parts and print what they measured; 1 if an event was lost."""
    given = options(words)
    if given.url:
        return _measure(given, given.url)
    with EmbeddedServer() as server:
        return _measure(given, server.url)


def _measure(given: argparse.Namespace, url: str) -> int:
    say = (lambda *_: None) if given.json else print
    result: dict[str, Any] = {
        "machine": machine() | {"server": _server(url)},
        "events": given.events,
        "repeat": given.repeat,
        "goals": GOALS,
        "ratios": {},
    }
    ratios = result["ratios"]
    say(_heading(result))
    if "read" in given.only:
        table = result["read"] = paths.reading(url, given.events, given.repeat)
        ratios["read_wall"] = table["columns"]["wall_us"] / table["drain"]["wall_us"]
        ratios["read_cpu_of_dicts"] = (
            table["dicts"]["client_us"] / table["columns"]["client_us"]
        )
        say(_costs("reading", table))
    if "path" in given.only:
        table = result["path"] = paths.whole(url, given.events, given.repeat, EMITTING)
        rows = [row for name, row in table.items() if name != "drain"]
        drained = table["drain"]["wall_us"]
        ratios["path_wall"] = max(row["wall_us"] for row in rows) / drained
        ratios["path_client_us"] = max(row["client_us"] for row in rows)
        say(_costs("whole path", table))
    if "publish" in given.only:
        table = result["publish"] = paths.publishing(url, given.events, given.repeat)
        ratios["publish_rate"] = (
            table["columns"]["events_per_second"]
            / table["prebuilt"]["events_per_second"]
        )
        say(_costs("publishing", table))
    if "latency" in given.only:
        row = result["latency"] = paths.latency(url, 50 if given.quick else 300)
        ratios["idle_median_ms"] = row["idle_median_ms"]
        ratios["loaded_p99_ms"] = row["loaded_p99_ms"]
        say("\nlatency: " + _plain(row))
    if "restart" in given.only:
        row = result["restart"] = paths.restart(url, given.keys)
        ratios["restart_s"] = row["restart_s"]
        say("\nrestart: " + _plain(row))
    say(_ratios(ratios))
    if given.json:
        print(json.dumps(result))
    return 0


def _server(url: str) -> str:
    with connect_redis(url) as client:
        info: Any = client.info("server")
    name = info.get("server_name", "redis")
    return f"{name} {info.get(f'{name}_version', info['redis_version'])}"


def _heading(result: dict[str, Any]) -> str:
    known = result["machine"]
    return (
        f"{known['cpu']}, {known['cores']} cores; Python {known['python']}, "
        f"{known['server']}\n{result['events']:,} events of two streams, least of "
        f"{result['repeat']} runs"
    )


def _costs(title: str, table: dict[str, dict[str, float]]) -> str:
    heads = ("events/s", "wall us", "client CPU us", "server CPU us")
    lines = [
        f"\n{title:26}" + "".join(f"{head:>15}" for head in heads) + "   of an event"
    ]
    for name, row in table.items():
        lines.append(
            f"{name:26}{row['events_per_second']:15,.0f}{row['wall_us']:15.3f}"
            f"{row['client_us']:15.3f}{row['server_us']:15.3f}"
            + (f"   {row['outputs']:,.0f} outputs" if "outputs" in row else "")
        )
    return "\n".join(lines)


def _plain(row: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in row.items())


def _ratios(ratios: dict[str, float]) -> str:
    lines = [f"\n{'measured':20}{'value':>9}   goal"]
    for name, value in ratios.items():
        side, goal = GOALS[name]
        met = value <= goal if side == "at most" else value >= goal
        lines.append(
            f"{name:20}{value:9.2f}   {side} {goal:g}" + ("" if met else "  MISSED")
        )
    return "\n".join(lines)
