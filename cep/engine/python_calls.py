"""Python functions in rules: what they return, and what happens when they fail.

A function may raise, or return what is no number. Then its value is absent for
this event, and the rules that use it do not see the event; all else goes on. (A
window counts the event, without the value.) A rule with `MOST_ERRORS` such events
within `ERRORS_WITHIN_NS` of event time trips: it keeps its state and sees no more
events. Both follow from the events alone, so a replay fails at the same ones.

How long a function takes never changes what comes out, or results would hang on
the machine: it is measured, and `Slow` is for the user to read.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cep.engine.derive import leaf_value
from cep.rules.expressions import Python

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from cep.engine.batch import Batch
    from cep.engine.plan import Plan, PythonColumn

_Place = tuple[int, int, int, int]

MOST_ERRORS = 5
ERRORS_WITHIN_NS = 60 * 10**9
SLOW_SECONDS = 1.0  # for one batch, after which a function counts as slow


@dataclass(frozen=True, slots=True)
class RuleFailure:
    """An event on which a function of a rule failed, and which the rule did not see.

    ``stream`` is the number of the input stream; ``what`` says which function did
    what and where, and holds nothing of the event.
    """

    rule: str
    time_ns: int
    stream: int
    entry_ms: int
    entry_seq: int
    what: str


@dataclass(slots=True)
class CallCost:
    """What a function has cost so far: events, seconds, its slowest batch."""

    events: int = 0
    seconds: float = 0.0
    worst_seconds: float = 0.0
    worst_events: int = 0


class PythonCalls:
    """Runs the Python functions of a plan.

    Attributes
    ----------
    costs
        What each function has cost, by its text.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._users = [list(_users(plan, call)) for call in plan.calls]
        self._failed: dict[int, dict[_Place, str]] = {}
        self.costs = {str(call.call): CallCost() for call in plan.calls}

    def fill(self, batch: Batch, tripped: Collection[int]) -> None:
        """Compute the columns of all functions that a rule not tripped uses."""
        self._failed.clear()
        for call, users in zip(self._plan.calls, self._users, strict=True):
            if not all(number in tripped for number in users):
                self._run(call, users, batch)

    def rows_failed(self, number: int, batch: Batch) -> dict[int, str]:
        """Return the rows that a rule must not see, rising, with what happened.

        ``batch`` is that of the last `fill`, or a part of it, where rows may have
        been put in.
        """
        failed = self._failed.get(number)
        if not failed:
            return {}
        places = enumerate(_places(batch))
        return {row: failed[place] for row, place in places if place in failed}

    def _run(self, call: PythonColumn, users: Sequence[int], batch: Batch) -> None:
        codes = [self._plan.types.index(t) for t in call.types]
        rows = np.flatnonzero(np.isin(batch.type, codes)).tolist()
        texts = self._plan.strings.texts
        places: list[_Place] = []
        began = time.perf_counter()
        for i in rows:
            args = [
                leaf_value(float(batch.cols[c, i]), kind, texts)
                for c, kind in zip(call.reads, call.kinds, strict=True)
            ]
            try:
                value = _number(call.call.function(*args))
            except Exception as error:
                value = np.nan
                what = f"{call.call} {_told(error)}"
                places = places or _places(batch)
                for number in users:
                    self._failed.setdefault(number, {}).setdefault(places[i], what)
            batch.cols[call.column, i] = value
        cost, took = self.costs[str(call.call)], time.perf_counter() - began
        cost.events += len(rows)
        cost.seconds += took
        if took > cost.worst_seconds:
            cost.worst_seconds, cost.worst_events = took, len(rows)

    def slow(self) -> dict[str, CallCost]:
        """Return the functions of which a batch took longer than `SLOW_SECONDS`."""
        return {
            name: cost
            for name, cost in self.costs.items()
            if cost.worst_seconds > SLOW_SECONDS
        }


def _places(batch: Batch) -> list[_Place]:
    """Return what tells each row from all others."""
    columns = batch.stream, batch.entry_ms, batch.entry_seq, batch.type
    return list(zip(*(column.tolist() for column in columns), strict=True))


class _NotANumberError(TypeError):
    """A function returned something that is no value of a column."""


def _users(plan: Plan, call: PythonColumn) -> Iterator[int]:
    """Yield the numbers of the rules that a function's failure concerns."""
    for number, compiled in enumerate(plan.compiled):
        rule = compiled.rule
        for expr in rule.expressions():
            if isinstance(expr, Python) and expr.key == call.call.key:
                if set(call.types) & set(rule.sources):
                    yield number
                break


def _number(result: object) -> float:
    """Return what a function returned as a column holds it."""
    if result is None:
        return np.nan
    if not isinstance(result, (bool, int, float, np.bool_, np.integer, np.floating)):
        raise _NotANumberError(type(result).__name__)
    try:
        number = float(result)
    except OverflowError:
        return np.nan
    return number if np.isfinite(number) else np.nan


def _told(error: Exception) -> str:
    """Say what happened and where. What an error says may quote the event."""
    if isinstance(error, _NotANumberError):
        return f"returned a {error}, not a number, a truth value or None"
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    where = ""
    if last is not None:
        name = Path(last.tb_frame.f_code.co_filename).name
        where = f" at {name}:{last.tb_lineno}"
    return f"raised {type(error).__name__}{where}"
