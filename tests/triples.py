"""Random (pattern, stream, batching) triples: the engine against the matcher."""

from __future__ import annotations

import collections
import itertools
import json
import random
from dataclasses import dataclass, field
from typing import Any

from cep.engine.operator import Operator
from cep.rules.rule import Rule
from tests import conformance, matcher
from tests.random_patterns import Maker

Case = dict[str, Any]


@dataclass
class Triple:
    """A pattern with its stream, where it is cut, and at which cuts all restarts."""

    case: Case
    cuts: list[int]
    restarts: list[int]


def triple(maker: Maker) -> Triple:
    case = maker.case()
    cuts = maker.cuts(case["events"])
    return Triple(case, cuts, [cut for cut in cuts if maker.chance(50)])


@dataclass
class Run:
    """What the engine found, each match with when; see `matcher.Found`."""

    released: list[tuple[Any, tuple[int | None, str]]] = field(default_factory=list)
    live_partials: int = 0


def run(rule: Rule, case: Case, cuts: list[int], restarts: list[int]) -> Run:
    """Run a case in batches; at ``restarts`` another operator takes the state over."""
    found, operator = Run(), Operator([rule])
    events = case["events"]

    def step(batch: Any, until_ns: int, at: tuple[int | None, str]) -> None:
        for event in operator.step(batch, until_ns).events:
            found.released.append((conformance._match(event), at))

    for a, b in itertools.pairwise([0, *cuts, len(events)]):
        if a in restarts:
            state = operator.snapshot()
            operator = Operator([rule])
            assert operator.restore(state) == []
        nothing = operator.ingest(conformance.columns([]), 0)
        batch = operator.ingest(conformance.columns(events), 0).take(slice(a, b))
        step(nothing, int(batch.time[0]), (a, "time"))
        step(batch, int(batch.time[-1]), (a, "event"))
    if case["end_time"] is not None:
        end = case["end_time"]
        last = 2**62 if end == "inf" else (conformance.T0 + end) * 1_000_000
        step(operator.ingest(conformance.columns([]), 0), last, (None, "time"))
    found.live_partials = operator.counts()["case"].live_partials
    return found


def texts(items: Any) -> list[str]:
    return sorted(json.dumps(item) for item in items)


def disagreement(given: Triple) -> str | None:
    """Return how the engine and the matcher differ; None if they agree."""
    case = given.case
    if case["pattern"]["after_match_skip"]["throw_on_miss"]:
        raise conformance.NotYet("a skip target that is missing")
    rule = conformance.build(case["pattern"], case.get("key_by"))
    expected = matcher.match(case, departures=True, at_most=300)
    one_by_one = list(range(1, len(case["events"])))
    found = run(rule, case, one_by_one, [])
    ours, theirs = texts(found.released), texts(expected.released())
    if ours != theirs:
        return f"engine {ours}\nmatcher {theirs}"
    if found.live_partials != expected.live_partials:
        return f"live: {found.live_partials} and {expected.live_partials}"
    whole = texts(match for match, _ in found.released)
    for cuts, restarts in (
        (given.cuts, []),
        (given.cuts, given.restarts),
        (one_by_one, one_by_one[::3]),
        ([], []),
    ):
        again = run(rule, case, cuts, restarts)
        other = texts(match for match, _ in again.released)
        if other != whole:
            return f"cut at {cuts}, restarted at {restarts}: {other}, whole {whole}"
        if again.live_partials != found.live_partials:
            return f"cut at {cuts}: {again.live_partials} live, {found.live_partials}"
    return None


def main(count: int, seed: int) -> int:
    """Run ``count`` triples and print each disagreement; return how many."""
    tally: collections.Counter[str] = collections.Counter()
    for number in range(seed, seed + count):
        given = triple(Maker(random.Random(number).randint))
        try:
            why = disagreement(given)
        except matcher.TooManyError:
            tally["too many partial matches"] += 1
            continue
        except conformance.NotYet as reason:
            tally[f"not yet: {reason}"] += 1
            continue
        tally["disagree" if why else "agree"] += 1
        if why:
            print(f"seed {number}: {json.dumps(given.case)}\n{why}")
    print(dict(tally))
    return tally["disagree"]
