"""Entries that are like one seen before, recognised without taking them apart.

Entries of one type are alike but for some values. A shape is what one entry's bytes
are between those: the names, the headers, and the values of ``stream``, ``type`` and
``version``. An entry of a known shape is compared eight bytes at a time; only the
lengths of the other values are read. Any difference means that it is not of that
shape, which costs time and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from cep.bus.kernels.compiling import helper, inlined
from cep.bus.kernels.words import byte, eight, up_to_eight

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cep.bus.kernels.compiling import Bytes, Int, Places

SHAPES: Final = 8  # how many are kept; the oldest goes
MOST_FIELDS: Final = 16
_PARTS: Final = MOST_FIELDS + 2
_WORDS: Final = 128
_MAX_DIGITS: Final = 6
_STREAM: Final = np.uint64(int.from_bytes(b"stream", "little"))
_TYPE: Final = np.uint64(int.from_bytes(b"type", "little"))
_VERSION: Final = np.uint64(int.from_bytes(b"version", "little"))

# Columns of `parts`, what stands between the values that differ.
_FIRST_WORD: Final = 0
_LENGTH: Final = 1

# Columns of `places`: where a field's name and value are, each in a part; a value
# that differs has its number instead of a place.
_PART: Final = 0
_NAME: Final = 1
_NAME_LENGTH: Final = 2
_VALUE: Final = 3
_VALUE_LENGTH: Final = 4
_DIFFERS: Final = 5

# Columns of `sizes`.
_FIELDS: Final = 0
_PARTS_USED: Final = 1
NUMBER: Final = 2  # of all shapes ever learned, so that no two have the same

# Columns of `found`, a row for each part: where it begins, where the value after it
# begins, and that value's length.
_BEGIN: Final = 0
_AT: Final = 1
_SIZE: Final = 2

# Rows of `state`.
KNOWN: Final = 0
NEXT: Final = 1
LAST: Final = 2
_LEARNED: Final = 3


def new_shapes() -> tuple[NDArray[np.uint64], Places, Places, Places, Places, Places]:
    """Return the memory of no shapes: words, parts, places, sizes, state, found."""
    return (
        np.zeros((SHAPES, _WORDS), np.uint64),
        np.zeros((SHAPES, _PARTS, 2), np.int64),
        np.zeros((SHAPES, MOST_FIELDS, 6), np.int64),
        np.zeros((SHAPES, 3), np.int64),
        np.zeros(4, np.int64),
        np.zeros((_PARTS, 3), np.int64),
    )


@inlined
def match(
    data: Bytes,
    end: Int,
    position: Int,
    shape: Int,
    words: NDArray[np.uint64],
    parts: Places,
    sizes: Places,
    found: Places,
) -> Int:
    """Return the place after an entry of a shape, -1 if this is none.

    Fills ``found``, of which the last row has no value.
    """
    at = position
    last = sizes[shape, _PARTS_USED] - 1
    if last < 0:
        return -1
    for part in range(last + 1):
        word = parts[shape, part, _FIRST_WORD]
        rest = parts[shape, part, _LENGTH]
        if at + rest > end:
            return -1
        found[part, _BEGIN] = at
        while rest >= 8:
            if eight(data, at) != words[shape, word]:
                return -1
            at += 8
            word += 1
            rest -= 8
        if rest > 0:
            if up_to_eight(data, at, rest) != words[shape, word]:
                return -1
            at += rest
        if part == last:
            break
        size = np.int64(0)
        digits = at
        while at < end and 48 <= byte(data, at) <= 57:
            size = size * 10 + (byte(data, at) - 48)
            at += 1
            if at - digits > _MAX_DIGITS:
                return -1
        if at == digits or at + 2 > end:
            return -1
        if byte(data, at) != 13 or byte(data, at + 1) != 10:
            return -1
        at += 2
        found[part, _AT] = at
        found[part, _SIZE] = size
        # The line end after the value is the next part's beginning.
        at += size
        if at > end:
            return -1
    return at


@inlined
def fill(
    shape: Int,
    places: Places,
    sizes: Places,
    found: Places,
    fields: Places,
    used: Int,
) -> Int:
    """Write the fields of an entry that `match` has found; return how many."""
    count = sizes[shape, _FIELDS]
    for i in range(count):
        part = places[shape, i, _PART]
        begin = found[part, _BEGIN]
        fields[used + i, 0] = begin + places[shape, i, _NAME]
        fields[used + i, 1] = places[shape, i, _NAME_LENGTH]
        differs = places[shape, i, _DIFFERS]
        if differs >= 0:
            fields[used + i, 2] = found[differs, _AT]
            fields[used + i, 3] = found[differs, _SIZE]
        else:
            fields[used + i, 2] = begin + places[shape, i, _VALUE]
            fields[used + i, 3] = places[shape, i, _VALUE_LENGTH]
    return count


@helper
def _is_constant(data: Bytes, name: Int, length: Int) -> bool:
    """Return whether a field's value is part of a shape."""
    if length < 4 or length > 7:
        return False
    found = up_to_eight(data, name, length)
    return bool(found in (_STREAM, _TYPE, _VERSION))


@helper
def _value_head(data: Bytes, value: Int) -> Int:
    """Return the place of the first digit of a value's length."""
    at = value - 2
    while byte(data, at - 1) != 36:
        at -= 1
    return at


@helper
def learn(
    data: Bytes,
    position: Int,
    after: Int,
    id_offset: Int,
    id_length: Int,
    fields: Places,
    first: Int,
    count: Int,
    words: NDArray[np.uint64],
    parts: Places,
    places: Places,
    sizes: Places,
    state: Places,
) -> Int:
    """Keep the shape of an entry that was taken apart; return its number or -1.

    The entry lies from ``position`` to ``after``, its fields in their table.
    """
    if count > MOST_FIELDS:
        return -1
    shape = state[NEXT]
    state[NEXT] = (shape + 1) % SHAPES
    if state[KNOWN] < SHAPES:
        state[KNOWN] += 1
    sizes[shape, _PARTS_USED] = 0  # matches nothing until it is whole
    word = np.int64(0)
    begin = position
    part = np.int64(0)
    for i in range(-1, count + 1):
        # What ends a part: the length of the id, of a value that differs, the end.
        if i < 0:
            stop, value, length = _value_head(data, id_offset), id_offset, id_length
        elif i == count:
            stop, value, length = after, after, np.int64(0)
        else:
            row = first + i
            name, value, length = fields[row, 0], fields[row, 2], fields[row, 3]
            places[shape, i, _PART] = part
            places[shape, i, _NAME] = name - begin
            places[shape, i, _NAME_LENGTH] = fields[row, 1]
            places[shape, i, _DIFFERS] = -1
            if _is_constant(data, name, fields[row, 1]):
                places[shape, i, _VALUE] = value - begin
                places[shape, i, _VALUE_LENGTH] = length
                continue
            places[shape, i, _DIFFERS] = part
            stop = _value_head(data, value)
        size = stop - begin
        if word + size // 8 + 1 > _WORDS:
            return -1
        parts[shape, part, _FIRST_WORD] = word
        parts[shape, part, _LENGTH] = size
        at = begin
        while at < stop:
            some = stop - at if stop - at < 8 else np.int64(8)
            words[shape, word] = up_to_eight(data, at, some)
            word += 1
            at += some
        part += 1
        begin = value + length
    sizes[shape, _FIELDS] = count
    sizes[shape, _PARTS_USED] = part
    sizes[shape, NUMBER] = state[_LEARNED]
    state[_LEARNED] += 1
    state[LAST] = shape
    return sizes[shape, NUMBER]
