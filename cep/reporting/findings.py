"""What a report says, before it is said: loaded, run and computed.

Nothing here draws or writes.
"""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from cep.analysis import lead_lag, q_values, series
from cep.backtesting.run import RunResult, run_rules
from cep.errors import UsageError
from cep.frames.load import load
from cep.frames.progress import progress
from cep.frames.sources import SAMPLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cep.analysis import LeadLag, Series
    from cep.frames.span import End
    from cep.pipeline import Pipeline
    from cep.rules.rule import Rule

    Rules = str | Path | Pipeline | Rule | Sequence[Rule]

MAX_SERIES: Final = 6
MAX_TICKS: Final = 300_000


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
    step: str
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
    pairs
        Every pair of value series that could be compared, by p-value.
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
    pairs: list[LeadLag] = field(default_factory=list)
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
    _compare(found)
    note(f"{len(found.pairs)} pairs of series compared")
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


def value_series(frames: dict[str, pl.DataFrame], skipped: list[str]) -> list[Series]:
    """Return prices as series, of each symbol and venue, the six with the most."""
    found: list[Series] = []
    for frame in frames.values():
        if not {"symbol", "price"} <= set(frame.columns):
            continue
        by = [name for name in ("symbol", "venue") if name in frame.columns]
        prices = frame.filter(pl.col("price").is_not_null())
        for names, part in prices.group_by(by, maintain_order=True):
            label = " ".join(str(name) for name in names if name is not None)
            found.append(series(part, name=label))
    found.sort(key=lambda one: (-len(one), one.name))
    if rest := len(found[MAX_SERIES:]):
        skipped.append(
            f"{rest} series of prices with fewer values are compared with none."
        )
    long = [one.name for one in found[:MAX_SERIES] if len(one) > MAX_TICKS]
    if long:
        skipped.append(
            f"Of {', '.join(long)} the last {MAX_TICKS:,} values are compared."
        )
    return [_last(one) for one in found[:MAX_SERIES]]


def _last(one: Series) -> Series:
    if len(one) <= MAX_TICKS:
        return one
    return one.between(int(one.time_ns[-MAX_TICKS]), int(one.time_ns[-1]))


def _compare(found: Findings) -> None:
    request = found.request
    pairs = list(combinations(value_series(found.frames, found.skipped), 2))
    with progress("comparing", len(pairs)) as advance:
        for x, y in pairs:
            try:
                one = lead_lag(
                    x, y, max_lag=request.max_lag, step=request.step, seed=request.seed
                )
                found.pairs.append(one)
            except UsageError as error:
                found.skipped.append(
                    f"{x.name} and {y.name} are not compared: {error.problem}"
                )
            advance(1)
    found.pairs.sort(key=lambda one: (one.p_value, -abs(one.rho_best)))


def pair_table(pairs: Sequence[LeadLag]) -> pl.DataFrame:
    """Return one row for each pair, with q-values over all of them."""
    q = q_values([one.p_value for one in pairs])

    def lag(values: list[float]) -> pl.Series:
        return pl.Series([round(v) for v in values]).cast(pl.Duration("ns"))

    return pl.DataFrame(
        {
            "x": [one.x for one in pairs],
            "y": [one.y for one in pairs],
            "finding": [
                _finding(one, value) for one, value in zip(pairs, q, strict=True)
            ],
            "lag": lag([one.best_lag_ns.value for one in pairs]),
            "lag_low": lag([one.best_lag_ns.low for one in pairs]),
            "lag_high": lag([one.best_lag_ns.high for one in pairs]),
            "rho_at_lag": [one.rho_best for one in pairs],
            "rho_at_0": [one.rho_zero for one in pairs],
            "ratio": [one.ratio.value for one in pairs],
            "ratio_low": [one.ratio.low for one in pairs],
            "ratio_high": [one.ratio.high for one in pairs],
            "p": [one.p_value for one in pairs],
            "q": q,
            "x_values": [one.observations[0] for one in pairs],
            "y_values": [one.observations[1] for one in pairs],
            "blocks": [one.blocks for one in pairs],
        }
    )


def _finding(one: LeadLag, q: float) -> str:
    if not q < 0.05:
        return "no relation found"
    lag = one.best_lag_ns
    if lag.low > 0:
        return "x leads"
    return "y leads" if lag.high < 0 else "together, neither leads"


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
