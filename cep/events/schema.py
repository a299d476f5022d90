"""The fields of a payload, derived once from its pydantic model.

`fields_of` turns a model into a tuple of `FieldSpec`; kernels, rules and
frames learn the fields from there and nowhere else. `check_payload` is the
slow, obvious verdict on a payload that was read:

=======  =================================================================
kind     JSON values that are allowed
=======  =================================================================
float    a finite number; an integer literal is fine (beyond 2**53 it rounds),
         one beyond the largest double is not
int      an integer, also written as a float without fraction (``5.0``,
         ``5e0``), from -2**63 to 2**63 - 1
bool     ``true`` or ``false``, never 0, 1 or text
str      a string; ``non_empty`` ones hold at least one character. Never a
         number. Choices are open for reading (any string), closed for
         publishing
json     anything, narrowed by ``shape``: an ``array`` whose items keep
         ``items``, an ``object`` whose members keep ``fields``
=======  =================================================================

A required field must be there; null is allowed where the field is
``nullable`` (every optional field of the known types is). Fields that the
model does not know are kept and never wrong.

Other constraints of a user's model (ranges, patterns, validators) are for
publishing only: reading checks what this table says.
"""

from __future__ import annotations

import math
import types
from dataclasses import dataclass, replace
from enum import Enum
from itertools import islice
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    Literal,
    TypeAlias,
    Union,
    get_args,
    get_origin,
)

from pydantic import BaseModel, TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic.fields import FieldInfo

from cep.errors import Problem, near_miss, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Kind: TypeAlias = Literal["float", "int", "bool", "str", "json"]
Shape: TypeAlias = Literal["any", "array", "object"]

INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**63 - 1

# A hostile payload may be wrong in a hundred thousand places: what is told of
# it, and the work of telling, are bounded.
MAX_PROBLEMS: Final = 20
GUESSED_FROM: Final = 16


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One field of a payload, or one item of an array (``name`` is then "").

    ``name`` is the key in the JSON object. ``shape``, ``items`` and ``fields``
    say more about kind "json" only.
    """

    name: str
    kind: Kind
    required: bool = True
    nullable: bool = False
    choices: tuple[str, ...] | None = None
    non_empty: bool = False
    shape: Shape = "any"
    items: FieldSpec | None = None
    fields: tuple[FieldSpec, ...] = ()


def finite_number(value: object) -> float | None:
    """Return a JSON value as the finite double it is, else None.

    >>> finite_number(3), finite_number("3"), finite_number(True)
    (3.0, None, None)
    """
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return None
    return None


def whole_number(value: object) -> int | None:
    """Return a JSON value as the 64-bit integer it is, else None.

    >>> whole_number(5.0), whole_number(5.5), whole_number(2**63)
    (5, None, None)
    """
    if isinstance(value, float):
        if not value.is_integer():
            return None
        number = int(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        number = int(value)
    else:
        return None
    return number if INT_MIN <= number <= INT_MAX else None


def check_payload(
    spec: Sequence[FieldSpec],
    obj: Mapping[str, Any],
    *,
    closed_choices: bool = False,
    path: str = "data",
) -> list[Problem]:
    """Return what is wrong with a payload, empty if nothing is.

    Parameters
    ----------
    spec
        The fields of its type, `fields_of` of the model.
    obj
        The decoded JSON object.
    closed_choices
        Refuse values outside a field's choices, as for publishing.
    path
        How messages call ``obj``.

    Returns
    -------
    The first 20 problems, in the order of ``spec``.
    """
    problems: list[Problem] = []
    for field in spec:
        room = MAX_PROBLEMS - len(problems)
        if room < 1:
            break
        if field.name in obj:
            value = obj[field.name]
            where = f"{path}.{field.name}"
            found = _check(field, value, where, closed_choices)
            problems.extend(islice(found, room))
        elif field.required:
            problems.append(missing_field(field, obj, spec, path))
    return problems


def missing_field(
    field: FieldSpec, obj: Mapping[str, Any], spec: Sequence[FieldSpec], path: str
) -> Problem:
    """Return the problem of a required field that is not there, with a near miss."""
    known = {other.name for other in spec}
    strangers = [key for key in obj if isinstance(key, str) and key not in known]
    near = near_miss(field.name, strangers[:GUESSED_FROM], limit=1)
    hint = f"is {near[0]!r} a slip for it?" if near else ""
    where = f"{path}.{field.name}"
    return Problem(where, "missing", allowed(field), missing=True, hint=hint)


def check_value(
    field: FieldSpec, value: object, path: str, *, closed_choices: bool = False
) -> list[Problem]:
    """Return what is wrong with the value of one field, as `check_payload` does."""
    return list(islice(_check(field, value, path, closed_choices), MAX_PROBLEMS))


def _check(
    field: FieldSpec, value: object, path: str, closed: bool
) -> Iterator[Problem]:
    if value is None and field.nullable:
        return
    if not _is_kind(field, value) or (
        closed and field.choices is not None and value not in field.choices
    ):
        yield Problem(path, shown(value), allowed(field))
    elif isinstance(value, list) and field.items is not None:
        for index, item in enumerate(value):
            yield from _check(field.items, item, f"{path}[{index}]", closed)
    elif isinstance(value, dict) and field.fields:
        yield from check_payload(field.fields, value, closed_choices=closed, path=path)


def _is_kind(field: FieldSpec, value: object) -> bool:
    if field.kind == "float":
        return finite_number(value) is not None
    if field.kind == "int":
        return whole_number(value) is not None
    if field.kind == "bool":
        return isinstance(value, bool)
    if field.kind == "str":
        return isinstance(value, str) and not (field.non_empty and not value)
    if field.shape == "array":
        return isinstance(value, list)
    return field.shape == "any" or isinstance(value, dict)


def allowed(field: FieldSpec) -> str:
    """Return in words what may stand in a field.

    >>> allowed(FieldSpec("price", "float", nullable=True))
    'a finite number or null'
    """
    if field.choices is not None:
        text = "one of " + ", ".join(repr(choice) for choice in field.choices)
    elif field.kind == "str":
        text = "a non-empty string" if field.non_empty else "a string"
    elif field.shape == "array":
        text = (
            "a list" if field.items is None else f"a list, each {allowed(field.items)}"
        )
    elif field.shape == "object":
        names = [inner.name + "?" * (not inner.required) for inner in field.fields]
        text = f"an object with {', '.join(names)}" if names else "an object"
    else:
        text = _WORDS[field.kind]
    return f"{text} or null" if field.nullable else text


_WORDS: Final = {
    "float": "a finite number",
    "int": "an integer of 64 bits",
    "bool": "true or false",
    "json": "any JSON value",
}


def fields_of(model: type[BaseModel]) -> tuple[FieldSpec, ...]:
    """Return the fields of a payload model in their order.

    Annotations become kinds by the JSON that pydantic writes for them: float,
    int, bool, str, Literal and Enum of one of these; datetime, UUID, Decimal
    and the like are "str"; lists, dicts, nested models, unions and everything
    else are "json". A field is required if the model demands it, nullable if its
    annotation admits None. A model within itself is an object of any members.
    """
    return _fields(model, ())


def _fields(
    model: type[BaseModel], outer: tuple[type[BaseModel], ...]
) -> tuple[FieldSpec, ...]:
    within = (*outer, model)
    return tuple(_spec(name, info, within) for name, info in model.model_fields.items())


def wire_name(name: str, info: FieldInfo) -> str:
    """Return the key in the JSON object of a model's field."""
    return info.serialization_alias or info.alias or name


def _spec(name: str, info: FieldInfo, outer: tuple[type[BaseModel], ...]) -> FieldSpec:
    core = _describe(info.annotation, tuple(info.metadata), outer)
    return replace(core, name=wire_name(name, info), required=info.is_required())


_ANYTHING: Final = FieldSpec("", "json", nullable=True)
_BY_JSON_TYPE: Final = {
    "string": FieldSpec("", "str"),
    "number": FieldSpec("", "float"),
    "integer": FieldSpec("", "int"),
    "boolean": FieldSpec("", "bool"),
    "array": FieldSpec("", "json", shape="array"),
    "object": FieldSpec("", "json", shape="object"),
}
_PLAIN: Final[tuple[tuple[type, Kind], ...]] = (
    (bool, "bool"),
    (int, "int"),
    (float, "float"),
    (str, "str"),
)


def _describe(
    annotation: Any, metadata: tuple[Any, ...], outer: tuple[type[BaseModel], ...]
) -> FieldSpec:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _describe(args[0], (*args[1:], *metadata), outer)
    if origin is Union or origin is types.UnionType:
        return _describe_union(args, metadata, outer)
    if origin is Literal:
        return _describe_values(args)
    if origin is not None:
        return _describe_container(origin, args, outer)
    if not isinstance(annotation, type):
        named = getattr(annotation, "__value__", None)  # an alias of "type X = ..."
        named = named or getattr(annotation, "__supertype__", None)  # a NewType
        return _describe(named, metadata, outer) if named else _ANYTHING
    if issubclass(annotation, Enum):
        return _describe_values(tuple(member.value for member in annotation))
    if issubclass(annotation, BaseModel):
        inner = () if annotation in outer else _fields(annotation, outer)
        return FieldSpec("", "json", shape="object", fields=inner)
    for plain, kind in _PLAIN:
        if issubclass(annotation, plain):
            non_empty = kind == "str" and any(_min_length(m) >= 1 for m in metadata)
            return FieldSpec("", kind, non_empty=non_empty)
    return _describe_container(annotation, (), outer)


def _min_length(mark: object) -> int:
    if isinstance(mark, FieldInfo):
        return max(map(_min_length, mark.metadata), default=0)
    return getattr(mark, "min_length", None) or 0


def _describe_union(
    args: tuple[Any, ...], metadata: tuple[Any, ...], outer: tuple[type[BaseModel], ...]
) -> FieldSpec:
    members = [arg for arg in args if arg is not type(None)]
    nullable = len(members) < len(args)
    if {_describe(member, (), outer).kind for member in members} == {"int", "float"}:
        return FieldSpec("", "float", nullable=nullable)
    if len(members) != 1:
        return _ANYTHING
    core = _describe(members[0], metadata, outer)
    return replace(core, nullable=nullable or core.nullable)


def _describe_values(values: tuple[Any, ...]) -> FieldSpec:
    nullable = None in values
    kept = [value for value in values if value is not None]
    if kept and all(isinstance(value, str) for value in kept):
        return FieldSpec("", "str", nullable=nullable, choices=tuple(map(str, kept)))
    for plain, kind in _PLAIN:
        if kept and all(type(value) is plain for value in kept):
            return FieldSpec("", kind, nullable=nullable)
    return _ANYTHING


def _describe_container(
    origin: Any, args: tuple[Any, ...], outer: tuple[type[BaseModel], ...]
) -> FieldSpec:
    if origin in (list, set, frozenset):
        known = bool(args) and args[0] is not Any
        items = _describe(args[0], (), outer) if known else None
        return FieldSpec("", "json", shape="array", items=items)
    if origin is dict:
        return FieldSpec("", "json", shape="object")
    return _BY_JSON_TYPE.get(_json_type(origin), _ANYTHING)


def _json_type(annotation: Any) -> str:
    """Return which JSON type pydantic writes for a type, "" if it does not say."""
    try:
        schema = TypeAdapter(annotation).json_schema(mode="serialization")
    except (PydanticUserError, PydanticSchemaGenerationError):
        return ""
    return str(schema.get("type", ""))
