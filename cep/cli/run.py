"""``cep run``: run a pipeline until it is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cep.cli import is_mistake
from cep.cli.log import Log, LogForm

if TYPE_CHECKING:
    from cep.errors import CepError
    from cep.pipeline import Summary


FENCED, MEMORY, GAP, DENIED, INTERRUPTED = 3, 4, 5, 6, 130


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
            help="Take what is there as the whole input, process it and stop, for "
            "good: the pipeline cannot be started again under its name.",
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
            "and go on (skip), or stop. By default what the pipeline says, or skip."
        ),
    ] = None,
    durability: Annotated[
        str | None,
        typer.Option(
            help="What is asked of the server: fast (on disk within a second), safe "
            "(on disk with each commit) or ha (at a replica, too). It is not set, but "
            "what the server lacks of it is told."
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
    quiet: Annotated[
        bool, typer.Option("--quiet", help="No lines about start and status.")
    ] = False,
    log: Annotated[
        LogForm,
        typer.Option(
            help="What stderr gets: lines of text, or one JSON object a line."
        ),
    ] = LogForm.text,
) -> int:
    """Run a pipeline: read streams, match rules, publish what they find.

    Reads from where it last committed, so a restart goes on as if nothing had
    happened. SIGINT and SIGTERM end it after a commit, a second SIGINT at once.
    What goes on is told on stderr, the summary at the end on stdout.

    Each line of --log json has time, level (info, warning, error), event (start,
    status, gap, rollback, rule_stopped, connection_lost, end, error, ...), pipeline,
    message and fields: names, counts and entry ids, no payloads, no secrets.

    \b
    Example:
      cep run pipelines/market_ai.py --redis redis://127.0.0.1:6379
      cep run pipelines/market_ai.py --log json 2>> market-ai.log

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

    told = Log(log, quiet=quiet)
    try:
        summary = _run(
            module,
            redis,
            told,
            takeover=takeover,
            drain=drain,
            on_gap=on_gap.value if on_gap else None,
            durability=durability,
            max_rss=max_rss,
        )
    except CepError as error:
        if os.environ.get("CEP_DEBUG") == "1":
            raise
        code = _exit_code(error)
        told.error(str(error), code, type(error).__name__)
        return code
    except KeyboardInterrupt:
        told.error("interrupted", INTERRUPTED, "KeyboardInterrupt")
        return INTERRUPTED
    print(json.dumps(summary_dict(summary)) if as_json else summary_text(summary))
    return 0


def _run(
    module: str,
    url: str | None,
    log: Log,
    *,
    durability: str | None,
    max_rss: str | None,
    **options: Any,
) -> Summary:
    from cep.pipeline import Runner, load_pipeline
    from cep.pipeline.definition import checked_level
    from cep.pipeline.memory import size_bytes

    pipeline = load_pipeline(module)
    log.pipeline = pipeline.name
    server = _reached(url)
    _compile(log)
    runner = Runner(
        pipeline,
        url,
        durability=checked_level(durability),
        max_rss=None if max_rss is None else size_bytes(max_rss),
        report=log.status,
        note=log.note,
        **options,
    )

    def stop(number: int, _: object) -> None:
        if runner.stopping and number == signal.SIGINT:
            raise KeyboardInterrupt
        runner.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    log.start(pipeline, server)
    summary = runner.run()
    log.end(summary)
    return summary


def _exit_code(error: CepError) -> int:
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
        if isinstance(error, kind):
            return code
    return 2 if is_mistake(error) else 1


def _reached(url: str | None) -> str:
    """Say at once, not after compiling, that there is no server; return its URL."""
    from cep.bus.connection import address_of, check_reachable, connect_redis

    with connect_redis(url) as client:
        check_reachable(client)
        return address_of(client)


def _compile(log: Log) -> None:
    """Compile what is not compiled yet: matching beside windows and reader."""
    from cep.bus import warmup as reader
    from cep.engine import warmup as engine

    if engine.is_warm() and reader.is_warm():
        return
    log.compiling()
    others = (
        "from cep.bus.warmup import warm_up; warm_up(); "
        "from cep.engine.warmup import warm_up_windows; warm_up_windows()"
    )
    command = [sys.executable, "-c", others]
    helper = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    engine.warm_up_matching()
    helper.wait()


def summary_dict(summary: Summary) -> dict[str, object]:
    """Return the summary as plain values."""
    return {
        "pipeline": summary.pipeline,
        "streams": {name: asdict(c) for name, c in summary.streams.items()},
        "accounting": asdict(summary.total),
        "rules": summary.outputs,
        "windows": summary.windows,
        "dead_letters_trimmed": summary.trimmed,
        "commits": summary.commits,
        "seconds": round(summary.seconds, 3),
        "ended": summary.ended,
    }


def summary_text(summary: Summary) -> str:
    """Return the summary as lines: accounting by stream, outputs by rule."""
    lines = [f"pipeline {summary.pipeline}, {summary.commits:,} commits"]
    lines += [f"  {name}: {counts}" for name, counts in summary.streams.items()]
    lines.append(f"  all: {summary.total}")
    if summary.trimmed:
        lines.append(
            f"  {summary.trimmed:,} dead letters were removed for newer ones, at the "
            "limit max_dead_letters"
        )
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
