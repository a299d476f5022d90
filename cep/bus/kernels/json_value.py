"""JSON values: strings and numbers found, anything nested checked and skipped.

These accept less than RFC 8259 and never more: -1 means not JSON, or JSON that
is left to the slow path (escaped surrogates, numbers too odd to be quick).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from cep.bus.kernels.compiling import helper
from cep.bus.kernels.text import utf8_step
from cep.bus.kernels.words import byte, plain_until
from cep.events.json_text import MAX_DEPTH

if TYPE_CHECKING:
    from cep.bus.kernels.compiling import Bytes, Int

_QUOTE: Final = 34
_BACKSLASH: Final = 92
_COMMA: Final = 44
_COLON: Final = 58
_OPEN_LIST: Final = 91
_CLOSE_LIST: Final = 93
_NULL: Final = int.from_bytes(b"null")
_TRUE: Final = int.from_bytes(b"true")
_FALS: Final = int.from_bytes(b"fals")
_OPEN: Final = 123
_CLOSE: Final = 125

# A double has no more than 17 significant digits that matter; 19 fit 64 bits.
MAX_MANTISSA_DIGITS: Final = 19
_MAX_EXPONENT: Final = 400


@helper
def skip_blanks(data: Bytes, at: Int, end: Int) -> Int:
    """Return the place of the next byte that is not JSON's white space."""
    while at < end:
        found = byte(data, at)
        if found > 32 or (found != 32 and found != 10 and found != 13 and found != 9):
            break
        at += 1
    return at


@helper
def _hex(letter: Int) -> Int:
    if 48 <= letter <= 57:
        return letter - 48
    if 65 <= letter <= 70:
        return letter - 55
    if 97 <= letter <= 102:
        return letter - 87
    return -1


@helper
def _escape(data: Bytes, at: Int, end: Int) -> Int:
    """Return the place after the escape whose backslash is at ``at``, or -1."""
    if at + 1 >= end:
        return -1
    kind = data[at + 1]
    if kind in (_QUOTE, _BACKSLASH, 47, 98, 102, 110, 114, 116):
        return at + 2
    if kind != 117 or at + 6 > end:
        return -1
    code = 0
    for i in range(at + 2, at + 6):
        digit = _hex(data[i])
        if digit < 0:
            return -1
        code = code * 16 + digit
    # Pairs of surrogates are for the slow path to judge.
    return -1 if 0xD800 <= code <= 0xDFFF else at + 6


@helper
def string_end(data: Bytes, at: Int, end: Int) -> tuple[Int, bool]:
    """Return (place of the closing quote or -1, whether there are escapes).

    ``at`` is the place after the opening quote.
    """
    escaped = False
    while True:
        at = plain_until(data, at, end)
        if at >= end:
            break
        found = byte(data, at)
        if found == _QUOTE:
            return at, escaped
        if found < 32:
            return -1, escaped
        if found == _BACKSLASH:
            escaped = True
            at = _escape(data, at, end)
            if at < 0:
                return -1, escaped
        else:
            size = utf8_step(data, at, end)
            if size == 0:
                return -1, escaped
            at += size
    return -1, escaped


@helper
def _leading_zeros(data: Bytes, at: Int, end: Int) -> Int:
    """Return how many digits of a number come before the first that is not zero."""
    zeros = np.int64(0)
    while at < end and byte(data, at) in (46, 48):
        if byte(data, at) == 48:
            zeros += 1
        at += 1
    return zeros


@helper
def number_parts(
    data: Bytes, at: Int, end: Int
) -> tuple[Int, bool, np.uint64, Int, bool]:
    """Return (place after a number or -1, minus, mantissa, exponent, is integer).

    The number is ``mantissa * 10**exponent``; it is an integer if written
    without point and exponent.
    """
    minus = False
    mantissa = np.uint64(0)
    failed = (-1, False, mantissa, 0, False)
    if at < end and byte(data, at) == 45:
        minus = True
        at += 1
    first = at
    while at < end and 48 <= byte(data, at) <= 57:
        mantissa = mantissa * np.uint64(10) + np.uint64(byte(data, at) - 48)
        at += 1
    digits = at - first
    if digits == 0 or (digits > 1 and byte(data, first) == 48):
        return failed
    integer = True
    exponent = 0
    if at < end and byte(data, at) == 46:
        integer = False
        at += 1
        point = at
        while at < end and 48 <= byte(data, at) <= 57:
            mantissa = mantissa * np.uint64(10) + np.uint64(byte(data, at) - 48)
            at += 1
        if at == point:
            return failed
        exponent = point - at
        digits += at - point
    if digits > MAX_MANTISSA_DIGITS:
        # The mantissa may have gone round, even to zero, if they are not zeros.
        digits -= _leading_zeros(data, first, at)
        if digits > MAX_MANTISSA_DIGITS:
            return failed
    if at < end and (byte(data, at) == 101 or byte(data, at) == 69):
        integer = False
        at += 1
        below = False
        if at < end and (data[at] == 43 or data[at] == 45):
            below = data[at] == 45
            at += 1
        first = at
        written = 0
        while at < end and 48 <= byte(data, at) <= 57:
            if written <= _MAX_EXPONENT:
                written = written * 10 + (byte(data, at) - 48)
            at += 1
        if at == first:
            return failed
        exponent += -written if below else written
    if exponent < -_MAX_EXPONENT or exponent > _MAX_EXPONENT:
        return failed
    return at, minus, mantissa, exponent, integer


NULL: Final = 4
FALSE: Final = 5
TRUE: Final = 6


@helper
def word_at(data: Bytes, at: Int, end: Int) -> Int:
    """Return NULL, FALSE or TRUE if that word stands at ``at``, else 0."""
    if at + 4 > end:
        return 0
    code = 0
    for i in range(at, at + 4):
        code = code << 8 | data[i]
    if code == _NULL:
        return NULL
    if code == _TRUE:
        return TRUE
    if code == _FALS and at + 5 <= end and data[at + 4] == 101:
        return FALSE
    return 0


@helper
def word_end(at: Int, word: Int) -> Int:
    """Return the place after the word that `word_at` found."""
    return at + 5 if word == FALSE else at + 4


@helper
def _scalar_end(data: Bytes, at: Int, end: Int) -> Int:
    """Return the place after a scalar, or -1."""
    found = byte(data, at)
    if found == _QUOTE:
        close, _ = string_end(data, at + 1, end)
        return close + 1 if close >= 0 else -1
    if found >= 97:
        word = word_at(data, at, end)
        return word_end(at, word) if word > 0 else -1
    after, _, mantissa, exponent, _ = number_parts(data, at, end)
    # Beyond the largest double a number makes the text malformed.
    if after >= 0 and mantissa > np.uint64(0) and exponent > 280:
        return -1
    return after


@helper
def _member_start(data: Bytes, at: Int, end: Int) -> Int:
    """Return the place of a member's value, or -1; ``at`` is before its key."""
    at = skip_blanks(data, at, end)
    if at >= end or data[at] != _QUOTE:
        return -1
    close, _ = string_end(data, at + 1, end)
    if close < 0:
        return -1
    at = skip_blanks(data, close + 1, end)
    if at >= end or data[at] != _COLON:
        return -1
    return at + 1


@helper
def value_end(data: Bytes, at: Int, end: Int, outer: Int) -> Int:
    """Return the place after a value of any kind, or -1.

    ``outer`` is how many brackets it stands in already.
    """
    kinds = np.uint64(0)  # a bit for each open bracket, 1 for an object
    depth = 0
    while True:
        at = skip_blanks(data, at, end)
        if at >= end:
            return -1
        found = byte(data, at)
        if found in (_OPEN, _OPEN_LIST):
            depth += 1
            if depth + outer > MAX_DEPTH:
                return -1
            kinds <<= np.uint64(1)
            if found == _OPEN:
                kinds |= np.uint64(1)
            inner = skip_blanks(data, at + 1, end)
            if inner >= end:
                return -1
            if data[inner] == _CLOSE or data[inner] == _CLOSE_LIST:
                at = inner
            elif found == _OPEN:
                at = _member_start(data, inner, end)
                if at < 0:
                    return -1
                continue
            else:
                at = inner
                continue
        else:
            at = _scalar_end(data, at, end)
            if at < 0:
                return -1
        # After a value, or at the bracket that closes an empty one.
        while depth > 0:
            at = skip_blanks(data, at, end)
            if at >= end:
                return -1
            is_object = kinds & np.uint64(1) == np.uint64(1)
            found = byte(data, at)
            if found == _COMMA:
                at += 1
                if is_object:
                    at = _member_start(data, at, end)
                    if at < 0:
                        return -1
                break
            if found != (_CLOSE if is_object else _CLOSE_LIST):
                return -1
            depth -= 1
            kinds >>= np.uint64(1)
            at += 1
        else:
            return at


@helper
def texts_end(data: Bytes, at: Int, end: Int, non_empty: bool) -> Int:
    """Return the place after a list of nothing but strings, or -1."""
    at = skip_blanks(data, at + 1, end)
    if at < end and data[at] == _CLOSE_LIST:
        return at + 1
    while at < end:
        if data[at] != _QUOTE:
            return -1
        close, _ = string_end(data, at + 1, end)
        if close < 0 or (non_empty and close == at + 1):
            return -1
        at = skip_blanks(data, close + 1, end)
        if at >= end:
            return -1
        if data[at] == _CLOSE_LIST:
            return at + 1
        if data[at] != _COMMA:
            return -1
        at = skip_blanks(data, at + 1, end)
    return -1
