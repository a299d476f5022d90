"""``cep archive``: streams kept as Parquet files."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cep.clock import duration_ns
from cep.errors import UsageError
from cep.events.timestamps import format_timestamp

if TYPE_CHECKING:
    import redis as redis_py

    from cep.frames.archive.prune import Plan, Reader
    from cep.frames.archive.verify import Verified

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="""Keep streams as Parquet files: audit trail, backup, history to load.

    \b
    Examples:
      cep archive run archive --redis redis://127.0.0.1:6379
      cep archive status archive
      cep archive verify archive
      cep archive prune archive --keep 24h
    """,
)

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="The archive.")]
Redis = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Server. By default that of CEP_REDIS_URL."),
]
Streams = Annotated[
    list[str] | None,
    typer.Option("--stream", metavar="STREAM", help="Only this one. Repeatable."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command()
def run(
    folder: Folder,
    stream: Streams = None,
    every: Annotated[
        str, typer.Option(metavar="DURATION", help="How often to write files.")
    ] = "10s",
    once: Annotated[
        bool, typer.Option("--once", help="Archive what there is now, and stop.")
    ] = False,
    redis: Redis = None,
) -> int:
    """Write what comes on streams to files, each entry once.

    By default the streams of all known event types. It may be killed at any moment
    and goes on where its last file ends; SIGINT and SIGTERM end it once what was
    read is written. One process writes a folder at a time.

    \b
    Example:
      cep archive run archive --stream market.events --every 1m
    """
    from cep.bus.connection import connect_redis
    from cep.frames.archive.write import Archiver

    seconds = duration_ns(every) / 1e9
    with connect_redis(redis) as client:
        streams = stream or _known()
        archiver = Archiver(
            client,
            folder,
            streams,
            every_seconds=seconds,
            note=lambda text: print(text, file=sys.stderr, flush=True),
        )
        with archiver:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: archiver.stop())
            if once:
                archiver.catch_up()
            else:
                archiver.run()
    for name, one in archiver.progress.items():
        if one.rows:
            print(f"{_printable(name)}: {one.rows:,} entries in {one.files:,} files")
    rows = sum(one.rows for one in archiver.progress.values())
    print(f"{rows:,} entries archived")
    return 0


@app.command()
def status(
    folder: Folder, stream: Streams = None, as_json: Json = False, redis: Redis = None
) -> None:
    """Say what the archive holds of each stream, and how far it is behind.

    Without a server that answers, what the files say alone.

    \b
    Example:
      cep archive status archive --json
    """
    from cep.bus.connection import connect_redis
    from cep.errors import ConnectionFailedError
    from cep.frames.archive.verify import verify

    found = verify(folder, stream, quick=True)
    behind: dict[str, int | None] = {}
    try:
        with connect_redis(redis) as client:
            behind = {one.stream: _behind(client, one) for one in found}
    except ConnectionFailedError as error:
        print(f"note: {error}", file=sys.stderr)
    if as_json:
        print(json.dumps([_plain(one, behind.get(one.stream)) for one in found]))
        return
    for one in found:
        after = behind.get(one.stream)
        more = "" if after is None else f", {after:,} not archived yet"
        gone = f", {one.missing:,} gone before they were" if one.missing else ""
        print(
            f"{_printable(one.stream)}: {one.rows:,} entries in {one.files:,} files, "
            f"{one.bytes / 1e6:,.1f} MB, {_when(one.first)} to {_when(one.last)}"
            f"{more}{gone}"
        )
        for problem in one.problems:
            print(f"  {_printable(problem)}", file=sys.stderr)


@app.command()
def verify(folder: Folder, stream: Streams = None, as_json: Json = False) -> int:
    """Read all files and compare them with the hashes and counts in them.

    Exit code 1 if a file is damaged, missing, or not where it belongs.

    \b
    Example:
      cep archive verify archive
    """
    from cep.frames.archive.verify import verify as verify_files

    found = verify_files(folder, stream)
    wrong = sum(len(one.problems) for one in found)
    if as_json:
        print(json.dumps([_plain(one, None) for one in found]))
    else:
        for one in found:
            for problem in one.problems:
                print(_printable(problem), file=sys.stderr)
            verdict = "as written" if not one.problems else "DAMAGED"
            print(
                f"{_printable(one.stream)}: {one.rows:,} entries in "
                f"{one.files:,} files, {verdict}"
            )
    return 1 if wrong else 0


@app.command()
def prune(
    folder: Folder,
    stream: Streams = None,
    keep: Annotated[
        str,
        typer.Option(metavar="DURATION", help="Keep this much, by time of arrival."),
    ] = "0s",
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            metavar="READER",
            help="A pipeline or consumer group that does not count. Repeatable.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would go.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    redis: Redis = None,
) -> int:
    """Trim streams of what is archived and read.

    An entry goes if the archive holds it byte for byte (each is compared with the
    server's now), and all consumer groups and pipelines on the server have passed it,
    running or not. Says first what would go. Dead letters that point at larger
    entries than they hold can no longer be retried. Exit code 1 if the archive is
    not what the server has.

    \b
    Example:
      cep archive prune archive --keep 24h --dry-run
    """
    from cep.bus.connection import connect_redis
    from cep.frames.archive.layout import streams_in
    from cep.frames.archive.prune import carry_out, plan

    keep_ms = duration_ns(keep, allow_zero=True) // 1_000_000
    with connect_redis(redis) as client:
        names = stream or streams_in(folder)
        readers = _pipelines(client, ignore or [])
        plans = [
            plan(
                client,
                folder,
                name,
                readers.get(name, []),
                keep_ms=keep_ms,
                ignore=ignore or (),
            )
            for name in names
        ]
        for one in plans:
            _print_plan(one)
        total = sum(one.entries for one in plans)
        if total and not dry_run:
            if not yes:
                if not sys.stdin.isatty():
                    raise UsageError(
                        f"{total:,} entries would be trimmed.", "Add --yes to do it."
                    )
                typer.confirm(f"Trim {total:,} entries?", abort=True)
            gone = sum(carry_out(client, one) for one in plans)
            print(f"{gone:,} entries trimmed")
    return 1 if any(one.problem for one in plans) else 0


def _print_plan(one: Plan) -> None:
    name = _printable(one.stream)
    print(f"{name}: {one.entries:,} entries may go, {one.left:,} stay: {one.kept_for}")
    if one.problem:
        print(_printable(one.problem), file=sys.stderr)


def _pipelines(client: redis_py.Redis, ignore: list[str]) -> dict[str, list[Reader]]:
    from cep.frames.archive.prune import Reader
    from cep.pipeline.needs import needed

    readers: dict[str, list[Reader]] = {}
    for name, streams in needed(client).items():
        if name not in ignore:
            for stream, needs in streams.items():
                reader = Reader(f"pipeline {name!r}", needs)
                readers.setdefault(stream, []).append(reader)
    return readers


def _known() -> list[str]:
    from cep.events.registry import STREAMS, registry

    return list(dict.fromkeys([*STREAMS, *(one.stream for one in registry.all())]))


def _behind(client: redis_py.Redis, one: Verified) -> int | None:
    """Return how many entries the stream has that are not archived."""
    from cep.frames.archive.layout import parsed
    from cep.frames.archive.write import stream_info

    info = stream_info(client, one.stream)
    if info is None or parsed(info["last-generated-id"].decode()) <= parsed(one.last):
        return 0
    added = info.get("entries-added")
    return None if not added else max(0, int(added) - one.rows - one.missing)


def _plain(one: Verified, behind: int | None) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(one), "behind": behind}


def _when(entry_id: str) -> str:
    ms = int(entry_id.partition("-")[0] or 0)
    try:
        return format_timestamp(ms)
    except (ValueError, OverflowError):
        return entry_id


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
