"""Events: the envelope, the known payloads, their ids and their form on the wire.

Importing this package registers the known event types. What needs numpy
(`EventColumns` and its parts) is imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cep.events import models
from cep.events.codec import decode, decode_row, encode
from cep.events.envelope import Event
from cep.events.ids import (
    MonotonicUlids,
    derived_ulid,
    ulid_time_ms,
    ulid_to_words,
    words_to_ulid,
)
from cep.events.payload import Integer, JsonObject, Name, Number, Payload, Text
from cep.events.reasons import Reason
from cep.events.registry import STREAMS, EventType, Registry, register, registry
from cep.events.schema import FieldSpec, check_payload, fields_of
from cep.events.timestamps import format_timestamp, parse_timestamp

if TYPE_CHECKING:
    from cep.events.columns import BadRow, Column, EventColumns

__all__ = [
    # envelope and wire
    "Event",
    "encode",
    "decode",
    "decode_row",
    "Reason",
    "format_timestamp",
    "parse_timestamp",
    # event types and their payloads
    "models",
    "register",
    "registry",
    "Registry",
    "EventType",
    "STREAMS",
    "Payload",
    "Number",
    "Integer",
    "Text",
    "Name",
    "JsonObject",
    "FieldSpec",
    "fields_of",
    "check_payload",
    # ids
    "MonotonicUlids",
    "derived_ulid",
    "ulid_time_ms",
    "ulid_to_words",
    "words_to_ulid",
    # columns
    "Column",
    "EventColumns",
    "BadRow",
]

_LAZY = {"BadRow", "Column", "EventColumns"}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        msg = f"module 'cep.events' has no attribute {name!r}"
        raise AttributeError(msg)
    from cep.events import columns

    found: object = getattr(columns, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
