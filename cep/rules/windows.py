"""Aggregates over windows: what ``avg(e.price).over("60s")`` means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from cep.clock import duration_ns, format_duration
from cep.errors import RuleError
from cep.rules.expressions import Expr, Field, as_expr

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from cep.rules.expressions import Key

WINDOW_AGGREGATES = (
    "count",
    "sum",
    "avg",
    "var",
    "std",
    "min",
    "max",
    "first",
    "last",
)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Window(Expr):
    """An aggregate over a sliding event-time window: ``avg(e.price).over("60s")``.

    The window of an event at time ``t`` is ``(t - length, t]`` over the events
    of the step's types: an event counts itself, one exactly ``length`` old has
    left, and of events with equal times an earlier one does not see a later
    one. ``where`` limits which events enter; absent values are passed over
    (``count()`` counts events, ``count(e.x)`` those that have an x). In an
    empty window count and sum are 0, all others absent. ``var`` and ``std``
    are those of the population (divided by n). Values beyond 1e140 in size are
    passed over like absent ones.

    ``by`` names the fields that split the events into windows of their own:
    None for the rule's key, an empty tuple for one window over all.
    """

    function: str
    value: Expr | None
    length_ns: int
    by: tuple[str, ...] | None
    where: Expr | None

    @property
    def key(self) -> Key:
        return (
            "window",
            self.function,
            None if self.value is None else self.value.key,
            self.length_ns,
            self.by,
            None if self.where is None else self.where.key,
        )

    def __str__(self) -> str:
        text = f"{self.function}({'' if self.value is None else self.value})"
        if self.where is not None:
            text += f".where({self.where})"
        by = "" if self.by is None else f", by={list(self.by)!r}"
        return f"{text}.over({format_duration(self.length_ns)!r}{by})"


class Aggregate:
    """An aggregate that still needs its window: ``avg(e.price)`` before ``.over``."""

    __slots__ = ("_function", "_value", "_where")

    def __init__(
        self, function: str, value: Expr | None, where: Expr | None = None
    ) -> None:
        self._function, self._value, self._where = function, value, where

    def where(self, condition: Expr) -> Aggregate:
        """Let only events that satisfy ``condition`` enter the window."""
        condition = as_expr(condition)
        joined = condition if self._where is None else self._where & condition
        return Aggregate(self._function, self._value, joined)

    def over(
        self,
        length: str | timedelta,
        *,
        by: str | Sequence[str] | Expr | None = None,
    ) -> Window:
        """Aggregate over the last ``length`` of event time, ``(t - length, t]``.

        ``by`` splits by one or several fields; the default is the rule's key,
        ``by=[]`` is one window over all events of the step's types.
        """
        names: tuple[str, ...] | None
        if by is None:
            names = None
        else:
            parts = [by] if isinstance(by, (str, Expr)) else list(by)
            names = tuple(p.name if isinstance(p, Field) else str(p) for p in parts)
        return Window(
            self._function, self._value, duration_ns(length), names, self._where
        )

    def _refuse(self, *_: object) -> NoReturn:
        raise RuleError(
            str(self),
            "the aggregate has no window yet",
            f'say over what: {self}.over("60s")',
        )

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _refuse
    __mod__ = __rmod__ = __abs__ = __truediv__ = __rtruediv__ = __lt__ = __le__ = (
        __gt__
    ) = __ge__ = _refuse
    __and__ = __or__ = __neg__ = __bool__ = __invert__ = _refuse
    __eq__ = __ne__ = _refuse
    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        return f"{self._function}({'' if self._value is None else self._value})"

    __repr__ = __str__
