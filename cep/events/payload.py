"""The base of payload models and the types of their fields.

The types give the same verdict when an event is published (pydantic) as when
it is read (`cep.events.schema.check_payload`): both call the same functions.
Only choices differ, which are closed for publishing and open for reading.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
)

from cep.events.schema import finite_number, whole_number, wire_name


def _finite(value: Any) -> float:
    number = finite_number(value)
    if number is None:
        msg = "not a finite number"
        raise ValueError(msg)
    return number


def _whole(value: Any) -> int:
    number = whole_number(value)
    if number is None:
        msg = "not an integer of 64 bits"
        raise ValueError(msg)
    return number


Number: TypeAlias = Annotated[float, BeforeValidator(_finite)]
"""A finite number."""

Integer: TypeAlias = Annotated[int, BeforeValidator(_whole)]
"""An integer of 64 bits; ``5.0`` is one, ``True`` and ``"5"`` are not."""

Text: TypeAlias = str
"""Any string, also the empty one."""

Name: TypeAlias = Annotated[str, StringConstraints(min_length=1)]
"""A string of at least one character; also the ids that are called uuid,
since services send ULIDs there as well."""

JsonObject: TypeAlias = dict[str, Any]
"""A JSON object with any members."""


class Payload(BaseModel):
    """Base of the payload models: nothing is coerced, unknown fields are kept.

    Dumping leaves out optional fields that were not given.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    @model_serializer(mode="wrap")
    def _without_absent(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped: dict[str, Any] = dump(self)
        for name, info in type(self).model_fields.items():
            key = wire_name(name, info)
            if name not in self.model_fields_set and dumped.get(key, key) is None:
                del dumped[key]
        return dumped
