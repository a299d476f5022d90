"""The envelope that every event travels in."""

from __future__ import annotations

import time
from datetime import datetime  # noqa: TC003  (pydantic reads it)
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

from cep.errors import InvalidPayloadError, Problem, shown
from cep.events.ids import MonotonicUlids, ulid_problem
from cep.events.json_text import plain
from cep.events.publishing import publishable_payload
from cep.events.registry import MAX_VERSION, Registry, registry
from cep.events.timestamps import ALLOWED, END_MS, from_ms, to_ms

if TYPE_CHECKING:
    from collections.abc import Mapping

_ids: Final = MonotonicUlids()


def _event_id(text: str) -> str:
    problem = ulid_problem(text)
    if problem:
        raise ValueError(problem)
    return text


def _whole_ms(moment: datetime) -> datetime:
    time_ms = to_ms(moment)
    if not 0 <= time_ms < END_MS:
        msg = "the year is outside 1970 to 2261"
        raise ValueError(msg)
    return from_ms(time_ms)


def _none_if_empty(value: Any) -> Any:
    return None if value == "" else value


OptionalText = Annotated[str | None, BeforeValidator(_none_if_empty)]


class Event(BaseModel):
    """One event: an envelope of nine fields around a payload.

    ``id`` is a ULID, ``timestamp`` the event time: aware, held in UTC and cut
    to milliseconds, years 1970 to 2261. ``correlation_id`` and ``user_id`` are
    None when there is none, which the wire writes as ``''``. ``extra`` holds
    entry fields beyond the nine, which other services may add; ours have none.

    The constructor checks the envelope only (pydantic.ValidationError); use
    `Event.new` to make an event to publish, which checks the payload too.

    >>> event = Event.new(
    ...     "market.trade", {"symbol": "BTCUSDT", "price": 64000.5, "quantity": 2}
    ... )
    >>> event.stream, event.version, event.data["price"]
    ('market.events', 1, 64000.5)
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    id: Annotated[str, AfterValidator(_event_id)]
    stream: Annotated[str, Field(min_length=1)]
    type: Annotated[str, Field(min_length=1)]
    version: Annotated[int, Field(ge=1, le=MAX_VERSION)] = 1
    timestamp: Annotated[AwareDatetime, AfterValidator(_whole_ms)]
    correlation_id: OptionalText = None
    user_id: OptionalText = None
    data: dict[str, Any]
    metadata: dict[str, Any] = Field(default_factory=dict)
    extra: dict[str, str] = Field(default_factory=dict)

    @property
    def time_ms(self) -> int:
        """Event time in milliseconds since 1970 in UTC."""
        return to_ms(self.timestamp)

    @classmethod
    def new(
        cls,
        event_type: str,
        data: Mapping[str, Any] | BaseModel,
        *,
        timestamp: datetime | None = None,
        correlation_id: str | None = None,
        user_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        id: str | None = None,
        stream: str | None = None,
        version: int | None = None,
        registry: Registry = registry,
    ) -> Event:
        """Return an event that may be published.

        Parameters
        ----------
        event_type
            A registered type.
        data
            The payload: a mapping, or an instance of the type's model.
        timestamp
            Event time, aware; now if not given.
        id
            A ULID; if not given, one of the present time that is larger than
            all made before in this process.
        stream
            Where to publish it; the type's home stream if not given.
        version
            The type's newest if not given.
        correlation_id, user_id, metadata
            As in the envelope.

        Raises
        ------
        UnknownEventTypeError, UnknownEventVersionError
            If nobody registered it.
        InvalidPayloadError
            Naming everything that is not valid, payload or envelope.
        """
        known = registry.get(event_type, version)
        payload = publishable_payload(known, data)
        problems: list[Problem] = []
        about = plain(dict(metadata or {}), "metadata", problems)
        if problems:
            raise InvalidPayloadError(event_type, problems)
        now_ms = time.time_ns() // 1_000_000
        try:
            return cls(
                id=_ids.next(now_ms) if id is None else id,
                stream=known.stream if stream is None else stream,
                type=event_type,
                version=known.version,
                timestamp=from_ms(now_ms) if timestamp is None else timestamp,
                correlation_id=correlation_id,
                user_id=user_id,
                data=payload,
                metadata=about,
            )
        except ValidationError as error:
            found = [
                Problem(
                    ".".join(map(str, detail["loc"])),
                    shown(detail["input"]),
                    _ALLOWED.get(str(detail["loc"][0]), detail["msg"]),
                )
                for detail in error.errors(include_url=False)
            ]
            raise InvalidPayloadError(event_type, found) from None


_ALLOWED: Final = {
    "id": "a ULID of 26 upper-case Crockford base-32 characters",
    "stream": "a non-empty string",
    "timestamp": f"an aware datetime ({ALLOWED})",
    "correlation_id": "a string or None",
    "user_id": "a string or None",
}
