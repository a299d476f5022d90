"""Correlation of two series as time goes: rolling, or fading.

What is correlated are changes, and not the values themselves: two values that
wander are always correlated over some windows, whatever they are. A rolling
correlation says how a relation changes; whether there is one, `lead_lag` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from cep.analysis import figures
from cep.analysis.alignment import resample
from cep.analysis.kernels import fading_correlation
from cep.analysis.result import Result
from cep.clock import duration_ns, format_duration
from cep.errors import UsageError
from cep.style import LINES

if TYPE_CHECKING:
    from datetime import timedelta

    import plotly.graph_objects as go
    from numpy.typing import NDArray

    from cep.analysis.series import Series

MIN_CHANGES = 3


@dataclass(frozen=True, slots=True, repr=False)
class CorrelationOverTime(Result):
    """A correlation at each instant.

    Attributes
    ----------
    x, y
        Names.
    time_ns
        Shape ``(n,)``, nanoseconds since the epoch, UTC.
    rho
        Shape ``(n,)``; NaN until there are enough changes, and where one of the
        two stands still.
    changes
        On about how many changes each one rests; two series without a relation
        are beyond ``1.96 / sqrt(changes)`` 5 % of the time.
    how
        Which correlation it is, in words.
    """

    x: str
    y: str
    time_ns: NDArray[np.int64]
    rho: NDArray[np.float64]
    changes: float
    how: str

    def to_polars(self) -> pl.DataFrame:
        """Return ``event_time`` and ``rho``; NaN becomes null."""
        return pl.DataFrame(
            {
                "event_time": pl.Series(self.time_ns).cast(pl.Datetime("ns", "UTC")),
                "rho": pl.Series(self.rho).fill_nan(None),
            }
        )

    def plot(self) -> go.Figure:
        """Return the correlation over time, with the band of unrelated changes."""
        figure = figures.time_lines(
            self.time_ns,
            {f"{self.x}, {self.y}": self.rho},
            title=f"{self.x} and {self.y}: correlation over time",
            said=str(self).replace("\n", "; "),
            y_title="Correlation",
        )
        wide = min(1.0, 1.96 / np.sqrt(self.changes))
        figure.add_hrect(
            y0=-wide, y1=wide, fillcolor=LINES[2], opacity=0.15, line_width=0
        )
        figure.update_yaxes(range=[-1.05, 1.05])
        return figure

    def __str__(self) -> str:
        known = self.rho[np.isfinite(self.rho)]
        if not len(known):
            return f"{self.x} and {self.y}: no correlation, {self.how}"
        low, middle, high = np.percentile(known, [5, 50, 95])
        wide = min(1.0, 1.96 / np.sqrt(self.changes))
        return (
            f"{self.x} and {self.y}: correlation {middle:.3f}, mostly {low:.3f} to "
            f"{high:.3f}, {self.how}\n"
            f"  without a relation it is within {wide:.3f} of 0 for 95 % of the time"
        )


def rolling_correlation(
    x: Series,
    y: Series,
    *,
    every: str | timedelta = "1s",
    window: str | timedelta = "60s",
) -> CorrelationOverTime:
    """Return the correlation of changes over ``(t - window, t]``.

    Parameters
    ----------
    x, y
        As `series` makes them; prices as logarithms.
    every
        Both are put on a grid of this step (`resample`, the last value), whose
        changes count. Of ticks far rarer than it, most changes are 0, and the
        correlation is too small: see `lead_lag`.
    window
        A multiple of ``every``, of three changes or more.

    Returns
    -------
    What ``pandas.Series.rolling(n).corr`` gives: Pearson's, NaN until a window
    is full and where one of the two does not change in it.

    Raises
    ------
    UsageError
        If the window is no such multiple, or the series have no time in common.
    """
    step, length = duration_ns(every), duration_ns(window)
    n = length // step
    if length % step or n < MIN_CHANGES:
        raise UsageError(
            f"A window of {format_duration(length)} is no multiple of "
            f"{format_duration(step)}, or less than {MIN_CHANGES} times it.",
            "Take a longer window, or shorter steps.",
        )
    time_ns, a, b = _changes(x, y, every)
    table = pl.DataFrame({"a": a, "b": b})
    # A window of equal values keeps the rounding of what has left it.
    moves_a, moves_b = (
        pl.col(name).rolling_max(n) > pl.col(name).rolling_min(n) for name in ("a", "b")
    )
    rho = pl.rolling_corr("a", "b", window_size=n, min_samples=n)
    found = table.select(rho=pl.when(moves_a & moves_b).then(rho))
    values = found["rho"].fill_null(np.nan).to_numpy()
    how = f"over {format_duration(length)}, changes of {format_duration(step)}"
    return CorrelationOverTime(x.name, y.name, time_ns, values, float(n), how)


def ewm_correlation(
    x: Series,
    y: Series,
    *,
    every: str | timedelta = "1s",
    half_life: str | timedelta = "60s",
) -> CorrelationOverTime:
    """Return the correlation of changes whose weight halves each ``half_life``.

    Parameters
    ----------
    x, y, every
        As in `rolling_correlation`.
    half_life
        By when a change counts half as much as the newest one.

    Returns
    -------
    What ``pandas.Series.ewm(halflife=n).corr`` gives with its defaults; NaN
    before the third change and where one of the two has not changed.
    """
    step, half = duration_ns(every), duration_ns(half_life)
    time_ns, a, b = _changes(x, y, every)
    decay = 0.5 ** (step / half)
    rho = fading_correlation(a, b, decay)
    rho[: MIN_CHANGES - 1] = np.nan
    how = (
        f"fading by half in {format_duration(half)}, changes of {format_duration(step)}"
    )
    # As many equal weights have the same variance of a mean.
    return CorrelationOverTime(
        x.name, y.name, time_ns, rho, (1 + decay) / (1 - decay), how
    )


def _changes(
    x: Series, y: Series, every: str | timedelta
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    aligned = resample([x, y], every)
    if len(aligned.time_ns) <= MIN_CHANGES:
        raise UsageError(
            f"{x.name} and {y.name} have {len(aligned.time_ns)} instants in common.",
            "Load a longer span, or take shorter steps.",
        )
    a, b = np.diff(aligned.values, axis=0).T
    return aligned.time_ns[1:], np.ascontiguousarray(a), np.ascontiguousarray(b)
