"""The reference matcher against the recorded cases, and the engine against it."""

import collections
import json
from pathlib import Path

import pytest

from tests import conformance, matcher

DATA = Path(__file__).parents[1] / "data" / "conformance"

# Inside a repeated group, which steps of a repetition its window bounds depends on
# how Flink numbers the states of the group's copies. Ours bounds all of them.
TIMEOUTS_APART = {"gen-00119"}


def load(name):
    return conformance.load(DATA / f"{name}.jsonl.xz")


def texts(items):
    return collections.Counter(json.dumps(item) for item in items)


def disagreements(cases):
    """Return the ids of cases of which the matcher says something else."""
    found = []
    for case in cases:
        result, expected = matcher.match(case), case["expect"]
        agree = result.error == expected.get("error")
        if expected["matches"] is not None and "tie_order" not in case["tags"]:
            recorded = zip(expected["matches"], expected["emitted_at"], strict=True)
            agree &= texts(result.released()) == texts(recorded)
        if expected["timeouts"] is not None and case["id"] not in TIMEOUTS_APART:
            recorded = [(each["match"], each["ts"]) for each in expected["timeouts"]]
            if "tie_order" not in case["tags"]:
                agree &= set(texts(result.timeouts)) == set(texts(recorded))
        agree &= result.live_partials == expected.get(
            "live_partials", result.live_partials
        )
        agree &= result.late == expected.get("late", [])
        if not agree:
            found.append(case["id"])
    return found


def test_matcher_agrees_with_transcribed_cases():
    assert disagreements(load("cases")) == []


def test_matcher_agrees_with_some_generated_cases():
    assert disagreements(load("generated")[::20]) == []


@pytest.mark.slow
def test_matcher_agrees_with_all_generated_cases():
    assert disagreements(load("generated")) == []
