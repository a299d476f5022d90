"""The functions that rule authors call: aggregates, ``abs_``-like helpers and `py`.

Each aggregate reads two ways. Of a field of ``e`` it needs a window, its own
(``avg(e.price).over("60s")``) or that of a step which takes windows. Of a step of
``m`` it is taken over the events the step has bound: ``avg(m.up.price)``,
``count(m.up)``, ``first(m.up).price``.

`sum`, `min`, `max` and `abs` given anything but expressions do what Python's
own do, so importing them over the builtins is harmless.
"""

from __future__ import annotations

import builtins
from dataclasses import replace
from typing import TYPE_CHECKING, Any, overload

from cep.clock import duration_ns
from cep.errors import RuleError
from cep.rules.expressions import (
    BoundAggregate,
    BoundField,
    Call,
    Expr,
    Field,
    Python,
    StepRef,
    as_expr,
)
from cep.rules.windows import Aggregate, Span, Window, field_names

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import timedelta

    from cep.rules.windows import By

Value = Expr | StepRef | None


def _aggregate(function: str, value: Any) -> Any:
    if isinstance(value, BoundField):
        return BoundAggregate(function, value.step, value.name)
    if isinstance(value, StepRef):
        raise RuleError(
            f"{function}({value!r})",
            f"{function} needs a field of the step",
            f"write {function}({value!r}.price)",
        )
    return Aggregate(function, (as_expr(value),))


def _of_window(function: str, value: Any) -> Aggregate:
    """Return an aggregate that is only there over windows, not over steps."""
    if isinstance(value, (BoundField, StepRef)):
        remedy = f"take {function} of a field of e, over a window"
        if function in ("first", "last"):
            remedy = f"write {function}(m.{value.step}).{value.name}"
        raise RuleError(
            f"{function}({value!r})",
            f"there is no {function} of what a step has bound",
            remedy,
        )
    return Aggregate(function, (as_expr(value),))


@overload
def count(value: StepRef) -> BoundAggregate: ...
@overload
def count(value: Expr | None = None) -> Aggregate: ...
def count(value: Value = None) -> BoundAggregate | Aggregate:
    """Number of events: ``count().over("60s")``, or bound by a step: ``count(m.up)``.

    ``count(e.x)`` counts only events that have an ``x``.
    """
    if isinstance(value, StepRef):
        return BoundAggregate("count", value._step, None)
    if isinstance(value, BoundField):
        return BoundAggregate("count", value.step, value.name)
    return Aggregate("count", () if value is None else (as_expr(value),))


def sum(value: Any, *rest: Any) -> Any:
    """Sum of a field over a window or of a step; 0 when there is nothing."""
    if rest or not isinstance(value, (Expr, StepRef)):
        return builtins.sum(value, *rest)
    return _aggregate("sum", value)


def avg(value: Expr) -> Any:
    """Arithmetic mean over a window or of a step; absent when there is nothing."""
    return _aggregate("avg", value)


def var(value: Expr) -> Aggregate:
    """Population variance over a window; 0 for one value, absent for none."""
    return _of_window("var", value)


def std(value: Expr) -> Aggregate:
    """Population standard deviation over a window; 0 for one value, absent for none."""
    return _of_window("std", value)


def min(*values: Any, **options: Any) -> Any:
    """Smallest value over a window or of a step; of two expressions, the smaller."""
    return _extreme("min", values, options)


def max(*values: Any, **options: Any) -> Any:
    """Largest value over a window or of a step; of two expressions, the larger."""
    return _extreme("max", values, options)


def _extreme(function: str, values: tuple[Any, ...], options: dict[str, Any]) -> Any:
    if not any(isinstance(v, (Expr, StepRef)) for v in values):
        return getattr(builtins, function)(*values, **options)
    if len(values) == 1:
        return _aggregate(function, values[0])
    result = as_expr(values[0])
    for value in values[1:]:
        result = Call(f"{function}2", (result, as_expr(value)))
    return result


@overload
def first(value: StepRef) -> StepRef: ...
@overload
def first(value: Expr) -> Aggregate: ...
def first(value: StepRef | Expr) -> StepRef | Aggregate:
    """The first event of a step (``first(m.up).price``), or of a window."""
    if isinstance(value, StepRef):
        return StepRef(value._step, "first")
    return _of_window("first", value)


@overload
def last(value: StepRef) -> StepRef: ...
@overload
def last(value: Expr) -> Aggregate: ...
def last(value: StepRef | Expr) -> StepRef | Aggregate:
    """The last event of a step (``last(m.up).price``), or of a window."""
    if isinstance(value, StepRef):
        return StepRef(value._step, "last")
    return _of_window("last", value)


def rate(value: Expr) -> Aggregate:
    """Rate of change over a window, per second.

    The last value less the first, divided by the seconds between them; absent where
    no time lies between. (``last(...) / first(...) - 1`` is the relative change.)
    """
    return _of_window("rate", value)


def slope(value: Expr) -> Aggregate:
    """Least squares slope of a value against event time over a window, per second.

    Absent where all values are of one time.
    """
    return _of_window("slope", value)


def quantile(value: Expr, q: float) -> Aggregate:
    """The ``q``-quantile over a window: half of the values lie below the 0.5-quantile.

    Exact. Of n values in order it is at place ``q * (n - 1)``, from 0, and between two
    of them on a straight line (estimator 7 of Hyndman and Fan, the default of numpy
    and R, ``"linear"`` in polars). Costs the logarithm of the number of values.
    """
    if isinstance(q, bool) or not isinstance(q, (int, float)) or not 0 <= q <= 1:
        raise RuleError(
            f"quantile({value}, {q!r})",
            "takes the part of the values that lie below, from 0 to 1",
            f"write quantile({value}, 0.95)",
        )
    return replace(_of_window("quantile", value), parameter=float(q))


def distinct(value: Expr) -> Aggregate:
    """How many different values there are in a window; they may be strings."""
    return _of_window("distinct", value)


def wavg(value: Expr, weight: Expr) -> Aggregate:
    """Weighted mean over a window: of prices by quantities, the VWAP.

    Over the events that have both; absent where the weights sum to 0.
    """
    return _of_pair("wavg", value, weight)


def cov(x: Expr, y: Expr) -> Aggregate:
    """Population covariance of two values over a window.

    Over the events that have both; absent where there are none. For two streams,
    one value may be the other's last: see `corr`.
    """
    return _of_pair("cov", x, y)


def corr(x: Expr, y: Expr) -> Aggregate:
    """Pearson's correlation of two values over a window.

    Over the events that have both; absent where all x or all y are equal. Two
    streams are correlated as of the events of one: each of its events that enters is
    paired with the latest of the other, if that is not too old.
    ``corr(e.price, last(e.bid).of("market.quote").over("1s")).over("5m")`` pairs each
    trade with the last quote of the second before it.
    """
    return _of_pair("corr", x, y)


def _of_pair(function: str, x: Any, y: Any) -> Aggregate:
    made = [_of_window(function, value) for value in (x, y)]
    return Aggregate(function, (*made[0].values, *made[1].values))


def prev(value: Expr, *, by: By = None) -> Window:
    """The value at the previous event of the same key: ``e.price > prev(e.price)``.

    The previous event is the last one before this of the step's types (of
    whatever a step's condition says); absent for the first of a key, and where
    that event lacked the value. ``by`` is as in ``.over``.

    One value is kept for each key, and for as long as the engine knows the key:
    nothing says when it is no longer wanted. When more than `KEYS` keys are kept,
    those that were not seen for longest are forgotten, and counted.
    """
    return _remembered("prev", value, Span("previous"), by)


def ewm(
    value: Expr, *, half_life: str | timedelta | None = None, by: By = None
) -> Window:
    """Exponentially weighted mean, in which a value counts half after ``half_life``.

    The mean of all values of the key so far, the one of this event included, each
    weighted by ``0.5 ** (age / half_life)``, where the age is a difference of event
    times. (pandas: ``ewm(halflife=..., times=...).mean()``.) Absent before the first
    value; an event without a value leaves the mean as it is. Keys are kept and
    forgotten as by `prev`.
    """
    if half_life is None:
        raise RuleError(
            f"ewm({value!r})",
            "does not say how fast values lose weight",
            f'write ewm({value!r}, half_life="10s")',
        )
    length = duration_ns(half_life)
    return _remembered("ewm", value, Span("all"), by, float(length))


def _remembered(
    function: str, value: Expr, span: Span, by: By, parameter: float | None = None
) -> Window:
    made = _of_window(function, value)
    return Window(
        function, made.values, parameter=parameter, span=span, by=field_names(by)
    )


def log(value: Expr) -> Expr:
    """Natural logarithm; absent for values that are not positive."""
    return Call("log", (as_expr(value),))


def sqrt(value: Expr) -> Expr:
    """Square root; absent for negative values."""
    return Call("sqrt", (as_expr(value),))


def exp(value: Expr) -> Expr:
    """E to the power of a value; absent where that is too large for a number."""
    return Call("exp", (as_expr(value),))


def floor(value: Expr) -> Expr:
    """The largest whole number that is not larger."""
    return Call("floor", (as_expr(value),))


def ceil(value: Expr) -> Expr:
    """The smallest whole number that is not smaller."""
    return Call("ceil", (as_expr(value),))


def sign(value: Expr) -> Expr:
    """-1, 0 or 1."""
    return Call("sign", (as_expr(value),))


def clip(value: Expr, low: object = None, high: object = None) -> Expr:
    """Return the value, or the bound that it is beyond; None is no bound.

    Absent where the value or a bound is; ``high`` wins over a ``low`` beyond it.
    """
    result = as_expr(value)
    if low is not None:
        result = Call("max2", (result, as_expr(low)))
    return result if high is None else Call("min2", (result, as_expr(high)))


def py(function: Callable[..., object], reads: Sequence[Expr]) -> Expr:
    """Call a Python function with the fields in ``reads``, once per event.

    The escape hatch for what expressions cannot say: slow, and not portable to
    another engine. The function gets the values in the order of ``reads`` (None
    where absent) and returns a number, a truth value (emitted as 1 or 0), or None
    for absent. It must depend on nothing else, or replays will differ.

    It is called for every event of the step's types. Where it raises, or returns
    anything else, the rule does not see the event, which gets a row of its own; a
    rule that has five such events within a minute of event time stops. One that is
    slow holds up the pipeline, which says so and changes nothing by it.
    """
    fields = []
    if isinstance(reads, Expr):
        raise RuleError(
            f"py({function.__name__})",
            f"reads is {reads!r}, not a list",
            "list the fields that the function gets: reads=[e.price, e.quantity]",
        )
    for item in reads:
        if not isinstance(item, Field):
            raise RuleError(
                f"py({function.__name__})",
                f"reads may hold fields of e only, got {item!r}",
                "list plain fields: reads=[e.price, e.quantity]",
            )
        fields.append(item)
    return Python(function, tuple(fields))
