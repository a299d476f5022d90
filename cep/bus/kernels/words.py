"""Bytes eight at a time, and bytes at places that cannot be negative.

Numba takes a negative index to count from the end, which costs each access a test
and keeps LLVM from joining neighbouring loads. So places are cast to unsigned ones:
eight single loads then become one. With ``NUMBA_BOUNDSCHECK`` each is checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numba.cpython.unsafe.numbers import trailing_zeros

from cep.bus.kernels.compiling import helper, inlined

if TYPE_CHECKING:
    from cep.bus.kernels.compiling import Bytes, Int

_trailing_zeros: Any = trailing_zeros
_ONES: Final = np.uint64(0x0101010101010101)
_HIGH: Final = np.uint64(0x8080808080808080)
_QUOTES: Final = np.uint64(0x2222222222222222)
_BACKSLASHES: Final = np.uint64(0x5C5C5C5C5C5C5C5C)
_BLANKS: Final = np.uint64(0x2020202020202020)
_ALL: Final = np.uint64(0xFFFFFFFFFFFFFFFF)


@inlined
def byte(data: Bytes, at: Int) -> Int:
    """Return the byte at a place of at least 0."""
    return np.int64(data[np.uint64(at)])


@inlined
def eight(data: Bytes, at: Int) -> np.uint64:
    """Return eight bytes as a number, the first one lowest; all must be there."""
    u = np.uint64(at)
    return (
        np.uint64(data[u])
        | np.uint64(data[u + np.uint64(1)]) << np.uint64(8)
        | np.uint64(data[u + np.uint64(2)]) << np.uint64(16)
        | np.uint64(data[u + np.uint64(3)]) << np.uint64(24)
        | np.uint64(data[u + np.uint64(4)]) << np.uint64(32)
        | np.uint64(data[u + np.uint64(5)]) << np.uint64(40)
        | np.uint64(data[u + np.uint64(6)]) << np.uint64(48)
        | np.uint64(data[u + np.uint64(7)]) << np.uint64(56)
    )


@inlined
def up_to_eight(data: Bytes, at: Int, length: Int) -> np.uint64:
    """Return ``length`` bytes, 1 to 8, as `eight` with zeros above them."""
    if at + 8 <= len(data):
        return eight(data, at) & (_ALL >> np.uint64(64 - 8 * length))
    word = np.uint64(0)
    for i in range(length):
        word |= np.uint64(data[np.uint64(at + i)]) << np.uint64(8 * i)
    return word


@inlined
def same(data: Bytes, offset: Int, other: Bytes, start: Int, length: Int) -> Any:
    """Return whether ``length`` bytes are equal; both ranges must be in bounds."""
    at = np.int64(0)
    while at + 8 <= length:
        if eight(data, offset + at) != eight(other, start + at):
            return False
        at += 8
    if at == length:
        return True
    rest = length - at
    return up_to_eight(data, offset + at, rest) == up_to_eight(other, start + at, rest)


@helper
def plain_until(data: Bytes, at: Int, end: Int) -> Int:
    """Return the place of the first byte that is not plain in a JSON string, or end.

    That is a quote, a backslash, a control character, or no ASCII.
    """
    while at + 8 <= end:
        word = eight(data, at)
        quotes, backslashes = word ^ _QUOTES, word ^ _BACKSLASHES
        marked = (
            ((quotes - _ONES) & ~quotes)
            | ((backslashes - _ONES) & ~backslashes)
            | ((word - _BLANKS) & ~word)
            | word
        ) & _HIGH
        # A borrow can mark bytes falsely, but only above a true mark.
        if marked != np.uint64(0):
            return at + np.int64(_trailing_zeros(marked) >> np.uint64(3))
        at += 8
    while at < end:
        found = byte(data, at)
        if found == 34 or found == 92 or found < 32 or found >= 128:
            break
        at += 1
    return at
