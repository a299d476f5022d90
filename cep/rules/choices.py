"""Values that depend on conditions: `when` ... then ... otherwise, and `coalesce`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from cep.errors import RuleError
from cep.rules.expressions import Expr, Key, UnknownMethodError, as_expr


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Choice(Expr):
    """One value where a condition holds, another where it does not."""

    condition: Expr
    value: Expr
    otherwise: Expr

    @property
    def key(self) -> Key:
        return ("choice", *(part.key for part in self.children()))

    def children(self) -> tuple[Expr, ...]:
        return (self.condition, self.value, self.otherwise)

    def __str__(self) -> str:
        return f"when({self.condition}).then({self.value}).otherwise({self.otherwise})"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Coalesce(Expr):
    """The first of some values that is there."""

    values: tuple[Expr, ...]

    @property
    def key(self) -> Key:
        return ("coalesce", *(value.key for value in self.values))

    def children(self) -> tuple[Expr, ...]:
        return self.values

    def __str__(self) -> str:
        return f"coalesce({', '.join(map(str, self.values))})"


class _Unfinished(ABC):
    """A choice that is no value yet; every use as one says what is missing."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    @abstractmethod
    def _refuse(self) -> NoReturn:
        """Raise RuleError that says what is missing."""

    def _refused(self, *_: object) -> NoReturn:
        self._refuse()

    __add__ = __sub__ = __mul__ = __truediv__ = __mod__ = __pow__ = _refused
    __radd__ = __rsub__ = __rmul__ = __rtruediv__ = __rmod__ = __rpow__ = _refused
    __and__ = __or__ = __rand__ = __ror__ = _refused
    __lt__ = __le__ = __gt__ = __ge__ = _refused
    __eq__ = __ne__ = _refused
    __neg__ = __invert__ = __abs__ = __round__ = __bool__ = _refused

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            if name.startswith("_"):
                raise AttributeError(name)
            try:
                self._refuse()
            except RuleError as error:
                raise UnknownMethodError(*error.args) from None


class When(_Unfinished):
    """A condition that still needs its value: ``when(e.side == "buy")``."""

    __slots__ = ("_cases", "_condition")

    def __init__(self, condition: Expr, cases: tuple[tuple[Expr, Expr], ...]) -> None:
        self._condition, self._cases = condition, cases

    def then(self, value: object) -> Then:
        """Give the value where the condition holds."""
        return Then((*self._cases, (self._condition, as_expr(value))))

    def __repr__(self) -> str:
        return f"when({self._condition})"

    def _refuse(self) -> NoReturn:
        remedy = f"write {self!r}.then(...).otherwise(...)"
        raise RuleError(repr(self), "has no value yet", remedy)


class Then(_Unfinished):
    """Conditions with their values, which still need the value of the rest."""

    __slots__ = ("_cases",)

    def __init__(self, cases: tuple[tuple[Expr, Expr], ...]) -> None:
        self._cases = cases

    def when(self, condition: Expr) -> When:
        """Ask another condition where none so far holds."""
        return When(as_expr(condition), self._cases)

    def otherwise(self, value: object) -> Expr:
        """Give the value where no condition holds."""
        result = as_expr(value)
        for condition, chosen in reversed(self._cases):
            result = Choice(condition, chosen, result)
        return result

    def __repr__(self) -> str:
        return "".join(f".when({c}).then({v})" for c, v in self._cases)[1:]

    def _refuse(self) -> NoReturn:
        remedy = f"write {self!r}.otherwise(...)"
        raise RuleError(repr(self), "does not say what the rest is", remedy)


def when(condition: Expr) -> When:
    """Begin a choice: ``when(e.side == "buy").then(e.quantity).otherwise(0)``.

    The first condition that holds decides; one that is absent does not hold.
    All values must be of one kind: numbers, strings or truth values.

    >>> from cep.rules import e
    >>> when(e.n > 9).then("ten").when(e.n > 1).then("two").otherwise("one")
    when((e.n > 9)).then('ten').otherwise(when((e.n > 1)).then('two').otherwise('one'))
    """
    return When(as_expr(condition), ())


def coalesce(*values: object) -> Expr:
    """Return the first value that is not absent; absent if all are.

    ``coalesce(e.side, "unknown")`` gives a default.
    """
    if not values:
        raise RuleError("coalesce()", "has no values", "write coalesce(e.x, 0)")
    return Coalesce(tuple(map(as_expr, values)))
