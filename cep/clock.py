"""Durations and clocks.

Durations are texts such as ``"60s"`` or `datetime.timedelta` at the public
edge and integers of nanoseconds inside. Code that needs the time takes a
`Clock`, so tests turn it by hand and never sleep.
"""

from __future__ import annotations

import re
import threading
import time
from datetime import timedelta
from typing import Final, Protocol

from cep.errors import InvalidDurationError

UNITS_NS: Final = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
}
_MAX_NS: Final = 2**63 - 1
_PART: Final = re.compile(r"([0-9]{1,19})(?:\.([0-9]{1,9}))?(ns|us|ms|s|m|h|d)")
_LONGEST: Final = 64


def duration_ns(
    value: str | timedelta, *, allow_zero: bool = False, whole_ms: bool = False
) -> int:
    """Return a duration in nanoseconds.

    Parameters
    ----------
    value
        A number with one of the units ns, us, ms, s, m, h, d, or several of
        them from large to small ("1m30s"), or a `timedelta`. No spaces, signs
        or exponents. A day is 24 hours.
    allow_zero
        Let a duration of nothing pass.
    whole_ms
        Refuse parts of a millisecond: event times have none.

    Raises
    ------
    InvalidDurationError
        For a bare number, a negative or zero duration, an unknown unit, parts
        of a nanosecond (or of a millisecond, see ``whole_ms``), or more than int64
        nanoseconds (292 years).

    Examples
    --------
    >>> duration_ns("1.5s")
    1500000000
    >>> duration_ns("1m30s") == duration_ns(timedelta(seconds=90))
    True
    """
    if isinstance(value, timedelta):
        total = (value.days * 86_400 + value.seconds) * 10**9
        total += value.microseconds * 1_000
    elif isinstance(value, str):
        total = _parse(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        raise InvalidDurationError(value, "a bare number says no unit")
    else:
        raise InvalidDurationError(value, "only text and timedelta are durations")
    if total < 0:
        raise InvalidDurationError(value, "it is negative")
    if total == 0 and not allow_zero:
        raise InvalidDurationError(value, "it is zero")
    if total > _MAX_NS:
        raise InvalidDurationError(value, "it is longer than 292 years")
    if whole_ms and total % UNITS_NS["ms"]:
        problem = "event times are whole milliseconds, and it has parts of one"
        raise InvalidDurationError(value, problem)
    return total


def _parse(text: str) -> int:
    position, total, last_unit = 0, 0, _MAX_NS
    if not text or len(text) > _LONGEST:
        raise InvalidDurationError(text, "it is empty or overlong")
    while position < len(text):
        part = _PART.match(text, position)
        if part is None:
            raise InvalidDurationError(text, _what_is_wrong(text))
        whole, fraction, unit_name = part.groups()
        unit = UNITS_NS[unit_name]
        if unit >= last_unit:
            raise InvalidDurationError(text, "its units must go from large to small")
        digits = fraction or ""
        scaled, rest = divmod(int(whole + digits) * unit, 10 ** len(digits))
        if rest:
            raise InvalidDurationError(text, "it has parts of a nanosecond")
        total, last_unit, position = total + scaled, unit, part.end()
    return total


def _what_is_wrong(text: str) -> str:
    if text.startswith("-"):
        return "it is negative"
    if re.fullmatch(r"[0-9]+(\.[0-9]*)?", text):
        return "a bare number says no unit"
    return f"its units must be among {', '.join(UNITS_NS)}, written without spaces"


def format_duration(ns: int) -> str:
    """Return nanoseconds as a text that `duration_ns` reads back.

    Whole minutes and above are split, except that up to 119 s stay seconds.

    >>> format_duration(60_000_000_000), format_duration(250_000_000)
    ('60s', '250ms')
    >>> format_duration(150_000_000_000), format_duration(0)
    ('2m30s', '0s')
    """
    if ns < 0:
        return "-" + format_duration(-ns)
    if ns == 0:
        return "0s"
    if ns % UNITS_NS["s"] == 0 and ns < 120 * UNITS_NS["s"]:
        return f"{ns // UNITS_NS['s']}s"
    parts = []
    for name in ("d", "h", "m", "s", "ms", "us", "ns"):
        count, ns = divmod(ns, UNITS_NS[name])
        if count:
            parts.append(f"{count}{name}")
    return "".join(parts)


class Clock(Protocol):
    """What code that needs the time may ask for."""

    def now_ns(self) -> int:
        """Return nanoseconds since 1970-01-01 in UTC; may jump."""
        ...

    def monotonic_ns(self) -> int:
        """Return nanoseconds since some fixed moment; never falls."""
        ...

    def sleep(self, seconds: float) -> None:
        """Return after this long; at once if not positive."""
        ...


class SystemClock:
    """The clock of the machine."""

    def now_ns(self) -> int:
        """Return nanoseconds since 1970-01-01 in UTC."""
        return time.time_ns()

    def monotonic_ns(self) -> int:
        """Return nanoseconds since some fixed moment."""
        return time.monotonic_ns()

    def sleep(self, seconds: float) -> None:
        """Block this thread for so long."""
        if seconds > 0:
            time.sleep(seconds)


class TestClock:
    """A clock that stands still until it is turned; sleeping turns it.

    >>> clock = TestClock(start_ns=0)
    >>> clock.advance("31s")
    >>> clock.now_ns()
    31000000000
    """

    __test__ = False  # pytest: this is not a test case

    def __init__(self, start_ns: int = 1_700_000_000_000_000_000) -> None:
        self._start = self._now = start_ns
        self._lock = threading.Lock()

    def now_ns(self) -> int:
        """Return the time it was turned to, nanoseconds since 1970 in UTC."""
        return self._now

    def monotonic_ns(self) -> int:
        """Return how far it was turned in all, in nanoseconds."""
        return self._now - self._start

    def advance(self, by: str | timedelta) -> None:
        """Turn it forward; it never goes back."""
        step = duration_ns(by, allow_zero=True)
        with self._lock:
            self._now += step

    def sleep(self, seconds: float) -> None:
        """Turn it forward by so much and return at once."""
        with self._lock:
            self._now += max(0, round(seconds * 1e9))
