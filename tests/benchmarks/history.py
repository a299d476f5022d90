"""Questions to history: loading, scanning, memory, backtests.

``python -m tests.benchmarks history`` starts a server of its own and prints a table
for each question, with ``--json`` one object. Loading stands beside redis-py's
dictionaries made into frames; backtests want ``--data FOLDER``, as
`tests.benchmarks.history_backtest` says. Goals that are missed are marked and do not
fail the run: times depend on the machine and mean what they say only if two cores are
free.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cep.bus.embedded import EmbeddedServer
from tests.benchmarks import history_frames as frames
from tests.benchmarks.history_backtest import ROWS, backtests
from tests.benchmarks.measure import machine

if TYPE_CHECKING:
    from collections.abc import Callable

    # Takes a server's address and the options; returns rows by name, and ratios.
    Answer = tuple[dict[str, dict[str, float]], dict[str, float]]
    Question = Callable[[str, argparse.Namespace], Answer]

QUESTIONS: Final[dict[str, Question]] = {
    "load": frames.loading,
    "scan": frames.scanning,
    "memory": frames.memory,
    "backtest": backtests,
}
GOALS: Final[dict[str, tuple[str, float]]] = {
    "load_of_polars_dicts": ("at least", 10.0),
    "load_of_pandas_dicts": ("at least", 15.0),
    "scan_read": ("at most", 0.015),
    "load_memory": ("at most", 2.0),
    "backtest_cpu_s": ("at most", 15.0),
}
"""What is asked, by the name it has in ``ratios``."""


def options(words: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks history",
        description="Loading and scanning of history, beside dictionaries.",
        epilog="example: python -m tests.benchmarks history --quick --only scan",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--quick", action="store_true", help="a fiftieth of the events")
    parser.add_argument("--events", type=int, help="entries of the stream")
    parser.add_argument("--repeat", type=int, help="runs of which the least counts")
    parser.add_argument(
        "--only", action="append", choices=QUESTIONS, help="this one (may be repeated)"
    )
    parser.add_argument(
        "--data", type=Path, metavar="FOLDER", help="trades and quotes to backtest over"
    )
    given = parser.parse_args(words)
    given.rows = 200_000 if given.quick else ROWS
    given.events = given.events or (20_000 if given.quick else 1_000_000)
    given.repeat = given.repeat or (1 if given.quick else 3)
    given.only = given.only or list(QUESTIONS)
    return given


def main(words: list[str]) -> int:
    """Ask the questions and print what came of them."""
    given = options(words)
    say = (lambda *_: None) if given.json else print
    result: dict[str, Any] = {
        "machine": machine(),
        "events": given.events,
        "repeat": given.repeat,
        "goals": GOALS,
        "ratios": {},
    }
    known = result["machine"]
    say(f"{known['cpu']}, {known['cores']} cores; Python {known['python']}")
    say(f"{given.events:,} entries, least of {given.repeat} runs")
    with EmbeddedServer(appendonly=False) as server:
        for name in given.only:
            result[name], ratios = QUESTIONS[name](server.url, given)
            result["ratios"] |= ratios
            say(_table(name, result[name]))
    say(_ratios(result["ratios"]))
    if given.json:
        print(json.dumps(result))
    return 0


def _table(title: str, rows: dict[str, dict[str, float]]) -> str:
    heads = list(next(iter(rows.values()), {}))
    lines = ["\n" + f"{title:28}" + "".join(f"{head:>16}" for head in heads)]
    for name, row in rows.items():
        cells = "".join(f"{value:16,.3f}" for value in row.values())
        lines.append(f"{name:28}{cells}")
    return "\n".join(lines)


def _ratios(ratios: dict[str, float]) -> str:
    lines = [f"\n{'measured':24}{'value':>9}   goal"]
    for name, value in ratios.items():
        if name not in GOALS:
            lines.append(f"{name:24}{value:9.3f}")
            continue
        side, goal = GOALS[name]
        met = value <= goal if side == "at most" else value >= goal
        missed = "" if met else "  MISSED"
        lines.append(f"{name:24}{value:9.3f}   {side} {goal:g}{missed}")
    return "\n".join(lines)
