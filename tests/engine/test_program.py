"""What expressions mean: absence, logic, arithmetic, strings."""

import datetime as dt
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cep.engine.operator import Operator
from cep.errors import RuleError
from cep.rules import (
    avg,
    build_rule,
    ceil,
    clip,
    coalesce,
    count,
    e,
    emit,
    exp,
    first,
    floor,
    log,
    m,
    max,
    min,
    on,
    py,
    seq,
    sign,
    sqrt,
    std,
    sum,
    when,
)
from tests import streams


def values(rows, **fields):
    """The fields emitted for each row."""
    made = build_rule("shows", on("test.tick"), [emit(**fields)])
    return [event.data["values"] for event in streams.run(made, rows)]


def value(expr, **row):
    """The value of an expression for one event."""
    return values([{"t": 0, **row}], value=expr)[0]["value"]


def holds(condition, **row):
    """Whether a condition lets one event through."""
    made = build_rule("tests", on("test.tick").where(condition), [emit()])
    return bool(streams.run(made, [{"t": 0, **row}]))


ABSENT = {}  # an event without x


@pytest.mark.parametrize(
    "condition",
    [
        e.x == 0,
        e.x != 0,
        e.x < 0,
        e.x <= 0,
        e.x > 0,
        e.x >= 0,
        e.x == e.x,
        e.x != e.y,
        e.key == "a",
        e.key != "a",
        e.key != e.text,
        e.key.is_in(["a"]),
        e.key.contains(""),
        e.key.starts_with(""),
        e.key.ends_with(""),
        e.flag == True,  # noqa: E712
        e.flag != True,  # noqa: E712
        e.x + 1 > 0,
        e.x * 0 == 0,
        e.y / e.n > -1e300,
        min(e.x, 5) > -1,
        max(e.x, 5) > -1,
        abs(e.x) >= 0,
        -e.x != 1,
        e.x % 2 == e.x % 2,
    ],
    ids=str,
)
def test_a_test_of_what_is_absent_is_false_and_its_negation_true(condition):
    row = {"y": 1.0, "n": 0}
    assert not holds(condition, **row)
    assert holds(~condition, **row)
    assert not holds(~~condition, **row)


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        (e.x + 1, None),
        (e.y / 0, None),
        (e.y % 0, None),
        (e.y / (e.y - e.y), None),
        (0 / (e.y - e.y), None),
        (log(e.y - e.y), None),
        (log(-e.y), None),
        (sqrt(-e.y), None),
        (min(e.y, e.x), None),
        (e.y * 1e308 * 10, None),  # no number any more
        (sqrt(e.y - e.y), 0.0),
        (log(e.y), math.log(3)),
        (sqrt(e.y), math.sqrt(3)),
        (abs(-e.y), 3.0),
        (min(e.y, 5, 2), 2.0),
        (max(e.y, e.n), 7.0),
        (-e.y % 2, -1.0),
        (7 % e.y, 1.0),
        (e.y / 2, 1.5),
        (1 - e.y, -2.0),
        (10 / (e.y + 2) - 2, 0.0),
        (e.n, 7),
        (e.n + 1, 8),
        (e.n * 1.0, 7.0),
        (e.n / 7, 1.0),
        (e.flag, True),
        (e.key, "a"),
        (e.text, None),
        (e.x.is_null(), True),
        (e.y.is_null(), False),
        ((e.y / 0).is_null(), True),
        (e.key == "a", True),
        (e.event_time, float(streams.T0)),
        (e.type, "test.tick"),
        (e.stream, streams.TICKS),
        (floor(e.y + 0.75), 3),
        (math.floor(-e.y / 2), -2),
        (ceil(e.y + 0.25), 4),
        (math.ceil(-e.y / 2), -1),
        (math.trunc(-e.y / 2), -1),
        (round(e.y / 2), 2),
        (round(e.y / 6), 0),
        (round(e.y / 7, 3), 0.429),
        (round(e.x, 3), None),
        (sign(-e.y), -1),
        (sign(e.y - e.y), 0),
        (sign(e.x), None),
        (exp(e.y), math.exp(3)),
        (exp(e.y * 1000), None),
        (e.y**2, 9.0),
        (2**e.y, 8.0),
        (pow(e.y, 0.5), math.sqrt(3)),
        ((-e.y) ** 0.5, None),
        (e.x**0, None),
        ((e.y - e.y) ** -1, None),
        (clip(e.y, 4, 9), 4.0),
        (clip(e.y, 1, 2), 2.0),
        (clip(e.y, high=9), 3.0),
        (clip(e.y, low=e.x), None),
        (e.flag.as_int(), 1),
        (e.flag.as_float() + 1, 2.0),
        ((e.y > 5).as_int(), 0),
        ((-e.y / 2).as_int(), -1),
        (e.n.as_float(), 7.0),
        (e.x.as_int(), None),
        (coalesce(e.x, 5), 5.0),
        (coalesce(e.x, e.y / 0, e.y), 3.0),
        (coalesce(e.y, 5), 3.0),
        (coalesce(e.x, e.x), None),
        (coalesce(e.n, 5), 7),
        (coalesce(e.text, e.key), "a"),
        (coalesce(e.text, "none"), "none"),
        (coalesce(e.x.is_null(), False), True),
        (when(e.y > 2).then("high").otherwise("low"), "high"),
        (when(e.x > 2).then("high").otherwise("low"), "low"),
        (when(e.y > 9).then(1).when(e.y > 2).then(2).otherwise(3), 2),
        (when(e.y > 9).then(1).when(e.y > 8).then(2).otherwise(e.n), 7),
        (when(e.flag).then(e.x).otherwise(1.5), None),
        (when(e.flag).then(e.flag).otherwise(False), True),
        ((e.y * 1e308 * 10 > 0), False),
        ((e.y * 1e308 * 10).is_null(), True),
    ],
    ids=str,
)
def test_values_are_emitted_as_what_they_are(expr, expected):
    found = value(expr, y=3.0, n=7, flag=True, key="a")
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("a", [True, False, None])
@pytest.mark.parametrize("b", [True, False, None])
def test_logic_is_two_valued(a, b):
    row = {"flag": a, "x": None if b is None else float(b)}
    left, right = e.flag == True, e.x == 1  # noqa: E712
    assert holds(left & right, **row) == (a is True and b is True)
    assert holds(left | right, **row) == (a is True or b is True)
    assert holds(~(left & right), **row) != (a is True and b is True)
    assert holds(~left | ~right, **row) == (a is not True or b is not True)
    # A flag and a computed value are conditions, too.
    assert holds(e.flag & (e.x == 1), **row) == (a is True and b is True)
    assert holds(e.flag | e.flag, **row) == (a is True)


@given(st.floats(allow_nan=False, allow_infinity=False, width=32), st.integers(0, 6))
def test_rounding_is_pythons(x, digits):
    assert value(math.floor(e.x), x=x) == math.floor(x)
    assert value(math.ceil(e.x), x=x) == math.ceil(x)
    assert value(math.trunc(e.x), x=x) == value(e.x.as_int(), x=x) == math.trunc(x)
    assert value(round(e.x), x=x) == round(x)
    scale = 10.0**digits
    assert value(round(e.x, digits), x=x) == round(x * scale) / scale


@pytest.mark.parametrize(
    ("text", "number", "whole"),
    [
        ("12", 12.0, 12),
        ("-7", -7.0, -7),
        ("+0", 0.0, 0),
        ("1.5", 1.5, None),
        (".5", 0.5, None),
        ("5.", 5.0, None),
        ("-1.5e3", -1500.0, None),
        ("1e400", None, None),
        ("9" * 400, None, None),
        *((text, None, None) for text in ["", " 1", "1 ", "1_0", "nan", "inf", "0x1"]),
        *((text, None, None) for text in ["１", "1,5", "--1", "e5", ".", "one", "1\n"]),
        (None, None, None),
    ],
)
def test_strings_are_read_as_numbers_or_absent(text, number, whole):
    assert value(e.text.as_float(), text=text) == number
    assert value(e.text.as_int(), text=text) == whole
    assert value(e.text.as_float() * 2 > -1e9, text=text) == (number is not None)


def test_a_bound_string_is_read_as_a_number_too():
    made = build_rule(
        "bound",
        seq(on("test.tick", name="a")).next(
            on("test.tick").where(e.text.as_float() > m.a.text.as_float())
        ),
        [emit(a=m.a.text.as_int())],
    )
    rows = [{"t": t, "text": text} for t, text in enumerate(["9", "10", "10", "x"])]
    assert [x.data["values"] for x in streams.run(made, rows)] == [{"a": 9}]


PARTS = ["year", "month", "day", "hour", "minute", "second"]


@given(st.integers(-(10**13), 10**13) | st.integers(0, 86_400_000))
def test_parts_of_a_time_are_those_of_datetime(ms):
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    moment = epoch + dt.timedelta(milliseconds=ms)
    parts = {part: getattr(e.x.dt, part)() for part in PARTS}
    found = values([{"t": 0, "x": float(ms)}], **parts)
    assert found == [{part: getattr(moment, part) for part in PARTS}]
    assert value(e.x.dt.weekday(), x=float(ms)) == moment.isoweekday()


def test_times_are_taken_from_events_and_strings():
    text = "2024-02-29T23:30:00.125+01:00"
    assert value(e.event_time.dt.hour()) == 22
    assert value(e.text.as_time(), text=text) == 1_709_245_800_125.0
    assert value(e.text.as_time().dt.hour(), text=text) == 22
    assert value((e.text.as_time() + 3_600_000).dt.day(), text=text) == 29
    for wrong in ("2024-02-30T00:00:00Z", "yesterday", None):
        assert value(e.text.as_time().dt.hour(), text=wrong) is None
    assert value(e.x.dt.year(), x=1e300) is None


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: e.key + 1, r"this is a string\. .*Make it a number: e.key.as_float"),
        (lambda: e.flag * 2, r"this is a bool\. .*Make it a number: e.flag.as_float"),
        (lambda: e.key.dt.hour(), r"or of a time e.key.as_time\(\)"),
        (lambda: e.x.as_time(), "as_time takes a string, this is a number"),
        (lambda: e.tags.as_int(), "a nested value .* is no number"),
        (lambda: coalesce(e.x, "none"), "is one of several kinds: number, string"),
        (lambda: coalesce(e.tags, e.tags), "a nested value .* cannot be chosen"),
        (lambda: coalesce(), "has no values"),
        (lambda: when(e.flag).then(1).otherwise("x"), "several kinds: number, string"),
        (lambda: when(e.x).then(1).otherwise(2), "when takes a condition"),
        (lambda: when(e.flag).then(1) + 1, r"does not say what the rest is"),
        (lambda: e.x + when(e.flag).then(1), r"does not say what the rest is"),
        (lambda: e.x + when(e.flag), r"has no value yet"),
        (lambda: round(e.x, 16), "digits are a whole number from 0 to 15"),
        (lambda: round(e.x, -1), "digits are a whole number from 0 to 15"),
        (lambda: floor(e.key), "floor takes numbers, this is a string"),
        (lambda: clip(e.x, e.key), "max takes numbers"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_remedy(make, problem):
    with pytest.raises((RuleError, TypeError), match=f"(?s){problem}"):
        build_rule("wrong", on("test.tick"), [emit(x=make())])


def test_expressions_print_as_they_are_written_and_are_told_apart():
    expressions = [
        round(e.x, 2) ** 2,
        e.key.as_float(),
        e.event_time.dt.weekday(),
        coalesce(e.x, 1),
        when(e.x > 1).then("a").otherwise("b"),
        clip(e.x, 0, 1),
    ]
    assert [str(x) for x in expressions] == [
        "(round(e.x, 2) ** 2)",
        "e.key.as_float()",
        "e.event_time.dt.weekday()",
        "coalesce(e.x, 1)",
        "when((e.x > 1)).then('a').otherwise('b')",
        "min(max(e.x, 0), 1)",
    ]
    assert len({x.key for x in expressions}) == 6


def test_is_in_takes_values_of_the_fields_kind():
    assert holds(e.x.is_in([1, 2.5]), x=2.5)
    assert not holds(e.x.is_in([1, 2.5]), x=2.0)
    assert holds(e.key.is_in(("b", "a")), key="a")
    assert not holds(e.key.is_in({"b"}), key="a")
    assert holds(e.n.is_in(range(3)), n=2)


@pytest.mark.parametrize("text", ["", "abc", "xabcx", "é", "ABC", "a\x00c", "💰abc"])
def test_string_tests_are_pythons(text):
    for part in ("abc", "", "x", "é", "\x00", "💰"):
        assert holds(e.text.starts_with(part), text=text) == text.startswith(part)
        assert holds(e.text.ends_with(part), text=text) == text.endswith(part)
        assert holds(e.text.contains(part), text=text) == (part in text)


def test_string_tests_know_texts_that_appear_later():
    rows = [{"t": t, "text": f"{t}-text"} for t in range(300)]
    made = build_rule("tests", on("test.tick").where(e.text.contains("7")), [emit()])
    for cuts in ([], streams.every(300, 1)):
        assert len(streams.run(made, rows, cuts=cuts)) == 3 * 19


def test_integers_beyond_the_doubles_round_and_do_not_fail():
    assert value(e.n, n=2**53 + 1) == 2**53
    assert value(e.n + 1, n=2**62) == 2**62


def test_of_two_types_a_field_is_that_of_the_events_type():
    """`text` is a string of ticks and an integer of tocks."""
    made = build_rule(
        "two",
        seq(on("test.tick", name="a")).then(on("test.tock", name="b")),
        [emit(a=m.a.text, b=e.text, x=m.a.x + e.x)],
    )
    rows = [
        {"t": 0, "text": "12", "x": 1.0},
        {"t": 1, "type": "test.tock", "text": 7, "x": 2.0},
    ]
    (found,) = streams.run(made, rows)
    assert found.data["values"] == {"a": "12", "b": 7, "x": 3.0}


def test_the_envelope_answers_only_where_the_payload_has_no_such_field():
    made = build_rule(
        "users",
        on("test.tick"),
        [emit(user=e.user_id, correlation=e.correlation_id)],
    )
    rows = [
        {"t": 0, "user_id": "payload", "@user_id": "envelope"},
        {"t": 1, "@user_id": "envelope", "@correlation_id": "c"},
        {"t": 2, "user_id": "payload", "@correlation_id": ""},
    ]
    assert [x.data["values"] for x in streams.run(made, rows)] == [
        {"user": "payload", "correlation": None},
        {"user": None, "correlation": "c"},
        {"user": "payload", "correlation": None},
    ]
    other = build_rule("users", on("test.tock"), [emit(user=e.user_id)])
    rows = [{"t": 0, "type": "test.tock", "@user_id": "envelope"}]
    assert streams.run(other, rows)[0].data["values"] == {"user": "envelope"}


def test_nested_values_are_emitted_as_they_are_and_can_be_absent():
    rows = [{"t": 0, "tags": ["a", {"b": [1, None]}]}, {"t": 1}]
    found = values(rows, tags=e.tags, there=~e.tags.is_null())
    assert found == [
        {"tags": ["a", {"b": [1, None]}], "there": True},
        {"tags": None, "there": False},
    ]
    made = build_rule(
        "later",
        seq(on("test.tick", name="a")).next(on("test.tick")),
        [emit(x=m.a.tags)],
    )
    assert streams.run(made, rows)[0].data["values"] == {"x": ["a", {"b": [1, None]}]}


# Windows inside expressions -------------------------------------------------------


def test_a_window_with_a_condition_may_stand_deep_inside_an_expression():
    """Compiling the window's own condition must not fall between our instructions."""
    inner = avg(e.x).where((e.flag == True) & (e.x > 0)).over("10ms")  # noqa: E712
    rows = [
        {"t": 0, "x": 2.0, "flag": True},
        {"t": 1, "x": 9.0, "flag": False},
        {"t": 2, "x": 4.0, "flag": True},
        {"t": 3, "x": -4.0, "flag": True},
    ]
    found = values(
        rows,
        plain=inner,
        sum=1 + 2 * inner,
        ratio=(e.x - inner) / (1 + abs(inner)),
        logic=(e.x > 1) & ((inner > 2.5) | (count().where(e.x > 3).over("2ms") > 1)),
    )
    assert [v["plain"] for v in found] == [2, 2, 3, 3]
    assert [v["sum"] for v in found] == [5, 5, 7, 7]
    assert [v["ratio"] for v in found] == [0, 7 / 3, 1 / 4, -7 / 4]
    assert [v["logic"] for v in found] == [False, False, True, False]


def test_equal_windows_of_several_rules_and_steps_are_kept_once():
    mean = avg(e.x).over("10ms", by="key")
    rules = [
        build_rule(f"r{i}", on("test.tick").where(e.x > mean + i), [emit(mean=mean)])
        for i in range(3)
    ]
    rules.append(
        build_rule(
            "s",
            seq(on("test.tick").where(mean > 1)).then(on("test.tick").where(mean > 2)),
            [emit(std=std(e.x).over("10ms", by="key"))],
            key="key",
        )
    )
    assert len(Operator(rules).plan.windows) == 1


def test_a_window_is_that_of_the_types_of_its_step():
    """The same words in two steps mean each step's own events."""
    n = count().over("100ms")
    made = build_rule(
        "both",
        seq(on("test.tick", name="a").where(n == 2)).then(
            on("test.tack", name="b").where(n == 1)
        ),
        [emit()],
    )
    rows = [{"t": 0}, {"t": 1}, {"t": 2, "type": "test.tack"}]
    assert len(streams.run(made, rows)) == 1


# Limits of an expression ------------------------------------------------------------


def right_leaning(n):
    expr = e.x
    for _ in range(n):
        expr = 1 + expr
    return expr


def left_leaning(n):
    expr = e.x
    for _ in range(n):
        expr = expr + 1
    return expr


def test_an_expression_that_needs_too_large_a_stack_is_refused():
    assert value(right_leaning(63), x=1.0) == 64.0
    with pytest.raises(RuleError, match=r"nests 65 deep, at most 64 is possible"):
        value(right_leaning(64), x=1.0)
    assert value(left_leaning(98), x=1.0) == 99.0


@pytest.mark.parametrize("depth", [101, 5_000])
@pytest.mark.parametrize("lean", [right_leaning, left_leaning])
def test_an_expression_too_deep_to_walk_is_refused_in_any_place(lean, depth):
    expr = lean(depth)
    for where in (
        lambda: build_rule("r", on("test.tick").where(expr > 0), [emit()]),
        lambda: build_rule("r", on("test.tick"), [emit(x=[{"y": expr}])]),
        lambda: build_rule("r", seq(on("test.tick")).where(expr > 0), [emit()]),
        lambda: build_rule(
            "r", on("test.tick").where(avg(expr).over("1s") > 0), [emit()]
        ),
        lambda: build_rule(
            "r", on("test.tick").where(count().where(expr > 0).over("1s") > 0), [emit()]
        ),
        lambda: build_rule(
            "r", on("test.tick", name="a").one_or_more().until(expr > 0), [emit()]
        ),
    ):
        with pytest.raises(RuleError, match="deep, at most 100 is possible"):
            where()


def test_more_conditions_than_a_mask_has_bits_are_refused():
    condition = e.x > 0
    for i in range(70):
        condition = condition & (e.y > i)
    made = build_rule("many", on("test.tick").where(condition), [emit()])
    with pytest.raises(RuleError, match="has more than 62 different conditions"):
        Operator([made])


def test_conditions_up_to_the_last_bit_count():
    condition = e.x > 0
    for i in range(61):
        condition = condition & (e.y > i)
    for y, found in ((60.5, True), (60.0, False), (59.5, False)):
        assert holds(condition, x=1.0, y=y) is found


# What a match has bound ------------------------------------------------------------


def test_aggregates_of_a_step_pass_over_what_is_absent():
    made = build_rule(
        "bound",
        seq(on("test.tick", name="up").times(4)).next(on("test.tack", name="end")),
        [
            emit(
                n=count(m.up),
                with_x=count(m.up.x),
                sum=sum(m.up.x),
                avg=avg(m.up.x),
                low=min(m.up.x),
                high=max(m.up.x),
                first=first(m.up).x,
                last=m.up.x,
                none=m.up.y,
                nothing=count(m.up.y),
                empty=sum(m.up.y),
            )
        ],
    )
    rows = [{"t": t, "x": x} for t, x in enumerate([0.1, None, 0.2, -5.0])]
    (found,) = streams.run(made, [*rows, {"t": 9, "type": "test.tack"}])
    assert found.data["values"] == {
        "n": 4,
        "with_x": 3,
        "sum": math.fsum([0.1, 0.2, -5.0]),
        "avg": math.fsum([0.1, 0.2, -5.0]) / 3,
        "low": -5.0,
        "high": 0.2,
        "first": 0.1,
        "last": -5.0,
        "none": None,
        "nothing": 0,
        "empty": 0.0,
    }


def test_of_a_step_that_bound_nothing_count_and_sum_are_zero():
    made = build_rule(
        "optional",
        seq(on("test.tick", name="a"))
        .next(on("test.tack", name="b").optional())
        .next(on("test.tock", name="c")),
        [emit(n=count(m.b), sum=sum(m.b.x), avg=avg(m.b.x), x=m.b.x, of=m.b.key)],
    )
    rows = [{"t": 0}, {"t": 1, "type": "test.tock"}]
    assert streams.run(made, rows)[0].data["values"] == {
        "n": 0,
        "sum": 0.0,
        "avg": None,
        "x": None,
        "of": None,
    }


# Python ------------------------------------------------------------------------------


def test_py_gets_values_as_they_are_and_none_where_absent():
    seen = []

    def look(*args):
        seen.append(args)
        return 1

    rows = [
        {"t": 0, "x": 1.0, "n": 2, "flag": True, "key": "k", "tags": ["a"]},
        {"t": 1, "n": None},
    ]
    reads = [e.x, e.n, e.flag, e.key, e.tags, e.event_time]
    assert values(rows, a=py(look, reads)) == [{"a": 1}, {"a": 1}]
    assert seen == [
        (1.0, 2, True, "k", ["a"], float(streams.T0)),
        (None, None, None, None, None, float(streams.T0 + 1)),
    ]
    assert [type(arg) for arg in seen[0]] == [float, int, bool, str, list, float]


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (2, 2),
        (2.5, 2.5),
        (True, 1),
        (None, None),
        (math.nan, None),
        (math.inf, None),
        (10**400, None),
    ],
)
def test_what_py_returns_is_a_number_or_absent(result, expected):
    assert value(py(lambda x: result, [e.x]), x=1.0) == expected


@pytest.mark.parametrize("result", ["text", [1], object()])
def test_an_event_for_which_py_returns_anything_else_is_not_seen(result):
    assert values([{"t": 0, "x": 1.0}], a=py(lambda x: result, [e.x])) == []


def test_py_may_stand_in_conditions_and_windows():
    def odd(n):
        return n is not None and n % 2 == 1

    def half(n):
        return None if n is None else n / 2

    rows = [{"t": t, "n": n} for t, n in enumerate([1, 2, 3, None, 5])]
    made = build_rule(
        "odd",
        on("test.tick").where(py(odd, [e.n])),
        [
            emit(
                n=e.n,
                halves=sum(py(half, [e.n])).over("10ms"),
                odds=count().where(py(odd, [e.n])).over("10ms"),
            )
        ],
    )
    assert [x.data["values"] for x in streams.run(made, rows)] == [
        {"n": 1, "halves": 0.5, "odds": 1},
        {"n": 3, "halves": 3.0, "odds": 2},
        {"n": 5, "halves": 5.5, "odds": 3},
    ]
