"""What one request did, across streams: its spans, and the latency of each hop.

Events that share a correlation id are one trace. A hop goes from an event to
the next one of its trace, or, where events name the one that caused them, from
that parent to its child; its latency is the time between their starts.

Source: B. H. Sigelman et al., "Dapper, a Large-Scale Distributed Systems Tracing
Infrastructure", Google Technical Report, 2010, 2.1: spans and their parents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from cep.analysis import figures
from cep.analysis.columns import checked_columns, time_column_ns
from cep.analysis.result import Result
from cep.errors import UsageError, near_miss, shown
from cep.frames.from_frame import as_polars

if TYPE_CHECKING:
    import plotly.graph_objects as go

_DRAWN: Final = 25
_QUANTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True, slots=True, repr=False)
class Traces(Result):
    """What `traces` found.

    Attributes
    ----------
    spans
        A row for each event of a trace, by trace and time: ``trace``, ``step``,
        ``event_time``, ``parent_step`` (null for the first), ``latency`` since
        the parent's start, and ``offset`` since the trace's.
    hops
        A row for each pair of steps: ``parent_step``, ``step``, ``count``,
        ``traces``, and of the latency ``p50``, ``p95``, ``p99``, ``longest``; the
        most frequent first.
    requests
        A row for each trace: ``trace``, ``start``, ``events``, ``steps`` (how
        many different ones), ``took`` from the first start to the last.
    untraced, repeated, orphans
        Rows without a trace or a time; that have a span id which another row of
        their trace has had; and whose parent is not in their trace.
    """

    spans: pl.DataFrame
    hops: pl.DataFrame
    requests: pl.DataFrame
    untraced: int
    repeated: int
    orphans: int

    def to_polars(self) -> pl.DataFrame:
        """Return ``hops``; latencies are durations."""
        return self.hops

    def timeline(self, trace: str) -> go.Figure:
        """Return when each event of one trace started, and how long after its parent.

        Raises
        ------
        UsageError
            If there is no such trace.
        """
        rows = self.spans.filter(pl.col("trace") == trace)
        if not len(rows):
            near = near_miss(trace, self.requests["trace"].head(10_000).to_list())
            hint = f"Did you mean {near[0]!r}?" if near else "See .requests for them."
            raise UsageError(f"There is no trace {shown(trace)}.", hint)
        unit, length = figures.time_unit(rows["offset"].cast(pl.Int64).to_numpy())
        starts = rows["offset"].cast(pl.Int64) / length
        waits = rows["latency"].cast(pl.Int64).fill_null(0) / length
        figure = figures.new_figure(
            f"Trace {trace}",
            f"{len(rows):,} events; bars go from the parent's start to the event's",
            f"Time since the first event ({unit})",
            "",
        )
        labels = [
            f"{k + 1}. {figures.plain_name(step)}"
            for k, step in enumerate(rows["step"])
        ]
        figure.add_bar(
            y=labels, x=waits, base=starts - waits, orientation="h", name="latency"
        )
        figure.add_scatter(x=starts, y=labels, mode="markers", name="start")
        figure.update_yaxes(autorange="reversed")
        figure.update_layout(height=160 + 26 * len(rows), showlegend=False)
        return figure

    def plot(self) -> go.Figure:
        """Return the latency of the most frequent hops: median and 95 %."""
        drawn = self.hops.head(_DRAWN)
        middle, high = (drawn[q].cast(pl.Int64).to_numpy() for q in ("p50", "p95"))
        unit, length = figures.time_unit(high)
        return figures.bars(
            [f"{a} → {b}" for a, b in drawn.select("parent_step", "step").iter_rows()],
            {"median": middle / length, "95 % are faster": high / length},
            title="Latency of each hop",
            said=str(self).partition("\n")[0]
            + f"; the {len(drawn)} most frequent of {len(self.hops)} hops",
            x_title=f"Latency ({unit})",
        )

    def __str__(self) -> str:
        of = f"{len(self.requests):,} traces of {len(self.spans):,} events"
        said = [f"{of}, {len(self.hops):,} kinds of hops"]
        in_ms = pl.col("p50", "p95").cast(pl.Int64) / 1e6
        for row in self.hops.head(5).with_columns(in_ms).iter_rows(named=True):
            middle, high = row["p50"], row["p95"]
            said.append(
                f"  {row['parent_step']} -> {row['step']}: {row['count']:,} times, "
                f"median {middle:,.3f} ms, 95 % within {high:,.3f} ms"
            )
        said.append(
            f"  left out: {self.untraced:,} rows without a trace or time, "
            f"{self.repeated:,} repeated; {self.orphans:,} without their parent"
        )
        return "\n".join(said)


def traces(
    frame: Any,
    *,
    trace: str = "correlation_id",
    step: str = "type",
    time: str = "event_time",
    span: str | None = None,
    parent: str | None = None,
) -> Traces:
    """Return the traces in a frame, and the latency of each of their hops.

    Parameters
    ----------
    frame
        polars, pandas or Arrow, in any order, of one stream or several.
    trace
        The column of what events of one request share; null and "" share nothing.
    step
        The column of what an event is called: a type, a service, a stream.
    time
        The column of their starts (naive means UTC).
    span, parent
        Columns of an event's id and that of the event that caused it. If both
        are None, the one before in the trace is taken to have caused it; of
        events of one instant the one that stands first.

    Raises
    ------
    UsageError
        If a column is missing, or only one of ``span`` and ``parent`` is given.

    Examples
    --------
    >>> from datetime import UTC, datetime, timedelta
    >>> at = datetime(2026, 1, 5, tzinfo=UTC)
    >>> frame = pl.DataFrame({
    ...     "event_time": [at, at + timedelta(milliseconds=250)],
    ...     "correlation_id": ["a", "a"],
    ...     "type": ["asked", "answered"],
    ... })
    >>> found = traces(frame)
    >>> found.hops["p50"].dt.total_milliseconds().item()
    250
    """
    if (span is None) != (parent is None):
        raise UsageError(
            f"span is {shown(span)} and parent is {shown(parent)}.",
            "Name both columns, or none of them.",
        )
    rows = as_polars(frame)
    named = [trace, step, time, *([span, parent] if span and parent else [])]
    checked_columns(rows, named)
    table = pl.DataFrame(
        {
            "trace": rows[trace].cast(pl.String),
            "step": rows[step].cast(pl.String).fill_null(""),
            "ns": time_column_ns(rows, time),
        }
    )
    if span and parent:
        table = table.with_columns(
            span=rows[span].cast(pl.String), parent=rows[parent].cast(pl.String)
        )
    known = table.filter(
        pl.col("trace").is_not_null()
        & (pl.col("trace") != "")
        & pl.col("ns").is_not_null()
    ).sort("trace", "ns", maintain_order=True)
    untraced = len(table) - len(known)
    repeated = orphans = 0
    if span and parent:
        many = len(known)
        known = known.filter(
            pl.col("span").is_null() | pl.struct("trace", "span").is_first_distinct()
        )
        repeated = many - len(known)
        known = _with_parents(known)
        orphans = int((known["parent"].is_not_null() & known["before"].is_null()).sum())
    else:
        known = known.with_columns(
            parent_step=pl.col("step").shift().over("trace"),
            before=pl.col("ns").shift().over("trace"),
        )
    return _summed(known, untraced, repeated, orphans)


def _with_parents(known: pl.DataFrame) -> pl.DataFrame:
    causes = known.filter(pl.col("span").is_not_null()).select(
        "trace",
        pl.col("span").alias("parent"),
        pl.col("step").alias("parent_step"),
        pl.col("ns").alias("before"),
    )
    return known.join(causes, on=["trace", "parent"], how="left", maintain_order="left")


def _summed(known: pl.DataFrame, untraced: int, repeated: int, orphans: int) -> Traces:
    duration = pl.Duration("ns")
    since_start = pl.col("ns") - pl.col("ns").min().over("trace")
    spans = known.select(
        "trace",
        "step",
        pl.col("ns").cast(pl.Datetime("ns", "UTC")).alias("event_time"),
        "parent_step",
        (pl.col("ns") - pl.col("before")).cast(duration).alias("latency"),
        since_start.cast(duration).alias("offset"),
    )
    latency = pl.col("latency").cast(pl.Int64)
    hops = (
        spans.drop_nulls("latency")
        .group_by("parent_step", "step")
        .agg(
            pl.len().alias("count"),
            pl.col("trace").n_unique().alias("traces"),
            *(
                latency.quantile(q, "linear").round().cast(pl.Int64).alias(name)
                for name, q in _QUANTILES.items()
            ),
            latency.max().alias("longest"),
        )
        .sort("count", "parent_step", "step", descending=[True, False, False])
        .with_columns(pl.col(*_QUANTILES, "longest").cast(duration))
    )
    requests = spans.group_by("trace", maintain_order=True).agg(
        pl.col("event_time").min().alias("start"),
        pl.len().alias("events"),
        pl.col("step").n_unique().alias("steps"),
        pl.col("offset").max().alias("took"),
    )
    return Traces(spans, hops, requests, untraced, repeated, orphans)
