from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cep.clock import SystemClock, TestClock, duration_ns, format_duration
from cep.errors import InvalidDurationError


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("250ms", 250_000_000),
        ("60s", 60_000_000_000),
        ("5m", 300_000_000_000),
        ("1h", 3_600_000_000_000),
        ("2d", 172_800_000_000_000),
        ("1.5s", 1_500_000_000),
        ("0.1s", 100_000_000),
        ("10us", 10_000),
        ("7ns", 7),
        ("1m30s", 90_000_000_000),
        ("1h0.5s", 3_600_500_000_000),
        (timedelta(microseconds=1), 1_000),
        (timedelta(days=1, seconds=2), 86_402_000_000_000),
    ],
)
def test_duration_is_read_exactly(text, ns):
    assert duration_ns(text) == ns


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (5, "a bare number says no unit"),
        (5.0, "a bare number says no unit"),
        ("5", "a bare number says no unit"),
        (True, "only text and timedelta are durations"),
        (None, "only text and timedelta are durations"),
        ("-5s", "it is negative"),
        (timedelta(seconds=-1), "it is negative"),
        ("0s", "it is zero"),
        ("0.5ns", "it has parts of a nanosecond"),
        ("5 s", "its units must be among ns, us, ms, s, m, h, d"),
        ("5sec", "its units must be among"),
        ("1e3s", "its units must be among"),
        ("30s1m", "its units must go from large to small"),
        ("1s1s", "its units must go from large to small"),
        ("", "it is empty or overlong"),
        ("1s" * 100, "it is empty or overlong"),
        ("300000d", "it is longer than 292 years"),
        ("٣s", "its units must be among"),
    ],
)
def test_refused_duration_says_why_and_how_to_write_it(value, why):
    with pytest.raises(InvalidDurationError) as caught:
        duration_ns(value)
    assert why in str(caught.value)
    assert "such as '250ms', '60s'" in str(caught.value)


def test_zero_passes_where_it_is_allowed():
    assert duration_ns("0s", allow_zero=True) == 0
    assert duration_ns(timedelta(0), allow_zero=True) == 0


@given(st.integers(min_value=1, max_value=2**63 - 1))
def test_formatted_duration_reads_back(ns):
    assert duration_ns(format_duration(ns)) == ns


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0s"),
        (60_000_000_000, "60s"),
        (90_000_000_000, "90s"),
        (150_000_000_000, "2m30s"),
        (3_600_000_000_000, "1h"),
        (1_500_000_000, "1s500ms"),
        (-5_000_000_000, "-5s"),
    ],
)
def test_duration_is_formatted_for_people(ns, text):
    assert format_duration(ns) == text


def test_test_clock_moves_only_when_turned_or_slept():
    clock = TestClock(start_ns=1_000)
    assert (clock.now_ns(), clock.monotonic_ns()) == (1_000, 0)
    clock.advance("31s")
    clock.sleep(1.5)
    clock.sleep(-1)
    assert clock.monotonic_ns() == 32_500_000_000
    assert clock.now_ns() == 32_500_001_000


def test_system_clock_goes_forward():
    clock = SystemClock()
    before = clock.monotonic_ns()
    clock.sleep(0)
    assert clock.monotonic_ns() >= before
    assert clock.now_ns() > 1_700_000_000_000_000_000
