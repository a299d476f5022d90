"""From when to when: the ends of what is loaded.

======================================  =======================================
an end given as                         means
======================================  =======================================
aware `datetime`, or ISO 8601 text      that instant; text without a zone is
                                        UTC, a `datetime` without one refused
`date`                                  midnight UTC
``"-15m"``, negative `timedelta`        so long before the newest entry there is
``"ms-seq"``, ``"ms"``                  an entry id, as ``XRANGE`` takes it
``"(ms-seq"``                           the same, but without that entry
======================================  =======================================

Instants select ``start <= arrival < end``, so spans that meet share no entry.
Entry ids select both ends, as ``XRANGE`` does. Arrival is known to the
millisecond.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeAlias

from cep.clock import duration_ns
from cep.errors import UsageError, shown
from cep.events.timestamps import EPOCH

if TYPE_CHECKING:
    from collections.abc import Callable

End: TypeAlias = datetime | date | timedelta | str
EntryId: TypeAlias = tuple[int, int]

FIRST: Final = (0, 0)
LAST: Final = (2**64 - 1, 2**64 - 1)
_ENTRY_ID: Final = re.compile(r"(\()?([0-9]{1,20})(?:-([0-9]{1,20}))?")
_NS_PER_MS: Final = 1_000_000


def entry_span(
    start: End | None, end: End | None, newest_ms: Callable[[], int]
) -> tuple[EntryId, EntryId]:
    """Return the first and the last entry id to take, both included.

    ``newest_ms`` is called if an end is relative.

    >>> entry_span("1970-01-01T00:00:05Z", "1970-01-01T00:00:06", lambda: 0)
    ((5000, 0), (5999, 18446744073709551615))
    >>> entry_span("-2s", None, lambda: 10_000)[0]
    (8000, 0)
    """
    first = FIRST if start is None else _first(start, newest_ms)
    last = LAST if end is None else _last(end, newest_ms)
    return first, last


def _first(start: End, newest_ms: Callable[[], int]) -> EntryId:
    found = _parsed_id(start)
    if found is None:
        return max(0, _instant_ms(start, "start", newest_ms)), 0
    excluded, ms, seq = found
    if not excluded:
        return ms, seq or 0
    return (ms + 1, 0) if seq in (None, LAST[1]) else (ms, (seq or 0) + 1)


def _last(end: End, newest_ms: Callable[[], int]) -> EntryId:
    found = _parsed_id(end)
    if found is None:
        return _instant_ms(end, "end", newest_ms) - 1, LAST[1]
    excluded, ms, seq = found
    if not excluded:
        return ms, LAST[1] if seq is None else seq
    return (ms, seq - 1) if seq else (ms - 1, LAST[1])


def _parsed_id(given: End) -> tuple[bool, int, int | None] | None:
    match = _ENTRY_ID.fullmatch(given) if isinstance(given, str) else None
    if match is None:
        return None
    ms, seq = int(match[2]), None if match[3] is None else int(match[3])
    if ms > LAST[0] or (seq or 0) > LAST[1]:
        raise UsageError(f"{given!r} is no entry id: too large.", "Write ms-seq.")
    return bool(match[1]), ms, seq


def _instant_ms(given: End, name: str, newest_ms: Callable[[], int]) -> int:
    back = _duration_back(given, name)
    if back is not None:
        return newest_ms() - back // _NS_PER_MS
    return time_ms_of(given, name)


def _duration_back(given: End, name: str) -> int | None:
    if isinstance(given, timedelta):
        if given > timedelta(0):
            raise UsageError(
                f"{name} is {given}, after the newest entry.", "Pass a negative one."
            )
        return duration_ns(-given, allow_zero=True)
    if isinstance(given, str) and given.startswith("-"):
        return duration_ns(given[1:], allow_zero=True)
    return None


def time_ms_of(given: End, name: str) -> int:
    """Return an instant as milliseconds since 1970 in UTC, rounded up.

    >>> time_ms_of("1970-01-01 00:00:01.0001Z", "start")
    1001

    Raises
    ------
    UsageError
        If it is none, or a `datetime` without a zone.
    """
    moment: object = given
    if isinstance(given, str):
        try:
            moment = datetime.fromisoformat(given)
        except ValueError:
            moment = None
        if isinstance(moment, datetime) and moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
    elif isinstance(given, date) and not isinstance(given, datetime):
        moment = datetime(given.year, given.month, given.day, tzinfo=UTC)
    if not isinstance(moment, datetime):
        raise UsageError(
            f"{name} is {shown(given)}, which is no time.",
            "Pass an aware datetime, ISO 8601 text such as '2026-11-23T09:30Z', "
            "'-15m' for so long before the newest entry, or an entry id.",
        )
    if moment.tzinfo is None:
        raise UsageError(
            f"{name} is {moment.isoformat()}, a datetime without a zone.",
            "Say which: datetime(..., tzinfo=UTC).",
        )
    return -((EPOCH - moment) // timedelta(milliseconds=1))
