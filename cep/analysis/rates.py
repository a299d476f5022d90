"""Whether one stream's events come more often around those of another.

Both streams are counted in cells of time, what changes slowly or daily is
taken out (see `cep.analysis.grid`), and what is left is correlated at each
lag. How much a relation would show where there is none is learned by rotating
one stream within blocks of time (see `cep.analysis.rotation`), which keeps its
bursts and its busy hours.

Source: cross-correlation of counts, D. R. Cox, P. A. W. Lewis, "The Statistical
Analysis of Series of Events", 1966, chapter 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cep.analysis.grid import common_grid, shape_cells, unusual_counts
from cep.analysis.inference import DRAWS, block_weights, max_statistic_p_value
from cep.analysis.lag_curve import LagCurve, interval
from cep.analysis.rotation import block_edges, p_value_of_largest, rotated_sums
from cep.clock import duration_ns, format_duration
from cep.errors import UsageError

if TYPE_CHECKING:
    from datetime import timedelta

    from numpy.typing import NDArray

    from cep.analysis.event_times import EventTimes

_MAX_LAGS = 10_000
_STEPS = 50


@dataclass(frozen=True, slots=True, repr=False)
class RateCorrelation(LagCurve):
    """What `rate_correlation` found.

    Attributes
    ----------
    p_value
        Of no relation at any of the lags: the larger one of two tests, against
        rotated surrogates and by throwing the signs of blocks.
    step_ns, shape_ns
        Length of a cell; what changes more slowly than this counts as shape.
    observations
        How many events of ``x`` and ``y`` lay in the span that both cover.
    blocks
        How many blocks of time intervals and p-value rest on.
    """

    step_ns: int
    shape_ns: int
    observations: tuple[int, int]
    blocks: int

    def __str__(self) -> str:
        n, m = self.observations
        return (
            f"{self._summary()}\n"
            f"  {n:,} and {m:,} events in cells of {format_duration(self.step_ns)}; "
            f"what is slower than {format_duration(self.shape_ns)} is taken out"
        )


def rate_correlation(
    x: EventTimes,
    y: EventTimes,
    *,
    max_lag: str | timedelta = "5s",
    step: str | timedelta | None = None,
    shape: str | timedelta | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> RateCorrelation:
    """Return the cross-correlation of two streams' events per cell of time.

    Parameters
    ----------
    x, y
        As `event_times` makes them. Only the span that both cover counts.
    max_lag, step
        Lags go from ``-max_lag`` to ``max_lag`` by ``step``, which is the length
        of a cell as well; a fiftieth of ``max_lag`` if None.
    shape
        What changes more slowly than this is each stream's own rhythm and no
        relation; at least four times ``max_lag``. Twenty times if None, or less
        where the span has no twenty blocks of it. Given five days or more, the
        mean of each time of day is taken out as well.
    draws
        Of rotations and of the bootstrap.
    seed
        Equal seeds give equal results.

    Returns
    -------
    Correlations of the counts' deviations, in Poisson standard deviations, from
    their shape. Intervals come from drawing blocks of time with replacement,
    the p-value from rotating ``x`` within blocks and from throwing the signs of
    blocks (`max_statistic_p_value`), with the largest of all lags compared.

    Raises
    ------
    UsageError
        If the common span is shorter than 80 times ``max_lag``, a stream has
        fewer than 20 events in it, or the lags make no grid.

    Notes
    -----
    A relation slower than ``shape`` is not looked for: over an hour, two streams
    that both grow cannot be told from two that have to do with each other.
    """
    max_ns = duration_ns(max_lag)
    step_ns = max_ns // _STEPS if step is None else duration_ns(step)
    if not step_ns or max_ns % step_ns or max_ns // step_ns > _MAX_LAGS:
        raise UsageError(
            f"max_lag {format_duration(max_ns)} is no multiple of step "
            f"{format_duration(step_ns)}, or more than {_MAX_LAGS:,} times it.",
            "Choose a step that divides the largest lag, such as max_lag / 50.",
        )
    grid = common_grid(x, y, step_ns)
    width = shape_cells(grid, max_ns, shape)
    own_x, own_y = (unusual_counts(events, grid, width) for events in (x, y))
    reach = max_ns // step_ns
    lags = np.arange(-reach, reach + 1)
    edges = block_edges(grid.cells, width)
    sums = rotated_sums(own_x, own_y, lags, edges, draws=draws, seed=seed)
    blocks = len(edges) - 1
    spread_x, spread_y = (np.add.reduceat(own**2, edges[:-1]) for own in (own_x, own_y))
    weights = block_weights(blocks, draws=draws, seed=seed)
    drawn = _correlation(
        weights @ sums.by_block, weights @ spread_x, weights @ spread_y
    )
    rho = _correlation(sums.observed[None], spread_x.sum()[None], spread_y.sum()[None])
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    # Rotation keeps bursts, signs keep blocks in which all is wilder.
    p_value = max(
        p_value_of_largest(sums.observed, sums.drawn),
        max_statistic_p_value(sums.by_block - sums.usual, draws=draws, seed=seed),
    )
    lags_ns = lags * step_ns
    best = lags_ns[np.argmax(np.abs(drawn), axis=1)]
    n, m = (len(s.between(grid.start_ns, grid.end_ns - 1)) for s in (x, y))
    return RateCorrelation(
        x.name,
        y.name,
        lags_ns,
        rho[0],
        low,
        high,
        p_value,
        interval(float(lags_ns[np.argmax(np.abs(rho[0]))]), best.astype(float)),
        step_ns,
        width * step_ns,
        (n, m),
        blocks,
    )


def _correlation(
    sums: NDArray[np.float64],
    spread_x: NDArray[np.float64],
    spread_y: NDArray[np.float64],
) -> NDArray[np.float64]:
    scale = np.sqrt(spread_x * spread_y)[:, None]
    found: NDArray[np.float64] = np.divide(
        sums, scale, out=np.zeros_like(sums), where=scale > 0
    )
    return found
