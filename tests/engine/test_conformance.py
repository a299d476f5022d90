"""The recorded cases: what Apache Flink's CEP library makes of them, we make of them.

This file is the record of how far that goes: the scores, and every case whose result
is another one, with the reason.
"""

import collections
import json
import random
from pathlib import Path

import numpy as np
import pytest

from cep.engine.kernels import nfa
from cep.engine.operator import Operator
from cep.errors import RuleError
from tests import conformance, matcher

DATA = Path(__file__).parents[1] / "data" / "conformance"

SCORES = {
    "cases": {"passed": 113, "departure": 11},
    "generated": {"passed": 1323, "departure": 126, "tie_order": 39},
    "invalid": {"passed": 24},
}


def generated(numbers):
    return {f"gen-{int(number):05}" for number in numbers.split()}


# A gap limit of a pattern bounds every step of ours; in the library it bounds the step
# of the last element, and that only if it is single.
EVERY_STEP = generated(
    """
    76 86 137 208 227 251 263 297 340 345 365 422 476 494 495 506 519 626 640 697
    699 718 726 732 831 844 864 877 901 916 919 971 997 1043 1068 1074 1094 1102
    1108 1235 1306 1396 1422 1506 1552 1619 1636 1656 1669 1770 1845 1866 1909 1949
    1960 2031 2066 2069 2153 2166 2171 2201 2206 2240 2257 2266 2283 2296 2299 2399
    2402 2456 2476 2572 2573 2579 2686 2693 2716 2761 2776 2817 2926 2989 3006 3044
    3074 3125 3139 3153 3193 3246 3269 3295 3297 3336 3351 3366 3427 3448 3461 3469
    3474 3475
    """
) | {
    "NFAITCase.testSimplePatternWithTimeoutHandlingWithinPreviousAndCurrent",
    "CEPITCase.testTimeoutHandlingWithinPreviousAndCurrent",
}
# The time limit of a repetition bounds every repetition of ours; in the library it
# bounds the first few, and in their place whatever else could follow there.
EVERY_REPETITION = generated(
    """
    31 119 246 279 686 996 1069 1111 1356 1411 1461 2396 2446 2536 2936 3569
    """
) | {
    "TimesOrMoreITCase.testTimesOrMore[gap3]",
    "TimesOrMoreITCase.testTimesOrMoreStrictOptional[gap3]",
    "TimesOrMoreITCase.testTimesOrMoreNonStrictOptional2[gap3]",
    "TimesOrMoreITCase.testTimesOrMoreNonStrictOptional3[gap3]",
    "TimesRangeITCase.testTimesRangeFromZero[gap3]",
    "TimesRangeITCase.testTimesRangeStrict[gap3]",
    "TimesRangeITCase.testTimesRangeStrictOptional[gap3]",
    "TimesRangeITCase.testTimesRangeNonStrictOptional2[gap3]",
    "TimesRangeITCase.testTimesRangeNotStrictWithFollowedByAny[gap3]",
}
# So does the gap limit of a repeated element or a group, which there bounds nothing.
REPEATED_ELEMENT = generated("158 456 691 1783 1895 2565")
DEPARTURES = EVERY_STEP | EVERY_REPETITION | REPEATED_ELEMENT

# Matches that tie under a skip strategy, where ours is the earliest-started, then
# the longest, then the one with the lowest entry ids, and Flink's an accident.
TIES = generated(
    """
    17 36 63 421 427 576 631 641 668 828 937 1339 1386 1577 1631 1714 1758 1967 1997
    2013 2017 2039 2094 2125 2196 2218 2267 2269 2272 2291 2378 2621 2778 2959 3005
    3367 3387 3417 3439
    """
)

LONG = (pytest.mark.slow, pytest.mark.timeout(900))
FILES = ["cases", pytest.param("generated", marks=LONG)]


def load(name):
    return conformance.load(DATA / f"{name}.jsonl.xz")


@pytest.mark.parametrize("name", [*FILES, "invalid"])
def test_cases_come_out_as_recorded(name):
    verdicts = {case["id"]: conformance.verdict(case)[0] for case in load(name)}
    found = collections.defaultdict(set)
    for case, verdict in verdicts.items():
        found[verdict].add(case)
    assert found["failed"] == set()
    assert {k: len(v) for k, v in found.items() if v} == SCORES[name]
    assert found["departure"] == DEPARTURES & verdicts.keys()
    assert found["tie_order"] == TIES & verdicts.keys()


@pytest.mark.parametrize("name", FILES)
def test_matches_are_released_at_the_recorded_event_or_time(name):
    others = DEPARTURES | TIES
    assert [
        case["id"]
        for case in load(name)
        if case["id"] not in others and "duplicate_matches" not in case["tags"]
        if conformance.released_as_recorded(case) is False
    ] == []


@pytest.mark.parametrize("name", FILES)
def test_matches_come_by_as_many_routes_as_recorded(name):
    """Also those that are listed several times; a derived event is there once."""
    for case in load(name):
        if case["id"] in DEPARTURES | TIES or case["expect"]["matches"] is None:
            continue
        assert conformance.as_multiset(case), case["id"]


@pytest.mark.parametrize("name", FILES)
def test_all_comes_out_as_of_the_slow_matcher(name):
    """Which has our departures and our order of ties, and none of our automaton."""
    for case in load(name):
        try:
            expected = matcher.match(case, departures=True, at_most=3000)
        except matcher.TooManyError:
            continue
        found = conformance.run(case, together=True)
        assert found.error == (expected.error or ""), case["id"]
        if found.error:
            continue
        for ours, theirs in (
            (found.matches, expected.matches),
            (
                set(map(json.dumps, found.timeouts)),
                set(map(json.dumps, expected.timeouts)),
            ),
        ):
            assert conformance.multiset(ours) == conformance.multiset(theirs), case[
                "id"
            ]


def shown(run):
    """What must be the same however the input comes in."""
    matches, timeouts = map(conformance.multiset, (run.matches, run.timeouts))
    return matches, timeouts, run.live, run.late, run.error


def cuts_of(case):
    """One batch; and a few cuts at random."""
    n = len(case["events"])
    yield []
    yield sorted(random.Random(case["id"]).sample(range(n), min(n, 3)))


@pytest.mark.parametrize("name", FILES)
def test_results_do_not_depend_on_the_batches(name):
    for case in load(name):
        expected = shown(conformance.run(case))
        for cuts in cuts_of(case):
            assert shown(conformance.run(case, cuts)) == expected, (case["id"], cuts)


@pytest.mark.parametrize("name", FILES)
def test_results_do_not_depend_on_restarts(name):
    """A new operator goes on from a snapshot, at some events or at every one."""
    for place, case in enumerate(load(name)):
        expected = shown(conformance.run(case))
        cuts = None if place % 20 == 0 else [*cuts_of(case)][1]
        again = conformance.run(case, cuts, restart=True)
        assert shown(again) == expected, (case["id"], cuts)


def in_use(arena):
    """Distinct partial matches and nodes that the keys' lists reach."""
    partials, nodes = set(), set()
    for head in (nfa.K_HEAD, nfa.K_HELD):
        for p in arena.keys[:, head].tolist():
            while p >= 0:
                partials.add(p)
                node = int(arena.partials[p, nfa.P_NODE])
                while node >= 0 and node not in nodes:
                    nodes.add(node)
                    node = int(arena.nodes[node, nfa.PREV])
                p = int(arena.partials[p, nfa.P_NEXT])
    return len(partials), len(nodes)


@pytest.mark.parametrize("name", FILES)
def test_no_partial_match_and_no_binding_is_leaked(name):
    for case in load(name):
        rule, event_type = conformance.build(case), conformance.declare(case)
        operator = Operator([rule])
        n = len(case["events"])
        columns = conformance.columns(case, list(range(n)), event_type)
        batch = operator.ingest(columns, 0)
        operator.step(batch, int(batch.time[-1]))
        arena = operator._rules[0].arena
        c = arena.counters
        held = int(arena.keys[:, nfa.K_HELD_COUNT].sum())
        partials = int(c[nfa.C_PARTIAL_BUMP] - c[nfa.C_PARTIAL_FREED])
        nodes = int(c[nfa.C_NODE_BUMP] - c[nfa.C_NODE_FREED])
        assert (partials, nodes) == in_use(arena), case["id"]
        assert partials == operator.counts()["case"].live_partials + held
        if rule.pattern.within_ns is not None and not c[nfa.C_TRIPPED]:
            operator.step(batch.take(slice(0, 0)), 2**62)
            assert operator.counts()["case"].live_partials == 0, case["id"]
            assert np.all(arena.keys[:, nfa.K_HELD_COUNT] == 0), case["id"]


# The adapter -----------------------------------------------------------------------


def simple(**changes):
    """A case of two steps: a, then b."""

    def named(name, **more):
        where = {"op": "eq", "args": [{"field": "name"}, {"lit": name}]}
        return {"name": name, "contiguity": None, "where": where} | more

    elements = [named("a"), named("b", contiguity="followed_by")]
    pattern = {
        "elements": elements,
        "within_ms": None,
        "within_kind": None,
        "after_match_skip": None,
    }
    return {
        "id": "simple",
        "pattern": pattern | changes.pop("pattern", {}),
        "events": [{"ts": i, "name": x} for i, x in enumerate("aab")],
        "end_time": None,
        "expect": {"matches": [[["a", [0]], ["b", [2]]], [["a", [1]], ["b", [2]]]]},
    } | changes


def matches(case):
    return sorted(conformance.run(case).matches)


def test_a_case_needs_no_more_than_the_format_says():
    assert conformance.verdict(simple()) == ("passed", [])


def test_late_events_are_those_at_or_before_the_watermark():
    arrival = [{"event": 1}, {"watermark": 1}, {"event": 0}, {"event": 2}]
    case = simple(arrival=arrival, end_time="inf")
    found = conformance.run(case)
    assert found.late == [0]
    assert found.matches == [[["a", [1]], ["b", [2]]]]


def test_events_wait_for_a_watermark():
    arrival = [{"event": 2}, {"event": 0}, {"watermark": 1}, {"event": 1}]
    found = conformance.run(simple(arrival=arrival))
    assert (found.matches, found.late, found.live) == ([], [1], 1)
    arrival[3:] = [{"watermark": 2}]
    found = conformance.run(simple(arrival=arrival))
    assert found.matches == [[["a", [0]], ["b", [2]]]]
    assert found.emitted_at == [(2, "event")]


def test_watermarks_may_be_the_first_and_the_last_there_are():
    arrival = [{"watermark": -(2**63)}, *({"event": i} for i in range(3))]
    case = simple(arrival=[*arrival, {"watermark": 2**63 - 1}])
    assert conformance.verdict(case) == ("passed", [])


@pytest.mark.parametrize(
    ("values", "key", "found"),
    [
        ([1, 2, 2], "k", [[["a", [1]], ["b", [2]]]]),
        ([1, "1", "1"], "k", [[["a", [1]], ["b", [2]]]]),
        ([None, 2, None], "k", [[["a", [0]], ["b", [2]]]]),
        ([True, False, True], "k", [[["a", [0]], ["b", [2]]]]),
        ([1, 2, 3], None, [[["a", [0]], ["b", [2]]], [["a", [1]], ["b", [2]]]]),
    ],
)
def test_keys_may_be_of_any_kind(values, key, found):
    case = simple(key_by=key)
    for event, value in zip(case["events"], values, strict=True):
        event["k"] = value
    assert matches(case) == found


@pytest.mark.parametrize(
    ("where", "found"),
    [
        # Fields of any name, also of one that no event has, or that we reserve.
        ({"op": "gt", "args": [{"field": "not a name!"}, {"lit": 0}]}, []),
        ({"op": "gt", "args": [{"field": "event_time"}, {"lit": 6}]}, ["b"]),
        ({"op": "eq", "args": [{"field": "stream"}, {"lit": "s"}]}, ["b"]),
        # Fields of numbers and of strings.
        ({"op": "eq", "args": [{"field": "mixed"}, {"lit": 1}]}, ["b"]),
        ({"op": "eq", "args": [{"field": "mixed"}, {"lit": "1"}]}, []),
        ({"op": "eq", "args": [{"field": "mixed"}, {"field": "one"}]}, ["b"]),
        ({"op": "ne", "args": [{"field": "mixed"}, {"field": "name"}]}, []),
        ({"op": "eq", "args": [{"field": "name"}, {"field": "name2"}]}, ["b"]),
        ({"op": "contains", "args": [{"field": "mixed"}, {"lit": "1"}]}, []),
        # Absent operands and truth values.
        ({"op": "ne", "args": [{"field": "nothing"}, {"lit": 1}]}, []),
        (
            {
                "op": "not",
                "args": [{"op": "ne", "args": [{"field": "nothing"}, {"lit": 1}]}],
            },
            ["b"],
        ),
        ({"op": "eq", "args": [{"field": "flag"}, {"lit": True}]}, ["b"]),
        ({"field": "flag"}, ["b"]),
        ({"op": "or", "args": [{"lit": False}, {"lit": True}]}, ["b"]),
        ({"true": True}, ["b"]),
        (None, ["b"]),
        # The event's time.
        ({"op": "eq", "args": [{"field": "ts"}, {"lit": 2}]}, ["b"]),
        # What has been bound: nothing of a step that comes later.
        (
            {
                "op": "eq",
                "args": [{"agg": "count", "field": None, "of": "b"}, {"lit": 0}],
            },
            ["b"],
        ),
        (
            {
                "op": "eq",
                "args": [
                    {"agg": "last", "field": "name", "of": "a"},
                    {"lit": "a"},
                ],
            },
            ["b"],
        ),
        (
            {
                "op": "eq",
                "args": [{"agg": "sum", "field": "ts", "of": "a"}, {"lit": 0}],
            },
            ["b"],
        ),
    ],
    ids=lambda value: json.dumps(value)[:60],
)
def test_conditions_of_all_kinds(where, found):
    case = simple()
    case["pattern"]["elements"][1]["where"] = where
    case["events"] = [
        {"ts": 0, "name": "a"},
        {
            "ts": 2,
            "name": "b",
            "name2": "b",
            "event_time": 7,
            "stream": "s",
            "mixed": 1,
            "one": 1,
            "flag": True,
        },
        {"ts": 3, "name": "x", "mixed": "x"},
    ]
    if where is None or where.get("true"):
        case["events"].pop()
    assert [m[1][0] for m in matches(case)] == found


def test_a_window_of_nothing_is_none():
    case = simple(pattern={"within_ms": 0, "within_kind": "first_and_last"})
    assert len(matches(case)) == 2
    assert conformance.run(case).timeouts == []


def test_the_end_of_time_ends_all_that_runs_out():
    case = simple(
        pattern={"within_ms": 5, "within_kind": "first_and_last"}, end_time="inf"
    )
    case["events"].pop()
    assert conformance.run(case).timeouts == [([["a", [0]]], 5), ([["a", [1]]], 6)]
    assert conformance.run(case | {"end_time": 5}).live == 1


def q(least=1, most=1, **more):
    once = {"until": None, "window_ms": None, "inner": "skip_till_next"}
    flags = {"optional": False, "greedy": False}
    return {"quantifier": {"min": least, "max": most} | once | flags | more}


def el(name, contiguity=None, **more):
    where = {"op": "eq", "args": [{"field": "name"}, {"lit": name}]}
    return {"name": name, "contiguity": contiguity, "where": where} | more


def group(*elements, contiguity=None, **more):
    return {"group": list(elements), "contiguity": contiguity} | more


A, B = el("a"), el("b", "followed_by")
REFUSED = {
    "duplicate_name": (
        [A, el("a", "followed_by")],
        {},
        "two steps are named 'a'. Give each step a name of its own",
    ),
    "duplicate_name in groups": (
        [group(A, B), group(el("b"), contiguity="next")],
        {},
        "two steps are named 'b'. Give each step a name of its own",
    ),
    "reserved_name": (
        [A, el("$endState$", "next")],
        {},
        "a step's name must be a Python identifier. Use letters, digits",
    ),
    "ends_with_not_followed_by_without_window": (
        [A, el("b", "not_followed_by")],
        {},
        (
            "an absence in last place needs a time after which it is certain. Add "
            '.within("30s") to the sequence'
        ),
    ),
    "until_needs_a_loop": (
        [A, B | q(1, 3, until=A["where"])],
        {},
        "until needs a repetition without an upper bound. Put .one_or_more()",
    ),
    "quantifier_on_negation": (
        [A, el("b", "not_next", **q(2, 2)), el("c", "next")],
        {},
        "what must not come cannot be repeated or optional. Remove .times(2)",
    ),
    "optional_negation": (
        [A, el("b", "not_followed_by", **q(optional=True)), el("c", "next")],
        {},
        "what must not come cannot be repeated or optional. Remove .optional()",
    ),
    "negation_after_optional": (
        [A | q(optional=True), el("b", "not_next"), el("c", "next")],
        {},
        "a negation cannot follow the optional step 'a'. Put a step that must come",
    ),
    "optional_after_greedy": (
        [A | q(1, None, greedy=True), B | q(optional=True), el("c", "next")],
        {},
        "what is optional cannot follow the greedy step 'a'. Remove .greedy()",
    ),
    "greedy_group": (
        [group(A, B, **q(1, None, greedy=True)), el("c", "next")],
        {},
        "a group cannot be greedy. Make a step in it greedy",
    ),
    "greedy_with_combinations": (
        [A | q(1, None, greedy=True, inner="any"), B],
        {},
        "greedy and any_combination contradict each other. Remove one of them",
    ),
    "greedy_single": (
        [A | q(greedy=True), B],
        {},
        "greedy needs a repetition. Put .times, .between, .at_least or .one_or_more",
    ),
    "combinations_on_single": (
        [A | q(inner="any"), B],
        {},
        "any_combination needs a repetition. Put .times, .between, .at_least",
    ),
    "consecutive_on_single": (
        [A | q(inner="strict"), B],
        {},
        "consecutive needs a repetition. Put .times, .between, .at_least",
    ),
    "bad_times": (
        [A | q(3, 2), B],
        {},
        "cannot be taken between 3 and 2 times. Use 1 <= least <= most",
    ),
    "bad_times of none": (
        [A | q(0, 0), B],
        {},
        "cannot be taken 0 times. Leave it out, write .optional()",
    ),
    "bad_times without bound": (
        [A | q(0, None), B],
        {},
        "at_least(0) asks for nothing. Write .one_or_more().optional()",
    ),
    "unknown_skip_target": (
        [A, B],
        {"after_match_skip": {"kind": "to_first", "target": "bb"}},
        "there is no step named 'bb'. Did you mean 'b'?",
    ),
    "gap_window_larger_than_window": (
        [A, B | {"within_ms": 5, "within_kind": "previous_and_current"}],
        {"within_ms": 4, "within_kind": "first_and_last"},
        (
            "5ms between two events is longer than the 4ms of a whole match. Make "
            ".within_previous shorter than 4ms"
        ),
    ),
    "gap_window_larger_than_window of a repetition": (
        [A, B | q(2, 3, window_ms=5)],
        {"within_ms": 4, "within_kind": "first_and_last"},
        (
            "5ms between two events is longer than the 4ms of a whole match. Make "
            ".within_previous shorter than 4ms"
        ),
    ),
    "condition_on_group": (
        [group(A, B, where=A["where"]), el("c", "next")],
        {},
        ".where of a group is not possible. Put .where on the whole sequence",
    ),
    "a looping group that may be empty": (
        [group(A | q(optional=True), B | q(optional=True), **q(1, None))],
        {},
        "could match nothing for ever. Make one of the group's steps required",
    ),
}
REASONS = """duplicate_name, reserved_name, ends_with_not_followed_by_without_window,
until_needs_a_loop, quantifier_on_negation, optional_negation, negation_after_optional,
optional_after_greedy, greedy_group, greedy_with_combinations, greedy_single,
combinations_on_single, consecutive_on_single, bad_times, unknown_skip_target,
gap_window_larger_than_window, condition_on_group""".replace(",", "").split()


def test_every_reason_to_refuse_a_pattern_is_tried():
    assert {name.split()[0] for name in REFUSED} >= set(REASONS)
    assert {case["reason"] for case in load("invalid")} <= set(REASONS)


@pytest.mark.parametrize("reason", REFUSED)
def test_a_refusal_says_why_and_what_to_do(reason):
    elements, more, text = REFUSED[reason]
    case = simple(pattern={"elements": elements} | more)
    with pytest.raises(RuleError) as caught:
        conformance.build(case)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    "pattern",
    [
        {"elements": [A | q(1, None, greedy=True), el("n", "not_next"), B]},
        {"elements": [A, el("b", "not_next")]},
        {"elements": [A, B], "within_ms": 0, "within_kind": "first_and_last"},
        {"elements": [group(A, el("n", "not_followed_by")), B]},
        {"elements": [group(A, el("n", "not_next")), B]},
        {
            "elements": [
                group(A, B | {"within_ms": 1, "within_kind": "first_and_last"}),
                el("c", "next"),
            ],
        },
        {
            "elements": [A, el("n", "not_followed_by"), el("m", "not_followed_by")],
            "within_ms": 3,
            "within_kind": "first_and_last",
        },
    ],
    ids=lambda value: json.dumps(value)[:60],
)
def test_what_flink_accepts_is_run(pattern):
    conformance.run(simple(pattern=pattern))


def test_command_line_reports_and_exits_with_1_on_a_failure(tmp_path, capsys):
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    case = simple(tags=["followed_by"])
    good.write_text(json.dumps(case) + "\n\n")
    case["expect"]["matches"].append([["nothing", [0]]])
    other = simple(id="broken", pattern={"elements": []})
    bad.write_text(json.dumps(case) + "\n" + json.dumps(other) + "\n")
    assert conformance.main([str(good)]) == 0
    assert "good.jsonl: {'passed': 1}" in capsys.readouterr().out
    assert conformance.main([str(good), str(bad)]) == 1
    out = capsys.readouterr().out
    assert "bad.jsonl: {'failed': 2}" in out
    assert "followed_by                          {'failed': 1}" in out
    assert "failed: simple (matches)" in out
    assert "failed: broken" in out


def test_command_line_takes_other_ties_and_departures_without_failing(tmp_path, capsys):
    """The departure is one only as the library's limits give what is recorded."""
    gap = {"within_ms": 2, "within_kind": "previous_and_current"}
    late = simple(pattern=gap, id="late", tags=["within:previous_and_current"])
    late["pattern"]["elements"].append(
        {"name": "c", "contiguity": "followed_by", "where": None}
    )
    late["events"] = [{"ts": t, "name": x} for t, x in [(0, "a"), (9, "b"), (10, "c")]]
    late["expect"] = {"matches": [[["a", [0]], ["b", [1]], ["c", [2]]]]}
    tie = simple(id="tie", tags=["tie_order"], expect={"matches": []})
    path = tmp_path / "file.jsonl"
    path.write_text(json.dumps(late) + "\n" + json.dumps(tie) + "\n")
    assert conformance.main([str(path)]) == 0
    out = capsys.readouterr().out
    assert "departure: late (matches)" in out
    assert "tie_order: tie (matches)" in out
    late["expect"]["matches"] *= 2
    assert conformance.verdict(late) == ("failed", ["matches"])
