"""How many bits the past of one stream tells about the next step of another.

Transfer entropy is Granger causality without straight lines: steps are put into
a few states, and the entropy of the next state given the own past is compared
with that given both pasts. Counting states makes it larger than 0 where there
is nothing, so the mean of rotated surrogates is taken off, and they give the
p-value (see `cep.analysis.rotation`).

Source: T. Schreiber, "Measuring Information Transfer", Physical Review Letters
85, 2000; effective transfer entropy, R. Marschinski, H. Kantz, "Analysing the
information flow between financial time series", European Physical Journal B 30,
2002.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from cep.analysis import figures
from cep.analysis.grid import common_grid, shape_cells, steps_of
from cep.analysis.inference import DRAWS
from cep.analysis.lag_curve import LEVEL
from cep.analysis.result import Result
from cep.analysis.rotation import block_edges, p_value_of_largest, rotated
from cep.clock import duration_ns, format_duration
from cep.errors import UsageError
from cep.style import ALERTS, LINES

if TYPE_CHECKING:
    from datetime import timedelta

    import plotly.graph_objects as go
    from numpy.typing import NDArray

    from cep.analysis.grid import Stream

_MAX_COMBINATIONS = 1_000_000


@dataclass(frozen=True, slots=True, repr=False)
class TransferEntropy(Result):
    """What `transfer_entropy` found.

    Attributes
    ----------
    x, y
        Names: what the past of ``x`` tells about the next step of ``y``.
    bits
        Bits a step, as counted; never below 0, and above 0 without a relation.
    effective
        Less the mean of the surrogates.
    surrogates
        Shape ``(draws,)``: bits with ``x`` rotated.
    p_value
        Of so many bits if there were no relation.
    states, history
        Into how many states steps were put, and how many steps of the past
        count.
    step_ns, shape_ns
        Length of a step; how long the blocks are.
    """

    x: str
    y: str
    bits: float
    effective: float
    surrogates: NDArray[np.float64]
    p_value: float
    states: tuple[int, int]
    history: int
    step_ns: int
    shape_ns: int

    @property
    def verdict(self) -> str:
        """What may be said, in words."""
        return self.statement(related=self.p_value < LEVEL)

    def statement(self, *, related: bool) -> str:
        """Return what may be said if a relation is taken to be there, or not."""
        if not related:
            return f"the past of {self.x} tells nothing about {self.y}"
        return (
            f"the past of {self.x} tells {self.effective:.3g} bits about each step "
            f"of {self.y}"
        )

    def to_polars(self) -> pl.DataFrame:
        """Return one row of all numbers but the surrogates."""
        return pl.DataFrame(
            {
                "x": [self.x],
                "y": [self.y],
                "bits": [self.bits],
                "effective": [self.effective],
                "p_value": [self.p_value],
                "step": pl.Series([self.step_ns]).cast(pl.Duration("ns")),
            }
        )

    def plot(self) -> go.Figure:
        """Return the surrogates as a histogram, and what was found as a line."""
        figure = figures.new_figure(
            f"{self.x} to {self.y}: transfer entropy",
            str(self).partition("\n")[0],
            "Bits a step",
            "Surrogates",
        )
        figure.add_histogram(
            x=self.surrogates,
            marker={"color": LINES[2]},
            name="unrelated",
        )
        figure.add_vline(x=self.bits, line={"color": ALERTS[0], "width": 2})
        return figure

    def __str__(self) -> str:
        return (
            f"{self.verdict} (p = {self.p_value:.3g})\n"
            f"  {self.bits:.4g} bits a step of {format_duration(self.step_ns)}, "
            f"{self.surrogates.mean():.4g} without a relation; "
            f"{self.states[0]} and {self.states[1]} states, {self.history} steps back"
        )


def transfer_entropy(
    x: Stream,
    y: Stream,
    *,
    step: str | timedelta = "1s",
    history: int = 1,
    states: int = 3,
    shape: str | timedelta | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> TransferEntropy:
    """Return how much the past of ``x`` tells about the next step of ``y``.

    Parameters
    ----------
    x, y
        `Series`, of which changes over each step count, or `EventTimes`, of
        which counts in each step count, less their shape.
    step
        Length of a step. Relations faster than it are not seen.
    history
        How many steps of both pasts count.
    states
        Into how many states, about equally frequent, the steps are put.
    shape
        As in `rate_correlation`; at least four times ``step * history``.
    draws, seed
        Of rotations; equal seeds give equal results.

    Raises
    ------
    UsageError
        If the span is too short for the shape, or states and history make more
        than a million combinations.
    """
    if states < 2 or history < 1 or states ** (2 * history + 1) > _MAX_COMBINATIONS:
        raise UsageError(
            f"{states} states and {history} steps of history make no table, or one "
            f"of more than {_MAX_COMBINATIONS:,} combinations.",
            "Take two states or more, one step or more, and few of both.",
        )
    step_ns = duration_ns(step)
    grid = common_grid(x, y, step_ns)
    width = shape_cells(grid, history * step_ns, shape)
    past, next_ = (states_of(steps_of(s, grid, width), states) for s in (x, y))
    edges = block_edges(grid.cells, width)
    rng = np.random.default_rng(seed)
    bits = bits_told(past, next_, history)
    drawn = np.array(
        [bits_told(past[rotated(edges, rng)], next_, history) for _ in range(draws)]
    )
    return TransferEntropy(
        x.name,
        y.name,
        bits,
        bits - float(drawn.mean()),
        drawn,
        p_value_of_largest(np.array([bits]), drawn[:, None], either_sign=False),
        (int(past.max()) + 1, int(next_.max()) + 1),
        history,
        step_ns,
        width * step_ns,
    )


def states_of(values: NDArray[np.float64], states: int) -> NDArray[np.int64]:
    """Return the state of each value: which quantile it lies in, equal ones alike.

    >>> states_of(np.array([3.0, 1.0, 2.0, 1.0]), 2).tolist()
    [1, 0, 1, 0]
    """
    cuts = np.quantile(values, np.arange(1, states) / states)
    _, dense = np.unique(np.searchsorted(cuts, values, "left"), return_inverse=True)
    return dense.astype(np.int64)


def bits_told(x: NDArray[np.int64], y: NDArray[np.int64], history: int = 1) -> float:
    """Return the transfer entropy from ``x`` to ``y`` of states, as counted.

    The sum over ``p(next, own, other) * log2(p(next | own, other) / p(next | own))``
    with the relative frequencies as probabilities.

    Parameters
    ----------
    x, y
        Shape ``(n,)``, states from 0.

    Examples
    --------
    A fair coin, repeated by the other stream a step later, tells one bit; the
    coin is told nothing.

    >>> coin = np.random.default_rng(0).integers(0, 2, 10_000)
    >>> x, y = coin[1:], coin[:-1]
    >>> round(bits_told(x, y), 3), round(bits_told(y, x), 3)
    (1.0, 0.0)
    """
    many_x, many_y = int(x.max()) + 1, int(y.max()) + 1
    n = len(y) - history
    own = np.zeros(n, np.int64)
    other = np.zeros(n, np.int64)
    for k in range(1, history + 1):
        own = own * many_y + y[history - k : len(y) - k]
        other = other * many_x + x[history - k : len(x) - k]
    shape = (many_y, many_y**history, many_x**history)
    code = (y[history:] * shape[1] + own) * shape[2] + other
    joint = np.bincount(code, minlength=int(np.prod(shape))).reshape(shape)
    # H(next, own) + H(own, other) - H(own) - H(next, own, other), of counts.
    parts = (joint.sum(2), joint.sum(0), joint.sum((0, 2)), joint)
    next_own, both, alone, all_ = (_entropy(part) for part in parts)
    return max(0.0, next_own + both - alone - all_)


def _entropy(counts: NDArray[np.int64]) -> float:
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log2(share)).sum())
