"""What every result of an analysis can do: print, draw, become a table or a file."""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Final

import polars as pl

if TYPE_CHECKING:
    import plotly.graph_objects as go

_FORMULA: Final = "^[=+\\-@\t\r]"


class Result(ABC):
    """Something found, with the numbers behind it.

    All results have these: ``print(result)``, `plot`, `to_polars`, `to_csv`.
    """

    __slots__ = ()

    @abstractmethod
    def __str__(self) -> str:
        """Return what may be said, and the numbers that matter."""

    @abstractmethod
    def to_polars(self) -> pl.DataFrame:
        """Return the table behind the figure; lags and latencies are durations."""

    @abstractmethod
    def plot(self) -> go.Figure:
        """Return a plotly figure; `cep.report.write_html` makes a file of it."""

    def to_csv(self, path: str | Path) -> Path:
        """Write the table; durations in seconds, times in UTC, spreadsheet-safe.

        Texts that a spreadsheet would run as a formula get a quote in front.
        """
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        spreadsheet_safe(self.to_polars()).write_csv(target)
        return target

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def spreadsheet_safe(table: pl.DataFrame) -> pl.DataFrame:
    """Return a table of plain cells none of which a spreadsheet runs.

    >>> spreadsheet_safe(pl.DataFrame({"type": ["=1+1", "trade"]}))["type"].to_list()
    ["'=1+1", 'trade']
    """
    cells = []
    for name, kind in table.schema.items():
        cell = pl.col(name)
        if kind in (pl.String, pl.Categorical, pl.Enum):
            text = cell.cast(pl.String)
            runs = text.str.contains(_FORMULA)
            cell = pl.when(runs).then(pl.lit("'") + text).otherwise(text)
        elif isinstance(kind, pl.Duration):
            cell = (cell.dt.total_nanoseconds() / 1e9).round(9)
        cells.append(cell.alias(name))
    return table.select(cells)
