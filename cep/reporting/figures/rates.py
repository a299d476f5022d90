"""Events per second, by event time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from cep.errors import UsageError
from cep.reporting.figures.base import (
    checked,
    finish,
    moments,
    span_of,
    times_of,
)
from cep.style import LINES, name_panel, plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    import plotly.graph_objects as go
    import polars as pl
    from numpy.typing import NDArray

    from cep.reporting.figures.base import Frame, Span

_BINS_MS: Final = (
    1000,
    2000,
    5000,
    10_000,
    30_000,
    60_000,
    300_000,
    900_000,
    3_600_000,
)
_MAX_BINS: Final = 600


def event_rates(
    frames: Mapping[str, Frame],
    *,
    title: str = "Events per second",
    note: str | None = None,
) -> go.Figure:
    """Return events per second of each stream, by event time, a panel each.

    Parameters
    ----------
    frames
        Stream to frame with ``event_time``.
    title, note
        As for `price_with_alerts`.
    """
    from plotly.subplots import make_subplots

    tables = {
        name: checked(frame, ("event_time",), name) for name, frame in frames.items()
    }
    if not tables:
        raise UsageError("There is no frame to draw.", "Pass {stream: frame}.")
    span = span_of(*map(times_of, tables.values()))
    figure = make_subplots(
        rows=len(tables), shared_xaxes=True, vertical_spacing=0.2 / len(tables)
    )
    said = []
    for row, (name, table) in enumerate(tables.items(), 1):
        width = draw_rates(figure, row, table, name, span)
        name_panel(figure, row, f"{plain(name)}: events per second")
        said.append(f"{plain(name)} {len(table):,} events")
    said.append(f"counted in stretches of {width / 1000:g} s")
    finish(figure, title, said, note, len(tables), span)
    return figure


def _bin_ms(span: Span) -> int:
    fitting = (one for one in _BINS_MS if span.seconds * 1000 / one <= _MAX_BINS)
    return next(fitting, -(-int(span.seconds * 1000) // _MAX_BINS))


def rates_of(
    table: pl.DataFrame, span: Span
) -> tuple[NDArray[np.int64], NDArray[np.float64], int]:
    """Return the starts of the bins, events per second in each, and the width."""
    width = _bin_ms(span)
    first = span.start // width
    count = span.end // width - first + 1
    places = table["event_time"].to_numpy() // width - first
    rates = np.bincount(places, minlength=count) / (width / 1000)
    return (first + np.arange(len(rates))) * width, rates, width


def draw_rates(
    figure: go.Figure, row: int, table: pl.DataFrame, name: str, span: Span
) -> int:
    """Draw events per second; return the width of the bins in milliseconds."""
    import plotly.graph_objects as go

    starts, rates, width = rates_of(table, span)
    trace = go.Scatter(
        x=moments(starts),
        y=rates,
        name=plain(name),
        mode="lines",
        line={"color": LINES[0], "width": 1.2, "shape": "hv"},
        fill="tozeroy",
        fillcolor="rgba(0, 114, 178, 0.18)",
        showlegend=False,
        hovertemplate=f"%{{y:,.4~g}} per second<br>%{{x|%H:%M:%S}} UTC, "
        f"{width / 1000:g} s<extra></extra>",
    )
    figure.add_trace(trace, row=row, col=1)
    figure.update_yaxes(rangemode="tozero", row=row, col=1)
    return width
