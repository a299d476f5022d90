"""The engine over columns in memory: speed, flatness, worst case, start-up.

``python -m tests.benchmarks engine`` prints tables, with ``--json`` one object.
Every answer of ours is compared with that of `tests.benchmarks.questions`; the exit
code is 1 if one differs. Goals that are missed are marked and do not fail the run:
times depend on the machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tests.benchmarks import tables
from tests.benchmarks.measure import machine
from tests.benchmarks.questions import CONSTANTS
from tests.benchmarks.streams import SEED, VOLATILITY, make_stream
from tests.benchmarks.workload_costs import (
    BATCH,
    batch_sizes,
    workloads,
)
from tests.benchmarks.workloads import DEFAULT, PUBLISHED, SMALL

PARTS = ("workloads", "batches", "flatness", "worst_case", "startup", "trades")


def options(words: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks engine",
        description="CPU per event of the engine, beside loops by hand and polars.",
        epilog="example: python -m tests.benchmarks engine --quick --only workloads",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="200,000 ticks and 20,000 AI events, smaller sweeps, fewer runs",
    )
    parser.add_argument("--data", type=Path, help="folder with days of real trades")
    parser.add_argument("--ticks", type=int)
    parser.add_argument("--ai", type=int, help="AI events, half of them requests")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--volatility", type=float, default=VOLATILITY)
    parser.add_argument("--repeat", type=int, help="runs of which the least counts")
    parser.add_argument(
        "--only", action="append", choices=PARTS, help="this part (may be repeated)"
    )
    given = parser.parse_args(words)
    ticks, ai, *_ = SMALL if given.quick else DEFAULT
    given.ticks = ticks if given.ticks is None else given.ticks
    given.ai = ai if given.ai is None else given.ai
    given.repeat = given.repeat or (2 if given.quick else 5)
    given.only = given.only or PARTS
    return given


def main(words: list[str]) -> int:
    """Run the parts and print what they measured; 1 if an answer is wrong."""
    given = options(words)
    result: dict[str, Any] = {
        "machine": machine(),
        "ticks": given.ticks,
        "ai": given.ai,
        "seed": given.seed,
        "volatility": given.volatility,
        "repeat": given.repeat,
        "batch": BATCH,
    }
    say = (lambda *_: None) if given.json else print
    say(tables.heading(result))
    stream = make_stream(
        given.ticks, given.ai, seed=given.seed, volatility=given.volatility
    )
    wrong: list[str] = []
    if "workloads" in given.only or "batches" in given.only:
        known = PUBLISHED.get((given.ticks, given.ai, given.seed, given.volatility), {})
        table = result["workloads"] = workloads(stream, CONSTANTS, given.repeat, known)
        wrong += [name for name, row in table.items() if not row["exact"]]
        say(tables.workloads(table))
    if "batches" in given.only:
        loop_us = {name: row["loop_us"] for name, row in result["workloads"].items()}
        sizes = result["batches"] = batch_sizes(
            stream, CONSTANTS, loop_us, steps=300 if given.quick else 2000
        )
        wrong += [
            f"{name} in batches of {size}"
            for name, rows in sizes.items()
            for size, row in rows.items()
            if not row["exact"]
        ]
        say(tables.batches(sizes))
    if "flatness" in given.only:
        result["flatness"] = _flatness(given)
        say(tables.flatness(result["flatness"]))
    if "worst_case" in given.only:
        from tests.benchmarks.worst_case import worst_case

        result["worst_case"] = worst_case(300 if given.quick else 1000)
        say(tables.worst_case(result["worst_case"]))
    if "startup" in given.only:
        from tests.benchmarks.startup import startup

        result["startup"] = startup(given.repeat)
        say(tables.startup(result["startup"]))
    if "trades" in given.only and given.data:
        from tests.benchmarks.trades import trades

        result["trades"] = trades(given.data, given.repeat)
        wrong += [
            f"{name} on {file}"
            for file, rows in result["trades"].items()
            for name, row in rows.items()
            if not row["exact"]
        ]
        say(tables.trades(result["trades"]))
    result["wrong"] = wrong
    if given.json:
        print(json.dumps(result))
    for name in wrong:
        print(f"wrong answer: {name}", file=sys.stderr)
    return 1 if wrong else 0


def _flatness(given: argparse.Namespace) -> dict[str, Any]:
    from tests.benchmarks.flatness import (
        numbers_of_keys,
        numbers_of_rules,
        window_lengths,
    )

    if given.quick:
        return {
            "window": window_lengths(200_000, 1),
            "rules": numbers_of_rules(50_000, 1),
            "keys": numbers_of_keys(100_000, most=100_000),
        }
    return {
        "window": window_lengths(500_000, 3),
        "rules": numbers_of_rules(200_000, 2),
        "keys": numbers_of_keys(1_000_000, most=1_000_000),
    }
