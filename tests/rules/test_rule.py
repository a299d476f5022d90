"""What a rule says of itself: its hash, its description, its parts."""

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from cep.errors import CepError
from cep.rules import (
    AfterMatch,
    Limits,
    avg,
    build_rule,
    count,
    e,
    emit,
    first,
    last,
    m,
    on,
    py,
    rule,
    seq,
    sum,
)
from tests import streams

assert streams  # registers the event types

ROOT = Path(__file__).parents[2]

SHOWN = """
from cep.rules import avg, build_rule, count, e, emit, m, on, seq
low = on("market.trade", name="low").where(e.symbol.is_in({"a", "b", "c", "d"}))
high = on("market.quote", name="high").where(e.bid > m.low.price).one_or_more()
made = build_rule("r", seq(low).then(high).within("5s"), [
    emit(symbol=m.low.symbol, n=count(m.high), size=avg(e.bid_size).over("3s")),
])
print(made.hash, made.describe())
"""


def rising(**changes):
    """A rule with a part of every kind, each of which may be changed."""
    limit, length = changes.pop("limit", 2), changes.pop("length", "10s")
    kind, how = changes.pop("type", "test.tick"), changes.pop("how", "then")
    name, where = changes.pop("step", "up"), changes.pop("window_where", e.x > 0)
    within, emitted = changes.pop("within", "1m"), changes.pop("emitted", {"n": 1})
    quantify = changes.pop("quantify", lambda step: step.at_least(2))
    until = changes.pop("until", None)
    mean = avg(e.x).where(where).over(length, by=changes.pop("by", None))
    up = on(kind, name=name).where((e.x > limit) & (e.x > mean))
    up = quantify(up)
    if until is not None:
        up = up.until(until)
    end = on("test.tack", name="end")
    if "gap" in changes:
        end = end.within_previous(changes.pop("gap"))
    pattern = getattr(seq(up), how)(end).within(within)
    if "gaps" in changes:
        pattern = pattern.within_previous(changes.pop("gaps"))
    having = changes.pop("having", count(m[name]) > 1)
    options = {"key": "key", "severity": "info", "cooldown": "5s"} | changes
    out = emit(
        options.pop("output", "trend.alert.generated"),
        title=options.pop("title", "{n}"),
        stream=options.pop("stream", None),
        **emitted,
    )
    return build_rule("rising", pattern.where(having), [out], **options)


CHANGES = [
    {"limit": 3},
    {"limit": 2.0},
    {"length": "11s"},
    {"type": "test.tack"},
    {"how": "next"},
    {"step": "rise"},
    {"window_where": e.x >= 0},
    {"by": []},
    {"within": "2m"},
    {"emitted": {"n": 2}},
    {"emitted": {"n": 1, "m": 1}},
    {"emitted": {"n": e.x}},
    {"emitted": {"n": "1"}},
    {"emitted": {"n": True}},
    {"quantify": lambda step: step.at_least(3)},
    {"quantify": lambda step: step.between(2, 3)},
    {"quantify": lambda step: step.at_least(2).greedy()},
    {"quantify": lambda step: step.at_least(2).consecutive()},
    {"quantify": lambda step: step.at_least(2).optional()},
    {"quantify": lambda step: step.at_least(2).any_combination()},
    {"until": e.x > 5},
    {"having": count(m.up) > 2},
    {"key": ["key", "flag"]},
    {"severity": "warning"},
    {"cooldown": "6s"},
    {"version": 2},
    {"after_match": "past_last_event"},
    {"after_match": ("to_last", "up")},
    {"after_match": ("to_first", "up")},
    {"limits": Limits(partials_per_key=5)},
    {"limits": Limits(bindings_per_key=5)},
    {"limits": Limits(policy="trip")},
    {"after_match": AfterMatch("to_first", "up", on_missing="trip")},
    {"gap": "1s"},
    {"gap": "2s"},
    {"gaps": "1s"},
    {"on_timeout": emit(n=1)},
    {"on_timeout": emit(n=2)},
    {"on_timeout": [emit(n=1), emit(n=2)]},
    {"title": "n"},
    {"stream": "other.events"},
]


def test_every_change_of_meaning_changes_the_hash():
    hashes = [rising().hash, *(rising(**change).hash for change in CHANGES)]
    assert len(set(hashes)) == len(hashes)


def test_the_same_rule_written_again_has_the_same_hash():
    assert rising().hash == rising(limit=2, length="10000ms", within="60s").hash


def test_the_words_about_a_rule_are_not_part_of_it():
    assert rising(doc="One thing.").hash == rising(doc="Another.").hash


def test_hashes_stay_what_they_are():
    """Stored state is found by them: one that changes loses the state of users."""
    assert rising().hash == "b277dcfba2cff8d9"


@pytest.mark.slow
def test_hashes_and_descriptions_do_not_depend_on_the_process():
    shown = []
    for seed in ("1", "4711"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", SHOWN],
            env=environment,
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
        shown.append(done.stdout)
    assert len(set(shown)) == 1
    assert shown[0].startswith(shown[0][:16] + " rule r v1 (info), " + shown[0][:16])


def test_a_rule_describes_itself():
    @rule(
        "rising-run",
        version=3,
        key=["key", "flag"],
        severity="critical",
        cooldown="5m",
        after_match="past_last_event",
    )
    def rising_run():
        """Five or more rising values in a row, then the first fall.

        More words, which are not shown.
        """
        up = on("test.tick", name="up").where((count(m.up) == 0) | (e.x > last(m.up).x))
        fall = on("test.tick", "test.tack", name="fall").where(e.x <= last(m.up).x)
        pattern = seq(up.at_least(5).greedy()).next(fall).within("15m")
        return pattern.where(last(m.up).x / first(m.up).x >= 1.03), emit(
            gain=last(m.up).x / first(m.up).x - 1,
            mean=avg(e.x).where(e.flag == True).over("60s", by=e.key),  # noqa: E712
            text="up",
        )

    assert rising_run.describe() == DESCRIPTION.format(hash=rising_run.hash)
    assert rising_run._repr_markdown_() == f"```text\n{rising_run.describe()}\n```"


DESCRIPTION = """\
rule rising-run v3 (critical), {hash}
  Five or more rising values in a row, then the first fall.
  key: key, flag
  pattern:
    first     up.at_least(5).greedy(): test.tick where ((count(m.up) == 0) | (e.x > m.up.x))
    next      fall: test.tick or test.tack where (e.x <= m.up.x)
    within 15m
    and then ((m.up.x / first(m.up).x) >= 1.03)
  reads:
    test.tack: flag, key, x
    test.tick: flag, key, x
  windows:
    avg(e.x).where((e.flag == True)).over('60s', by=['key']) of test.tick and test.tack, per key
  after match: past_last_event
  cooldown: 5m per key
  limit: 10000 partial matches a key, holding 100000 events, then drop_oldest
  limit: 1000 matches an event and key, holding 10000 events, then the rest is dropped
  emits: trend.alert.generated {{'gain': ((m.up.x / first(m.up).x) - 1), 'mean': avg(e.x).where((e.flag == True)).over('60s', by=['key']), 'text': 'up'}}
  portable: yes"""  # noqa: E501


def test_a_description_says_what_is_read_of_which_type():
    a = on("test.tick", name="a").where(
        sum(e.only_tock).of("test.tock").over("1s") > e.n
    )
    b = on("test.tack", name="b").where(count().over("1s", by=[]) > 2)
    made = build_rule(
        "r",
        seq(a).then(b.one_or_more().until(e.flag == True)),  # noqa: E712
        [emit(title="all of {n}", stream="x.events", n=count(m.b), text=m.a.text)],
        key="key",
    )
    lines = made.describe().split("\n")
    at = lines.index("  reads:")
    assert lines[at : at + 8] == [
        "  reads:",
        "    test.tack: flag, key",
        "    test.tick: key, n, text",
        "    test.tock: key, only_tock",
        "  windows:",
        "    count().over('1s', by=[]) of test.tack, over all keys",
        "    sum(e.only_tock).of('test.tock').over('1s') of test.tock, per key",
        "  after match: no_skip",
    ]
    emits = "  emits: trend.alert.generated on x.events {'n': count(m.b), 'text': "
    assert emits + "m.a.text}, titled 'all of {n}'" in lines


def test_what_ends_a_repeated_group_is_checked():
    group = seq(on("test.tick", name="a")).then(on("test.tack", name="b"))
    for until, problem in [
        (e.nonsense > 1, "nonsense"),
        (m.c.x > 1, "no step named 'c'"),
        (e.x, "a condition is true or false"),
    ]:
        with pytest.raises(CepError, match=problem):
            build_rule("r", seq(group.one_or_more().until(until)), [emit()])
    build_rule("r", seq(group.one_or_more().until(m.b.x > e.x)), [emit()])


def test_python_inside_a_window_is_not_portable_either():
    half = py(lambda x: x / 2, reads=[e.x])
    assert not build_rule("r", on("test.tick"), [emit(x=sum(half).over("1s"))]).portable


def test_a_description_shows_groups_and_python():
    def odd(x):
        return x % 2 == 1

    group = seq(on("test.tick", name="a").where(py(odd, reads=[e.n]))).then(
        on("test.tack", name="b").optional()
    )
    made = build_rule("g", seq(group.times(2)).then(on("test.tock")), [emit()])
    assert not made.portable
    text = made.describe()
    assert "portable: no, it calls Python (py)" in text
    assert "where py(" in text
    assert "key: none (all events together)" in text
    assert (
        "    first     group.times(2):\n      first     a: test.tick where py(" in text
    )
    assert (
        "      then      b.optional(): test.tack\n    then      tock: test.tock" in text
    )


def test_a_description_shows_time_limits_and_timeouts():
    a, b, c = (on(f"test.{t}", name=t[1]) for t in ("tick", "tack", "tock"))
    group = seq(b.within_previous("1s")).next(c).times(2).within_previous("2s")
    pattern = seq(a).then(group).within_previous("3s").within("1m")
    text = build_rule("r", pattern, [emit()], on_timeout=emit(x=m.i.x)).describe()
    assert (
        "    first     i: test.tick\n"
        "    then      group.times(2) less than 2s after the event before:\n"
        "      first     a: test.tack less than 1s after the event before\n"
        "      next      o: test.tock\n"
        "    within 60s\n"
        "    every step less than 3s after the event before\n"
    ) in text
    assert "on timeout: trend.alert.generated {'x': m.i.x}" in text


def test_the_shortest_time_bound_of_an_element_is_that_of_the_whole_pattern():
    a, b, c = (on(f"test.{t}") for t in ("tick", "tack", "tock"))
    plain = build_rule("r", seq(a).then(b).next(c).within("2s"), [emit()])
    for pattern in (
        seq(a).then(b.within("2s")).next(c.within("3s")),
        seq(a.within("2s")).then(b).next(c).within("5s"),
    ):
        made = build_rule("r", pattern, [emit()])
        assert (made.pattern.within_ns, made.hash) == (2 * 10**9, plain.hash)
    inside = seq(a).then(seq(b.within("4s")).next(c).within("3s").times(2)).within("5s")
    assert build_rule("r", inside, [emit()]).pattern.within_ns == 3 * 10**9
    repeated = seq(a).then(b.times(2).within("2s"))
    same = seq(a).then(b.times(2)).within("2s")
    assert (
        build_rule("r", repeated, [emit()]).hash == build_rule("r", same, [emit()]).hash
    )
    absent = seq(a).not_then(b.within("2s")).then(c)
    assert build_rule("r", absent, [emit()]).pattern.within_ns == 2 * 10**9


def test_time_limits_print_as_they_are_written():
    a, b = on("test.tick"), on("test.tack")
    pattern = seq(a).then(b.times(2).within_previous("1s")).within_previous("2s")
    assert str(pattern) == (
        "seq(on('test.tick', name=None)).then(on('test.tack', name=None).times(2)"
        ".within_previous('1s')).within_previous('2s')"
    )
    assert str(seq(a).then(b.within("1s"))).endswith("name=None).within('1s'))")


def test_unnamed_steps_are_named_after_their_types():
    pattern = seq(on("test.tick")).then(on("test.tick")).then(on("test.tack"))
    made = build_rule("named", pattern, [emit(x=m.tick_2.x)])
    assert [step.name for step in made.steps] == ["tick", "tick_2", "tack"]


def test_a_given_name_is_kept_whatever_the_unnamed_ones_would_be_called():
    pattern = seq(on("test.tick")).then(on("test.tack", name="tick"))
    made = build_rule("named", pattern, [emit()])
    assert [step.name for step in made.steps] == ["tick_2", "tick"]


def test_a_single_step_is_a_sequence_of_one():
    made = build_rule("one", on("test.tick"), [emit()])
    assert [c for c, _ in made.pattern.steps()] == [None]
    assert made.types == ("test.tick",)
    assert made.after_match == AfterMatch("no_skip")


def test_rules_and_their_parts_can_be_compared_and_kept_in_sets():
    """``==`` of a condition builds a node, which must not surface here."""
    one, other = rising(), rising()
    assert one == one
    assert one != other
    assert len({one, other, *one.steps, *one.emissions, one.pattern}) == 6
    assert [one, other].index(other) == 1


def test_rules_can_be_copied_and_pickled():
    one = rising()
    for again in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert again.hash == one.hash
        assert again.describe() == one.describe()


@pytest.mark.parametrize(
    ("expr", "text"),
    [
        (e.x + 1 - e.y * 2, "((e.x + 1) - (e.y * 2))"),
        (2 / e.x % 3, "((2 / e.x) % 3)"),
        (1 - e.x, "(1 - e.x)"),
        (-e.x, "-e.x"),
        (abs(e.x), "abs(e.x)"),
        (~((e.x > 1) | (e.key == "a")), "~((e.x > 1) | (e.key == 'a'))"),
        (e["key"].is_in({"b", "a"}), "e.key.is_in(['a', 'b'])"),
        (e.key.is_null(), "e.key.is_null()"),
        (e.key.ends_with("it's"), 'e.key.ends_with("it\'s")'),
        (m["up"]["x"], "m.up.x"),
        (first(m.up).x, "first(m.up).x"),
        (count(m.up), "count(m.up)"),
        (avg(m.up.x), "avg(m.up.x)"),
        (count().over("90m"), "count().over('1h30m')"),
        (avg(e.x).over("1s", by=[]), "avg(e.x).over('1s', by=[])"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_expressions_print_as_they_are_written(expr, text):
    assert str(expr) == repr(expr) == text
