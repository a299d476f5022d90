"""Tables of a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from cep.frames.csv import as_json
from cep.reporting.markup import Markup, element
from cep.style import visible

if TYPE_CHECKING:
    from polars.datatypes import DataType

MAX_ROWS: Final = 50
MAX_TEXT: Final = 240
_WORD: Final = 32
_ABSENT: Final = "–"


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
        as_json(value) if isinstance(value, (list, dict, pl.Series)) else visible(value)
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
