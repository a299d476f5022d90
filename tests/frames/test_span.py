from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from cep.errors import InvalidDurationError, UsageError
from cep.frames.span import FIRST, LAST, entry_span, time_ms_of

NINE = datetime(2026, 1, 5, 9, tzinfo=UTC)
NINE_MS = 1767603600000


def span(start=None, end=None, newest=0):
    return entry_span(start, end, lambda: newest)


def unasked():
    pytest.fail("the newest entry was asked for without need")


def test_nothing_said_is_everything_without_asking_the_server():
    assert entry_span(None, None, unasked) == (FIRST, LAST)


@pytest.mark.parametrize(
    "given",
    [
        NINE,
        NINE.astimezone(timezone(timedelta(hours=-5))),
        "2026-01-05T09:00:00Z",
        "2026-01-05T10:00+01:00",
        "2026-01-05 09:00",
    ],
)
def test_an_instant_starts_with_it_and_ends_before_it(given):
    assert span(given) == ((NINE_MS, 0), LAST)
    assert span(None, given) == (FIRST, (NINE_MS - 1, 2**64 - 1))


def test_a_date_is_its_midnight_in_utc():
    assert span(date(2026, 1, 5)) == span("2026-01-05") == span("2026-01-05T00:00Z")


def test_spans_that_meet_share_no_entry_and_leave_none_out():
    _, last = span(None, NINE)
    first, _ = span(NINE, None)
    assert (last[0] + 1, 0) == first


@pytest.mark.parametrize("given", ["-15m", timedelta(minutes=-15)])
def test_relative_ends_count_from_the_newest_entry(given):
    assert span(given, newest=NINE_MS)[0] == (NINE_MS - 900_000, 0)
    assert span(None, given, newest=NINE_MS)[1] == (NINE_MS - 900_001, 2**64 - 1)


def test_a_relative_start_before_1970_is_the_beginning():
    assert span("-15m", newest=5)[0] == FIRST


def test_entry_ids_select_both_ends_as_xrange_does():
    assert span("5-1", "7-2") == ((5, 1), (7, 2))
    assert span("5", "7") == ((5, 0), (7, 2**64 - 1))


def test_a_parenthesis_leaves_an_entry_out():
    assert span("(5-1", "(7-2") == ((5, 2), (7, 1))
    assert span("(5", "(7") == ((6, 0), (6, 2**64 - 1))
    assert span(f"(5-{2**64 - 1}", "(7-0") == ((6, 0), (6, 2**64 - 1))


def test_parts_of_a_millisecond_round_up_at_both_ends():
    half = NINE + timedelta(microseconds=500)
    assert span(half)[0] == (NINE_MS + 1, 0)
    assert span(None, half)[1] == (NINE_MS, 2**64 - 1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            datetime(2026, 1, 5),  # noqa: DTZ001
            r"start is 2026-01-05T00:00:00, a datetime without a zone",
        ),
        ("yesterday", r"start is 'yesterday' \(str\), which is no time"),
        (5.0, r"start is 5.0 \(float\), which is no time"),
        (timedelta(minutes=5), r"start is 0:05:00, after the newest entry"),
        (f"{2**64}-0", r"'18446744073709551616-0' is"),
    ],
)
def test_what_is_no_end_is_refused(given, said):
    with pytest.raises(UsageError, match=said):
        span(given)


def test_a_relative_end_without_unit_is_a_bad_duration():
    with pytest.raises(InvalidDurationError, match="'15' is not a duration"):
        span("-15")


def test_event_times_take_instants_only():
    assert time_ms_of(NINE, "event_start") == NINE_MS
    with pytest.raises(UsageError, match=r"event_start is '-15m' \(str\)"):
        time_ms_of("-15m", "event_start")
