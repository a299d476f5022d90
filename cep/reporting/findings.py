"""What a report says, before it is said: loaded, run and computed.

Nothing here draws or writes.
"""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from cep.backtesting.run import RunResult, run_rules
from cep.errors import UsageError
from cep.frames.load import load
from cep.frames.sources import SAMPLE
from cep.reporting.relating import Relating, relate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cep.frames.span import End
    from cep.pipeline import Pipeline
    from cep.rules.rule import Rule

    Rules = str | Path | Pipeline | Rule | Sequence[Rule]


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for; see `cep.report`."""

    streams: list[str]
    rules: tuple[Rule, ...]
    pipeline: Pipeline | None
    url: str | None
    archive: str | Path | None
    live: bool
    start: End | None
    end: End | None
    max_lag: str
    seed: int


@dataclass(slots=True)
class Findings:
    """What was found.

    Attributes
    ----------
    source
        Where the events are from, fit to be shown.
    frames
        Of each stream its events.
    bad
        Entries that are no events: ``stream``, ``entry_id``, ``reason``, ``detail``.
    removed
        Of each stream how many entries it had once and has no more; none where
        nobody knows.
    dead_letters
        What the live pipeline gave up on: ``kind``, ``stream``, ``reason``,
        ``rule``, ``entries``; None where there is no such pipeline.
    result
        What the rules derive; None without rules.
    relating
        Which streams have to do with each other.
    skipped
        What could not be computed, and why.
    """

    request: Request
    source: str
    frames: dict[str, pl.DataFrame]
    bad: pl.DataFrame
    removed: dict[str, int] = field(default_factory=dict)
    dead_letters: pl.DataFrame | None = None
    result: RunResult | None = None
    relating: Relating = field(default_factory=Relating)
    skipped: list[str] = field(default_factory=list)

    @property
    def is_sample(self) -> bool:
        """Whether the events are those of the bundled sample."""
        return self.request.url == SAMPLE


def requested(
    streams: str | Sequence[str] | None,
    rules: Rules | None,
    **rest: Any,
) -> Request:
    """Return a request whose rules and streams are known.

    Raises
    ------
    UsageError
        If neither streams nor rules are given, or something is no rule.
    """
    from cep.pipeline.definition import Pipeline, home_streams, load_pipeline
    from cep.rules.rule import Rule

    pipeline: Pipeline | None = None
    given: tuple[Rule, ...] = ()
    if isinstance(rules, (str, Path)):
        rules = load_pipeline(rules)
    if isinstance(rules, Pipeline):
        pipeline, given = rules, rules.rules
    elif isinstance(rules, Rule):
        given = (rules,)
    elif rules is not None:
        given = tuple(rules)
    for rule in given:
        if not isinstance(rule, Rule):
            raise UsageError(
                f"Among the rules is {rule!r:.80}, which is none.",
                "Pass a file, a Pipeline, or functions decorated with @rule(...).",
            )
    if streams is not None:
        names = [streams] if isinstance(streams, str) else list(dict.fromkeys(streams))
    elif pipeline is not None:
        names = [one.name for one in pipeline.streams]
    else:
        names = home_streams(given)
    if not names:
        raise UsageError(
            "There is nothing to report on.",
            "Name streams, or rules, whose events' streams are then taken.",
        )
    return Request(names, given, pipeline, **rest)


def find(request: Request, note: Callable[[str], None]) -> Findings:
    """Load, run and compute; ``note`` is told of each step that is done."""
    with _quiet_about_bad_rows():
        frames, bad = load(
            request.streams,
            url=request.url,
            archive=request.archive,
            live=request.live,
            start=request.start,
            end=request.end,
            with_bad=True,
        )
    found = Findings(request, SAMPLE, frames, bad)
    if request.live and not found.is_sample:
        _ask_server(found)
    if request.archive is not None:
        kept = f"archive {Path(request.archive).absolute()}"
        found.source = f"{kept}, then {found.source}" if request.live else kept
    note(f"{_rows(frames):,} events of {len(frames)} streams loaded")
    if request.rules:
        found.result = _run(request, frames, found.skipped)
        note(f"{len(found.result.events):,} alerts of {len(request.rules)} rules")
    if not _rows(frames):
        return found
    alerts = None if found.result is None else found.result.alerts
    found.relating = relate(frames, alerts, max_lag=request.max_lag, seed=request.seed)
    found.skipped += found.relating.skipped
    note(f"{found.relating.questions} questions asked about relations")
    return found


def _rows(frames: dict[str, pl.DataFrame]) -> int:
    return sum(map(len, frames.values()))


@contextmanager
def _quiet_about_bad_rows() -> Iterator[None]:
    # The report counts them.
    log = logging.getLogger("cep.frames.load")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _ask_server(found: Findings) -> None:
    """Ask what the streams lost and what the live pipeline gave up on."""
    from cep.bus.connection import address_of, clear_errors, connect_redis

    with connect_redis(found.request.url) as client, clear_errors(client):
        found.source = address_of(client)
        for name in found.request.streams:
            if not client.exists(name):
                continue
            info: Any = client.xinfo_stream(name)
            if "entries-added" in info:
                found.removed[name] = info["entries-added"] - info["length"]
        if found.request.pipeline is not None:
            found.dead_letters = _dead_letters(client, found.request.pipeline.name)


def _dead_letters(client: Any, name: str) -> pl.DataFrame | None:
    from cep.pipeline.quarantine import Quarantine

    try:
        rows = Quarantine(client, name).rows()
        counts = Counter((row.kind, row.stream, row.reason, row.rule) for row in rows)
    except UsageError:  # the pipeline has never run there
        return None
    columns = ["kind", "stream", "reason", "rule", "entries"]
    table = [(*of, n) for of, n in counts.most_common()]
    return pl.DataFrame(
        table,
        schema=dict.fromkeys(columns[:4], pl.String) | {"entries": pl.Int64},
        orient="row",
    )


def _run(
    request: Request, frames: dict[str, pl.DataFrame], skipped: list[str]
) -> RunResult:
    """Run the rules over the streams that they read; say which of them are missing."""
    from cep.events.registry import registry

    needed = {
        registry.get(name).stream for rule in request.rules for name in rule.sources
    }
    skipped += [
        f"No rule saw {name}: it is not among the streams."
        for name in sorted(needed - set(frames))
    ]
    given: Any = request.pipeline or list(request.rules)
    if request.pipeline is not None:
        needed |= {one.name for one in request.pipeline.streams}
    return run_rules(given, {name: frames[name] for name in frames if name in needed})


def stream_table(frames: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """Return one row for each stream: counts, span, rates, longest silence."""
    time = pl.col("event_time")
    seconds = (time.max() - time.min()).dt.total_milliseconds() / 1000
    in_a_second = time.dt.truncate("1s").value_counts().struct.field("count").max()
    return pl.concat(
        frame.select(
            stream=pl.lit(name),
            events=pl.len().cast(pl.Int64),
            first_event=time.min(),
            last_event=time.max(),
            per_second=pl.when(seconds > 0).then(pl.len() / seconds),
            most_in_a_second=in_a_second.cast(pl.Int64),
            longest_silence=time.sort().diff().max(),
        )
        for name, frame in frames.items()
    )


def span_text(frames: dict[str, pl.DataFrame]) -> str:
    """Return from when to when the events are, in UTC; empty without events."""
    times = [frame["event_time"] for frame in frames.values()]
    shown = pl.concat(times).drop_nulls().sort().dt.strftime("%Y-%m-%d %H:%M:%S")
    return f"{shown[0]} to {shown[-1]} UTC" if len(shown) else ""


def type_table(frames: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """Return how many events there are of each type."""
    parts = [
        frame.group_by(pl.col("type").cast(pl.String))
        .agg(events=pl.len().cast(pl.Int64))
        .sort("events", "type", descending=[True, False])
        .select(pl.lit(name).alias("stream"), "type", "events")
        for name, frame in frames.items()
    ]
    return pl.concat(parts).with_columns(
        share_of_stream=pl.col("events") / pl.col("events").sum().over("stream")
    )
