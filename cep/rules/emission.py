"""What a rule puts out when it matches.

Without a type the rule emits the standard alert, ``trend.alert.generated``,
with the given fields under ``values``. A known type is filled field by field;
what the type requires and the rule does not give is an error when the rule is
built, but for what follows from the match itself (see `derived_fields`).
"""

from __future__ import annotations

from dataclasses import dataclass
from re import findall
from string import Formatter
from typing import TYPE_CHECKING, Any

from cep.errors import RuleError, near_miss
from cep.rules.expressions import Expr, Key, StepRef, as_expr

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ALERT = "trend.alert.generated"

# Required fields of known types that the match itself answers. `id` is the
# derived event's id, `key` the rule's key.
DERIVED_FIELDS: dict[str, dict[str, str]] = {
    "market.trend.detected": {
        "trend_id": "id",
        "keywords": "key_list",
        "affected_users": "empty_list",
    },
    "notification.send.requested": {},
}
# What an alert says beside its values, and where to say what was meant.
RESERVED = {
    "severity": 'say it of the rule: @rule(..., severity="critical")',
    "rule": "leave it out, or give the value another name",
    "rule_version": "leave it out, or give the value another name",
    "key": 'say it of the rule: @rule(..., key="symbol"); or give the value another '
    "name",
}
MOST_WIDTH = 200  # characters, of the width and the precision of a title's formats
# Kinds of values in titles, with an example of a format.
_KINDS: dict[type, tuple[str, str]] = {
    float: ("a number", ",.2f"),
    int: ("a whole number", ","),
    bool: ("a truth value", ""),
    str: ("a string", ">10"),
    list: ("a nested value (list or object)", ""),
    dict: ("a nested value (list or object)", ""),
}
# Known types whose free-form field takes the fields that the type lacks.
OPEN_FIELD = {"market.trend.detected": "trend_data", ALERT: "values"}


@dataclass(frozen=True, slots=True, eq=False)
class Emission:
    """An output of a rule: event type, stream, title and the payload's fields."""

    type: str
    fields: dict[str, Any]
    title: str | None = None
    stream: str | None = None

    def leaves(self) -> list[Expr]:
        """The expressions in the payload, in order of appearance."""
        found: list[Expr] = []
        _collect(self.fields, found)
        return found

    @property
    def key(self) -> Key:
        """The structure as nested tuples."""
        return ("emit", self.type, _freeze(self.fields), self.title, self.stream)


def emit(
    type: str = ALERT,
    /,
    *,
    title: str | None = None,
    stream: str | None = None,
    **fields: Any,
) -> Emission:
    """Say what a match puts out.

    Parameters
    ----------
    type
        Event type; without one, the standard alert `trend.alert.generated`.
    title
        Text of the alert; ``{name}`` stands for an emitted field, ``{key}`` for
        the rule's key, with Python's format specifications (``{price:.2f}``).
    stream
        Stream to publish on instead of ``notification.events``.
    fields
        Payload: constants, expressions of ``e`` (the completing event), of
        ``m`` and of windows, or lists and dicts of those. The standard alert
        takes any names; they go under ``values``.
    """
    if type == ALERT:
        for name, remedy in RESERVED.items():
            if name in fields:
                raise RuleError(
                    f"emit({name}={fields[name]!r:.60})",
                    f"an alert says its {name} by itself, beside its values",
                    remedy,
                )
    if title is not None:
        _check_title(title, [*fields, "key"])
    return Emission(type, {k: _as_leaf(v) for k, v in fields.items()}, title, stream)


def _check_title(title: str, names: list[str]) -> None:
    """Refuse a title that names what is not emitted or asks for endless text."""
    where = f"emit(title={title!r:.60})"
    if not isinstance(title, str):
        raise RuleError(
            where, "a title is a text", 'write title="{x}" and emit the field x=...'
        )
    try:
        parts = list(Formatter().parse(title))
    except ValueError as error:
        remedy = "write {{ and }} for braces that stand for themselves"
        raise RuleError(where, f"{error}", remedy) from None
    for _, name, spec, _ in parts:
        if name is None:
            continue
        if name not in names:
            near = near_miss(name, names)
            meant = f"did you mean {{{near[0]}}}? " if near else ""
            if not near and name.isidentifier():
                meant = f"write emit(..., {name}=...); "
            raise RuleError(
                where,
                f"{{{name}}} is not emitted",
                f"{meant}a title may name {', '.join(names)}",
            )
        if spec and "{" in spec:
            raise RuleError(
                where,
                f"{{{name}:{spec}}} has a field in its format",
                f"write the format out, as {{{name}:10.2f}}",
            )
        for number in findall(r"\d+", spec or ""):
            if len(number.lstrip("0")) > 3 or int(number) > MOST_WIDTH:
                raise RuleError(
                    where,
                    f"{{{name}:{spec:.40}}} asks for {number:.20} characters",
                    f"at most {MOST_WIDTH} are possible",
                )


def check_formats(title: str, samples: Mapping[str, Sequence[Any]], where: str) -> None:
    """Refuse a title of which a format does not fit the values that are emitted.

    ``samples`` holds for each name some values, one of which each format must fit.
    """
    for _, name, spec, conversion in Formatter().parse(title):
        if name is None:
            continue
        written = "{" + name
        written += f"!{conversion}" if conversion else ""
        written += f":{spec}" if spec else ""
        written += "}"
        values = samples[name]
        if not any(_fits(written, name, value) for value in values):
            kind, example = _KINDS[type(values[0])]
            instead = f", or such as {{{name}:{example}}}" if example else ""
            raise RuleError(
                f"{where}, emit(title={title!r:.60})",
                f"{written} cannot be applied to {kind}",
                f"write {{{name}}}{instead}",
            )


def _fits(written: str, name: str, value: Any) -> bool:
    if value is None:
        return True  # reads as "?" whatever the format
    try:
        written.format_map({name: value})
    except (ValueError, TypeError, OverflowError):
        return False
    return True


def _as_leaf(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _as_leaf(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_leaf(v) for v in value]
    if value is None:
        return None
    if isinstance(value, (Expr, StepRef)):
        return as_expr(value)
    if isinstance(value, (bool, int, float, str)):
        return value
    raise RuleError(
        f"emit(... {value!r:.60} ...)",
        f"a {type(value).__name__} cannot be emitted",
        "emit numbers, strings, expressions, lists and dicts of those",
    )


def _collect(value: Any, found: list[Expr]) -> None:
    if isinstance(value, Expr):
        found.append(value)
    elif isinstance(value, dict):
        for item in value.values():
            _collect(item, found)
    elif isinstance(value, list):
        for item in value:
            _collect(item, found)


def _freeze(value: Any) -> Any:
    if isinstance(value, Expr):
        return value.key
    if isinstance(value, dict):
        return tuple((k, _freeze(v)) for k, v in value.items())
    if isinstance(value, list):
        return ("list", *(_freeze(v) for v in value))
    return (type(value).__name__, value)
