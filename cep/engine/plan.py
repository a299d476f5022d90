"""What a set of rules needs, found by compiling them together.

Columns, windows, keys and programs that several rules share exist once. A plan
is fixed when it is made; `cep.engine.operator` runs it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cep.engine.interner import Interner
from cep.engine.kernels import nfa, slots, vm, windows
from cep.engine.keyspace import KeySpace
from cep.engine.program import Programs
from cep.engine.window_plan import Closing, SlotGroup, WindowGroup
from cep.errors import RuleError
from cep.rules.automaton import Automaton, build_automaton
from cep.rules.expressions import (
    Binary,
    Expr,
    Field,
    Python,
    Scoped,
    SincePrevious,
    TypeIs,
    reads_event,
    reads_match,
)
from cep.rules.types import ENVELOPE, Checker, field_kind, payload_kinds
from cep.rules.windows import Aggregate, Window, WindowType, event_types

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from cep.rules.expressions import Key
    from cep.rules.rule import Rule
    from cep.rules.types import Kind

_SKIPS = {
    "no_skip": nfa.NO_SKIP,
    "to_next": nfa.TO_NEXT,
    "past_last_event": nfa.PAST_LAST,
    "to_first": nfa.TO_FIRST,
    "to_last": nfa.TO_LAST,
}
_POLICIES = {"drop_oldest": nfa.DROP_OLDEST, "drop_new": nfa.DROP_NEW, "trip": nfa.TRIP}
MAX_CONDITIONS = 62  # bits of a condition mask
OUT_BINDINGS = 1_000_000  # events that matches hold in a kernel's output at most
MOST_IN_TABLE = 8  # conditions by whose bits reactions are looked up


@dataclass(frozen=True, slots=True)
class InputColumn:
    """A batch column that is loaded from events: a payload or envelope field."""

    name: str
    kind: str  # "float" (all numbers and truth values), "str"


@dataclass(frozen=True, slots=True)
class PythonColumn:
    """A batch column that a Python function fills before all else."""

    column: int
    types: tuple[str, ...]
    call: Python
    reads: tuple[int, ...]
    kinds: tuple[str, ...]  # of what is read


@dataclass(slots=True)
class CompiledRule:
    """One rule's tables, and how its numbers read."""

    rule: Rule
    keyspace: int
    types: tuple[int, ...]
    variables: list[str]
    automaton: Automaton
    conditions: list[int]  # programs of the conditions on the event alone
    iterative: list[int]
    captures: list[int]  # batch columns that nodes keep
    capture_kinds: list[str]
    having: int
    leaves: list[int]
    leaf_kinds: list[str]
    edges: NDArray[np.int64]
    states: NDArray[np.int64]
    branch: int
    watches: NDArray[np.int64]
    reactions: NDArray[np.int32]
    conditions_in_table: int
    match_leaves: int
    emitted_fields: dict[str, set[str]]  # known fields of each emitted type

    @property
    def takes_windows(self) -> bool:
        """Whether any step takes windows."""
        return any(isinstance(x, WindowType) for x in self.rule.types)

    def type_table(self, types: int) -> NDArray[np.uint8]:
        """Return 1 for each of the engine's types that the rule sees."""
        table = np.zeros(types, np.uint8)
        table[list(self.types)] = 1
        return table

    def params(self, word: int) -> NDArray[np.int64]:
        """Return the kernel's parameters; ``word`` is the rule's place among all."""
        rule, out = self.rule, np.zeros(nfa.PARAM_WIDTH, np.int64)
        out[nfa.R_WITHIN] = rule.pattern.within_ns or 0
        out[nfa.R_SKIP] = _SKIPS[rule.after_match.kind]
        target = rule.after_match.target
        out[nfa.R_SKIP_VARIABLE] = (
            -1 if target is None else self.variables.index(target)
        )
        out[nfa.R_CAP] = rule.limits.partials_per_key
        out[nfa.R_CAP_POLICY] = _POLICIES[rule.limits.policy]
        out[nfa.R_HAVING] = self.having
        out[nfa.R_BRANCH] = self.branch
        out[nfa.R_BINDINGS] = rule.limits.bindings_per_key
        out[nfa.R_GAPS] = self.states[:, nfa.S_GAP].any()
        out[nfa.R_LEAVES] = self.match_leaves
        out[nfa.R_TIMEOUTS] = bool(rule.timeouts)
        out[nfa.R_MISSING] = rule.after_match.on_missing == "trip"
        out[nfa.R_CONDITIONS] = self.conditions_in_table
        out[nfa.R_AHEAD] = self._may_look_ahead()
        out[nfa.R_TRIPS] = self._may_trip()
        out[nfa.R_SPACE], out[nfa.R_WORD] = self.keyspace, word
        out[nfa.R_OUT], out[nfa.R_OUT_BINDINGS] = nfa.FOR_EVER, OUT_BINDINGS
        if rule.limits.policy == "trip":
            # What one event puts out may stop the rule before the next one.
            out[nfa.R_OUT] = rule.limits.matches_per_event
            most = min(rule.limits.bindings_per_event, OUT_BINDINGS)
            out[nfa.R_OUT_BINDINGS] = most
        return out

    def _may_trip(self) -> bool:
        """Whether what the rule finds may stop it."""
        rule = self.rule
        return rule.limits.policy == "trip" or rule.after_match.on_missing == "trip"

    def _may_look_ahead(self) -> bool:
        """Whether a partial match may be left out that dies soon (`nfa.dies_ahead`).

        Limits are foreseen only where a partial match is never continued by two.
        """
        rule, states = self.rule, self.states
        if (
            rule.pattern.within_ns
            or states[:, nfa.S_GAP].any()
            or self._may_trip()
            or self.conditions_in_table < 0
            or not (self.reactions[0] >= nfa.TAKES).any()
        ):
            return False
        bits = np.arange(self.reactions.shape[1])
        for row in states.tolist():
            ways = np.zeros(bits.size, np.int64)
            for edge in self.edges[row[nfa.S_EDGES] : row[nfa.S_EDGES_END]].tolist():
                if states[edge[nfa.E_TARGET], nfa.S_KIND] != nfa.FINAL:
                    ways += _fits(edge, bits)
            if ways.max() > 1:
                return False
        return True


def _refuse_namesakes(rules: Sequence[Rule]) -> None:
    """Refuse two Python functions of one name: the engine knows them by it."""
    known: dict[Key, Python] = {}
    for rule in rules:
        for expr in rule.expressions():
            if not isinstance(expr, Python):
                continue
            if known.setdefault(expr.key, expr).function is not expr.function:
                raise RuleError(
                    f"rule {rule.name!r}: {expr}",
                    "another function of py(...) has the same name",
                    "write it with def, under a name of its own",
                )


class Plan:
    """The rules, compiled together.

    Attributes
    ----------
    types
        Event types that any rule names; an event's code is its index here.
    inputs
        Batch columns loaded from events, by column number.
    calls, filled
        Batch columns computed before the windows: by Python functions of
        inputs, and by programs of inputs and those.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        names = [rule.name for rule in rules]
        for name in names:
            if names.count(name) > 1:
                raise RuleError(
                    f"rule {name!r}",
                    "two rules have this name",
                    "rename one; names are part of the derived ids",
                )
        _refuse_namesakes(rules)
        self.rules = tuple(rules)
        self.strings = Interner()
        self.programs = Programs(self.strings)
        seen = {t for rule in rules for t in (*rule.types, *rule.sources)}
        self.types: list[str] = sorted(seen)
        self.inputs: dict[int, InputColumn] = {}
        self.calls: list[PythonColumn] = []
        self.filled: list[tuple[int, int, int]] = []
        self.windows: list[WindowGroup] = []
        self.slots: list[SlotGroup] = []
        self.closings: list[Closing] = []
        self.keyspaces: list[KeySpace] = []
        self.column_count = 0
        self._columns: dict[Key, int] = {}
        self._spaces: dict[tuple[str, ...], int] = {}
        self._groups: dict[Key, WindowGroup] = {}
        self._slot_groups: dict[Key, SlotGroup] = {}
        self.compiled = [self._compile(rule) for rule in rules]
        stages = [stage for _, _, stage in self.filled]
        stages += [window.stage for window in self.windows]
        stages += [slot.stage for slot in self.slots]
        self.stages = 1 + max(stages, default=0)

    def reads(self) -> dict[str, set[str]]:
        """Return the payload and envelope (``@name``) fields to load, by event type."""
        types = [t for t in self.types if not isinstance(t, WindowType)]
        wanted: dict[str, set[str]] = {t: set() for t in types}
        for column in self.inputs.values():
            for event_type in types:
                if column.name in payload_kinds(event_type):
                    wanted[event_type].add(column.name)
                elif column.name in ("correlation_id", "user_id"):
                    wanted[event_type].add(f"@{column.name}")
        return wanted

    # Columns ---------------------------------------------------------------

    def _new_column(self, key: Key) -> int:
        column = self._columns[key] = self.column_count
        self.column_count += 1
        return column

    def input_column(self, name: str, kind: str) -> int:
        """Return the column of a field; numbers and truth values share one kind."""
        kind = "str" if kind in ("str", "json") else "float"
        key: Key = ("input", name, kind)
        if key not in self._columns:
            self.inputs[self._new_column(key)] = InputColumn(name, kind)
        return self._columns[key]

    def type_column(self) -> int:
        """Return the column that holds each row's type code."""
        return self.input_column("@type", "float")

    def _program_column(self, expr: Expr, scope: _EventScope) -> int:
        if isinstance(expr, Field):
            return scope.column(expr)
        key: Key = ("program", scope.types, expr.key)
        if key not in self._columns:
            program = self.programs.add(expr, scope)
            column = self._new_column(key)
            self.filled.append((program, column, _stage_after(expr)))
        return self._columns[key]

    def python_column(self, expr: Python, scope: _EventScope) -> int:
        """Return the column of a Python call's results."""
        key: Key = ("python", scope.types, expr.key)
        if key not in self._columns:
            reads = tuple(scope.column(read) for read in expr.reads)
            column = self._new_column(key)
            kinds = tuple(field_kind(x.name, scope.types, "py") for x in expr.reads)
            self.calls.append(PythonColumn(column, scope.types, expr, reads, kinds))
        return self._columns[key]

    def keyspace(self, fields: tuple[str, ...], types: Sequence[str]) -> int:
        """Return the number of the key space over ``fields``."""
        kinds = tuple(field_kind(name, types, "key") for name in fields)
        identity = tuple(f"{n}:{k}" for n, k in zip(fields, kinds, strict=True))
        if identity not in self._spaces:
            columns = tuple(
                self.input_column(name, kind)
                for name, kind in zip(fields, kinds, strict=True)
            )
            self._spaces[identity] = len(self.keyspaces)
            self.keyspaces.append(KeySpace(columns, kinds, self.strings))
        return self._spaces[identity]

    def space_fields(self, space: KeySpace) -> list[str]:
        """Return the names of the fields that split a key space."""
        return [self.inputs[column].name for column in space.columns]

    def slot_column(self, window: Window, scope: _EventScope) -> int:
        """Return the column that a previous value or weighted mean is written to."""
        by = scope.rule_key if window.by is None else window.by
        (value,) = window.values
        half_life, stage = window.parameter or 0.0, stage_of(window)
        identity: Key = (scope.types, by, *([stage] if stage else []))
        group = self._slot_groups.get(identity)
        if group is None:
            space = self.keyspace(by, scope.types)
            group = SlotGroup(scope.types, space, _digest(identity), stage)
            self._slot_groups[identity] = group
            self.slots.append(group)
        key: Key = (window.function, value.key, half_life)
        if key in group.keys:
            return group.slots[group.keys.index(key)][2]
        source, kind = self._value_column(value, scope)
        out = self._new_column(("slot", identity, key))
        function = slots.PREVIOUS if window.function == "prev" else slots.WEIGHTED
        group.keys.append(key)
        group.kinds.append(kind)
        group.slots.append((function, source, out))
        group.half_lives.append(half_life)
        return out

    def window_column(self, window: Window, scope: _EventScope) -> int:
        """Return the column that a window's aggregate is written to."""
        if window.span.kind in ("previous", "all"):
            return self.slot_column(window, scope)
        by = scope.rule_key if window.by is None else window.by
        looks = scope.types
        source = scope.narrowed(window.source or event_types(looks))
        span, condition = window.span, window.condition
        if span.kind == "step":
            (taken,) = looks
            assert isinstance(taken, WindowType)
            span = taken.span
            if not window.source:
                condition = _both(taken.where, condition)
        where = None if condition is None else condition.key
        stage = stage_of(window)
        identity: Key = (source.types, by, span.key, where)
        identity += (stage,) if stage else ()
        group = self._groups.get(identity)
        if group is None:
            enters = None
            if condition is not None:
                enters = self._program_column(condition, source)
            space = self.keyspace(by, sorted({*looks, *source.types}))
            group = WindowGroup(
                source.types, enters, space, span, _digest(identity), stage
            )
            self._groups[identity] = group
            self.windows.append(group)
        group.looks.update(looks)
        number, function = 0, windows.FUNCTIONS[window.function]
        numbers = [
            group.value(value.key, *self._value_column(value, source))
            for value in window.values
        ]
        if window.function == "slope":
            at = self.input_column("@time", "float")
            numbers.insert(0, group.value(("@time",), at, "float"))
        if window.function in windows.PAIRED:
            number = group.pair(numbers[0], numbers[1])
        elif numbers:
            number = numbers[0]
            group.keep_for(window.function, number)
        else:
            function = windows.COUNT_ROWS
        key: Key = ("window", identity, function, number, window.parameter)
        if key not in self._columns:
            column = self._new_column(key)
            group.aggregates.append((function, number, column))
            group.parameters.append(window.parameter or 0.0)
        return self._columns[key]

    def _close(self, window: WindowType, scope: _EventScope) -> None:
        """Let rows tell of a step's windows when they close."""
        held = self.window_column(Aggregate("count", ()), scope)
        if all(x.type != window for x in self.closings):
            group = next(x for x in self.windows if held in x.columns)
            code = self.types.index(window)
            self.closings.append(Closing(window, code, group, held))

    def _value_column(self, value: Expr, scope: _EventScope) -> tuple[int, str]:
        """Return the column of what is aggregated, and whether it holds codes."""
        kind = Checker("", scope.types, {}, scope.rule_key).kind(value)
        return self._program_column(value, scope), "str" if kind == "str" else "float"

    # Rules -----------------------------------------------------------------

    def _compile(self, rule: Rule) -> CompiledRule:
        automaton = build_automaton(rule)
        for window in rule.types:
            if isinstance(window, WindowType):
                self._close(window, _EventScope(self, (window,), rule.key))
        variables = [step.name or "" for step in rule.steps]
        scope = _RuleScope(self, rule, variables)
        conditions: dict[Key, int] = {}
        iterative: dict[Key, int] = {}
        programs: dict[Key, int] = {}
        asked: list[Expr] = []  # the iterative conditions
        edges: list[list[int]] = []
        states: list[list[int]] = []

        def condition_mask(expr: Expr) -> tuple[bool, int]:
            found = iterative if reads_match(expr) else conditions
            key = expr.key
            if key not in found:
                if len(found) == MAX_CONDITIONS:
                    raise RuleError(
                        f"rule {rule.name!r}",
                        f"has more than {MAX_CONDITIONS} different conditions",
                        "split it into several rules",
                    )
                if found is iterative:
                    asked.append(expr)
                found[key] = len(found)
                programs[key] = self.programs.add(expr, scope.of_types(rule.types))
            return reads_match(expr), 1 << found[key]

        def row(
            action: int, target: int, variable: str, literals: _Literals
        ) -> list[int]:
            masks = [0, 0, 0, 0]
            for expr, positive in literals:
                is_iterative, bit = condition_mask(expr)
                masks[2 * is_iterative + (not positive)] |= bit
            return [
                action,
                target,
                variables.index(variable) if variable in variables else -1,
                *masks,
            ]

        actions = {"ignore": nfa.IGNORE, "take": nfa.TAKE, "stop": nfa.STOP}
        kinds = {"final": nfa.FINAL, "pending": nfa.PENDING}
        branch = 1
        for state in automaton.states:
            begin = len(edges)
            edges.extend(
                row(actions[x.action], x.target, x.variable, x.literals)
                for x in state.edges
            )
            middle = len(edges)
            edges.extend(
                row(nfa.TAKE, 0, state.variable, literals)
                for literals in state.completes
            )
            branch = max(branch, middle - begin)
            kind = kinds.get(state.kind, nfa.NORMAL)
            states.append([begin, middle, middle, len(edges), kind, state.gap_ns, -1])
        final = scope.of_last()
        having = -1
        if rule.pattern.condition is not None:
            having = self.programs.add(rule.pattern.condition, final)
        leaves: list[int] = []
        leaf_kinds: list[str] = []
        checker = _emission_checker(rule)
        match_leaves = sum(len(x.leaves()) for x in rule.emissions)
        for emission in (*rule.emissions, *rule.timeouts):
            for leaf in emission.leaves():
                leaves.append(self.programs.add(leaf, final))
                leaf_kinds.append(checker.kind(leaf))
        edge_table = np.array(edges, np.int64).reshape(-1, nfa.EDGE_WIDTH)
        state_table = np.array(states, np.int64).reshape(-1, nfa.STATE_WIDTH)
        watches = self._watches(iterative.values(), asked, scope)
        _watch_states(edge_table, state_table, watches)
        in_table = len(conditions) if len(conditions) <= MOST_IN_TABLE else -1
        return CompiledRule(
            rule=rule,
            keyspace=self.keyspace(rule.key, rule.types),
            types=tuple(self.types.index(t) for t in rule.types),
            variables=variables,
            automaton=automaton,
            conditions=[programs[key] for key in conditions],
            iterative=[programs[key] for key in iterative],
            captures=list(scope.captures.values()),
            capture_kinds=[
                self.inputs[column].kind for column in scope.captures.values()
            ],
            having=having,
            leaves=leaves,
            leaf_kinds=leaf_kinds,
            edges=edge_table,
            states=state_table,
            branch=branch,
            watches=watches,
            reactions=_reactions(
                edge_table, state_table, in_table, rule.after_match.kind != "no_skip"
            ),
            conditions_in_table=in_table,
            match_leaves=match_leaves,
            emitted_fields={
                x.type: set(payload_kinds(x.type))
                for x in (*rule.emissions, *rule.timeouts)
            },
        )

    def _watches(
        self, numbers: Iterable[int], asked: Sequence[Expr], scope: _RuleScope
    ) -> NDArray[np.int64]:
        """Return what of each iterative condition can be watched; operator -1: none."""
        watches = np.full((len(asked), nfa.WATCH_WIDTH), -1, np.int64)
        for j, expr in zip(numbers, asked, strict=True):
            types, test = scope.rule.types, expr
            while isinstance(test, Scoped):
                types, test = test.types, test.operand
            if not isinstance(test, Binary) or test.op not in _WATCHED:
                continue
            op, event, match = test.op, test.left, test.right
            if reads_match(event):
                op, event, match = _MIRRORED[op], match, event
            if reads_match(event) or reads_event(match):
                continue
            inner = scope.of_types(types)
            if isinstance(event, (Field, Window, Python)):
                column = inner.column(event)
            elif any(isinstance(node, Window) for node in event.walk()):
                continue  # windows are not there yet when columns are computed
            else:
                column = self._program_column(event, inner)
            watches[j] = _WATCHED[op], column, self.programs.add(match, inner)
        return watches


def _both(left: Expr | None, right: Expr | None) -> Expr | None:
    if left is None or right is None:
        return right if left is None else left
    return left & right


def stage_of(window: Window) -> int:
    """Return how many windows deep the values of a window are."""
    return max(map(_stage_after, window.inputs), default=0)


def _stage_after(expr: Expr) -> int:
    """Return the stage in which the windows that an expression reads are there."""
    windows = (node for node in expr.walk() if isinstance(node, Window))
    return max((1 + stage_of(window) for window in windows), default=0)


def _digest(identity: Key) -> str:
    return hashlib.sha256(repr(identity).encode()).hexdigest()[:12]


_Literals = tuple[tuple[Expr, bool], ...]
_WATCHED = {"gt": vm.GT, "ge": vm.GE, "lt": vm.LT, "le": vm.LE}
_MIRRORED = {"gt": "lt", "ge": "le", "lt": "gt", "le": "ge"}


def _watch_states(
    edges: NDArray[np.int64], states: NDArray[np.int64], watches: NDArray[np.int64]
) -> None:
    """Note for each state the one iterative condition it asks, if it can be watched."""
    for row in range(1, len(states)):
        begin, end = states[row, nfa.S_EDGES], states[row, nfa.S_EDGES_END]
        used = int(
            np.bitwise_or.reduce(
                edges[begin:end, [nfa.E_ITER_TRUE, nfa.E_ITER_FALSE]], axis=None
            )
        )
        j = used.bit_length() - 1
        if used == 1 << max(j, 0) and watches[j, nfa.W_OP] >= 0:
            states[row, nfa.S_WATCH] = j


def _reactions(
    edges: NDArray[np.int64],
    states: NDArray[np.int64],
    conditions: int,
    held_back: bool,
) -> NDArray[np.int32]:
    """Return what an event can do in a state, by the bits of its conditions.

    In the start state: whether any edge may fit, the iterative conditions left
    open. Elsewhere an event is inert if the only edge that fits stays where it is,
    and ends the match if none does. A last row says which events may complete a
    match that is ``held_back``.
    """
    table = np.full((len(states) + 1, 1 << max(conditions, 0)), nfa.REACTS, np.int32)
    table[-1] = 0
    if conditions < 0:
        return table[:, :1]
    bits = np.arange(table.shape[1])
    for state, row in enumerate(states.tolist()):
        open_ = 1 << row[nfa.S_WATCH] if row[nfa.S_WATCH] >= 0 else 0
        stays, watched = np.zeros(bits.size, bool), np.zeros(bits.size, bool)
        moves = np.zeros(bits.size, bool)
        many, only = np.zeros(bits.size, np.int64), np.full(bits.size, -1)
        for at in range(row[nfa.S_EDGES], row[nfa.S_EDGES_END]):
            edge = edges[at].tolist()
            fits = _fits(edge, bits)
            many += fits
            target = states[edge[nfa.E_TARGET]]
            ends = target[nfa.S_COMPLETES] < target[nfa.S_COMPLETES_END]
            if target[nfa.S_KIND] == nfa.FINAL or ends:
                table[-1, fits & (edge[nfa.E_ACTION] != nfa.STOP)] = held_back
            if _takes_for_certain(edge, states):
                only[fits] = at
            if state == 0:
                moves |= fits
                continue
            asks = edge[nfa.E_ITER_TRUE], edge[nfa.E_ITER_FALSE]
            if (edge[nfa.E_ACTION], edge[nfa.E_TARGET]) == (nfa.IGNORE, state):
                if asks[0] == 0 and asks[1] in (0, open_):
                    stays |= fits
                    watched |= fits & bool(asks[1])
                else:
                    moves |= fits
            elif open_ and asks == (open_, 0):
                watched |= fits
            else:
                moves |= fits
        if state == 0:
            table[0] = np.where(moves, nfa.REACTS, nfa.INERT)
        else:
            quiet = np.where(watched, nfa.WATCHES, nfa.INERT)
            table[state] = np.where(stays & ~moves, quiet, nfa.REACTS)
            table[state, many == 0] = nfa.DIES
        taken = (many == 1) & (only >= 0)
        table[state, taken] = only[taken] + nfa.TAKES
    return table


def _fits(edge: list[int], bits: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether an edge's conditions on the event alone hold, for each set of bits."""
    true, false = edge[nfa.E_TRUE], edge[nfa.E_FALSE]
    fits: NDArray[np.bool_] = ((bits & true) == true) & ((bits & false) == 0)
    return fits


def _takes_for_certain(edge: list[int], states: NDArray[np.int64]) -> bool:
    """Whether an edge whose bits fit takes the event, and completes nothing."""
    target = states[edge[nfa.E_TARGET]]
    return (
        edge[nfa.E_ACTION] == nfa.TAKE
        and not edge[nfa.E_ITER_TRUE] | edge[nfa.E_ITER_FALSE]
        and target[nfa.S_KIND] != nfa.FINAL
        and target[nfa.S_COMPLETES] == target[nfa.S_COMPLETES_END]
    )


def _emission_checker(rule: Rule) -> Checker:
    bound = {s.name or "": s.types for s in rule.steps}
    return Checker(f"rule {rule.name!r}", rule.completing_types, bound, rule.key)


class _EventScope:
    """A `Scope` for conditions of one step: where the event's values are."""

    def __init__(
        self, plan: Plan, types: tuple[str, ...], rule_key: tuple[str, ...]
    ) -> None:
        self.plan, self.types, self.rule_key = plan, tuple(sorted(types)), rule_key
        self.bound: dict[str, tuple[str, ...]] = {}

    def column(self, expr: Field | Window | Python | TypeIs | SincePrevious) -> int:
        if isinstance(expr, SincePrevious):
            return self.plan.input_column("@time", "float")
        if isinstance(expr, TypeIs):
            return self.plan.type_column()
        if isinstance(expr, Window):
            return self.plan.window_column(
                expr, _EventScope(self.plan, self.types, self.rule_key)
            )
        if isinstance(expr, Python):
            return self.plan.python_column(expr, self)
        kind = field_kind(expr.name, self.types, "expression")
        return self.plan.input_column(expr.name, kind)

    def type_codes(self, types: tuple[str, ...]) -> list[int]:
        return [self.plan.types.index(t) for t in types]

    def kind(self, expr: Expr) -> Kind:
        return Checker("expression", self.types, self.bound, self.rule_key).kind(expr)

    def narrowed(self, types: tuple[str, ...]) -> _EventScope:
        return _EventScope(self.plan, types, self.rule_key)

    def variable(self, step: str) -> int:
        raise AssertionError(step)  # pragma: no cover

    def capture(self, step: str, name: str) -> int:
        raise AssertionError(step, name)  # pragma: no cover


class _BoundScope(_EventScope):
    """A `Scope` that also knows what the steps of a rule have bound."""

    def __init__(self, parent: _RuleScope, types: tuple[str, ...]) -> None:
        super().__init__(parent.plan, types, parent.rule.key)
        self.parent = parent
        self.bound = {step.name or "": step.types for step in parent.rule.steps}

    def narrowed(self, types: tuple[str, ...]) -> _BoundScope:
        return _BoundScope(self.parent, types)

    def variable(self, step: str) -> int:
        return self.parent.variables.index(step)

    def capture(self, step: str, name: str) -> int:
        types = next(s.types for s in self.parent.rule.steps if s.name == step)
        kind = field_kind(name, types, "expression")
        column = self.plan.input_column(name, kind)
        captures = self.parent.captures
        captures.setdefault(column, column)
        return list(captures).index(column)


class _RuleScope:
    """Hands out the scopes of a rule's steps and gathers what nodes must keep."""

    def __init__(self, plan: Plan, rule: Rule, variables: list[str]) -> None:
        self.plan, self.rule, self.variables = plan, rule, variables
        self.captures: dict[int, int] = {}

    def of_types(self, types: tuple[str, ...]) -> _BoundScope:
        return _BoundScope(self, types)

    def of_last(self) -> _BoundScope:
        return self.of_types(self.rule.completing_types or self.rule.types)


__all__ = ["ENVELOPE", "CompiledRule", "InputColumn", "Plan", "WindowGroup"]
