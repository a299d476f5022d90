"""Frames as CSV files of which no spreadsheet runs a cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import polars as pl

if TYPE_CHECKING:
    from pathlib import Path

# What a spreadsheet takes for the beginning of a formula; the wide forms are
# taken so in some languages.
_FORMULA: Final = "^[=+\\-@\t\r\n＝＋－＠]"


def write_csv(frame: pl.DataFrame, path: Path) -> Path:
    """Write a frame and return the path.

    Times are ISO 8601 in UTC, durations seconds, lists JSON. A text, or a column's
    name, that a spreadsheet would take for a formula gets a quote before it.
    """
    cells = []
    for name, dtype in frame.schema.items():
        cell = pl.col(name)
        if isinstance(dtype, pl.Duration):
            cell = (cell.dt.total_nanoseconds() / 1e9).round(9)
        elif isinstance(dtype, pl.Datetime):
            cell = cell.dt.strftime("%Y-%m-%dT%H:%M:%S%.3fZ")
        elif isinstance(dtype, (pl.List, pl.Struct)):
            cell = cell.map_elements(as_json, return_dtype=pl.String)
        elif not dtype.is_numeric() and dtype != pl.Boolean:
            cell = cell.cast(pl.String)
            runs = cell.str.contains(_FORMULA)
            cell = pl.when(runs).then(pl.lit("'") + cell).otherwise(cell)
        cells.append(cell.alias(name))
    names = [_quoted(name) for name in frame.columns]
    frame.select(cells).rename(dict(zip(frame.columns, names, strict=True))).write_csv(
        path
    )
    return path


def _quoted(name: str) -> str:
    runs = bool(pl.Series([name]).str.contains(_FORMULA)[0])
    return f"'{name}" if runs else name


def as_json(value: Any) -> str:
    """Return a list or an object as JSON text."""
    plain = value.to_list() if isinstance(value, pl.Series) else value
    return msgspec.json.encode(plain, enc_hook=str).decode()
