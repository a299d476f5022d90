"""Events for tests: what happens, and how much time passes in between."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from cep.clock import duration_ns, format_duration
from cep.errors import UsageError, near_miss, shown
from cep.events.envelope import Event
from cep.events.ids import words_to_ulid
from cep.events.registry import registry
from cep.events.timestamps import from_ms, to_ms

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import timedelta

    from cep.events.registry import EventType
    from cep.events.schema import FieldSpec

START: Final = datetime(2026, 1, 5, tzinfo=UTC)
START_MS: Final = to_ms(START)
NS_PER_MS: Final = 1_000_000
_FILLED: Final = {"float": 1.0, "int": 1, "bool": True}
_ENVELOPE: Final = ("correlation_id", "user_id")
_SHOWN_FIELDS: Final = 6


@dataclass(frozen=True, slots=True)
class Events:
    """Events of one type, one after the other; made by `events`."""

    type: str
    rows: tuple[dict[str, Any], ...]
    every_ms: int
    at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Advance:
    """Time that passes without an event; made by `advance`."""

    ms: int


@dataclass(frozen=True, slots=True)
class Given:
    """One event of a test: its number, its time since the start, the event."""

    number: int
    at_ms: int
    event: Event

    def __str__(self) -> str:
        fields = {**self.event.data}
        for name in _ENVELOPE:
            if getattr(self.event, name) is not None:
                fields.setdefault(name, getattr(self.event, name))
        told = [f"{name}={value!r:.40}" for name, value in fields.items()]
        more = ", ..." if len(told) > _SHOWN_FIELDS else ""
        return (
            f"#{self.number} at {offset(self.at_ms)}: {self.event.type} "
            f"{', '.join(told[:_SHOWN_FIELDS])}{more}"
        )


def offset(ms: int) -> str:
    """Return a time since the start of a test as text."""
    return format_duration(ms * NS_PER_MS)


def events(
    event_type: str,
    /,
    *,
    every: str | timedelta = "1s",
    at: str | timedelta | None = None,
    **fields: Any,
) -> Events:
    """Return events of one type for `given`.

    Parameters
    ----------
    event_type
        A registered type.
    every
        How long after the event before it each one comes; also the first one, unless
        it is the first of all or follows an `advance`. ``"0s"`` for the same time.
    at
        When the first one comes, counted from the start of the test, instead.
    fields
        The payload, and ``correlation_id`` and ``user_id`` of the envelope. A list
        stands for the values of as many events, anything else for the same value in
        each; a field that holds a list itself takes the list as it is. What the type
        requires and is not given is filled in: numbers are 1, truth values True, texts
        the first of the choices or the field's name, lists and objects empty.

    Raises
    ------
    UsageError
        If a field is unknown, or lists are of different lengths.
    InvalidPayloadError
        If a value is not one that may be published.

    >>> trades = events("market.trade", symbol="BTC", price=[100, 101, 99])
    >>> [row["price"] for row in trades.rows], trades.rows[0]["quantity"]
    ([100, 101, 99], 1.0)
    """
    known = registry.get(event_type)
    names = [field.name for field in known.fields]
    for name in fields:
        if name not in (*names, *_ENVELOPE):
            near = near_miss(name, [*names, *_ENVELOPE])
            raise UsageError(
                f"{event_type} has no field {name!r}.",
                f"Did you mean {near[0]!r}?"
                if near
                else f"Its fields are {', '.join(names)}.",
            )
    lengths = {
        name: len(value)
        for name, value in fields.items()
        if isinstance(value, list) and not _takes_lists(known, name)
    }
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {n}" for name, n in lengths.items())
        raise UsageError(
            f"The lists of fields of {event_type} have different lengths: {told}.",
            "Give one value for each event, or one value for all.",
        )
    n = next(iter(lengths.values()), 1)
    filled = {f.name: _example(f) for f in known.fields if f.required}
    rows = tuple(
        filled | {x: y[i] if x in lengths else y for x, y in fields.items()}
        for i in range(n)
    )
    for row in rows:
        _event(event_type, row, START_MS, 0)
    at_ms = None if at is None else _whole_ms(at)
    return Events(event_type, rows, _whole_ms(every), at_ms)


def advance(length: str | timedelta) -> Advance:
    """Return time that passes without an event, for `given`.

    >>> advance("31s").ms
    31000
    """
    return Advance(_whole_ms(length))


def placed(parts: Iterable[Any]) -> tuple[list[Given], int]:
    """Return the events in order of time, and when the test ends, in ms.

    Raises
    ------
    UsageError
        If something is neither events nor time.
    """
    found: list[tuple[int, str, dict[str, Any]]] = []
    clock, fresh = 0, True
    for part in _flat(parts):
        if isinstance(part, Advance):
            clock, fresh = clock + part.ms, True
            continue
        for i, row in enumerate(part.rows):
            if i == 0 and part.at_ms is not None:
                clock = part.at_ms
            elif not fresh:
                clock += part.every_ms
            fresh = False
            found.append((clock, part.type, row))
    found.sort(key=lambda one: one[0])
    last = max([clock, *(at for at, _, _ in found)])
    return [
        Given(number, at, _event(event_type, row, START_MS + at, number))
        for number, (at, event_type, row) in enumerate(found)
    ], last


def _flat(parts: Iterable[Any]) -> Iterable[Events | Advance]:
    for part in parts:
        if isinstance(part, list | tuple):
            yield from _flat(part)
        elif isinstance(part, Events | Advance):
            yield part
        else:
            raise UsageError(
                f"given takes events and time, got {shown(part)}.",
                'Write given(events("market.trade", price=[1, 2]), advance("31s")).',
            )


def _event(event_type: str, row: dict[str, Any], time_ms: int, number: int) -> Event:
    known = registry.get(event_type)
    payload = {name for name in row if known.field(name) is not None}
    return Event.new(
        event_type,
        {name: row[name] for name in payload},
        id=words_to_ulid(time_ms << 16, number),
        timestamp=from_ms(time_ms),
        **{name: row[name] for name in _ENVELOPE if name in row},
    )


def _takes_lists(known: EventType, name: str) -> bool:
    field = known.field(name)
    return field is not None and field.kind == "json"


def _example(field: FieldSpec) -> Any:
    if field.kind in _FILLED:
        return _FILLED[field.kind]
    if field.kind == "str":
        return field.choices[0] if field.choices else field.name
    if field.shape == "array":
        return []
    return {one.name: _example(one) for one in field.fields if one.required}


def _whole_ms(length: str | timedelta) -> int:
    return duration_ns(length, allow_zero=True, whole_ms=True) // NS_PER_MS


def told(given: Sequence[Given], end_ms: int, most: int = 15) -> str:
    """Return the events of a test for a message, the last ``most``."""
    lines = [f"  {one}" for one in given[-most:]]
    if len(given) > most:
        lines.insert(0, f"  ... {len(given) - most} events before")
    return "\n".join([*lines, f"  time went on to {offset(end_ms)}"])
