"""When the level of a stream changed for good.

The stream is put on cells of time and cut where that brings the squared
deviations from each part's mean down by more than a penalty. Neighbouring
cells hang together, in bursts above all, and wander without any change; so the
penalty is in units of the long-run variance, which batches of cells give.

Source: R. Killick, P. Fearnhead, I. A. Eckley, "Optimal Detection of
Changepoints With a Linear Computational Cost", JASA 107, 2012, through
ruptures; long-run variance by batch means, J. M. Flegal, G. L. Jones, "Batch
means and spectral variance estimators in Markov chain Monte Carlo", Annals of
Statistics 38, 2010.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from cep.analysis import figures
from cep.analysis.event_times import EventTimes
from cep.analysis.extras import stats_library
from cep.analysis.grid import Grid, common_grid
from cep.analysis.result import Result
from cep.clock import duration_ns, format_duration
from cep.errors import UsageError

if TYPE_CHECKING:
    from datetime import timedelta

    import plotly.graph_objects as go
    from numpy.typing import NDArray

    from cep.analysis.grid import Stream

MAX_CELLS: Final = 20_000
MIN_CELLS: Final = 100
STRICTNESS: Final = 4.0
_MAD: Final = 1.4826  # a normal standard deviation in median absolute deviations


@dataclass(frozen=True, slots=True, repr=False)
class ChangePoints(Result):
    """What `change_points` found.

    Attributes
    ----------
    name, unit
        Of the stream, and of its level.
    time_ns, values
        Shape ``(n,)``: starts of the cells, and what each holds.
    at_ns
        Shape ``(k,)``: starts of the first cells of a new level.
    levels
        Shape ``(k + 1,)``: means of the parts.
    sizes
        Shape ``(k,)``: how large each change is, in standard errors of it that
        allow for neighbours hanging together. No test: the place was looked for.
    penalty
        By how much a cut has to bring the squared deviations down.
    step_ns
        Length of a cell.
    """

    name: str
    unit: str
    time_ns: NDArray[np.int64]
    values: NDArray[np.float64]
    at_ns: NDArray[np.int64]
    levels: NDArray[np.float64]
    sizes: NDArray[np.float64]
    penalty: float
    step_ns: int

    def to_polars(self) -> pl.DataFrame:
        """Return for each change ``event_time``, ``before``, ``after``, ``size``."""
        times = pl.Series("event_time", self.at_ns, pl.Int64)
        return pl.DataFrame(
            {
                "event_time": times.cast(pl.Datetime("ns", "UTC")),
                "before": self.levels[:-1],
                "after": self.levels[1:],
                "size": self.sizes,
            }
        )

    def plot(self) -> go.Figure:
        """Return the stream, its levels, and where they change."""
        of = np.searchsorted(self.at_ns, self.time_ns, "right")
        return figures.time_lines(
            self.time_ns,
            {self.name: self.values, "level": self.levels[of]},
            title=f"{self.name}: changes of the level",
            said=str(self).partition("\n")[0],
            y_title=figures.plain_name(self.unit),
            verticals_ns=self.at_ns.tolist(),
        )

    def __str__(self) -> str:
        n, step = len(self.values), format_duration(self.step_ns)
        said = [f"{self.name}: {len(self.at_ns)} changes in {n:,} cells of {step}"]
        said += [
            f"  {row['event_time']:%Y-%m-%d %H:%M:%S} UTC: {row['before']:.4g} to "
            f"{row['after']:.4g} {self.unit}, {row['size']:.1f} standard errors"
            for row in self.to_polars().head(10).iter_rows(named=True)
        ]
        return "\n".join(said)


def change_points(
    stream: Stream,
    *,
    every: str | timedelta = "10s",
    shortest: str | timedelta | None = None,
    strictness: float = STRICTNESS,
) -> ChangePoints:
    """Return when the level of a stream changed.

    Parameters
    ----------
    stream
        `EventTimes`, of which events a second in each cell count, or a `Series`,
        of which the last value at each cell's start. A price that wanders has no
        level: give returns, spreads, latencies, loads.
    every
        Length of a cell; a hundred cells or more, and up to 20,000.
    shortest
        The shortest stretch that counts as a level; ten cells if None.
    strictness
        The penalty of a cut is this, times the long-run variance, times the
        logarithm of the number of cells.

    Raises
    ------
    UsageError
        If the span has too few or too many cells, or the stream stands still.
    MissingExtraError
        If ruptures is not installed.
    """
    step_ns = duration_ns(every)
    grid = common_grid(stream, stream, step_ns)
    # The last cell is not over.
    grid = Grid(grid.start_ns, step_ns, grid.cells - 1)
    if not MIN_CELLS <= grid.cells <= MAX_CELLS:
        raise UsageError(
            f"{stream.name} has {grid.cells:,} cells of {format_duration(step_ns)}, "
            f"not {MIN_CELLS} to {MAX_CELLS:,}.",
            "Take other cells with every=..., or another span.",
        )
    if isinstance(stream, EventTimes):
        values, unit = grid.count(stream) / (step_ns / 1e9), "events per second"
    else:
        values, unit = grid.last(stream)[:-1], stream.name
    variance = long_run_variance(values)
    if not variance > 0:
        raise UsageError(
            f"{stream.name} hardly changes from cell to cell.",
            "Take longer cells with every=..., or another span.",
        )
    least = 10 if shortest is None else max(1, duration_ns(shortest) // step_ns)
    penalty = strictness * variance * float(np.log(grid.cells))
    cuts = best_cuts(values, penalty, least)
    edges = np.concatenate([[0], cuts, [grid.cells]]).astype(np.int64)
    lengths = np.diff(edges)
    levels = np.add.reduceat(values, edges[:-1]) / lengths
    error = np.sqrt(variance * (1 / lengths[:-1] + 1 / lengths[1:]))
    starts = grid.edges_ns[:-1]
    return ChangePoints(
        stream.name,
        unit,
        starts,
        values,
        starts[edges[1:-1]],
        levels,
        np.abs(np.diff(levels)) / error,
        penalty,
        step_ns,
    )


def best_cuts(
    values: NDArray[np.float64], penalty: float, least: int
) -> NDArray[np.int64]:
    """Return where new levels begin, so that deviations and penalties are least.

    >>> best_cuts(np.repeat([0.0, 5.0], 20), penalty=1.0, least=5).tolist()
    [20]
    """
    ruptures = stats_library("ruptures")
    # Squared deviations are those of a linear kernel, which ruptures has in C.
    found = ruptures.KernelCPD(kernel="linear", min_size=least).fit(values[:, None])
    return np.array(found.predict(pen=penalty)[:-1], np.int64)


def long_run_variance(values: NDArray[np.float64]) -> float:
    """Return the variance of a mean of many cells, times their number.

    From the differences of neighbouring batches' means, by their median, so that
    a few changes of the level do not count.
    """
    size = max(1, int(np.sqrt(len(values))))
    batches = len(values) // size
    means = values[: batches * size].reshape(batches, size).mean(axis=1)
    spread = _MAD * float(np.median(np.abs(np.diff(means))))
    return size * spread**2 / 2
