"""Random (pattern, stream, batching) triples: the engine against the matcher."""

from __future__ import annotations

import collections
import json
import random
from dataclasses import dataclass
from typing import Any

from cep.errors import RuleError
from tests import conformance, matcher
from tests.random_patterns import Maker

Case = dict[str, Any]


@dataclass
class Triple:
    """A pattern with its stream, where that is cut, and where a run restarts."""

    case: Case
    cuts: list[int]
    restarts: list[int]


def triple(maker: Maker) -> Triple:
    case = maker.case()
    return Triple(case, maker.cuts(case["events"]), maker.cuts(case["events"]))


def texts(items: Any) -> list[str]:
    return sorted(json.dumps(item) for item in items)


def differing(ours: Any, theirs: Any) -> str:
    left, right = (collections.Counter(texts(items)) for items in (ours, theirs))
    return f"{dict(left - right)} instead of {dict(right - left)}"


def disagreement(given: Triple) -> str | None:
    """Return how the engine differs from the matcher, or from itself; None if not.

    Time-outs are compared as sets: the engine names one for each way to it.
    """
    case = given.case
    expected = matcher.match(case, departures=True, at_most=300)
    found = conformance.run(case, together=True)
    released = list(zip(found.matches, found.emitted_at, strict=True))
    if texts(released) != texts(expected.released()):
        return f"matches: {differing(released, expected.released())}"
    if found.error != (expected.error or ""):
        return f"error: {found.error} instead of {expected.error}"
    if set(texts(found.timeouts)) != set(texts(expected.timeouts)):
        return f"timeouts: {differing(found.timeouts, expected.timeouts)}"
    live = expected.live_partials + expected.held
    if not found.error and found.live != live:
        return f"live: {found.live} instead of {live}"
    for how, cuts, restart in (
        ("in batches", given.cuts, False),
        ("restarted", given.restarts, True),
        ("in one batch", [], False),
    ):
        again = conformance.run(case, cuts, restart=restart, together=True)
        for part in ("matches", "timeouts"):
            ours, before = getattr(again, part), getattr(found, part)
            if texts(ours) != texts(before):
                return f"{part} {how}: {differing(ours, before)}"
        if (again.error, again.live) != (found.error, found.live):
            return f"{how}: {again.error} {again.live}, {found.error} {found.live}"
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
        except RuleError as error:
            tally[f"refused: {error}"] += 1
            continue
        tally["disagree" if why else "agree"] += 1
        if why:
            print(f"seed {number}: {json.dumps(given.case)}\n{why}")
    print(dict(tally))
    return tally["disagree"]
