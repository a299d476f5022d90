"""A value over time: what the statistics of ticks are computed from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from cep.analysis.columns import checked_columns, time_column_ns
from cep.errors import UsageError
from cep.frames.from_frame import as_polars

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Transform = Literal["log", "none"]


@dataclass(frozen=True, slots=True)
class Series:
    """Values at instants that rise strictly.

    Attributes
    ----------
    name
        What charts and tables call it.
    time_ns
        Shape ``(n,)``, nanoseconds since the epoch, UTC.
    values
        Shape ``(n,)``, finite.
    absent
        Rows of the frame that held no usable value and were left out.
    replaced
        Rows that a later one of the same instant replaced.
    """

    name: str
    time_ns: NDArray[np.int64]
    values: NDArray[np.float64]
    absent: int = 0
    replaced: int = 0

    def __len__(self) -> int:
        return len(self.time_ns)

    def between(self, start_ns: int, end_ns: int) -> Series:
        """Return the part from ``start_ns`` to ``end_ns``, both included."""
        first = np.searchsorted(self.time_ns, start_ns, "left")
        last = np.searchsorted(self.time_ns, end_ns, "right")
        part = slice(int(first), int(last))
        return Series(
            self.name,
            self.time_ns[part],
            self.values[part],
            self.absent,
            self.replaced,
        )


def series(
    frame: Any,
    value: str = "price",
    *,
    time: str = "event_time",
    transform: Transform = "log",
    name: str | None = None,
) -> Series:
    """Return one column of a frame as a series, the last value of each instant.

    Parameters
    ----------
    frame
        polars, pandas or Arrow, in any order; rows of one instant count in the
        order in which they stand.
    value, time
        Names of the columns; the time column is a datetime (naive means UTC).
    transform
        ``"log"``: logarithms, whose differences are returns, for prices; a
        value that is not above 0 is absent. ``"none"``: values as they are.
    name
        What it is called in results; the value column's name if None.

    Raises
    ------
    UsageError
        If a column is missing, or the time column holds no times.

    Examples
    --------
    >>> import polars as pl
    >>> from datetime import datetime, UTC
    >>> at = datetime(2026, 1, 5, tzinfo=UTC)
    >>> frame = pl.DataFrame({"event_time": [at, at], "price": [1.0, 2.0]})
    >>> series(frame, transform="none").values, len(series(frame))
    (array([2.]), 1)
    """
    if transform not in ("log", "none"):
        raise UsageError(
            f"transform is {transform!r}.",
            'Use "log" for prices, or "none" for values as they are.',
        )
    rows = as_polars(frame)
    checked_columns(rows, (time, value))
    ns = time_column_ns(rows, time)
    numbers = rows[value].cast(pl.Float64)
    if transform == "log":
        numbers = numbers.log()
    usable = numbers.is_finite().fill_null(value=False) & ns.is_not_null()
    kept = (
        pl.DataFrame({"time": ns, "value": numbers})
        .filter(usable)
        .sort("time", maintain_order=True)
        .unique("time", keep="last", maintain_order=True)
    )
    present = int(usable.sum())
    return Series(
        name or value,
        kept["time"].to_numpy(),
        kept["value"].to_numpy(),
        absent=len(rows) - present,
        replaced=present - len(kept),
    )
