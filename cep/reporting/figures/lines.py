"""Lines of one value over time, in panels of about the same level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from cep.reporting.downsample import lowest_and_highest
from cep.reporting.figures.base import moments
from cep.style import LONGEST_NAME, line_style, plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    import plotly.graph_objects as go
    from numpy.typing import NDArray

    from cep.reporting.figures.base import Span

MAX_LINES: Final = 8
# Values this close to each other share a panel, as one asset's prices on several
# venues do; others would flatten each other.
SAME_SCALE: Final = 1.25


@dataclass(slots=True)
class Line:
    """The values of one symbol on one venue, by time.

    Symbol and venue stand for whatever the lines are told apart by.
    """

    symbol: str
    venue: str
    times: NDArray[np.int64]
    values: NDArray[np.float64]

    @property
    def name(self) -> str:
        return f"{self.symbol} {self.venue}".strip()

    def value_at(self, time_ms: int) -> float:
        """Return the last value not after a time, or the first of all."""
        place = int(np.searchsorted(self.times, time_ms, side="right")) - 1
        return float(self.values[max(0, place)])


def lines_of(
    table: pl.DataFrame, value: str, by: Sequence[str]
) -> tuple[list[Line], int]:
    """Return the lines with the most values, and how many others there are."""
    parts = [pl.col(name) for name in by if name in table.columns]
    parts += [pl.lit("")] * (2 - len(parts))
    named = table.select(
        "event_time",
        *(
            part.cast(pl.String).fill_null("").alias(name)
            for part, name in zip(parts, ("symbol", "venue"), strict=True)
        ),
        value=pl.col(value).cast(pl.Float64),
    )
    known = named.filter(pl.col("value").is_finite()).sort(
        "event_time", maintain_order=True
    )
    found = [
        Line(
            str(symbol),
            str(venue),
            part["event_time"].to_numpy(),
            part["value"].to_numpy(),
        )
        for (symbol, venue), part in known.group_by(
            "symbol", "venue", maintain_order=True
        )
    ]
    found.sort(key=lambda line: (-len(line.times), line.name))
    return found[:MAX_LINES], len(found[MAX_LINES:])


def panels_of(lines: Sequence[Line]) -> list[list[Line]]:
    """Return the lines in groups of about the same level, the highest first."""
    panels: list[list[Line]] = []
    lowest = 0.0
    by_level = sorted(lines, key=lambda line: -abs(float(np.median(line.values))))
    for line in by_level:
        level = abs(float(np.median(line.values)))
        if not panels or level * SAME_SCALE < lowest:
            panels.append([])
            lowest = level
        panels[-1].append(line)
    return [sorted(panel, key=lambda line: line.name) for panel in panels]


def draw_lines(
    figure: go.Figure,
    panels: Sequence[Sequence[Line]],
    span: Span,
    pixels: int,
    things: str,
) -> list[str]:
    """Draw the lines; return what the subtitle must say."""
    import plotly.graph_objects as go

    width = max(1.0, (span.end - span.start + 1) / pixels)
    total, thinned = 0, False
    venues = sorted({line.venue for panel in panels for line in panel})
    for row, panel in enumerate(panels, 1):
        styles = _styles(panel, venues)
        for line, style in zip(panel, styles, strict=True):
            times, values = line.times, line.values
            total += len(times)
            if len(times) > 2 * pixels:
                kept = lowest_and_highest(times, values, span.start, width)
                times, values, thinned = times[kept], values[kept], True
            trace = go.Scatter(
                x=moments(times),
                y=values,
                name=plain(line.name, LONGEST_NAME),
                mode="lines",
                line={**line_style(style), "shape": "hv"},
                legendgroup=f"line {len(figure.data)}",
                legendgrouptitle_text=None if figure.data else things.capitalize(),
                hovertemplate="%{y:,.8~g}<br>%{x|%H:%M:%S.%L} UTC",
            )
            figure.add_trace(trace, row=row, col=1)
    said = [f"{total:,} {things}"] if total else [f"no {things}"]
    if thinned:
        said.append(
            "long lines are drawn as the lowest and highest value of each "
            + (
                f"{width / 1000:.3g} s"
                if width < 600_000
                else f"{width / 60_000:.3g} min"
            )
        )
    return said


def _styles(panel: Sequence[Line], venues: Sequence[str]) -> list[int]:
    """Return a style for each line: its venue's, where a panel has it but once."""
    own = [venues.index(line.venue) for line in panel]
    return own if len(set(own)) == len(own) else list(range(len(panel)))
