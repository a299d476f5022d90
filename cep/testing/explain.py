"""Why a rule did not match: how far it came, and what was not true there.

The engine itself is asked. The rule's pattern is cut after each of its elements and
run again: the longest part that matches is how far it came. The element behind it is
then run without its condition, emitting each part of the condition and what it
compares: the event that came nearest says what was missing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from cep.clock import format_duration
from cep.errors import CepError
from cep.rules.emission import emit
from cep.rules.expressions import (
    COMPARISONS,
    Binary,
    BoundAggregate,
    BoundField,
    conjuncts,
)
from cep.rules.patterns import NEGATIONS, Quantifier, Sequence, Step
from cep.rules.rule import build_rule
from cep.testing.streams import NS_PER_MS, START_MS, offset

if TYPE_CHECKING:
    from cep.backtesting.run import RunResult
    from cep.engine.derive import DerivedEvent
    from cep.rules.expressions import Expr
    from cep.rules.patterns import Contiguity
    from cep.rules.rule import Rule
    from cep.testing.scenario import Stage

_LONGEST: Final = 160
Element = tuple["Contiguity | None", "Step | Sequence"]


def explained(rule: Rule, stage: Stage, result: RunResult) -> list[str]:
    """Return lines that say why a rule did not match, or not more often."""
    lines = [f"why {rule.name!r} did not fire{' more often' * bool(result.events)}:"]
    counts = result.counts[rule.name]
    if counts.tripped:
        lines.append(f"  it stopped: {counts.tripped_why}")
    if counts.suppressed:
        cooldown = format_duration(rule.cooldown_ns)
        lines.append(
            f"  {counts.suppressed} matches suppressed by its cooldown of {cooldown}"
        )
    types = {one.event.type for one in stage.scenario.given}
    lines += [
        f"  no event of type {name} was given"
        for name in rule.sources
        if name not in types
    ]
    try:
        lines += [f"  {line}" for line in _Probe(rule, stage).lines()]
    except CepError as error:
        lines.append(f"  (no more can be said: {error})")
    return lines


class _Probe:
    """A rule's pattern, in parts."""

    def __init__(self, rule: Rule, stage: Stage) -> None:
        self.rule, self.stage = rule, stage
        self.elements = rule.pattern.elements
        self.numbers = {one.event.id: one.number for one in stage.scenario.given}

    def lines(self) -> list[str]:
        n = len(self.elements)
        for reached in range(n, 0, -1):
            if self.elements[reached - 1][0] in NEGATIONS:
                continue
            found = self._run(self.elements[:reached])
            if found:
                return [self._reached(reached, found[-1]), *self._after(reached, found)]
        first = self.elements[0][1]
        return [f"nothing took {_name(first)}, the first of {n}", *self._nearest(0)]

    def _reached(self, reached: int, match: DerivedEvent) -> str:
        bound = zip(match.steps, match.lineage, strict=True)
        told = ", ".join(f"{step} #{self.numbers[x]}" for step, x in bound)
        return f"it came as far as {_name(self.elements[reached - 1][1])}: {told}"

    def _after(self, reached: int, found: list[DerivedEvent]) -> list[str]:
        pattern, match = self.rule.pattern, found[-1]
        if reached == len(self.elements):
            if pattern.condition is None:
                return ["that is a whole match; see what was derived"]
            return ["then the condition of the whole was false", *self._whole()]
        behind = self.elements[reached:]
        absent = [one for one in behind if one[0] in NEGATIONS]
        lines = []
        for how, step in absent[:1]:
            came = self._run([*self.elements[:reached], (_POSITIVE[how], step)])
            if came and behind[0][0] in NEGATIONS:
                number = self.numbers[came[-1].lineage[-1]]
                lines.append(f"then {_name(step)} must not come, and came: #{number}")
        if lines:
            return lines
        if behind[0][0] in NEGATIONS and len(behind) == len(absent):
            return self._not_certain(match)
        place = reached + next(
            i for i, (how, _) in enumerate(behind) if how not in NEGATIONS
        )
        missed = _name(self.elements[place][1])
        return [f"then nothing took {missed}", *self._nearest(place, after=match)]

    def _not_certain(self, match: DerivedEvent) -> list[str]:
        """Say when an absence in last place would have become certain."""
        within, gap = self.rule.pattern.within_ns, self.elements[-1][1].gap_ns
        gap = gap if gap is not None else self.rule.pattern.gap_ns
        times = {
            one.event.id: (START_MS + one.at_ms) * NS_PER_MS
            for one in self.stage.scenario.given
        }
        ends = []
        if within is not None:
            ends.append(times[match.lineage[0]] + within)
        if gap is not None:
            ends.append(times[match.lineage[-1]] + gap)
        end_ms = min(ends) // NS_PER_MS - START_MS
        if end_ms <= self.stage.scenario.end_ms:
            return ["its end came; see what was derived"]
        missing = offset(end_ms - self.stage.scenario.end_ms)
        remedy = f'add advance("{missing}") at the end'
        return [f"the absence is certain only at {offset(end_ms)}: {remedy}"]

    def _run(
        self, elements: Any, emission: Any = None, **changes: Any
    ) -> list[DerivedEvent]:
        pattern = self.rule.pattern
        cut = replace(pattern, elements=tuple(elements), condition=None, **changes)
        rule = build_rule(
            self.rule.name,
            cut,
            [emission or emit()],
            key=self.rule.key or None,
            limits=self.rule.limits,
        )
        return [x for x in self.stage.run([rule]).events if not x.timeout]

    def _whole(self) -> list[str]:
        condition = self.rule.pattern.condition
        assert condition is not None
        parts = conjuncts(condition)
        return self._best(self._run(self.elements, _telling(parts)), parts)

    def _nearest(self, place: int, after: DerivedEvent | None = None) -> list[str]:
        """Say which event came nearest to taking an element, and what was false."""
        element = self.elements[place][1]
        while isinstance(element, Sequence):
            element = element.elements[0][1]
        before = [x for x in self.elements[:place] if x[0] not in NEGATIONS]
        if element.span is not None:
            return [f"which wants {element}"[:_LONGEST]]
        bare = replace(element, condition=None, quantifier=Quantifier())
        how: Contiguity | None = "then_any" if before else None
        parts = conjuncts(element.condition) if element.condition is not None else []
        if element.condition is not None and _looks_back(element):
            return [f"which wants {element.condition}"[:_LONGEST]]
        found = self._run(
            [*before, (how, bare)], _telling(parts), within_ns=None, gap_ns=None
        )
        if not found:
            of = " of its key" if self.rule.key else ""
            then = " after that" if after else ""
            return [f"no event of {', '.join(element.types)}{of} came{then}"]
        return self._best(found, parts)

    def _best(self, found: list[DerivedEvent], parts: list[Expr]) -> list[str]:
        def missing(event: DerivedEvent) -> int:
            values = event.data["values"]
            return sum(not values[f"c{i}"] for i in range(len(parts)))

        best = min(reversed(found), key=missing)
        number, values = self.numbers[best.lineage[-1]], best.data["values"]
        if not missing(best):
            return [self._why_not(best, number)]
        lines = [f"nearest was #{number}, where"]
        for i, part in enumerate(parts):
            if not values[f"c{i}"]:
                sides = ""
                if f"c{i}_left" in values:
                    assert isinstance(part, Binary)
                    left, right = values[f"c{i}_left"], values[f"c{i}_right"]
                    sides = f": {_value(left)} {_SIGNS[part.op]} {_value(right)}"
                lines.append(f"  {str(part)[:_LONGEST]} was false{sides}")
        return lines

    def _why_not(self, best: DerivedEvent, number: int) -> str:
        """Say what else keeps an event from being taken whose condition holds."""
        times = {one.event.id: one.at_ms for one in self.stage.scenario.given}
        within = self.rule.pattern.within_ns
        took_ms = times[best.lineage[-1]] - times[best.lineage[0]]
        if within is not None and took_ms * NS_PER_MS >= within:
            return (
                f"#{number} would fit, but came {offset(took_ms)} after the first "
                f"event; less than {format_duration(within)} is allowed"
            )
        return (
            f"#{number} would fit, but not there: something came in between, it was "
            "taken already, or it came too often or not often enough"
        )


_POSITIVE: Final[dict[Any, Any]] = {"not_then": "then", "not_next": "next"}
_SIGNS: Final = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


def _looks_back(step: Step) -> bool:
    """Whether a repetition's condition reads what it has taken itself."""
    assert step.condition is not None
    return any(
        isinstance(node, BoundField | BoundAggregate) and node.step == step.name
        for node in step.condition.walk()
    )


def _telling(parts: list[Expr]) -> Any:
    """Return an emission of each condition, and of both sides of comparisons."""
    fields: dict[str, Any] = {}
    for i, part in enumerate(parts):
        fields[f"c{i}"] = part
        if isinstance(part, Binary) and part.op in COMPARISONS:
            fields[f"c{i}_left"], fields[f"c{i}_right"] = part.left, part.right
    return emit(**fields)


def _name(element: Step | Sequence) -> str:
    if isinstance(element, Step):
        return f"step {element.name!r}{element.quantifier}"
    return f"the group of {', '.join(repr(s.name) for _, s in element.steps())}"


def _value(value: Any) -> str:
    if value is None:
        return "absent"
    return f"{value:.10g}" if isinstance(value, float) else repr(value)
