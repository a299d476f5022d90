"""Frames to events as columns: the way back from `cep.frames.convert`.

Takes what `load` gives, whole or filtered, and frames of the user's own. What
is not an event is refused with its row, so that rules over a frame see exactly
what they would see live.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa

from cep.bus.column_plan import ENVELOPE_COLUMNS, plan_columns
from cep.errors import UsageError, near_miss, shown
from cep.events.columns import DTYPES, Column, EventColumns
from cep.events.registry import Registry, registry
from cep.events.schema import FieldSpec, allowed
from cep.events.timestamps import END_MS
from cep.frames.convert import masked
from cep.frames.ids import (
    made_entry_ids,
    made_event_ids,
    parse_entry_ids,
    parse_event_ids,
)
from cep.frames.shape import OWN, column_name

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from cep.bus.column_plan import ColumnPlan
    from cep.events.registry import EventType

_INT_LIMIT: Final = float(2**63)
_WORDS: Final = {
    kind: allowed(FieldSpec("", kind)) for kind in ("float", "int", "bool", "str")
} | {"json": "JSON text, or a list"}


def columns_from_frame(
    frame: pl.DataFrame | pl.LazyFrame | pd.DataFrame | pa.Table,
    *,
    stream: str | None = None,
    event_type: str | None = None,
    fields: Mapping[str, Collection[str]] | None = None,
    registry: Registry = registry,
) -> EventColumns:
    """Return the rows of a frame as events of one stream, in entry id order.

    Parameters
    ----------
    frame
        With these columns; `load` gives all of them.

        ``event_time``
            Times, in UTC if they have no zone, or integers in milliseconds
            since 1970 in UTC; finer times are cut to milliseconds. In pandas
            it may be the index.
        ``type``
            A registered event type in each row; left out if ``event_type``
            says it for all.
        payload fields
            By their names, see `cep.frames.shape`; null where a row's type
            lacks the field or the payload left it out. Numbers, strings and
            booleans as they are; nested fields as JSON text, or lists. What
            stands in a row whose type does not declare the field, and columns
            that no type declares, are passed over.
        ``event_id``
            ULIDs. Without this column a row's id is made of its event time,
            the stream's name and its row number, as
            `cep.frames.ids.made_event_ids` says: the same frame gives the same
            ids each time, a filtered one others.
        ``entry_id``
            ``ms-seq``, each once; rows are put into this order, which is that
            of arrival. Without this column the rows' order is kept and entry
            ids are made, see `cep.frames.ids.made_entry_ids`.
        ``@correlation_id``, ``@user_id``, ``@version``, ``@metadata``
            Envelope fields, where there are any.
    stream
        The stream; by default the home of the types, if they have one home.
    event_type
        The type of all rows of a frame without a ``type`` column.
    fields
        Of each event type the payload (and envelope) fields wanted. There must
        be a column for each that the type requires; without one, an optional
        field is absent from all rows. None: whatever there is.
    registry
        Where event types are looked up.

    Raises
    ------
    UnknownEventTypeError
        With the near miss.
    UsageError
        If a column is missing, of the wrong type, or a value is not one that
        may stand in its field: names column and row, counted from 0.

    Examples
    --------
    >>> from datetime import datetime, UTC
    >>> bars = pl.DataFrame({
    ...     "event_time": [datetime(2026, 1, 5, 9, 30, tzinfo=UTC)],
    ...     "symbol": ["ACME"], "price": [12.5], "quantity": [100.0],
    ... })
    >>> events = columns_from_frame(bars, event_type="market.trade")
    >>> events.stream, events.fields["price"].to_list()
    ('market.events', [12.5])
    """
    table = as_polars(frame)
    type_code, types = _types(table, event_type, registry)
    stream = stream or _home(types, registry)
    time_ms = _times(table)
    if "event_id" in table.columns:
        id_hi, id_lo = parse_event_ids(_text(table["event_id"], "event ids"))
    else:
        id_hi, id_lo = made_event_ids(stream, time_ms)
    if "entry_id" in table.columns:
        entry_ms, entry_seq = parse_entry_ids(_text(table["entry_id"], "entry ids"))
    else:
        entry_ms, entry_seq = made_entry_ids(time_ms)
    wanted, envelope = _wanted(table, types, fields, registry)
    plan = plan_columns(stream, registry, wanted, envelope)
    found = EventColumns(
        stream,
        entry_ms,
        entry_seq,
        time_ms,
        id_hi,
        id_lo,
        type_code,
        types,
        _fields(table, type_code, types, plan),
    )
    return _in_arrival_order(found)


def as_polars(frame: Any) -> pl.DataFrame:
    """Return a frame of polars, pandas or Arrow as one of polars.

    A named index of pandas becomes a column; its NaN become null.

    Raises
    ------
    UsageError
        If it is none of these.
    """
    if isinstance(frame, pl.DataFrame):
        return frame
    if isinstance(frame, pl.LazyFrame):
        return frame.collect()
    if isinstance(frame, pa.Table | pa.RecordBatch):
        found = pl.from_arrow(frame)
        assert isinstance(found, pl.DataFrame)
        return found
    if hasattr(frame, "reset_index"):
        if frame.index.name is not None and frame.index.name not in frame.columns:
            frame = frame.reset_index()
        table: pl.DataFrame = pl.from_pandas(frame)
        return table
    raise UsageError(
        f"{shown(frame)} is no frame.", "Pass one of polars, pandas or Arrow."
    )


def _types(
    table: pl.DataFrame, event_type: str | None, registry: Registry
) -> tuple[NDArray[np.int32], list[str]]:
    """Return each row's type as a code into names, in the registry's order."""
    if event_type is not None:
        registry.get(event_type)
        if "type" not in table.columns:
            return np.zeros(len(table), np.int32), [event_type]
    elif "type" not in table.columns:
        raise UsageError(
            "The frame has no column 'type'.",
            "Add one, or pass event_type=..., or types=... with one type to load.",
        )
    column = _text(table["type"], "event types")
    if column.null_count():
        row = column.is_null().arg_max()
        raise UsageError(f"type, row {row}: null is no event type.", "Drop that row.")
    names = column.unique().to_list()
    for name in names:
        registry.get(name)
    if event_type is not None and names not in ([], [event_type]):
        raise UsageError(
            f"The column 'type' says {names[0]!r}, event_type {event_type!r}.",
            "Leave event_type out.",
        )
    order = list(dict.fromkeys(known.name for known in registry.all()))
    types = sorted(names, key=order.index)
    if not types:
        return np.zeros(0, np.int32), []
    codes = column.replace_strict(types, list(range(len(types))), return_dtype=pl.Int32)
    return codes.to_numpy(), types


def _home(types: Sequence[str], registry: Registry) -> str:
    homes = sorted({registry.get(name).stream for name in types})
    if len(homes) == 1:
        return homes[0]
    raise UsageError(
        f"The events are at home on {' and '.join(homes)}."
        if homes
        else "An empty frame does not say its stream.",
        "Pass a frame for each, as run_rules takes them: "
        f"{{{', '.join(f'{home!r}: frame' for home in homes)}}}."
        if homes
        else 'Pass stream=..., or to run_rules {"market.events": frame}.',
    )


def _times(table: pl.DataFrame) -> NDArray[np.int64]:
    if "event_time" not in table.columns:
        near = near_miss("event_time", table.columns) or [
            name for name in ("timestamp", "time", "ts") if name in table.columns
        ]
        hint = f"Is it {near[0]!r}? Rename that." if near else "Add one."
        raise UsageError("The frame has no column 'event_time'.", hint)
    given = table["event_time"]
    if isinstance(given.dtype, pl.Datetime):
        times = given.dt.epoch("ms")
    elif given.dtype.is_integer():
        times = given.cast(pl.Int64, strict=False)
    else:
        raise UsageError(
            f"event_time is of type {given.dtype}, which is no time.",
            'Convert it, as .str.to_datetime(time_zone="UTC") does for text.',
        )
    good = times.is_between(0, END_MS - 1).fill_null(value=False)
    if not good.all():
        row = (~good).arg_max() or 0
        raise UsageError(
            f"event_time, row {row}: {shown(given[row])} is not a time from 1970 to "
            "2261.",
            f"{(~good).sum()} of {len(good)} rows are like that; mend or drop them.",
        )
    return times.to_numpy().astype(np.int64, copy=False)


def _wanted(
    table: pl.DataFrame,
    types: Sequence[str],
    fields: Mapping[str, Collection[str]] | None,
    registry: Registry,
) -> tuple[dict[str, list[str]], list[str]]:
    """Return of each type the fields to take, and the envelope fields to take."""
    there = set(table.columns)
    if fields is None:
        envelope = [name for name in ENVELOPE_COLUMNS if name in there]
        return {name: _declared(name, registry) for name in types}, envelope
    present = {name: fields[name] for name in types if name in fields}
    wanted = {
        name: [one for one in names if one not in ENVELOPE_COLUMNS]
        for name, names in present.items()
    }
    envelope = [
        name
        for name in ENVELOPE_COLUMNS
        if any(name in one for one in present.values())
    ]
    for name in envelope:
        if name not in there:
            raise UsageError(
                f"The frame has no column {name!r}.", "Load it with envelope=True."
            )
    for event_type, names in wanted.items():
        versions = registry.versions(event_type).values()
        for name in names:
            if not all(_requires(known, name) for known in versions):
                continue
            columns = {column_name(name), column_name(f"{event_type}:{name}")}
            if not columns & there:
                near = near_miss(name, there - set(OWN))
                meant = f"Did you mean {near[0]!r}? " if near else ""
                raise UsageError(
                    f"The frame has no column {column_name(name)!r}, a field of "
                    f"{event_type} that is needed.",
                    f"{meant}Its columns are {', '.join(table.columns)}.",
                )
    return wanted, envelope


def _requires(known: EventType, name: str) -> bool:
    spec = known.field(name)
    return spec is None or spec.required


def _declared(event_type: str, registry: Registry) -> list[str]:
    versions = registry.versions(event_type).values()
    return list(dict.fromkeys(field.name for one in versions for field in one.fields))


def _fields(
    table: pl.DataFrame,
    type_code: NDArray[np.int32],
    types: Sequence[str],
    plan: ColumnPlan,
) -> dict[str, Column]:
    sources: dict[int, list[tuple[str, FieldSpec]]] = {}
    for known, targets in zip(plan.types, plan.targets, strict=True):
        for spec, target in zip(known.fields, targets, strict=True):
            if target >= 0 and known.name in types:
                sources.setdefault(target, []).append((known.name, spec))
    found = {}
    for target, users in sorted(sources.items()):
        name, kind = plan.columns[target]
        if column_name(name) in table.columns:
            names = [user for user, _ in users]
            rows = np.isin(type_code, [types.index(user) for user in names])
            column = _column(table[column_name(name)], name, kind, rows)
            _check_presence(column, type_code, types, users)
            found[name] = column
    for name in plan.envelope:
        if name in table.columns:
            kind = ENVELOPE_COLUMNS[name]
            every = np.ones(len(table), np.bool_)
            found[name] = _column(table[name], name, kind, every)
    return found


def _check_presence(
    column: Column,
    type_code: NDArray[np.int32],
    types: Sequence[str],
    users: Sequence[tuple[str, FieldSpec]],
) -> None:
    """Refuse nulls where a type requires a value in each of its versions."""
    if column.valid is None:
        return
    for event_type in dict.fromkeys(name for name, _ in users):
        specs = [spec for name, spec in users if name == event_type]
        if any(spec.nullable or not spec.required for spec in specs):
            continue
        missing = ~column.valid & (type_code == types.index(event_type))
        if missing.any():
            raise UsageError(
                f"{specs[0].name}, row {missing.argmax()}: null, but {event_type} "
                f"needs {allowed(specs[0])}.",
                f"{missing.sum()} rows are like that; mend or drop them.",
            )


def _column(given: pl.Series, name: str, kind: str, rows: NDArray[np.bool_]) -> Column:
    """Return the values of those rows, the others not valid."""
    present = rows & given.is_not_null().to_numpy()
    # A column of nothing but nulls may be of any type.
    if not present.any():
        return Column.empty(kind, len(given))
    valid = None if present.all() else present
    if kind in ("str", "json"):
        texts = _json_texts(given, name) if kind == "json" else given
        if not isinstance(texts.dtype, pl.String | pl.Categorical | pl.Enum):
            raise _wrong_type(given, name, kind)
        return _coded(texts.cast(pl.String), name, kind, present, valid)
    fits = {
        "float": given.dtype.is_numeric(),
        "int": given.dtype.is_numeric(),
        "bool": given.dtype == pl.Boolean,
    }
    if not fits[kind]:
        raise _wrong_type(given, name, kind)
    values: NDArray[Any]
    if kind == "bool":
        values = given.fill_null(value=False).to_numpy().astype(np.bool_)
    elif kind == "float":
        values = given.cast(pl.Float64).fill_null(0.0).to_numpy().astype(np.float64)
        _refuse(~np.isfinite(values) & present, given, name, kind)
    else:
        values = _whole(given, name, present)
    return Column(kind, np.where(present, values, DTYPES[kind](0)), valid)


def _whole(
    given: pl.Series, name: str, present: NDArray[np.bool_]
) -> NDArray[np.int64]:
    if given.dtype.is_integer():
        numbers = given.cast(pl.Int64, strict=False)
        _refuse(present & numbers.is_null().to_numpy(), given, name, "int")
        return numbers.fill_null(0).to_numpy().astype(np.int64, copy=False)
    floats = given.cast(pl.Float64).fill_null(0.0).to_numpy()
    good = (
        (floats == np.floor(floats)) & (floats >= -_INT_LIMIT) & (floats < _INT_LIMIT)
    )
    _refuse(present & ~good, given, name, "int")
    return np.where(good, floats, 0).astype(np.int64)


def _json_texts(given: pl.Series, name: str) -> pl.Series:
    if given.dtype.is_nested():
        texts = [
            None if value is None else msgspec.json.encode(value).decode()
            for value in given.to_list()
        ]
        return pl.Series(given.name, texts, dtype=pl.String)
    if isinstance(given.dtype, pl.String | pl.Categorical | pl.Enum):
        for text in given.cast(pl.String).drop_nulls().unique(maintain_order=True):
            try:
                msgspec.json.decode(text)
            except msgspec.DecodeError:
                row = (given.cast(pl.String) == text).arg_max()
                raise UsageError(
                    f"{name}, row {row}: {shown(text)} is not JSON.",
                    "Write nested values as JSON text.",
                ) from None
    return given


def _coded(
    texts: pl.Series,
    name: str,
    kind: str,
    present: NDArray[np.bool_],
    valid: NDArray[np.bool_] | None,
) -> Column:
    if valid is not None:
        texts = masked(texts, present)
    # Through polars: pyarrow's own to_numpy and fill_null load pandas.
    coded = texts.to_arrow().dictionary_encode()
    codes = pl.Series(coded.indices).fill_null(0).to_numpy()
    return Column(kind, codes.astype(np.int32), valid, coded.dictionary.to_pylist())


def _text(series: pl.Series, what: str) -> pl.Series:
    if isinstance(series.dtype, pl.String | pl.Categorical | pl.Enum):
        return series.cast(pl.String)
    if series.null_count() == len(series):
        return series.cast(pl.String)
    raise UsageError(
        f"{series.name} is of type {series.dtype}.", f"It must hold {what} as text."
    )


def _wrong_type(given: pl.Series, name: str, kind: str) -> UsageError:
    row = given.is_not_null().arg_max() or 0
    value = shown(given[row]) if len(given) else "nothing"
    return UsageError(
        f"{name} is of type {given.dtype} ({value} in row {row}).",
        f"It must hold {_WORDS[kind]}.",
    )


def _refuse(wrong: NDArray[np.bool_], given: pl.Series, name: str, kind: str) -> None:
    if wrong.any():
        row = int(wrong.argmax())
        raise UsageError(
            f"{name}, row {row}: {shown(given[row])}, allowed: {_WORDS[kind]}.",
            f"{wrong.sum()} rows are like that; mend or drop them.",
        )


def _in_arrival_order(events: EventColumns) -> EventColumns:
    if len(events) < 2:
        return events
    ms, seq = events.entry_ms, events.entry_seq
    rises = (ms[1:] > ms[:-1]) | ((ms[1:] == ms[:-1]) & (seq[1:] > seq[:-1]))
    if rises.all():
        return events
    order = np.lexsort((seq, ms))
    ms, seq = ms[order], seq[order]
    twice = (ms[1:] == ms[:-1]) & (seq[1:] == seq[:-1])
    if twice.any():
        at = int(twice.argmax())
        first, second = sorted(order[at : at + 2].tolist())
        raise UsageError(
            f"entry_id {ms[at]}-{seq[at]} is in row {first} and again in row {second}.",
            "Keep each event once, or drop the column to have new entry ids made.",
        )
    return events.take(order)
