"""``cep report``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def report(
    file: Annotated[
        Path, typer.Argument(metavar="FILE.html", help="The page.", show_default=False)
    ],
    streams: Annotated[
        str | None,
        typer.Option(
            metavar="STREAM,...", help="Which streams. By default those of the rules."
        ),
    ] = None,
    rules: Annotated[
        Path | None, typer.Option(metavar="FILE.py", help="Python file with rules.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="From when on, by arrival: 2026-11-23T09:30Z, an entry id, or -15m "
            "for so long before the newest entry.",
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Up to when, likewise.")
    ] = None,
    redis: Annotated[
        str | None,
        typer.Option(
            metavar="URL|sample",
            help="Server, or the bundled sample. By default that of CEP_REDIS_URL.",
        ),
    ] = None,
    archive: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Take entries from what `cep archive` keeps there."
        ),
    ] = None,
    live: Annotated[
        bool,
        typer.Option(
            "--live/--no-live", help="With an archive: go on with what the server has."
        ),
    ] = True,
    title: Annotated[str | None, typer.Option(help="The page's title.")] = None,
    max_lag: Annotated[
        str,
        typer.Option(metavar="DURATION", help="Up to which lag streams are compared."),
    ] = "1s",
    seed: Annotated[int, typer.Option(help="Of what is drawn at random.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No status lines.")] = False,
) -> None:
    """Write a page about streams that needs no network, and its tables as CSV.

    \b
    Examples:
      cep report sample.html --rules pipelines/market_ai.py --redis sample
      cep report today.html --streams market.events,ai.events --since -24h
      cep report old.html --streams market.events --archive FOLDER --no-live
    """
    from cep.reporting import report as make

    def note(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    made = make(
        file,
        streams=[name.strip() for name in streams.split(",")] if streams else None,
        rules=rules,
        url=redis,
        archive=archive,
        live=live,
        start=since,
        end=until,
        title=title,
        max_lag=max_lag,
        seed=seed,
        note=None if quiet else note,
    )
    print(made)
