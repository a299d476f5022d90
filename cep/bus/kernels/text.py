"""Bytes: UTF-8, and dictionaries of equal texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from cep.bus.kernels.compiling import helper, kernel
from cep.bus.kernels.words import byte, same, up_to_eight

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cep.bus.kernels.compiling import Bytes, Int, Places

_PROBES: Final = 32
_HASHED: Final = 64
_START: Final = np.uint64(14695981039346656037)
_FACTOR: Final = np.uint64(0x9E3779B97F4A7C15)


@helper
def utf8_step(data: Bytes, at: Int, end: Int) -> Int:
    """Return the length of the UTF-8 sequence at ``at``, 0 if it is none.

    As Python judges it: no surrogates, nothing overlong, up to U+10FFFF.
    """
    first = data[at]
    if first < 0x80:
        return 1
    if first < 0xC2 or first > 0xF4:
        return 0
    size = 2 if first < 0xE0 else (3 if first < 0xF0 else 4)
    if at + size > end:
        return 0
    second = data[at + 1]
    low, high = 0x80, 0xBF
    if first == 0xE0:
        low = 0xA0
    elif first == 0xED:
        high = 0x9F
    elif first == 0xF0:
        low = 0x90
    elif first == 0xF4:
        high = 0x8F
    if second < low or second > high:
        return 0
    for i in range(at + 2, at + size):
        if data[i] < 0x80 or data[i] > 0xBF:
            return 0
    return size


@helper
def is_utf8(data: Bytes, offset: Int, length: Int) -> bool:
    """Return whether ``length`` bytes are UTF-8."""
    at, end = offset, offset + length
    while at < end:
        if byte(data, at) < 0x80:
            at += 1
        else:
            size = utf8_step(data, at, end)
            if size == 0:
                return False
            at += size
    return True


@helper
def _hash(data: Bytes, offset: Int, length: Int) -> np.uint64:
    # Long texts differ early or late, or not at all; if they do in the middle,
    # the bound on probes keeps that from costing much.
    code = _START ^ np.uint64(length)
    at, end = offset, offset + length
    while at < end:
        some = end - at if end - at < 8 else np.int64(8)
        code = (code ^ up_to_eight(data, at, some)) * _FACTOR
        code ^= code >> np.uint64(29)
        at += some
        if at == offset + _HASHED and end - at > _HASHED:
            at = end - _HASHED
    return code ^ (code >> np.uint64(32))


@helper
def intern(
    data: Bytes,
    offset: Int,
    length: Int,
    mark: Int,
    table: NDArray[np.int32],
    spans: Places,
    count: Int,
) -> tuple[Int, Int]:
    """Return (code of a text, number of texts now), adding it if it is new.

    Texts that need many probes are added again: the caller must merge equal
    texts afterwards if ``count`` says that more were added than differ, which
    `spans` shows by a mark of 2.

    Parameters
    ----------
    mark
        Kept with a new text; equal texts with other marks differ.
    table
        Open addressing, a power of two above the number of texts; -1 is free.
    spans
        Offset, length and mark of each text.
    """
    size = len(table)
    at = np.int64(_hash(data, offset, length) & np.uint64(size - 1))
    for _ in range(_PROBES):
        code = table[at]
        if code < 0:
            table[at] = count
            spans[count, 0] = offset
            spans[count, 1] = length
            spans[count, 2] = mark
            return count, count + 1
        if (
            spans[code, 1] == length
            and spans[code, 2] == mark
            and same(data, spans[code, 0], data, offset, length)
        ):
            return np.int64(code), count
        at = (at + 1) & (size - 1)
    spans[count, 0] = offset
    spans[count, 1] = length
    spans[count, 2] = mark | 2
    return count, count + 1


@kernel
def intern_column(
    data: Bytes,
    spans_of_rows: Places,
    status: NDArray[np.int8],
    codes: NDArray[np.int32],
    valid: NDArray[np.bool_],
    table: NDArray[np.int32],
    spans: Places,
) -> Int:
    """Give each good row (status 0) the code of its text; return the texts found.

    A text of length 0 is no value.
    """
    count: Int = np.int64(0)
    for row in range(len(status)):
        length = spans_of_rows[row, 1]
        if status[row] == 0 and length > 0:
            code, count = intern(
                data, spans_of_rows[row, 0], length, np.int64(0), table, spans, count
            )
            codes[row] = code
            valid[row] = True
    return count
