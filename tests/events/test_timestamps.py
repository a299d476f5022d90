from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cep.events.timestamps import (
    END_MS,
    format_timestamp,
    from_ms,
    parse_timestamp,
    to_ms,
)

times = st.integers(min_value=0, max_value=END_MS - 1)
NOON = 1_795_435_200_000  # 2026-11-23T12:00:00Z


@given(times)
def test_written_as_datetime_would_and_read_back(ms):
    text = format_timestamp(ms)
    expected = from_ms(ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert text == expected
    assert parse_timestamp(text) == ms
    assert to_ms(from_ms(ms)) == ms


@given(times, st.integers(-1439, 1439))
def test_any_offset_is_read_as_datetime_reads_it(ms, minutes):
    zone = timezone(timedelta(minutes=minutes))
    text = from_ms(ms).astimezone(zone).isoformat(timespec="microseconds")
    assert parse_timestamp(text) == ms


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2026-11-23T12:00:00Z", NOON),
        ("2026-11-23T12:00:00.1Z", NOON + 100),
        ("2026-11-23T12:00:00.125Z", NOON + 125),
        ("2026-11-23T12:00:00.125999999Z", NOON + 125),
        ("2026-11-23T12:00:00.0009Z", NOON),
        ("2026-11-23T12:00:00+00:00", NOON),
        ("2026-11-23T12:00:00-00:00", NOON),
        ("2026-11-23T17:30:00+05:30", NOON),
        ("2026-11-22T23:00:00-13:00", NOON),
        ("2026-11-24T11:59:00+23:59", NOON),
        ("1970-01-01T00:00:00Z", 0),
        ("1969-12-31T23:00:00-01:00", 0),
        ("2024-02-29T00:00:00Z", 1_709_164_800_000),
        ("2261-12-31T23:59:59.999Z", END_MS - 1),
        ("2262-01-01T00:59:59.999+01:00", END_MS - 1),
    ],
)
def test_accepted_forms(text, ms):
    assert parse_timestamp(text) == ms


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-11-23",
        "2026-11-23T12:00Z",
        "2026-11-23T12:00:00",
        "2026-11-23 12:00:00Z",
        "2026-11-23t12:00:00Z",
        "2026-11-23T12:00:00z",
        "2026-11-23T12:00:00.Z",
        "2026-11-23T12:00:00,125Z",
        "2026-11-23T12:00:00.1234567890Z",
        "2026-11-23T12:00:00+0000",
        "2026-11-23T12:00:00+00",
        "2026-11-23T12:00:00+24:00",
        "2026-11-23T12:00:00+01:60",
        "2026-11-23T12:00:00 Z",
        "2026-11-23T12:00:00Z\n",
        " 2026-11-23T12:00:00Z",
        "2026-11-23T24:00:00Z",
        "2026-11-23T12:60:00Z",
        "2026-11-23T12:00:60Z",
        "2026-02-29T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2026-01-00T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "1969-12-31T23:59:59.999Z",
        "1970-01-01T00:00:00+00:01",
        "2262-01-01T00:00:00Z",
        "2261-12-31T23:59:59-00:01",
        "9999-12-31T23:59:59Z",
        "+2026-11-23T12:00:00Z",
        "٢٠٢٦-11-23T12:00:00Z",
        "1795435200000",
    ],
)
def test_refused_forms(text):
    assert parse_timestamp(text) is None


@pytest.mark.parametrize("ms", [-1, END_MS])
def test_time_outside_the_years_is_not_written(ms):
    with pytest.raises(ValueError, match=f"1970 to 2261, got {ms} ms"):
        format_timestamp(ms)


def test_datetime_is_cut_to_milliseconds_not_rounded():
    moment = datetime(2026, 11, 23, 12, 0, 0, 125_999, tzinfo=UTC)
    assert to_ms(moment) == NOON + 125
