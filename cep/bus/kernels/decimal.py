"""Decimal to double, correctly rounded.

Short numbers are exact products or quotients of two doubles. Others go through
a 128-bit product with a power of five, which settles nearly all; what it does
not settle, and everything at the ends of the range, is left to the slow path.

Source: W. D. Clinger, "How to read floating point numbers accurately", PLDI
1990; D. Lemire, "Number parsing at a gigabyte per second", Software: Practice
and Experience 51(8), 2021.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from cep.bus.kernels.compiling import helper

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SMALLEST: Final = -300
_LARGEST: Final = 280
_EXACT: Final = 22  # 10**22 is the last power of ten that a double holds
_EXACT_MANTISSA: Final = np.uint64(2**53)
# To here a reciprocal is rounded up, so that a half is never taken for less.
_LAST_ROUNDED_UP: Final = -27
_ALL: Final = np.uint64(2**64 - 1)
_LOW: Final = np.uint64(2**32 - 1)
_32: Final = np.uint64(32)
# Of the upper word of a product, the bits below mantissa, rounding bit and the
# two that may be lost: if they are all set, the product needs its second half.
_SPARE: Final = np.uint64((1 << 9) - 1)


def _powers_of_five() -> NDArray[np.uint64]:
    """Return the upper and lower word of 5**q, its first bit at the top."""
    table = np.empty((_LARGEST - _SMALLEST + 1, 2), np.uint64)
    for row, q in enumerate(range(_SMALLEST, _LARGEST + 1)):
        power = 5 ** abs(q)
        if q >= 0:
            shift = 128 - power.bit_length()
            word = power << shift if shift >= 0 else power >> -shift
        elif q >= _LAST_ROUNDED_UP:
            word = (1 << ((power - 1).bit_length() + 127)) // power + 1
        else:
            bits = (power - 1).bit_length()
            word = (1 << (2 * bits + 128)) // power + 1
            word >>= word.bit_length() - 128
        table[row] = word >> 64, word & (2**64 - 1)
    return table


_FIVES: Final = _powers_of_five()
_TENS: Final = np.array([10.0**i for i in range(_EXACT + 1)])


@helper
def _product(a: np.uint64, b: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Return the upper and lower word of a product of two words."""
    a_hi, a_lo = a >> _32, a & _LOW
    b_hi, b_lo = b >> _32, b & _LOW
    low = a_lo * b_lo
    middle = a_hi * b_lo + (low >> _32)
    other = a_lo * b_hi + (middle & _LOW)
    return a_hi * b_hi + (middle >> _32) + (other >> _32), a * b


@helper
def _leading_zeros(word: np.uint64) -> int:
    zeros = 0
    for step in (32, 16, 8, 4, 2, 1):
        if word >> np.uint64(64 - step) == np.uint64(0):
            word <<= np.uint64(step)
            zeros += step
    return zeros


@helper
def to_double(mantissa: np.uint64, exponent: int) -> tuple[bool, float]:
    """Return (whether it is settled, ``mantissa * 10**exponent`` as a double).

    ``mantissa`` is a uint64.
    """
    if mantissa == np.uint64(0):
        return True, 0.0
    if mantissa <= _EXACT_MANTISSA and -_EXACT <= exponent <= _EXACT:
        value = np.float64(mantissa)
        if exponent < 0:
            return True, value / _TENS[-exponent]
        return True, value * _TENS[exponent]
    if exponent < _SMALLEST or exponent > _LARGEST:
        return False, 0.0
    zeros = _leading_zeros(mantissa)
    word = mantissa << np.uint64(zeros)
    row = exponent - _SMALLEST
    high, low = _product(word, _FIVES[row, 0])
    if high & _SPARE == _SPARE:
        more, _ = _product(word, _FIVES[row, 1])
        low += more
        if more > low:
            high += np.uint64(1)
        if low == _ALL and (exponent < -27 or exponent > 55):
            return False, 0.0
    top = np.int64(high >> np.uint64(63))
    shift = np.uint64(top + 9)
    bits = high >> shift
    power = ((217706 * exponent) >> 16) + 63 + top - zeros + 1023
    if power <= 0 or power >= 2046:
        return False, 0.0
    half = bits & np.uint64(3) == np.uint64(1) and (bits << shift) == high
    if low <= np.uint64(1) and half and -4 <= exponent <= 23:
        # Exactly between two doubles: to even.
        bits &= ~np.uint64(1)
    bits += bits & np.uint64(1)
    bits >>= np.uint64(1)
    return True, math.ldexp(np.float64(bits), power - 1075)  # type: ignore[arg-type]
