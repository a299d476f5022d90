"""How often events of one stream are followed by events of another.

Event-coincidence analysis counts: the trigger rate is the share of ``x`` that
an event of ``y`` follows within a window, the precursor rate the share of ``y``
that an event of ``x`` precedes. Both are high by themselves where events are
frequent, so they are compared with what is expected of equally frequent events
that have nothing to do with each other: by rotation within blocks of time,
which keeps each stream's busy hours and bursts, and, as published, by a
binomial law that holds for Poisson events only.

Source: J. F. Donges, C.-F. Schleussner, J. F. Siegmund, R. V. Donner, "Event
coincidence analysis for quantifying statistical interrelationships between
event time series", European Physical Journal Special Topics 225, 2016,
equations 1 to 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from cep.analysis import figures
from cep.analysis.extras import stats_library
from cep.analysis.grid import (
    MAX_CELLS,
    common_grid,
    moving_mean,
    shape_cells,
    without_day,
)
from cep.analysis.inference import DRAWS
from cep.analysis.lag_curve import LEVEL
from cep.analysis.result import Result
from cep.analysis.rotation import block_edges, p_value_of_largest, rotated_sums
from cep.clock import duration_ns, format_duration

if TYPE_CHECKING:
    from datetime import timedelta

    import plotly.graph_objects as go
    from numpy.typing import NDArray

    from cep.analysis.event_times import EventTimes
    from cep.analysis.grid import Grid

_CELLS_IN_WINDOW = 20


@dataclass(frozen=True, slots=True)
class CoincidenceRate:
    """How many of some events have another one where it is looked for.

    Attributes
    ----------
    count, of
        How many have one, and how many events there are.
    expected
        How many would have one if the streams had nothing to do with each
        other, and ``low`` to ``high`` 95 % of the time.
    p_value
        Of so many or more if there were no relation, from rotated surrogates.
    p_poisson
        The same as published: binomial, exact for Poisson events only, far too
        small for bursts and for rates that change together.
    """

    count: int
    of: int
    expected: float
    low: float
    high: float
    p_value: float
    p_poisson: float

    @property
    def rate(self) -> float:
        """The share that has one."""
        return self.count / self.of

    @property
    def lift(self) -> float:
        """How many times as many as expected."""
        return self.count / self.expected if self.expected > 0 else float("nan")

    def __str__(self) -> str:
        share, usual = self.count / self.of, self.expected / self.of
        return (
            f"{share:.1%} ({self.count:,} of {self.of:,}), {usual:.1%} expected, "
            f"p = {self.p_value:.3g}"
        )


@dataclass(frozen=True, slots=True, repr=False)
class Coincidence(Result):
    """What `event_coincidence` found.

    Attributes
    ----------
    x, y
        Names; ``x`` is what may trigger, ``y`` what may follow.
    trigger, precursor
        The share of ``x`` that ``y`` follows; that of ``y`` that ``x`` precedes.
    window_ns, lag_ns
        ``y`` is looked for from ``lag`` to ``lag + window`` after ``x``.
    shape_ns
        How long the blocks are within which events rotate.
    """

    x: str
    y: str
    trigger: CoincidenceRate
    precursor: CoincidenceRate
    window_ns: int
    lag_ns: int
    shape_ns: int

    @property
    def p_value(self) -> float:
        """Twice the smaller of the two rates' p-values, at most 1."""
        return min(1.0, 2 * min(self.trigger.p_value, self.precursor.p_value))

    @property
    def verdict(self) -> str:
        """What may be said, in words."""
        return self.statement(related=self.p_value < LEVEL)

    def statement(self, *, related: bool) -> str:
        """Return what may be said if a relation is taken to be there, or not."""
        if not related:
            return f"{self.y} follows {self.x} no more often than by chance"
        lift = max(self.trigger.lift, self.precursor.lift)
        late = f"{format_duration(self.lag_ns)} to " if self.lag_ns else ""
        return (
            f"{self.y} follows {self.x} within {late}"
            f"{format_duration(self.lag_ns + self.window_ns)} {lift:.2f} times as "
            "often as by chance"
        )

    def to_polars(self) -> pl.DataFrame:
        """Return a row for each of the two rates."""
        rows = [("trigger", self.trigger), ("precursor", self.precursor)]
        return pl.DataFrame(
            {
                "x": [self.x] * 2,
                "y": [self.y] * 2,
                "rate_of": [name for name, _ in rows],
                "count": [rate.count for _, rate in rows],
                "of": [rate.of for _, rate in rows],
                "rate": [rate.rate for _, rate in rows],
                "expected": [rate.expected for _, rate in rows],
                "low": [rate.low for _, rate in rows],
                "high": [rate.high for _, rate in rows],
                "lift": [rate.lift for _, rate in rows],
                "p_value": [rate.p_value for _, rate in rows],
                "p_poisson": [rate.p_poisson for _, rate in rows],
            }
        )

    def plot(self) -> go.Figure:
        """Return both rates beside those expected of unrelated streams."""
        rates = (self.trigger, self.precursor)
        return figures.bars(
            [f"{self.x}, followed by {self.y}", f"{self.y}, preceded by {self.x}"],
            {
                "observed": np.array([rate.rate for rate in rates]),
                "expected": np.array([rate.expected / rate.of for rate in rates]),
            },
            title=f"{self.x} and {self.y}: coincidences",
            said=str(self).partition("\n")[0],
            x_title="Share of the events",
        )

    def __str__(self) -> str:
        return (
            f"{self.verdict} (p = {self.p_value:.3g})\n"
            f"  {self.x} followed by {self.y}: {self.trigger}\n"
            f"  {self.y} preceded by {self.x}: {self.precursor}"
        )


def event_coincidence(
    x: EventTimes,
    y: EventTimes,
    *,
    window: str | timedelta = "1s",
    lag: str | timedelta = "0s",
    shape: str | timedelta | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Coincidence:
    """Return how often ``y`` follows ``x``, beside what chance would give.

    Parameters
    ----------
    x, y
        As `event_times` makes them. Only the span that both cover counts.
    window, lag
        An event of ``y`` follows one of ``x`` if it comes ``lag`` to
        ``lag + window`` later, both included; ``lag`` may be ``"0s"``, with
        which events of one instant follow each other.
    shape
        What changes more slowly than this is each stream's own rhythm; at least
        four times ``lag + window``. Chosen as by `rate_correlation` if None.
    draws, seed
        Of rotations; equal seeds give equal results.

    Returns
    -------
    Both rates. Their p-values are one-sided and come from rotating the counted
    events within blocks, on cells of a twentieth of the window.

    Raises
    ------
    UsageError
        If the common span is shorter than 80 times ``lag + window``, or a stream
        has fewer than 20 events in it.
    """
    window_ns = duration_ns(window)
    lag_ns = duration_ns(lag, allow_zero=True)
    step_ns = max(1, window_ns // _CELLS_IN_WINDOW, _least_step(x, y))
    grid = common_grid(x, y, step_ns)
    width = shape_cells(grid, lag_ns + window_ns, shape)
    first, last = (
        max(int(x.time_ns[0]), int(y.time_ns[0])),
        min(int(x.time_ns[-1]), int(y.time_ns[-1])),
    )
    span = last - first
    x, y = x.between(first, last), y.between(first, last)
    rate = partial(_rate, span=span, grid=grid, width=width, draws=draws, seed=seed)
    ahead, behind = (lag_ns, lag_ns + window_ns), (-lag_ns - window_ns, -lag_ns)
    return Coincidence(
        x.name,
        y.name,
        rate(x, y, ahead),
        rate(y, x, behind),
        window_ns,
        lag_ns,
        width * step_ns,
    )


def coincidences(
    time_ns: NDArray[np.int64],
    others_ns: NDArray[np.int64],
    low_ns: int,
    high_ns: int,
) -> NDArray[np.bool_]:
    """Return which events have another one from ``low_ns`` to ``high_ns`` later.

    >>> at = np.array([0, 10, 20])
    >>> coincidences(at, np.array([12, 40]), 0, 5).tolist()
    [False, True, False]
    """
    first = np.searchsorted(others_ns, time_ns + low_ns, "left")
    after = np.searchsorted(others_ns, time_ns + high_ns, "right")
    found: NDArray[np.bool_] = after > first
    return found


def poisson_p_value(
    count: int, of: int, others: int, *, window: float, lag: float, span: float
) -> float:
    """Return the published chance of ``count`` or more coincidences of Poisson events.

    Each of ``of`` events has one of ``others`` in its window with probability
    ``1 - (1 - window / (span - lag)) ** others``; one duration unit throughout.

    >>> round(poisson_p_value(8, 20, 30, window=1.0, lag=0.0, span=100.0), 4)
    0.1231
    """
    share = min(1.0, window / (span - lag)) if span > lag else 1.0
    chance = 1 - (1 - share) ** others
    return float(stats_library("scipy.stats").binom.sf(count - 1, of, chance))


def _least_step(x: EventTimes, y: EventTimes) -> int:
    if not len(x) or not len(y):
        return 1
    start, end = max(x.time_ns[0], y.time_ns[0]), min(x.time_ns[-1], y.time_ns[-1])
    return int(max(0, end - start)) // (MAX_CELLS - 1) + 1


def _rate(
    events: EventTimes,
    others: EventTimes,
    where: tuple[int, int],
    *,
    span: int,
    grid: Grid,
    width: int,
    draws: int,
    seed: int,
) -> CoincidenceRate:
    count = int(coincidences(events.time_ns, others.time_ns, *where).sum())
    near = _covered(others.time_ns, *where, grid)
    usual = moving_mean(near, width)
    marks = grid.count(events)
    unusual = without_day(near - usual, grid)
    edges = block_edges(grid.cells, width)
    sums = rotated_sums(
        marks, unusual, np.zeros(1, np.int64), edges, draws=draws, seed=seed
    )
    # On cells and at the instants themselves the counts differ by rounding.
    expected = float(marks @ near) - float(sums.observed[0])
    low, high = np.percentile(sums.drawn[:, 0], [2.5, 97.5])
    lag = min(abs(end) for end in where)
    return CoincidenceRate(
        count,
        len(events),
        expected,
        expected + float(low),
        expected + float(high),
        p_value_of_largest(sums.observed, sums.drawn, either_sign=False),
        poisson_p_value(
            count,
            len(events),
            len(others),
            window=where[1] - where[0],
            lag=lag,
            span=span,
        ),
    )


def _covered(
    others_ns: NDArray[np.int64], low_ns: int, high_ns: int, grid: Grid
) -> NDArray[np.float64]:
    """Return the share of each cell in which an event would have another one."""
    starts, ends = others_ns - high_ns, others_ns - low_ns
    # The union of intervals of one length: each ends where the next one begins.
    ends = np.minimum(ends, np.append(starts[1:], ends[-1]))
    before = np.concatenate([[0], np.cumsum(ends - starts)])
    edges = grid.edges_ns
    place = np.searchsorted(starts, edges, "right")
    inside = np.maximum(place - 1, 0)
    part = np.clip(edges - starts[inside], 0, (ends - starts)[inside])
    measure = np.where(place > 0, before[inside] + part, 0)
    found: NDArray[np.float64] = np.diff(measure) / grid.step_ns
    return found
