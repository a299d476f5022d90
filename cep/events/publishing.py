"""What may be published: the verdict of pydantic in our words.

A payload that passes here also passes `check_payload` when it is read; what
is read in addition are values outside a field's choices.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from cep.errors import InvalidPayloadError, Problem, shown
from cep.events.json_text import plain
from cep.events.payload import Payload
from cep.events.schema import (
    MAX_PROBLEMS,
    FieldSpec,
    allowed,
    check_payload,
    check_value,
    missing_field,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic_core import ErrorDetails

    from cep.events.registry import EventType


def publishable_payload(
    event_type: EventType, data: Mapping[str, Any] | BaseModel
) -> dict[str, Any]:
    """Return a payload as it will be written.

    Values become what the model makes of them (``5.0`` becomes 5 where an
    integer belongs, a datetime its text). `Payload` models keep unknown fields
    and leave out optional ones that were not given; a user's other models are
    written whole, as they dump themselves.

    Parameters
    ----------
    event_type
        The type and version to write.
    data
        A mapping, or an instance of the type's model.

    Raises
    ------
    InvalidPayloadError
        Naming every field that is not valid.
    """
    given, problems = _given(event_type, data)
    payload: dict[str, Any] = {}
    try:
        model = event_type.model.model_validate(given)
        payload = _dumped(model, problems)
        if not problems:
            payload = plain(payload, "data", problems)
    except ValidationError as error:
        problems = _merged(problems_of(error, event_type.fields), problems)
    except PydanticSerializationError as error:
        unfit = Problem("data", f"not JSON ({error})", "JSON values")
        problems = problems or [unfit]
    if not problems:
        # A user's model may write what its annotations do not say.
        problems = check_payload(event_type.fields, payload, closed_choices=True)
    if problems:
        raise InvalidPayloadError(event_type.name, problems)
    return payload


def _given(event_type: EventType, data: object) -> tuple[object, list[Problem]]:
    """Return what the model is to judge, and what is not JSON in it."""
    model = event_type.model
    if isinstance(data, BaseModel):
        if not isinstance(data, model):
            wrong = Problem("data", shown(data), f"a mapping or a {model.__name__}")
            raise InvalidPayloadError(event_type.name, [wrong])
        if not issubclass(model, Payload):
            return data, []
        # Judged anew: model_construct and model_copy check nothing.
        data = data.model_dump(by_alias=True, exclude_unset=True, warnings=False)
    if not isinstance(data, Mapping):
        wrong = Problem("data", shown(data), "a mapping of fields to values")
        raise InvalidPayloadError(event_type.name, [wrong])
    if not issubclass(model, Payload):
        return dict(data), []
    problems: list[Problem] = []
    given = plain(dict(data), "data", problems)
    return (dict(data) if problems else given), problems


def _dumped(model: BaseModel, problems: list[Problem]) -> dict[str, Any]:
    """Return the JSON values of a model, noting numbers JSON does not have."""
    dumped: dict[str, Any] = model.model_dump(mode="json", by_alias=True)
    if not isinstance(model, Payload):
        # In JSON mode pydantic writes NaN as null, which would hide it.
        _find_non_finite(model.model_dump(by_alias=True), "data", problems)
    return dumped


def _find_non_finite(value: object, path: str, problems: list[Problem]) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        problems.append(Problem(path, shown(value), "a finite number"))
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            _find_non_finite(inner, f"{path}.{key}", problems)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            _find_non_finite(inner, f"{path}[{index}]", problems)


def _merged(first: list[Problem], second: list[Problem]) -> list[Problem]:
    """Return both, of problems at the same place the first's."""
    places = {problem.path for problem in first}
    return first + [problem for problem in second if problem.path not in places]


def problems_of(
    error: ValidationError, fields: Sequence[FieldSpec], path: str = "data"
) -> list[Problem]:
    """Return pydantic's first errors as problems, told by the declared fields."""
    return [
        _problem(detail, fields, path)
        for detail in error.errors(include_url=False, include_context=False)[
            :MAX_PROBLEMS
        ]
    ]


def _problem(detail: ErrorDetails, fields: Sequence[FieldSpec], path: str) -> Problem:
    where, field, siblings = path, None, fields
    for step in detail["loc"]:
        if isinstance(step, int):
            where = f"{where}[{step}]"
            field = field.items if field is not None else None
        else:
            where = f"{where}.{step}"
            field = next((one for one in siblings if one.name == step), None)
        inner = field.fields if field is not None else ()
        siblings, before = inner, siblings
    value = detail["input"]
    if detail["type"] == "missing":
        if field is not None and isinstance(value, dict):
            return missing_field(field, value, before, where.rpartition(".")[0])
        return Problem(where, "missing", "a value", missing=True)
    # Our own words where they explain it, the model's where it asks for more.
    if field is not None and check_value(field, value, where, closed_choices=True):
        return Problem(where, shown(value), allowed(field))
    return Problem(where, shown(value), detail["msg"].removeprefix("Input should be "))
