"""A frame of many types as one frame of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cep.bus.column_plan import ENVELOPE_COLUMNS
from cep.errors import UsageError
from cep.events.registry import Registry, registry
from cep.frames.from_frame import as_polars
from cep.frames.shape import OWN, column_name

if TYPE_CHECKING:
    import polars as pl


def by_type(frame: Any, *, registry: Registry = registry) -> dict[str, pl.DataFrame]:
    """Return the rows of each event type, with the columns that it has.

    Parameters
    ----------
    frame
        What `load` returns for a stream: of polars, pandas or Arrow.
    registry
        Where event types are looked up.

    Returns
    -------
    Of each type that occurs, sorted by name, its rows and columns in their order: its
    own ones, those of the envelope, and of the others those that some version of
    the type declares, under the names they had.

    Raises
    ------
    UnknownEventTypeError, UsageError
        For a type nobody registered, a frame without a column ``type``, and what is
        no frame.

    Examples
    --------
    >>> from cep.frames import load
    >>> frames = by_type(load("market.events", url="sample"))
    >>> frames["market.trade"].columns[:4]
    ['event_time', 'type', 'symbol', 'price']
    """
    table = as_polars(frame)
    if "type" not in table.columns:
        raise UsageError("The frame has no column 'type'.", "Pass what load returns.")
    parts = {
        str(part["type"][0]): part
        for part in table.partition_by("type", maintain_order=True)
    }
    return {
        name: parts[name].select(_columns_of(name, table.columns, registry))
        for name in sorted(parts)
    }


def _columns_of(event_type: str, columns: list[str], registry: Registry) -> list[str]:
    registry.get(event_type)
    kept = {*OWN, *ENVELOPE_COLUMNS}
    for version, known in registry.versions(event_type).items():
        for field in known.fields:
            qualified = f"{event_type}:{field.name}"
            names = (field.name, qualified, f"{qualified}@{version}")
            kept |= {column_name(name) for name in names}
    return [column for column in columns if column in kept]
