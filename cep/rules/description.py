"""A rule in words: what `Rule.describe` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cep.clock import format_duration
from cep.rules.expressions import BoundAggregate, BoundField, Expr, Field
from cep.rules.patterns import Sequence, Step
from cep.rules.windows import Window, WindowType, event_types

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cep.rules.emission import Emission
    from cep.rules.rule import Rule

Types = tuple[str, ...]


def described(rule: Rule) -> str:
    """Return the account of a rule, a line for each fact."""
    lines = [f"rule {rule.name} v{rule.version} ({rule.severity}), {rule.hash}"]
    if rule.doc:
        lines.append(f"  {rule.doc}")
    lines.append(f"  key: {', '.join(rule.key) or 'none (all events together)'}")
    lines.append("  pattern:")
    lines += _pattern(rule.pattern, "    ")
    if rule.pattern.within_ns is not None:
        lines.append(f"    within {format_duration(rule.pattern.within_ns)}")
    if rule.pattern.gap_ns is not None:
        lines.append(f"    every step{_soon(rule.pattern)}")
    if rule.pattern.condition is not None:
        lines.append(f"    and then {rule.pattern.condition}")
    lines.append("  reads:")
    for event_type, names in fields_read(rule).items():
        lines.append(f"    {event_type}: {', '.join(sorted(names)) or 'no field'}")
    if windows := _windows(rule):
        lines += ["  windows:", *(f"    {window}" for window in windows)]
    lines.append(f"  after match: {rule.after_match}")
    if rule.cooldown_ns:
        lines.append(f"  cooldown: {format_duration(rule.cooldown_ns)} per key")
    cap = rule.limits
    lines.append(
        f"  limit: {cap.partials_per_key} partial matches a key, holding "
        f"{cap.bindings_per_key} events, then {cap.policy}"
    )
    dropped = "the rule stops" if cap.policy == "trip" else "the rest is dropped"
    lines.append(
        f"  limit: {cap.matches_per_event} matches an event and key, holding "
        f"{cap.bindings_per_event} events, then {dropped}"
    )
    lines += [f"  emits: {_emission(emission)}" for emission in rule.emissions]
    lines += [f"  on timeout: {_emission(emission)}" for emission in rule.timeouts]
    lines.append(f"  portable: {_portable(rule)}")
    return "\n".join(lines)


def fields_read(rule: Rule) -> dict[str, set[str]]:
    """Return the fields that a rule reads, by event type; its key's among them."""
    reads = {t: set(rule.key) for t in event_types(rule.types)}
    bound = {step.name: step.types for step in rule.steps}

    def note(types: Iterable[str], names: Iterable[str]) -> None:
        for event_type in types:
            if not isinstance(event_type, WindowType):
                reads.setdefault(event_type, set()).update(names)

    for expr, types in everything(rule):
        for node in expr.walk():
            if isinstance(node, Field):
                note(types, [node.name])
            elif isinstance(node, (BoundField, BoundAggregate)):
                if node.name is not None:
                    note(bound[node.step], [node.name])
            elif isinstance(node, Window):
                entering = node.source or types
                note(
                    {*event_types(entering), *types},
                    rule.key if node.by is None else node.by,
                )
    return dict(sorted(reads.items()))


def placed(rule: Rule) -> Iterator[tuple[Expr, Types]]:
    """Yield every condition and emitted value with the types that ``e`` may have."""
    yield from _conditions(rule.pattern, rule)
    final = rule.completing_types or ()
    if rule.pattern.condition is not None:
        yield rule.pattern.condition, final
    for emission in (*rule.emissions, *rule.timeouts):
        for leaf in emission.leaves():
            yield leaf, final


def everything(rule: Rule) -> Iterator[tuple[Expr, Types]]:
    """Yield what `placed` does, and what windows hold, those within windows too."""
    waiting = list(placed(rule))
    while waiting:
        expr, types = waiting.pop()
        yield expr, types
        for node in expr.walk():
            if isinstance(node, Window):
                entering = event_types(node.source or types)
                waiting += [(inner, entering) for inner in node.inputs]


def _conditions(group: Sequence, rule: Rule) -> Iterator[tuple[Expr, Types]]:
    for _, element in group.elements:
        types = element.types if isinstance(element, Step) else rule.types
        if element.quantifier.until is not None:
            yield element.quantifier.until, types
        if isinstance(element, Sequence):
            yield from _conditions(element, rule)
        else:
            if element.entering is not None:
                yield element.entering, event_types(types)
            if element.condition is not None:
                yield element.condition, types


def _windows(rule: Rule) -> list[str]:
    found = set()
    for expr, types in everything(rule):
        for node in expr.walk():
            if isinstance(node, Window):
                by = rule.key if node.by is None else node.by
                per = f"per {', '.join(by)}" if by else "over all keys"
                entering = " and ".join(event_types(node.source or types))
                where = " in the step's window" if node.span.kind == "step" else ""
                found.add(f"{node}{where} of {entering}, {per}")
    return sorted(found)


def _emission(emission: Emission) -> str:
    stream = "" if emission.stream is None else f" on {emission.stream}"
    title = "" if emission.title is None else f", titled {emission.title!r}"
    return f"{emission.type}{stream} {emission.fields}{title}"


def _portable(rule: Rule) -> str:
    return "yes" if rule.portable else "no, it calls Python (py)"


def _pattern(group: Sequence, indent: str) -> Iterator[str]:
    for contiguity, element in group.elements:
        lead, often = f"{indent}{contiguity or 'first':9}", str(element.quantifier)
        if isinstance(element, Sequence):
            yield f"{lead} group{often}{_soon(element)}:"
            yield from _pattern(element, indent + "  ")
            continue
        types = _taken(element)
        where = "" if element.condition is None else f" where {element.condition}"
        yield f"{lead} {element.name}{often}: {types}{where}{_soon(element)}"


def _taken(step: Step) -> str:
    """Say what a step takes."""
    types = " or ".join(event_types(step.types))
    if step.span is None:
        return types
    entering = "" if step.entering is None else f" where {step.entering}"
    return f"{types}{entering}, each window {step.span}) when it closes,"


def _soon(element: Step | Sequence) -> str:
    if element.gap_ns is None:
        return ""
    return f" less than {format_duration(element.gap_ns)} after the event before"
