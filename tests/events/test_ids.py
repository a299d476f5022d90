from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ulid import ULID

from cep.errors import InvalidIdError
from cep.events.ids import (
    MAX_TIME_MS,
    MonotonicUlids,
    derived_ulid,
    int_to_ulid,
    ulid_time_ms,
    ulid_to_int,
    ulid_to_words,
    words_to_ulid,
)

numbers = st.integers(min_value=0, max_value=2**128 - 1)


@given(numbers)
def test_text_equals_the_one_of_python_ulid(number):
    text = int_to_ulid(number)
    assert text == str(ULID.from_int(number))
    assert ulid_to_int(text) == number


@given(numbers, numbers)
def test_texts_words_and_numbers_sort_alike(a, b):
    text_a, text_b = int_to_ulid(a), int_to_ulid(b)
    assert (text_a < text_b) == (a < b)
    assert (ulid_to_words(text_a) < ulid_to_words(text_b)) == (a < b)


@given(numbers)
def test_words_of_numpy_give_the_text_back(number):
    hi, lo = ulid_to_words(int_to_ulid(number))
    assert words_to_ulid(np.uint64(hi), np.uint64(lo)) == int_to_ulid(number)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it has 0 characters"),
        ("0" * 25, "it has 25 characters"),
        ("0" * 27, "it has 27 characters"),
        ("8" + "0" * 25, "it is more than 128 bits"),
        ("Z" + "0" * 25, "it is more than 128 bits"),
        ("0" * 25 + "I", "it has the character 'I'"),
        ("0" * 25 + "L", "it has the character 'L'"),
        ("0" * 25 + "O", "it has the character 'O'"),
        ("0" * 25 + "U", "it has the character 'U'"),
        ("0" * 25 + "a", "it has the character 'a'"),
        ("0" * 25 + "-", "it has the character '-'"),
        ("0" * 24 + " 0", "it has the character ' '"),
        ("0" * 25 + "٣", "it has the character '٣'"),
    ],
)
def test_only_the_canonical_form_is_an_id(text, why):
    with pytest.raises(InvalidIdError) as caught:
        ulid_to_int(text)
    assert why in str(caught.value)


def test_ids_rise_within_a_millisecond_and_when_the_clock_goes_back():
    ids = MonotonicUlids()
    made = [ids.next(ms) for ms in (1000, 1000, 1001, 5, 1001, 1002)]
    assert made == sorted(set(made))
    assert [ulid_time_ms(id_) for id_ in made] == [1000, 1000, 1001, 1001, 1001, 1002]
    assert ulid_to_int(made[1]) == ulid_to_int(made[0]) + 1


def test_used_up_randomness_takes_the_next_millisecond():
    ids = MonotonicUlids()
    last = ids.next(1000)
    ids._random = 2**80 - 1
    following = ids.next(1000)
    assert ulid_time_ms(following) == 1001
    assert following > last
    assert ids.next(1000) > following


def test_ids_from_many_threads_are_all_different_and_rise_in_each():
    ids = MonotonicUlids()

    def make(_):
        return [ids.next() for _ in range(2000)]

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(make, range(4)))
    assert all(part == sorted(part) for part in made)
    assert len({id_ for part in made for id_ in part}) == 8000


@pytest.mark.parametrize("ms", [-1, MAX_TIME_MS + 1])
def test_time_outside_48_bits_is_refused(ms):
    with pytest.raises(ValueError, match=rf"got {ms}"):
        MonotonicUlids().next(ms)
    with pytest.raises(ValueError, match=rf"got {ms}"):
        derived_ulid(ms, b"")


def test_derived_id_is_fixed_for_ever():
    """Stored alerts are compared with these ids: the values may never change."""
    assert derived_ulid(0, b"") == "0000000000DYGXHZ7XE684DNV2"
    assert derived_ulid(1469918176385, b"rule 1") == "01ARYZ6S419WM4ATHMZVXYX4QJ"


@given(st.integers(0, MAX_TIME_MS), st.binary(max_size=40), st.binary(max_size=40))
def test_derived_id_depends_on_time_and_cause_only(ms, cause, other):
    assert derived_ulid(ms, cause) == derived_ulid(ms, cause)
    assert ulid_time_ms(derived_ulid(ms, cause)) == ms
    assert (derived_ulid(ms, cause) == derived_ulid(ms, other)) == (cause == other)
