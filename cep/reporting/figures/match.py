"""The events that one match is made of."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from cep.reporting.figures.base import checked, finish, moments, span_of
from cep.style import INK, LINES, LONGEST_NAME, marker_style, plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Protocol

    import plotly.graph_objects as go

    from cep.reporting.figures.base import Frame

    class Match(Protocol):
        """What is drawn; a `DerivedEvent` is one."""

        @property
        def rule(self) -> str: ...
        @property
        def key(self) -> str: ...
        @property
        def time_ns(self) -> int: ...
        @property
        def lineage(self) -> Sequence[str]: ...
        @property
        def steps(self) -> Sequence[str]: ...


MAX_EVENTS: Final = 500
_MAX_FIELDS: Final = 6
_LANE: Final = 44
_FEW_MS: Final = 8  # below, plotly would name one millisecond twice
_OWN: Final = frozenset({"event_time", "type", "event_id", "entry_id"})


def match_timeline(
    match: Match,
    frames: Mapping[str, Frame],
    *,
    title: str | None = None,
    note: str | None = None,
) -> go.Figure:
    """Return the events of one match over time, a lane for each step and stream.

    Lanes follow each other in the order in which the steps bound their first
    event; the last lane marks when the match was complete, which is later than
    its last event where the match waited for something not to come.

    Parameters
    ----------
    match
        A derived event, such as ``result.events[0]`` of `cep.run_rules`.
    frames
        Stream to frame with ``event_time``, ``type`` and ``event_id``, as `cep.load`
        gives them. Events that no frame has are counted in the subtitle.
    title, note
        As for `price_with_alerts`.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    pairs = list(zip(match.lineage, match.steps, strict=True))[:MAX_EVENTS]
    found = _looked_up([event for event, _ in pairs], frames)
    bound = [(step, found[event]) for event, step in pairs if event in found]
    counts = Counter((step, row["stream"]) for step, row in bound)
    lanes = [_lane(step, stream, n) for (step, stream), n in counts.items()]
    place = {of: at for at, of in enumerate(counts)}
    ends = np.array([match.time_ns // 1_000_000])
    times = np.array([row["event_time"] for _, row in bound], np.int64)
    span = span_of(times, ends)
    figure = make_subplots()
    if bound:
        heights = [place[step, row["stream"]] for step, row in bound]
        figure.add_trace(
            go.Scatter(
                x=moments(times),
                y=heights,
                text=_counts(heights, times.tolist()),
                textposition="top right",
                customdata=[_told(step, row) for step, row in bound],
                mode="lines+markers+text",
                line={"color": LINES[2], "width": 1, "dash": "dot"},
                marker={
                    "size": 11,
                    "color": LINES[0],
                    "line": {"color": INK, "width": 1},
                },
                hovertemplate="%{customdata}<extra></extra>",
                showlegend=False,
                cliponaxis=False,
            )
        )
    figure.add_trace(
        go.Scatter(
            x=moments(ends),
            y=[len(lanes)],
            mode="markers",
            marker=marker_style(0),
            hovertemplate="complete at %{x|%H:%M:%S.%L} UTC<extra></extra>",
            showlegend=False,
            cliponaxis=False,
        )
    )
    key = f" of {match.key}" if match.key else ""
    total = len(match.lineage)
    done = str(np.datetime64(match.time_ns, "ns"))[:23].replace("T", " ")
    said = [
        f"{total:,} event{'s' * (total != 1)} over {_seconds(span.seconds)}",
        f"complete at {done} UTC",
    ]
    if total > len(pairs):
        said.append(f"the first {len(pairs):,} are drawn")
    if len(pairs) > len(bound):
        said.append(f"{len(pairs) - len(bound):,} of them are in no frame given")
    finish(figure, title or f"A match of {match.rule}{key}", said, note, 1, span)
    figure.update_layout(height=190 + _LANE * (len(lanes) + 1))
    figure.update_xaxes(title_text="Event time (UTC)", tickformat=_ticks(span.seconds))
    if span.end - span.start < _FEW_MS:
        figure.update_xaxes(
            dtick=1,
            range=[
                str(end) for end in moments(np.array([span.start - 2, span.end + 2]))
            ],
        )
    figure.update_yaxes(
        range=[len(lanes) + 0.6, -0.6],
        tickvals=list(range(len(lanes) + 1)),
        ticktext=[*lanes, "match complete"],
        tickformat=None,
    )
    return figure


def _counts(heights: Sequence[int], times: Sequence[int]) -> list[str]:
    """Return beside the first of those that hide each other how many they are."""
    places = list(zip(heights, times, strict=True))
    alike = Counter(places)
    return [
        f"×{alike[place]:,}" if alike[place] > 1 and place not in places[:i] else ""
        for i, place in enumerate(places)
    ]


def _looked_up(
    events: Sequence[str], frames: Mapping[str, Frame]
) -> dict[str, dict[str, Any]]:
    """Return the rows of events by id, each with its stream."""
    found: dict[str, dict[str, Any]] = {}
    for stream, frame in frames.items():
        table = checked(frame, ("event_time", "type", "event_id"), stream)
        rows = table.filter(pl.col("event_id").is_in(list(events)))
        for row in rows.iter_rows(named=True):
            found[row["event_id"]] = {**row, "stream": stream}
    return found


def _lane(step: str, stream: str, count: int) -> str:
    times = f" × {count:,}" if count > 1 else ""
    return f"<b>{plain(step, LONGEST_NAME)}</b>{times}<br>{plain(stream, LONGEST_NAME)}"


def _told(step: str, row: Mapping[str, Any]) -> str:
    """Return the hover text of one event: step, type, time, first values."""
    moment = str(np.datetime64(row["event_time"], "ms")).replace("T", " ")
    values = [
        f"{plain(name, LONGEST_NAME)}: {plain(value)}"
        for name, value in row.items()
        if value is not None and name not in _OWN and name != "stream"
    ]
    head = f"<b>{plain(step, LONGEST_NAME)}</b>: {plain(row['type'])}"
    return "<br>".join([head, f"{moment} UTC", *values[:_MAX_FIELDS]])


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms" if seconds < 1 else f"{seconds:,.3f} s"


def _ticks(seconds: float) -> str | None:
    return "%H:%M:%S.%L" if seconds < 60 else None
