"""A correlation by lag, what may be said of it, and how it is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from cep.analysis import figures
from cep.analysis.result import Result
from cep.clock import format_duration
from cep.style import plain

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from numpy.typing import NDArray

LEVEL: Final = 0.05


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


@dataclass(frozen=True, slots=True, repr=False)
class LagCurve(Result):
    """A correlation of two streams by lag.

    Attributes
    ----------
    x, y
        Names of the two.
    lags_ns
        Shape ``(m,)``, ascending, symmetric about 0; above 0 ``x`` leads.
    rho, low, high
        Shape ``(m,)``, the correlation at each lag and its own 95 % interval.
    p_value
        Of no relation at any of the lags.
    best_lag_ns
        Where ``|rho|`` is largest, with an interval.
    """

    x: str
    y: str
    lags_ns: NDArray[np.int64]
    rho: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    p_value: float
    best_lag_ns: Interval

    @property
    def rho_zero(self) -> float:
        """The correlation at lag 0."""
        return float(self.rho[len(self.rho) // 2])

    @property
    def rho_best(self) -> float:
        """The correlation at the best lag."""
        return float(self.rho[int(np.argmax(np.abs(self.rho)))])

    @property
    def verdict(self) -> str:
        """What may be said, in words; a lead only if its interval excludes 0."""
        return self.statement(related=self.p_value < LEVEL)

    def statement(self, *, related: bool) -> str:
        """Return what may be said if a relation is taken to be there, or not."""
        if not related:
            return f"no relation between {self.x} and {self.y} was found"
        lag = self.best_lag_ns
        if lag.low > 0 or lag.high < 0:
            first, second = (self.x, self.y) if lag.value > 0 else (self.y, self.x)
            by = format_duration(int(abs(lag.value)))
            return f"{first} leads {second} by {by}"
        return f"{self.x} and {self.y} move together, neither leads"

    def to_polars(self) -> pl.DataFrame:
        """Return the curve: ``lag`` (duration), ``rho``, ``low``, ``high``."""
        return pl.DataFrame(
            {
                "lag": pl.Series(self.lags_ns).cast(pl.Duration("ns")),
                "rho": self.rho,
                "low": self.low,
                "high": self.high,
            }
        )

    def plot(self) -> go.Figure:
        """Return the curve with its pointwise 95 % band and the best lag."""
        return figures.lag_curve(
            self.lags_ns,
            self.rho,
            title=f"{self.x} and {self.y}: correlation by lag",
            said=str(self).partition("\n")[0],
            x_title=f"Lag; above 0 {plain(self.x, 40)} leads",
            y_title="Correlation",
            name="correlation",
            band=(self.low, self.high, "95 % interval of each lag"),
            mark_ns=self.best_lag_ns.value,
        )

    def _summary(self) -> str:
        lag = self.best_lag_ns
        at, low, high = (signed(int(ns)) for ns in (lag.value, lag.low, lag.high))
        tested = f"{len(self.lags_ns)} lags up to {format_duration(self.lags_ns[-1])}"
        return (
            f"{self.verdict} (p = {self.p_value:.3g} over {tested})\n"
            f"  correlation {self.rho_zero:.3f} at lag 0, "
            f"{self.rho_best:.3f} at {at} [{low}, {high}]"
        )


def signed(ns: int) -> str:
    """Return a duration with its sign.

    >>> signed(-20_000_000), signed(0)
    ('-20ms', '0')
    """
    return "0" if not ns else f"{'+' if ns > 0 else '-'}{format_duration(abs(ns))}"


def interval(value: float, drawn: NDArray[np.float64]) -> Interval:
    """Return a value with what holds the middle 95 % of ``drawn``, NaN left out."""
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Interval(value, float(low), float(high))
