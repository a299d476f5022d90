"""Tables of a page, and the same as CSV files that no spreadsheet runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import polars as pl

from cep.reporting.markup import Markup, element
from cep.style import visible

if TYPE_CHECKING:
    from pathlib import Path

    from polars.datatypes import DataType

MAX_ROWS: Final = 50
MAX_TEXT: Final = 240
_WORD: Final = 32
_ABSENT: Final = "–"
# What a spreadsheet takes for the beginning of a formula; the wide forms are
# taken so in some languages.
_FORMULA: Final = "^[=+\\-@\t\r\n＝＋－＠]"


def table_of(frame: pl.DataFrame, *, rest: str = "") -> Markup:
    """Return the first 50 rows as a table that scrolls sideways where it must.

    Parameters
    ----------
    frame
        Column names are shown with spaces for underscores; times in UTC, which
        the header says. Texts are cut at 240 characters.
    rest
        Where further rows are, such as a file's name.
    """
    shown = frame.head(MAX_ROWS)
    kinds = [_kind(column) for column in shown]
    head = [
        element("th", _heading(name, dtype), class_=kind, scope="col")
        for (name, dtype), kind in zip(frame.schema.items(), kinds, strict=True)
    ]
    rows = [
        element(
            "tr",
            *(
                element("td", _cell(value), class_=kind)
                for value, kind in zip(row, kinds, strict=True)
            ),
        )
        for row in shown.iter_rows()
    ]
    table = element(
        "table", element("thead", element("tr", *head)), element("tbody", *rows)
    )
    more = len(frame) - len(shown)
    where = f" in {rest}" if rest else ""
    aside = element("p", f"{more:,} more rows{where}.", class_="aside")
    return element("div", table, aside if more else None, class_="scroll")


def write_csv(frame: pl.DataFrame, path: Path) -> Path:
    """Write a frame and return the path.

    Times are ISO 8601 in UTC, durations seconds, lists JSON. A text, or a column's
    name, that a spreadsheet would take for a formula gets a quote before it.
    """
    cells = []
    for name, dtype in frame.schema.items():
        cell = pl.col(name)
        if isinstance(dtype, pl.Duration):
            cell = cell.dt.total_nanoseconds() / 1e9
        elif isinstance(dtype, pl.Datetime):
            cell = cell.dt.strftime("%Y-%m-%dT%H:%M:%S%.3fZ")
        elif isinstance(dtype, (pl.List, pl.Struct)):
            cell = cell.map_elements(_json, return_dtype=pl.String)
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


def _json(value: Any) -> str:
    plain = value.to_list() if isinstance(value, pl.Series) else value
    return msgspec.json.encode(plain, enc_hook=str).decode()


def _kind(column: pl.Series) -> str:
    """Return the class of a column's cells; short texts are not broken."""
    if column.dtype.is_numeric() or isinstance(column.dtype, pl.Duration):
        return "number"
    if isinstance(column.dtype, pl.Datetime):
        return "word"
    longest = max((len(_cell(value)) for value in column), default=0)
    return "word" if longest <= _WORD else "text"


def _heading(name: str, dtype: DataType) -> str:
    zone = " (UTC)" if isinstance(dtype, pl.Datetime) else ""
    return f"{name.replace('_', ' ')}{zone}"


def _cell(value: Any) -> str:
    if value is None:
        return _ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.2f}" if abs(value) >= 1000 else f"{value:.4g}"
    if hasattr(value, "total_seconds"):
        return _seconds(value.total_seconds())
    if hasattr(value, "strftime"):
        return f"{value:%Y-%m-%d %H:%M:%S}.{value.microsecond // 1000:03d}"
    text = (
        _json(value) if isinstance(value, (list, dict, pl.Series)) else visible(value)
    )
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def _seconds(seconds: float) -> str:
    """Return a duration with its sign in the unit that reads best.

    >>> _seconds(-0.02), _seconds(1.812), _seconds(5400)
    ('-20 ms', '1.812 s', '90 min')
    """
    for least, length, unit in ((3600.0, 60.0, "min"), (1.0, 1.0, "s")):
        if abs(seconds) >= least:
            return f"{seconds / length:,.4g} {unit}"
    return f"{seconds * 1000:.4g} ms"
