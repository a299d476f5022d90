"""Expressions: trees that plain Python operators build, and nothing runs here.

``e`` stands for the event under test, ``m.<step>`` for what a step of the
pattern has bound so far. Every node is immutable and has a `key`, a tuple that
says its structure; two trees with equal keys mean the same, which is how
conditions and windows that several rules share are found and how a changed
rule is noticed.

Logic is two-valued. A field that an event does not have, or that is null, is
*absent*: a comparison or string test with an absent operand is false (also
``!=``), arithmetic with one is absent, division by zero is absent, and ``~``
turns false into true. `is_null` asks for absence.

Numbers are IEEE doubles; what arithmetic makes too large for one is absent, too.
Integers beyond 2**53 lose their last digits in rules (not in frames). ``%``
takes the sign of its left side, as in C, Java and SQL: ``-7 % 3`` is -1.
Python's own ``abs``, ``round``, ``pow``, ``math.floor``, ``math.ceil`` and
``math.trunc`` take expressions.

A condition is no number and a string is none: `Expr.as_int` and `Expr.as_float`
make numbers of both, `Expr.as_time` of a string that says a time. Times are
milliseconds since the epoch, and ``.dt`` takes their parts.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from cep.clock import format_duration
from cep.errors import RuleError, near_miss
from cep.rules.fingerprint import fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Key = tuple[Any, ...]
Scalar = bool | int | float | str

ARITHMETIC = ("add", "sub", "mul", "div", "mod")
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
LOGIC = ("and", "or")
STRING_TESTS = ("starts_with", "ends_with", "contains")
BOUND_AGGREGATES = ("count", "sum", "avg", "min", "max")

# What messages offer where a method is asked for that there is not.
METHODS = (
    "is_in",
    "is_null",
    "starts_with",
    "ends_with",
    "contains",
    "as_float",
    "as_int",
    "as_time",
    "dt",
)
WINDOW_METHODS = ("over", "tumbling", "hopping", "session", "where", "of")
FUNCTIONS = (
    *("abs", "round", "floor", "ceil", "log", "exp", "sqrt", "sign", "clip"),
    *("count", "sum", "avg", "min", "max", "first", "last", "std", "var"),
    *("prev", "rate", "slope", "distinct"),
)

_SYMBOLS = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "mod": "%",
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "and": "&",
    "or": "|",
}


class Expr(ABC):
    """A node of an expression tree."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]  # `==` builds a node, so trees cannot be dict keys; use `.key`.

    @property
    @abstractmethod
    def key(self) -> Key:
        """The structure as nested tuples; equal keys mean equal expressions."""

    def children(self) -> tuple[Expr, ...]:
        """The nodes directly below."""
        return ()

    def walk(self) -> Iterator[Expr]:
        """Yield this node and all below it, parents first."""
        yield self
        for child in self.children():
            yield from child.walk()

    def __add__(self, other: object) -> Expr:
        return Binary("add", self, as_expr(other))

    def __radd__(self, other: object) -> Expr:
        return Binary("add", as_expr(other), self)

    def __sub__(self, other: object) -> Expr:
        return Binary("sub", self, as_expr(other))

    def __rsub__(self, other: object) -> Expr:
        return Binary("sub", as_expr(other), self)

    def __mul__(self, other: object) -> Expr:
        return Binary("mul", self, as_expr(other))

    def __rmul__(self, other: object) -> Expr:
        return Binary("mul", as_expr(other), self)

    def __truediv__(self, other: object) -> Expr:
        return Binary("div", self, as_expr(other))

    def __rtruediv__(self, other: object) -> Expr:
        return Binary("div", as_expr(other), self)

    def __mod__(self, other: object) -> Expr:
        return Binary("mod", self, as_expr(other))

    def __rmod__(self, other: object) -> Expr:
        return Binary("mod", as_expr(other), self)

    def __neg__(self) -> Expr:
        return Call("neg", (self,))

    def __abs__(self) -> Expr:
        return Call("abs", (self,))

    def __pow__(self, other: object) -> Expr:
        return Call("pow", (self, as_expr(other)))

    def __rpow__(self, other: object) -> Expr:
        return Call("pow", (as_expr(other), self))

    def __round__(self, digits: int | None = None) -> Expr:
        """Round to even, as Python and polars do; to ``digits`` after the point."""
        if digits is None:
            return Call("round", (self,))
        if isinstance(digits, bool) or digits not in range(16):
            raise RuleError(
                f"round({self}, {digits!r})",
                "digits are a whole number from 0 to 15",
                f"write round({self}, 2)",
            )
        return Call("round", (self, Const(digits)))

    def __floor__(self) -> Expr:
        return Call("floor", (self,))

    def __ceil__(self) -> Expr:
        return Call("ceil", (self,))

    def __trunc__(self) -> Expr:
        return Call("trunc", (self,))

    def __eq__(self, other: object) -> Expr:  # type: ignore[override]
        return Binary("eq", self, as_expr(other))

    def __ne__(self, other: object) -> Expr:  # type: ignore[override]
        return Binary("ne", self, as_expr(other))

    def __lt__(self, other: object) -> Expr:
        return Binary("lt", self, as_expr(other))

    def __le__(self, other: object) -> Expr:
        return Binary("le", self, as_expr(other))

    def __gt__(self, other: object) -> Expr:
        return Binary("gt", self, as_expr(other))

    def __ge__(self, other: object) -> Expr:
        return Binary("ge", self, as_expr(other))

    def __and__(self, other: object) -> Expr:
        return _logic("and", self, as_expr(other))

    def __rand__(self, other: object) -> Expr:
        return _logic("and", as_expr(other), self)

    def __or__(self, other: object) -> Expr:
        return _logic("or", self, as_expr(other))

    def __ror__(self, other: object) -> Expr:
        return _logic("or", as_expr(other), self)

    def __invert__(self) -> Expr:
        return Not(self)

    def is_in(self, values: Sequence[Scalar]) -> Expr:
        """Whether the value equals one of ``values`` (a list, tuple or set)."""
        if isinstance(values, str):
            raise RuleError(
                str(self),
                f"is_in takes a list of values, got the single string {values!r}",
                f"write is_in([{values!r}]) or contains({values!r})",
            )
        try:
            given = [as_expr(value) for value in values]
        except TypeError:
            raise RuleError(
                str(self),
                f"is_in takes a list of values, got {values!r:.60}",
                "write is_in([...])",
            ) from None
        if not given:
            raise RuleError(
                f"{self}.is_in({values!r:.60})",
                "nothing is in an empty list, so the condition never holds",
                "give at least one value, or leave the condition out",
            )
        fixed = [value.value for value in given if isinstance(value, Const)]
        if len(fixed) < len(given):
            raise RuleError(
                str(self),
                "is_in takes fixed values, not expressions",
                "compare one by one: (a == b) | (a == c)",
            )
        return IsIn(self, tuple(sorted(fixed, key=lambda v: (str(type(v)), v))))

    def is_null(self) -> Expr:
        """Whether the value is absent: missing, null, or not computable."""
        return IsNull(self)

    def starts_with(self, text: str) -> Expr:
        """Whether a string begins with ``text``; false when absent."""
        return StringTest("starts_with", self, text)

    def ends_with(self, text: str) -> Expr:
        """Whether a string ends with ``text``; false when absent."""
        return StringTest("ends_with", self, text)

    def contains(self, text: str) -> Expr:
        """Whether a string contains ``text``; false when absent."""
        return StringTest("contains", self, text)

    def as_float(self) -> Expr:
        """The value as a number.

        False and true become 0 and 1. A string is read as a decimal number
        (``"-1.5e3"``, no spaces); one that is none becomes absent.
        """
        return Cast("float", self)

    def as_int(self) -> Expr:
        """The value as a whole number; fractions are cut off, towards zero.

        False and true become 0 and 1. A string is read as a whole number (``"42"``);
        one that is none, as ``"1.5"``, becomes absent.
        """
        return Cast("int", self)

    def as_time(self) -> Expr:
        """A string such as ``"2026-11-23T09:30:00.125Z"`` as milliseconds since 1970.

        Forms and limits are those of event times; anything else becomes absent.
        """
        return Cast("time", self)

    @property
    def dt(self) -> TimeParts:
        """Parts of a time in milliseconds since 1970: ``e.event_time.dt.hour()``."""
        return TimeParts(self)

    def __bool__(self) -> NoReturn:
        raise RuleError(
            str(self),
            "an expression has no truth value while the rule is being built",
            "combine conditions with & | ~ and put each comparison in parentheses: "
            "(a > 1) & (b < 2), not `a > 1 and b < 2`; write (1 < a) & (a < 2), "
            "not `1 < a < 2`; `~cond`, not `not cond`",
        )

    def __contains__(self, item: object) -> NoReturn:
        raise RuleError(
            str(self),
            "`in` does not work on an expression",
            "use .is_in([...]) for a value in a list, .contains('...') for a substring",
        )

    def __iter__(self) -> NoReturn:
        raise RuleError(
            str(self),
            "an expression cannot be iterated over",
            "to aggregate, use count, sum, avg, min, max, first, last",
        )

    if not TYPE_CHECKING:  # or every attribute would exist for type checkers

        def __getattr__(self, name: str) -> NoReturn:
            # What the class has is a value not set yet, as while unpickling.
            if name.startswith("_") or hasattr(type(self), name):
                raise AttributeError(name)
            raise UnknownMethodError(f"{self}.{name}", *self._missing(name))

    def _missing(self, name: str) -> tuple[str, str]:
        """Return what is wrong with a method that there is not, and what to do."""
        problem = "there is no such method"
        near = near_miss(name, METHODS)
        if near:
            return problem, f"did you mean {near[0]!r}?"
        if name in FUNCTIONS:
            return problem, f"write {name}({self})"
        if name in WINDOW_METHODS:
            return "only an aggregate has a window", f"write avg({self}).{name}(...)"
        return problem, f"there are {', '.join(METHODS)}"

    def __repr__(self) -> str:
        return str(self)


class UnknownMethodError(RuleError, AttributeError):
    """A rule asks for a method that expressions do not have."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Const(Expr):
    """A number, string or truth value."""

    value: Scalar

    @property
    def key(self) -> Key:
        return ("const", type(self.value).__name__, self.value)

    def __str__(self) -> str:
        return repr(self.value)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Field(Expr):
    """A field of the event under test: ``e.price``."""

    name: str

    @property
    def key(self) -> Key:
        return ("field", self.name)

    def __str__(self) -> str:
        return f"e.{self.name}"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class BoundField(Expr):
    """A field of an event that a step has bound: ``m.asked.request_id``."""

    step: str
    name: str
    which: Literal["first", "last"] = "last"

    @property
    def key(self) -> Key:
        return ("bound", self.step, self.name, self.which)

    def __str__(self) -> str:
        if self.which == "first":
            return f"first(m.{self.step}).{self.name}"
        return f"m.{self.step}.{self.name}"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class BoundAggregate(Expr):
    """An aggregate over the events that a step has bound so far: ``count(m.up)``.

    Nothing bound: count and sum are 0, the others are absent. The event under
    test is not among them.
    """

    function: str
    step: str
    name: str | None

    @property
    def key(self) -> Key:
        return ("bound_aggregate", self.function, self.step, self.name)

    def _missing(self, name: str) -> tuple[str, str]:
        if name not in WINDOW_METHODS:
            return Expr._missing(self, name)
        field = "" if self.name is None else f"e.{self.name}"
        remedy = (
            f"leave .{name}(...) out, or write {self.function}({field}).{name}(...)"
        )
        return "is over the events that the step has bound, not over a window", remedy

    def __str__(self) -> str:
        field = "" if self.name is None else f".{self.name}"
        return f"{self.function}(m.{self.step}{field})"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Binary(Expr):
    """Arithmetic, a comparison, or logic on two operands."""

    op: str
    left: Expr
    right: Expr

    @property
    def key(self) -> Key:
        return (self.op, self.left.key, self.right.key)

    def children(self) -> tuple[Expr, ...]:
        return (self.left, self.right)

    def __str__(self) -> str:
        return f"({self.left} {_SYMBOLS[self.op]} {self.right})"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Not(Expr):
    """Negation; false and absent become true."""

    operand: Expr

    @property
    def key(self) -> Key:
        return ("not", self.operand.key)

    def children(self) -> tuple[Expr, ...]:
        return (self.operand,)

    def __str__(self) -> str:
        return f"~{self.operand}"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Call(Expr):
    """A function of one or two numbers; of `round` the second is a constant."""

    function: str
    args: tuple[Expr, ...]

    @property
    def key(self) -> Key:
        return ("call", self.function, *(a.key for a in self.args))

    def children(self) -> tuple[Expr, ...]:
        return self.args

    def __str__(self) -> str:
        if self.function == "neg":
            return f"-{self.args[0]}"
        if self.function == "pow":
            return f"({self.args[0]} ** {self.args[1]})"
        return f"{self.function.rstrip('2')}({', '.join(map(str, self.args))})"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class IsIn(Expr):
    """Membership in a fixed list."""

    operand: Expr
    values: tuple[Scalar, ...]

    @property
    def key(self) -> Key:
        return (
            "is_in",
            self.operand.key,
            tuple((type(v).__name__, v) for v in self.values),
        )

    def children(self) -> tuple[Expr, ...]:
        return (self.operand,)

    def __str__(self) -> str:
        return f"{self.operand}.is_in({list(self.values)!r})"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class IsNull(Expr):
    """Whether the operand is absent."""

    operand: Expr

    @property
    def key(self) -> Key:
        return ("is_null", self.operand.key)

    def children(self) -> tuple[Expr, ...]:
        return (self.operand,)

    def __str__(self) -> str:
        return f"{self.operand}.is_null()"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class StringTest(Expr):
    """A test of a string against a fixed text."""

    test: str
    operand: Expr
    text: str

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise RuleError(
                f"{self.operand}.{self.test}",
                f"takes a fixed string, got {self.text!r}",
                "give the text as a Python string",
            )

    @property
    def key(self) -> Key:
        return (self.test, self.operand.key, self.text)

    def children(self) -> tuple[Expr, ...]:
        return (self.operand,)

    def __str__(self) -> str:
        return f"{self.operand}.{self.test}({self.text!r})"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Cast(Expr):
    """The operand as a value of another kind."""

    to: Literal["float", "int", "time"]
    operand: Expr

    @property
    def key(self) -> Key:
        return ("cast", self.to, self.operand.key)

    def children(self) -> tuple[Expr, ...]:
        return (self.operand,)

    def __str__(self) -> str:
        return f"{self.operand}.as_{self.to}()"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TimePart(Expr):
    """A part of a time, in UTC."""

    part: str
    operand: Expr

    @property
    def key(self) -> Key:
        return ("time_part", self.part, self.operand.key)

    def children(self) -> tuple[Expr, ...]:
        return (self.operand,)

    def __str__(self) -> str:
        return f"{self.operand}.dt.{self.part}()"


class TimeParts:
    """The parts of a time in milliseconds since 1970, all in UTC.

    There are no other zones: their rules come with each machine and change, and
    a replay has to find what was found live. Shift a time by a fixed offset
    where that will do: ``(e.event_time + 3_600_000).dt.hour()``.
    """

    __slots__ = ("_time",)

    def __init__(self, time: Expr) -> None:
        self._time = time

    def year(self) -> Expr:
        """The year, such as 2026."""
        return TimePart("year", self._time)

    def month(self) -> Expr:
        """The month, 1 to 12."""
        return TimePart("month", self._time)

    def day(self) -> Expr:
        """The day of the month, 1 to 31."""
        return TimePart("day", self._time)

    def weekday(self) -> Expr:
        """The day of the week from 1, Monday, to 7 (as in polars and ISO 8601)."""
        return TimePart("weekday", self._time)

    def hour(self) -> Expr:
        """The hour, 0 to 23."""
        return TimePart("hour", self._time)

    def minute(self) -> Expr:
        """The minute, 0 to 59."""
        return TimePart("minute", self._time)

    def second(self) -> Expr:
        """The second, 0 to 59, its fraction cut off."""
        return TimePart("second", self._time)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            if name.startswith("_"):
                raise AttributeError(name)
            parts = [part for part in vars(TimeParts) if not part.startswith("_")]
            near = near_miss(name, parts)
            raise UnknownMethodError(
                f"{self._time}.dt.{name}",
                "there is no such part of a time",
                f"did you mean {near[0]!r}?" if near else f"use {', '.join(parts)}",
            )

    def __repr__(self) -> str:
        return f"{self._time}.dt"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TypeIs(Expr):
    """Whether the event's type is one of ``types``; made from `on`, not by users."""

    types: tuple[str, ...]

    @property
    def key(self) -> Key:
        return ("type_is", *self.types)

    def __str__(self) -> str:
        return f"type is {' or '.join(self.types)}"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Scoped(Expr):
    """A condition of a step on ``types``, which decide what its fields and windows are.

    Made when a pattern is compiled, not by users.
    """

    types: tuple[str, ...]
    operand: Expr

    @property
    def key(self) -> Key:
        return ("scoped", self.types, self.operand.key)

    def children(self) -> tuple[Expr, ...]:
        return (self.operand,)

    def __str__(self) -> str:
        return str(self.operand)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SincePrevious(Expr):
    """Whether less than ``length_ns`` has passed since the event bound last.

    Made from `within_previous` when a pattern is compiled, not by users.
    """

    length_ns: int

    @property
    def key(self) -> Key:
        return ("since_previous", self.length_ns)

    def __str__(self) -> str:
        return f"less than {format_duration(self.length_ns)} after the event before"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Python(Expr):
    """A Python function of some fields of the event: the escape hatch `py`.

    Runs once per event in the interpreter, so it is slow, and a rule that uses
    it cannot be translated to another engine.
    """

    function: Callable[..., object]
    reads: tuple[Field, ...]

    @property
    def key(self) -> Key:
        name = f"{self.function.__module__}.{self.function.__qualname__}"
        return ("py", name, fingerprint(self.function), *(r.key for r in self.reads))

    def children(self) -> tuple[Expr, ...]:
        return self.reads

    def __str__(self) -> str:
        return f"py({self.function.__qualname__}, reads={list(self.reads)!r})"


class StepRef:
    """What a step has bound so far: ``m.up``; attributes are fields of the last."""

    __slots__ = ("_step", "_which")

    def __init__(self, step: str, which: Literal["first", "last"] = "last") -> None:
        self._step, self._which = step, which

    def __getattr__(self, name: str) -> BoundField:
        if name.startswith("__"):
            raise AttributeError(name)
        return BoundField(self._step, name, self._which)

    def __getitem__(self, name: str) -> BoundField:
        return BoundField(self._step, name, self._which)

    def __bool__(self) -> NoReturn:
        raise RuleError(
            f"m.{self._step}",
            "a step has no truth value while the rule is being built",
            f"ask count(m.{self._step}) > 0",
        )

    def __repr__(self) -> str:
        return f"m.{self._step}"


class EventNamespace:
    """``e``: attributes and items are fields of the event under test."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Field:
        if name.startswith("__"):
            raise AttributeError(name)
        return Field(name)

    def __getitem__(self, name: str) -> Field:
        return Field(name)

    def __repr__(self) -> str:
        return "e"


class MatchNamespace:
    """``m``: attributes and items are the steps of the match so far."""

    __slots__ = ()

    def __getattr__(self, name: str) -> StepRef:
        if name.startswith("__"):
            raise AttributeError(name)
        return StepRef(name)

    def __getitem__(self, name: str) -> StepRef:
        return StepRef(name)

    def __repr__(self) -> str:
        return "m"


e = EventNamespace()
m = MatchNamespace()


def as_expr(value: object) -> Expr:
    """Return ``value`` as a node; plain values become constants."""
    if isinstance(value, Expr):
        return value
    if isinstance(value, (bool, int, float, str)):
        return Const(_finite(value))
    if value is None:
        raise RuleError(
            "None",
            "nothing equals an absent value, so None cannot be compared",
            "ask for absence with .is_null(), for presence with ~....is_null()",
        )
    refuse = getattr(type(value), "_refuse", None)
    if refuse is not None:  # a choice without its end
        refuse(value)
    if isinstance(value, StepRef):
        raise RuleError(
            repr(value),
            "a step is not a value",
            f"name a field ({value!r}.price) or aggregate it (count({value!r}))",
        )
    if isinstance(value, EventNamespace):
        raise RuleError(
            "e",
            "the event is not a value",
            "name a field of it, as e.price; count() without anything counts events",
        )
    if isinstance(value, MatchNamespace):
        raise RuleError(
            "m",
            "the match is not a value",
            "name a field of a step (m.up.price) or aggregate one (count(m.up))",
        )
    remedy = "use a number, a string, True or False, a field (e.price) or an aggregate"
    if isinstance(value, timedelta):
        ms = value / timedelta(milliseconds=1)
        remedy = f"times are numbers of milliseconds: write {ms:.15g}"
    elif isinstance(value, datetime):
        zone = "" if value.tzinfo else ", tzinfo=UTC"
        remedy = (
            "a time is a number of milliseconds since 1970: write "
            f"datetime(...{zone}).timestamp() * 1000"
        )
    elif callable(value):
        remedy = (
            "build a condition of e, as e.price > 3, or write py(function, reads=[...])"
        )
    raise RuleError(
        repr(value)[:80],
        f"a {type(value).__name__} cannot be part of an expression",
        remedy,
    )


def _logic(op: str, left: Expr, right: Expr) -> Expr:
    """Return ``left & right`` or ``left | right``; a number is a slip of precedence."""
    for side in (left, right):
        if isinstance(side, Const) and type(side.value) in (int, float):
            raise RuleError(
                f"{left} {_SYMBOLS[op]} {right}",
                f"{_SYMBOLS[op]} takes conditions, {side} is a number; it binds "
                "stronger than a comparison",
                "put each comparison in parentheses: "
                f"(e.price < 1) {_SYMBOLS[op]} (e.price > 3)",
            )
    return Binary(op, left, right)


def _finite(value: Scalar) -> Scalar:
    if isinstance(value, (bool, str)):
        return value
    try:
        finite = math.isfinite(float(value))
    except OverflowError:
        finite = False
    if not finite:
        raise RuleError(
            f"{value!r:.40}",
            "is no finite number, so no comparison with it could hold",
            "leave the comparison out, or use a number within 1.8e308",
        )
    return value


def conjuncts(condition: Expr) -> list[Expr]:
    """Split ``a & b & c`` into its parts."""
    if isinstance(condition, Binary) and condition.op == "and":
        return conjuncts(condition.left) + conjuncts(condition.right)
    return [condition]


def reads_event(expr: Expr) -> bool:
    """Whether the value depends on the event under test."""
    return any(
        not node.children() and not isinstance(node, _FIXED) for node in expr.walk()
    )


_FIXED = (Const, BoundField, BoundAggregate)


def reads_match(expr: Expr) -> bool:
    """Whether the value depends on what the match has bound (it is iterative)."""
    bound = (BoundField, BoundAggregate, SincePrevious)
    return any(isinstance(node, bound) for node in expr.walk())
