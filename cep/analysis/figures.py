"""The figures of results: curves with bands, bars, lines over time, heatmaps."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cep.clock import UNITS_NS
from cep.style import ALERTS, INK, LINES, LONGEST_NAME, line_style, plain, template

if TYPE_CHECKING:
    from collections.abc import Sequence

    import plotly.graph_objects as go
    from numpy.typing import NDArray

_BAND: Final = "rgba(0, 114, 178, 0.18)"
_NULL_BAND: Final = "rgba(107, 107, 107, 0.22)"
_LARGEST_UNITS: Final = ("h", "m", "s", "ms", "us", "ns")
_HEIGHT: Final = 450


def time_unit(ns: NDArray[np.int64]) -> tuple[str, int]:
    """Return the unit in which the longest of these durations reads well.

    >>> time_unit(np.array([-2_000_000_000, 2_000_000_000]))
    ('s', 1000000000)
    """
    longest = int(np.abs(ns).max(initial=1))
    unit = next((u for u in _LARGEST_UNITS if longest >= UNITS_NS[u]), "ns")
    return unit, UNITS_NS[unit]


def plain_name(text: object) -> str:
    """Return a foreign name as axes and legends show it."""
    return plain(text, LONGEST_NAME)


def new_figure(title: str, said: str, x_title: str, y_title: str) -> go.Figure:
    """Return an empty figure with a title, a sentence below it, and axes' names."""
    import plotly.graph_objects as go

    lines = _wrapped(plain(said, 600), 130)
    figure = go.Figure()
    figure.update_layout(
        template=template(),
        title={"text": plain(title), "subtitle": {"text": "<br>".join(lines)}},
        height=_HEIGHT,
        margin_t=82 + 18 * len(lines),
        xaxis_title=x_title,
        yaxis_title="<br>".join(_wrapped(y_title, 40)),
    )
    return figure


def _wrapped(text: str, width: int) -> list[str]:
    # A word is never broken: it may hold an escaped character.
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def lag_curve(
    lags_ns: NDArray[np.int64],
    values: NDArray[np.float64],
    *,
    title: str,
    said: str,
    x_title: str,
    y_title: str,
    name: str,
    band: tuple[NDArray[np.float64], NDArray[np.float64], str] | None = None,
    null: tuple[NDArray[np.float64], NDArray[np.float64], str] | None = None,
    mark_ns: float | None = None,
) -> go.Figure:
    """Return a curve over lags with its band and that of unrelated streams.

    ``band`` and ``null`` are lower ends, upper ends and a name; ``mark_ns`` is a
    lag to point out.
    """
    unit, length = time_unit(lags_ns)
    at = lags_ns / length
    figure = new_figure(title, said, f"{x_title} ({unit})", y_title)
    for given, colour in ((null, _NULL_BAND), (band, _BAND)):
        if given is not None:
            _add_band(figure, at, given, colour)
    figure.add_scatter(
        x=at,
        y=values,
        name=plain_name(name),
        mode="lines",
        line={"color": LINES[0], "width": 2},
        hovertemplate=f"%{{y:.4g}} at %{{x:.4g}} {unit}<extra></extra>",
    )
    figure.add_vline(x=0, line={"color": INK, "width": 1, "dash": "dot"})
    if mark_ns is not None:
        best = int(np.argmin(np.abs(lags_ns - mark_ns)))
        figure.add_scatter(
            x=[at[best]],
            y=[values[best]],
            name="largest",
            mode="markers",
            marker={
                "color": ALERTS[0],
                "size": 11,
                "symbol": "diamond",
                "line": {"color": INK, "width": 1},
            },
        )
    return figure


def _add_band(
    figure: go.Figure,
    at: NDArray[np.float64],
    band: tuple[NDArray[np.float64], NDArray[np.float64], str],
    colour: str,
) -> None:
    low, high, name = band
    figure.add_scatter(
        x=np.concatenate([at, at[::-1]]),
        y=np.concatenate([high, low[::-1]]),
        name=plain_name(name),
        fill="toself",
        fillcolor=colour,
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
    )


def time_lines(
    time_ns: NDArray[np.int64],
    columns: dict[str, NDArray[np.float64]],
    *,
    title: str,
    said: str,
    y_title: str,
    verticals_ns: Sequence[int] = (),
) -> go.Figure:
    """Return lines over event time in UTC, and vertical lines at some instants."""
    figure = new_figure(title, said, "Event time (UTC)", y_title)
    for number, (name, values) in enumerate(columns.items()):
        figure.add_scatter(
            x=time_ns.astype("datetime64[ns]"),
            y=values,
            name=plain_name(name),
            mode="lines",
            line=line_style(number),
            showlegend=len(columns) > 1,
        )
    for ns in verticals_ns:
        figure.add_vline(
            x=str(np.datetime64(ns, "ns")),
            line={"color": ALERTS[0], "width": 1.5, "dash": "dash"},
        )
    figure.update_xaxes(type="date")
    return figure


def heatmap(
    columns: Sequence[str],
    rows: Sequence[str],
    values: NDArray[np.float64],
    *,
    title: str,
    said: str,
    x_title: str,
    y_title: str,
    unit: str,
    texts: Any = None,
    middle: float = 0.0,
) -> go.Figure:
    """Return values as coloured cells; blue below ``middle``, orange above.

    The two colours differ in any colour vision; ``texts`` say what is in a cell.
    """
    figure = new_figure(title, said, x_title, y_title)
    figure.add_heatmap(
        x=[plain_name(name) for name in columns],
        y=[plain_name(name) for name in rows],
        z=values,
        text=texts,
        texttemplate=None if texts is None else "%{text}",
        zmid=middle,
        colorscale=[[0, LINES[0]], [0.5, "#ffffff"], [1, ALERTS[0]]],
        colorbar={"title": {"text": plain(unit)}},
        hovertemplate="%{y}, %{x}: %{z:.4g}<extra></extra>",
    )
    figure.update_layout(height=max(_HEIGHT, 300 + 40 * len(rows)))
    return figure


def bars(
    labels: Sequence[str],
    columns: dict[str, NDArray[np.float64]],
    *,
    title: str,
    said: str,
    x_title: str,
) -> go.Figure:
    """Return horizontal bars, the first label on top, a colour for each column."""
    figure = new_figure(title, said, x_title, "")
    for number, (name, values) in enumerate(columns.items()):
        figure.add_bar(
            y=[plain(label, LONGEST_NAME * 2) for label in labels],
            x=values,
            name=plain_name(name),
            orientation="h",
            marker={"color": LINES[number % len(LINES)]},
            showlegend=len(columns) > 1,
        )
    figure.update_yaxes(autorange="reversed")
    figure.update_layout(barmode="group", height=max(_HEIGHT, 160 + 30 * len(labels)))
    return figure
