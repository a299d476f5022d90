"""What a frame of events looks like: its columns, their names, their types.

=================  ===================  ================  =====================
column             polars               pandas            Arrow
=================  ===================  ================  =====================
``event_time``     Datetime(ms, UTC)    datetime64[ms,    timestamp[ms, UTC]
                                        UTC]
``type``           Categorical          category          dictionary
payload, float     Float64              float64           double
payload, int       Int64                Int64             int64
payload, bool      Boolean              boolean           bool
payload, str       String               str               large_string
payload, label     Categorical          category          dictionary
payload, json      String, JSON text    str               large_string
``event_id``       String               str               large_string
``entry_id``       String               str               large_string
``@version``       Int64                Int64             int64
``@correlation_id``, ``@user_id``, ``@metadata`` (JSON text): String
=================  ===================  ================  =====================

A *label* is a string field that names one of few things: one of `LABELS`, or
a field that some registered type declares with a fixed choice. That depends on
the registry alone, never on what was loaded, so frames of different days have
equal types.

A payload field that is named like one of the frame's own columns has ``data.``
before its name, and so has one that begins with ``data.`` itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cep.bus.column_plan import ENVELOPE_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import polars as pl

    from cep.events.registry import Registry

LEADING: Final = ("event_time", "type")
TRAILING: Final = ("event_id", "entry_id")
OWN: Final = (*LEADING, *TRAILING)

LABELS: Final = frozenset(
    {
        "ai_provider",
        "embedding_model_used",
        "error_type",
        "key",
        "metric_name",
        "mime_type",
        "model_id",
        "model_used",
        "preferred_model",
        "rule",
        "service",
        "service_name",
        "severity",
        "side",
        "symbol",
        "venue",
    }
)
"""String fields that are dictionary-coded, beside those with fixed choices."""

_PREFIX: Final = "data."


def column_name(field: str) -> str:
    """Return the frame's name for a field of `EventColumns`.

    >>> column_name("price"), column_name("type")
    ('price', 'data.type')
    """
    return _PREFIX + field if field in OWN or field.startswith(_PREFIX) else field


def field_name(column: str) -> str | None:
    """Return the field in a column of a frame, None for the frame's own columns.

    >>> field_name("price"), field_name("data.type"), field_name("type")
    ('price', 'type', None)
    """
    return None if column in OWN else column.removeprefix(_PREFIX)


def labels_of(registry: Registry) -> Collection[str]:
    """Return the names of all string fields that are dictionary-coded."""
    chosen = {
        field.name
        for known in registry.all()
        for field in known.fields
        if field.choices is not None
    }
    return LABELS | chosen


def dtype_of(field: str, kind: str, labels: Collection[str]) -> pl.DataType:
    """Return the polars type of a field's column."""
    import polars as pl

    if kind == "str" and field.rpartition(":")[2] in labels:
        return pl.Categorical()
    return {
        "float": pl.Float64(),
        "int": pl.Int64(),
        "bool": pl.Boolean(),
        "str": pl.String(),
        "json": pl.String(),
    }[kind]


def event_time_dtype() -> pl.DataType:
    """Return the polars type of event times."""
    import polars as pl

    return pl.Datetime("ms", "UTC")


def schema_of(
    fields: Iterable[tuple[str, str]], labels: Collection[str]
) -> dict[str, pl.DataType]:
    """Return the columns of a frame with these fields, given as (name, kind)."""
    import polars as pl

    payload: dict[str, pl.DataType] = {}
    envelope: dict[str, pl.DataType] = {}
    for name, kind in fields:
        into = envelope if name in ENVELOPE_COLUMNS else payload
        into[column_name(name)] = dtype_of(name, kind, labels)
    return {
        "event_time": event_time_dtype(),
        "type": pl.Categorical(),
        **payload,
        "event_id": pl.String(),
        "entry_id": pl.String(),
        **envelope,
    }
