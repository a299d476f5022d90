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


@pytest.mark.parametrize("seed", [81_010_897, 81_013_020])
def test_engine_agrees_with_the_matcher_where_it_did_not(seed, capsys):
    assert triples.main(1, seed) == 0, capsys.readouterr().out


@pytest.mark.slow
def test_matcher_agrees_with_all_generated_cases():
    assert disagreements(load("generated")) == []


integers = functools.cache(st.integers)


@st.composite
def random_triples(draw):
    return triples.triple(Maker(lambda low, high: draw(integers(low, high))))


@settings(
    max_examples=200,
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
@pytest.mark.timeout(900)
def test_engine_and_matcher_agree_on_a_thousand_more(capsys):
    assert triples.main(1000, seed=10_000) == 0, capsys.readouterr().out


def element(name, contiguity, letter=None, **quantifier):
    made = {"name": name, "contiguity": contiguity, "where": None}
    if letter:
        args = [{"field": "name"}, {"lit": letter}]
        made["where"] = {"op": "eq", "args": args}
    return made | repeated(**quantifier)


def repeated(**quantifier):
    if not quantifier:
        return {}
    plain = {"min": 1, "max": 1, "optional": False, "greedy": False}
    plain |= {"inner": "skip_till_next", "until": None, "window_ms": None}
    return {"quantifier": plain | quantifier}


def case(elements, letters, *, skip="no_skip", **limits):
    within = {"within_ms": None, "within_kind": None} | limits
    strategy = {"kind": skip, "target": None}
    pattern = {"elements": elements, "after_match_skip": strategy} | within
    events = [{"ts": i, "name": letter} for i, letter in enumerate(letters)]
    return {"pattern": pattern, "events": events, "end_time": "inf"}


def agreed(given):
    """Return what the engine finds, held against the matcher."""
    assert triples.disagreement(triples.Triple(given, [1], [1])) is None
    return conformance.run(given)


def test_matches_of_the_same_events_tie_towards_earlier_steps():
    steps = [("p0", None), ("p1", "next"), ("p2", "next")]
    elements = [element(*step, optional=True) for step in steps]
    assert agreed(case(elements, "a", skip="to_next")).matches == [[["p0", [0]]]]


def test_match_that_an_absence_completes_on_two_ways_comes_out_once():
    inner = [
        element("p0", None, "a", optional=True),
        element("p1", "followed_by", "a", max=None),
    ]
    group = {"group": inner, "contiguity": None} | repeated(max=None)
    given = case(
        [group, element("p2", "not_followed_by", "b")],
        "aaa",
        within_ms=3,
        within_kind="first_and_last",
    )
    matches = [json.dumps(match) for match in agreed(given).matches]
    assert len(matches) == len(set(matches)) > 3


def test_match_that_two_events_of_one_time_confirm_comes_out_once():
    inner = [element("p0", None, "a"), element("p1", "followed_by", "b")]
    group = {"group": inner, "contiguity": None} | repeated(max=None)
    given = case([group, element("p2", "not_next", "c")], "abdd")
    for event in given["events"][2:]:
        event["ts"] = 5
    assert agreed(given).matches == [[["p0", [0]], ["p1", [1]]]]


def test_gap_limit_ends_what_no_event_can_move():
    # What p0 takes p1 does not get, and it takes all that p1 could.
    elements = [
        element("p0", None, "a", min=0, max=1, greedy=True),
        element("p1", "followed_by", "a", min=2, max=2),
    ]
    gap = {"within_ms": 20, "within_kind": "previous_and_current"}
    found = agreed(case(elements, "ab", **gap))
    assert sorted(found.timeouts) == [([["p0", [0]]], 20), ([["p1", [0]]], 20)]


def test_gap_limit_ends_what_waits_for_nothing():
    elements = [
        element("p0", None),
        element("p1", "not_next", "a"),
        element("p2", "not_followed_by"),
    ]
    gap = {"within_ms": 4, "within_kind": "previous_and_current"}
    assert agreed(case(elements, "a", **gap)).timeouts == [([["p0", [0]]], 4)]


def test_until_that_asks_the_match_ends_it_though_its_step_does_not_fit():
    begun = {"agg": "count", "field": None, "of": "p0"}
    until = {"op": "gt", "args": [{"field": "ts"}, begun]}
    elements = [
        element("p0", None, "a"),
        element("p1", "followed_by", "b", min=2, max=None, until=until),
    ]
    limits = {"within_ms": 9, "within_kind": "first_and_last"}
    found = agreed(case(elements, "abc", **limits))
    assert found.timeouts == []


def test_until_of_a_group_ends_the_groups_inside_it_too():
    inner = {"group": [element("p0", None)], "contiguity": None} | repeated(max=None)
    until = {"op": "eq", "args": [{"field": "name"}, {"lit": "b"}]}
    outer = {"group": [inner], "contiguity": None} | repeated(max=None, until=until)
    found = agreed(case([outer], "aba"))
    assert sorted(found.matches) == [[["p0", [0]]], [["p0", [2]]]]


def test_group_is_repeated_by_what_ends_the_greedy_step_in_it():
    """Greed keeps from the next step what fits, but not what its until is."""
    until = {"op": "eq", "args": [{"field": "name"}, {"lit": "c"}]}
    greedy = {"max": None, "optional": True, "greedy": True, "until": until}
    inside = [element("p0", None), element("p1", "next", **greedy)]
    group = {"group": inside, "contiguity": None} | repeated(max=None)
    assert [["p0", [0, 1, 2, 3]]] in agreed(case([group], "accc")).matches


def test_absence_whose_time_has_passed_is_not_waited_for():
    gap = {"within_kind": "previous_and_current", "within_ms": 1}
    elements = [
        element("p0", None, "a", max=None),
        element("p1", "not_followed_by", "b") | gap,
    ]
    assert agreed(case(elements, "ac")).matches == []
    gap["within_ms"] = 2
    elements[1] |= gap
    assert agreed(case(elements, "ac")).matches == [[["p0", [0]]]]


def test_optional_group_that_is_left_out_keeps_the_absence_before_it():
    group = {"group": [element("p2", None, "c")], "contiguity": "followed_by"}
    elements = [
        element("p0", None, "a"),
        element("p1", "not_followed_by", "b"),
        group | repeated(max=None, optional=True),
        element("p3", "followed_by", "d"),
    ]
    assert agreed(case(elements, "abd")).matches == []
    found = agreed(case(elements, "acbd"))
    assert found.matches == [[["p0", [0]], ["p2", [1]], ["p3", [3]]]]


def test_absence_after_a_repetition_holds_between_the_repetitions():
    elements = [
        element("p0", None, "a", min=2, max=2),
        element("p1", "not_followed_by", "b"),
        element("p2", "followed_by", "c"),
    ]
    assert agreed(case(elements, "abac")).matches == []
    assert len(agreed(case(elements, "axac")).matches) == 1


def test_limits_run_out_in_order_of_time_however_far_it_moves():
    """What a match drops that was held until 5 no longer runs out at 6."""
    gap = {"within_kind": "previous_and_current"}
    twice = {"min": 2, "max": 2, "inner": "any", "optional": True}
    elements = [
        element("p0", None, **twice) | gap | {"within_ms": 5},
        element("p1", "next", "b") | gap | {"within_ms": 2},
    ]
    found = agreed(case(elements, "ab", skip="past_last_event"))
    assert found.matches == [[["p1", [1]]]]
    assert found.timeouts == [([["p0", [0, 1]]], 3), ([["p0", [0]]], 5)]


def test_absence_beyond_a_limit_that_has_passed_stops_nothing():
    gap = {"within_kind": "previous_and_current", "within_ms": 1}
    elements = [
        element("p0", None, "a", min=1, max=3),
        element("p1", "not_next", "a") | gap,
        element("p2", "not_followed_by"),
    ]
    limits = {"within_ms": 13, "within_kind": "first_and_last"}
    assert agreed(case(elements, "ab", **limits)).timeouts == [([["p0", [0]]], 13)]
