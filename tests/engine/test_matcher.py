"""The reference matcher against the recorded cases, and the engine against it."""

import collections
import functools
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from tests import conformance, matcher, triples
from tests.random_patterns import Maker

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


integers = functools.cache(st.integers)


@st.composite
def random_triples(draw):
    return triples.triple(Maker(lambda low, high: draw(integers(low, high))))


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(random_triples())
def test_engine_and_matcher_agree_however_the_stream_is_cut(triple):
    try:
        why = triples.disagreement(triple)
    except matcher.TooManyError:
        reject()
    assert why is None, why


@pytest.mark.slow
def test_engine_and_matcher_agree_on_a_thousand_more(capsys):
    assert triples.main(1000, seed=10_000) == 0, capsys.readouterr().out


def test_matches_of_the_same_events_tie_towards_earlier_steps():
    def element(name, contiguity):
        once = dict.fromkeys(["until", "window_ms"])
        once |= {"min": 1, "max": 1, "optional": True, "greedy": False}
        once["inner"] = "skip_till_next"
        element = {"name": name, "contiguity": contiguity, "where": None}
        return element | {"quantifier": once}

    pattern = {
        "elements": [element("p0", None), element("p1", "next"), element("p2", "next")],
        "within_ms": None,
        "within_kind": None,
        "after_match_skip": {"kind": "to_next", "target": None},
    }
    case = {"pattern": pattern, "events": [{"ts": 0}], "end_time": None}
    assert conformance.run(case).matches == [[["p0", [0]]]]
    assert matcher.match(case, departures=True).matches == [[["p0", [0]]]]
