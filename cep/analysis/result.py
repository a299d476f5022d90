"""What every result of an analysis can do: print, draw, become a table or a file."""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from cep.frames.csv import write_csv

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import polars as pl


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
        """Return a plotly figure; `cep.reporting.write_html` makes a file of it."""

    def to_csv(self, path: str | Path) -> Path:
        """Write the table and return the path; see `cep.frames.csv.write_csv`."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        return write_csv(self.to_polars(), target)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"
