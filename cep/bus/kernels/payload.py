"""Payloads, flat JSON objects by the fields of their type, to typed columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from cep.bus.kernels.compiling import helper, inlined, kernel
from cep.bus.kernels.decimal import to_double
from cep.bus.kernels.envelope import DATA, GOOD, SLOW
from cep.bus.kernels.json_value import (
    FALSE,
    NULL,
    TRUE,
    number_parts,
    skip_blanks,
    string_end,
    texts_end,
    value_end,
    word_at,
    word_end,
)
from cep.bus.kernels.text import intern
from cep.bus.kernels.words import byte, same

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cep.bus.kernels.compiling import Bytes, Int, Places

# What may stand in a field.
FLOAT: Final = 0
INT: Final = 1
BOOL: Final = 2
TEXT: Final = 3
NON_EMPTY_TEXT: Final = 4
ANY: Final = 5
ARRAY: Final = 6
OBJECT: Final = 7
ARRAY_OF_TEXTS: Final = 8
ARRAY_OF_NON_EMPTY_TEXTS: Final = 9
BY_HAND: Final = 10  # too particular for the kernel

# Columns of `rules`, a row for each field of each slot.
NAME: Final = 0
NAME_LENGTH: Final = 1
WHAT: Final = 2
REQUIRED: Final = 3
NULLABLE: Final = 4
COLUMN: Final = 5  # -1 if nobody asked for it
GROUP: Final = 6  # which array the column is in
PLACE: Final = 7  # which row of that array
IS_PLAIN: Final = 8  # whether JSON writes the name as it is
RULE_SIZE: Final = 9

FLOATS: Final = 0
INTS: Final = 1
BOOLS: Final = 2
TEXTS: Final = 3

_ABSENT: Final = 0
_NULL: Final = 1
_FOUND: Final = 2
_INT_MAX: Final = np.uint64(2**63 - 1)


@inlined
def _value(
    data: Bytes,
    at: Int,
    end: Int,
    what: Int,
    f: Int,
    floats: NDArray[np.float64],
    ints: NDArray[np.int64],
    spans: NDArray[np.int64],
) -> Int:
    """Read a value into place ``f`` of the scratch arrays; return its end or -1."""
    if what in (FLOAT, INT):
        after, minus, mantissa, exponent, integer = number_parts(data, at, end)
        if after < 0:
            return -1
        if what == INT:
            if not integer or mantissa > _INT_MAX:
                return -1
            whole = np.int64(mantissa)
            ints[f] = -whole if minus else whole
            return after
        if integer:
            # An integer has no negative zero; one of 64 bits rounds right.
            floats[f] = np.float64(mantissa)
            if minus and mantissa > np.uint64(0):
                floats[f] = -floats[f]
            return after
        settled, number = to_double(mantissa, exponent)
        floats[f] = -number if minus else number
        return after if settled else -1
    if what == BOOL:
        word = word_at(data, at, end)
        ints[f] = 1 if word == TRUE else 0
        return word_end(at, word) if word in (TRUE, FALSE) else -1
    if what in (TEXT, NON_EMPTY_TEXT):
        if byte(data, at) != 34:
            return -1
        close, escaped = string_end(data, at + 1, end)
        if close < 0 or (what == NON_EMPTY_TEXT and close == at + 1):
            return -1
        spans[f, 0] = at + 1
        spans[f, 1] = close - at - 1
        spans[f, 2] = 1 if escaped else 0
        return close + 1
    if (what == OBJECT and data[at] != 123) or what == BY_HAND:
        return -1
    if what >= ARRAY and what != OBJECT and data[at] != 91:
        return -1
    if what in (ARRAY_OF_TEXTS, ARRAY_OF_NON_EMPTY_TEXTS):
        after = texts_end(data, at, end, what == ARRAY_OF_NON_EMPTY_TEXTS)
    else:
        after = value_end(data, at, end, np.int64(1))
    spans[f, 0] = at
    spans[f, 1] = after - at
    spans[f, 2] = 0
    return after


@helper
def _field(
    data: Bytes,
    key: Int,
    length: Int,
    names: Bytes,
    rules: Places,
    first: Int,
    count: Int,
    guess: Int,
) -> Int:
    """Return which field a key names, -1 if none; ``guess`` is tried first."""
    for i in range(count):
        f = int(guess) + i
        if f >= count:
            f -= count
        if rules[first + f, NAME_LENGTH] == length and same(
            data, key, names, rules[first + f, NAME], length
        ):
            return f
    return -1


@inlined
def _expected(
    data: Bytes, at: Int, end: Int, names: Bytes, rules: Places, rule: Int
) -> Int:
    """Return the place after a key if it names a rule's field as JSON does, or -1."""
    length = rules[rule, NAME_LENGTH]
    if (
        rules[rule, IS_PLAIN] == 0
        or at + length + 2 > end
        or byte(data, at) != 34
        or byte(data, at + length + 1) != 34
        or not same(data, at + 1, names, rules[rule, NAME], length)
    ):
        return -1
    return at + length + 2


@helper
def _key(
    data: Bytes,
    at: Int,
    end: Int,
    names: Bytes,
    rules: Places,
    first: Int,
    count: Int,
    guess: Int,
) -> tuple[Int, Int]:
    """Return (place after a key or -1, field that it names or -1)."""
    if at >= end or byte(data, at) != 34:
        return np.int64(-1), np.int64(-1)
    close, escaped = string_end(data, at + 1, end)
    if close < 0 or escaped:
        return np.int64(-1), np.int64(-1)
    length = close - at - 1
    return close + 1, _field(data, at + 1, length, names, rules, first, count, guess)


@helper
def _object(
    data: Bytes,
    at: Int,
    end: Int,
    names: Bytes,
    rules: Places,
    first: Int,
    count: Int,
    state: NDArray[np.int8],
    floats: NDArray[np.float64],
    ints: NDArray[np.int64],
    spans: NDArray[np.int64],
) -> bool:
    """Read a payload into the scratch arrays; return whether it is plainly good."""
    for f in range(count):
        state[f] = _ABSENT
    at = skip_blanks(data, at, end)
    if at >= end or byte(data, at) != 123:
        return False
    at = skip_blanks(data, at + 1, end)
    guess = 0
    if at < end and byte(data, at) == 125:
        at += 1
    else:
        while True:
            f = guess
            after = -1
            if guess < count:
                after = _expected(data, at, end, names, rules, first + guess)
            if after < 0:
                after, f = _key(data, at, end, names, rules, first, count, guess)
                if after < 0:
                    return False
            at = skip_blanks(data, after, end)
            if at >= end or byte(data, at) != 58:
                return False
            at = skip_blanks(data, at + 1, end)
            if at >= end:
                return False
            if f < 0:
                at = value_end(data, at, end, np.int64(1))
            elif state[f] != _ABSENT:
                return False
            elif byte(data, at) == 110 and word_at(data, at, end) == NULL:
                if rules[first + f, NULLABLE] == 0:
                    return False
                state[f] = _NULL
                at += 4
            else:
                what = rules[first + f, WHAT]
                at = _value(data, at, end, what, f, floats, ints, spans)
                state[f] = _FOUND
            if at < 0:
                return False
            if f >= 0:
                guess = f + 1 if f + 1 < count else 0
            at = skip_blanks(data, at, end)
            if at >= end:
                return False
            if byte(data, at) == 125:
                at += 1
                break
            if byte(data, at) != 44:
                return False
            at = skip_blanks(data, at + 1, end)
    if skip_blanks(data, at, end) != end:
        return False
    for f in range(count):
        if state[f] == _ABSENT and rules[first + f, REQUIRED] != 0:
            return False
    return True


@kernel
def decode_payloads(
    data: Bytes,
    places: Places,
    slots: NDArray[np.int32],
    names: Bytes,
    rules: Places,
    slot_fields: Places,
    status: NDArray[np.int8],
    out_floats: NDArray[np.float64],
    out_ints: NDArray[np.int64],
    out_bools: NDArray[np.bool_],
    out_codes: NDArray[np.int32],
    valid: NDArray[np.bool_],
    tables: NDArray[np.int32],
    texts: Places,
    counts: Places,
    state: NDArray[np.int8],
    floats: NDArray[np.float64],
    ints: NDArray[np.int64],
    spans: Places,
) -> None:
    """Decode the payloads of GOOD rows; rows not plainly good become SLOW.

    A row is written to the columns only when all of it is known to be good.

    Parameters
    ----------
    data
        The bytes of the reply.
    places, slots
        Of each row the ``spans`` of `decode_envelopes`, and the slot.
    names, rules
        Of each field of each slot, see the constants of this module.
    slot_fields
        Shape ``(slots, 2)``: first row in ``rules`` and number of fields.
    status
        Shape ``(n,)``; changed.
    out_floats, out_ints, out_bools, out_codes
        Shape ``(columns of that group, n)``.
    valid
        Shape ``(columns, n)``; only what is valid is set.
    tables, texts, counts
        For each column of texts, see `cep.bus.kernels.text.intern`.
    state, floats, ints, spans
        For work: as long as the type with most fields, ``spans`` three wide.
    """
    for row in range(len(status)):
        if status[row] != GOOD:
            continue
        first, count = slot_fields[slots[row], 0], slot_fields[slots[row], 1]
        start = places[row, DATA]
        end = start + places[row, DATA + 1]
        if not _object(
            data,
            start,
            end,
            names,
            rules,
            first,
            count,
            state,
            floats,
            ints,
            spans,
        ):
            status[row] = SLOW
            continue
        for f in range(count):
            column = rules[first + f, COLUMN]
            if column < 0 or state[f] != _FOUND:
                continue
            group, place = rules[first + f, GROUP], rules[first + f, PLACE]
            what = rules[first + f, WHAT]
            valid[column, row] = True
            if group == FLOATS:
                number = floats[f] if what == FLOAT else np.float64(ints[f])
                out_floats[place, row] = number
            elif group == INTS:
                out_ints[place, row] = ints[f]
            elif group == BOOLS:
                out_bools[place, row] = ints[f] != 0
            else:
                code, count_now = intern(
                    data,
                    spans[f, 0],
                    spans[f, 1],
                    spans[f, 2],
                    tables[place],
                    texts[place],
                    counts[place],
                )
                counts[place] = count_now
                out_codes[place, row] = code
