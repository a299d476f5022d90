"""Columns of a frame, checked: which there are, and what time it is in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from cep.errors import UsageError, near_miss

if TYPE_CHECKING:
    from collections.abc import Iterable

_NS_IN: Final = {"ms": 1_000_000, "us": 1_000, "ns": 1}


def checked_columns(rows: pl.DataFrame, names: Iterable[str]) -> None:
    """Raise a UsageError that offers the near miss if a column is not there."""
    for name in names:
        if name not in rows.columns:
            near = near_miss(name, rows.columns)
            hint = f"Did you mean {near[0]!r}?" if near else ""
            raise UsageError(
                f"The frame has no column {name!r}.",
                f"{hint} Its columns are: {', '.join(rows.columns)}.".strip(),
            )


def time_column_ns(rows: pl.DataFrame, name: str) -> pl.Series:
    """Return a column of datetimes (naive means UTC) as nanoseconds since 1970.

    Raises
    ------
    UsageError
        If the column holds no datetimes.
    """
    kind = rows.schema[name]
    if not isinstance(kind, pl.Datetime):
        raise UsageError(
            f"The column {name!r} is {kind}, not a datetime.",
            "Convert it first, or name the column of event times with time=...",
        )
    # Microseconds would lose the nanoseconds of some clocks.
    unit = kind.time_unit or "us"
    return rows[name].dt.timestamp(unit) * _NS_IN[unit]
