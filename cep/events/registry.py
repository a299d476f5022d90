"""Which event types there are, on which stream, with which payload.

`register` adds a type to `registry`, the registry everything uses unless told
otherwise. A type has versions; each has its own model. Known types register
themselves when `cep.events` is imported; a user's are registered by importing
the module that declares them, in every process that reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from pydantic import BaseModel

from cep.errors import (
    RegistrationError,
    UnknownEventTypeError,
    UnknownEventVersionError,
    near_miss,
)
from cep.events.schema import FieldSpec, fields_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Model = TypeVar("Model", bound=BaseModel)

STREAMS: Final = (
    "user.events",
    "content.events",
    "contextual.events",
    "ai.events",
    "market.events",
    "notification.events",
    "system.events",
)
"""The streams of the system this library serves; users may add their own."""

MAX_VERSION: Final = 999_999_999


@dataclass(frozen=True, slots=True)
class EventType:
    """One version of an event type: its home stream, its model, its fields."""

    name: str
    stream: str
    version: int
    model: type[BaseModel]
    fields: tuple[FieldSpec, ...]

    def field(self, name: str) -> FieldSpec | None:
        """Return the field of this name, None if the type does not declare it."""
        return next((field for field in self.fields if field.name == name), None)


class Registry:
    """The known event types; types keep the order of their registration."""

    def __init__(self) -> None:
        self._types: dict[str, dict[int, EventType]] = {}

    def register(
        self, event_type: str, *, stream: str, version: int = 1
    ) -> Callable[[type[Model]], type[Model]]:
        """Return a class decorator that registers a pydantic model as a payload.

        Registering the same model again changes nothing, also after its module
        was reloaded: a class of the same module, name and fields replaces the
        old one.

        Raises
        ------
        RegistrationError
            If this type and version has another model, another version has
            another stream, or type, stream or version cannot be written.

        Examples
        --------
        >>> from pydantic import BaseModel
        >>> mine = Registry()
        >>> @mine.register("ops.deploy.finished", stream="system.events")
        ... class DeployFinished(BaseModel):
        ...     service: str
        ...     seconds: float
        >>> mine.get("ops.deploy.finished").stream
        'system.events'
        """

        def add(model: type[Model]) -> type[Model]:
            self._add(event_type, stream, version, model)
            return model

        return add

    def _add(
        self, name: str, stream: str, version: int, model: type[BaseModel]
    ) -> None:
        problem = _what_is_wrong(name, stream, version, model)
        versions = self._types.get(name, {})
        if not problem:
            problem = _clash(versions, stream, version, model)
        if problem:
            raise RegistrationError(name, version, problem)
        entry = EventType(name, stream, version, model, fields_of(model))
        self._types.setdefault(name, {})[version] = entry

    def get(self, event_type: str, version: int | None = None) -> EventType:
        """Return a type in a version, by default its newest.

        Raises
        ------
        UnknownEventTypeError
            Naming the near misses.
        UnknownEventVersionError
            Naming the versions there are.
        """
        versions = self._types.get(event_type)
        if versions is None:
            raise UnknownEventTypeError(event_type, near_miss(event_type, self._types))
        if version is None:
            return versions[max(versions)]
        found = versions.get(version)
        if found is None:
            raise UnknownEventVersionError(event_type, version, sorted(versions))
        return found

    def versions(self, event_type: str) -> Mapping[int, EventType]:
        """Return the known versions of a type, empty if the type is unknown."""
        return self._types.get(event_type, {})

    def types_of(self, stream: str) -> list[EventType]:
        """Return the newest version of each type whose home is this stream."""
        newest = [versions[max(versions)] for versions in self._types.values()]
        return [entry for entry in newest if entry.stream == stream]

    def names(self) -> list[str]:
        """Return the names of all types, sorted."""
        return sorted(self._types)

    def all(self) -> list[EventType]:
        """Return every type in every version, in order of registration."""
        return [
            entry for versions in self._types.values() for entry in versions.values()
        ]

    def copy(self) -> Registry:
        """Return a registry of the same types that can grow by itself."""
        other = Registry()
        other._types = {name: dict(known) for name, known in self._types.items()}
        return other

    def __contains__(self, event_type: object) -> bool:
        return event_type in self._types


def _what_is_wrong(name: str, stream: str, version: int, model: type[BaseModel]) -> str:
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return f"{model!r} is not a pydantic model. Derive it from pydantic.BaseModel."
    for what, text in (("type", name), ("stream", stream)):
        if not text or not text.isprintable() or text != text.strip():
            return f"the {what} {text!r} is empty or has blanks at its ends."
    if isinstance(version, bool) or not 1 <= version <= MAX_VERSION:
        return f"the version must be 1 to {MAX_VERSION}, got {version!r}."
    return ""


def _clash(
    versions: dict[int, EventType], stream: str, version: int, model: type[BaseModel]
) -> str:
    for other in versions.values():
        if other.stream != stream:
            return (
                f"version {other.version} lives on {other.stream}, this one would on "
                f"{stream}. Give all versions one stream."
            )
    old = versions.get(version)
    if old is None or old.model is model:
        return ""
    reloaded = (
        old.model.__module__ == model.__module__
        and old.model.__qualname__ == model.__qualname__
        and old.fields == fields_of(model)
    )
    if reloaded:
        return ""
    return (
        f"{old.model.__module__}.{old.model.__qualname__} already is its model. "
        "Raise the version, or choose another type name."
    )


registry: Final = Registry()
"""The registry that everything uses unless told otherwise."""

register = registry.register
