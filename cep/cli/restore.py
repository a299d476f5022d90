"""``cep restore``: streams made anew from an archive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cep.errors import UsageError


def restore(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The archive.")],
    stream: Annotated[
        list[str] | None,
        typer.Option("--stream", metavar="STREAM", help="Only this one. Repeatable."),
    ] = None,
    into: Annotated[
        str | None,
        typer.Option(metavar="STREAM", help="Another key to write the one stream to."),
    ] = None,
    start: Annotated[
        str | None, typer.Option(metavar="TIME|ID", help="From this arrival on.")
    ] = None,
    end: Annotated[
        str | None, typer.Option(metavar="TIME|ID", help="Up to this arrival.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on after the last entry that is there already."
        ),
    ] = False,
    redis: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Server. By default that of CEP_REDIS_URL."),
    ] = None,
) -> None:
    """Write archived entries back to streams, with the same entry ids and bytes.

    A stream that is not empty is refused, unless --resume says to go on after its
    last entry, as after a restore that was interrupted.

    \b
    Examples:
      cep restore archive --redis redis://127.0.0.1:6379
      cep restore archive --stream market.events --into market.again --end 2026-01-06
    """
    from cep.bus.connection import connect_redis
    from cep.frames.archive.layout import streams_in
    from cep.frames.archive.read import ArchiveSource
    from cep.frames.archive.restore import check_target
    from cep.frames.archive.restore import restore as restore_stream
    from cep.frames.progress import progress
    from cep.frames.span import entry_span

    names = stream or streams_in(folder)
    if into is not None and len(names) != 1:
        raise UsageError("--into takes one stream.", "Name it with --stream.")
    source = ArchiveSource(folder)
    for name in names:
        source.check(name)
    newest = max((source.newest_ms(name) or 0 for name in names), default=0)
    first, last = entry_span(start, end, lambda: newest)
    with connect_redis(redis) as client:
        if not resume:
            for name in names:
                check_target(client, into or name)
        for name in names:
            with progress(name, source.length(name)) as told:
                n = restore_stream(
                    client,
                    folder,
                    name,
                    into=into,
                    first=first,
                    last=last,
                    resume=resume,
                    told=told,
                )
            print(f"{into or name!s}: {n:,} entries")
