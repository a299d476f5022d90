"""``cep run``: run a pipeline until it is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cep.errors import CepError
    from cep.pipeline import Summary


FENCED, MEMORY, GAP, DENIED = 3, 4, 5, 6


class OnGap(StrEnum):
    """The choices of ``--on-gap``."""

    stop = "stop"
    skip = "skip"


def run(
    module: Annotated[str, typer.Argument(help="Python file with rules.")],
    redis: Annotated[
        str | None,
        typer.Option(help="Server, such as redis://127.0.0.1:6379 (CEP_REDIS_URL)."),
    ] = None,
    drain: Annotated[
        bool,
        typer.Option(
            "--drain",
            help="Take what is there as the whole input, process it and stop.",
        ),
    ] = False,
    takeover: Annotated[
        bool,
        typer.Option(
            "--takeover", help="Take the pipeline from another process that runs it."
        ),
    ] = False,
    on_gap: Annotated[
        OnGap | None,
        typer.Option(
            help="When entries were lost before they were read: write a dead letter "
            "and go on, or stop."
        ),
    ] = None,
    durability: Annotated[
        str | None,
        typer.Option(
            help="What is asked of the server: fast (on disk within a second), safe "
            "(on disk with each commit) or ha (at a replica, too)."
        ),
    ] = None,
    max_rss: Annotated[
        str | None,
        typer.Option(
            help="Commit and end with this much memory, such as 2GB (default: 80 % "
            "of what the machine or its control group has)."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as one JSON object.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No status lines.")] = False,
) -> int:
    """Run a pipeline: read streams, match rules, publish what they find.

    Reads from where it last committed, so a restart goes on as if nothing had
    happened. SIGINT and SIGTERM end it after a commit, a second SIGINT at once.
    Status goes to stderr, the summary to stdout.

    \b
    Example:
      cep run pipelines/market_ai.py --redis redis://127.0.0.1:6379

    \b
    Exit codes:
      0  stopped cleanly
      1  the server is not there, or cannot answer
      2  a mistake in the command or the module
      3  another process runs the pipeline, or took it over
      4  more memory than --max-rss; all is committed
      5  entries were lost before they were read, and --on-gap is stop
      6  the server does not let us in: password, rights, or TLS
    """
    from cep.errors import CepError
    from cep.pipeline import Runner, load_pipeline
    from cep.pipeline.definition import checked_level
    from cep.pipeline.memory import size_bytes

    pipeline = load_pipeline(module)
    try:
        _reach(redis)
    except CepError as error:
        return _ended(error)
    _compile(quiet)
    runner = Runner(
        pipeline,
        redis,
        takeover=takeover,
        drain=drain,
        on_gap=on_gap.value if on_gap else None,
        durability=checked_level(durability),
        max_rss=None if max_rss is None else size_bytes(max_rss),
        report=(lambda _: None) if quiet else _Status(time.monotonic()),
        note=lambda text: print(text, file=sys.stderr, flush=True),
    )

    def stop(number: int, _: object) -> None:
        if runner.stopping and number == signal.SIGINT:
            raise KeyboardInterrupt
        runner.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        summary = runner.run()
    except CepError as error:
        return _ended(error)
    if as_json:
        print(json.dumps(summary_dict(summary)))
    else:
        print(summary_text(summary))
    return 0


def _ended(error: CepError) -> int:
    """Say what ended the pipeline and return its exit code, or raise the error."""
    from cep.errors import (
        AccessDeniedError,
        FencedError,
        GapError,
        MemoryLimitError,
    )

    codes: dict[type[CepError], int] = {
        FencedError: FENCED,
        MemoryLimitError: MEMORY,
        GapError: GAP,
        AccessDeniedError: DENIED,
    }
    for kind, code in codes.items():
        if isinstance(error, kind) and os.environ.get("CEP_DEBUG") != "1":
            print("error:", " ".join(str(error).split()), file=sys.stderr)
            return code
    raise error


def _reach(url: str | None) -> None:
    """Say at once, not after compiling, that there is no server."""
    from cep.bus.connection import check_reachable, connect_redis

    with connect_redis(url) as client:
        check_reachable(client)


def _compile(quiet: bool) -> None:
    """Compile what is not compiled yet: matching beside windows and reader."""
    from cep.bus import warmup as reader
    from cep.engine import warmup as engine

    if engine.is_warm() and reader.is_warm():
        return
    if not quiet:
        print(
            "Compiling kernels, once on this machine (some 40 s of CPU)...",
            file=sys.stderr,
            flush=True,
        )
    others = (
        "from cep.bus.warmup import warm_up; warm_up(); "
        "from cep.engine.warmup import warm_up_windows; warm_up_windows()"
    )
    command = [sys.executable, "-c", others]
    helper = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    engine.warm_up_matching()
    helper.wait()


class _Status:
    """Writes a line now and then: what was read, what came out, what waits."""

    def __init__(self, began: float, every_seconds: float = 2.0) -> None:
        self.began, self.every = began, every_seconds
        self.last, self.last_read = began, -1

    def __call__(self, summary: Summary) -> None:
        now = time.monotonic()
        total = summary.total
        if self.last_read < 0:  # what was read by earlier runs, if any
            self.last_read = total.read
        if now - self.last < self.every:
            return
        rate = (total.read - self.last_read) / (now - self.last)
        self.last, self.last_read = now, total.read
        emitted = sum(counts["emitted"] for counts in summary.outputs.values())
        waits = f", waits for {summary.held_back_by}" if summary.held_back_by else ""
        print(
            f"[{now - self.began:6.1f} s] {rate:9,.0f} events/s, "
            f"{total.processed:,} processed, {total.buffered:,} buffered{waits}, "
            f"{emitted:,} derived",
            file=sys.stderr,
            flush=True,
        )


def summary_dict(summary: Summary) -> dict[str, object]:
    """Return the summary as plain values."""
    return {
        "pipeline": summary.pipeline,
        "streams": {name: asdict(c) for name, c in summary.streams.items()},
        "accounting": asdict(summary.total),
        "rules": summary.outputs,
        "windows": summary.windows,
        "commits": summary.commits,
        "seconds": round(summary.seconds, 3),
        "ended": summary.ended,
    }


def summary_text(summary: Summary) -> str:
    """Return the summary as lines: accounting by stream, outputs by rule."""
    lines = [f"pipeline {summary.pipeline}, {summary.commits:,} commits"]
    lines += [f"  {name}: {counts}" for name, counts in summary.streams.items()]
    lines.append(f"  all: {summary.total}")
    width = max(map(len, summary.outputs), default=0)
    for name, c in summary.outputs.items():
        lines.append(
            f"  {name:{width}}  {c['emitted']:6,} derived, "
            f"{c['suppressed']:,} suppressed by cooldown, {c['matches']:,} matches"
            + limits_text(c)
        )
    for name, c in summary.windows.items():
        if c["dropped"] or c["forgotten"]:
            lines.append(
                f"  {name}: {c['dropped']:,} events left early at the window's limit, "
                f"{c['forgotten']:,} keys forgotten"
            )
    return "\n".join(lines)


def limits_text(counts: dict[str, int]) -> str:
    """Return what errors and limits cost a rule; empty if nothing."""
    text = ""
    if counts.get("errors"):
        text += f", {counts['errors']:,} events on which it failed"
    if counts.get("dropped_partials"):
        text += f", {counts['dropped_partials']:,} partial matches dropped at its limit"
    if counts.get("dropped_outputs"):
        n = counts["dropped_outputs"]
        text += f", {n:,} matches dropped at its limit of one event"
    return text + (", then stopped" if counts.get("tripped") else "")
