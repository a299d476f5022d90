"""Which streams of a report have to do with each other, and what follows alerts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import polars as pl

from cep.analysis import event_study, event_times, q_values, relations, series
from cep.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cep.analysis import EventStudy, EventTimes, Relations, Series

    Frames = dict[str, pl.DataFrame]

MAX_SERIES: Final = 6
MAX_TYPES: Final = 6
MAX_TICKS: Final = 300_000
FEWEST: Final = 20
_SPANS: Final = 80  # the least span of events, in windows of an event study
_STEP_MS: Final = 20  # for each second of the window
_WINDOWS_S: Final = (60, 30, 10, 5, 2, 1)


@dataclass(slots=True)
class Relating:
    """What was found.

    Attributes
    ----------
    prices
        Of prices with each other, and with the events of streams without prices.
    events
        Of event types with each other.
    studies
        Rule, and the price around its alerts.
    skipped
        What was not asked, and why.
    """

    prices: Relations | None = None
    events: Relations | None = None
    studies: list[tuple[str, EventStudy]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def questions(self) -> int:
        """How many questions were answered."""
        both = [each.rows for each in (self.prices, self.events) if each is not None]
        answered = sum(row.result is not None for rows in both for row in rows)
        return answered + len(self.studies)


def relate(
    frames: Frames, alerts: pl.DataFrame | None, *, max_lag: str, seed: int
) -> Relating:
    """Return relations among prices and events, and what follows alerts."""
    found = Relating()
    prices = value_series(frames, found.skipped)
    with_price = {name for name, frame in frames.items() if _has_prices(frame)}
    types = _types(frames)
    others = [one for name in types if name not in with_price for one in types[name]]
    every = [one for name in types for one in types[name]]
    every.sort(key=lambda one: (-len(one), one.name))
    if rest := every[MAX_TYPES:]:
        found.skipped.append(f"{len(rest)} rarer event types are compared with none.")
    kept = every[:MAX_TYPES]
    asked: list[Series | EventTimes] = [
        *prices,
        *(one for one in others if one in kept),
    ]
    if prices and len(asked) > 1:
        found.prices = relations(asked, max_lag=max_lag, seed=seed)
    if len(kept) > 1:
        found.events = relations(kept, max_lag=max_lag, seed=seed)
    if alerts is not None and prices:
        _study(found, prices, alerts, seed)
    return found


def value_series(frames: Frames, skipped: list[str]) -> list[Series]:
    """Return prices as series, of each symbol and venue, the six with the most."""
    found: list[Series] = []
    for frame in filter(_has_prices, frames.values()):
        by = [name for name in ("symbol", "venue") if name in frame.columns]
        prices = frame.filter(pl.col("price").is_not_null())
        for names, part in prices.group_by(by, maintain_order=True):
            label = " ".join(str(name) for name in names if name is not None)
            if len(part) >= FEWEST:
                found.append(series(part, name=label))
    found = list({one.name: one for one in found}.values())
    found.sort(key=lambda one: (-len(one), one.name))
    if rest := found[MAX_SERIES:]:
        skipped.append(f"{len(rest)} prices with fewer values are compared with none.")
    kept = found[:MAX_SERIES]
    if long := [one.name for one in kept if len(one) > MAX_TICKS]:
        skipped.append(
            f"Of {', '.join(long)} the last {MAX_TICKS:,} values are compared."
        )
    return [_last(one) for one in kept]


def study_table(studies: Sequence[tuple[str, EventStudy]]) -> pl.DataFrame:
    """Return one row for each study, with q-values over all of them."""
    q = q_values([study.p_after for _, study in studies])
    return pl.DataFrame(
        {
            "rule": [rule for rule, _ in studies],
            "price": [study.y for _, study in studies],
            "alerts": [study.count for _, study in studies],
            "finding": [
                study.statement(related=bool(value < 0.05))
                for (_, study), value in zip(studies, q, strict=True)
            ],
            "p_after": [study.p_after for _, study in studies],
            "q_after": q,
            "p_before": [study.p_before for _, study in studies],
        }
    )


def _has_prices(frame: pl.DataFrame) -> bool:
    return {"symbol", "price"} <= set(frame.columns)


def _last(one: Series) -> Series:
    if len(one) <= MAX_TICKS:
        return one
    return one.between(int(one.time_ns[-MAX_TICKS]), int(one.time_ns[-1]))


def _types(frames: Frames) -> dict[str, list[EventTimes]]:
    """Return of each stream the times of the event types that occur often enough.

    A type that several streams have is called by its stream, too.
    """
    counts = Counter(name for f in frames.values() for name in f["type"].unique())
    return {
        stream: [
            event_times(
                part, name=f"{name} on {stream}" if counts[name] > 1 else str(name)
            )
            for (name,), part in frame.group_by("type", maintain_order=True)
            if len(part) >= FEWEST
        ]
        for stream, frame in frames.items()
    }


def _study(
    found: Relating, prices: Sequence[Series], alerts: pl.DataFrame, seed: int
) -> None:
    """Look at what the price that a rule's alerts name did around them."""
    rare = []
    for (rule,), part in alerts.group_by("rule", maintain_order=True):
        keys = part["key"].fill_null("").str.split("/").to_list()
        named = {
            one.name: [set(one.name.split()) >= set(filter(None, key)) for key in keys]
            for one in prices
        }
        y = max(prices, key=lambda one: sum(named[one.name]))
        mine = part.filter(pl.Series(named[y.name], dtype=pl.Boolean))
        if len(mine) < FEWEST:
            rare.append(f"{rule} ({len(mine)} on {y.name})")
            continue
        seconds = (y.time_ns[-1] - y.time_ns[0]) / 1e9
        window = next((w for w in _WINDOWS_S if w * _SPANS < seconds), 1)
        times = event_times(mine, name=f"alerts of {rule}")
        try:
            study = event_study(
                times,
                y,
                before=f"{window}s",
                after=f"{window}s",
                step=f"{window * _STEP_MS}ms",
                seed=seed,
            )
        except UsageError as error:
            found.skipped.append(f"No event study of {rule}: {error.problem}")
        else:
            found.studies.append((str(rule), study))
    if rare:
        found.skipped.append(
            f"Event studies of rules with fewer than {FEWEST} alerts on one price: "
            f"{', '.join(rare)}."
        )
