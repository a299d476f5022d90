"""The wire: one event is one stream entry of nine flat fields, all text.

`encode` writes exactly these, in this order; `decode` reads them in any order.

==================  ===========================================================
field               what is read; anything else makes the entry bad
==================  ===========================================================
``id``              ULID in canonical form: 26 upper-case Crockford characters,
                    the first at most ``7`` (bad_id)
``stream``          the key of the stream that holds the entry, byte for byte
                    (stream_mismatch); not necessarily the type's home stream
``type``            a registered type (unknown_type)
``version``         decimal 1 to 999999999 without sign, blank or leading zero
                    (bad_version), registered for the type (unknown_version)
``timestamp``       see `cep.events.timestamps` (bad_timestamp); if a tolerance
                    is given, at most that far after the entry id's time
                    (future_timestamp)
``correlation_id``  any text; ``''`` means none
``user_id``         any text; ``''`` means none
``data``            a JSON object, see `cep.events.json_text` (malformed_json,
                    not_an_object, too_large), in which no field of the model
                    stands twice (duplicate_key: which one is meant?), and whose
                    fields pass `cep.events.schema.check_payload`
                    (missing_field, wrong_type, by the first problem in the
                    model's order; null where it is not allowed is a wrong_type)
``metadata``        a JSON object (the same); ``''`` is malformed, none is ``{}``
any other           kept as text in `Event.extra`
==================  ===========================================================

Names and values of all fields, the others included, must be UTF-8 (not_utf8),
and together take at most 262,144 bytes (too_large). All nine must be there
(missing_envelope_field). If a name occurs twice, the last value counts.

An entry with several faults gets the reason that comes first in this order:
size, UTF-8, presence of the nine, id, timestamp, version, stream, type, known
version, data as JSON, metadata as JSON, a field twice, data as payload.

This module is slow and meant to be obviously right: the columnar reader's
kernels are tested against `decode`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from cep.errors import InvalidPayloadError, Problem, WireError, shown
from cep.events.envelope import Event
from cep.events.ids import ulid_problem
from cep.events.json_text import dump_object, parse_object, plain, repeated_key
from cep.events.reasons import Reason
from cep.events.registry import Registry, registry
from cep.events.schema import check_payload
from cep.events.timestamps import ALLOWED, format_timestamp, from_ms, parse_timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cep.events.registry import EventType

FIELDS: Final = (
    "id",
    "stream",
    "type",
    "version",
    "timestamp",
    "correlation_id",
    "user_id",
    "data",
    "metadata",
)
"""The nine fields of an entry, in the order they are written."""

MAX_ENTRY_BYTES: Final = 256 * 1024
"""Names and values of all fields of an entry together."""

FUTURE_TOLERANCE_MS: Final = 5 * 60 * 1000
"""How far an event may lie after its arrival; what the pipeline passes."""

_VERSION: Final = re.compile(r"[1-9][0-9]{0,8}")
_KNOWN_NAMES: Final = frozenset(FIELDS)
_DETAILS_SHOWN: Final = 3


def encode(
    event: Event, *, registry: Registry = registry, closed_choices: bool = True
) -> dict[bytes, bytes]:
    """Return the entry of an event: nine fields, then those of ``event.extra``.

    Whatever this returns, `decode` reads back as an equal event. The payload
    is judged by its declared fields; `Event.new` has also asked its model.

    Parameters
    ----------
    event
        The event to write.
    registry
        Where its type is looked up.
    closed_choices
        Refuse values outside a field's choices. False is for writing another
        service's event again as it was read.

    Raises
    ------
    InvalidPayloadError
        If the payload is not valid, or the entry too large to be read back.
    UnknownEventTypeError, UnknownEventVersionError
        If nobody registered the type.
    """
    known = registry.get(event.type, event.version)
    problems: list[Problem] = []
    data = plain(event.data, "data", problems)
    metadata = plain(event.metadata, "metadata", problems)
    problems = problems or check_payload(
        known.fields, data, closed_choices=closed_choices
    )
    texts = {
        "id": event.id,
        "stream": event.stream,
        "type": event.type,
        "version": str(event.version),
        "timestamp": format_timestamp(event.time_ms),
        "correlation_id": event.correlation_id or "",
        "user_id": event.user_id or "",
    }
    for name, text in (*texts.items(), *event.extra.items()):
        plain(text, name, problems)
    problems += [
        Problem(f"extra.{name}", "one of the nine fields", "any other name")
        for name in _KNOWN_NAMES.intersection(event.extra)
    ]
    if problems:
        raise InvalidPayloadError(event.type, problems)
    fields = {name.encode(): text.encode() for name, text in texts.items()}
    fields[b"data"] = dump_object(data)
    fields[b"metadata"] = dump_object(metadata)
    fields |= {name.encode(): text.encode() for name, text in event.extra.items()}
    size = entry_size(fields.items())
    if size > MAX_ENTRY_BYTES:
        too_large = Problem(
            "the entry", f"{size} bytes", f"at most {MAX_ENTRY_BYTES} bytes"
        )
        raise InvalidPayloadError(event.type, [too_large])
    return fields


def decode(
    fields: Mapping[bytes, bytes],
    *,
    stream_key: str,
    entry_id: bytes | str = "",
    registry: Registry = registry,
    future_tolerance_ms: int | None = None,
) -> Event:
    """Return the event of an entry.

    Parameters
    ----------
    fields
        The entry's fields.
    stream_key
        The key of the stream that holds it.
    entry_id
        Its ``ms-seq``; named by errors, and the arrival time against which the
        future is judged.
    registry
        Where types are looked up.
    future_tolerance_ms
        Refuse event times more than this after the arrival time; None: do not.

    Raises
    ------
    WireError
        With one of `Reason` as ``reason``; see the module's table.
    """
    return decode_row(
        list(fields.items()), stream_key, registry, entry_id, future_tolerance_ms
    )


def decode_row(
    fields: Sequence[tuple[bytes, bytes]],
    stream_key: str,
    registry: Registry = registry,
    entry_id: bytes | str = "",
    future_tolerance_ms: int | None = None,
) -> Event:
    """Return the event of an entry given as a flat list of its fields.

    As `decode`, but it sees names that occur twice, which count twice in size.
    """
    entry = entry_id if isinstance(entry_id, str) else entry_id.decode()
    try:
        return _decode(fields, stream_key, registry, entry, future_tolerance_ms)
    except WireError as error:
        raise WireError(error.reason, error.detail, stream_key, entry) from None


def entry_size(fields: Iterable[tuple[bytes, bytes]]) -> int:
    """Return the bytes of all names and values, which `MAX_ENTRY_BYTES` limits."""
    return sum(len(name) + len(value) for name, value in fields)


def _decode(
    fields: Sequence[tuple[bytes, bytes]],
    stream_key: str,
    registry: Registry,
    entry_id: str,
    future_tolerance_ms: int | None,
) -> Event:
    size = entry_size(fields)
    if size > MAX_ENTRY_BYTES:
        detail = f"the entry has {size} bytes, allowed: at most {MAX_ENTRY_BYTES}"
        raise WireError(Reason.TOO_LARGE, detail)
    raw = dict(fields)
    texts = _texts(raw)
    _check_presence(texts)
    _check_id(texts["id"])
    time_ms = _read_time(texts["timestamp"], entry_id, future_tolerance_ms)
    version = _read_version(texts["version"])
    if texts["stream"] != stream_key:
        detail = f"stream is {shown(texts['stream'])}, allowed: {stream_key!r}"
        raise WireError(Reason.STREAM_MISMATCH, detail)
    known = _known_type(texts["type"], version, registry)
    data = parse_object(raw[b"data"], "data")
    metadata = parse_object(raw[b"metadata"], "metadata")
    _check_keys(known, raw[b"data"])
    _check_payload(known, data)
    return Event.model_construct(
        id=texts["id"],
        stream=texts["stream"],
        type=texts["type"],
        version=version,
        timestamp=from_ms(time_ms),
        correlation_id=texts["correlation_id"] or None,
        user_id=texts["user_id"] or None,
        data=data,
        metadata=metadata,
        extra={name: text for name, text in texts.items() if name not in _KNOWN_NAMES},
    )


def _texts(raw: Mapping[bytes, bytes]) -> dict[str, str]:
    texts = {}
    for name, value in raw.items():
        try:
            texts[name.decode()] = value.decode()
        except UnicodeDecodeError as error:
            field = name.decode("utf-8", "backslashreplace")[:80]
            byte = error.object[error.start]
            detail = f"field {field!r} holds byte 0x{byte:02x} at {error.start}"
            raise WireError(Reason.NOT_UTF8, f"{detail}, allowed: UTF-8") from None
    return texts


def _check_presence(texts: Mapping[str, str]) -> None:
    absent = [name for name in FIELDS if name not in texts]
    if absent:
        detail = f"missing: {', '.join(absent)}; an entry has {', '.join(FIELDS)}"
        raise WireError(Reason.MISSING_ENVELOPE_FIELD, detail)


def _check_id(text: str) -> None:
    problem = ulid_problem(text)
    if problem:
        detail = f"id is {shown(text)}: {problem}, allowed: a ULID"
        raise WireError(Reason.BAD_ID, detail)


def _read_time(text: str, entry_id: str, future_tolerance_ms: int | None) -> int:
    time_ms = parse_timestamp(text)
    if time_ms is None:
        detail = f"timestamp is {shown(text)}, allowed: {ALLOWED}"
        raise WireError(Reason.BAD_TIMESTAMP, detail)
    if future_tolerance_ms is not None and entry_id:
        arrived_ms = int(entry_id.partition("-")[0])
        if time_ms > arrived_ms + future_tolerance_ms:
            detail = (
                f"timestamp is {text}, {(time_ms - arrived_ms) / 1000:.0f} s after "
                f"its arrival, allowed: at most {future_tolerance_ms / 1000:.0f} s"
            )
            raise WireError(Reason.FUTURE_TIMESTAMP, detail)
    return time_ms


def _read_version(text: str) -> int:
    if _VERSION.fullmatch(text) is None:
        detail = f"version is {shown(text)}, allowed: a decimal number from 1"
        raise WireError(Reason.BAD_VERSION, detail)
    return int(text)


def _known_type(name: str, version: int, registry: Registry) -> EventType:
    versions = registry.versions(name)
    if not versions:
        detail = f"type is {shown(name)}, allowed: a registered event type"
        raise WireError(Reason.UNKNOWN_TYPE, detail)
    if version not in versions:
        known = ", ".join(map(str, sorted(versions)))
        detail = f"{name} has no version {version}, allowed: {known}"
        raise WireError(Reason.UNKNOWN_VERSION, detail)
    return versions[version]


def _check_keys(known: EventType, raw: bytes) -> None:
    name = repeated_key(raw, [field.name for field in known.fields])
    if name is not None:
        detail = f"data has {name!r} more than once, allowed: each field once"
        raise WireError(Reason.DUPLICATE_KEY, detail)


def _check_payload(known: EventType, data: Mapping[str, Any]) -> None:
    problems = check_payload(known.fields, data)
    if not problems:
        return
    first = problems[0]
    reason = Reason.MISSING_FIELD if first.missing else Reason.WRONG_TYPE
    detail = "; ".join(str(problem) for problem in problems[:_DETAILS_SHOWN])
    more = len(problems) - _DETAILS_SHOWN
    raise WireError(reason, detail + (f"; and {more} more" if more > 0 else ""))
