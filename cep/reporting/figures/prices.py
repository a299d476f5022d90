"""Prices, or any other value, with alerts marked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from cep.errors import UsageError
from cep.reporting.figures.alerts import draw_alerts
from cep.reporting.figures.base import checked, finish, span_of, times_of
from cep.reporting.figures.lines import draw_lines, lines_of, panels_of
from cep.reporting.figures.rates import draw_rates
from cep.reporting.html import write_html
from cep.style import LONGEST_NAME, name_panel, plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import plotly.graph_objects as go

    from cep.reporting.figures.base import Frame

PIXELS: Final = 1200
MAX_NAMES: Final = 3  # above a panel


def chart(
    events: Mapping[str, Frame],
    alerts: Frame,
    path: str | Path,
    *,
    title: str = "Prices with alerts, and AI load",
    note: str | None = None,
    provenance: Iterable[Any] = (),
) -> Path:
    """Write prices with alerts, and the AI load below, as one HTML file.

    Parameters
    ----------
    events
        Stream to frame: ``market.events`` with ``event_time``, ``symbol``,
        ``venue`` and ``price``, and ``ai.events`` with ``event_time``; either
        may be missing.
    alerts
        ``event_time``, ``rule``, ``key``, ``severity``, ``title``.
    path
        The file.
    title, note, provenance
        As for `price_with_alerts` and `write_html`.
    """
    figure = price_with_alerts(
        events.get("market.events", _NO_PRICES),
        alerts,
        load=events.get("ai.events"),
        title=title,
        note=note,
    )
    return write_html(figure, path, provenance=provenance)


_NO_PRICES: Final = pl.DataFrame(
    [
        pl.Series("event_time", [], pl.Datetime("ms", "UTC")),
        pl.Series("symbol", [], pl.String),
        pl.Series("price", [], pl.Float64),
    ]
)


def price_with_alerts(
    prices: Frame,
    alerts: Frame | None = None,
    *,
    value: str = "price",
    by: Sequence[str] = ("symbol", "venue"),
    load: Frame | None = None,
    load_name: str = "AI requests",
    title: str = "Prices with alerts",
    unit: str = "quote currency",
    note: str | None = None,
    pixels: int = PIXELS,
) -> go.Figure:
    """Return lines of prices, or another value, with alerts, and a load panel below.

    There is a line for each symbol and venue, up to the eight with the most
    values, and a panel for each group of lines of about the same level. An
    alert whose key names a symbol (and a venue) is marked on that line, at the
    last value not after it; one that names neither is marked on the load panel
    and by a thin line through all panels. Each rule has a shape of its own.

    Parameters
    ----------
    prices
        ``event_time``, ``symbol``, ``price``, and ``venue`` if there is one.
        Rows without a price are passed over, so a whole stream may be given.
    alerts
        ``event_time``, ``rule``, and ``key``, ``severity``, ``title`` if there
        are any; the frame that `cep.run_rules` gives as ``alerts``. If it has
        ``lineage`` and the other frames ``event_id``, the events that an alert
        comes of are shown on hover.
    value, by
        The column that is drawn, and the one or two columns whose values make
        the lines; the second may be missing.
    load
        Rows to count per second by their ``event_time``; None for no panel.
    load_name
        What these rows are.
    title, unit
        The figure's title; the unit of prices.
    note
        A sentence that must not be missed, shown under the title.
    pixels
        Longer lines are drawn as the lowest and highest value of each of so
        many stretches of time; the subtitle says so.

    Raises
    ------
    UsageError
        If a frame lacks a column, or ``by`` has none or more than two.
    """
    from plotly.subplots import make_subplots

    if not 1 <= len(by) <= 2:
        raise UsageError(f"by has {len(by)} columns.", "Pass one or two.")
    things = "prices" if value == "price" else "values"
    table = checked(prices, ("event_time", by[0], value), things)
    marks = checked(alerts, ("event_time", "rule"), "alerts")
    counted = None if load is None else checked(load, ("event_time",), "load")
    lines, left_out = lines_of(table, value, by)
    span = span_of(*(line.times for line in lines), times_of(counted), times_of(marks))
    panels = panels_of(lines)
    rows = max(1, len(panels)) + (counted is not None)
    heights = [1.0] * max(1, len(panels)) + [0.6] * (counted is not None)
    figure = make_subplots(
        rows=rows, shared_xaxes=True, vertical_spacing=0.16 / rows, row_heights=heights
    )
    said = draw_lines(figure, panels, span, pixels, things)
    for row, panel in enumerate(panels, 1):
        names = list(dict.fromkeys(plain(one.symbol, LONGEST_NAME) for one in panel))
        if more := len(names[MAX_NAMES:]):
            names[MAX_NAMES:] = [f"{more} more"]
        name_panel(
            figure,
            row,
            f"{', '.join(names)}: {plain(value, LONGEST_NAME)}, {plain(unit)}",
        )
    if counted is not None:
        width = draw_rates(figure, rows, counted, load_name, span)
        name_panel(figure, rows, f"{plain(load_name)} per second")
        said.append(f"{plain(load_name)} counted in stretches of {width / 1000:g} s")
    if alerts is not None:
        said += draw_alerts(
            figure,
            marks,
            panels,
            rows,
            counted,
            span,
            [table.with_columns(value=pl.col(value)), counted],
        )
    if left_out:
        said.append(f"{left_out} lines with fewer {things} are not drawn")
    finish(figure, title, said, note, rows, span)
    return figure
