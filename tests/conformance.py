"""Recorded pattern cases in their neutral JSON form, run against the engine.

``python -m tests.conformance FILE.jsonl ...`` prints passed and failed by file and
by tag, and the failing ids; it ends with 1 if a case failed. A case is a pattern, a
stream of flat events and what Apache Flink's CEP library (2.3) makes of them: matches
(compared as a multiset), time-outs (a set of match and moment), partial matches left
over, late events, or the error that the run must end with. When each match came out
is a second, stricter level that decides nothing (``emitted_at``).

Verdicts, of which only ``failed`` makes the exit code 1:

``passed``
    All as recorded.
``departure``
    Another result only because of our two departures: a gap limit bounds every step,
    and the time limit of a repetition bounds every repetition. That it is only that is
    shown by running the case once more with an automaton that has the library's limits
    (`FlinkLimits`), which must give what is recorded.
``tie_order``
    Another result where several matches tie under a skip strategy, which the library
    breaks by an accident of its heap and we by a rule of our own.
``failed``
    Anything else.

A case's events become rows of an event type of its own that has all the fields which
its events have or its pattern names. Field names are never those of the case, so none
can be a reserved one; a field of both numbers and strings becomes two.

Things that cases say and rules refuse, as nobody can mean them, are run all the same.
A condition may ask what its own step has bound, or one that comes later or is negated:
where nothing repeats that is nothing at all, so count and sum are 0 and all else is
absent. A ``not_followed_by`` may have no step after it (at the end of a group, or with
other negations behind it), which Flink ignores, mostly: such a rule is made without the
checks. A limit that Flink takes no notice of is left out where a rule with it would be
refused: on an absence that a step follows, and a time bound at a group's end.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import json
import lzma
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cep.engine import plan
from cep.engine.kernels import nfa
from cep.engine.operator import Operator
from cep.errors import RuleError
from cep.events.columns import Column, EventColumns
from cep.events.ids import ulid_to_words
from cep.events.registry import registry
from cep.rules import AfterMatch, automaton, emit, on, seq
from cep.rules.expressions import (
    Binary,
    BoundAggregate,
    BoundField,
    Const,
    Expr,
    Field,
    Not,
    StringTest,
)
from cep.rules.patterns import Sequence, Step, with_one_window
from cep.rules.rule import Limits, Rule, build_rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cep.engine.derive import DerivedEvent

Case = dict[str, Any]
Match = list[Any]  # [[element, [positions]], ...]

INNER = {"skip_till_next": "relaxed", "strict": "consecutive", "any": "any"}
FOLLOW = {
    "next": "next",
    "followed_by": "then",
    "followed_by_any": "then_any",
    "not_next": "not_next",
    "not_followed_by": "not_then",
}
NEGATIONS = ("not_next", "not_followed_by")
STRING_TESTS = ("starts_with", "ends_with", "contains")
LOGIC = ("and", "or", "not")
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
MANY = 2**39
LIMITS = Limits(MANY, MANY, matches_per_event=MANY, bindings_per_event=MANY)
T0 = 1_700_000_000_000
KEY = "key"
GAPS, WINDOW = "previous_and_current", "first_and_last"


# Events --------------------------------------------------------------------------


def step_name(name: str) -> str:
    """Return an element's name, spelled out where it is no identifier.

    What is reserved to the library (``$endState$``) stays what it is, to be refused.
    """
    if "$" in name or (name.isidentifier() and not name.startswith("s_")):
        return name
    return "s_" + name.encode().hex()


def element_name(step: str) -> str:
    """Return the element that `step_name` has made a step's name of."""
    return bytes.fromhex(step[2:]).decode() if step.startswith("s_") else step


def column_name(name: str, kind: str) -> str:
    """Return the payload field of a case's field, one for each kind of value."""
    return f"{kind}_{name.encode().hex()}"


def fields_of(case: Case) -> tuple[str, ...]:
    """Return the payload fields that a case needs."""
    found = {column_name("ts", "float")}
    for event in case.get("events", []):
        for name, value in event.items():
            if value is not None:
                kind = "str" if isinstance(value, str) else "float"
                found.add(column_name(name, kind))
    todo: list[Any] = [case["pattern"]]
    while todo:
        node = todo.pop()
        if isinstance(node, list):
            todo += node
        elif isinstance(node, dict):
            todo += node.values()
            name = node.get("field")
            if isinstance(name, str):
                found |= {column_name(name, "str"), column_name(name, "float")}
            if isinstance(node.get("subtype"), str):
                found.add(column_name("type", "str"))
    return tuple(sorted(found))


def declare(case: Case) -> str:
    """Register the event type of a case and return its name."""
    names = fields_of(case)
    digest = hashlib.sha256(" ".join(names).encode()).hexdigest()[:16]
    event_type = f"case.e{digest}"
    if event_type not in registry:
        from pydantic import create_model

        kinds = {n: str if n.startswith("str") else float for n in names}
        optional: dict[str, Any] = {n: (k | None, None) for n, k in kinds.items()}
        model = create_model(f"Case{digest}", **optional, **{KEY: (str | None, None)})
        registry.register(event_type, stream="cases")(model)
    return event_type


def columns(case: Case, positions: list[int], event_type: str) -> EventColumns:
    """Return some events of a case as columns; the id of event i is i."""
    events = [case["events"][i] for i in positions]
    made: dict[str, Column] = {}
    for name in {name for event in events for name in event}:
        values = [event.get(name) for event in events]
        texts = [isinstance(v, str) for v in values]
        if any(texts):
            known = sorted({v for v in values if isinstance(v, str)})
            codes = [known.index(v) if isinstance(v, str) else 0 for v in values]
            made[column_name(name, "str")] = Column(
                "str", np.array(codes, np.int32), np.array(texts), known
            )
        present = [v is not None and not isinstance(v, str) for v in values]
        if any(present):
            numbers = [
                float(v) if p else 0.0 for v, p in zip(values, present, strict=True)
            ]
            made[column_name(name, "float")] = Column(
                "float", np.array(numbers), np.array(present)
            )
    if case.get("key_by"):
        keys = [json.dumps(event.get(case["key_by"])) for event in events]
        known = sorted(set(keys))
        codes = [known.index(key) for key in keys]
        made[KEY] = Column("str", np.array(codes, np.int32), None, known)
    n, at = len(events), np.array(positions, np.int64)
    return EventColumns(
        "cases",
        T0 + at,
        np.zeros(n, np.int64),
        T0 + np.array([event["ts"] for event in events], np.int64),
        np.zeros(n, np.uint64),
        at.astype(np.uint64),
        np.zeros(n, np.int32),
        [event_type],
        made,
    )


# Conditions ----------------------------------------------------------------------


class Bound:
    """Which elements may have bound events where a condition is asked."""

    def __init__(self) -> None:
        self.names: set[str] = set()


ZERO = Const(0.0)
ABSENT = Binary("div", ZERO, ZERO)


def expression(node: dict[str, Any], bound: Bound, kind: str = "float") -> Expr:
    """Build the expression of a value of a kind, a number or a string, from JSON."""
    if "lit" in node:
        value = node["lit"]
        if isinstance(value, str) != (kind == "str") or value is None:
            return ABSENT
        return Const(value if isinstance(value, str) else float(value))
    if "agg" in node:
        return _aggregate(node, bound, kind)
    if "field" in node:
        return Field(column_name(node["field"], kind))
    op, args = node["op"], node["args"]
    result = expression(args[0], bound)
    for arg in args[1:]:
        result = Binary(op, result, expression(arg, bound))
    return result


def _aggregate(node: dict[str, Any], bound: Bound, kind: str) -> Expr:
    function, of = node["agg"], step_name(node["of"])
    name = None if node.get("field") is None else column_name(node["field"], kind)
    if node["of"] not in bound.names:
        return ZERO if function in ("count", "sum") else ABSENT
    if function == "count":
        return BoundAggregate("count", of, None)
    if name is None or (kind == "str" and function not in ("first", "last")):
        return ABSENT
    if function in ("first", "last"):
        return BoundField(of, name, function)
    return BoundAggregate(function, of, name)


def condition(node: dict[str, Any], bound: Bound) -> Expr:
    """Build a condition from its JSON."""
    if "true" in node:
        return Const(bool(node["true"]))
    op, args = node.get("op"), node.get("args", [])
    if op == "not":
        return Not(condition(args[0], bound))
    if op in LOGIC:
        result = condition(args[0], bound)
        for arg in args[1:]:
            result = Binary(op, result, condition(arg, bound))
        return result
    if op in STRING_TESTS:
        text = args[1].get("lit")
        if not isinstance(text, str):
            return Const(False)
        operand = args[0].get("lit", expression(args[0], bound, "str"))
        if isinstance(operand, str):
            return Const(_tests(op, operand, text))
        return StringTest(op, operand, text)
    if op in COMPARISONS:
        return _comparison(op, args, bound)
    # A bare value: anything but absent and zero.
    return Binary("ne", expression(node, bound), ZERO)


def _tests(op: str, value: str, text: str) -> bool:
    if op == "contains":
        return text in value
    return value.startswith(text) if op == "starts_with" else value.endswith(text)


def _comparison(op: str, args: list[dict[str, Any]], bound: Bound) -> Expr:
    literals = [arg["lit"] for arg in args if "lit" in arg]
    plain = all("op" not in arg for arg in args)
    if all(isinstance(x, str) for x in literals) and len(literals) == len(args):
        left, right = literals
        order = (left > right) - (left < right)
        return Const(
            {"eq": order == 0, "ne": order != 0}.get(op)
            or {"lt": order < 0, "le": order <= 0}.get(op)
            or {"gt": order > 0, "ge": order >= 0}.get(op, False)
        )
    if any(isinstance(x, str) for x in literals):
        left, right = (expression(arg, bound, "str") for arg in args)
        absent = left is ABSENT or right is ABSENT
        if absent or not plain or op not in ("eq", "ne"):
            return Const(False)
        return Binary(op, left, right)
    left, right = (expression(arg, bound) for arg in args)
    as_numbers: Expr = Binary(op, left, right)
    fields = all("field" in arg or "agg" in arg for arg in args)
    if not fields or op not in ("eq", "ne"):
        return as_numbers
    texts = [expression(arg, bound, "str") for arg in args]
    if any(not isinstance(text, (Field, BoundField)) for text in texts):
        return as_numbers
    return Binary("or", as_numbers, Binary(op, *texts))


# Patterns ------------------------------------------------------------------------


def _quantify(element: Any, q: dict[str, Any] | None, bound: Bound) -> Any:
    if not q:
        return element
    least, most = q["min"], q["max"]
    if (least, most) != (1, 1) or q.get("explicit"):
        element = (
            element.at_least(least) if most is None else element.between(least, most)
        )
    if q.get("inner") == "strict":
        element = element.consecutive()
    if q.get("inner") == "any":
        element = element.any_combination()
    if q.get("greedy"):
        element = element.greedy()
    if q.get("until") is not None:
        element = element.until(condition(q["until"], bound))
    if q.get("optional") and not element.quantifier.optional:
        element = element.optional()
    return element


def _repeats(node: dict[str, Any]) -> bool:
    q = node.get("quantifier")
    return bool(q) and ((q["min"], q["max"]) != (1, 1) or bool(q.get("explicit")))


def _names(elements: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the elements that bind events, those of groups too."""
    for node in elements:
        if "group" in node:
            yield from _names(node["group"])
        elif node["contiguity"] not in NEGATIONS:
            yield node["name"]


@dataclass
class Builder:
    """Builds the pattern of a case; ``window_ms`` is that of the whole, 0 for none."""

    event_type: str
    window_ms: int
    bound: Bound = field(default_factory=Bound)

    def element(self, node: dict[str, Any], *, followed: bool) -> Step | Sequence:
        """Build an element; ``followed``: it has a step after it."""
        q, bound = node.get("quantifier"), self.bound
        element: Any
        if "group" in node:
            before = set(bound.names)
            if _repeats(node):
                bound.names |= set(_names(node["group"]))
            group = self.sequence(node["group"])
            if node.get("where") is not None:
                group = group.where(condition(node["where"], bound))
            bound.names = before | set(_names(node["group"]))
            element = _quantify(group, q, bound)
        else:
            element = self.step(node, q)
        gap = self.gap_ms(node, followed=followed)
        return element.within_previous(text_of(gap)) if gap else element

    def step(self, node: dict[str, Any], q: dict[str, Any] | None) -> Step:
        bound, name = self.bound, node["name"]
        step = on(self.event_type, name=step_name(name))
        negated = node["contiguity"] in NEGATIONS
        inside = name in bound.names  # a repeated group
        if _repeats(node):
            bound.names.add(name)
        if node.get("subtype") is not None:
            step = step.where(Field(column_name("type", "str")) == node["subtype"])
        if node.get("where") is not None and "true" not in node["where"]:
            step = step.where(condition(node["where"], bound))
        step = _quantify(step, q, bound)
        if negated:
            bound.names.discard(name)
        elif not inside:
            bound.names.add(name)
        return step

    def gap_ms(self, node: dict[str, Any], *, followed: bool) -> int:
        """Return the gap limit of an element, 0 for none."""
        q = node.get("quantifier") or {}
        own = node.get("within_ms") if node.get("within_kind") == GAPS else 0
        gaps = [x for x in (own, q.get("window_ms") if _repeats(node) else 0) if x]
        if not gaps or (node["contiguity"] == "not_followed_by" and followed):
            return 0
        gap: int = min(gaps)
        # One that is as long as the whole says nothing; Flink refuses it where it
        # looks at it.
        looked_at = ("group" not in node and own and not _repeats(node)) or (
            q.get("window_ms") and (q["max"] is None or q["max"] > 1)
        )
        if self.window_ms and gap >= self.window_ms and not looked_at:
            return 0
        return gap

    def sequence(self, elements: list[dict[str, Any]]) -> Sequence:
        result: Sequence | None = None
        for place, node in enumerate(elements, start=1):
            element = self.element(node, followed=place < len(elements))
            if result is None:
                result = seq(element)
            else:
                result = getattr(result, FOLLOW[node["contiguity"]])(element)
        assert result is not None
        return result


def window_ms(pattern: dict[str, Any]) -> int:
    """Return the time bound of a whole pattern: the shortest of all; 0 for none.

    That at the end of a group is not looked at, and one of 0 is none at all.
    """
    found = []
    if pattern.get("within_kind") == WINDOW and pattern["within_ms"] is not None:
        found.append(pattern["within_ms"])

    def visit(elements: list[dict[str, Any]], *, inside: bool) -> None:
        for place, node in enumerate(elements, start=1):
            given = node.get("within_ms")
            ignored = inside and place == len(elements)
            if node.get("within_kind") == WINDOW and given is not None and not ignored:
                found.append(given)
            visit(node.get("group", []), inside=True)

    visit(pattern["elements"], inside=False)
    return min(found, default=0)


def text_of(ms: int) -> str:
    """Return a duration as rules take it, 146 years at most."""
    return f"{min(ms, 2**62 // 1_000_000)}ms"


def _vain(group: Sequence, *, inside: bool = False) -> set[int]:
    """Return the places of absences that have no step after them, nor are the last."""
    found, followed = set(), False
    last = len(group.elements) - 1
    for place in range(last, -1, -1):
        contiguity, _ = group.elements[place]
        if contiguity == "not_then":
            if not followed and (inside or place < last):
                found.add(place)
        elif contiguity != "not_next":
            followed = True
    return found


def _is_vain(group: Sequence, *, inside: bool = False) -> bool:
    """Whether a pattern has an absence that Flink ignores and rules refuse."""
    groups = [x for _, x in group.elements if isinstance(x, Sequence)]
    return bool(_vain(group, inside=inside)) or any(
        _is_vain(x, inside=True) for x in groups
    )


def _without_vain(group: Sequence, *, inside: bool = False) -> Sequence:
    """Return a pattern without those."""
    vain = _vain(group, inside=inside)
    elements = tuple(
        (how, _without_vain(x, inside=True) if isinstance(x, Sequence) else x)
        for place, (how, x) in enumerate(group.elements)
        if place not in vain
    )
    return replace(group, elements=elements)


def build(case: Case) -> Rule:
    """Build the rule of a case; RuleError if it is refused."""
    pattern, event_type = case["pattern"], declare(case)
    window = window_ms(pattern)
    sequence = Builder(event_type, window).sequence(pattern["elements"])
    gap = pattern["within_ms"] if pattern.get("within_kind") == GAPS else None
    if window:
        sequence = sequence.within(text_of(window))
    if gap and not (window and gap >= window):
        sequence = sequence.within_previous(text_of(gap))
    skip = pattern.get("after_match_skip") or {"kind": "no_skip"}
    target = step_name(skip["target"]) if skip.get("target") else None
    # Of what can be missing only: other strategies have no target.
    missing = "trip" if target and skip.get("throw_on_miss") else "ignore"
    after = AfterMatch(skip["kind"], target, missing)
    options: dict[str, Any] = {"limits": LIMITS, "key": None}
    if case.get("key_by"):
        options["key"] = KEY
    if window or any(part.gap_ns for part in sequence.walk()):
        options["on_timeout"] = emit()
    if not _is_vain(sequence):
        return build_rule("case", sequence, [emit()], after_match=after, **options)
    # Everything but the absences is checked.
    checked = _without_vain(sequence)
    rule = build_rule("case", checked, [emit()], after_match=after, **options)
    return replace(rule, pattern=with_one_window(sequence))


# Flink's gap limits --------------------------------------------------------------


class FlinkLimits(automaton._Builder):
    """Builds automata whose states run out where the library's do.

    There a limit belongs to some of an element's states: of a single element to the
    one that waits for its event, not to that which has passed one over where the
    element is optional; of a repeated element to all that wait but the one made
    first, which is that of the last repetition or of the loop. In such a state all
    runs out, what follows an optional element too.
    """

    def __init__(self, rule: Rule, pattern: dict[str, Any]) -> None:
        super().__init__(rule)
        self.limits: dict[tuple[str, ...], tuple[int, int]] = {}
        self.used: set[str] = set()
        self.note(pattern["elements"])
        if pattern.get("within_kind") == GAPS:
            last = self.key_of(pattern["elements"][-1])
            self.limits[last] = (pattern["within_ms"] or 0, self.limits[last][1])

    @staticmethod
    def key_of(node: dict[str, Any]) -> tuple[str, ...]:
        if "group" not in node:
            return ("step", step_name(node["name"]))
        return ("group", *map(step_name, _all_names(node["group"])))

    def note(self, elements: list[dict[str, Any]]) -> None:
        for node in elements:
            own = node.get("within_ms") if node.get("within_kind") == GAPS else 0
            repeated = (node.get("quantifier") or {}).get("window_ms")
            self.limits[self.key_of(node)] = own or 0, repeated or 0
            self.note(node.get("group", []))

    def build(self) -> automaton.State:
        start = super().build()
        for state in self.states:
            for edge in state.edges:
                edge.gap_ns = 0
        return start

    def _state(self, variable: str, kind: Any = "normal") -> automaton.State:
        self.used.add(variable)
        return super()._state(variable, kind)

    def _waiting(
        self, element: Any, kind: Any = "normal", *, passed: bool = False
    ) -> automaton.State:
        body, first = element.body, element.name not in self.used
        key: tuple[str, ...] = ("step", element.name)
        if isinstance(body, Sequence):
            key = ("group", *(step.name or "" for _, step in body.steps()))
        own, repeated = self.limits[key]
        state = self._state(element.name, kind)
        if not passed:
            gap = own if not element.quantifier.repeats else 0 if first else repeated
            state.gap_ns = gap * 1_000_000
        return state

    def _like(self, state: automaton.State) -> automaton.State:
        return self._state(state.variable, state.kind)


def _all_names(elements: list[dict[str, Any]]) -> Iterator[str]:
    for node in elements:
        if "group" in node:
            yield from _all_names(node["group"])
        else:
            yield node["name"]


@contextlib.contextmanager
def flinks_limits(case: Case) -> Iterator[None]:
    """Let operators be made with the library's gap limits."""
    ours = plan.build_automaton

    def build_automaton(rule: Rule) -> automaton.Automaton:
        return automaton.flatten(FlinkLimits(rule, case["pattern"]).build(), rule)

    plan.build_automaton = build_automaton
    try:
        yield
    finally:
        plan.build_automaton = ours


def has_gaps(case: Case) -> bool:
    """Whether a case has a limit that our departures are about."""
    todo: list[Any] = [case["pattern"]]
    while todo:
        node = todo.pop()
        if isinstance(node, list):
            todo += node
        elif isinstance(node, dict):
            if node.get("within_kind") == GAPS or node.get("window_ms"):
                return True
            todo += node.values()
    return False


# Runs ----------------------------------------------------------------------------

At = tuple[int | None, str]
Timeout = tuple[Match, int]


@dataclass
class Run:
    """What came of a case."""

    matches: list[Match] = field(default_factory=list)
    emitted_at: list[At] = field(default_factory=list)
    timeouts: list[Timeout] = field(default_factory=list)
    routes: int = 0  # ways through the automaton that matches came by
    live: int = 0
    late: list[int] = field(default_factory=list)
    error: str = ""


Action = tuple[str, int, At]  # ("time", to, at) or ("event", position, at)


def script(case: Case) -> tuple[list[Action], list[int]]:
    """Return what happens in which order, and the events that come too late."""
    events, actions, late = case["events"], [], []
    end = case.get("end_time")
    last = END if end == "inf" else end
    over: At = (None, "time")
    if "arrival" not in case:
        for i, event in enumerate(events):
            actions.append(("time", event["ts"], (i, "time")))
            actions.append(("event", i, (i, "event")))
    else:
        waiting: list[int] = []
        watermark: int | None = None

        def release(to: int) -> None:
            due = [i for i in waiting if events[i]["ts"] <= to]
            due.sort(key=lambda i: events[i]["ts"])  # stable: of equal times, arrival
            for i in due:
                waiting.remove(i)
                actions.append(("time", events[i]["ts"], (i, "time")))
                actions.append(("event", i, (i, "event")))

        for come in case["arrival"]:
            if "watermark" in come:
                if watermark is None or come["watermark"] > watermark:
                    watermark = come["watermark"]
                release(watermark)
                actions.append(("time", watermark, over))
            elif watermark is not None and events[come["event"]]["ts"] <= watermark:
                late.append(come["event"])
            else:
                waiting.append(come["event"])
        if last is not None:
            release(last)
    if last is not None:
        actions.append(("time", last, over))
    return actions, late


END = 2**62 // 1_000_000 - T0


def run(
    case: Case,
    cuts: list[int] | None = None,
    *,
    restart: bool = False,
    together: bool = False,
) -> Run:
    """Run a case.

    Parameters
    ----------
    cuts
        The events before which the input is cut into batches; None: every event
        is a batch of its own. Matches are said to come out at a batch's first
        event, so only with None `Run.emitted_at` is exact.
    restart
        Go on in a new operator, from a snapshot, at every cut.
    together
        Take in all keys at once. The recording has each key run of its own, where
        time passes at that key's events only; for us it passes for all keys.
    """
    rule = build(case)
    if together or not case.get("key_by"):
        return _run(case, rule, cuts, restart, None)
    whole, keys = Run(), {json.dumps(e.get(case["key_by"])) for e in case["events"]}
    for key in sorted(keys):
        part = _run(case, rule, cuts, restart, key)
        whole.matches += part.matches
        whole.emitted_at += part.emitted_at
        whole.timeouts += part.timeouts
        whole.routes += part.routes
        whole.live += part.live
        whole.late, whole.error = part.late, whole.error or part.error
    return whole


def _run(
    case: Case, rule: Rule, cuts: list[int] | None, restart: bool, key: str | None
) -> Run:
    operator, event_type = Operator([rule]), declare(case)
    found = Run()
    actions, found.late = script(case)
    if key is not None:
        field_name = case["key_by"]
        actions = [
            action
            for action in actions
            if action[2][0] is None
            or json.dumps(case["events"][action[2][0]].get(field_name)) == key
        ]

    def step(positions: list[int], now: int, at: At) -> None:
        batch = operator.ingest(columns(case, positions, event_type), 0)
        now_ns = (T0 + max(-T0, min(now, END))) * 1_000_000
        for event in operator.step(batch, now_ns).events:
            if event.timeout:
                ended = event.time_ns // 1_000_000 - T0
                found.timeouts.append((_match(event), ended))
            else:
                found.matches.append(_match(event))
                found.emitted_at.append(at)

    for batch in _batches(actions, cuts):
        if restart:
            state, operator = operator.snapshot(), Operator([rule])
            operator.restore(state)
        kind, first, at = batch[0]
        if kind == "time":
            step([], first, at)
            batch = batch[1:]
        positions = [x for kind, x, _ in batch if kind == "event"]
        if positions:
            now = case["events"][positions[-1]]["ts"]
            step(positions, now, (positions[0], "event"))
    counts = operator.counts()["case"]
    found.routes = counts.matches
    found.error = counts.tripped_why
    arena = operator._rules[0].arena
    found.live = counts.live_partials + int(arena.keys[:, nfa.K_HELD_COUNT].sum())
    return found


def _batches(actions: list[Action], cuts: list[int] | None) -> Iterator[list[Action]]:
    """Cut actions before watermarks and the events in ``cuts`` (None: all)."""
    batch: list[Action] = []
    for action in actions:
        at = action[2][0]
        cut = at is None or cuts is None or at in cuts
        if cut and action[0] == "time" and batch:
            yield batch
            batch = []
        batch.append(action)
    if batch:
        yield batch


def _match(event: DerivedEvent) -> Match:
    bound: dict[str, list[int]] = {}
    for step, text in zip(event.steps, event.lineage, strict=True):
        name = element_name(step)
        bound.setdefault(name, []).append(ulid_to_words(text)[1])
    return [[name, positions] for name, positions in bound.items()]


# Verdicts ------------------------------------------------------------------------


def multiset(values: Any) -> collections.Counter[str]:
    """Return values as a multiset."""
    return collections.Counter(json.dumps(value) for value in values)


def differences(case: Case, found: Run, *, exact: bool = True) -> list[str]:
    """Return the parts of a case's expectation that a run does not meet.

    ``exact`` is about a partial match of which both limits have run out when time
    moves on, from its first event and from its last: Flink says that it was at the
    latter, for us it is over at the first of the two, however far time moves.
    """
    expected, differs = case["expect"], []
    if (expected.get("error") or "") != found.error:
        differs.append("error")
    if expected.get("matches") is not None:
        matches, wanted = multiset(found.matches), multiset(expected["matches"])
        # Flink lists a match once for each route that binds the same events; a
        # derived event is there only once.
        if "duplicate_matches" in case.get("tags", []):
            wanted = collections.Counter(set(wanted))
        if matches != wanted:
            differs.append("matches")
    if expected.get("timeouts") is not None:
        recorded = [(x["match"], x["ts"]) for x in expected["timeouts"]]
        ours = found.timeouts
        if not exact:
            recorded, ours = (_ended(case, x) for x in (recorded, ours))
        if set(multiset(recorded)) != set(multiset(ours)):
            differs.append("timeouts")
    if expected.get("live_partials", found.live) not in (None, found.live):
        differs.append("live_partials")
    if expected.get("late") is not None and expected["late"] != found.late:
        differs.append("late")
    return differs


def _ended(case: Case, timeouts: list[Timeout]) -> list[Timeout]:
    """Let time-outs be at the end of the whole window where they were at or after."""
    window = window_ms(case["pattern"])
    if not window:
        return timeouts
    firsts = [case["events"][match[0][1][0]]["ts"] for match, _ in timeouts]
    return [
        (match, min(first + window, ended))
        for first, (match, ended) in zip(firsts, timeouts, strict=True)
    ]


def verdict(
    case: Case, cuts: list[int] | None = None, *, restart: bool = False
) -> tuple[str, list[str]]:
    """Return a case's verdict (see the module) and what differs."""
    if "reason" in case:
        try:
            build(case)
        except RuleError:
            return "passed", []
        return "failed", ["accepted"]
    differs = differences(case, run(case, cuts, restart=restart))
    if case.get("key_by") and case.get("end_time") is not None and not differs:
        differs = differences(case, run(case, cuts, restart=restart, together=True))
    if not differs:
        return "passed", []
    if has_gaps(case):
        with flinks_limits(case):
            found = run(case, cuts, restart=restart)
        if not differences(case, found, exact=False):
            return "departure", differs
    return ("tie_order" if "tie_order" in case.get("tags", []) else "failed"), differs


def as_multiset(case: Case) -> bool:
    """Whether matches come by as many routes as Flink lists them."""
    return run(case).routes == len(case["expect"]["matches"] or [])


def released_as_recorded(case: Case) -> bool | None:
    """Whether matches came out at the recorded events and times; None: not said."""
    expected = case["expect"]
    if expected.get("matches") is None or expected.get("emitted_at") is None:
        return None
    found = run(case)
    return multiset(zip(found.matches, found.emitted_at, strict=True)) == multiset(
        zip(expected["matches"], expected["emitted_at"], strict=True)
    )


# The command ---------------------------------------------------------------------


def load(path: Path) -> list[Case]:
    """Read a file of cases; ``.xz`` is unpacked."""
    data = path.read_bytes()
    text = lzma.decompress(data) if path.suffix == ".xz" else data
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def main(paths: list[str]) -> int:
    """Print the score of each file; the exit code says whether any case failed."""
    failed_any = False
    for path in map(Path, paths):
        score: collections.Counter[str] = collections.Counter()
        tags: dict[str, collections.Counter[str]] = {}
        shown: dict[str, list[str]] = {}
        duplicates: collections.Counter[str] = collections.Counter()
        release: collections.Counter[str] = collections.Counter()
        elsewhere = []
        for case in load(path):
            name = case["id"]
            try:
                result, differs = verdict(case)
            except Exception as error:
                result, differs = "failed", [f"{error!r:.200}"]
            score[result] += 1
            for tag in case.get("tags", []):
                tags.setdefault(tag, collections.Counter())[result] += 1
            if result != "passed":
                shown.setdefault(result, []).append(f"{name} ({', '.join(differs)})")
                continue
            if "reason" in case:
                continue
            if "duplicate_matches" in case.get("tags", []):
                duplicates["as sets"] += 1
                duplicates["as multisets"] += as_multiset(case)
                continue
            at = released_as_recorded(case)
            if at is not None:
                release["cases"] += 1
                release["equal"] += at
            if at is False:
                elsewhere.append(name)
        print(f"{path.name}: {dict(score)}")
        for tag, counts in sorted(tags.items()):
            print(f"  {tag:36} {dict(counts)}")
        if duplicates:
            print(f"  duplicate_matches that passed: {dict(duplicates)}")
        if release:
            print(f"  emitted_at of those that passed: {dict(release)}")
        for name in elsewhere:
            print(f"  released elsewhere: {name}")
        for result, names in sorted(shown.items()):
            for name in names:
                print(f"  {result}: {name}")
        failed_any |= score["failed"] > 0
    return int(failed_any)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
