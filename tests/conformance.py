"""Recorded pattern cases in their neutral JSON form, run against the engine.

``python -m tests.conformance FILE.jsonl ...`` prints passed and failed by file
and tag. A case is a pattern, a stream of flat events and the matches that Apache
Flink's CEP library (2.3) gives. Events become rows of one event type, ``case.event``;
a field that no event has is absent everywhere.

Verdicts: ``passed``, ``failed``, ``not_yet`` (needs what the rule API does not say
yet) and ``tie_order``: another result where several matches tie under a skip
strategy, which Flink breaks by an accident of its heap and we by a rule of our own.
Only ``failed`` makes the exit code 1.

Two things that cases say and rules refuse, as nobody can mean them, are run all the
same. A condition may ask what its own step has bound, or one that comes later or is
negated: where nothing repeats that is nothing at all, so count and sum are 0 and all
else is absent. And a ``not_followed_by`` may have no step after it (at the end of a
group, or with other negations behind it), which Flink ignores, mostly: such a rule is
made without the checks.
"""

from __future__ import annotations

import collections
import itertools
import json
import lzma
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cep.engine.derive import DerivedEvent
from cep.engine.operator import Operator
from cep.errors import RuleError
from cep.events.columns import Column, EventColumns
from cep.events.registry import registry
from cep.rules import AfterMatch, emit, on, seq
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
from cep.rules.patterns import Sequence, Step
from cep.rules.rule import Limits, Rule, build_rule

EVENT = "case.event"
FIELDS = {"id": "float", "name": "str", "price": "float", "volume": "float"}
INNER = {"skip_till_next": "relaxed", "strict": "consecutive", "any": "any"}
FOLLOW = {
    "next": "next",
    "followed_by": "then",
    "followed_by_any": "then_any",
    "not_next": "not_next",
    "not_followed_by": "not_then",
}
T0 = 1_700_000_000_000


class NotYet(Exception):
    """The case needs something that the rule API does not say yet."""


def declare() -> None:
    """Register the event type of the cases: every field that any of them has."""
    if EVENT in registry:
        return
    from pydantic import BaseModel

    class CaseEvent(BaseModel):
        ts: float | None = None
        id: float | None = None
        name: str | None = None
        price: float | None = None
        volume: float | None = None
        key: str | None = None
        subtype: str | None = None
        a: float | None = None
        b: float | None = None

    registry.register(EVENT, stream="cases")(CaseEvent)


def step_name(name: str) -> str:
    """Return an element's name as an identifier, reversibly (see `run`)."""
    return "s_" + name.encode().hex()


class Bound:
    """Which elements may have bound events where a condition is asked."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.repeats = False  # inside a repeated group, where later ones may have

    def answers(self, name: str) -> bool:
        """Whether ``name`` may have bound something; NotYet if a rule cannot ask."""
        if name not in self.names and self.repeats:
            raise NotYet("a later step of a repeated group")
        return name in self.names


def expression(node: dict[str, Any], bound: Bound) -> Expr:
    """Build an expression tree from its JSON."""
    if "true" in node:
        return Const(True)
    if "lit" in node:
        return Const(node["lit"])
    if "field" in node and "agg" not in node:
        name = node["field"]
        return Field("subtype" if name == "type" else name)
    if "agg" in node:
        function, name, of = node["agg"], node.get("field"), step_name(node["of"])
        if not bound.answers(node["of"]):
            zero = Const(0.0)
            return zero if function in ("count", "sum") else Binary("div", zero, zero)
        if function == "count":
            return BoundAggregate("count", of, None)
        if function in ("first", "last"):
            return BoundField(of, str(name), function)
        return BoundAggregate(function, of, name)
    op, args = node["op"], [expression(a, bound) for a in node["args"]]
    if op == "not":
        return Not(args[0])
    if op in ("starts_with", "ends_with", "contains"):
        assert isinstance(args[1], Const)
        return StringTest(op, args[0], str(args[1].value))
    result = args[0]
    for arg in args[1:]:
        result = Binary(op, result, arg)
    return result


def _quantify(element: Any, q: dict[str, Any] | None, bound: Bound) -> Any:
    if not q:
        return element
    least, most = q["min"], q["max"]
    optional = q["optional"]
    if q.get("window_ms"):
        raise NotYet("a time bound on repetitions")
    if least == 0 and (most is None or most == 0):
        raise RuleError("times", f"{least} to {most}", "use one_or_more().optional()")
    if (least, most) != (1, 1) or q.get("explicit"):
        element = (
            element.at_least(least) if most is None else element.between(least, most)
        )
    if q["inner"] == "strict":
        element = element.consecutive()
    if q["inner"] == "any":
        element = element.any_combination()
    if q["greedy"]:
        element = element.greedy()
    if q["until"] is not None:
        element = element.until(expression(q["until"], bound))
    if optional and not element.quantifier.optional:
        element = element.optional()
    return element


def _repeats(node: dict[str, Any]) -> bool:
    q = node.get("quantifier")
    return bool(q) and ((q["min"], q["max"]) != (1, 1) or bool(q.get("explicit")))


def _element(node: dict[str, Any], bound: Bound) -> Step | Sequence:
    if node.get("within_ms"):
        raise NotYet("a time bound on one element")
    q = node.get("quantifier")
    if "group" in node:
        outer, bound.repeats = bound.repeats, bound.repeats or _repeats(node)
        group = _quantify(_sequence(node["group"], bound), q, bound)
        bound.repeats = outer
        return group
    step = on(EVENT, name=step_name(node["name"]))
    if _repeats(node) or bound.repeats:
        bound.names.add(node["name"])
    if "subtype" in node:
        step = step.where(Field("subtype") == node["subtype"])
    if node["where"] is not None and "true" not in node["where"]:
        step = step.where(expression(node["where"], bound))
    step = _quantify(step, q, bound)
    if node["contiguity"] in ("not_next", "not_followed_by"):
        bound.names.discard(node["name"])
    else:
        bound.names.add(node["name"])
    return step


def _sequence(elements: list[dict[str, Any]], bound: Bound) -> Sequence:
    result = seq(_element(elements[0], bound))
    for node in elements[1:]:
        result = getattr(result, FOLLOW[node["contiguity"]])(_element(node, bound))
    return result


def _has_vain_absence(elements: list[dict[str, Any]], *, inside: bool = False) -> bool:
    """Whether a ``not_followed_by`` has no step after it, nor is the last element."""
    followed = False
    for place, node in enumerate(reversed(elements)):
        if "group" in node and _has_vain_absence(node["group"], inside=True):
            return True
        if node["contiguity"] == "not_followed_by" and not followed:
            if inside or place:
                return True
        elif node["contiguity"] != "not_next":
            followed = True
    return False


def build(pattern: dict[str, Any], key: str | None = None) -> Rule:
    """Build the rule of a case."""
    declare()
    sequence = _sequence(pattern["elements"], Bound())
    if pattern["within_ms"]:
        if pattern["within_kind"] == "previous_and_current":
            raise NotYet("a gap limit")
        sequence = sequence.within(f"{pattern['within_ms']}ms")
    skip = pattern["after_match_skip"] or {"kind": "no_skip", "target": None}
    target = step_name(skip["target"]) if skip["target"] else None
    after = AfterMatch(skip["kind"], target)
    limits = Limits(partials_per_key=1_000_000, bindings_per_key=10**9)
    if _has_vain_absence(pattern["elements"]):
        rule = build_rule("case", on(EVENT), [emit()], key=key, limits=limits)
        return replace(rule, pattern=sequence, after_match=after)
    return build_rule(
        "case", sequence, [emit()], key=key, after_match=after, limits=limits
    )


def columns(events: list[dict[str, Any]]) -> EventColumns:
    """Return the events of a case as columns; the id of event i is i."""
    n = len(events)
    fields = {}
    names = {name for event in events for name in event}
    for name in names:
        values = [event.get(name) for event in events]
        valid = np.array([v is not None for v in values])
        column = "subtype" if name == "type" else name
        if any(isinstance(v, str) for v in values):
            texts = sorted({str(v) for v in values if v is not None})
            codes = [texts.index(str(v)) if v is not None else 0 for v in values]
            fields[column] = Column("str", np.array(codes, np.int32), valid, texts)
        else:
            numbers = np.array([0.0 if v is None else float(v) for v in values])
            fields[column] = Column("float", numbers, valid)
    ts = np.array([event["ts"] for event in events], np.int64)
    count = np.arange(n, dtype=np.int64)
    return EventColumns(
        "cases",
        T0 + count,
        np.zeros(n, np.int64),
        T0 + ts,
        np.zeros(n, np.uint64),
        count.astype(np.uint64),
        np.zeros(n, np.int32),
        [EVENT],
        fields,
    )


def run(case: dict[str, Any], cuts: list[int] | None = None) -> list[Any]:
    """Return the matches of a case in the form that it records them.

    ``cuts`` are the positions at which the input is cut into batches.
    """
    return [match for match, _ in released(case, cuts)]


def released(
    case: dict[str, Any], cuts: list[int] | None = None
) -> list[tuple[Any, tuple[int | None, str]]]:
    """Return matches, each with the batch that released it.

    That is ``(i, "time")`` when time passed to the first event of the batch which
    begins at event i, ``(i, "event")`` when the batch was taken in, and
    ``(None, "time")`` at the end. With a cut at every event these are the release
    points that cases record.
    """
    rule = build(case["pattern"], case.get("key_by"))
    operator = Operator([rule])
    out: list[tuple[Any, tuple[int | None, str]]] = []
    events = case["events"]
    nothing = operator.ingest(columns([]), 0)
    if events:
        batch = operator.ingest(columns(events), 0)
        bounds = [0, *(cuts or []), len(events)]
        for a, b in itertools.pairwise(bounds):
            if a == b:
                continue
            part = batch.take(slice(a, b))
            found = operator.step(nothing, int(part.time[0])).events
            out += [(_match(event), (a, "time")) for event in found]
            found = operator.step(part, int(part.time[-1])).events
            out += [(_match(event), (a, "event")) for event in found]
    end = case["end_time"]
    if end is not None:
        last = 2**62 if end == "inf" else (T0 + end) * 1_000_000
        found = operator.step(nothing, last).events
        out += [(_match(event), (None, "time")) for event in found]
    return out


def _match(event: DerivedEvent) -> list[Any]:
    from cep.events.ids import ulid_to_words

    bound: dict[str, list[int]] = {}
    for step, text in zip(event.steps, event.lineage, strict=True):
        name = bytes.fromhex(step[2:]).decode()
        bound.setdefault(name, []).append(ulid_to_words(text)[1])
    return [[name, positions] for name, positions in bound.items()]


def multiset(matches: list[Any]) -> collections.Counter[str]:
    """Return matches as a multiset."""
    return collections.Counter(json.dumps(match) for match in matches)


def load(path: Path) -> list[dict[str, Any]]:
    """Read a file of cases; ``.xz`` is unpacked."""
    data = path.read_bytes()
    text = lzma.decompress(data) if path.suffix == ".xz" else data
    return [json.loads(line) for line in text.splitlines()]


def one_by_one(case: dict[str, Any]) -> list[int]:
    """Return the cuts that make every event a batch of its own."""
    return list(range(1, len(case["events"])))


def verdict(case: dict[str, Any], cuts: list[int] | None = None) -> str:
    """Return "passed", "failed", "not_yet" or "tie_order" (see the module)."""
    if "reason" in case:
        return _refusal(case)
    expected = case["expect"]
    if expected.get("error") or expected["matches"] is None or "arrival" in case:
        return "not_yet"
    try:
        found = multiset(run(case, cuts))
    except NotYet:
        return "not_yet"
    wanted = multiset(expected["matches"])
    if "duplicate_matches" in case["tags"]:
        # Flink lists a match once for each route that binds the same events.
        found, wanted = (collections.Counter(set(x)) for x in (found, wanted))
    if found == wanted:
        return "passed"
    return "tie_order" if "tie_order" in case["tags"] else "failed"


def _refusal(case: dict[str, Any]) -> str:
    try:
        build(case["pattern"])
    except NotYet:
        return "not_yet"
    except RuleError:
        return "passed"
    return "failed"


def main(paths: list[str]) -> int:
    """Print the score of each file; the exit code says whether any case failed."""
    failed_any = False
    for path in map(Path, paths):
        score: collections.Counter[str] = collections.Counter()
        tags: dict[str, collections.Counter[str]] = {}
        failing = []
        for case in load(path):
            try:
                result = verdict(case)
            except Exception as error:
                result = "failed"
                case["id"] += f" ({error!r:.100})"
            score[result] += 1
            if result == "failed":
                failing.append(case["id"])
            for tag in case.get("tags", []):
                tags.setdefault(tag, collections.Counter())[result] += 1
        print(f"{path.name}: {dict(score)}")
        for tag, counts in sorted(tags.items()):
            print(f"  {tag:24} {dict(counts)}")
        for name in failing:
            print(f"  failed: {name}")
        failed_any |= bool(failing)
    return int(failed_any)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
