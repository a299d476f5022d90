"""From a pattern to a nondeterministic automaton, and from that to flat tables.

States are linked by three kinds of edges, each with a condition on the event
under test: TAKE binds the event and moves on, IGNORE passes it over, PROCEED
moves on without consuming it. A STOP state ends the branch (something came
that must not), a PENDING state waits for time to run out (an absence in last
place), FINAL is a match. The construction runs backwards from FINAL, which is
what lets an optional step or a loop proceed into states that already exist.

The semantics are those of Apache Flink's CEP library (version 2.3), whose
recorded matches are the project's conformance cases; the construction follows
J. Agrawal et al., "Efficient Pattern Matching over Event Streams", SIGMOD 2008.

`flatten` then follows the PROCEED edges at compile time, so that the kernel
sees only, for each state, what one event can do there: a list of TAKE, IGNORE
and STOP edges, each with a conjunction of conditions.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from cep.errors import RuleError
from cep.rules.expressions import (
    Binary,
    Const,
    Expr,
    Not,
    Scoped,
    SincePrevious,
    TypeIs,
    conjuncts,
)
from cep.rules.patterns import Quantifier, Sequence, Step

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cep.rules.patterns import Contiguity
    from cep.rules.rule import Rule

Action = Literal["take", "ignore", "proceed"]
StateKind = Literal["normal", "start", "final", "stop", "pending"]
Strategy = Literal["strict", "skip_till_next", "skip_till_any"]

TRUE = Const(True)
MOST_STATES = 10_000
_STRATEGY: dict[str | None, Strategy] = {
    None: "strict",
    "next": "strict",
    "then": "skip_till_next",
    "then_any": "skip_till_any",
}
_INNER: dict[str, Strategy] = {
    "relaxed": "skip_till_next",
    "consecutive": "strict",
    "any": "skip_till_any",
}


def both(left: Expr | None, right: Expr | None) -> Expr:
    """Conjunction in which None and TRUE vanish."""
    parts = [x for x in (left, right) if x is not None and x is not TRUE]
    if not parts:
        return TRUE
    return parts[0] if len(parts) == 1 else Binary("and", parts[0], parts[1])


@dataclass(slots=True, eq=False)
class Edge:
    """One transition; ``condition`` is over the event and what is bound."""

    action: Action
    source: State
    target: State
    condition: Expr
    gap_ns: int = 0  # from the event bound last, 0 for any time


@dataclass(slots=True, eq=False)
class State:
    """A state; ``variable`` is the step whose events a TAKE from here binds.

    ``gap_ns`` is how long a PENDING state waits from the event bound last; 0: for
    the time bound of the whole pattern.
    """

    variable: str
    kind: StateKind
    gap_ns: int = 0
    edges: list[Edge] = field(default_factory=list)

    def add(
        self,
        action: Action,
        target: State,
        condition: Expr = TRUE,
        gap_ns: int = 0,
    ) -> None:
        """Add an edge from here."""
        self.edges.append(Edge(action, self, target, condition, gap_ns))


@dataclass(frozen=True, slots=True, eq=False)
class _Element:
    """A step or group in its place: its neighbours and the group around it."""

    body: Step | Sequence
    contiguity: Contiguity | None
    siblings: tuple[_Element, ...]
    index: int
    gap_ns: int  # its own and that of the groups around it, 0 for none

    @property
    def quantifier(self) -> Quantifier:
        return self.body.quantifier

    @property
    def name(self) -> str:
        return (self.body.name or "") if isinstance(self.body, Step) else "group"


class _Group:
    """The group being converted, and whether its first iteration is meant."""

    def __init__(self, body: Sequence, contiguity: Contiguity | None) -> None:
        self.body, self.contiguity = body, contiguity
        self.first_of_loop = True
        # What ends its repetition and those of the groups around it.
        self.untils: tuple[Expr, ...] = ()


def _shorter(left: int, right: int) -> int:
    """The shorter of two limits, of which 0 is none."""
    return min(left, right) if left and right else left or right


class _Builder:
    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.states: list[State] = []
        self.stops: dict[str, State] = {}
        self.group: _Group | None = None
        self.groups: dict[int, _Group] = {}
        # The state that a greedy step's sink was before its conditions were
        # narrowed: where `until` leads, whatever the greedy step still fits.
        self.original: dict[int, State] = {}
        # Copies of the state that leads back into a repeated group, made before
        # there is anything that it leads to.
        self.backs: dict[int, list[State]] = {}

    def build(self) -> State:
        final = self._state("", "final")
        start = self._sequence(self.rule.pattern, final, None, 0)
        start.kind = "start"
        return start

    def _state(self, variable: str, kind: StateKind = "normal") -> State:
        if len(self.states) >= MOST_STATES:
            raise RuleError(
                f"rule {self.rule.name!r}",
                f"the pattern needs more than {MOST_STATES:,} states",
                "repeat less often, or count over a window: count().over(events=...)",
            )
        state = State(variable, kind)
        self.states.append(state)
        return state

    def _waiting(
        self, element: _Element, kind: StateKind = "normal", *, passed: bool = False
    ) -> State:
        """A state that waits for ``element``; ``passed``: an event was passed over."""
        state = self._state(element.name, kind)
        if kind == "pending":
            state.gap_ns = element.gap_ns
        return state

    def _like(self, state: State) -> State:
        copy = self._state(state.variable, state.kind)
        copy.gap_ns = state.gap_ns
        return copy

    def _sequence(
        self, body: Sequence, sink: State, following: _Element | None, gap_ns: int
    ) -> State:
        gap_ns = _shorter(gap_ns, body.gap_ns or 0)
        elements: list[_Element] = []
        siblings: tuple[_Element, ...] = ()
        for i, (contiguity, part) in enumerate(body.elements):
            limit = _shorter(gap_ns, part.gap_ns or 0)
            elements.append(_Element(part, contiguity, siblings, i, limit))
            siblings = tuple(elements)
        last_sink = sink
        for element in reversed(elements):
            if element.contiguity == "not_then":
                last_sink = self._absence(element, last_sink)
            elif element.contiguity == "not_next":
                last_sink = self._not_next(element, last_sink)
            else:
                last_sink = self._convert(element, last_sink, following)
            following = element
        return last_sink

    def _absence(self, element: _Element, sink: State) -> State:
        # In the middle, `not_then` becomes an edge to STOP from the states
        # around it; only in last place is it a state of its own.
        waits = element.gap_ns or self.rule.pattern.within_ns is not None
        if sink.kind != "final" or not waits:
            return sink
        condition = self._take_condition(element)
        pending = self._waiting(element, "pending")
        pending.add("proceed", self._stop(condition, element.name), condition)
        pending.add("ignore", pending, Not(condition), element.gap_ns)
        return pending

    def _not_next(self, element: _Element, sink: State) -> State:
        condition = self._take_condition(element)
        state = self._waiting(element)
        # Into FINAL by IGNORE: in last place a further event has to confirm it.
        action: Action = "ignore" if sink.kind == "final" else "proceed"
        state.add(action, sink, Not(condition), element.gap_ns)
        state.add("proceed", self._stop(condition, element.name), condition)
        return state

    def _convert(
        self, element: _Element, sink: State, following: _Element | None
    ) -> State:
        quantifier = element.quantifier
        if quantifier.loops:
            self._set_first_of_loop(element, False)
            inner_sink = self._without_transitive_nots(element, sink)
            looping = self._looping(element, inner_sink, following)
            self._set_first_of_loop(element, True)
            least = quantifier.least
            result = self._times(element, looping, sink, least, least, following)
        elif quantifier.repeats:
            assert quantifier.most is not None
            result = self._times(
                element, sink, sink, quantifier.least, quantifier.most, following
            )
        else:
            result = self._singleton(
                element,
                sink,
                sink,
                self._take_condition(element),
                self._ignore_condition(element),
                element.quantifier.optional,
                following,
            )
        self._add_stops(element, result)
        return result

    def _times(
        self,
        element: _Element,
        sink: State,
        proceed: State,
        least: int,
        most: int,
        following: _Element | None,
    ) -> State:
        self._set_first_of_loop(element, False)
        until = self._until_of(element.body)
        ignore = self._until(self._inner_ignore_condition(element), until, False)
        take = self._until(self._take_condition(element), until, True)
        assert take is not None
        if element.quantifier.greedy and least != most:
            if until is not None:
                self.original[id(proceed)] = self._copy(proceed)
            _narrow(proceed, take)
        last_sink = sink
        for _ in range(least, most):
            last_sink = self._singleton(
                element, last_sink, proceed, take, ignore, True, following
            )
            self._add_stop_to_loop(following, last_sink)
        for _ in range(least - 1):
            last_sink = self._singleton(
                element, last_sink, None, take, ignore, False, following
            )
            self._add_stop_to_loop(following, last_sink)
        self._set_first_of_loop(element, True)
        return self._singleton(
            element,
            last_sink,
            proceed,
            take,
            self._ignore_condition(element),
            element.quantifier.optional,
            following,
        )

    def _singleton(
        self,
        element: _Element,
        sink: State,
        proceed: State | None,
        take: Expr,
        ignore: Expr | None,
        optional: bool,
        following: _Element | None,
    ) -> State:
        if isinstance(element.body, Sequence):
            return self._group_state(element, sink, proceed, optional, following)
        state = self._waiting(element)
        # An event that is taken cancels the absences before an optional step.
        after = self._without_transitive_nots(element, sink)
        state.add("take", after, take, element.gap_ns)
        if optional:
            assert proceed is not None
            until = self._until_of(element.body)
            if element.quantifier.greedy and until is not None:
                before = self.original.get(id(proceed), proceed)
                state.add("proceed", before, both(self._true(), until))
                state.add("proceed", proceed, both(self._true(), Not(until)))
            else:
                state.add("proceed", proceed, self._true())
        if ignore is not None:
            waiting = state
            if optional or self._heads_optional_group(element):
                # Waiting without the PROCEED edge, so that each way around the
                # optional step is opened only once.
                waiting = self._waiting(element, passed=True)
                waiting.add("take", after, take, element.gap_ns)
                waiting.add("ignore", waiting, ignore)
                self._add_stops(element, waiting)
            state.add("ignore", waiting, ignore)
        return state

    def _looping(
        self, element: _Element, sink: State, following: _Element | None
    ) -> State:
        if isinstance(element.body, Sequence):
            return self._looping_group(element, sink, following)
        quantifier = element.quantifier
        until = self._until_of(element.body)
        ignore = self._until(self._inner_ignore_condition(element), until, False)
        take = self._until(self._take_condition(element), until, True)
        assert take is not None
        loop = self._waiting(element)
        if quantifier.greedy:
            if until is not None:
                before = self._copy(sink)
                loop.add("proceed", before, both(self._true(), until))
                self.original[id(sink)] = before
                loop.add("proceed", sink, both(self._true(), Not(until)))
            else:
                loop.add("proceed", sink, self._true())
            _narrow(sink, self._take_condition(element))
        else:
            loop.add("proceed", sink, self._true())
        loop.add("take", loop, take, element.gap_ns)
        self._add_stop_to_loop(following, loop)
        if ignore is not None:
            waiting = self._waiting(element, passed=True)
            waiting.add("take", loop, take, element.gap_ns)
            waiting.add("ignore", waiting, ignore)
            loop.add("ignore", waiting, ignore)
            self._add_stop_to_loop(following, waiting)
        return loop

    def _group_state(
        self,
        element: _Element,
        sink: State,
        proceed: State | None,
        optional: bool,
        following: _Element | None,
    ) -> State:
        true = self._true()
        first = self._inside(element, sink, following)
        if optional:
            assert proceed is not None
            first.add("proceed", proceed, true)
        return first

    def _looping_group(
        self, element: _Element, sink: State, following: _Element | None
    ) -> State:
        true = self._true()
        back = self._waiting(element)
        copies = self.backs[id(back)] = []
        first = self._inside(element, back, following)
        first.add("proceed", sink, true)
        back.add("proceed", first, true)
        for copy in copies:
            # What a greedy step takes narrows `first`, but not after its until.
            copy.add("proceed", self._copy(first), true)
        return first

    def _inside(
        self, element: _Element, sink: State, following: _Element | None
    ) -> State:
        assert isinstance(element.body, Sequence)
        outer = self.group
        self.group = self._group_of(element)
        until = self._until_of(element.body)
        self.group.untils = () if outer is None else outer.untils
        if until is not None:
            self.group.untils = (until, *self.group.untils)
        first = self._sequence(element.body, sink, following, element.gap_ns)
        self.group = outer
        return first

    def _group_of(self, element: _Element) -> _Group:
        assert isinstance(element.body, Sequence)
        return self.groups.setdefault(
            id(element.body), _Group(element.body, element.contiguity)
        )

    def _set_first_of_loop(self, element: _Element, value: bool) -> None:
        if isinstance(element.body, Sequence):
            self._group_of(element).first_of_loop = value

    def _heads_group(self, element: _Element) -> bool:
        return self.group is not None and element.index == 0

    def _heads_optional_group(self, element: _Element) -> bool:
        if self.group is None or element.index != 0:
            return False
        return self.group.first_of_loop and self.group.body.quantifier.optional

    def _copy(self, state: State) -> State:
        copy = self._like(state)
        if id(state) in self.backs:
            self.backs[id(state)].append(copy)
        for edge in state.edges:
            target = copy if edge.target is state else edge.target
            copy.add(edge.action, target, edge.condition, edge.gap_ns)
        return copy

    def _nots_before(self, element: _Element) -> list[tuple[Expr, str]]:
        found = []
        for before in reversed(element.siblings):
            if before.contiguity == "not_then":
                found.append((self._take_condition(before), before.name))
            elif not before.quantifier.optional:
                break
        return found

    def _without_transitive_nots(self, element: _Element, sink: State) -> State:
        nots = self._nots_before(element)
        if not nots or not element.quantifier.optional:
            return sink
        names = {name for _, name in nots}
        copy = self._like(sink)
        for edge in sink.edges:
            target = edge.target
            if edge.action == "proceed":
                if target.kind == "stop":
                    if target.variable in names:
                        continue
                else:
                    target = self._without_transitive_nots(element, target)
            elif target is sink:
                target = copy
            copy.add(edge.action, target, edge.condition, edge.gap_ns)
        return copy

    def _stop(self, condition: Expr, name: str) -> State:
        if name not in self.stops:
            stop = self._state(name, "stop")
            stop.add("take", stop, condition)
            self.stops[name] = stop
        return self.stops[name]

    def _add_stops(self, element: _Element, state: State) -> None:
        for condition, name in self._nots_before(element):
            state.add("proceed", self._stop(condition, name), condition)

    def _add_stop_to_loop(self, following: _Element | None, state: State) -> None:
        if following is not None and following.contiguity == "not_then":
            condition = self._take_condition(following)
            state.add("proceed", self._stop(condition, following.name), condition)

    def _own_condition(self, element: _Element) -> Expr:
        # A group has no condition of its own.
        if isinstance(element.body, Sequence):
            return TRUE
        types = tuple(sorted(element.body.types))
        result: Expr = TRUE if types == self.rule.types else TypeIs(types)
        if element.body.condition is not None:
            for part in conjuncts(element.body.condition):
                result = both(result, Scoped(types, part))
        return result

    def _until_of(self, body: Step | Sequence) -> Expr | None:
        until = body.quantifier.until
        if until is None:
            return None
        types = body.types if isinstance(body, Step) else self.rule.types
        return Scoped(tuple(sorted(types)), until)

    def _going_on(self, condition: Expr) -> Expr:
        """``condition``, and that no group around is ended by its until."""
        for until in () if self.group is None else self.group.untils:
            condition = both(Not(until), condition)
        return condition

    def _take_condition(self, element: _Element) -> Expr:
        return self._going_on(self._own_condition(element))

    def _true(self) -> Expr:
        return self._going_on(TRUE)

    def _ignore(self, element: _Element, strategy: Strategy) -> Expr | None:
        condition: Expr | None
        if strategy == "strict":
            condition = None
        elif strategy == "skip_till_next":
            condition = Not(self._own_condition(element))
        else:
            condition = TRUE
        return None if condition is None else self._going_on(condition)

    def _ignore_condition(self, element: _Element) -> Expr | None:
        strategy = _STRATEGY[element.contiguity]
        if self._heads_group(element):
            assert self.group is not None
            strategy = (
                _STRATEGY[self.group.contiguity]
                if self.group.first_of_loop
                else _INNER[self.group.body.quantifier.inner]
            )
        return self._ignore(element, strategy)

    def _inner_ignore_condition(self, element: _Element) -> Expr | None:
        inner = element.quantifier.inner
        if self._heads_group(element):
            assert self.group is not None
            inner = self.group.body.quantifier.inner
        return self._ignore(element, _INNER[inner])

    @staticmethod
    def _until(
        condition: Expr | None, until: Expr | None, is_take: bool
    ) -> Expr | None:
        if until is None:
            return condition
        if condition is not None:
            return both(Not(until), condition)
        return Not(until) if is_take else None


def _narrow(state: State, taken: Expr) -> None:
    """Let no edge of ``state`` have an event that the greedy step takes."""
    for edge in state.edges:
        edge.condition = both(edge.condition, Not(taken))


_Literals = tuple[tuple[Expr, bool], ...]


@dataclass(frozen=True, slots=True)
class FlatEdge:
    """What one event can do in a state: an action under a conjunction of literals."""

    action: Literal["take", "ignore", "stop"]
    target: int
    variable: str
    literals: _Literals


@dataclass(frozen=True, slots=True)
class FlatState:
    """A state without PROCEED edges.

    ``completes`` holds the conjunctions under which a match that has just
    entered this state by taking an event is complete with that event. A partial
    match in this state has run out ``gap_ns`` after the event that it bound last
    (0: never for that reason); in a PENDING state the match is then complete.
    """

    variable: str
    kind: StateKind
    edges: tuple[FlatEdge, ...]
    completes: tuple[_Literals, ...]
    gap_ns: int = 0


@dataclass(frozen=True, slots=True)
class Automaton:
    """States in a fixed order; state 0 is the start."""

    states: tuple[FlatState, ...]


def build_states(rule: Rule) -> State:
    """Return the start state of the pattern's automaton, PROCEED edges included."""
    return _Builder(rule).build()


def build_automaton(rule: Rule) -> Automaton:
    """Compile the pattern of ``rule``; state 0 of the result is the start."""
    return flatten(build_states(rule), rule)


@dataclass(frozen=True, slots=True)
class _Way:
    """An edge and what leads to it without consuming an event."""

    edge: Edge
    literals: _Literals
    gap_ns: int


def flatten(start: State, rule: Rule) -> Automaton:
    """Follow the PROCEED edges of every state that ``start`` leads to."""
    order: dict[int, State] = {}
    queue = [start]
    while queue:
        state = queue.pop(0)
        if id(state) in order:
            continue
        order[id(state)] = state
        queue += [edge.target for edge in state.edges]
    numbers = {key: i for i, key in enumerate(order)}
    ways = {key: list(_ways(s, (), 0, rule)) for key, s in order.items()}
    # A match's first event has none before it.
    gaps = dict.fromkeys(order, 0)
    for key, state in order.items():
        if state.kind in ("normal", "pending"):
            gap = _runs_out(state, set())
            # What nothing can come of goes when the whole pattern's limit does.
            gaps[key] = rule.pattern.gap_ns or 0 if gap is None else gap
    flat = [_flat(s, numbers, ways, gaps) for s in order.values()]
    return Automaton(tuple(_confirmed_once(flat)))


def _confirmed_once(states: list[FlatState]) -> list[FlatState]:
    """Let only the very next event confirm a `not_next` in last place.

    A repeated group waits, after its last event, for its first step again, and passes
    over events meanwhile. The first of them confirms the match that is there; from a
    copy of the state, later ones do not confirm the same match again.
    """

    def confirms(edge: FlatEdge) -> bool:
        return edge.action == "ignore" and states[edge.target].kind == "final"

    passed = {
        edge.target
        for state in states
        for edge in state.edges
        if edge.action == "ignore" and any(map(confirms, states[edge.target].edges))
    }
    copies = {target: len(states) + i for i, target in enumerate(sorted(passed))}

    def redirected(edges: Iterable[FlatEdge]) -> tuple[FlatEdge, ...]:
        return tuple(
            replace(edge, target=copies.get(edge.target, edge.target))
            if edge.action == "ignore"
            else edge
            for edge in edges
        )

    return [
        *(replace(s, edges=redirected(s.edges)) for s in states),
        *(
            replace(
                states[target],
                edges=redirected(e for e in states[target].edges if not confirms(e)),
            )
            for target in copies
        ),
    ]


def _flat(
    state: State,
    numbers: dict[int, int],
    ways: dict[int, list[_Way]],
    gaps: dict[int, int],
) -> FlatState:
    edges = []
    for way in ways[id(state)]:
        edge, literals, limit = way.edge, way.literals, way.gap_ns
        target, passes = edge.target, edge.action == "ignore"
        if edge.action == "proceed" or (state.kind == "start" and passes):
            continue
        if passes and target.kind == "normal" and not target.gap_ns:
            # Nothing goes to wait where it would have run out already.
            limit = _shorter(limit, gaps[id(target)])
        # The shorter limits of a state are conditions, the longest is its end.
        if state.kind != "start" and limit and limit != gaps[id(state)]:
            literals = (*literals, (SincePrevious(limit), True))
        edges.append(
            FlatEdge(
                "stop" if target.kind == "stop" else edge.action,
                numbers[id(target)],
                edge.source.variable,
                literals,
            )
        )
    completes = [
        way.literals
        for way in ways[id(state)]
        if way.edge.action == "proceed" and way.edge.target.kind == "final"
    ]
    return FlatState(
        state.variable, state.kind, tuple(edges), tuple(completes), gaps[id(state)]
    )


def _runs_out(state: State, seen: set[int]) -> int | None:
    """When nothing can come of a match in ``state`` any more, after its last event.

    That goes by the limits of the steps ahead, whatever their conditions: a step
    that no event can satisfy keeps a match no longer than its limit. 0: never;
    None: of this state nothing comes that is not known from ``seen``.
    """
    if state.gap_ns or state.kind == "pending":
        return state.gap_ns
    seen.add(id(state))
    longest: int | None = None
    for edge, gap in _limits(state, 0, set()):
        if edge.target.kind == "stop" or edge.action == "proceed":
            continue
        found: int | None = gap
        if edge.action == "ignore" and not gap and edge.target.kind != "final":
            if id(edge.target) in seen:
                continue
            found = _runs_out(edge.target, seen)
        if found == 0:
            return 0
        if found is not None:
            longest = max(longest or 0, found)
    return longest


def _limits(
    state: State, gap_ns: int, seen: set[tuple[int, int]]
) -> Iterator[tuple[Edge, int]]:
    """Yield the edges that lead on, with the shortest limit on the way there."""
    for edge in state.edges:
        if _join((), edge.condition, alone=True) is None:
            continue
        gap = _shorter(gap_ns, edge.gap_ns)
        yield edge, gap
        if edge.action == "proceed" and (id(edge.target), gap) not in seen:
            seen.add((id(edge.target), gap))
            yield from _limits(edge.target, gap, seen)


def _ways(
    state: State, literals: _Literals, gap_ns: int, rule: Rule, depth: int = 0
) -> Iterator[_Way]:
    if depth > 200:
        raise RuleError(
            f"rule {rule.name!r}",
            "more than 200 optional steps follow one another",
            "make some of them required, or split the rule",
        )
    for edge in state.edges:
        joined = _join(literals, edge.condition)
        if joined is None:
            continue
        gap = _shorter(gap_ns, edge.gap_ns)
        yield _Way(edge, joined, gap)
        if edge.action == "proceed":
            yield from _ways(edge.target, joined, gap, rule, depth + 1)


def _join(
    literals: _Literals, condition: Expr, *, alone: bool = False
) -> _Literals | None:
    """Add a condition to a conjunction; None if they contradict each other.

    ``alone``: only a part that is never true by itself counts as a contradiction.
    """
    found = {expr.key: (expr, positive) for expr, positive in literals}
    for part in conjuncts(condition):
        expr, positive = part, True
        while isinstance(expr, Not):
            expr, positive = expr.operand, not positive
        if positive and isinstance(expr, Binary) and expr.op == "and":
            joined = _join(tuple(found.values()), expr, alone=alone)
            if joined is None:
                return None
            found = {x.key: (x, p) for x, p in joined}
            continue
        if isinstance(expr, Const):
            if bool(expr.value) != positive:
                return None
            continue
        if found.get(expr.key, (expr, positive))[1] != positive and not alone:
            return None
        found[expr.key] = (expr, positive)
    return tuple(found.values())
