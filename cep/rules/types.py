"""The kinds of values in expressions, and the fields that a step may read.

Checked when a rule is built, so that a slip in a field's name or a comparison
of a string with a number is an error where it was written and not an empty
result a week later.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from cep.errors import RuleError, UnknownFieldError, near_miss
from cep.events.timestamps import to_ms
from cep.rules.choices import Choice, Coalesce
from cep.rules.expressions import (
    ARITHMETIC,
    COMPARISONS,
    LOGIC,
    Binary,
    BoundAggregate,
    BoundField,
    Call,
    Cast,
    Const,
    Expr,
    Field,
    IsIn,
    IsNull,
    Not,
    Python,
    StringTest,
    TimePart,
    TypeIs,
)
from cep.rules.windows import CHOOSING, Window, WindowType, event_types

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Kind = Literal["float", "int", "bool", "str", "json", "any"]
NUMBERS: tuple[Kind, ...] = ("float", "int", "any")

# Fields of the envelope that rules may read under these names where the
# payload has none of that name. `event_time` is in milliseconds since the epoch.
ENVELOPE: dict[str, Kind] = {
    "event_time": "float",
    "type": "str",
    "stream": "str",
    "correlation_id": "str",
    "user_id": "str",
}

# What rules may read of a window that has closed, in milliseconds since the epoch.
WINDOW_TIMES: dict[str, Kind] = {"window_start": "int", "window_end": "int"}

_NAMES = {"float": "number", "int": "number", "str": "string"}
_WHOLE = ("floor", "ceil", "round", "trunc", "sign")

# Trees are walked by recursion; Python's own limit would be hit at some 300.
NESTING = 100
# What is written once and used twice counts twice: trees grow by doubling.
PARTS = 10_000


def nesting(expr: Expr) -> tuple[int, int]:
    """Return how deep an expression nests and its parts; (1, 1) for a field.

    Windows are included. Counting ends where there are more than `PARTS`.
    """
    deepest, parts, level = 0, 0, [expr]
    while level and parts <= PARTS:
        deepest += 1
        parts += len(level)
        below: list[Expr] = []
        for node in level:
            below += node.children()
            if isinstance(node, Window):
                below += node.inputs
        level = below
    return deepest, parts


def payload_kinds(event_type: str) -> dict[str, Kind]:
    """Return the payload fields of a known event type with their kinds.

    Those of a closed window are its times in ms and the fields it is split by.
    """
    from cep.events.registry import registry

    if isinstance(event_type, WindowType):
        split = {x: field_kind(x, event_type.types, "key") for x in event_type.by}
        return {**split, **WINDOW_TIMES}
    return {f.name: f.kind for f in registry.get(event_type).fields}


def field_kind(name: str, types: Sequence[str], where: str) -> Kind:
    """Return the kind of ``e.name`` for ``types``, or raise UnknownFieldError."""
    kinds: set[Kind] = set()
    for event_type in types:
        fields = payload_kinds(event_type)
        if name in fields:
            kinds.add(fields[name])
        elif isinstance(event_type, WindowType) and name != "event_time":
            raise RuleError(
                f"{where}: e.{name}",
                "e is a window that has closed, and no single event",
                f"aggregate over its events, as in last(e.{name}); "
                f"a window has {', '.join([*fields, 'event_time'])}",
            )
        elif name in ENVELOPE:
            kinds.add(ENVELOPE[name])
        else:
            known = [*fields, *ENVELOPE]
            raise UnknownFieldError(
                name, [event_type], near_miss(name, known), known, where
            )
    if len(kinds) == 1:
        return kinds.pop()
    if kinds <= {"float", "int"}:
        return "float"
    raise RuleError(
        f"{where}: e.{name}",
        f"{name} has several kinds: {', '.join(sorted(kinds))} in {', '.join(types)}",
        "split the step into one step per type",
    )


class Checker:
    """Infers the kind of an expression within one step of one rule.

    ``types`` are the event types of ``e`` (None where there is no event under
    test, as in a match that is released by time); ``bound`` maps the steps that
    ``m`` may name to their types.
    """

    def __init__(
        self,
        where: str,
        types: Sequence[str] | None,
        bound: Mapping[str, Sequence[str]],
        key: Sequence[str] = (),
        unbound: Mapping[str, str] | None = None,
        no_event: str = "there is no completing event: the match is released by time",
    ) -> None:
        self.where, self.types, self.bound, self.rule_key = where, types, bound, key
        self.unbound, self.no_event = unbound or {}, no_event

    def kind(self, expr: Expr) -> Kind:
        """Return the kind of ``expr``; raise RuleError for what cannot be computed."""
        if isinstance(expr, Const):
            value = expr.value
            if isinstance(value, bool):
                return "bool"
            return "str" if isinstance(value, str) else "float"
        if isinstance(expr, Field):
            return field_kind(expr.name, self._event_types(expr), self.where)
        if isinstance(expr, BoundField):
            return field_kind(expr.name, self._step_types(expr.step), self.where)
        if isinstance(expr, BoundAggregate):
            return self._bound_aggregate(expr)
        if isinstance(expr, Window):
            return self._window(expr)
        if isinstance(expr, Binary):
            return self._binary(expr)
        if isinstance(expr, Not):
            self._needs(expr.operand, ("bool", "any"), "~ takes a condition")
            return "bool"
        if isinstance(expr, Call):
            for arg in expr.args:
                self._needs(arg, NUMBERS, f"{expr.function.rstrip('2')} takes numbers")
            whole = expr.function in _WHOLE and len(expr.args) == 1
            return "int" if whole else "float"
        if isinstance(expr, Cast):
            return self._cast(expr)
        if isinstance(expr, TimePart):
            self._needs(expr.operand, NUMBERS, "a time is in milliseconds since 1970")
            return "int"
        if isinstance(expr, Choice):
            self._needs(expr.condition, ("bool", "any"), "when takes a condition")
            return self._one_of(expr, (expr.value, expr.otherwise))
        if isinstance(expr, Coalesce):
            return self._one_of(expr, expr.values)
        if isinstance(expr, IsIn):
            for value in expr.values:
                self._comparable(expr, self.kind(expr.operand), self.kind(Const(value)))
            return "bool"
        if isinstance(expr, IsNull):
            self.kind(expr.operand)
            return "bool"
        if isinstance(expr, StringTest):
            self._needs(expr.operand, ("str", "any"), f"{expr.test} takes a string")
            return "bool"
        if isinstance(expr, Python):
            self._needs_events(expr)
            for read in expr.reads:
                self.kind(read)
            return "any"
        if isinstance(expr, TypeIs):
            return "bool"
        raise AssertionError(expr)  # pragma: no cover

    def value(self, expr: Expr) -> Kind:
        """Return the kind of a whole expression, if it does not nest too deep."""
        deepest, parts = nesting(expr)
        if deepest > NESTING:
            raise RuleError(
                f"{self.where}: an expression",
                f"nests {deepest} deep, at most {NESTING} is possible",
                "split it over several emitted fields or rules",
            )
        if parts > PARTS:
            raise RuleError(
                f"{self.where}: an expression",
                f"has more than {PARTS:,} parts, what is used twice counted twice",
                "split it over several emitted fields or rules",
            )
        return self.kind(expr)

    def condition(self, expr: Expr) -> None:
        """Require that ``expr`` is a condition."""
        self.value(expr)
        self._needs(expr, ("bool", "any"), "a condition is true or false")

    def _event_types(self, expr: Expr) -> Sequence[str]:
        if self.types is None:
            raise RuleError(
                f"{self.where}: {expr}",
                self.no_event,
                "use a field of a step: m.<step>.<field>",
            )
        return self.types

    def _step_types(self, step: str) -> Sequence[str]:
        if step in self.bound:
            return self.bound[step]
        where = f"{self.where}: m.{step}"
        if step in self.unbound:
            raise RuleError(where, self.unbound[step], "name a step that comes before")
        near = near_miss(step, self.bound)
        steps = ", ".join(self.bound) or "none"
        meant = f"did you mean m.{near[0]}? " if near else ""
        raise RuleError(
            where,
            f"there is no step named {step!r}",
            f'{meant}the steps are: {steps}; name one with on(..., name="{step}")',
        )

    def _bound_aggregate(self, expr: BoundAggregate) -> Kind:
        types = self._step_types(expr.step)
        if expr.name is None:
            return "int"
        kind = field_kind(expr.name, types, self.where)
        if expr.function == "count":
            return "int"
        if kind not in NUMBERS:
            raise RuleError(
                f"{self.where}: {expr}",
                f"{expr.function} takes numbers, {expr.name} is a {kind}",
                "aggregate a number, or use count",
            )
        return "int" if kind == "int" and expr.function != "avg" else "float"

    def _window(self, expr: Window) -> Kind:
        where = f"{self.where}: {expr}"
        step = self._event_types(expr)
        types = expr.source or event_types(step)
        if expr.span.kind == "step":
            self._of_step(expr, step)
        elif expr.span.kind in ("previous", "all"):
            self._needs_events(expr)
        for event_type in expr.source:
            payload_kinds(event_type)  # raises where there is no such type
        for node in (node for inner in expr.inputs for node in inner.walk()):
            if isinstance(node, (BoundField, BoundAggregate)):
                raise RuleError(
                    where,
                    f"a window cannot hold {node}",
                    "aggregate fields of e and arithmetic on them",
                )
        for name in self.rule_key if expr.by is None else expr.by:
            field_kind(name, sorted({*types, *step}), where)
        entering = Checker(self.where, types, {}, self.rule_key)
        if expr.condition is not None:
            entering.condition(expr.condition)
        kinds = [entering.kind(value) for value in expr.values]
        if expr.function == "count":
            if kinds == ["bool"] and not isinstance(expr.value, Field):
                raise RuleError(
                    where,
                    "counts the events where the condition can be asked, which are "
                    "all: it is false where a field is absent",
                    f"write count().where({expr.value}).over(...)",
                )
            return "int"
        if expr.function in CHOOSING and kinds != ["json"]:
            return kinds[0]
        if expr.function == "distinct" and kinds != ["json"]:
            return "int"
        for kind, value in zip(kinds, expr.values, strict=True):
            if kind not in NUMBERS:
                raise RuleError(
                    where,
                    f"{expr.function} takes numbers, {value} is a {kind}",
                    "aggregate a number, or use count",
                )
        keeps = ("min", "max", "sum")
        return "int" if kinds == ["int"] and expr.function in keeps else "float"

    def _of_step(self, expr: Window, types: Sequence[str]) -> None:
        """Require that a step takes windows, and that an aggregate can be over one."""
        where = f"{self.where}: {expr}"
        taken = [t for t in types if isinstance(t, WindowType)]
        if len(taken) != 1 or len(taken) < len(types):
            raise RuleError(
                where,
                "the aggregate has no window yet",
                f'say over what: {expr}.over("60s"); or let the step take windows: '
                'on(...).tumbling("60s").where(...)',
            )
        narrower = expr.condition is not None or expr.source
        if taken[0].span.kind == "session" and narrower:
            raise RuleError(
                where,
                "a session is one of all the events that keep it going",
                "aggregate a value that tells them apart: "
                "sum(when(condition).then(1).otherwise(0))",
            )

    def _needs_events(self, expr: Expr) -> None:
        """Refuse what is computed of each event where a step takes windows."""
        if any(isinstance(t, WindowType) for t in self.types or ()):
            raise RuleError(
                f"{self.where}: {expr}",
                "e is a window that has closed, and no single event",
                f"aggregate over its events, as in last({expr})",
            )

    def _cast(self, expr: Cast) -> Kind:
        kind = self.kind(expr.operand)
        where = f"{self.where}: {expr}"
        if expr.to == "time" and kind not in ("str", "any"):
            raise RuleError(
                where,
                f"as_time takes a string, this is a {_NAMES.get(kind, kind)}",
                "a number is a time already, in milliseconds since 1970",
            )
        if kind == "json":
            raise RuleError(
                where,
                "a nested value (list or object) is no number",
                "use another field, or take the number out with py(...)",
            )
        return "int" if expr.to == "int" else "float"

    def _one_of(self, expr: Expr, values: Sequence[Expr]) -> Kind:
        """Return the kind of what is one of some values, which must be of one kind."""
        kinds = [self.kind(value) for value in values]
        families = {"number" if k in ("float", "int") else k for k in kinds}
        if len(families) == 1 and "number" in families:
            whole = map(_is_whole, values, kinds)
            return "int" if all(whole) else "float"
        if families - {"any"} <= {"number"}:
            return "any"
        if len(families) == 1 and families <= {"bool", "str"}:
            return kinds[0]
        names = sorted(_NAMES.get(k, k) for k in families)
        raise RuleError(
            f"{self.where}: {expr}",
            f"is one of several kinds: {', '.join(names)}"
            if len(names) > 1
            else "a nested value (list or object) cannot be chosen",
            "give values of one kind: numbers, strings or truth values",
        )

    def _binary(self, expr: Binary) -> Kind:
        if expr.op in ARITHMETIC:
            # Each side is asked once: asking twice doubles with every level.
            whole = [
                _is_whole(
                    side, self._needs(side, NUMBERS, "arithmetic takes numbers", expr)
                )
                for side in (expr.left, expr.right)
            ]
            return "int" if all(whole) and expr.op != "div" else "float"
        if expr.op in COMPARISONS:
            self._comparable(expr, self.kind(expr.left), self.kind(expr.right))
            return "bool"
        assert expr.op in LOGIC
        for side in (expr.left, expr.right):
            self._needs(side, ("bool", "any"), "& and | take conditions", expr)
        return "bool"

    def _comparable(self, expr: Expr, left: Kind, right: Kind) -> None:
        families = [
            "any" if k == "any" else "number" if k in NUMBERS else k
            for k in (left, right)
        ]
        ordered = isinstance(expr, Binary) and expr.op not in ("eq", "ne")
        if "json" in families:
            problem = "a nested value (list or object) cannot be compared"
        elif "any" not in families and families[0] != families[1]:
            problem = f"compares a {families[0]} with a {families[1]}"
        elif ordered and "str" in families:
            problem = "strings have no order here"
        elif ordered and "bool" in families:
            problem = "truth values have no order"
        else:
            return
        remedy = (
            "compare values of one kind; strings and truth values with == or != only"
        )
        if {*families} == {"number", "str"} and isinstance(expr, Binary):
            remedy = _as_numbers(expr) or remedy
        raise RuleError(f"{self.where}: {expr}", problem, remedy)

    def _needs(
        self, expr: Expr, kinds: Sequence[Kind], what: str, inside: Expr | None = None
    ) -> Kind:
        kind = self.kind(expr)
        if kind not in kinds:
            what += "" if inside is None else f" in {inside}"
            remedy = "compare it first (e.flag == True) or use another field"
            if "str" in kinds:
                remedy = "name a field that is a string"
                if kind in NUMBERS:
                    remedy += f", or compare the number, as {expr} == 1"
            if "bool" in kinds and isinstance(expr, Const):
                remedy = "write a condition with e, as e.price > 3"
            elif "bool" in kinds and kind in NUMBERS:
                remedy = f"compare it first: {expr} > 0, or ~{expr}.is_null()"
            if "float" in kinds and kind in ("bool", "str"):
                remedy = f"make it a number: {expr}.as_float()"
                if kind == "str":
                    remedy += f", or of a time {expr}.as_time()"
            raise RuleError(
                f"{self.where}: {expr}",
                f"{what}, this is a {_NAMES.get(kind, kind)}",
                remedy,
            )
        return kind


def _as_numbers(expr: Binary) -> str | None:
    """Say how to compare a number with a string that is a constant."""
    for side in (expr.left, expr.right):
        if isinstance(side, Const) and isinstance(side.value, str):
            try:
                moment = datetime.fromisoformat(side.value)
            except ValueError:
                continue
            ms = to_ms(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
            return f"a time is a number of milliseconds since 1970: write {ms}"
    return None


def _is_whole(expr: Expr, kind: Kind) -> bool:
    """Whether a value of that kind is a whole number; constants have no kind int."""
    return kind == "int" or (isinstance(expr, Const) and isinstance(expr.value, int))
