"""Prices with alerts, events per second.

Every figure says what it shows and in which unit, has its times in UTC, and
states in its subtitle whatever was left out or summarised to draw it. Foreign
text (symbols, keys, titles) is shown as it is and never read as markup.

A figure is a `plotly.graph_objects.Figure`: notebooks show it, `write_html`
makes a file of it.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import polars as pl

from cep.errors import UsageError, near_miss
from cep.frames.from_frame import as_polars
from cep.report.downsample import lowest_and_highest
from cep.report.html import write_html
from cep.style import (
    INK,
    LINES,
    LONGEST_NAME,
    line_style,
    marker_style,
    plain,
    template,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    import plotly.graph_objects as go
    import pyarrow as pa
    from numpy.typing import NDArray

    Frame: TypeAlias = pl.DataFrame | pl.LazyFrame | pd.DataFrame | pa.Table

PIXELS: Final = 1200
MAX_LINES: Final = 8
MAX_MARKERS: Final = 2000
MAX_VERTICALS: Final = 60
# Prices this close to each other share a panel, as one asset's on several
# venues do; others would flatten each other.
SAME_SCALE: Final = 1.25
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
_LINE_HEIGHT: Final = 18
_HOVER: Final = (
    "<b>%{customdata[0]}</b> (%{customdata[1]})<br>%{customdata[2]}<br>"
    "%{customdata[3]}<br>%{x|%Y-%m-%d %H:%M:%S.%L} UTC<extra></extra>"
)


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
    load: Frame | None = None,
    load_name: str = "AI requests",
    title: str = "Prices with alerts",
    unit: str = "quote currency",
    note: str | None = None,
    pixels: int = PIXELS,
) -> go.Figure:
    """Return price lines with alerts marked, and a load panel below.

    There is a line for each symbol and venue, up to the eight with the most
    prices, and a panel for each group of lines of about the same price. An
    alert whose key names a symbol (and a venue) is marked on that line, at the
    last price not after it; one that names neither is marked on the load panel
    and by a thin line through all panels. Each rule has a shape of its own.

    Parameters
    ----------
    prices
        ``event_time``, ``symbol``, ``price``, and ``venue`` if there is one.
        Rows without a price are passed over, so a whole stream may be given.
    alerts
        ``event_time``, ``rule``, and ``key``, ``severity``, ``title`` if there
        are any; the frame that `cep.run_rules` gives as ``alerts``.
    load
        Rows to count per second by their ``event_time``; None for no panel.
    load_name
        What these rows are.
    title, unit
        The figure's title; the unit of prices.
    note
        A sentence that must not be missed, shown under the title.
    pixels
        Longer lines are drawn as the lowest and highest price of each of so
        many stretches of time; the subtitle says so.

    Raises
    ------
    UsageError
        If a frame lacks a column.
    """
    from plotly.subplots import make_subplots

    table = _checked(prices, ("event_time", "symbol", "price"), "prices")
    marks = _checked(alerts, ("event_time", "rule"), "alerts")
    counted = None if load is None else _checked(load, ("event_time",), "load")
    lines, left_out = _lines(table)
    span = _span(lines, counted, marks)
    panels = _panels(lines)
    rows = max(1, len(panels)) + (counted is not None)
    heights = [1.0] * max(1, len(panels)) + [0.6] * (counted is not None)
    figure = make_subplots(
        rows=rows, shared_xaxes=True, vertical_spacing=0.16 / rows, row_heights=heights
    )
    said = _draw_lines(figure, panels, span, pixels)
    for row, panel in enumerate(panels, 1):
        names = dict.fromkeys(plain(line.symbol, LONGEST_NAME) for line in panel)
        _name_panel(figure, row, f"{', '.join(names)}: price, {plain(unit)}")
    if counted is not None:
        width = _draw_load(figure, rows, counted, load_name, span)
        each = f"counted in stretches of {width / 1000:g} s"
        _name_panel(figure, rows, f"{plain(load_name)} per second, {each}")
    if alerts is not None:
        said += _draw_alerts(figure, marks, panels, rows, counted, span)
    if left_out:
        said.append(f"{left_out} markets with fewer prices are not drawn")
    _finish(figure, title, said, note, rows, span)
    return figure


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
        name: _checked(frame, ("event_time",), name) for name, frame in frames.items()
    }
    if not tables:
        raise UsageError("There is no frame to draw.", "Pass {stream: frame}.")
    span = _span([], *tables.values())
    figure = make_subplots(
        rows=len(tables), shared_xaxes=True, vertical_spacing=0.2 / len(tables)
    )
    said = []
    for row, (name, table) in enumerate(tables.items(), 1):
        width = _draw_load(figure, row, table, name, span)
        _name_panel(figure, row, f"{plain(name)}: events per second")
        said.append(f"{plain(name)} {len(table):,} events")
    said.append(f"counted in stretches of {width / 1000:g} s")
    _finish(figure, title, said, note, len(tables), span)
    return figure


@dataclass(slots=True)
class _Line:
    """The prices of one symbol on one venue, by time."""

    symbol: str
    venue: str
    times: NDArray[np.int64]
    prices: NDArray[np.float64]

    @property
    def name(self) -> str:
        return f"{self.symbol} {self.venue}".strip()

    def price_at(self, time_ms: int) -> float:
        """Return the last price not after a time, or the first of all."""
        place = int(np.searchsorted(self.times, time_ms, side="right")) - 1
        return float(self.prices[max(0, place)])


@dataclass(slots=True)
class _Span:
    """From the first time to the last, in milliseconds since 1970."""

    start: int
    end: int

    @property
    def seconds(self) -> float:
        return (self.end - self.start) / 1000


def _checked(frame: Frame | None, columns: Sequence[str], what: str) -> pl.DataFrame:
    """Return a frame with its times as integers of milliseconds."""
    if frame is None:
        frame = pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
        frame = frame.with_columns(event_time=pl.lit(None, pl.Datetime("ms", "UTC")))
    table = as_polars(frame)
    for name in columns:
        if name not in table.columns:
            near = near_miss(name, table.columns)
            meant = f"Did you mean {near[0]!r}? " if near else ""
            raise UsageError(
                f"The frame of {what} has no column {name!r}.",
                f"{meant}Its columns are {', '.join(table.columns)}.",
            )
    if not isinstance(table["event_time"].dtype, pl.Datetime):
        raise UsageError(
            f"event_time of {what} is of type {table['event_time'].dtype}.",
            "Make it a Datetime.",
        )
    return table.with_columns(pl.col("event_time").dt.epoch("ms")).drop_nulls(
        "event_time"
    )


def _lines(table: pl.DataFrame) -> tuple[list[_Line], int]:
    """Return the lines with the most prices, and how many others there are."""
    if "venue" not in table.columns:
        table = table.with_columns(venue=pl.lit(""))
    named = table.select(
        "event_time",
        pl.col("symbol", "venue").cast(pl.String).fill_null(""),
        pl.col("price").cast(pl.Float64),
    )
    known = named.filter(pl.col("price").is_finite()).sort(
        "event_time", maintain_order=True
    )
    found = [
        _Line(
            str(symbol),
            str(venue),
            part["event_time"].to_numpy(),
            part["price"].to_numpy(),
        )
        for (symbol, venue), part in known.group_by(
            "symbol", "venue", maintain_order=True
        )
    ]
    found.sort(key=lambda line: (-len(line.times), line.name))
    return found[:MAX_LINES], len(found[MAX_LINES:])


def _panels(lines: Sequence[_Line]) -> list[list[_Line]]:
    """Return the lines in groups of about the same price, the dearest first."""
    panels: list[list[_Line]] = []
    lowest = 0.0
    by_price = sorted(lines, key=lambda line: -abs(float(np.median(line.prices))))
    for line in by_price:
        price = abs(float(np.median(line.prices)))
        if not panels or price * SAME_SCALE < lowest:
            panels.append([])
            lowest = price
        panels[-1].append(line)
    return [sorted(panel, key=lambda line: line.name) for panel in panels]


def _span(lines: Sequence[_Line], *tables: pl.DataFrame | None) -> _Span:
    ends = [int(end) for line in lines for end in line.times[[0, -1]]]
    for table in tables:
        if table is not None and len(table):
            times = table["event_time"].to_numpy()
            ends += [int(times.min()), int(times.max())]
    return _Span(min(ends, default=0), max(ends, default=0))


def _moments(times: NDArray[np.int64]) -> NDArray[np.datetime64]:
    # Without a zone: plotly shows it as it stands, which is UTC.
    return times.astype("datetime64[ms]")


def _draw_lines(
    figure: go.Figure, panels: Sequence[Sequence[_Line]], span: _Span, pixels: int
) -> list[str]:
    """Draw the lines; return what the subtitle must say."""
    import plotly.graph_objects as go

    width = max(1.0, (span.end - span.start + 1) / pixels)
    total, thinned = 0, False
    venues = sorted({line.venue for panel in panels for line in panel})
    for row, panel in enumerate(panels, 1):
        styles = _styles(panel, venues)
        for line, style in zip(panel, styles, strict=True):
            times, values = line.times, line.prices
            total += len(times)
            if len(times) > 2 * pixels:
                kept = lowest_and_highest(times, values, span.start, width)
                times, values, thinned = times[kept], values[kept], True
            trace = go.Scatter(
                x=_moments(times),
                y=values,
                name=plain(line.name, LONGEST_NAME),
                mode="lines",
                line={**line_style(style), "shape": "hv"},
                legendgroup=f"price {len(figure.data)}",
                legendgrouptitle_text=None if figure.data else "Prices",
                hovertemplate="%{y:,.8~g}<br>%{x|%H:%M:%S.%L} UTC",
            )
            figure.add_trace(trace, row=row, col=1)
    said = [f"{total:,} prices"] if total else ["no prices"]
    if thinned:
        said.append(
            "long lines are drawn as the lowest and highest price of each "
            f"{width / 1000:.3g} s"
        )
    return said


def _styles(panel: Sequence[_Line], venues: Sequence[str]) -> list[int]:
    """Return a style for each line: its venue's, where a panel has it but once."""
    own = [venues.index(line.venue) for line in panel]
    return own if len(set(own)) == len(own) else list(range(len(panel)))


def _bin_ms(span: _Span) -> int:
    fitting = (one for one in _BINS_MS if span.seconds * 1000 / one <= _MAX_BINS)
    return next(fitting, -(-int(span.seconds * 1000) // _MAX_BINS))


def _rates(
    table: pl.DataFrame, span: _Span
) -> tuple[NDArray[np.int64], NDArray[np.float64], int]:
    """Return the starts of the bins, events per second in each, and the width."""
    width = _bin_ms(span)
    first = span.start // width
    count = span.end // width - first + 1
    places = table["event_time"].to_numpy() // width - first
    rates = np.bincount(places, minlength=count) / (width / 1000)
    return (first + np.arange(len(rates))) * width, rates, width


def _draw_load(
    figure: go.Figure, row: int, table: pl.DataFrame, name: str, span: _Span
) -> int:
    """Draw events per second; return the width of the bins in milliseconds."""
    import plotly.graph_objects as go

    starts, rates, width = _rates(table, span)
    trace = go.Scatter(
        x=_moments(starts),
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


def _name_panel(figure: go.Figure, row: int, text: str) -> None:
    """Write what a panel shows, and in which unit, above its left corner."""
    figure.add_annotation(
        text=text,
        x=0,
        y=1,
        xref="x domain",
        yref="y domain",
        xanchor="left",
        yanchor="bottom",
        yshift=3,
        showarrow=False,
        font={"size": 13},
        row=row,
        col=1,
    )


def _draw_alerts(
    figure: go.Figure,
    marks: pl.DataFrame,
    panels: Sequence[Sequence[_Line]],
    rows: int,
    counted: pl.DataFrame | None,
    span: _Span,
) -> list[str]:
    """Mark the alerts; return what the subtitle must say."""
    import plotly.graph_objects as go

    place = _Placing(panels, rows, counted, span)
    shown = 0
    verticals: list[int] = []
    for number, (rule, part) in enumerate(_by_rule(marks)):
        step = -(-len(part) // MAX_MARKERS)
        drawn = part.gather_every(step)
        shown += len(drawn)
        placed: dict[int, list[tuple[int, float, list[str]]]] = {}
        for alert in drawn.iter_rows(named=True):
            time_ms, key = alert["event_time"], alert["key"]
            row, y, everywhere = place(time_ms, key)
            told = [rule, alert["severity"], key or "all keys", alert["title"]]
            placed.setdefault(row, []).append((time_ms, y, [plain(x) for x in told]))
            if everywhere:
                verticals.append(time_ms)
        for at, (row, points) in enumerate(sorted(placed.items())):
            trace = go.Scatter(
                x=_moments(np.array([time_ms for time_ms, _, _ in points])),
                y=[y for _, y, _ in points],
                customdata=[told for _, _, told in points],
                name=f"{plain(rule, LONGEST_NAME)} ({len(part):,})",
                mode="markers",
                marker=marker_style(number),
                legendgroup=f"alert {number}",
                legendgrouptitle_text=None if number else "Alerts (how many)",
                showlegend=at == 0,
                hovertemplate=_HOVER,
                cliponaxis=False,
            )
            figure.add_trace(trace, row=row, col=1)
    _draw_verticals(figure, verticals)
    said = [f"{len(marks):,} alert{'s' * (len(marks) != 1)}"]
    if shown < len(marks):
        said.append(f"{shown:,} of them are drawn, evenly chosen")
    return said


def _by_rule(marks: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    """Return the alerts of each rule, by the rule's name."""
    absent = [
        pl.lit("").alias(name)
        for name in ("key", "severity", "title")
        if name not in marks.columns
    ]
    texts = ("rule", "key", "severity", "title")
    table = marks.with_columns(absent).select(
        "event_time", pl.col(texts).cast(pl.String).fill_null("")
    )
    return [
        (str(rule), part.sort("event_time"))
        for (rule,), part in table.sort("rule").group_by("rule", maintain_order=True)
    ]


class _Placing:
    """Where an alert belongs: its panel, its height, whether it is of no key."""

    def __init__(
        self,
        panels: Sequence[Sequence[_Line]],
        rows: int,
        counted: pl.DataFrame | None,
        span: _Span,
    ) -> None:
        self._lines = sorted(
            ((row, line) for row, panel in enumerate(panels, 1) for line in panel),
            key=lambda one: -len(one[1].times),
        )
        self._rows = rows
        self._rates = None if counted is None else _rates(counted, span)

    def __call__(self, time_ms: int, key: str) -> tuple[int, float, bool]:
        parts = key.split("/")
        named = [one for one in self._lines if one[1].symbol in parts]
        venue = [one for one in named if one[1].venue in parts]
        for row, line in venue or named:
            return row, line.price_at(time_ms), False
        if self._rates is not None:
            starts, rates, _ = self._rates
            place = int(np.searchsorted(starts, time_ms, side="right")) - 1
            return self._rows, float(rates[max(0, place)]), True
        for row, line in self._lines:
            return row, line.price_at(time_ms), True
        return 1, 0.0, True


def _draw_verticals(figure: go.Figure, times: Sequence[int]) -> None:
    for time_ms in times[:MAX_VERTICALS]:
        moment = str(np.datetime64(time_ms, "ms"))
        figure.add_shape(
            type="line",
            x0=moment,
            x1=moment,
            y0=0,
            y1=1,
            xref="x",
            yref="paper",
            layer="below",
            line={"color": INK, "width": 0.8, "dash": "dot"},
        )


def _finish(
    figure: go.Figure,
    title: str,
    said: Sequence[str],
    note: str | None,
    rows: int,
    span: _Span,
) -> None:
    sentences = textwrap.wrap("; ".join(said) + ".", 150)
    if note:
        sentences += [f"<b>{line}</b>" for line in textwrap.wrap(plain(note), 150)]
    figure.update_layout(
        template=template(),
        title={"text": plain(title), "subtitle": {"text": "<br>".join(sentences)}},
        height=150 + _LINE_HEIGHT * len(sentences) + max(300, 230 * rows),
        margin_t=82 + _LINE_HEIGHT * len(sentences),
    )
    figure.update_xaxes(type="date")
    figure.update_yaxes(tickformat=",")
    figure.update_xaxes(title_text="Event time (UTC)", row=rows, col=1)
    if span.end > span.start:
        margin = max(1, (span.end - span.start) // 100)
        ends = np.array([span.start - margin, span.end + margin])
        figure.update_xaxes(range=[str(end) for end in _moments(ends)])
