"""Streams on cells of time, and what in them is shape and not relation.

A cell ``[start + i * step, start + (i + 1) * step)`` holds how many events fell
into it, or the last value at its start. The shape of a stream is what changes
slowly in it, or comes every day at the same time: its moving mean over
``shape``, and, given five days or more, the mean of each time of day.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from cep.analysis.event_times import EventTimes
from cep.clock import UNITS_NS, duration_ns, format_duration
from cep.errors import UsageError

if TYPE_CHECKING:
    from datetime import timedelta

    from numpy.typing import NDArray

    from cep.analysis.series import Series

    Stream: TypeAlias = EventTimes | Series

MAX_CELLS: Final = 4_000_000
MIN_EVENTS: Final = 20
MIN_BLOCKS: Final = 20
MIN_DAYS: Final = 5
_SHAPES: Final = (4, 20)  # the least and the usual shape, in largest lags


@dataclass(frozen=True, slots=True)
class Grid:
    """Cells of time: the first one's start, their length and their number."""

    start_ns: int
    step_ns: int
    cells: int

    @property
    def end_ns(self) -> int:
        """The end of the last cell, which is no part of it."""
        return self.start_ns + self.cells * self.step_ns

    @property
    def edges_ns(self) -> NDArray[np.int64]:
        """Shape ``(cells + 1,)``: starts of the cells, and the end."""
        return self.start_ns + np.arange(self.cells + 1) * self.step_ns

    def count(self, events: EventTimes) -> NDArray[np.float64]:
        """Return how many events each cell holds."""
        of = (events.time_ns - self.start_ns) // self.step_ns
        inside = of[(of >= 0) & (of < self.cells)]
        return np.bincount(inside, minlength=self.cells).astype(float)

    def last(self, series: Series) -> NDArray[np.float64]:
        """Return the last value at each edge, the cells' starts and the end.

        NaN before the first value.
        """
        place = np.searchsorted(series.time_ns, self.edges_ns, "right") - 1
        found = series.values[np.maximum(place, 0)].copy()
        found[place < 0] = np.nan
        return found


def common_grid(x: Stream, y: Stream, step_ns: int) -> Grid:
    """Return cells over the time that two streams both cover.

    Raises
    ------
    UsageError
        If a stream has fewer than 20 observations there, or there would be more
        than four million cells.
    """
    for stream in (x, y):
        if not len(stream):
            raise UsageError(
                f"{stream.name} has no observations.",
                "Load more, or check the column.",
            )
    start = max(int(x.time_ns[0]), int(y.time_ns[0]))
    end = min(int(x.time_ns[-1]), int(y.time_ns[-1]))
    for stream in (x, y):
        n = len(stream.between(start, end))
        if n < MIN_EVENTS:
            raise UsageError(
                f"{stream.name} has {n} observations in the time that both streams "
                f"cover, fewer than {MIN_EVENTS}.",
                "Load a span in which both have more.",
            )
    cells = (end - start) // step_ns + 1
    if cells > MAX_CELLS:
        raise UsageError(
            f"A step of {format_duration(step_ns)} makes {cells:,} cells, more than "
            f"{MAX_CELLS:,}.",
            f"Take a step of {format_duration(-(-(end - start) // MAX_CELLS))} or "
            "more, or a shorter span.",
        )
    return Grid(start, step_ns, int(cells))


def shape_cells(grid: Grid, reach_ns: int, shape: str | timedelta | None) -> int:
    """Return how many cells long a shape is; what is slower is no relation.

    Parameters
    ----------
    reach_ns
        The largest lag that is looked at.
    shape
        None: twenty times the reach, or less, down to four times, if there
        would not be twenty blocks of it.

    Raises
    ------
    UsageError
        If the span is too short for twenty blocks, or the shape is shorter than
        four times the reach.
    """
    span = grid.cells * grid.step_ns
    least, usual = (times * reach_ns for times in _SHAPES)
    if shape is None:
        length = max(least, min(usual, span // MIN_BLOCKS))
    else:
        length = duration_ns(shape)
    if length < least:
        raise UsageError(
            f"A shape of {format_duration(length)} is shorter than four times the "
            f"largest lag, {format_duration(reach_ns)}, and would hide relations.",
            f"Take {format_duration(least)} or more.",
        )
    if span < MIN_BLOCKS * length:
        raise UsageError(
            f"The streams have {format_duration(span)} in common, too little for "
            f"{MIN_BLOCKS} blocks of {format_duration(length)}.",
            f"Load at least {format_duration(MIN_BLOCKS * length)}, or look at "
            "shorter lags.",
        )
    return max(1, length // grid.step_ns)


def moving_mean(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Return the mean over ``width`` cells around each one, fewer at the ends.

    >>> moving_mean(np.array([0.0, 3.0, 6.0]), 3).tolist()
    [1.5, 3.0, 4.5]
    """
    total = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    low = np.maximum(at - width // 2, 0)
    high = np.minimum(at + (width + 1) // 2, len(values))
    found: NDArray[np.float64] = (total[high] - total[low]) / (high - low)
    return found


def without_day(values: NDArray[np.float64], grid: Grid) -> NDArray[np.float64]:
    """Return values less the mean of their time of day, given five days or more.

    Times of day are cut into cells of the grid's step, and of at least a minute.
    """
    day = UNITS_NS["d"]
    if grid.cells * grid.step_ns < MIN_DAYS * day:
        return values
    coarse = max(grid.step_ns, UNITS_NS["m"])
    of = (grid.edges_ns[:-1] % day) // coarse
    sums = np.bincount(of, values)
    seen = np.bincount(of)
    return values - (sums / np.maximum(seen, 1))[of]


def without_shape(
    values: NDArray[np.float64], grid: Grid, width: int
) -> NDArray[np.float64]:
    """Return values less their moving mean and their daily shape."""
    return without_day(values - moving_mean(values, width), grid)


def unusual_counts(events: EventTimes, grid: Grid, width: int) -> NDArray[np.float64]:
    """Return counts less their shape, in Poisson standard deviations of it."""
    counts = grid.count(events)
    scale = np.sqrt(moving_mean(counts, width))
    off = without_shape(counts, grid, width)
    found: NDArray[np.float64] = np.divide(
        off, scale, out=np.zeros_like(off), where=scale > 0
    )
    return found


def changes(series: Series, grid: Grid) -> NDArray[np.float64]:
    """Return by how much a value changed over each cell, 0 where it is unknown."""
    found = np.diff(grid.last(series))
    return without_day(np.nan_to_num(found), grid)


def steps_of(stream: Stream, grid: Grid, width: int) -> NDArray[np.float64]:
    """Return unusual counts of events, or the changes of a series less their shape."""
    if isinstance(stream, EventTimes):
        return unusual_counts(stream, grid, width)
    return changes(stream, grid)
