"""Streams as polars LazyFrames: what a query does not need is not read.

==========================  =====================================================
of the query                what it spares
==========================  =====================================================
conditions on               entries that arrived too early or too late for them
``event_time``              (`arrival_bounds`); what is read is filtered as well
columns                     decoding and making of all others
``.head(n)``                entries after the first ``n``
==========================  =====================================================

Event time and arrival differ. An event is at most `FUTURE_TOLERANCE_MS` ahead of its
arrival: the reader refuses those that are more. So ``event_time >= t`` begins to read
so much before ``t`` and loses nothing. How long after its time an event may arrive
nobody knows: ``event_time < t`` reads on to the end, unless ``max_delay`` states how
late events are at most.
"""

from __future__ import annotations

import io
import json
import logging
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, overload

import numpy as np
import polars as pl
from polars.io.plugins import register_io_source

from cep.clock import duration_ns
from cep.events.codec import FUTURE_TOLERANCE_MS
from cep.events.registry import Registry, registry
from cep.frames.convert import to_polars
from cep.frames.load import Wanted, newest_of, of_streams, report_bad, source_of
from cep.frames.shape import OWN, column_name, field_name
from cep.frames.sources import FrameSource
from cep.frames.span import FIRST, LAST, End, entry_span

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from datetime import timedelta
    from pathlib import Path

    from cep.events.columns import EventColumns
    from cep.frames.load import Data
    from cep.frames.span import EntryId

_TIME: Final = "event_time"
_MIRRORED: Final = {"Gt": "Lt", "GtEq": "LtEq", "Lt": "Gt", "LtEq": "GtEq"}
_log = logging.getLogger(__name__)


@overload
def scan(
    streams: str,
    *,
    url: str | None = ...,
    archive: str | Path | None = ...,
    live: bool = ...,
    data: Data | None = ...,
    start: End | None = ...,
    end: End | None = ...,
    types: str | Sequence[str] | None = ...,
    envelope: bool = ...,
    max_delay: str | timedelta | None = ...,
    registry: Registry = ...,
) -> pl.LazyFrame: ...


@overload
def scan(
    streams: list[str] | tuple[str, ...],
    *,
    url: str | None = ...,
    archive: str | Path | None = ...,
    live: bool = ...,
    data: Data | None = ...,
    start: End | None = ...,
    end: End | None = ...,
    types: str | Sequence[str] | None = ...,
    envelope: bool = ...,
    max_delay: str | timedelta | None = ...,
    registry: Registry = ...,
) -> dict[str, pl.LazyFrame]: ...


def scan(
    streams: str | list[str] | tuple[str, ...],
    *,
    url: str | None = None,
    archive: str | Path | None = None,
    live: bool = True,
    data: Data | None = None,
    start: End | None = None,
    end: End | None = None,
    types: str | Sequence[str] | None = None,
    envelope: bool = False,
    max_delay: str | timedelta | None = None,
    registry: Registry = registry,
) -> pl.LazyFrame | dict[str, pl.LazyFrame]:
    """Return the events of one stream, or of several, as LazyFrames.

    The rows are those of `load`, and so are the columns where they do not depend on
    what occurs: those of ``types``, or else of all types at home on the stream. Of
    events of other types, the frame's own columns are there. Nothing is read before
    the frame is collected, and then anew each time.

    Parameters
    ----------
    streams, url, archive, live, data, start, end, types, envelope, registry
        As for `load`; ``"-15m"`` counts from the newest entry at the time of reading.
    max_delay
        How long after its event time an event arrives at most; durations as
        ``"5m"``. Then conditions such as ``event_time < t`` end the reading there,
        and events that came later than that may be missing. If any are seen, the log
        ``cep.frames`` tells. None: no such bound.

    Returns
    -------
    For one stream its LazyFrame; for a list of streams a dict of stream to LazyFrame.

    Raises
    ------
    UnknownEventTypeError, InvalidDurationError, UsageError
        At once, for types, durations and forms that are none; streams that do not
        exist and servers that cannot be reached when the frame is collected.

    Examples
    --------
    >>> trades = scan("market.events", url="sample", types="market.trade")
    >>> dear = trades.filter(pl.col("price") > 61_840).select("symbol", "price")
    >>> dear.head(2).collect()["price"].to_list()
    [61841.13, 61841.56]
    """
    delay_ms = None
    if max_delay is not None:
        delay_ms = duration_ns(max_delay, allow_zero=True) // 1_000_000
    frames = of_streams(data, [streams] if isinstance(streams, str) else streams)
    if not isinstance(streams, str):
        return {
            stream: scan(
                stream,
                url=url,
                archive=archive,
                live=live,
                data=frames,
                start=start,
                end=end,
                types=types,
                envelope=envelope,
                max_delay=max_delay,
                registry=registry,
            )
            for stream in streams
        }
    home = [one.name for one in registry.types_of(streams)]
    known = types or home or [one.name for one in registry.all()]
    whole = Wanted.of(streams, known, None, envelope=envelope, registry=registry)
    chosen = None if types is None else whole.types

    def read(
        columns: list[str] | None,
        predicate: pl.Expr | None,
        n_rows: int | None,
        batch_size: int | None,
    ) -> Iterator[pl.DataFrame]:
        del batch_size  # a hint; pages have a size of our own
        shown = list(whole.schema) if columns is None else columns
        needed = {
            *shown,
            *(predicate.meta.root_names() if predicate is not None else ()),
        }
        fields, extras = _asked(whole, needed)
        bounds = arrival_bounds(predicate, delay_ms)
        entries, late, reasons = 0, 0, Counter[str]()
        with source_of(
            url, archive, registry, live=live, data=frames, types=types
        ) as source:
            source.check(streams)
            first, last = entry_span(start, end, lambda: newest_of(source, [streams]))
            # Where both are given, the first rows are meant of all there are.
            if n_rows is None and not isinstance(source, FrameSource):
                first, last = max(first, bounds[0]), min(last, bounds[1])
            left = n_rows
            for page in source.pages(streams, first, last, fields, extras, left):
                entries += len(page.columns) + len(page.bad)
                reasons.update(row.reason for row in page.bad)
                late += _later_than(page.columns, delay_ms)
                frame = _frame(page.columns, chosen, needed, whole)
                if left is not None:
                    frame = frame.head(left)
                    left -= len(frame)
                if predicate is not None:
                    frame = frame.filter(predicate)
                # No columns at all: one says how many rows there are.
                yield frame.select(shown or frame.columns[:1])
                if left == 0:
                    break
        report_bad(streams, entries, reasons)
        if late:
            _log.warning(
                "%s: %s of %s events read came later after their event time than "
                "max_delay allows; more of them may be missing.",
                streams,
                f"{late:,}",
                f"{entries:,}",
            )

    return register_io_source(read, schema=whole.schema, explain_name=f"cep {streams}")


def _asked(
    whole: Wanted, columns: Collection[str]
) -> tuple[dict[str, list[str]], list[str]]:
    """Return the fields of each type, and those of the envelope, behind columns.

    Fields of one name are asked for together, in all types: which columns they get
    depends on them alone, so they get the same as among all others.
    """
    names = {str(field_name(column)).rpartition(":")[2] for column in columns}
    # Versions of a type that cannot share a column have it told apart behind "@".
    names |= {name.partition("@")[0] for name in names}
    fields = {
        event_type: [name for name in known if name in names]
        for event_type, known in (whole.fields or {}).items()
    }
    return fields, [name for name in whole.envelope if name in columns]


def _frame(
    events: EventColumns,
    types: Sequence[str] | None,
    columns: Collection[str],
    whole: Wanted,
) -> pl.DataFrame:
    """Return events of some types as a frame of some columns."""
    if types is not None:
        codes = [code for code, name in enumerate(events.types) if name in types]
        keep = np.isin(events.type_code, codes)
        events = events if keep.all() else events.take(keep)
    fields = {
        name: column
        for name, column in events.fields.items()
        if column_name(name) in columns
    }
    frame = to_polars(
        replace(events, fields=fields),
        # One at least, which says how many rows there are.
        own=[name for name in OWN if name in columns] or [_TIME],
        registry=whole.registry,
    )
    absent = {
        name: pl.lit(None, whole.schema[name])
        for name in columns
        if name not in frame.columns
    }
    return frame.with_columns(**absent) if absent else frame


def _later_than(events: EventColumns, delay_ms: int | None) -> int:
    if delay_ms is None:
        return 0
    return int((events.entry_ms - events.time_ms > delay_ms).sum())


def arrival_bounds(
    predicate: pl.Expr | None, delay_ms: int | None
) -> tuple[EntryId, EntryId]:
    """Return between which entry ids all events lie that a predicate can take.

    Parameters
    ----------
    predicate
        Any expression; what is not understood of it bounds nothing.
    delay_ms
        How long after its time an event arrives at most; None: nobody knows.

    Examples
    --------
    >>> from datetime import datetime, UTC
    >>> after = pl.col("event_time") > datetime(1970, 1, 2, tzinfo=UTC)
    >>> arrival_bounds(after, None)[0]
    (86099999, 0)
    """
    low = high = None
    if predicate is not None:
        low, high = _bounds(json.loads(predicate.meta.serialize(format="json")))
    first, last = FIRST, LAST
    if low is not None:
        first = max(0, low - FUTURE_TOLERANCE_MS), 0
    if high is not None and delay_ms is not None:
        last = max(0, high + delay_ms), LAST[1]
    return first, last


def _bounds(node: Any) -> tuple[int | None, int | None]:
    """Return least and greatest event time, in milliseconds, that may satisfy a node.

    Both a millisecond wide of the mark, as literals may be finer than that.
    """
    match node:
        case {"BinaryExpr": {"op": "And" | "LogicalAnd", "left": left, "right": right}}:
            (low, high), (other_low, other_high) = _bounds(left), _bounds(right)
            lows = [one for one in (low, other_low) if one is not None]
            highs = [one for one in (high, other_high) if one is not None]
            return max(lows, default=None), min(highs, default=None)
        case {"BinaryExpr": {"op": "Or" | "LogicalOr", "left": left, "right": right}}:
            (low, high), (other_low, other_high) = _bounds(left), _bounds(right)
            return (
                None if low is None or other_low is None else min(low, other_low),
                None if high is None or other_high is None else max(high, other_high),
            )
        case {
            "BinaryExpr": {"op": op, "left": {"Column": "event_time"}, "right": value}
        }:
            return _compared(op, _instant_ms(value))
        case {
            "BinaryExpr": {"op": op, "left": value, "right": {"Column": "event_time"}}
        }:
            return _compared(_MIRRORED.get(op, op), _instant_ms(value))
        case {
            "Function": {
                "input": [{"Column": "event_time"}, low, high],
                "function": {"Boolean": {"IsBetween": _}},
            }
        }:
            return (
                _compared("GtEq", _instant_ms(low))[0],
                _compared("LtEq", _instant_ms(high))[1],
            )
    return None, None


def _compared(op: str, at_ms: int | None) -> tuple[int | None, int | None]:
    if at_ms is None:
        return None, None
    low = at_ms - 1 if op in ("Gt", "GtEq", "Eq") else None
    high = at_ms + 1 if op in ("Lt", "LtEq", "Eq") else None
    return low, high


def _instant_ms(node: Any) -> int | None:
    """Return the instant that an expression without columns stands for."""
    if not _is_constant(node):
        return None
    try:
        text = io.StringIO(json.dumps(node))
        found = pl.select(pl.Expr.deserialize(text, format="json")).to_series()
        if len(found) != 1 or not isinstance(found.dtype, pl.Datetime | pl.Date):
            return None
        at: int | None = found.cast(pl.Datetime("ms")).to_physical()[0]
    except (pl.exceptions.PolarsError, ValueError):
        return None
    return at


def _is_constant(node: Any) -> bool:
    match node:
        case {"Literal": _}:
            return True
        case {"Cast": {"expr": inner}}:
            return _is_constant(inner)
        case {"BinaryExpr": {"left": left, "right": right}}:
            return _is_constant(left) and _is_constant(right)
        case {
            "Function": {
                "input": inputs,
                "function": {"TemporalExpr": _} | {"StringExpr": _},
            }
        }:
            return all(map(_is_constant, inputs))
    return False
