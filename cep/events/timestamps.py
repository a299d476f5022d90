"""Event times as text: the one place that reads and writes them.

Written always as ``2026-11-23T09:30:00.125Z``: UTC, milliseconds, ``Z``.
Read in the forms of this table; anything else is refused:

======================================  =======================================
``YYYY-MM-DDTHH:MM:SS``                 ``T`` upper case; a date that exists;
                                        hour to 23, minute and second to 59
                                        (no leap second)
``.f`` up to ``.fffffffff``, optional   digits beyond milliseconds are cut off,
                                        not rounded; no comma, no lone point
``Z`` or ``+HH:MM`` or ``-HH:MM``       required; ``z``, ``+0000`` and ``+00``
                                        are refused; to 23:59
======================================  =======================================

The instant must lie from 1970-01-01 to the end of 2261 in UTC, so that it
fits into 64 bits of nanoseconds.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Final

DAY_MS: Final = 86_400_000
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
END_MS: Final = (date(2262, 1, 1) - date(1970, 1, 1)).days * DAY_MS
"""The first millisecond that is no event time, 2262-01-01 in UTC."""

ALLOWED: Final = (
    "an ISO 8601 time with zone such as '2026-11-23T09:30:00.125Z', years 1970 to 2261"
)

_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_FORM: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})"
    r"(?:\.([0-9]{1,9}))?(?:Z|([+-])([0-9]{2}):([0-9]{2}))"
)


def parse_timestamp(text: str) -> int | None:
    """Return milliseconds since 1970 in UTC, None if the text is no event time.

    >>> parse_timestamp("1970-01-01T01:00:00.0259+01:00")
    25
    >>> parse_timestamp("2026-02-30T00:00:00Z") is None
    True
    """
    form = _FORM.fullmatch(text)
    if form is None:
        return None
    year, month, day, hour, minute, second = map(int, form.group(1, 2, 3, 4, 5, 6))
    fraction, sign, zone_hour, zone_minute = form.group(7, 8, 9, 10)
    if hour > 23 or minute > 59 or second > 59:
        return None
    try:
        days = date(year, month, day).toordinal() - _EPOCH_DAY
    except ValueError:
        return None
    if sign:
        if int(zone_hour) > 23 or int(zone_minute) > 59:
            return None
        ahead = int(zone_hour) * 60 + int(zone_minute)
        minute -= ahead if sign == "+" else -ahead
    ms = ((days * 24 + hour) * 60 + minute) * 60_000 + second * 1000
    ms += int((fraction or "").ljust(3, "0")[:3])
    return ms if 0 <= ms < END_MS else None


def format_timestamp(time_ms: int) -> str:
    """Return an event time as it is written.

    >>> format_timestamp(25)
    '1970-01-01T00:00:00.025Z'
    """
    if not 0 <= time_ms < END_MS:
        msg = f"an event time must lie in the years 1970 to 2261, got {time_ms!r} ms"
        raise ValueError(msg)
    days, ms = divmod(int(time_ms), DAY_MS)
    seconds, ms = divmod(ms, 1000)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return f"{_day(days)}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z"


@lru_cache(maxsize=64)
def _day(days: int) -> str:
    return date.fromordinal(_EPOCH_DAY + days).isoformat()


def to_ms(moment: datetime) -> int:
    """Return an aware datetime as milliseconds since 1970, cutting off the rest."""
    return (moment - EPOCH) // timedelta(milliseconds=1)


def from_ms(time_ms: int) -> datetime:
    """Return milliseconds since 1970 as a datetime in UTC."""
    return EPOCH + timedelta(milliseconds=int(time_ms))
