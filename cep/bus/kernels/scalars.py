"""Ids, times and versions of the envelope."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from cep.bus.kernels.compiling import helper, inlined
from cep.bus.kernels.words import byte
from cep.events.ids import ALPHABET, LENGTH, MAX_TIME_MS
from cep.events.timestamps import END_MS

if TYPE_CHECKING:
    from cep.bus.kernels.compiling import Bytes, Int

_NO_LETTER: Final = 255


def _letters() -> Bytes:
    table = np.full(256, _NO_LETTER, np.uint8)
    for value, letter in enumerate(ALPHABET):
        table[ord(letter)] = value
    return table


_LETTERS: Final = _letters()
_DAYS_BEFORE: Final = np.array(
    [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365], np.int64
)


@inlined
def _letters_at(data: Bytes, at: Int, count: Int) -> tuple[Int, Int]:
    """Return the value of up to 12 letters, and bits above 31 if one is no letter."""
    value, seen = np.int64(0), np.int64(0)
    for i in range(at, at + count):
        letter = np.int64(_LETTERS[data[np.uint64(i)]])
        seen |= letter
        value = value << 5 | letter
    return value, seen


@helper
def ulid_words(
    data: Bytes, offset: Int, length: Int
) -> tuple[bool, np.uint64, np.uint64]:
    """Return (whether it is a canonical ULID, upper word, lower word)."""
    if length != LENGTH:
        return False, np.uint64(0), np.uint64(0)
    time_ms, a = _letters_at(data, offset, np.int64(10))
    upper, b = _letters_at(data, offset + 10, np.int64(8))
    lower, c = _letters_at(data, offset + 18, np.int64(8))
    hi = np.uint64(time_ms << 16 | upper >> 24)
    lo = np.uint64(upper & 0xFFFFFF) << np.uint64(40) | np.uint64(lower)
    return (a | b | c) < 32 and time_ms <= MAX_TIME_MS, hi, lo


@helper
def number(data: Bytes, offset: Int, length: Int) -> Int:
    """Return a decimal of at most 18 digits, -1 if it is none."""
    if length < 1 or length > 18:
        return -1
    value = np.int64(0)
    for i in range(offset, offset + length):
        digit = byte(data, i) - 48
        if digit < 0 or digit > 9:
            return -1
        value = value * 10 + digit
    return value


@helper
def entry_time(data: Bytes, offset: Int, length: Int) -> tuple[Int, Int]:
    """Return both parts of an entry id, -1 each if a part is above 18 digits."""
    end = offset + length
    ms = np.int64(0)
    at = offset
    while at < end and byte(data, at) != 45:
        if at - offset >= 18 or byte(data, at) < 48 or byte(data, at) > 57:
            return -1, -1
        ms = ms * 10 + (byte(data, at) - 48)
        at += 1
    seq = number(data, at + 1, end - at - 1)
    if at == offset or seq < 0:
        return -1, -1
    return ms, seq


@helper
def version(data: Bytes, offset: Int, length: Int) -> Int:
    """Return a version, -1 if it is none."""
    if length > 9 or (length > 0 and data[offset] == 48):
        return -1
    return number(data, offset, length)


@helper
def _two(data: Bytes, at: Int) -> Int:
    tens, ones = byte(data, at) - 48, byte(data, at + 1) - 48
    if tens < 0 or tens > 9 or ones < 0 or ones > 9:
        return -1
    return tens * 10 + ones


@helper
def time_of_day_ms(data: Bytes, at: Int) -> Int:
    """Return milliseconds of ``HH:MM:SS.fffZ``, below -10**9 if it is none."""
    hour, minute = _two(data, at), _two(data, at + 3)
    second, tens = _two(data, at + 6), _two(data, at + 9)
    ones = byte(data, at + 11) - 48
    if (
        (hour | minute | second | tens | ones) < 0
        or (hour > 23 or minute > 59 or second > 59 or ones > 9)
        or byte(data, at + 2) != 58
        or byte(data, at + 5) != 58
        or byte(data, at + 8) != 46
        or byte(data, at + 12) != 90
    ):
        return -2_000_000_000
    return ((hour * 60 + minute) * 60 + second) * 1000 + tens * 10 + ones


@helper
def timestamp_ms(data: Bytes, offset: Int, length: Int) -> Int:
    """Return milliseconds since 1970, -1 if this is no event time."""
    if length < 20:
        return -1
    century, year = _two(data, offset), _two(data, offset + 2)
    if century < 0 or year < 0:
        return -1
    year += century * 100
    month = _two(data, offset + 5)
    day = _two(data, offset + 8)
    hour = _two(data, offset + 11)
    minute = _two(data, offset + 14)
    second = _two(data, offset + 17)
    if (
        data[offset + 4] != 45
        or data[offset + 7] != 45
        or data[offset + 10] != 84
        or data[offset + 13] != 58
        or data[offset + 16] != 58
    ):
        return -1
    # A zone may move the first and last hours of these years into the range.
    if year < 1969 or year > 2262 or month < 1 or month > 12 or day < 1:
        return -1
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    days_in_month = _DAYS_BEFORE[month] - _DAYS_BEFORE[month - 1]
    if month == 2 and leap:
        days_in_month += 1
    if day > days_in_month:
        return -1
    if hour < 0 or hour > 23 or minute < 0 or minute > 59 or second < 0 or second > 59:
        return -1
    at, end = offset + 19, offset + length
    ms = 0
    if data[at] == 46:
        at += 1
        digits = 0
        while at < end and 48 <= data[at] <= 57:
            if digits < 3:
                ms = ms * 10 + (data[at] - 48)
            digits += 1
            at += 1
        if digits < 1 or digits > 9:
            return -1
        for _ in range(digits, 3):
            ms *= 10
    if at >= end:
        return -1
    ahead = 0
    if data[at] == 90:
        if at + 1 != end:
            return -1
    else:
        if at + 6 != end or data[at + 3] != 58:
            return -1
        if data[at] not in (43, 45):
            return -1
        zone_hour, zone_minute = _two(data, at + 1), _two(data, at + 4)
        if zone_hour < 0 or zone_hour > 23 or zone_minute < 0 or zone_minute > 59:
            return -1
        ahead = zone_hour * 60 + zone_minute
        if data[at] == 45:
            ahead = -ahead
    before = year - 1
    days = before * 365 + before // 4 - before // 100 + before // 400 - 719162
    days += _DAYS_BEFORE[month - 1] + day - 1
    if month > 2 and leap:
        days += 1
    value = ((days * 24 + hour) * 60 + minute - ahead) * 60_000 + second * 1000 + ms
    return value if 0 <= value < END_MS else -1
