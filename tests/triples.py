"""Random (pattern, stream, batching) triples: the engine against the matcher."""

from __future__ import annotations

import collections
import json
import random
from dataclasses import dataclass
from typing import Any

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


def texts(items: Any) -> list[str]:
    return sorted(json.dumps(item) for item in items)


def disagreement(given: Triple) -> str | None:
    """Return how the engine and the matcher differ; None if they agree."""
    case = given.case
    expected = matcher.match(case, departures=True, at_most=300)
    found = conformance.run(case, together=True)
    released = zip(found.matches, found.emitted_at, strict=True)
    ours, theirs = texts(released), texts(expected.released())
    if ours != theirs:
        return f"engine {ours}\nmatcher {theirs}"
    if found.error != (expected.error or ""):
        return f"error: {found.error} and {expected.error}"
    for cuts, restart in (
        (given.cuts, False),
        (given.restarts, True),
        (None, True),
        ([], False),
    ):
        again = conformance.run(case, cuts, restart=restart, together=True)
        if (texts(again.matches), again.live, again.error) != (
            texts(found.matches),
            found.live,
            found.error,
        ):
            return f"cut at {cuts}, restarted {restart}: {again}, whole {found}"
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
        tally["disagree" if why else "agree"] += 1
        if why:
            print(f"seed {number}: {json.dumps(given.case)}\n{why}")
    print(dict(tally))
    return tally["disagree"]
