"""A file of history as a frame of events.

`read_file` reads Parquet or CSV; `as_events` maps its columns to the fields of
one event type and gives a frame that `cep.bus.replay` publishes: ``event_time``
(Datetime, ms, UTC), ``type``, then one column per payload field. Everything
that could be wrong is said here, before anything is published.

Times: a column with a zone is converted to UTC, one without is taken for UTC;
text must be ISO 8601; numbers count from 1970 in the unit that is named.
Finer times than milliseconds are cut.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from cep.bus.payload_columns import Payloads
from cep.errors import UsageError, near_miss, shown
from cep.events import registry as default_registry
from cep.events.schema import allowed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import polars as pl

    from cep.events import EventType, FieldSpec, Registry

TIME_NAMES: Final = ("event_time", "timestamp", "ts", "time")
# Each as multiplier and divisor to milliseconds.
TIME_UNITS: Final = {"s": (1000, 1), "ms": (1, 1), "us": (1, 1000), "ns": (1, 10**6)}

_PAIR = re.compile(r"\s*([^=,\s]+)\s*=\s*('[^']*'|[^,]*?)\s*(?:,|$)")


def read_file(path: Path) -> pl.DataFrame:
    """Return the table in a ``.parquet`` or ``.csv`` file.

    Raises
    ------
    UsageError
        If there is no such file, its ending is another, or it cannot be read.
    """
    import polars as pl

    if not path.is_file():
        beside = path.parent.glob("*") if path.parent.is_dir() else ()
        near = near_miss(path.name, [other.name for other in beside])
        hint = f"Did you mean {near[0]!r}?" if near else "Check the path."
        raise UsageError(f"There is no file {str(path)!r}.", hint)
    ending = path.suffix.lower()
    if ending not in {".parquet", ".csv"}:
        raise UsageError(
            f"{path.name!r} is neither a .parquet nor a .csv file.",
            "Convert it, for example with polars or pandas.",
        )
    try:
        if ending == ".csv":
            # All rows decide on the types: an "n/a" may come late.
            return pl.read_csv(path, try_parse_dates=True, infer_schema_length=None)
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        what = str(error).partition("\n")[0].rstrip(".")
        raise UsageError(
            f"{path.name!r} cannot be read: {what}.", "Is it complete?"
        ) from error


def parse_mapping(text: str) -> dict[str, str]:
    """Return ``field=column`` pairs; a quoted column is a constant.

    >>> parse_mapping("price=px, venue='binance-spot'")
    {'price': 'px', 'venue': "'binance-spot'"}

    Raises
    ------
    UsageError
        If the text is anything else, or names a field twice.
    """
    pairs: dict[str, str] = {}
    end = 0
    while end < len(text):
        match = _PAIR.match(text, end)
        if match is None or not match[2]:
            raise UsageError(
                f"{text[end:]!r} is not a mapping.",
                "Write field=column pairs parted by commas, as price=px,quantity=qty.",
            )
        if match[1] in pairs:
            raise UsageError(f"{match[1]!r} is mapped twice.", "Leave one out.")
        pairs[match[1]] = match[2]
        end = match.end()
    return pairs


def as_events(
    table: pl.DataFrame,
    event_type: str,
    *,
    mapping: Mapping[str, str] | None = None,
    constants: Mapping[str, str] | None = None,
    time: str | None = None,
    time_unit: str = "ms",
    registry: Registry = default_registry,
) -> pl.DataFrame:
    """Return a table's rows as events of one type, in the same order.

    Parameters
    ----------
    table
        Any columns.
    event_type
        A registered type.
    mapping
        Payload field to column name, or to a constant in single quotes. A
        field that is not named is taken from the column of the same name.
    constants
        Payload field to the text of a constant, for all rows.
    time
        The column with the event time; by default the first there is of
        ``event_time``, ``timestamp``, ``ts``, ``time``.
    time_unit
        What numbers in it count: ``s``, ``ms``, ``us`` or ``ns``.

    Raises
    ------
    UnknownEventTypeError
        With the near miss.
    UsageError
        If a column or field does not exist, a required field is not mapped, or
        a time is none.
    InvalidPayloadError
        If values may not stand in their fields; names the rows, from 0.
    """
    import polars as pl

    known = registry.get(event_type)
    if time_unit not in TIME_UNITS:
        raise UsageError(
            f"{time_unit!r} is no unit of time.", f"Use {' or '.join(TIME_UNITS)}."
        )
    sources = _sources(table, known, dict(mapping or {}), dict(constants or {}))
    times = _event_time(table, time, time_unit)
    payload = [
        _column(table, field, sources[field.name])
        for field in known.fields
        if field.name in sources
    ]
    Payloads(known, {column.name: column for column in payload})
    types = pl.Series("type", [event_type]).new_from_index(0, len(table))
    return pl.DataFrame([times, types, *payload])


def _sources(
    table: pl.DataFrame,
    known: EventType,
    mapping: dict[str, str],
    constants: dict[str, str],
) -> dict[str, str]:
    """Return field to column name, or to a quoted constant, for every field used."""
    fields = {field.name: field for field in known.fields}
    for name in (*mapping, *constants):
        if name not in fields:
            raise UsageError(
                f"{known.name} has no field {name!r}.",
                _meant(name, fields, "Its fields are"),
            )
        if name in mapping and name in constants:
            raise UsageError(f"{name!r} is given twice.", "Leave one out.")
    for column in mapping.values():
        if not _is_constant(column) and column not in table.columns:
            raise UsageError(
                f"The file has no column {column!r}.",
                _meant(column, table.columns, "Its columns are"),
            )
    same = {name: name for name in fields if name in table.columns}
    quoted = {name: f"'{text}'" for name, text in constants.items()}
    sources = {**same, **mapping, **quoted}
    for name, field in fields.items():
        if field.required and name not in sources:
            raise UsageError(
                f"{known.name} needs {name!r} ({allowed(field)}) and no column has "
                "that name.",
                f"Map it to one of {', '.join(table.columns)}.",
            )
    return sources


def _meant(name: str, known: Iterable[str], are: str) -> str:
    names = list(known)
    near = near_miss(name, names, limit=1)
    meant = f"Did you mean {near[0]!r}? " if near else ""
    return f"{meant}{are} {', '.join(names)}."


def _is_constant(source: str) -> bool:
    return len(source) > 1 and source[0] == source[-1] == "'"


def _event_time(table: pl.DataFrame, name: str | None, unit: str) -> pl.Series:
    import polars as pl

    column = name or next((n for n in TIME_NAMES if n in table.columns), None)
    if column is None:
        raise UsageError(
            f"No column is named {', '.join(TIME_NAMES)}.",
            f"Name the one with the event time; there are {', '.join(table.columns)}.",
        )
    if column not in table.columns:
        raise UsageError(
            f"The file has no column {column!r}.",
            _meant(column, table.columns, "Its columns are"),
        )
    given = table[column]
    times = _to_utc(given, unit).cast(pl.Datetime("ms", "UTC")).alias("event_time")
    good = times.dt.year().is_between(1970, 2261).fill_null(value=False)
    _refuse_times(~good, given)
    return times


def _to_utc(given: pl.Series, unit: str) -> pl.Series:
    """Return times in UTC, null where a value is none."""
    import polars as pl

    if isinstance(given.dtype, pl.Datetime):
        if given.dtype.time_zone is None:
            return given.dt.replace_time_zone("UTC")
        return given.dt.convert_time_zone("UTC")
    if given.dtype == pl.String:
        return given.str.to_datetime(time_zone="UTC", strict=False)
    multiplier, divisor = TIME_UNITS[unit]
    if given.dtype.is_integer():
        count = given.cast(pl.Int64, strict=False) * multiplier // divisor
        return count.cast(pl.Datetime("ms", "UTC"))
    if given.dtype.is_float():
        # Rounded: 1723161255.342 s is no exact double.
        count = (given * multiplier / divisor).round().cast(pl.Int64, strict=False)
        return count.cast(pl.Datetime("ms", "UTC"))
    if given.dtype == pl.Date:
        return given.cast(pl.Datetime("ms", "UTC"))
    return pl.Series([None], dtype=pl.Datetime("ms", "UTC")).new_from_index(
        0, len(given)
    )


def _column(table: pl.DataFrame, field: FieldSpec, source: str) -> pl.Series:
    """Return the values of one field as `cep.bus.payload_columns` takes them."""
    import polars as pl

    if _is_constant(source):
        one = pl.Series([_constant(field, source[1:-1])])
        return one.new_from_index(0, len(table)).alias(field.name)
    values = table[source].alias(field.name)
    if isinstance(values.dtype, pl.Decimal):
        return values.cast(pl.Float64)
    # Floats stay and are refused: nobody chose how to write them as text.
    textual = values.dtype.is_integer() or values.dtype.is_temporal()
    if field.kind == "str" and (
        textual or isinstance(values.dtype, pl.Categorical | pl.Enum)
    ):
        return values.cast(pl.String)
    return values


def _constant(field: FieldSpec, text: str) -> object:
    """Return a constant in the type of its field; JSON but for strings."""
    if field.kind == "str":
        return text
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise UsageError(
            f"{field.name} cannot be {text!r}.", f"Give {allowed(field)}."
        ) from error


def _refuse_times(wrong: pl.Series, given: pl.Series) -> None:
    if wrong.any():
        row = wrong.arg_max() or 0
        raise UsageError(
            f"Column {given.name!r}, row {row}: {shown(given[row])} is not a time "
            "from 1970 to 2261.",
            f"{wrong.sum()} of {len(given)} rows are like that; nothing was written.",
        )
