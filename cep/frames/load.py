"""Streams as frames."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, overload

import numpy as np
import polars as pl

from cep.bus.column_plan import ENVELOPE_COLUMNS, plan_columns
from cep.errors import UsageError, near_miss
from cep.events.registry import Registry, registry
from cep.frames.convert import bad_to_polars, to_arrow, to_pandas, to_polars
from cep.frames.progress import progress
from cep.frames.shape import field_name, labels_of, schema_of
from cep.frames.sources import SAMPLE, FrameSource, RedisSource, Source
from cep.frames.span import FIRST, LAST, End, entry_span, time_ms_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd
    import pyarrow as pa

    from cep.events.columns import BadRow, EventColumns
    from cep.frames.progress import Advance
    from cep.frames.span import EntryId

Frame: TypeAlias = "pl.DataFrame | pl.LazyFrame | pd.DataFrame | pa.Table"
Data: TypeAlias = "Frame | Mapping[str, Frame]"
Form: TypeAlias = Literal["polars", "pandas", "arrow"]

_FORMS: Final = {"polars": lambda frame: frame, "pandas": to_pandas, "arrow": to_arrow}
_MOST_THREADS: Final = 8
_JOINED_AT_ONCE: Final = 32  # pages
_log = logging.getLogger(__name__)


@overload
def load(
    streams: str,
    *,
    url: str | None = ...,
    archive: str | Path | None = ...,
    live: bool = ...,
    data: Data | None = ...,
    start: End | None = ...,
    end: End | None = ...,
    event_start: End | None = ...,
    event_end: End | None = ...,
    types: str | Sequence[str] | None = ...,
    columns: Sequence[str] | None = ...,
    envelope: bool = ...,
    as_: Literal["polars"] = ...,
    limit: int | None = ...,
    with_bad: Literal[False] = ...,
    registry: Registry = ...,
) -> pl.DataFrame: ...


@overload
def load(
    streams: list[str] | tuple[str, ...],
    *,
    url: str | None = ...,
    archive: str | Path | None = ...,
    live: bool = ...,
    data: Data | None = ...,
    start: End | None = ...,
    end: End | None = ...,
    event_start: End | None = ...,
    event_end: End | None = ...,
    types: str | Sequence[str] | None = ...,
    columns: Sequence[str] | None = ...,
    envelope: bool = ...,
    as_: Literal["polars"] = ...,
    limit: int | None = ...,
    with_bad: Literal[False] = ...,
    registry: Registry = ...,
) -> dict[str, pl.DataFrame]: ...


@overload
def load(
    streams: str | list[str] | tuple[str, ...],
    *,
    url: str | None = ...,
    archive: str | Path | None = ...,
    live: bool = ...,
    data: Data | None = ...,
    start: End | None = ...,
    end: End | None = ...,
    event_start: End | None = ...,
    event_end: End | None = ...,
    types: str | Sequence[str] | None = ...,
    columns: Sequence[str] | None = ...,
    envelope: bool = ...,
    as_: Form = ...,
    limit: int | None = ...,
    with_bad: bool = ...,
    registry: Registry = ...,
) -> Any: ...


def load(
    streams: str | list[str] | tuple[str, ...],
    *,
    url: str | None = None,
    archive: str | Path | None = None,
    live: bool = True,
    data: Data | None = None,
    start: End | None = None,
    end: End | None = None,
    event_start: End | None = None,
    event_end: End | None = None,
    types: str | Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    envelope: bool = False,
    as_: Form = "polars",
    limit: int | None = None,
    with_bad: bool = False,
    registry: Registry = registry,
) -> Any:
    """Return the events of one stream, or of several, as frames.

    One row per event, in order of arrival; the columns are those of
    `cep.frames.shape`: ``event_time``, ``type``, the payload fields, null
    where a row's type lacks one, then ``event_id`` and ``entry_id``. Entries
    that are no events (malformed, unknown, of a wrong type) are not among
    them: one line on the log ``cep.frames`` counts them, and ``with_bad=True``
    returns them beside the frame.

    Parameters
    ----------
    streams
        A stream's key, or a list of several.
    url
        The server; by default that of ``CEP_REDIS_URL``. ``"sample"`` loads
        the bundled sample, without a server.
    archive
        A folder that ``cep archive`` writes: entries are taken from there as far
        as it goes, then from the server.
    live
        Without it: what is in the archive only, without a server.
    data
        Frames to take instead, of polars, pandas or Arrow: that of the stream, or a
        mapping of stream to frame. Their columns are those that
        `columns_from_frame` takes; ``type`` may be left out where ``types`` is one.
        Without ``entry_id``, rows arrive in their order, at their event time.
    start, end
        Which entries, by *arrival* (the entry id's time): an aware datetime,
        ISO 8601 text, ``"-15m"`` for so long before the newest entry of all
        the streams, or an entry id. ``start <= arrival < end`` for times,
        both included for entry ids; see `cep.frames.span`.
    event_start, event_end
        Which of those, by *event time*, ``event_start <= time < event_end``:
        datetimes or ISO 8601 text. Entries are still read from ``start``.
    types
        Event types wanted; all others are left out. The frame then has the
        columns of these types, whether they occur or not. By default it has
        those of the types that occur, or if nothing does, of all types at home
        on the stream.
    columns
        Payload fields wanted, in this order, of ``types`` or else of the types
        at home on the stream.
    envelope
        Add ``@version``, ``@correlation_id``, ``@user_id`` and ``@metadata``.
    as_
        ``"polars"``, ``"pandas"`` or ``"arrow"``.
    limit
        At most so many rows of each stream, the first ones.
    with_bad
        Return a pair: what is said below, and a frame of the bad rows of all
        streams: ``stream``, ``entry_id``, ``reason``, ``detail``, ``raw``
        (bytes, the first 4096), ``raw_length``, ``sha256``. ``detail`` and
        ``raw`` are foreign data.
    registry
        Where event types are looked up.

    Returns
    -------
    For one stream its frame; for a list of streams a dict of stream to frame.

    Raises
    ------
    UsageError
        For a stream, column or form that does not exist, with the near miss,
        or an end of time that is none.
    UnknownEventTypeError
        For a type nobody registered, with the near miss.
    ConnectionFailedError
        If the server cannot be reached.

    Examples
    --------
    >>> trades = load("market.events", url="sample", types="market.trade", limit=3)
    >>> trades["price"].to_list()
    [61837.63, 2683.8, 2683.8]
    >>> later = load("market.events", data=trades, as_="pandas", start="-1s")
    >>> later["price"].tolist()
    [61837.63, 2683.8, 2683.8]
    """
    if as_ not in _FORMS:
        near = near_miss(str(as_), _FORMS)
        hint = f"Did you mean {near[0]!r}?" if near else f"Use {', '.join(_FORMS)}."
        raise UsageError(f"as_ is {as_!r}.", hint)
    if limit is not None and limit < 1:
        raise UsageError(f"limit is {limit}.", "Pass at least 1, or None for all.")
    names = [streams] if isinstance(streams, str) else list(streams)
    wanted = [
        Wanted.of(name, types, columns, envelope=envelope, registry=registry)
        for name in names
    ]
    times = (
        None if event_start is None else time_ms_of(event_start, "event_start"),
        None if event_end is None else time_ms_of(event_end, "event_end"),
    )
    bad: list[BadRow] = []
    frames = {}
    with source_of(
        url, archive, registry, live=live, data=of_streams(data, names), types=types
    ) as source:
        for name in names:
            source.check(name)
        span = entry_span(start, end, lambda: newest_of(source, names))
        totals: list[int | None] = [None]
        if span == (FIRST, LAST) and limit is None:
            totals = [source.length(name) for name in names]
        known = [total for total in totals if total is not None]
        total = sum(known) if len(known) == len(names) else None
        what = names[0] if len(names) == 1 else f"{len(names)} streams"
        with progress(what, total) as advance, _pool(len(names)) as pool:
            loading = [
                pool.submit(_load_one, source, one, span, times, limit, advance)
                for one in wanted
            ]
            for one, found_one in zip(wanted, loading, strict=True):
                frame, wrong = found_one.result()
                frames[one.stream] = _FORMS[as_](frame)
                bad += wrong
    found = frames[streams] if isinstance(streams, str) else frames
    return (found, _FORMS[as_](bad_to_polars(bad))) if with_bad else found


def _load_one(
    source: Source,
    wanted: Wanted,
    span: tuple[EntryId, EntryId],
    times: tuple[int | None, int | None],
    limit: int | None,
    advance: Advance,
) -> tuple[pl.DataFrame, list[BadRow]]:
    """Return the frame of one stream, and its bad rows."""
    bad: list[BadRow] = []
    # Where rows are picked, many small pages would have to be read.
    most = limit if wanted.types is None and times == (None, None) else None
    parts: list[pl.DataFrame] = []
    joined: list[pl.DataFrame] = []
    entries, rows, reasons = 0, 0, Counter[str]()
    for good, wrong, _ in source.pages(
        wanted.stream, *span, wanted.fields, wanted.envelope, most
    ):
        parts.append(wanted.frame(good, *times))
        bad.extend(wrong)
        reasons.update(row.reason for row in wrong)
        entries += len(good) + len(wrong)
        rows += len(parts[-1])
        if len(parts) == _JOINED_AT_ONCE:
            # Pages hold more memory than their columns take up.
            joined.append(wanted.joined(parts))
            parts = []
        advance(len(good) + len(wrong))
        if limit is not None and rows >= limit:
            break
    report_bad(wanted.stream, entries, reasons)
    frame = wanted.joined([*joined, *parts])
    return frame if limit is None else frame.head(limit), bad


@contextlib.contextmanager
def _pool(streams: int) -> Iterator[ThreadPoolExecutor]:
    """Give threads, one a stream: kernels and waiting for a server let others run."""
    pool = ThreadPoolExecutor(min(streams, _MOST_THREADS) or 1, "cep-load")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def source_of(
    url: str | None,
    archive: str | Path | None,
    registry: Registry,
    *,
    live: bool = True,
    data: Mapping[str, Any] | None = None,
    types: str | Sequence[str] | None = None,
) -> Iterator[Source]:
    """Give where to read from; see `load`."""
    if data is not None:
        if url is not None or archive is not None:
            raise UsageError(
                "data, and a server or an archive as well.", "Pass one of the two."
            )
        yield FrameSource.of_frames(data, registry, types)
        return
    if archive is None and not live:
        raise UsageError("live=False without an archive.", "Pass archive=FOLDER.")
    if url == SAMPLE:
        if archive is not None:
            raise UsageError("The sample is in no archive.", "Pass one of the two.")
        yield FrameSource.of_sample(registry)
        return
    kept = None
    if archive is not None:
        from cep.frames.archive.read import ArchiveSource, JoinedSource

        kept = ArchiveSource(Path(archive), registry)
        if not live:
            yield kept
            return
    from cep.bus.connection import connect_redis

    with connect_redis(url) as client:
        found = RedisSource(client, registry)
        yield found if kept is None else JoinedSource(kept, found)


def of_streams(data: Data | None, streams: Sequence[str]) -> Mapping[str, Any] | None:
    """Return the frame of each stream; a single frame is that of the only stream."""
    if data is None or isinstance(data, Mapping):
        return data
    if len(streams) != 1:
        raise UsageError(
            f"data is one frame for {len(streams)} streams.",
            "Pass a mapping of stream to frame.",
        )
    return {streams[0]: data}


def newest_of(source: Source, streams: Sequence[str]) -> int:
    """Return when the newest entry of some streams arrived, 0 if there is none."""
    return max(source.newest_ms(stream) or 0 for stream in streams)


def report_bad(stream: str, entries: int, wrong: Counter[str]) -> None:
    """Say on the log how many entries were no events, and why."""
    if wrong:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in wrong.items())
        _log.warning(
            "%s: %s of %s entries are no events (%s) and not in the frame; "
            "with_bad=True returns them beside it.",
            stream,
            f"{wrong.total():,}",
            f"{entries:,}",
            reasons,
        )


@dataclass(slots=True)
class Wanted:
    """What to take of one stream.

    ``fields`` is what the reader is asked for, ``schema`` every column there
    may be, in order; ``always`` are those that are there even if nothing is.
    """

    stream: str
    types: list[str] | None
    fields: dict[str, list[str]] | None
    envelope: list[str]
    schema: dict[str, pl.DataType]
    always: list[str]
    registry: Registry

    @staticmethod
    def of(
        stream: str,
        types: str | Sequence[str] | None,
        columns: Sequence[str] | None,
        *,
        envelope: bool,
        registry: Registry,
    ) -> Wanted:
        named = [types] if isinstance(types, str) else types
        chosen = None if named is None else list(dict.fromkeys(named))
        known = {one.name: _fields_of(one.name, registry) for one in registry.all()}
        home = [one.name for one in registry.types_of(stream)]
        for name in chosen or ():
            registry.get(name)
        candidates = {name: known[name] for name in (chosen or home or known)}
        extras = list(ENVELOPE_COLUMNS) if envelope else []
        if columns is not None:
            extras += [name for name in columns if name in ENVELOPE_COLUMNS]
            candidates = _narrowed(stream, candidates, columns)
        fields = None if chosen is None and columns is None else candidates
        labels = labels_of(registry)
        plan = plan_columns(stream, registry, fields, extras)
        found = [*plan.columns, *((name, ENVELOPE_COLUMNS[name]) for name in extras)]
        schema = schema_of(_in_order(found, columns), labels)
        certain = plan_columns(stream, registry, candidates, extras)
        kept = [certain.columns[column] for column in certain.always]
        kept += [(name, ENVELOPE_COLUMNS[name]) for name in plan.envelope]
        return Wanted(
            stream,
            chosen,
            fields,
            plan.envelope,
            schema,
            list(schema_of(kept, labels)),
            registry,
        )

    def frame(
        self, events: EventColumns, start_ms: int | None, end_ms: int | None
    ) -> pl.DataFrame:
        """Return those of the events that are wanted."""
        keep = np.ones(len(events), np.bool_)
        if self.types is not None:
            codes = [i for i, name in enumerate(events.types) if name in self.types]
            keep &= np.isin(events.type_code, codes)
        if start_ms is not None:
            keep &= events.time_ms >= start_ms
        if end_ms is not None:
            keep &= events.time_ms < end_ms
        return to_polars(
            events if keep.all() else events.take(keep), registry=self.registry
        )

    def joined(self, parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
        """Return the parts as one frame, with all the columns it must have.

        The parts lose their columns on the way.
        """
        there = [part for part in parts if len(part)]
        if not there:
            return pl.DataFrame(
                schema={name: self.schema[name] for name in self.always}
            )
        must = self.envelope if self.fields is None else self.always
        found = {name for part in there for name in part.columns}.union(must)
        # Column by column, and what is joined goes: else all would be there twice.
        columns = []
        for name, dtype in self.schema.items():
            if name in found:
                pieces = [_taken(there, at, name, dtype) for at in range(len(there))]
                columns.append(pl.concat(pieces, rechunk=True))
        return pl.DataFrame(columns)


def _taken(
    parts: list[pl.DataFrame], at: int, name: str, dtype: pl.DataType
) -> pl.Series:
    """Take a column out of a part; nulls if it has none of this name."""
    part = parts[at]
    if name not in part.columns:
        return pl.Series(name, [None], dtype=dtype).new_from_index(0, len(part))
    # The last column stays, which says how many rows there are.
    return part.drop_in_place(name) if part.width > 1 else part[name]


def _fields_of(event_type: str, registry: Registry) -> list[str]:
    versions = registry.versions(event_type).values()
    return list(dict.fromkeys(field.name for one in versions for field in one.fields))


def _narrowed(
    stream: str, candidates: dict[str, list[str]], columns: Sequence[str]
) -> dict[str, list[str]]:
    """Return of each type those of its fields that were asked for."""
    if isinstance(columns, str):
        raise UsageError(f"columns is the text {columns!r}.", "Pass a list of names.")
    asked = [field_name(name) for name in columns if name not in ENVELOPE_COLUMNS]
    known = {field for fields in candidates.values() for field in fields}
    for name in asked:
        if name is not None and name not in known:
            near = near_miss(name, known)
            raise UsageError(
                f"No event type looked for on {stream} has a field {name!r}.",
                f"Did you mean {near[0]!r}?"
                if near
                else f"Their fields are {', '.join(sorted(known))}.",
            )
    return {
        event_type: [field for field in fields if field in asked]
        for event_type, fields in candidates.items()
    }


def _in_order(
    found: Sequence[tuple[str, str]], columns: Sequence[str] | None
) -> list[tuple[str, str]]:
    """Return fields in the order asked for; the same name of two kinds together."""
    if columns is None:
        return list(found)
    asked = [field_name(name) or name for name in columns]
    last = len(asked)

    def place(field: tuple[str, str]) -> int:
        base = field[0].rpartition(":")[2]
        return asked.index(base) if base in asked else last

    return sorted(found, key=place)
