"""Rows of text from one template: words with holes, each row filling them anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from cep.bus.kernels.compiling import inlined, kernel
from cep.bus.kernels.words import eight
from cep.events.ids import ALPHABET, LENGTH

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cep.bus.kernels.compiling import Bytes, Int, Places

LITERAL: Final = 0  # offset and length in the data
HOLE: Final = 1  # its number
WORD: Final = 2  # the part after its last, the length of its literals
HEAD_BYTES: Final = 16  # at least those of a word's length as it is written

_LETTERS: Final = np.frombuffer(ALPHABET.encode(), np.uint8)


@kernel
def write_ulids(
    out: NDArray[np.uint8], hi: NDArray[np.uint64], lo: NDArray[np.uint64]
) -> None:
    """Fill ``out``, shape ``(n, 26)``, with ids given as upper and lower words."""
    for row in range(len(out)):
        upper, lower = hi[row], lo[row]
        for i in range(LENGTH - 1, -1, -1):
            out[row, i] = _LETTERS[lower & np.uint64(31)]
            lower = lower >> np.uint64(5) | upper << np.uint64(59)
            upper >>= np.uint64(5)


@inlined
def _digits(out: NDArray[np.uint8], row: Int, begin: Int, end: Int, value: Int) -> None:
    for i in range(end - 1, begin - 1, -1):
        out[row, i] = 48 + value % 10
        value //= 10


@kernel
def write_timestamps(out: NDArray[np.uint8], time_ms: Places) -> None:
    """Fill ``out``, shape ``(n, 24)``, with times as ``2023-11-14T22:13:20.000Z``.

    From 1970 to 9999. Days to a date: H. Hinnant, "chrono-compatible low-level date
    algorithms", civil_from_days, in which years begin in March.
    """
    for row in range(len(out)):
        ms = time_ms[row]
        days = ms // 86_400_000 + 719_468
        era = days // 146_097
        day = days - era * 146_097
        year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
        day -= 365 * year + year // 4 - year // 100
        month = (5 * day + 2) // 153
        _digits(out, row, np.int64(8), np.int64(10), day - (153 * month + 2) // 5 + 1)
        month = month + 3 if month < 10 else month - 9
        year += era * 400 + (1 if month <= 2 else 0)
        _digits(out, row, np.int64(0), np.int64(4), year)
        _digits(out, row, np.int64(5), np.int64(7), month)
        ms %= 86_400_000
        _digits(out, row, np.int64(11), np.int64(13), ms // 3_600_000)
        _digits(out, row, np.int64(14), np.int64(16), ms // 60_000 % 60)
        _digits(out, row, np.int64(17), np.int64(19), ms // 1000 % 60)
        _digits(out, row, np.int64(20), np.int64(23), ms % 1000)
        out[row, 4] = out[row, 7] = 45
        out[row, 10], out[row, 13], out[row, 16] = 84, 58, 58
        out[row, 19], out[row, 23] = 46, 90


@inlined
def _copy(out: Bytes, at: Int, data: Bytes, offset: Int, length: Int) -> Int:
    end, stop = at + length, offset + length
    while offset + 8 <= stop:
        word = eight(data, offset)
        for i in range(8):
            out[np.uint64(at + i)] = np.uint8(word >> np.uint64(8 * i))
        at += 8
        offset += 8
    while at < end:
        out[np.uint64(at)] = data[np.uint64(offset)]
        at += 1
        offset += 1
    return end


@inlined
def _head(out: Bytes, at: Int, length: Int) -> Int:
    """Write ``$``, a number and a line end; return the place after them."""
    digits, power = np.int64(1), np.int64(10)
    while length >= power:
        digits += 1
        power *= 10
    out[np.uint64(at)] = 36
    rest = length
    for i in range(digits, 0, -1):
        out[np.uint64(at + i)] = 48 + rest % 10
        rest //= 10
    at += digits + 1
    out[np.uint64(at)] = 13
    out[np.uint64(at + 1)] = 10
    return at + 2


@kernel
def write_rows(
    out: Bytes,
    ends: Places,
    data: Bytes,
    program: Places,
    spans: NDArray[np.int64],
) -> None:
    """Write a row for each set of holes, one after the other.

    Parameters
    ----------
    out
        Must have room for all: of each row the literals, what goes into the holes,
        and `HEAD_BYTES` a word.
    ends
        Shape ``(n,)``: filled with where each row ends.
    program
        Shape ``(parts, 3)``: kind of a part and what it says, see the constants.
        A word begins with its length, as a part of a Redis command.
    spans
        Shape ``(holes, n, 2)``: offset and length in ``data`` of what goes into
        each row's holes.
    """
    at = np.int64(0)
    for row in range(len(ends)):
        for i in range(len(program)):
            kind, a, b = program[i, 0], program[i, 1], program[i, 2]
            if kind == LITERAL:
                at = _copy(out, at, data, a, b)
            elif kind == HOLE:
                at = _copy(out, at, data, spans[a, row, 0], spans[a, row, 1])
            else:
                length = b
                for j in range(i + 1, a):
                    if program[j, 0] == HOLE:
                        length += spans[program[j, 1], row, 1]
                at = _head(out, at, length)
        ends[row] = at
