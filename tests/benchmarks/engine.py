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

from tests.benchmarks.measure import machine
from tests.benchmarks.questions import CONSTANTS
from tests.benchmarks.streams import SEED, VOLATILITY, make_stream
from tests.benchmarks.workload_costs import (
    BATCH,
    BATCH_OF_ONE_US,
    BATCH_SIZES,
    batch_sizes,
    workloads,
)
from tests.benchmarks.workloads import DEFAULT, PUBLISHED, SMALL

PARTS = ("workloads", "batches", "startup")


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
    say(_heading(result))
    stream = make_stream(
        given.ticks, given.ai, seed=given.seed, volatility=given.volatility
    )
    wrong: list[str] = []
    if "workloads" in given.only or "batches" in given.only:
        known = PUBLISHED.get((given.ticks, given.ai, given.seed, given.volatility), {})
        table = result["workloads"] = workloads(stream, CONSTANTS, given.repeat, known)
        wrong += [name for name, row in table.items() if not row["exact"]]
        say(_workload_table(table))
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
        say(_batch_table(sizes))
    if "startup" in given.only:
        from tests.benchmarks.startup import startup

        row = result["startup"] = startup(given.repeat)
        say(
            f"\ncompiling from nothing {row['compile_s']:.1f} s of CPU (goal "
            f"{row['compile_goal_s']:g}), start {row['start_s']:.2f} s (goal "
            f"{row['start_goal_s']:g}); kernels compiled after the warm-up: "
            f"{row['compiled_later']} of {row['kernels'] + row['compiled_later']}"
        )
    result["wrong"] = wrong
    if given.json:
        print(json.dumps(result))
    for name in wrong:
        print(f"wrong answer: {name}", file=sys.stderr)
    return 1 if wrong else 0


def _heading(result: dict[str, Any]) -> str:
    known = result["machine"]
    return (
        f"{known['cpu']}, {known['cores']} cores; Python {known['python']}, numba "
        f"{known['numba']}, numpy {known['numpy']}, polars {known['polars']}\n"
        f"{result['ticks']:,} ticks and {result['ai']:,} AI events, seed "
        f"{result['seed']}, volatility {result['volatility']:g}, batches of "
        f"{result['batch']:,}; us of CPU per event, least of {result['repeat']} runs"
    )


_HEADS = (
    ("matches", 9),
    ("exact", 5),
    ("us", 6),
    ("ingest", 6),
    ("events/s", 8),
    ("goal", 6),
    ("of it", 6),
    ("loop", 6),
    ("times", 6),
)


def _workload_table(table: dict[str, Any]) -> str:
    heads = [*_HEADS, ("polars", 6), ("times", 6)]
    lines = ["", "     " + " ".join(f"{head:>{width}}" for head, width in heads)]
    for name, row in table.items():
        line = (
            f"{name:4} {row['answer'][0]:9,} {'yes' if row['exact'] else 'NO':>5} "
            f"{row['us']:6.3f} {row['ingest_us']:6.3f} "
            f"{row['events_per_second'] / 1e6:6.1f} M {row['goal_us']:6.3f} "
            f"{row['of_goal']:6.2f} {row['loop_us']:6.3f} {row['times_loop']:6.1f} "
        )
        if "polars_us" in row:
            line += f"{row['polars_us']:6.3f} {row['times_polars']:6.2f}"
        lines.append(line)
    for name, row in table.items():
        if row.get("polars_differs"):
            count = row["polars_answer"][0]
            lines.append(f"{name}: polars {row['polars_differs']} ({count:,} matches)")
        if not row["loop_exact"]:
            lines.append(f"{name}: the loop by hand rounds and answers otherwise")
    return "\n".join(lines)


def _batch_table(table: dict[str, Any]) -> str:
    lines = [
        "",
        "us per event by batch size: ours / loop given lists / loop given our columns",
        "       " + "".join(f"{size:>21,}" for size in BATCH_SIZES),
    ]
    for name, rows in table.items():
        cells = [
            f"{row['us']:8.3f}{row['loop_us']:6.2f}{row['loop_columns_us']:7.2f}"
            for row in rows.values()
        ]
        lines.append(f"{name:5}  " + "".join(cells))
    slower = [
        f"{name} at {size:,}"
        for name, rows in table.items()
        for size, row in rows.items()
        if row["us"] > row["loop_columns_us"]
    ]
    lines.append(f"slower than the loop given our columns: {', '.join(slower) or '-'}")
    worst = max(rows[1]["us"] for rows in table.values())
    lines.append(f"a batch of one: {worst:.1f} us at most (goal {BATCH_OF_ONE_US:g})")
    return "\n".join(lines)
