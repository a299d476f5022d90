"""Which of two series of ticks moves first, and by how much.

The Hayashi-Yoshida estimator multiplies each return of one series with all
returns of the other whose intervals overlap it. It needs no common grid: a
grid with stale prices makes the more frequent series seem to lead. Shifting one
series by a lag gives the cross-correlation of ticks.

Sign: a lag above 0 compares ``x`` with what ``y`` does that much later, so a
curve that is highest at +20 ms says that ``x`` leads ``y`` by 20 ms.

Sources: T. Hayashi, N. Yoshida, "On covariance estimation of non-synchronously
observed diffusion processes", Bernoulli 11(2), 2005; M. Hoffmann,
M. Rosenbaum, N. Yoshida, "Estimation of the lead-lag parameter from
non-synchronous data", Bernoulli 19(2), 2013; lead-lag ratio: N. Huth,
F. Abergel, "High frequency lead/lag relationships", Journal of Empirical
Finance 26, 2014.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from cep.analysis.inference import DRAWS, block_weights, max_statistic_p_value
from cep.analysis.kernels import hayashi_yoshida
from cep.analysis.lag_curve import Interval, LagCurve, interval
from cep.clock import duration_ns, format_duration
from cep.errors import UsageError

if TYPE_CHECKING:
    from datetime import timedelta

    from numpy.typing import NDArray

    from cep.analysis.series import Series

MIN_BLOCKS: Final = 20
_MAX_BLOCKS: Final = 200
_IN_A_BLOCK: Final = 10
_SPANS: Final = 40  # the least common span, in largest lags


@dataclass(frozen=True, slots=True, repr=False)
class LeadLag(LagCurve):
    """What `lead_lag` found.

    Attributes
    ----------
    p_value
        Of no relation at any of the lags; see `max_statistic_p_value`.
    ratio
        Sum of squared correlations at lags above 0 over that below 0, within
        the inner fifth of the lags; above 1 ``x`` leads. With an interval.
    observations
        How many of ``x`` and ``y`` lay in the span that both cover.
    start_ns, end_ns
        That span.
    blocks
        How many blocks of time intervals and p-value rest on.
    """

    ratio: Interval
    observations: tuple[int, int]
    start_ns: int
    end_ns: int
    blocks: int

    def __str__(self) -> str:
        n, m = self.observations
        return (
            f"{self._summary()}\n"
            f"  lead-lag ratio {self.ratio} (above 1: {self.x} leads)\n"
            f"  {n:,} and {m:,} observations, {self.blocks} blocks of time"
        )


def lead_lag(
    x: Series,
    y: Series,
    *,
    max_lag: str | timedelta = "1s",
    step: str | timedelta = "10ms",
    draws: int = DRAWS,
    seed: int = 0,
) -> LeadLag:
    """Return the Hayashi-Yoshida cross-correlation of two series of ticks.

    Parameters
    ----------
    x, y
        As `series` makes them; prices as logarithms. Only the span that both
        cover counts. Values that stay the same are to be left in: dropping them
        biases the estimate.
    max_lag, step
        Lags go from ``-max_lag`` to ``max_lag`` by ``step``.
    draws
        Of the bootstraps behind the intervals and the p-value.
    seed
        Equal seeds give equal intervals.

    Returns
    -------
    The estimate over all lags. Time is cut into up to 200 blocks in each of which
    the rarer series has as many observations, so that a burst is not one block.
    Intervals come from drawing whole blocks with replacement. The p-value comes
    from throwing the signs of the blocks' own correlations, each weighted by how
    often the rarer series moved, so that a single wild block can neither make
    nor hide a relation.

    Raises
    ------
    UsageError
        If the common span is shorter than 40 times ``max_lag``, a series has
        fewer than 200 observations in it or never changes, or the lags make no
        grid.

    Notes
    -----
    A correlation over many lags always has a highest point. Read the verdict,
    which asks whether there is any relation first. A lead of a few milliseconds
    may be that of one feed over another, not of one market.
    """
    max_ns, step_ns = duration_ns(max_lag), duration_ns(step)
    if max_ns % step_ns or max_ns // step_ns > 100_000:
        raise UsageError(
            f"max_lag {format_duration(max_ns)} is no multiple of step "
            f"{format_duration(step_ns)}, or more than 100,000 times it.",
            "Choose a step that divides the largest lag, such as max_lag / 100.",
        )
    x, y = _common(x, y)
    lags = np.arange(-max_ns, max_ns + 1, step_ns, dtype=np.int64)
    start, end = int(x.time_ns[0]), int(x.time_ns[-1])
    if end - start < _SPANS * max_ns:
        raise UsageError(
            f"{x.name} and {y.name} have {format_duration(end - start)} in common, "
            f"too little for lags up to {format_duration(max_ns)}.",
            f"Load at least {format_duration(_SPANS * max_ns)}, or lower max_lag.",
        )
    rarer = min(x, y, key=len)
    blocks = min(_MAX_BLOCKS, len(rarer) // _IN_A_BLOCK)
    if blocks < MIN_BLOCKS:
        raise UsageError(
            f"{rarer.name} has {len(rarer)} observations in the time that both "
            f"series cover, too few for {MIN_BLOCKS} blocks of {_IN_A_BLOCK}.",
            "Load a longer span.",
        )
    edges = rarer.time_ns[np.arange(blocks) * len(rarer) // blocks]
    of_x, of_y = (_block_of(s.time_ns, edges) for s in (x, y))
    # A product belongs to the block of the rarer series' return, whichever is x.
    if rarer is x:
        sums = _sums(x, y, lags, of_x, blocks)
    else:
        sums = _sums(y, x, lags, of_y, blocks)[:, ::-1]
    spread_x, moves_x = _moves(x, of_x, blocks)
    spread_y, moves_y = _moves(y, of_y, blocks)
    # A block's correlation is as sure as the rarer series has moves in it.
    own = np.nan_to_num(_correlation(sums, spread_x, spread_y))
    votes = own * np.minimum(moves_x, moves_y)[:, None]
    weights = block_weights(blocks, draws=draws, seed=seed)
    drawn = _correlation(weights @ sums, weights @ spread_x, weights @ spread_y)
    every = np.ones((1, blocks))
    rho = _correlation(every @ sums, every @ spread_x, every @ spread_y)[0]
    low, high = np.nanpercentile(drawn, [2.5, 97.5], axis=0)
    best = lags[np.argmax(np.abs(np.nan_to_num(drawn)), axis=1)]
    return LeadLag(
        x.name,
        y.name,
        lags,
        rho,
        low,
        high,
        max_statistic_p_value(votes, draws=draws, seed=seed),
        interval(float(lags[np.argmax(np.abs(rho))]), best.astype(float)),
        interval(float(_ratio(rho, lags)), _ratio(drawn, lags)),
        (len(x), len(y)),
        start,
        end,
        blocks,
    )


def _sums(
    x: Series,
    y: Series,
    lags: NDArray[np.int64],
    block_of: NDArray[np.int64],
    blocks: int,
) -> NDArray[np.float64]:
    found: NDArray[np.float64] = hayashi_yoshida(
        x.time_ns, x.values, y.time_ns, y.values, lags, block_of, blocks
    )
    return found


def _common(x: Series, y: Series) -> tuple[Series, Series]:
    for s in (x, y):
        if not len(s):
            raise UsageError(
                f"{s.name} has no observations.", "Load more, or check the column."
            )
    start = max(int(x.time_ns[0]), int(y.time_ns[0]))
    end = min(int(x.time_ns[-1]), int(y.time_ns[-1]))
    x, y = x.between(start, end), y.between(start, end)
    for s in (x, y):
        if len(s) < MIN_BLOCKS or not np.ptp(s.values):
            raise UsageError(
                f"{s.name} has {len(s)} observations in the time that both series "
                "cover, or they never change.",
                "Load a span in which both move.",
            )
    return x, y


def _block_of(
    time_ns: NDArray[np.int64], edges: NDArray[np.int64]
) -> NDArray[np.int64]:
    return np.searchsorted(edges[1:], time_ns, "right").astype(np.int64)


def _moves(
    s: Series, block_of: NDArray[np.int64], blocks: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each block's sum of squared returns, and how many were not 0."""
    squares = np.diff(s.values) ** 2
    of = block_of[1:]
    moved = (squares > 0).astype(float)
    sums = np.bincount(of, squares, blocks).astype(float)
    return sums, np.bincount(of, moved, blocks).astype(float)


def _correlation(
    sums: NDArray[np.float64],
    spread_x: NDArray[np.float64],
    spread_y: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return correlations, shape (rows, lags); NaN where a series stands still."""
    scale = np.sqrt(spread_x * spread_y)[:, None]
    nothing = np.full(sums.shape, np.nan)
    found: NDArray[np.float64] = np.divide(sums, scale, out=nothing, where=scale > 0)
    return found


def _ratio(rho: NDArray[np.float64], lags: NDArray[np.int64]) -> NDArray[np.float64]:
    inner = np.abs(lags) <= lags[-1] // 5
    ahead = (rho[..., inner & (lags > 0)] ** 2).sum(axis=-1)
    behind = (rho[..., inner & (lags < 0)] ** 2).sum(axis=-1)
    found: NDArray[np.float64] = np.divide(
        ahead, behind, out=np.full(np.shape(ahead), np.nan), where=behind > 0
    )
    return found
