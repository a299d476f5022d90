"""Alerts on a figure: where each belongs, what it says on hover."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from cep.reporting.figures.base import moments
from cep.reporting.figures.rates import rates_of
from cep.style import INK, LONGEST_NAME, marker_style, plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    import plotly.graph_objects as go

    from cep.reporting.figures.base import Span
    from cep.reporting.figures.lines import Line

MAX_MARKERS: Final = 2000
MAX_VERTICALS: Final = 60
_HOVER: Final = (
    "<b>%{customdata[0]}</b> (%{customdata[1]})<br>%{customdata[2]}<br>"
    "%{customdata[3]}<br>%{x|%Y-%m-%d %H:%M:%S.%L} UTC%{customdata[4]}"
    "<extra></extra>"
)
_MAX_CAUSES: Final = 4  # on hover


def draw_alerts(
    figure: go.Figure,
    marks: pl.DataFrame,
    panels: Sequence[Sequence[Line]],
    rows: int,
    counted: pl.DataFrame | None,
    span: Span,
    sources: Sequence[pl.DataFrame | None],
) -> list[str]:
    """Mark the alerts; return what the subtitle must say.

    ``sources`` are frames in which contributing events are looked up.
    """
    import plotly.graph_objects as go

    place = _Placing(panels, rows, counted, span)
    shown = 0
    verticals: list[int] = []
    rules = _by_rule(marks)
    chosen = [
        part.gather_every(-(-len(part) * len(rules) // MAX_MARKERS))
        for _, part in rules
    ]
    causes = _causes(chosen, sources)
    for number, ((rule, part), drawn) in enumerate(zip(rules, chosen, strict=True)):
        shown += len(drawn)
        placed: dict[int, list[tuple[int, float, list[str]]]] = {}
        for alert in drawn.iter_rows(named=True):
            time_ms, key = alert["event_time"], alert["key"]
            row, y, everywhere = place(time_ms, key)
            told = [rule, alert["severity"], key or "all keys", alert["title"]]
            texts = [plain(x) for x in told]
            texts.append(_told_causes(alert["lineage"], causes))
            placed.setdefault(row, []).append((time_ms, y, texts))
            if everywhere:
                verticals.append(time_ms)
        for at, (row, points) in enumerate(sorted(placed.items())):
            trace = go.Scatter(
                x=moments(np.array([time_ms for time_ms, _, _ in points])),
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
        "event_time",
        pl.col(texts).cast(pl.String).fill_null(""),
        pl.col("lineage") if "lineage" in marks.columns else _NO_LINEAGE,
    )
    return [
        (str(rule), part.sort("event_time"))
        for (rule,), part in table.sort("rule").group_by("rule", maintain_order=True)
    ]


_NO_LINEAGE: Final = pl.lit([], pl.List(pl.String)).alias("lineage")


def _causes(
    alerts: Sequence[pl.DataFrame], sources: Sequence[pl.DataFrame | None]
) -> dict[str, str]:
    """Return what to say of the first contributing events of each alert, by id."""
    first = pl.col("lineage").list.head(_MAX_CAUSES).explode()
    ids = [i for part in alerts for i in part.select(first)["lineage"].drop_nulls()]
    said: dict[str, str] = {}
    for source in sources:
        if source is None or "event_id" not in source.columns or not ids:
            continue
        for row in source.filter(pl.col("event_id").is_in(ids)).iter_rows(named=True):
            moment = str(np.datetime64(row["event_time"], "ms"))[11:]
            parts = [row.get(name) for name in ("type", "symbol", "venue")]
            value = row.get("value")
            parts += [] if value is None else [f"{value:,.8g}"]
            said[row["event_id"]] = plain(
                " ".join([moment, *(str(x) for x in parts if x is not None)])
            )
    return said


def _told_causes(lineage: Sequence[str], causes: dict[str, str]) -> str:
    told = [causes[one] for one in lineage[:_MAX_CAUSES] if one in causes]
    if not told:
        return ""
    more = len(lineage) - len(told)
    of = f"<br>of {len(lineage):,} event{'s' * (len(lineage) != 1)}:<br>"
    return of + "<br>".join(told) + (f"<br>and {more:,} more" if more else "")


class _Placing:
    """Where an alert belongs: its panel, its height, whether it is of no key."""

    def __init__(
        self,
        panels: Sequence[Sequence[Line]],
        rows: int,
        counted: pl.DataFrame | None,
        span: Span,
    ) -> None:
        self._lines = sorted(
            ((row, line) for row, panel in enumerate(panels, 1) for line in panel),
            key=lambda one: -len(one[1].times),
        )
        self._rows = rows
        self._rates = None if counted is None else rates_of(counted, span)

    def __call__(self, time_ms: int, key: str) -> tuple[int, float, bool]:
        parts = key.split("/")
        named = [one for one in self._lines if one[1].symbol in parts]
        venue = [one for one in named if one[1].venue in parts]
        for row, line in venue or named:
            return row, line.value_at(time_ms), False
        if self._rates is not None:
            starts, rates, _ = self._rates
            place = int(np.searchsorted(starts, time_ms, side="right")) - 1
            return self._rows, float(rates[max(0, place)]), True
        for row, line in self._lines:
            return row, line.value_at(time_ms), True
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
