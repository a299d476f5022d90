"""The one look of all figures, and what makes foreign text safe in them.

Colours are Okabe and Ito's, which people with any colour vision can tell
apart: cool ones and greys for lines, warm ones for alerts. Nothing is told by
colour alone: lines differ in dash, alerts in shape.

Source: M. Okabe, K. Ito, "Color Universal Design", 2008.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import plotly.graph_objects as go

INK: Final = "#1a1a1a"
GRID: Final = "#e4e4e4"
LINES: Final = ("#0072B2", "#56B4E9", "#6b6b6b", "#a8a8a8")
DASHES: Final = ("solid", "dot", "dash")
ALERTS: Final = (
    "#D55E00",
    "#F0E442",
    "#CC79A7",
    "#E69F00",
    "#009E73",
    "#FFFFFF",
    "#1a1a1a",
)
SHAPES: Final = (
    "circle",
    "triangle-up",
    "square",
    "diamond",
    "star",
    "triangle-down",
    "pentagon",
    "x",
    "cross",
    "hexagram",
)
FONT: Final = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', Arial, sans-serif"
CONFIG: Final[dict[str, Any]] = {
    "displaylogo": False,
    "responsive": True,
    # No button sends the data anywhere.
    "plotlyServerURL": "",
    "modeBarButtons": [
        ["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]
    ],
}
LONGEST: Final = 160
LONGEST_NAME: Final = 40


def plain(text: object, longest: int = LONGEST) -> str:
    """Return foreign text so that a figure shows it as it is, cut if overlong.

    Plotly reads a little HTML in names, titles and hover texts, links among it.

    >>> plain("<a href='x'>y</a>")
    "&lt;a href='x'&gt;y&lt;/a&gt;"
    """
    shown = visible(text)
    if len(shown) > longest:
        shown = shown[: longest - 1] + "…"
    # Quotes stay: plotly would show their escapes, and no tag is left to hold them.
    return html.escape(shown, quote=False)


def visible(text: object) -> str:
    r"""Return foreign text with what nobody would see in it as escapes.

    Line ends and other control characters are among them, and what turns the
    direction of writing, which would reorder what stands beside it.

    >>> visible("a\u202eb\nc")
    'a\\u202eb\\nc'
    """
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown
    )


def line_style(index: int) -> dict[str, Any]:
    """Return colour and dash of the line with this number."""
    dash = DASHES[index // len(LINES) % len(DASHES)]
    return {"color": LINES[index % len(LINES)], "dash": dash, "width": 1.2}


def marker_style(index: int) -> dict[str, Any]:
    """Return colour and shape of the rule with this number."""
    return {
        "symbol": SHAPES[index % len(SHAPES)],
        "color": ALERTS[index % len(ALERTS)],
        "size": 11,
        "line": {"color": INK, "width": 1.2},
    }


def template() -> go.layout.Template:
    """Return the template of all figures; times are UTC and say so."""
    import plotly.graph_objects as go

    axis = {
        "gridcolor": GRID,
        "linecolor": INK,
        "showline": True,
        "ticks": "outside",
        "ticklen": 4,
        "zeroline": False,
        "title": {"standoff": 10},
        "automargin": True,
        "exponentformat": "power",
    }
    layout = {
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "colorway": list(LINES),
        "hovermode": "closest",
        "hoverlabel": {"align": "left", "bgcolor": "white"},
        "title": {
            "x": 0,
            "xref": "paper",
            "xanchor": "left",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": 16},
            "font": {"size": 19},
        },
        "xaxis": axis,
        "yaxis": axis,
        "legend": {"font": {"size": 12}, "tracegroupgap": 3, "y": 1, "yanchor": "top"},
        "margin": {"l": 60, "r": 20, "t": 110, "b": 60},
    }
    return go.layout.Template(layout=layout)


def name_panel(figure: go.Figure, row: int, text: str) -> None:
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
