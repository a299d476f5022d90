"""Streams that tick at different times, on common instants.

===============  ============================================================
`join_as_of`     to each row of a frame the last row of another, not too old
`resample`       several series on a regular grid, with a stated fill
`refresh_times`  several series whenever each has ticked again
===============  ============================================================

None of them looks ahead, but for ``fill="linear"``, which says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from cep.analysis import figures
from cep.analysis.columns import checked_columns, time_column_ns
from cep.analysis.grid import MAX_CELLS
from cep.analysis.result import Result
from cep.clock import duration_ns, format_duration
from cep.errors import UsageError, near_miss
from cep.frames.from_frame import as_polars

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    import plotly.graph_objects as go
    from numpy.typing import NDArray

    from cep.analysis.series import Series

    Fill = Literal["none", "last", "linear", "zero"]

FILLS = ("none", "last", "linear", "zero")


@dataclass(frozen=True, slots=True, repr=False)
class Aligned(Result):
    """Several series on common instants.

    Attributes
    ----------
    names
        Of the series.
    time_ns
        Shape ``(n,)``, rising, nanoseconds since the epoch, UTC.
    values
        Shape ``(n, k)``; NaN where a series has nothing to say.
    how
        How it was aligned, in words.
    """

    names: tuple[str, ...]
    time_ns: NDArray[np.int64]
    values: NDArray[np.float64]
    how: str

    def to_polars(self) -> pl.DataFrame:
        """Return ``event_time`` and a column for each series; NaN becomes null."""
        times = pl.Series("event_time", self.time_ns)
        columns = {
            name: pl.Series(self.values[:, k]).fill_nan(None)
            for k, name in enumerate(self.names)
        }
        return pl.DataFrame(
            {"event_time": times.cast(pl.Datetime("ns", "UTC")), **columns}
        )

    def plot(self) -> go.Figure:
        """Return a line for each series."""
        return figures.time_lines(
            self.time_ns,
            {name: self.values[:, k] for k, name in enumerate(self.names)},
            title=f"{', '.join(self.names)}, aligned",
            said=str(self).partition("\n")[0],
            y_title="Value",
        )

    def __str__(self) -> str:
        known = np.isfinite(self.values).mean(axis=0) if len(self.values) else []
        shares = ", ".join(
            f"{name} {share:.1%}"
            for name, share in zip(self.names, known, strict=False)
        )
        return (
            f"{len(self.time_ns):,} instants, {self.how}\n"
            f"  with a value: {shares or 'none'}"
        )


def join_as_of(
    frame: Any,
    other: Any,
    *,
    by: str | Sequence[str] = (),
    tolerance: str | timedelta,
    time: str = "event_time",
    suffix: str = "_right",
) -> pl.DataFrame:
    """Return each row of a frame with the last row of another at or before it.

    Parameters
    ----------
    frame, other
        polars, pandas or Arrow, in any order. A row without a time has no match,
        and is none.
    by
        Columns that must be equal; null equals nothing.
    tolerance
        A match may be this old, and not older.
    time
        The column of times in both.
    suffix
        What the other's columns get that have a name of the frame's.

    Returns
    -------
    The frame's rows by time, with the other's columns, null where nothing
    matches, and ``age``, how old the match is. Of the other's rows of one
    instant the last one counts.

    Raises
    ------
    UsageError
        If a column is missing, or the time column holds no times.

    Examples
    --------
    >>> from datetime import UTC, datetime
    >>> at = [datetime(2026, 1, 5, 9, 0, s, tzinfo=UTC) for s in (0, 5)]
    >>> trades = pl.DataFrame({"event_time": at, "price": [1.0, 2.0]})
    >>> quotes = pl.DataFrame({"event_time": at[:1], "bid": [0.9]})
    >>> join_as_of(trades, quotes, tolerance="2s")["bid"].to_list()
    [0.9, None]
    """
    keys = [by] if isinstance(by, str) else list(by)
    limit = duration_ns(tolerance, allow_zero=True)
    left, right = as_polars(frame), as_polars(other)
    for rows in (left, right):
        checked_columns(rows, (time, *keys))
    of_left = left.with_columns(_ns=time_column_ns(left, time))
    of_right = right.with_columns(_ns=time_column_ns(right, time), _at=pl.col(time))
    of_right = (
        of_right.drop(time).drop_nulls(["_ns", *keys]).sort("_ns", maintain_order=True)
    )
    timed = of_left.drop_nulls(["_ns"]).sort("_ns", maintain_order=True)
    joined = timed.join_asof(
        of_right.with_columns(_match=pl.col("_ns")),
        on="_ns",
        by=keys or None,
        strategy="backward",
        tolerance=limit,
        suffix=suffix,
        check_sortedness=False,
    )
    age = (pl.col("_ns") - pl.col("_match")).cast(pl.Duration("ns")).alias("age")
    found = joined.with_columns(age).drop("_ns", "_match", "_at")
    untimed = of_left.filter(pl.col("_ns").is_null()).drop("_ns")
    return pl.concat([found, untimed], how="diagonal_relaxed")


def resample(
    streams: Sequence[Series],
    every: str | timedelta,
    *,
    fill: Fill = "last",
    max_age: str | timedelta | None = None,
) -> Aligned:
    """Return series on a regular grid over the time that all of them cover.

    Parameters
    ----------
    streams
        As `series` makes them.
    every
        Distance of the instants, which are multiples of it since 1970.
    fill
        What an instant has if its interval ``(t - every, t]`` has no value of
        a series: ``"none"`` nothing (NaN), ``"last"`` the last one before,
        ``"zero"`` 0, ``"linear"`` the straight line between the values around
        it, which looks ahead. If it has one, the last counts (and for
        ``"linear"`` the line still).
    max_age
        ``"last"``, and the line's two ends, may be this far off; as far as it
        takes if None.

    Raises
    ------
    UsageError
        If there is no stream, an unknown fill, or no common time; or for more
        than four million instants.
    """
    if fill not in FILLS:
        near = near_miss(str(fill), FILLS)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise UsageError(
            f"There is no fill {fill!r}.", f"{hint}Take one of {', '.join(FILLS)}."
        )
    step = duration_ns(every)
    age = None if max_age is None else duration_ns(max_age)
    start, end = _common_span(streams)
    first, last = -(-start // step), end // step
    if last - first >= MAX_CELLS:
        raise UsageError(
            f"Every {format_duration(step)} is more than {MAX_CELLS:,} instants.",
            "Take longer steps, or a shorter span.",
        )
    at = np.arange(first, last + 1) * step
    values = np.column_stack([_at(s, at, step, fill, age) for s in streams])
    told = {
        "none": "nothing where no value is new",
        "last": "the last value where none is new",
        "zero": "0 where no value is new",
        "linear": "straight lines between values, which look ahead",
    }[fill]
    old = "" if age is None else f", at most {format_duration(age)} off"
    how = f"every {format_duration(step)}, {told}{old}"
    return Aligned(tuple(s.name for s in streams), at, values, how)


def refresh_times(streams: Sequence[Series]) -> Aligned:
    """Return series at the instants by which each of them has ticked again.

    The first instant is that of the latest first tick; the next one that by
    which all have ticked after it; and so on. At each the last value of every
    series counts, and every value is used once at most.

    Source: O. E. Barndorff-Nielsen, P. R. Hansen, A. Lunde, N. Shephard,
    "Multivariate realised kernels", Journal of Econometrics 162, 2011,
    definition 1.

    Raises
    ------
    UsageError
        If there is no stream, or one without observations.
    """
    _common_span(streams)
    at: list[int] = []
    place = [0] * len(streams)
    while all(k < len(s) for k, s in zip(place, streams, strict=True)):
        now = max(int(s.time_ns[k]) for k, s in zip(place, streams, strict=True))
        at.append(now)
        place = [int(np.searchsorted(s.time_ns, now, "right")) for s in streams]
    instants = np.array(at, np.int64)
    values = np.column_stack(
        [s.values[np.searchsorted(s.time_ns, instants, "right") - 1] for s in streams]
    )
    names = tuple(s.name for s in streams)
    return Aligned(names, instants, values, "whenever each series has ticked again")


def _common_span(streams: Sequence[Series]) -> tuple[int, int]:
    empty = next((s.name for s in streams if not len(s)), None)
    if not streams or empty is not None:
        raise UsageError(
            f"{empty} has no observations." if empty else "There is no series.",
            "Pass series that have values.",
        )
    start = max(int(s.time_ns[0]) for s in streams)
    return start, min(int(s.time_ns[-1]) for s in streams)


def _at(
    s: Series, at: NDArray[np.int64], step: int, fill: Fill, max_age: int | None
) -> NDArray[np.float64]:
    place = np.searchsorted(s.time_ns, at, "right") - 1
    age = at - s.time_ns[place]
    values = s.values[place].copy()
    if fill == "linear":
        after = np.minimum(place + (age > 0), len(s) - 1)
        values = np.interp(at, s.time_ns, s.values)
        age = np.maximum(age, s.time_ns[after] - at)
    elif fill == "zero":
        values[age >= step] = 0.0
    elif fill == "none":
        values[age >= step] = np.nan
    if max_age is not None and fill in ("last", "linear"):
        values[age > max_age] = np.nan
    return values
