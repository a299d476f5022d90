"""The nine fields of each entry, all but the payload."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from cep.bus.kernels.compiling import helper, kernel
from cep.bus.kernels.json_value import skip_blanks, value_end
from cep.bus.kernels.scalars import (
    entry_time,
    time_of_day_ms,
    timestamp_ms,
    ulid_words,
    version,
)
from cep.bus.kernels.text import is_utf8
from cep.bus.kernels.words import byte, eight, same
from cep.events.codec import FIELDS, MAX_ENTRY_BYTES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cep.bus.kernels.compiling import Bytes, Int, Places

GOOD: Final = 0
SLOW: Final = 1

# Columns of `spans`, two each: offset and length.
CORRELATION_ID: Final = 0
USER_ID: Final = 2
METADATA: Final = 4
DATA: Final = 6
SPANS: Final = 8

_NINE: Final = len(FIELDS)
_NAMES: Final = np.frombuffer(bytearray("".join(FIELDS).encode()), np.uint8)
_ENDS: Final = np.cumsum([len(name) for name in FIELDS])
_NAMES_SIZE: Final = sum(map(len, FIELDS))
_WRITTEN: Final = len("2026-11-23T09:30:00.125Z")
_DAY_MS: Final = 86_400_000


@helper
def _place(data: Bytes, offset: Int, length: Int, guess: Int) -> Int:
    """Return which of the nine this name is, -1 if none; ``guess`` is tried first."""
    for i in range(_NINE):
        at = (guess + i) % _NINE
        start = _ENDS[at - 1] if at > 0 else 0
        if _ENDS[at] - start == length:
            # Not `same`: a constant array is a kind of array of its own.
            same_bytes = 0
            while (
                same_bytes < length
                and data[offset + same_bytes] == _NAMES[start + same_bytes]
            ):
                same_bytes += 1
            if same_bytes == length:
                return at
    return -1


@helper
def _is_object(data: Bytes, offset: Int, length: Int) -> bool:
    if length == 2 and data[offset] == 123 and data[offset + 1] == 125:
        return True
    end = offset + length
    at = skip_blanks(data, offset, end)
    if at >= end or data[at] != 123:
        return False
    at = value_end(data, at, end, np.int64(0))
    return bool(at >= 0 and skip_blanks(data, at, end) == end)


@kernel
def decode_envelopes(
    data: Bytes,
    entries: Places,
    fields: Places,
    stream: Bytes,
    type_names: Bytes,
    type_table: Places,
    tolerance_ms: Int,
    status: NDArray[np.int8],
    times: NDArray[np.int64],
    ids: NDArray[np.uint64],
    slots: NDArray[np.int32],
    spans: Places,
    value: Places,
    order: Places,
) -> None:
    """Decode the envelopes that are plainly good; leave the others SLOW.

    Parameters
    ----------
    data, entries, fields
        As in `cep.bus.page.Entries`.
    stream
        The key in UTF-8.
    type_names, type_table
        Each slot's offset and length in the names, and version.
    tolerance_ms
        How far event time may lie after arrival, -1: any.
    status
        Shape ``(n,)``; becomes GOOD or SLOW.
    times
        Shape ``(3, n)``: both parts of the entry id, event time.
    ids
        Shape ``(2, n)``: upper and lower word of the event id.
    slots
        Shape ``(n,)``.
    spans
        Shape ``(n, SPANS)``: where the other fields lie.
    value, order
        Shapes ``(9, 2)`` and ``(9,)``, for work.
    """
    slot = 0
    day, days, day_ms = np.uint64(0), np.uint64(0), np.int64(0)
    last_shape, last_slot = np.int64(-1), 0
    for row in range(len(entries)):
        status[row] = SLOW
        first, count = entries[row, 2], entries[row, 3]
        if count != _NINE:
            continue
        # Of the shape of a row that was good: its names, stream, type and version.
        shape = entries[row, 4]
        is_like_last = shape >= 0 and shape == last_shape
        size = _NAMES_SIZE
        if is_like_last:
            for which in range(_NINE):
                field = first + order[which]
                value[which, 0] = fields[field, 2]
                value[which, 1] = fields[field, 3]
                size += fields[field, 3]
        else:
            seen = 0
            for i in range(_NINE):
                name, name_length = fields[first + i, 0], fields[first + i, 1]
                which = _place(data, name, name_length, i)
                if which < 0:
                    break
                seen |= 1 << which
                order[which] = i
                value[which, 0] = fields[first + i, 2]
                value[which, 1] = fields[first + i, 3]
                size += fields[first + i, 3]
            last_shape = np.int64(-1)
            if seen != (1 << _NINE) - 1:
                continue
        if size > MAX_ENTRY_BYTES:
            continue
        ms, seq = entry_time(data, entries[row, 0], entries[row, 1])
        is_ulid, hi, lo = ulid_words(data, value[0, 0], value[0, 1])
        at, length = value[4, 0], value[4, 1]
        if (
            length == _WRITTEN
            and eight(data, at) == day
            and eight(data, at + 3) == days
        ):
            time_ms = day_ms + time_of_day_ms(data, at + 11)
            if time_ms < day_ms:
                continue
        else:
            time_ms = timestamp_ms(data, at, length)
            if length == _WRITTEN and time_ms >= 0 and byte(data, at + 23) == 90:
                day, days = eight(data, at), eight(data, at + 3)
                day_ms = time_ms - time_ms % _DAY_MS
        if ms < 0 or not is_ulid or time_ms < 0:
            continue
        if tolerance_ms >= 0 and time_ms > ms + tolerance_ms:
            continue
        if not is_like_last and (
            value[1, 1] != len(stream)
            or not same(data, value[1, 0], stream, np.int64(0), len(stream))
        ):
            continue
        if is_like_last:
            slot = last_slot
        else:
            # Neighbours are mostly of one type: begin with the last one found.
            written = version(data, value[3, 0], value[3, 1])
            found = False
            for i in range(len(type_table)):
                place = (slot + i) % len(type_table)
                if (
                    type_table[place, 1] == value[2, 1]
                    and type_table[place, 2] == written
                    and same(
                        data, value[2, 0], type_names, type_table[place, 0], value[2, 1]
                    )
                ):
                    slot = place
                    found = True
                    break
            if not found:
                continue
            last_shape, last_slot = shape, slot
        if not is_utf8(data, value[5, 0], value[5, 1]):
            continue
        if not is_utf8(data, value[6, 0], value[6, 1]):
            continue
        if not _is_object(data, value[8, 0], value[8, 1]):
            continue
        status[row] = GOOD
        times[0, row] = ms
        times[1, row] = seq
        times[2, row] = time_ms
        ids[0, row] = hi
        ids[1, row] = lo
        slots[row] = slot
        for i in range(2):
            spans[row, CORRELATION_ID + i] = value[5, i]
            spans[row, USER_ID + i] = value[6, i]
            spans[row, METADATA + i] = value[8, i]
            spans[row, DATA + i] = value[7, i]
