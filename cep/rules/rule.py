"""A rule: a pattern, what it puts out, and how it is named, keyed and limited.

A rule is made by the decorator `rule` on a function that returns a pattern and
an emission. The function runs once, when its module is imported; everything it
names is checked there against the event models.
"""

from __future__ import annotations

import hashlib
import inspect
from dataclasses import dataclass, field, replace
from keyword import iskeyword
from typing import TYPE_CHECKING, Any, Literal, get_args

from cep.clock import duration_ns, format_duration
from cep.errors import RuleError, near_miss
from cep.rules.after_match import AfterMatch, after_match
from cep.rules.emission import (
    ALERT,
    DERIVED_FIELDS,
    OPEN_FIELD,
    Emission,
    check_formats,
)
from cep.rules.expressions import Expr, Key, Python, reads_match
from cep.rules.patterns import (
    NEGATIONS,
    Quantifier,
    Sequence,
    Step,
    seq,
    with_one_window,
)
from cep.rules.types import Checker, Kind, field_kind
from cep.rules.windows import Window, WindowType, event_types

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from collections.abc import Sequence as Seq
    from datetime import timedelta

    from cep.rules.diagram import Diagram
    from cep.rules.patterns import Contiguity

Severity = Literal["info", "warning", "critical"]
CapPolicy = Literal["drop_oldest", "drop_new", "trip"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on a rule's matches; what happens at a bound is counted.

    ``partials_per_key`` caps how many partial matches one key has,
    ``bindings_per_key`` how many events they hold together, an event counted for
    each match that holds it. At either cap ``policy`` says whether the oldest
    partial match goes, the newest one goes, or the rule stops.

    ``matches_per_event`` caps how many matches and time-outs come out for one key at
    one event (or at one moment, when time passes), ``bindings_per_event`` how many
    events they hold together. Those that began first come out, of one beginning the
    longest first, and always one. The others are dropped, and with the policy
    ``trip`` the rule stops. What a cooldown suppresses does not count.

    What a bound costs: an event that can concern all partial matches of its key looks
    at each. A repetition with ``any_combination`` that has reached 10,000 costs some
    10 ms of CPU an event, in proportion to ``partials_per_key``; where that many are
    not meant, bound the pattern by ``.within(...)`` or lower the limit.
    """

    partials_per_key: int = 10_000
    bindings_per_key: int = 100_000
    policy: CapPolicy = "drop_oldest"
    matches_per_event: int = 1_000
    bindings_per_event: int = 10_000

    def __post_init__(self) -> None:
        for name in (
            "partials_per_key",
            "bindings_per_key",
            "matches_per_event",
            "bindings_per_event",
        ):
            cap = getattr(self, name)
            if isinstance(cap, int) and not isinstance(cap, bool) and 0 < cap < 2**40:
                continue
            raise RuleError(
                f"Limits({name}={cap!r})",
                "a limit is a whole number from 1",
                "give the number that one key may hold, or one event put out",
            )
        if self.policy not in get_args(CapPolicy):
            near = near_miss(str(self.policy), get_args(CapPolicy))
            raise RuleError(
                f"Limits(policy={self.policy!r})",
                "there is no such policy",
                f"did you mean {near[0]!r}?"
                if near
                else f"use one of {', '.join(get_args(CapPolicy))}",
            )


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """A compiled-to-nothing definition: what to find and what to say about it.

    Attributes
    ----------
    name, version
        Part of every derived id: a new version's outputs are new events.
    key
        Fields that split the events; each combination of values is matched on
        its own. Empty: one match space for all. An event without a key field
        (absent or null) takes no part.
    pattern
        Always a `Sequence`; a single step becomes a sequence of one.
    emissions
        One or more outputs of a match, in order.
    timeouts
        Outputs of a partial match that ran out of time, in order; with none it is
        only counted.
    cooldown_ns
        Least event time between two outputs of one key, 0 for none; a match
        in between is suppressed and counted.
    """

    name: str
    version: int
    key: tuple[str, ...]
    severity: Severity
    pattern: Sequence
    emissions: tuple[Emission, ...]
    cooldown_ns: int = 0
    after_match: AfterMatch = field(default_factory=AfterMatch)
    limits: Limits = field(default_factory=Limits)
    doc: str = ""
    timeouts: tuple[Emission, ...] = ()

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps in order, groups flattened, negated ones included."""
        return tuple(step for _, step in self.pattern.steps())

    @property
    def types(self) -> tuple[str, ...]:
        """The event types that this rule sees, sorted; a `WindowType` for windows."""
        return tuple(sorted({t for step in self.steps for t in step.types}))

    @property
    def sources(self) -> tuple[str, ...]:
        """The event types to be read: those it sees and those its windows are over."""
        windows = (x for x in self.expressions() if isinstance(x, Window))
        inside = (t for window in windows for t in window.sources())
        return tuple(sorted({*event_types(self.types), *inside}))

    @property
    def released_by_time(self) -> bool:
        """Whether a match ends with an absence, so that no event completes it."""
        return self.pattern.elements[-1][0] == "not_then"

    @property
    def completing_types(self) -> tuple[str, ...] | None:
        """The types that ``e`` has in emissions; None where time completes a match.

        A ``.not_next`` in last place is confirmed by any event of the rule.
        """
        if self.released_by_time:
            return None
        if self.pattern.last_contiguity == "not_next":
            return self.types
        return self.steps[-1].types

    @property
    def portable(self) -> bool:
        """Whether other engines can run the rule: it calls no Python function."""
        return not any(isinstance(x, Python) for x in self.expressions())

    def expressions(self) -> Iterator[Expr]:
        """Yield every node of every condition and emission, inside windows, too."""
        from cep.rules.description import placed

        for expr, _ in placed(self):
            for node in expr.walk():
                yield node
                if isinstance(node, Window):
                    for inner in node.inputs:
                        yield from inner.walk()

    @property
    def hash(self) -> str:
        """Sixteen hex digits over everything that the matches depend on."""
        parts: Key = (
            self.name,
            self.version,
            self.key,
            self.severity,
            self.pattern.key,
            tuple(e.key for e in self.emissions),
            self.cooldown_ns,
            str(self.after_match),
            (
                self.limits.partials_per_key,
                self.limits.bindings_per_key,
                self.limits.policy,
                self.limits.matches_per_event,
                self.limits.bindings_per_event,
            ),
            *(("timeout", e.key) for e in self.timeouts),
        )
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    def describe(self) -> str:
        """Return a readable account of all that is in the rule."""
        from cep.rules.description import described

        return described(self)

    def diagram(self) -> Diagram:
        """Return a drawing of the automaton; notebooks show it, `str` is Mermaid text.

        Each state is a step to be taken. A thick arrow takes an event, a dotted
        one passes over it, a thin one moves on without an event.
        """
        from cep.rules.diagram import draw

        return draw(self)

    def _repr_markdown_(self) -> str:
        return f"```text\n{self.describe()}\n```"


def rule(
    name: str,
    *,
    version: int = 1,
    key: str | Seq[str] | None = None,
    severity: Severity = "info",
    cooldown: str | timedelta | None = None,
    after_match: str | tuple[str, str] | AfterMatch = "no_skip",
    limits: Limits | None = None,
    on_timeout: Emission | Seq[Emission] | None = None,
) -> Callable[[Callable[[], Any]], Rule]:
    """Make a `Rule` of a function that returns ``(pattern, emission, ...)``.

    Parameters
    ----------
    name, version
        Name of the rule (letters, digits, ``-``, ``_``, ``.``) and its version,
        at least 1; raise the version when the meaning changes.
    key
        Field or fields that split the events. Numbers are keys by their values as
        doubles: 1 and 1.0 are one key, 0.1 + 0.2 and 0.3 are two, and whole numbers
        beyond 2**53 are one key with their neighbours; key by a text instead.
    severity
        ``info``, ``warning`` or ``critical``.
    cooldown
        Least event time between two outputs of one key, such as ``"60s"``.
    after_match
        ``no_skip`` (default), ``past_last_event``, ``to_next``,
        ``("to_first", step)`` or ``("to_last", step)``; see `AfterMatch` for what
        happens where that step bound nothing.
    limits
        Bounds on partial matches; see `Limits`.
    on_timeout
        What a partial match puts out that ran out of time, at the moment it did:
        one emission or several. There ``m.<step>`` is absent where the step has
        bound nothing yet, and there is no ``e``. A match that was complete and
        could still have grown runs out as well.

    Raises
    ------
    RuleError
        For anything that cannot be meant: unknown event types and fields (with
        the near miss), mixed-up kinds, patterns without an end.
    """
    given_after, given_limits = after_match, limits
    if not isinstance(name, str):
        raise RuleError(
            f"rule({name!r:.60})",
            "takes the rule's name",
            'write @rule("price-spike") above the function',
        )

    def make(function: Callable[[], Any]) -> Rule:
        result = function()
        parts = result if isinstance(result, tuple) else (result,)
        pattern, emissions = parts[0], parts[1:]
        return build_rule(
            name,
            pattern,
            emissions,
            version=version,
            key=key,
            severity=severity,
            cooldown=cooldown,
            after_match=given_after,
            limits=given_limits,
            on_timeout=on_timeout,
            doc=inspect.getdoc(function) or "",
        )

    return make


def build_rule(
    name: str,
    pattern: Step | Sequence,
    emissions: Seq[Emission],
    *,
    version: int = 1,
    key: str | Seq[str] | None = None,
    severity: Severity = "info",
    cooldown: str | timedelta | None = None,
    after_match: str | tuple[str, str] | AfterMatch = "no_skip",
    limits: Limits | None = None,
    on_timeout: Emission | Seq[Emission] | None = None,
    doc: str = "",
) -> Rule:
    """Build and check a `Rule` from its parts; `rule` is the decorator for it."""
    where = f"rule {name!r}"
    if not name or not all(c.isalnum() or c in "-_." for c in name):
        raise RuleError(
            where,
            "a rule's name is made of letters, digits, '-', '_' and '.'",
            "rename the rule",
        )
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise RuleError(where, f"version is {version!r}", "give a whole number from 1")
    if severity not in ("info", "warning", "critical"):
        raise RuleError(
            where, f"severity is {severity!r}", "use info, warning or critical"
        )
    if isinstance(pattern, Step):
        pattern = seq(pattern)
    if not isinstance(pattern, Sequence):
        raise RuleError(
            where,
            f"the function must return a pattern and an emission, got {pattern!r:.60}",
            "return seq(...) or on(...), then emit(...)",
        )
    if not emissions:
        raise RuleError(where, "nothing is emitted", "return (pattern, emit(...))")
    if limits is not None and not isinstance(limits, Limits):
        raise RuleError(
            where,
            f"limits is {limits!r:.60}",
            "write limits=Limits(partials_per_key=...)",
        )
    timeouts = _as_emissions(on_timeout)
    for given, remedy in (
        (emissions, "return (pattern, emit(...))"),
        (timeouts, "write on_timeout=emit(...)"),
    ):
        for emission in given:
            if not isinstance(emission, Emission):
                raise RuleError(
                    where,
                    f"an output must come from emit(...), got {emission!r:.60}",
                    remedy,
                )
    if not pattern.quantifier.is_once:
        # A repetition of all is that of a group which is all there is.
        body = replace(pattern, within_ns=None, gap_ns=None, condition=None)
        pattern = replace(pattern, quantifier=Quantifier(), elements=((None, body),))
    pattern = with_one_window(pattern)
    keys = _keys(where, key)
    result = Rule(
        name=name,
        version=version,
        key=keys,
        severity=severity,
        pattern=_with_window_types(_named(pattern, {}), keys),
        emissions=tuple(emissions),
        cooldown_ns=0
        if cooldown is None
        else duration_ns(cooldown, allow_zero=True, whole_ms=True),
        after_match=_after_match(after_match),
        limits=limits or Limits(),
        doc=doc.split("\n\n")[0].replace("\n", " "),
        timeouts=timeouts,
    )
    _check(result, where)
    _check_limits(result, where)
    if limits is None and pattern.within_ns is None:
        _check_combinations(pattern, where)
    return result


def _keys(where: str, key: Any) -> tuple[str, ...]:
    if key is None or isinstance(key, str):
        return () if key is None else (key,)
    names = tuple(key) if isinstance(key, (list, tuple)) else (key,)
    if all(isinstance(name, str) for name in names):
        if len(set(names)) == len(names):
            return names
        raise RuleError(
            where,
            f"key is {key!r:.60}, which names a field twice",
            "name each field once",
        )
    raise RuleError(
        where,
        f"key is {key!r:.60}",
        'name the field, or several: key="symbol" or key=["symbol", "venue"]',
    )


_after_match = after_match


def _as_emissions(
    given: Any,
) -> tuple[Any, ...]:
    if given is None:
        return ()
    return tuple(given) if isinstance(given, (list, tuple)) else (given,)


def _named(pattern: Sequence, taken: dict[str, int]) -> Sequence:
    """Give every unnamed step a name: its type's last word, numbered when repeated."""
    for _, step in pattern.steps():
        if step.name:
            taken.setdefault(step.name, 0)

    def fresh(step: Step) -> Step:
        if step.name:
            return step
        base = step.types[0].rsplit(".", 1)[-1]
        base = base if base.isidentifier() and not iskeyword(base) else "step"
        name, n = base, 1
        while name in taken:
            n += 1
            name = f"{base}_{n}"
        taken[name] = 0
        return replace(step, name=name)

    def visit(group: Sequence) -> Sequence:
        return replace(
            group,
            elements=tuple(
                (c, fresh(x) if isinstance(x, Step) else visit(x))
                for c, x in group.elements
            ),
        )

    return visit(pattern)


def _with_window_types(group: Sequence, key: tuple[str, ...]) -> Sequence:
    """Say of the steps that take windows which windows these are."""

    def told(element: Step | Sequence) -> Step | Sequence:
        if isinstance(element, Sequence):
            return _with_window_types(element, key)
        if element.span is None:
            return element
        types = event_types(element.types)
        window = WindowType(types, element.span, key, element.entering)
        return replace(element, types=(window,))

    return replace(group, elements=tuple((c, told(x)) for c, x in group.elements))


def _check(made: Rule, where: str) -> None:
    from cep.events.registry import registry

    names: set[str] = set()
    for step in made.steps:
        assert step.name is not None
        if step.name in names:
            raise RuleError(
                where,
                f"two steps are named {step.name!r}",
                "give each step a name of its own",
            )
        names.add(step.name)
        for event_type in event_types(step.types):
            registry.get(event_type)  # raises UnknownEventTypeError with the near miss
    for name in made.key:
        for event_type in event_types(made.types):
            field_kind(name, [event_type], f"{where}, key")
    _check_shape(made, where)
    bound: dict[str, tuple[str, ...]] = {}
    together = _repeated_together(made.pattern)
    later = {
        s.name: "that step comes later in the pattern" for s in made.steps if s.name
    }
    for contiguity, step in made.pattern.steps():
        name = step.name or ""
        at = f"{where}, step {name!r}"
        # A repeated step may look back at itself, and one of a repeated group at
        # all steps of the group: the time around before may have bound them.
        own = dict(together.get(name, {}))
        if step.quantifier.repeats:
            own[name] = step.types
        later.pop(name)
        unbound = {**later, name: "a step cannot read its own event through m"}
        if step.entering is not None:
            _check_entering(step, at, made.key)
        checker = Checker(at, step.types, {**bound, **own}, made.key, unbound)
        for condition in (step.condition, step.quantifier.until):
            if condition is not None:
                checker.condition(condition)
        if contiguity in NEGATIONS:
            later[name] = "that step must not come, so it binds nothing"
        else:
            bound[name] = step.types
    _check_group_ends(made.pattern, made, together, where)
    final = Checker(where, made.completing_types, bound, made.key, later)
    if made.pattern.condition is not None:
        final.condition(made.pattern.condition)
    for emission in made.emissions:
        _check_emission(made, emission, final)
    _check_timeouts(made, where, bound, later)
    if made.after_match.target is not None and made.after_match.target not in bound:
        near = near_miss(made.after_match.target, bound)
        raise RuleError(
            f"{where}, after_match={made.after_match}",
            f"there is no step named {made.after_match.target!r}",
            f"did you mean {near[0]!r}?" if near else f"steps: {', '.join(bound)}",
        )


def _check_entering(step: Step, at: str, key: tuple[str, ...]) -> None:
    """Check the condition on the events that enter the windows a step takes."""
    assert step.entering is not None
    Checker(at, event_types(step.types), {}, key).condition(step.entering)
    for node in step.entering.walk():
        if isinstance(node, Window):
            raise RuleError(
                f"{at}: {node}",
                f"what enters the windows of .{step.span}) cannot depend on windows",
                "put conditions on the window that closes behind it",
            )


def _repeated_together(group: Sequence) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return, for each step of a repeated group, all that the group may have bound."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for _, element in group.elements:
        if not isinstance(element, Sequence):
            continue
        if not element.quantifier.repeats:
            found |= _repeated_together(element)
            continue
        inside = list(element.steps())
        bind = {x.name or "": x.types for how, x in inside if how not in NEGATIONS}
        found |= {x.name or "": bind for _, x in inside}
    return found


def _check_group_ends(
    group: Sequence,
    made: Rule,
    together: Mapping[str, Mapping[str, tuple[str, ...]]],
    where: str,
) -> None:
    """Check what ends the repetition of a group: it may come at any event."""
    for _, element in group.elements:
        if not isinstance(element, Sequence):
            continue
        until, inside = element.quantifier.until, {x.name for _, x in element.steps()}
        if until is not None:
            bound: dict[str, tuple[str, ...]] = {}
            later: dict[str, str] = {}
            for contiguity, step in made.pattern.steps():
                name = step.name or ""
                if contiguity in NEGATIONS:
                    later[name] = "that step must not come, so it binds nothing"
                elif inside <= bound.keys() | later.keys():
                    later[name] = "that step comes later in the pattern"
                else:
                    bound[name] = step.types
            for one in inside:
                bound |= together.get(one or "", {})
            at = f"{where}, {element.label}, until"
            Checker(at, made.types, bound, made.key, later).condition(until)
        _check_group_ends(element, made, together, where)


def _check_shape(made: Rule, where: str) -> None:
    bounds = (made.pattern.within_ns, made.pattern.gap_ns, made.steps[-1].gap_ns)
    if made.released_by_time and bounds == (None, None, None):
        raise RuleError(
            where,
            "an absence in last place needs a time after which it is certain",
            'add .within("30s") to the sequence, counted from its first event, or '
            '.within_previous("30s"), counted from its last',
        )
    _check_gaps(made.pattern, made.pattern.within_ns, where)
    if "not_then" in _trailing_negations(made.pattern)[:-1]:
        raise RuleError(
            where,
            "an absence has no step after it, and is not the last element",
            "put .not_next before .not_then, and join two absences in one step: "
            'on("a", "b").where((...) | (...))',
        )
    _check_groups(made.pattern, where)


def _trailing_negations(group: Sequence) -> list[Contiguity]:
    found: list[Contiguity] = []
    for contiguity, _ in group.elements:
        if contiguity in NEGATIONS:
            found.append(contiguity)
        else:
            found.clear()
    return found


def _check_groups(group: Sequence, where: str) -> None:
    for _, element in group.elements:
        if isinstance(element, Step):
            continue
        at = f"{where}, {element.label}"
        if element.quantifier.loops and element.may_be_empty:
            raise RuleError(
                at,
                "every step in this repeated group is optional, so that it could "
                "match nothing for ever",
                "make one of the group's steps required",
            )
        if element.condition is not None:
            raise RuleError(
                at,
                ".where of a group is not possible",
                "put .where on the whole sequence, or .where on its steps",
            )
        if "not_then" in _trailing_negations(element):
            raise RuleError(
                at,
                "an absence at the end of a group has no step after it",
                "put it behind the group: seq(...).then(seq(...)).not_then(...)",
            )
        _check_groups(element, where)


def _check_timeouts(
    made: Rule,
    where: str,
    bound: Mapping[str, Seq[str]],
    unbound: Mapping[str, str],
) -> None:
    gaps = any(x.gap_ns is not None for x in made.pattern.walk())
    if made.timeouts and made.pattern.within_ns is None and not gaps:
        raise RuleError(
            f"{where}, on_timeout",
            "no partial match of this rule ever runs out of time",
            'add .within("30s") or .within_previous("30s") to the sequence',
        )
    checker = Checker(
        f"{where}, on_timeout",
        None,
        bound,
        made.key,
        unbound,
        no_event="there is no event: a partial match ran out of time",
    )
    for emission in made.timeouts:
        _check_emission(made, emission, checker)


def _check_gaps(group: Sequence, within_ns: int | None, where: str) -> None:
    parts: list[Step | Sequence] = [group, *(part for _, part in group.elements)]
    for part in parts:
        if part.gap_ns is None or within_ns is None or part.gap_ns <= within_ns:
            continue
        gap, whole = format_duration(part.gap_ns), format_duration(within_ns)
        raise RuleError(
            f"{where}, {part.label}",
            f"{gap} between two events is longer than the {whole} of a whole match",
            f"make .within_previous shorter than {whole}, or leave it out: .within "
            "bounds it already",
        )
    for place, (contiguity, part) in enumerate(group.elements, start=1):
        if isinstance(part, Sequence):
            _check_gaps(part, within_ns, where)
        elif (
            contiguity == "not_then"
            and part.gap_ns is not None
            and place < len(group.elements)
        ):
            raise RuleError(
                f"{where}, {part.label}",
                ".within_previous means nothing on an absence that a step follows",
                "put it on the step that follows, or .within on the sequence",
            )


def _check_combinations(group: Sequence, where: str) -> None:
    for _, element in group.elements:
        q = element.quantifier
        if q.loops and q.inner == "any" and q.until is None:
            raise RuleError(
                f"{where}, {element.label}",
                "all combinations of an unbounded repetition double with every event",
                "add .within(...) or .until(...), write .between(1, n), or accept it "
                "with limits=Limits(partials_per_key=...)",
            )
        if isinstance(element, Sequence):
            _check_combinations(element, where)


def _check_limits(made: Rule, where: str) -> None:
    """Refuse a pattern of which no match can ever be within the rule's limits.

    Every event that a repetition in first place takes begins a match as well. When
    the oldest has all but one of n events, n - 1 matches hold n (n - 1) / 2.
    """
    partials, held = 1, _least_events(made.pattern) - 1
    first, policy = made.pattern.elements[0][1], made.limits.policy
    if isinstance(first, Step) and _begins_always(first) and policy != "drop_new":
        n = first.quantifier.least
        partials = max(1, n - 1)
        held = max(held, n * (n - 1) // 2)
    for name, need in (("partials_per_key", partials), ("bindings_per_key", held)):
        limit = getattr(made.limits, name)
        if need > limit:
            counted = "partial matches"
            if name == "bindings_per_key":
                counted = "events in its partial matches"
            raise RuleError(
                f"{where}, {first.label}",
                f"it can never match: before the first match is complete a key has "
                f"{need:,} {counted}, and at most {limit:,} are allowed",
                f"count over a window instead, count().over(events=...), or raise the "
                f"limit: limits=Limits({name}={need})",
            )


def _begins_always(step: Step) -> bool:
    """Whether each event that a step takes begins a match if the step is the first."""
    if step.quantifier.optional:
        return False
    return step.condition is None or not reads_match(step.condition)


def _least_events(group: Sequence) -> int:
    """Return how many events the smallest match of a group binds."""
    total = 0
    for contiguity, element in group.elements:
        if contiguity in NEGATIONS or element.quantifier.optional:
            continue
        once = _least_events(element) if isinstance(element, Sequence) else 1
        total += once * element.quantifier.least
    return total


_EXAMPLES = {"float": 0.0, "int": 0, "bool": False, "str": "x"}


def _example(value: Any, checker: Checker) -> Any:
    """Return a value with an example of its kind in each expression's place.

    Raises KeyError where an expression may be of any kind.
    """
    if isinstance(value, Expr):
        return _EXAMPLES[checker.kind(value)]
    if isinstance(value, dict):
        return {key: _example(item, checker) for key, item in value.items()}
    if isinstance(value, list):
        return [_example(item, checker) for item in value]
    return value


# A format fits a kind if it fits one of these. No number is a character.
_SAMPLES: dict[Kind, Seq[Any]] = {
    "float": [-0.5],
    "int": [-1],
    "bool": [True],
    "str": ["x"],
    "any": [-0.5, -1],
    "json": [[], {}],
}


def _samples(value: Any, checker: Checker) -> Seq[Any]:
    """Return examples of what an emitted value may be in a title."""
    if isinstance(value, Expr):
        return _SAMPLES[checker.kind(value)]
    return [value]


def _check_emission(made: Rule, emission: Emission, checker: Checker) -> None:
    from cep.events.registry import registry
    from cep.events.schema import check_value

    where = f"{checker.where}, emit({emission.type!r})"
    for leaf in emission.leaves():
        checker.value(leaf)
    if emission.title is not None:
        samples = {k: _samples(v, checker) for k, v in emission.fields.items()}
        check_formats(emission.title, {"key": ["x"], **samples}, checker.where)
    known = registry.get(emission.type)
    if emission.type == ALERT:
        return
    specs = {f.name: f for f in known.fields}
    open_field = OPEN_FIELD.get(emission.type)
    for name, value in emission.fields.items():
        if name not in specs:
            if open_field is None:
                near = near_miss(name, specs)
                raise RuleError(
                    where,
                    f"{emission.type} has no field {name!r}",
                    f"did you mean {near[0]!r}?"
                    if near
                    else f"its fields are: {', '.join(specs)}",
                )
            continue
        spec = specs[name]
        kind: Kind | None = checker.kind(value) if isinstance(value, Expr) else None
        numbers = ("float", "int")
        if kind not in (None, "any", spec.kind) and not (
            kind in numbers and spec.kind in numbers
        ):
            raise RuleError(
                where, f"{name} is a {spec.kind}, {value} is a {kind}", "emit that kind"
            )
        if kind is not None:
            continue
        try:
            example = _example(value, checker)
        except KeyError:
            continue
        for problem in check_value(spec, example, name, closed_choices=True):
            raise RuleError(
                where,
                f"{problem.path} is {problem.value}",
                f"allowed: {problem.allowed}",
            )
    given = set(emission.fields) | set(DERIVED_FIELDS.get(emission.type, {}))
    if open_field is not None:
        given.add(open_field)
    missing = [f.name for f in known.fields if f.required and f.name not in given]
    if missing:
        raise RuleError(
            where,
            f"{emission.type} also requires {', '.join(missing)}",
            "give them in emit(...), or leave the type out to emit the standard "
            "alert, which takes any fields",
        )
