"""``cep replay``."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cep.errors import UsageError, near_miss

if TYPE_CHECKING:
    import polars as pl

    from cep.bus.replay import Track

_LINES = 10  # of progress, where there is no terminal


def replay(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE|sample",
            help="A .parquet or .csv file, or the bundled sample.",
            show_default=False,
        ),
    ],
    event_type: Annotated[
        str | None,
        typer.Option(
            "--type", metavar="TYPE", help="Event type of the rows, as market.trade."
        ),
    ] = None,
    stream: Annotated[
        str | None,
        typer.Option(
            metavar="STREAM", help="Where to publish. By default the home of the type."
        ),
    ] = None,
    mapping: Annotated[
        str,
        typer.Option(
            "--map",
            metavar="FIELD=COLUMN,...",
            help="Payload fields from columns, as price=px,quantity=qty. A quoted "
            "column is a constant. Columns named like a field need no mapping.",
            show_default=False,
        ),
    ] = "",
    constants: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="A constant field, as venue=binance-spot. Repeatable.",
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Column with the event time. By default event_time, timestamp, ts "
            "or time. Without a zone it is UTC.",
        ),
    ] = None,
    time_unit: Annotated[
        str,
        typer.Option(metavar="UNIT", help="What numbers in it count: s, ms, us or ns."),
    ] = "ms",
    sort: Annotated[
        bool, typer.Option("--sort", help="Publish by event time, not by row.")
    ] = False,
    speed: Annotated[
        str,
        typer.Option(help="Seconds of event time per second, or max.", metavar="N|max"),
    ] = "max",
    shift_to_now: Annotated[
        bool,
        typer.Option(
            "--shift-to-now", help="Shift event times so that the last one is now."
        ),
    ] = False,
    redis: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Server. By default that of CEP_REDIS_URL."),
    ] = None,
    modules: Annotated[
        list[str] | None,
        typer.Option(
            "--import",
            metavar="MODULE",
            help="Module that registers your event types. Repeatable.",
        ),
    ] = None,
) -> None:
    """Publish a file, or the bundled sample, as events.

    Rows are published in their order, at the pace of their event times or as
    fast as possible. All of them are checked before the first is written.

    \b
    Examples:
      cep replay sample --redis redis://localhost:6379
      cep replay trades.parquet --type market.trade --time ts \\
        --map price=price,quantity=qty --set venue=binance-spot --speed 10
    """
    from cep.bus.history import as_events, parse_mapping, read_file
    from cep.bus.publisher import Publisher
    from cep.bus.replay import replay_tracks

    pace = parse_speed(speed)
    for name in modules or []:
        _import(name)
    if source == "sample":
        given = [event_type, stream, mapping, constants, time]
        tracks = _sample(refused=any(given))
    elif event_type is None:
        raise UsageError("The type of the events is not given.", "Add --type.")
    else:
        table = as_events(
            read_file(Path(source)),
            event_type,
            mapping=parse_mapping(mapping),
            constants=_constants(constants or []),
            time=time,
            time_unit=time_unit,
        )
        tracks = [_track(table, event_type, stream)]
    if sort:
        tracks = [_sorted(track) for track in tracks]
    _tell_disorder(tracks)
    with _progress() as progress:
        done = replay_tracks(
            Publisher(redis),
            tracks,
            speed=pace,
            shift_to_now=shift_to_now,
            progress=progress,
        )
    for name, count in done.events.items():
        print(f"{name}: {count:,} events")
    total = sum(done.events.values())
    print(f"{total:,} events in {done.seconds:.1f} s")


def parse_speed(text: str) -> float:
    """Return the factor of a ``--speed``: a number above 0, infinity for max."""
    if text == "max":
        return math.inf
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not (0 < speed < math.inf):
        raise UsageError(
            f"--speed {text} is no speed.", "Give a number above 0, or max."
        )
    return speed


def _import(name: str) -> None:
    sys.path.insert(0, str(Path.cwd()))
    try:
        import_module(name)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"--import {name}: {error}.",
            "It is looked for in this folder and among the installed packages.",
        ) from error
    finally:
        sys.path.pop(0)


def _sample(*, refused: bool) -> list[Track]:
    from cep import sample
    from cep.bus.replay import Track

    if refused:
        raise UsageError(
            "The sample says itself what it is.",
            "Leave out --type, --stream, --map, --set and --time.",
        )
    print(f"note: {sample.ALIGNMENT}", file=sys.stderr)
    return [Track(name, sample.frame(name)) for name in sample.streams()]


def _constants(pairs: list[str]) -> dict[str, str]:
    parted = [pair.partition("=") for pair in pairs]
    for name, equals, _ in parted:
        if not (name and equals):
            raise UsageError(
                f"--set {name} is no constant.", "Write FIELD=VALUE, as venue=spot."
            )
    return {name: text for name, _, text in parted}


def _track(table: pl.DataFrame, event_type: str, stream: str | None) -> Track:
    from cep.bus.replay import Track
    from cep.events import STREAMS, registry

    home = registry.get(event_type).stream
    if stream and stream not in (*STREAMS, home) and near_miss(stream, [home]):
        raise UsageError(
            f"{event_type} lives in {home!r}, not in {stream!r}.",
            "Leave out --stream to publish there.",
        )
    return Track(stream or home, table)


def _sorted(track: Track) -> Track:
    from cep.bus.replay import Track

    ordered = track.frame.sort("event_time", maintain_order=True)
    return Track(track.stream, ordered)


def _tell_disorder(tracks: list[Track]) -> None:
    for track in tracks:
        times = track.frame["event_time"]
        behind = (times.cum_max() - times).dt.total_milliseconds().to_numpy()
        late = int((behind > 0).sum())
        if late:
            print(
                f"note: {late:,} of {len(times):,} rows for {track.stream} are earlier "
                f"than a row before them, by {behind.max() / 1000:g} s at most "
                "(--sort puts them in order)",
                file=sys.stderr,
            )


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Show progress on stderr: a bar in a terminal, else ten lines."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TimeRemainingColumn,
    )

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("events")
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines() -> Callable[[int, int], None]:
    shown = 0

    def show(done: int, total: int) -> None:
        nonlocal shown
        if done * _LINES // total > shown:
            shown = done * _LINES // total
            print(f"{done:,} of {total:,} events", file=sys.stderr)

    return show
