"""The mean path of one stream around the events of another.

Around each event a window is cut out of a series (by how much the value differs
from that just before the event) or of a stream of events (how many more a
second than usual). From the mean over all events goes what any instant of such
busy stretches shows, and the rest is compared with placebo dates: the same
events rotated within blocks of time, which keeps how many there are in every
block and how they cluster (see `cep.analysis.rotation`).

Source: A. C. MacKinlay, "Event Studies in Economics and Finance", Journal of
Economic Literature 35, 1997; placebo dates instead of a normal model because
windows overlap and events cluster.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from cep.analysis import figures
from cep.analysis.event_times import EventTimes
from cep.analysis.grid import (
    changes,
    common_grid,
    moving_mean,
    shape_cells,
    without_shape,
)
from cep.analysis.inference import DRAWS, max_statistic_p_value
from cep.analysis.lag_curve import LEVEL, signed
from cep.analysis.result import Result
from cep.analysis.rotation import block_edges, p_value_of_largest, rotated_sums
from cep.clock import duration_ns, format_duration
from cep.errors import UsageError
from cep.style import plain

if TYPE_CHECKING:
    from datetime import timedelta

    import plotly.graph_objects as go
    from numpy.typing import NDArray

    from cep.analysis.grid import Grid, Stream

_STEPS = 60


@dataclass(frozen=True, slots=True, repr=False)
class EventStudy(Result):
    """What `event_study` found.

    Attributes
    ----------
    events, y
        Names: the events, and the stream that is looked at around them.
    offsets_ns
        Shape ``(m,)``, ascending: after (above 0) or before an event.
    path
        Shape ``(m,)``: mean difference from the value at offset 0, in the unit
        of the series, or events a second more than usual; less what placebo
        dates give.
    low, high
        Shape ``(m,)``: what 95 % of the placebo dates lie between, at each
        offset for itself.
    p_after, p_before
        Of no path after and before the events, over all offsets of that side:
        the larger one of two tests, against placebo dates and by throwing the
        signs of blocks (`max_statistic_p_value`).
    count
        How many events had the whole window.
    unit
        Of ``path``.
    step_ns, shape_ns
        Length of a cell; how long the blocks are within which events rotate.
    """

    events: str
    y: str
    offsets_ns: NDArray[np.int64]
    path: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    p_after: float
    p_before: float
    count: int
    unit: str
    step_ns: int
    shape_ns: int

    @property
    def p_value(self) -> float:
        """Of no path after the events; `p_before` is for what came before."""
        return self.p_after

    @property
    def largest_ns(self) -> int:
        """The offset after the events at which the path is farthest off its band."""
        after = np.flatnonzero(self.offsets_ns > 0)
        width = (self.high - self.low)[after]
        off = np.abs(self.path[after])
        scaled = np.divide(off, width, out=np.zeros_like(off), where=width > 0)
        return int(self.offsets_ns[after[int(np.argmax(scaled))]])

    @property
    def verdict(self) -> str:
        """What may be said, in words."""
        return self.statement(related=self.p_after < LEVEL)

    def statement(self, *, related: bool) -> str:
        """Return what may be said if a relation is taken to be there, or not."""
        if not related:
            return f"{self.y} does not move after {self.events} more than at any time"
        at = int(np.flatnonzero(self.offsets_ns == self.largest_ns)[0])
        way = "up" if self.path[at] > 0 else "down"
        return (
            f"{self.y} goes {way} after {self.events}, most clearly by "
            f"{format_duration(self.largest_ns)}"
        )

    def to_polars(self) -> pl.DataFrame:
        """Return ``offset`` (duration), ``path``, ``low``, ``high`` (placebo)."""
        return pl.DataFrame(
            {
                "offset": pl.Series(self.offsets_ns).cast(pl.Duration("ns")),
                "path": self.path,
                "low": self.low,
                "high": self.high,
            }
        )

    def plot(self) -> go.Figure:
        """Return the path with the band of placebo dates."""
        return figures.lag_curve(
            self.offsets_ns,
            self.path,
            title=f"{self.y} around {self.events}",
            said=str(self).partition("\n")[0],
            x_title="Time from the event",
            y_title=plain(self.unit),
            name=f"mean of {self.count:,} events",
            null=(self.low, self.high, "95 % of placebo dates"),
        )

    def __str__(self) -> str:
        before, after = (signed(int(self.offsets_ns[i])) for i in (0, -1))
        return (
            f"{self.verdict} (p = {self.p_after:.3g} after, {self.p_before:.3g} "
            f"before)\n"
            f"  {self.count:,} events, from {before} to {after} in cells of "
            f"{format_duration(self.step_ns)}; placebo dates within "
            f"{format_duration(self.shape_ns)}"
        )


def event_study(
    events: EventTimes,
    y: Stream,
    *,
    before: str | timedelta = "30s",
    after: str | timedelta = "60s",
    step: str | timedelta | None = None,
    shape: str | timedelta | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> EventStudy:
    """Return the mean path of a stream around events, beside placebo dates.

    Parameters
    ----------
    events
        As `event_times` makes them. One without the whole window is left out.
    y
        A `Series`, whose last value at or before an instant counts, or
        `EventTimes`, of which events a second count. The series' logarithm makes
        the path a return.
    before, after
        The window; multiples of ``step``.
    step
        Length of a cell. An event counts as at the start of its cell, so that
        the value at offset 0 is never later than the event. A sixtieth of the
        longer side if None.
    shape
        Placebo dates stay within blocks as long as this; at least four times the
        longer side. Chosen as by `rate_correlation` if None. Given five days or
        more, what ``y`` does on average at a time of day is taken out.
    draws, seed
        Of placebo dates; equal seeds give equal results.

    Raises
    ------
    UsageError
        If the common span is shorter than 80 times the longer side, or one of
        the two has fewer than 20 observations in it.
    """
    before_ns, after_ns = duration_ns(before), duration_ns(after)
    reach = max(before_ns, after_ns)
    step_ns = reach // _STEPS if step is None else duration_ns(step)
    if not step_ns or before_ns % step_ns or after_ns % step_ns:
        raise UsageError(
            f"The window from {format_duration(before_ns)} before to "
            f"{format_duration(after_ns)} after is no multiple of step "
            f"{format_duration(step_ns)}.",
            "Choose a step that divides both.",
        )
    grid = common_grid(events, y, step_ns)
    width = shape_cells(grid, reach, shape)
    offsets = np.arange(-(before_ns // step_ns), after_ns // step_ns + 1)
    level, unit = _level(y, grid, width)
    marks = grid.count(events)
    marks[: -offsets[0]] = 0
    marks[grid.cells - offsets[-1] :] = 0
    count = int(marks.sum())
    if not count:
        raise UsageError(
            f"No event of {events.name} has the whole window within the span.",
            "Load a longer span, or shorten the window.",
        )
    edges = block_edges(grid.cells, width)
    # Of a series, the difference from the value at offset 0.
    start = None if isinstance(y, EventTimes) else int(np.flatnonzero(offsets == 0)[0])
    # What the stream does over a whole busy stretch is not what it does after
    # an event: any instant of the stretch has it.
    marks -= moving_mean(marks, width)
    sums = rotated_sums(
        marks, level, offsets, edges, draws=draws, seed=seed, hold=start is not None
    )
    usual = _from(sums.usual.sum(axis=0), start)
    path = _from(sums.observed, start) - usual
    drawn = _from(sums.drawn, start) - usual
    by_block = _from(sums.by_block, start) - _from(sums.usual, start)
    low, high = np.percentile(drawn / count, [2.5, 97.5], axis=0)
    # Rotation keeps bursts, signs keep blocks in which all is wilder.
    p_before, p_after = (
        max(
            p_value_of_largest(path[side], drawn[:, side]),
            max_statistic_p_value(by_block[:, side], draws=draws, seed=seed),
        )
        for side in (offsets < 0, offsets > 0)
    )
    return EventStudy(
        events.name,
        y.name,
        offsets * step_ns,
        path / count,
        low,
        high,
        p_after,
        p_before,
        count,
        unit,
        step_ns,
        width * step_ns,
    )


def _from(sums: NDArray[np.float64], start: int | None) -> NDArray[np.float64]:
    return sums if start is None else sums - sums[..., [start]]


def _level(y: Stream, grid: Grid, width: int) -> tuple[NDArray[np.float64], str]:
    """Return what each cell's start stands at, and its unit."""
    if isinstance(y, EventTimes):
        seconds = grid.step_ns / 1e9
        unusual = without_shape(grid.count(y), grid, width) / seconds
        return unusual, f"{y.name}: events per second more than usual"
    steps = changes(y, grid)
    # The value at a cell's start has the changes of the cells before it.
    level = np.concatenate([[0.0], np.cumsum(steps[:-1])])
    return level - level.mean(), f"{y.name}: change since the event"
