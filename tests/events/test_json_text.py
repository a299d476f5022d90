from enum import IntEnum, StrEnum

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cep.errors import WireError
from cep.events.json_text import (
    MAX_DEPTH,
    dump_object,
    is_too_deep,
    parse_object,
    plain,
    repeated_key,
)
from cep.events.reasons import Reason


def nested(levels):
    return b'{"a":' * levels + b"1" + b"}" * levels


@pytest.mark.parametrize(
    ("raw", "obj"),
    [
        (b"{}", {}),
        (b' {"a" : 1}\n', {"a": 1}),
        (b'{"a":1,"a":2}', {"a": 2}),
        (b'{"a":"\\u00e9\\/\\ud83d\\ude00"}', {"a": "é/😀"}),
        (b'{"a":-0}', {"a": 0}),
        (b'{"a":1E5}', {"a": 1e5}),
        (b'{"a":12345678901234567890123}', {"a": 12345678901234567890123}),
        (b'{"a":1e-999}', {"a": 0.0}),
        ('{"ключ":"значение"}'.encode(), {"ключ": "значение"}),
        (b'{"":""}', {"": ""}),
        (b'{"a":"\\u0000"}', {"a": "\0"}),
    ],
)
def test_accepted_objects(raw, obj):
    assert parse_object(raw, "data") == obj


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", Reason.MALFORMED_JSON),
        (b"{", Reason.MALFORMED_JSON),
        (b"{}{}", Reason.MALFORMED_JSON),
        (b"\xef\xbb\xbf{}", Reason.MALFORMED_JSON),
        (b"{'a':1}", Reason.MALFORMED_JSON),
        (b'{"a":NaN}', Reason.MALFORMED_JSON),
        (b'{"a":Infinity}', Reason.MALFORMED_JSON),
        (b'{"a":1e999}', Reason.MALFORMED_JSON),
        (b'{"a":01}', Reason.MALFORMED_JSON),
        (b'{"a":1.}', Reason.MALFORMED_JSON),
        (b'{"a":.5}', Reason.MALFORMED_JSON),
        (b'{"a":+1}', Reason.MALFORMED_JSON),
        (b'{"a":1,}', Reason.MALFORMED_JSON),
        (b'{"a":1}//x', Reason.MALFORMED_JSON),
        (b'{"a":"\\ud800"}', Reason.MALFORMED_JSON),
        (b'{"a":"\n"}', Reason.MALFORMED_JSON),
        (b'{"a":"\\x41"}', Reason.MALFORMED_JSON),
        (b'{"a":"\xff"}', Reason.MALFORMED_JSON),
        (b'{"a":' + b"9" * 5000 + b"}", Reason.MALFORMED_JSON),
        (b"[]", Reason.NOT_AN_OBJECT),
        (b"null", Reason.NOT_AN_OBJECT),
        (b'"{}"', Reason.NOT_AN_OBJECT),
        (b"1", Reason.NOT_AN_OBJECT),
        (nested(MAX_DEPTH + 1), Reason.TOO_LARGE),
        (b"[" * 200_000, Reason.TOO_LARGE),
        (b'{"a":' * 50_000, Reason.TOO_LARGE),
    ],
    ids=lambda value: str(value[:12]),
)
def test_refused_texts(raw, reason):
    with pytest.raises(WireError) as caught:
        parse_object(raw, "data")
    assert caught.value.reason == reason
    assert len(caught.value.detail) < 300


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b'{"a":1,"b":2}', None),
        (b'{"a":1,"a":1}', "a"),
        (b'{"b":1,"\\u0062":1}', "b"),
        (b'{"c":1,"c":1}', None),
        (b'{"a":{"b":1,"b":1},"b":{"b":[{"b":"\\n"}]}}', None),
        (b'{"a":"\\"b\\":","b":1}', None),
        (b'{"x":[{"a":1}],"a":[],"a":{}}', "a"),
        (b'{"x":"a","y":"a","a":0}', None),
        (b"{}", None),
    ],
    ids=str,
)
def test_a_key_that_stands_twice_in_the_object_itself(raw, found):
    assert repeated_key(raw, ["a", "b"]) == found


def test_nesting_to_the_limit_is_fine():
    assert parse_object(nested(MAX_DEPTH), "data")


def test_brackets_inside_strings_do_not_nest():
    raw = b'{"a":"' + b"[" * 100 + b'\\"' + b"{" * 100 + b'"}'
    assert parse_object(raw, "data")


def test_an_unclosed_string_of_backslashes_costs_no_time():
    assert not is_too_deep(b"[" * 20 + b"]" * 20 + b'"' + b"\\" * 200_001)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), inner)
    ),
    max_leaves=12,
)


@settings(max_examples=50)
@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), json_values))
def test_what_is_plain_is_written_and_read_back_unchanged(obj):
    problems = []
    assert plain(obj, "data", problems) == obj
    assert problems == []
    assert parse_object(dump_object(obj), "data") == obj


def test_refinements_of_json_types_become_what_they_refine():
    colour = StrEnum("Colour", {"RED": "red"})
    number = IntEnum("Number", {"ONE": 1})
    problems = []
    got = plain(
        {"a": colour.RED, "b": number.ONE, "c": np.float64(1.5), "d": (1, 2)},
        "data",
        problems,
    )
    assert got == {"a": "red", "b": 1, "c": 1.5, "d": [1, 2]}
    assert [type(value) for value in got.values()] == [str, int, float, list]
    assert problems == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "data.x is nan (float), allowed: a finite number"),
        (float("-inf"), "data.x is -inf (float), allowed: a finite number"),
        ({1}, "data.x is {1} (set), allowed: a JSON value"),
        (b"a", "data.x is b'a' (bytes), allowed: a JSON value"),
        ("\ud800", r"data.x is '\ud800' (str), allowed: text without lone surrogates"),
        (10**5000, "data.x is an integer of 16610 bits, allowed: an integer of up to"),
        ({1: 2}, "a key of data.x is 1 (int), allowed: a string"),
        ([[{"y": {2}}]], "data.x[0][0].y is {2} (set), allowed: a JSON value"),
    ],
    ids=range(8),
)
def test_what_is_not_json_is_named_by_its_place(value, message):
    problems = []
    plain({"x": value}, "data", problems)
    assert len(problems) == 1
    assert str(problems[0]).startswith(message)


def test_writing_and_reading_agree_on_the_deepest_nesting():
    for levels in (MAX_DEPTH, MAX_DEPTH + 1):
        obj = 1
        for _ in range(levels):
            obj = {"a": obj}
        problems = []
        plain(obj, "data", problems)
        assert bool(problems) == is_too_deep(nested(levels)) == (levels > MAX_DEPTH)


def test_a_structure_that_holds_itself_is_refused():
    obj = {}
    obj["self"] = obj
    problems = []
    plain(obj, "data", problems)
    assert "nested deeper than 32 levels" in str(problems[0])
