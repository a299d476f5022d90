"""What all figures share: checked frames, their span of time, titles."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import polars as pl

from cep.errors import UsageError, near_miss
from cep.frames.from_frame import as_polars
from cep.style import plain, template

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    import plotly.graph_objects as go
    import pyarrow as pa
    from numpy.typing import NDArray

    Frame: TypeAlias = pl.DataFrame | pl.LazyFrame | pd.DataFrame | pa.Table

_LINE_HEIGHT: Final = 18


@dataclass(slots=True)
class Span:
    """From the first time to the last, in milliseconds since 1970."""

    start: int
    end: int

    @property
    def seconds(self) -> float:
        return (self.end - self.start) / 1000


def checked(frame: Frame | None, columns: Sequence[str], what: str) -> pl.DataFrame:
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


def span_of(*times: NDArray[np.int64] | None) -> Span:
    """Return the span of all these times; of none at all it is 0 to 0."""
    there = [one for one in times if one is not None and len(one)]
    first = min((int(one.min()) for one in there), default=0)
    return Span(first, max((int(one.max()) for one in there), default=0))


def times_of(table: pl.DataFrame | None) -> NDArray[np.int64] | None:
    """Return the times of a frame that `checked` has returned."""
    return None if table is None else table["event_time"].to_numpy()


def moments(times: NDArray[np.int64]) -> NDArray[np.datetime64]:
    """Return milliseconds as times that a figure shows in UTC."""
    # Without a zone: plotly shows it as it stands.
    return times.astype("datetime64[ms]")


def finish(
    figure: go.Figure,
    title: str,
    said: Sequence[str],
    note: str | None,
    rows: int,
    span: Span,
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
        figure.update_xaxes(range=[str(end) for end in moments(ends)])
