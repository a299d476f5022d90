"""Whether one stream's past helps to foretell another's next step.

Granger causality compares two regressions of the next value: on its own past,
and on its own past and the other's. The F statistic is that of statsmodels. Its
textbook p-value wants independent errors of equal size, which bursts are not,
so the p-value that counts comes from rotating the other stream within blocks of
time (see `cep.analysis.rotation`).

Source: C. W. J. Granger, "Investigating Causal Relations by Econometric Models
and Cross-spectral Methods", Econometrica 37, 1969; order by the criterion of
G. Schwarz, "Estimating the Dimension of a Model", Annals of Statistics 6, 1978.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from cep.analysis import figures
from cep.analysis.extras import stats_library
from cep.analysis.grid import common_grid, shape_cells, steps_of
from cep.analysis.inference import DRAWS
from cep.analysis.lag_curve import LEVEL
from cep.analysis.result import Result
from cep.analysis.rotation import block_edges, p_value_of_largest, rotated
from cep.clock import duration_ns, format_duration
from cep.errors import UsageError

if TYPE_CHECKING:
    from datetime import timedelta

    import plotly.graph_objects as go
    from numpy.typing import NDArray

    from cep.analysis.grid import Stream

_MAX_ORDER = 50


@dataclass(frozen=True, slots=True, repr=False)
class Granger(Result):
    """What `granger` found.

    Attributes
    ----------
    x, y
        Names: whether the past of ``x`` helps to foretell ``y``.
    order
        How many steps of the past the regressions have.
    f, df_num, df_denom
        The F statistic and its degrees of freedom, as statsmodels has them.
    p_f
        Its textbook p-value; too small for bursty streams.
    p_value
        Of so large an F if there were no relation, from rotated surrogates.
    weights
        Shape ``(order,)``: by how much ``y`` differs for one unit of ``x`` that
        many steps before.
    gain
        The share of the variance that its own past leaves and ``x`` explains.
    step_ns, shape_ns
        Length of a step; how long the blocks are.
    """

    x: str
    y: str
    order: int
    f: float
    df_num: int
    df_denom: int
    p_f: float
    p_value: float
    weights: NDArray[np.float64]
    gain: float
    step_ns: int
    shape_ns: int

    @property
    def verdict(self) -> str:
        """What may be said, in words."""
        return self.statement(related=self.p_value < LEVEL)

    def statement(self, *, related: bool) -> str:
        """Return what may be said if a relation is taken to be there, or not."""
        if not related:
            return f"the past of {self.x} does not help to foretell {self.y}"
        reach = format_duration(self.order * self.step_ns)
        return (
            f"the past {reach} of {self.x} foretell {self.gain:.2%} of what the past "
            f"of {self.y} leaves open"
        )

    def to_polars(self) -> pl.DataFrame:
        """Return the weights: ``lag`` (duration) and ``weight``."""
        lags = np.arange(1, self.order + 1) * self.step_ns
        return pl.DataFrame(
            {
                "lag": pl.Series(lags).cast(pl.Duration("ns")),
                "weight": self.weights,
            }
        )

    def plot(self) -> go.Figure:
        """Return the weights of the other stream's past."""
        lags = np.arange(1, self.order + 1) * self.step_ns
        return figures.bars(
            [format_duration(int(lag)) for lag in lags],
            {"weight": self.weights},
            title=f"What the past of {self.x} says of {self.y}",
            said=str(self).partition("\n")[0],
            x_title="Change of the next step for one unit",
        )

    def __str__(self) -> str:
        return (
            f"{self.verdict} (p = {self.p_value:.3g})\n"
            f"  F({self.df_num}, {self.df_denom}) = {self.f:.3f}, textbook p = "
            f"{self.p_f:.3g}; {self.order} steps of {format_duration(self.step_ns)}"
        )


def granger(
    x: Stream,
    y: Stream,
    *,
    step: str | timedelta = "1s",
    order: int | None = None,
    max_order: int = 5,
    shape: str | timedelta | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Granger:
    """Return whether the past of ``x`` helps to foretell ``y``.

    Parameters
    ----------
    x, y
        `Series`, of which changes over each step count, or `EventTimes`, of
        which counts in each step count, less their shape.
    step
        Length of a step. Relations faster than it are not seen.
    order, max_order
        How many steps of the past; by Schwarz's criterion up to ``max_order`` if
        ``order`` is None, of ``y`` on its own past and that of ``x``.
    shape
        As in `rate_correlation`; at least four times ``step * max_order``.
    draws, seed
        Of rotations; equal seeds give equal results.

    Raises
    ------
    UsageError
        If the span is too short for the shape, or a stream stands still.
    MissingExtraError
        If statsmodels is not installed.
    """
    most = max_order if order is None else order
    if not 1 <= most <= _MAX_ORDER:
        raise UsageError(
            f"An order of {most} is none.", f"Take one from 1 to {_MAX_ORDER}."
        )
    step_ns = duration_ns(step)
    grid = common_grid(x, y, step_ns)
    width = shape_cells(grid, most * step_ns, shape)
    past, next_ = (steps_of(stream, grid, width) for stream in (x, y))
    for name, values in ((x.name, past), (y.name, next_)):
        if not np.ptp(values):
            raise UsageError(
                f"{name} is the same in every step of {format_duration(step_ns)}.",
                "Load a span in which it changes, or take longer steps.",
            )
    chosen = _order(past, next_, most) if order is None else order
    tested = stats_library("statsmodels.tsa.stattools").grangercausalitytests(
        np.column_stack([next_, past]), [chosen]
    )[chosen]
    f, p_f, df_denom, df_num = tested[0]["ssr_ftest"]
    edges = block_edges(grid.cells, width)
    rng = np.random.default_rng(seed)
    gains = _Gains(next_, chosen)
    drawn = np.array([gains(past[rotated(edges, rng)]) for _ in range(draws)])
    gain = gains(past)
    return Granger(
        x.name,
        y.name,
        chosen,
        float(f),
        int(df_num),
        int(df_denom),
        float(p_f),
        p_value_of_largest(np.array([gain]), drawn[:, None], either_sign=False),
        np.asarray(tested[1][1].params[chosen : 2 * chosen]),
        gain,
        step_ns,
        width * step_ns,
    )


def _lagged(values: NDArray[np.float64], order: int) -> NDArray[np.float64]:
    """Return shape ``(n - order, order)``: the values 1 to ``order`` steps before."""
    n = len(values)
    return np.column_stack([values[order - k : n - k] for k in range(1, order + 1)])


class _Gains:
    """The share of variance that another past explains beyond the own past."""

    def __init__(self, y: NDArray[np.float64], order: int) -> None:
        own = np.column_stack([np.ones(len(y) - order), _lagged(y, order)])
        self._order = order
        self._own, _ = np.linalg.qr(own)
        left = y[order:] - self._own @ (self._own.T @ y[order:])
        self._left, self._spread = left, float(left @ left)

    def __call__(self, x: NDArray[np.float64]) -> float:
        other = _lagged(x, self._order)
        other -= self._own @ (self._own.T @ other)
        shared = other.T @ self._left
        weights = np.linalg.lstsq(other.T @ other, shared, rcond=None)[0]
        return float(shared @ weights) / self._spread if self._spread else 0.0


def _order(x: NDArray[np.float64], y: NDArray[np.float64], most: int) -> int:
    """Return the order with the lowest criterion, all on the same steps."""
    target = y[most:]
    n = len(target)
    lowest, best = np.inf, 1
    own, other = _lagged(y, most), _lagged(x, most)
    for order in range(1, most + 1):
        design = np.column_stack([np.ones(n), own[:, :order], other[:, :order]])
        weights = np.linalg.lstsq(design, target, rcond=None)[0]
        left = float(((target - design @ weights) ** 2).sum())
        criterion = n * np.log(max(left, np.finfo(float).tiny) / n)
        criterion += np.log(n) * design.shape[1]
        if criterion < lowest:
            lowest, best = criterion, order
    return best
