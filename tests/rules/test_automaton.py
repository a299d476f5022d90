"""Patterns by hand: what the recorded cases leave open, limits, outputs.

A stream is a word, a letter an event: ``go(seq(a).then(b), "axb")``. Times are the
places in the word, a match the places that it bound, and when it came out.
"""

import random

import numpy as np
import pytest

from cep.clock import duration_ns
from cep.engine.operator import Operator
from cep.errors import OutOfOrderError, RuleError
from cep.events.ids import words_to_ulid
from cep.rules import Limits, avg, build_rule, count, e, emit, last, m, on, seq
from tests import oracles, streams


def letter(name):
    return on("test.tick", name=name).where(e.text == name)


a, b, c, d = map(letter, "abcd")


def word(text, times=None, **more):
    times = times or range(len(text))
    return [
        {"t": t, "text": x, "x": float(i), "id": i, **more}
        for i, (t, x) in enumerate(zip(times, text, strict=True))
    ]


def places(event):
    """The rows that a match bound, by their event ids."""
    ids = {words_to_ulid(0, i): i for i in range(100)}
    return "".join(f"{ids[x]:x}" for x in event.lineage)


def go(pattern, rows, cuts=(), emission=None, **options):
    rows = word(rows) if isinstance(rows, str) else rows
    made = build_rule("r", pattern, [emission or emit()], **options)
    return [
        f"{places(event)}@{(event.time_ns - streams.ns(0)) // 1_000_000}"
        for event in streams.run(made, rows, cuts=cuts)
    ]


# Sequences -----------------------------------------------------------------------


def test_a_repetition_of_the_whole_sequence_is_that_of_a_group():
    assert go(seq(a).then(b).times(2), "abxab") == ["0134@4"]
    assert go(seq(a).next(b).one_or_more().within("9ms"), "abab") == [
        "01@1",
        "0123@3",
        "23@3",
    ]
    assert go(seq(seq(a).then(b).times(2)).then(c), "ababc") == ["01234@4"]
    assert go(seq(a).then(b).times(2).within("3ms"), "abab") == []
    assert go(seq(a).then(b).times(2).where(last(m.b).x == 3), "abab") == ["0123@3"]


@pytest.mark.parametrize(("within", "found"), [("3ms", []), ("4ms", ["01@3"])])
def test_within_means_less_than_that_from_first_to_last(within, found):
    assert go(seq(a).then(b).within(within), word("ab", [0, 3])) == found


def test_a_step_of_a_repeated_group_may_look_at_the_time_around_before():
    """Also at a step that follows it in the group."""
    rising = a.where((count(m.b) == 0) | (e.x == last(m.b).x + 1))
    assert go(seq(seq(rising).next(b).times(2)), "abab") == ["0123@3"]
    assert go(seq(seq(rising).then(b).times(2)), "abxab") == []


def test_a_repeated_group_ends_at_an_event_that_looks_at_what_it_bound():
    group = seq(a).then(b).one_or_more().until(e.x > last(m.b).x + 2)
    assert go(seq(group), "abab") == ["01@1", "0123@3", "23@3"]
    assert go(seq(group), "abxab") == ["01@1", "34@4"]


def test_an_absence_comes_out_when_its_time_has_run_out_and_not_before():
    pattern = seq(a).not_then(b).within("5ms")
    assert go(pattern, "a") == ["0@5"]
    assert go(pattern, word("ab", [0, 4])) == []
    # At the very end of the window it is over already.
    assert go(pattern, word("ab", [0, 5])) == ["0@5"]
    assert go(pattern, word("ax", [0, 90])) == ["0@5"]


def test_an_absence_fires_on_the_watermark_and_not_on_the_keys_next_event():
    made = build_rule("r", seq(a).not_then(b).within("5ms"), [emit()], key="key")
    rows = [{"t": 0, "text": "a", "key": "k"}, {"t": 50, "text": "x", "key": "other"}]
    operator = Operator([made])
    batch = streams.ordered(operator, rows)
    nothing = batch.take(slice(0, 0))
    assert operator.step(batch.take(slice(0, 1)), streams.ns(4)).events == []
    assert operator.step(nothing, streams.ns(5) - 1).events == []
    (event,) = operator.step(nothing, streams.ns(5)).events
    assert event.time_ns == streams.ns(5)
    assert operator.step(batch.take(slice(1, 2)), streams.ns(99)).events == []


def test_events_that_come_out_by_time_keep_the_order_of_time():
    """Also of one rule, between keys, whichever batch they come out of."""
    made = build_rule(
        "r",
        seq(a).not_then(b).within("5ms"),
        [emit()],
        key="key",
    )
    rows = [
        {"t": 0, "text": "a", "key": "one"},
        {"t": 1, "text": "a", "key": "two"},
        {"t": 2, "text": "a", "key": "three"},
        {"t": 90, "text": "a", "key": "two"},
    ]
    found = streams.run(made, rows)
    assert [(x.key, x.time_ns - streams.ns(0)) for x in found] == [
        ("one", 5_000_000),
        ("two", 6_000_000),
        ("three", 7_000_000),
        ("two", 95_000_000),
    ]


def test_absences_may_test_and_emit_strings_that_came_with_their_match():
    made = build_rule(
        "r",
        seq(on("test.tick", name="asked").where(e.text.starts_with("q")))
        .not_then(on("test.tack", name="done"))
        .within("5ms")
        .where(m.asked.key.ends_with("9")),
        [emit(of=m.asked.key, even=m.asked.text.contains("2"))],
    )
    rows = [{"t": 10 * i, "text": f"q{i}", "key": f"k{i}"} for i in range(200)]
    for cuts in ([], streams.every(200, 7)):
        found = streams.run(made, rows, cuts=cuts)
        assert [x.data["values"] for x in found] == [
            {"of": f"k{i}", "even": "2" in str(i)} for i in range(9, 200, 10)
        ]


def test_a_strict_negation_in_last_place_is_confirmed_by_any_event_of_the_rule():
    """`e` is that event, of whichever of the rule's types."""
    pattern = seq(on("test.tick", name="a")).not_next(
        on("test.tock", name="b").where(e.only_tock > 0)
    )
    made = build_rule("r", pattern, [emit(x=e.x, type=e.type)])
    rows = [{"t": 0, "x": 1.0}, {"t": 1, "x": 2.0}]
    rows.append({"t": 2, "type": "test.tock", "only_tock": -1.0, "x": 3.0})
    found = [x.data["values"] for x in streams.run(made, rows)]
    assert found == [{"x": 2.0, "type": "test.tick"}, {"x": 3.0, "type": "test.tock"}]
    with pytest.raises(RuleError, match=r"test.tick has no field 'only_tock'"):
        build_rule("r", pattern, [emit(x=e.only_tock)])


def test_several_routes_to_one_binding_give_one_output():
    """An optional group in a repetition reaches the same events on several routes."""
    inner = seq(a.optional()).then(b.optional()).then(c)
    pattern = seq(inner.between(1, 3)).then_any(d)
    rows = word("abcabcabcd")
    found = go(pattern, rows)
    assert len(found) > 20
    assert len(set(found)) == len(found)


def test_a_step_of_two_types_takes_both_and_others_are_not_there_for_the_rule():
    either = on("test.tick", "test.tack", name="s")
    other = on("test.tick", "test.tack", name="t")
    made = build_rule("r", seq(either).next(other), [emit()])
    rows = [{"t": 0}, {"t": 1, "type": "test.tock"}, {"t": 2, "type": "test.tack"}]
    assert len(streams.run(made, rows)) == 1


# After a match: ties -----------------------------------------------------------------


def test_the_earliest_started_match_is_released_first_then_the_longest():
    step = on("test.tick", name="s").where(e.text == "s").between(2, 3)
    assert go(seq(step), "sss") == ["01@1", "012@2", "12@2"]
    assert go(seq(step), "sss", cooldown="1s") == ["01@1"]
    found = go(seq(step).next(letter("z")), "sssz", after_match="past_last_event")
    assert found == ["0123@3"]
    found = go(seq(step).next(letter("z")), "sssz", after_match="to_next")
    assert found == ["0123@3", "123@3"]


def test_of_equally_long_matches_the_one_of_lowest_events_is_released():
    pattern = seq(a).then_any(b).then_any(c)
    assert go(pattern, "abbc") == ["013@3", "023@3"]
    assert go(pattern, "abbc", after_match="past_last_event") == ["013@3"]
    assert go(pattern, "abbc", after_match=("to_last", "c")) == ["013@3"]


def test_of_several_matches_of_one_event_a_cooldown_lets_the_first_started_pass():
    pattern = seq(a).then_any(b)
    assert go(pattern, "aab") == ["02@2", "12@2"]
    assert go(pattern, "aab", cooldown="1ms") == ["02@2"]


@pytest.mark.parametrize("seed", range(5))
def test_a_cooldown_is_per_key_in_event_time(seed):
    rng = random.Random(seed)
    rows, t = [], 0
    for _ in range(200):
        t += rng.choice([0, 1, 2, 9])
        rows.append({"t": t, "key": rng.choice("ab")})
    made = build_rule("r", on("test.tick"), [emit()], key="key", cooldown="5ms")
    for cuts in ([], streams.every(200, 1)):
        operator = Operator([made])
        parts = streams.cut_batches(streams.ordered(operator, rows), cuts)
        found = streams.step_all(operator, parts)
        for key in "ab":
            times = [row["t"] for row in rows if row["key"] == key]
            passed = oracles.cooled_down(times, 5)
            assert [
                (x.time_ns - streams.ns(0)) // 1_000_000 for x in found if x.key == key
            ] == [t for t, ok in zip(times, passed, strict=True) if ok]
        counts = operator.counts()["r"]
        assert counts.matches == 200
        assert counts.emitted + counts.suppressed == 200


def test_all_outputs_of_a_match_pass_a_cooldown_together():
    made = build_rule(
        "r", on("test.tick"), [emit(n=1), emit(n=2)], cooldown="5ms", version=4
    )
    found = streams.run(made, [{"t": t} for t in range(7)])
    assert [x.data["values"]["n"] for x in found] == [1, 2, 1, 2]
    assert len({x.id for x in found}) == 4


# Limits -------------------------------------------------------------------------------


def limited(policy, text, pattern=None, cap=2, **options):
    made = build_rule(
        "r",
        pattern or seq(a).then(b),
        [emit()],
        limits=Limits(partials_per_key=cap, policy=policy),
        **options,
    )
    outcomes = []
    for cuts in ([], streams.every(len(text), 1)):
        operator = Operator([made])
        parts = streams.cut_batches(streams.ordered(operator, word(text)), cuts)
        found = [places(x) for x in streams.step_all(operator, parts, end="inf")]
        counts = operator.counts()["r"]
        outcomes.append((found, counts.dropped_partials, counts.tripped))
    assert outcomes[0] == outcomes[1]
    return outcomes[0]


def test_drop_oldest_lets_the_oldest_partial_match_go_and_counts_it():
    assert limited("drop_oldest", "aaaab") == (["24", "34"], 2, False)


def test_drop_new_does_not_begin_the_new_one_and_counts_it():
    assert limited("drop_new", "aaaab") == (["04", "14"], 2, False)
    assert limited("drop_new", "aaabab") == (["03", "13", "45"], 1, False)


def test_trip_stops_the_rule_at_its_limit():
    assert limited("trip", "abaaab") == (["01"], 3, True)
    assert limited("trip", "abaab") == (["01", "24", "34"], 0, False)


def test_what_partial_matches_hold_together_is_limited_as_well():
    """Without that, 4,000 events of one key took three gigabytes."""
    loop = letter("a").one_or_more().greedy()
    made = build_rule(
        "r",
        seq(loop).then(b),
        [emit(n=count(m.a))],
        limits=Limits(bindings_per_key=1_000),
    )
    operator = Operator([made])
    batch = streams.ordered(operator, word("a" * 400 + "b"))
    (rule_state,) = operator._rules
    operator.step(batch.take(slice(0, 400)), int(batch.time[-1]))
    counts = operator.counts()["r"]
    # The newest forty-four hold 1 + 2 + ... + 44 events.
    assert (counts.live_partials, counts.dropped_partials) == (44, 400 - 44)
    assert len(rule_state.arena.nodes) <= 8_192  # not 80,000
    assert sum(map(len, operator.snapshot().values())) < 200_000
    found = operator.step(batch.take(slice(400, 401)), int(batch.time[-1])).events
    assert [x.data["values"]["n"] for x in found] == [*range(44, 0, -1)]


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_new", "trip"])
def test_the_limit_of_bindings_does_not_depend_on_the_batches(policy):
    loop = letter("a").one_or_more()
    options = {"limits": Limits(bindings_per_key=20, policy=policy)}
    rows = word("aabaaabaaaabbab")
    whole = go(seq(loop).then_any(b), rows, **options)
    for size in (1, 2, 5):
        cuts = streams.every(len(rows), size)
        assert go(seq(loop).then_any(b), rows, cuts=cuts, **options) == whole


def test_a_limit_is_per_key():
    made = build_rule(
        "r",
        seq(a).then(b),
        [emit()],
        key="key",
        limits=Limits(partials_per_key=1, policy="drop_new"),
    )
    rows = [
        {"t": t, "text": x, "key": k}
        for t, (x, k) in enumerate(
            [("a", "1"), ("a", "2"), ("a", "1"), ("b", "1"), ("b", "2")]
        )
    ]
    assert [x.key for x in streams.run(made, rows)] == ["1", "2"]


def test_a_match_held_back_for_what_a_limit_drops_is_released_at_once():
    """The second pair waits for the first to complete, until that is dropped."""
    made = build_rule(
        "r",
        seq(a).then(on("test.tick", name="b").where(e.key == m.a.key)),
        [emit()],
        after_match="to_next",
        limits=Limits(partials_per_key=2, policy="drop_oldest"),
    )
    keys = ["first", "second", "second", "third", "fourth"]
    rows = [{**r, "key": k} for r, k in zip(word("aabaa"), keys, strict=True)]
    operator = Operator([made])
    batch = streams.ordered(operator, rows)
    found = []
    for i in range(5):
        part = batch.take(slice(i, i + 1))
        found.append([places(x) for x in operator.step(part, 0).events])
    assert found == [[], [], [], [], ["12"]]


# Times at the edge --------------------------------------------------------------------


@pytest.mark.parametrize("length", ["36500d", "106000d"])
def test_durations_of_centuries_do_not_overflow(length):
    assert duration_ns(length) > 3 * 10**18
    made = build_rule(
        "r",
        seq(a).then(b).within(length),
        [emit(n=count().over(length, by=[]), x=avg(e.x).over(length, by=[]))],
        key="key",
        cooldown=length,
    )
    rows = word("abab", [0, 1, 10**11, 10**11 + 5], key="k")
    operator = Operator([made])
    parts = streams.cut_batches(streams.ordered(operator, rows), [2])
    events = []
    for part in parts:
        events += operator.step(part, int(part.time[-1])).events
        operator.sweep(int(part.time[-1]))
    assert [places(x) for x in events] == ["01"]
    assert events[0].data["values"] == {"n": 2, "x": 0.5}
    waiting = seq(a).not_then(b).within(length)
    assert len(go(waiting, "a")) == 1


def test_events_before_the_last_one_are_refused():
    operator = Operator([build_rule("r", on("test.tick"), [emit()])])
    batch = streams.ordered(operator, word("xyz"))
    with pytest.raises(OutOfOrderError) as caught:
        operator.step(batch.take(np.array([1, 0])), streams.ns(5))
    assert "Operator.step: event time" in str(caught.value)
    operator.step(batch.take(slice(1, 2)), streams.ns(5))
    with pytest.raises(OutOfOrderError):
        operator.step(batch.take(slice(0, 1)), streams.ns(5))


def test_nothing_at_all_is_a_batch():
    operator = Operator([build_rule("r", on("test.tick"), [emit()], key="key")])
    empty = operator.ingest(streams.columns([]), 0)
    assert operator.step(empty, streams.ns(0)).events == []
    assert operator.snapshot().keys() == {"engine"}
    assert operator.delta().keys() == {"engine"}
    assert operator.sweep(streams.ns(0)) == 0


def test_two_rules_of_one_name_are_refused():
    one = build_rule("r", on("test.tick"), [emit()])
    other = build_rule("r", on("test.tack"), [emit()])
    with pytest.raises(RuleError, match=r"rule 'r': two rules have this name. Rename"):
        Operator([one, other])


# What comes out -----------------------------------------------------------------------


def one_event(rows=None, **options):
    pattern = seq(on("test.tick", name="a")).next(on("test.tick", name="b"))
    emission = options.pop("emission", emit(x=e.x))
    made = build_rule(
        options.pop("name", "r"), pattern, [emission], **({"key": "key"} | options)
    )
    return streams.run(made, rows or word("ab", key="k"))[0]


def test_a_derived_id_is_that_of_its_cause():
    same = one_event()
    assert same.id == one_event().id == one_event(severity="critical").id
    assert same.id[:10] == one_event(version=2).id[:10]  # the completing event's time
    others = [
        one_event(name="s"),
        one_event(version=2),
        one_event(word("ab", key="l")),
        one_event(word("xab", key="k")[1:]),
        one_event(word("ab", [0, 2], key="k")),
        one_event(
            key=["key", "text"], rows=[{**r, "text": "t"} for r in word("ab", key="k")]
        ),
        one_event(word("ab", key="k"), key=None),
    ]
    assert len({x.id for x in [same, *others]}) == 8


def test_a_derived_event_carries_where_it_comes_from():
    event = one_event(version=3, severity="critical")
    assert event.steps == ("a", "b")
    assert event.lineage == (words_to_ulid(0, 0), words_to_ulid(0, 1))
    assert event.metadata() == {
        "rule": "r",
        "rule_version": 3,
        "severity": "critical",
        "key": "k",
        "lineage": list(event.lineage),
    }
    assert (event.type, event.stream) == (
        "trend.alert.generated",
        "notification.events",
    )
    assert event.data == {
        "rule": "r",
        "rule_version": 3,
        "key": "k",
        "severity": "critical",
        "title": "r",
        "values": {"x": 1.0},
    }


def test_keys_are_told_apart_however_they_are_spelled():
    def of(**row):
        rows = [{"t": t, "id": t, **row} for t in (0, 1)]
        return one_event(rows, key=list(row))

    found = [
        of(key="1"),
        of(number_key=1.0),
        of(key="a/b", text="c"),
        of(key="a", text="b/c"),
        of(flag=True),
    ]
    assert len({x.id for x in found}) == 5
    assert [x.key for x in found] == ["1", "1", r"a\/b/c", r"a/b\/c", "True"]


def test_a_key_with_a_slash_stays_one_keyword():
    emission = emit("market.trend.detected", trend_type="rising", confidence_score=1)
    event = one_event(word("ab", key="BTC/USDT"), emission=emission)
    assert event.data["keywords"] == ["BTC/USDT"]


def test_a_request_answered_by_key_keeps_its_correlation_id():
    rows = [{"t": t, "@correlation_id": "c-1"} for t in (0, 1)]
    assert one_event(rows, key="correlation_id").correlation_id == "c-1"
    assert one_event().correlation_id == ""


def test_a_title_shows_values_and_a_question_mark_for_what_is_absent():
    emission = emit(title="{key}: {x:.2f} {y:,.1f} {y!r} {y!s:>5}", x=e.x, y=e.y)
    event = one_event(emission=emission)
    assert event.data["title"] == "k: 1.00 ? ?     ?"


def test_an_event_without_its_key_takes_no_part():
    made = build_rule("r", on("test.tick"), [emit()], key=["key", "flag"])
    rows = [{"t": 0, "key": "a"}, {"t": 1, "flag": True}, {"t": 2}]
    rows.append({"t": 3, "key": "a", "flag": False})
    assert [x.key for x in streams.run(made, rows)] == ["a/False"]


def test_outputs_of_several_rules_come_in_the_order_of_time_then_of_the_rules():
    rules = [
        build_rule("late", seq(a).not_then(b).within("2ms"), [emit()]),
        build_rule("each", on("test.tick"), [emit()]),
        build_rule("again", on("test.tick"), [emit()]),
    ]
    found = streams.run(rules, word("axx"))
    assert [(x.rule, (x.time_ns - streams.ns(0)) // 1_000_000) for x in found] == [
        ("each", 0),
        ("again", 0),
        ("each", 1),
        ("again", 1),
        ("late", 2),
        ("each", 2),
        ("again", 2),
    ]
