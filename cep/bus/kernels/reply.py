"""Finds the entries in the reply to ``XREAD`` or ``XRANGE`` (RESP2).

The scan is incremental: called again when more bytes have come, it goes on
after the last whole entry. It copies nothing; entries and fields are noted as
offsets and lengths. What a field holds is skipped by its length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cep.bus.kernels.compiling import helper, kernel
from cep.bus.kernels.shape import KNOWN, LAST, MOST_FIELDS, NUMBER, fill, learn, match

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cep.bus.kernels.compiling import Bytes, Int, Places

# What a scan ends with.
DONE: Final = 0
MORE: Final = 1  # bytes are missing
FULL: Final = 2  # a table is full: enlarge it and call again
ERROR_REPLY: Final = 3  # the reply is an error, its text at state[POSITION]
NOT_RESP: Final = 4

# Places in the state, all int64.
POSITION: Final = 0  # next byte to look at
PHASE: Final = 1
STREAMS_LEFT: Final = 2
ENTRIES_LEFT: Final = 3
STREAMS: Final = 4  # rows used of each table
ENTRIES: Final = 5
FIELDS: Final = 6
STATE_SIZE: Final = 7

# Phases: what is expected next.
READ_REPLY: Final = 0  # the header of an XREAD reply
STREAM: Final = 1
ENTRY: Final = 2
RANGE_REPLY: Final = 3  # the header of an XRANGE reply

_STAR: Final = 42
_DOLLAR: Final = 36
_MINUS: Final = 45
_CR: Final = 13
_LF: Final = 10
_MAX_DIGITS: Final = 12


@helper
def _header(data: Bytes, end: Int, position: Int) -> tuple[Int, Int, Int]:
    """Read ``*N`` or ``$N`` and its line end; return (status, N, next position).

    N is -1 for null. Which of the two it is, `_array` and `_bulk` check.
    """
    if position >= end:
        return MORE, 0, position
    at = position + 1
    if at < end and data[at] == _MINUS:
        if at + 3 >= end:
            return MORE, 0, position
        if data[at + 1] == 49 and data[at + 2] == _CR and data[at + 3] == _LF:
            return DONE, -1, at + 4
        return NOT_RESP, 0, position
    number = 0
    first = at
    while at < end and 48 <= data[at] <= 57:
        if at - first >= _MAX_DIGITS:
            return NOT_RESP, 0, position
        number = number * 10 + (data[at] - 48)
        at += 1
    if at + 1 >= end:
        return MORE, 0, position
    if at == first or data[at] != _CR or data[at + 1] != _LF:
        return NOT_RESP, 0, position
    return DONE, number, at + 2


@helper
def _array(data: Bytes, end: Int, position: Int) -> tuple[Int, Int, Int]:
    """Read ``*N``, as `_header`."""
    if position < end and data[position] != _STAR:
        return NOT_RESP, 0, position
    return _header(data, end, position)


@helper
def _bulk(data: Bytes, end: Int, position: Int) -> tuple[Int, Int, Int, Int]:
    """Read a bulk string; return (status, offset, length, next position)."""
    if position < end and data[position] != _DOLLAR:
        return NOT_RESP, 0, 0, position
    status, length, at = _header(data, end, position)
    if status != DONE:
        return status, 0, 0, position
    if length < 0:
        return NOT_RESP, 0, 0, position
    if at + length + 2 > end:
        return MORE, 0, 0, position
    if data[at + length] != _CR or data[at + length + 1] != _LF:
        return NOT_RESP, 0, 0, position
    return DONE, at, length, at + length + 2


@helper
def _entry(
    data: Bytes,
    end: Int,
    position: Int,
    entries: Places,
    row: Int,
    fields: Places,
    used: Int,
) -> tuple[Int, Int, Int]:
    """Read one entry into the tables; return (status, next position, fields used)."""
    status, size, at = _array(data, end, position)
    if status == DONE and size != 2:
        status = NOT_RESP
    if status != DONE:
        return status, position, used
    status, id_offset, id_length, at = _bulk(data, end, at)
    if status != DONE:
        return status, position, used
    status, size, at = _array(data, end, at)
    if status != DONE:
        return status, position, used
    if size < 0:
        size = 0
    if size % 2:
        return NOT_RESP, position, used
    now = used
    for _ in range(size // 2):
        if now >= len(fields):
            return FULL, position, used
        status, name, name_length, at = _bulk(data, end, at)
        if status != DONE:
            return status, position, used
        status, value, value_length, at = _bulk(data, end, at)
        if status != DONE:
            return status, position, used
        fields[now, 0] = name
        fields[now, 1] = name_length
        fields[now, 2] = value
        fields[now, 3] = value_length
        now += 1
    entries[row, 0] = id_offset
    entries[row, 1] = id_length
    entries[row, 2] = used
    entries[row, 3] = now - used
    entries[row, 4] = -1
    return DONE, at, now


@kernel
def scan_reply(
    data: Bytes,
    end: Int,
    state: NDArray[np.int64],
    streams: Places,
    entries: Places,
    fields: Places,
    words: NDArray[np.uint64],
    parts: Places,
    places: Places,
    sizes: Places,
    shapes: Places,
    found: Places,
) -> Int:
    """Scan on; return what it ended with.

    Parameters
    ----------
    data
        The bytes, those before ``end`` being valid.
    state
        Shape ``(STATE_SIZE,)``; changed. To begin, set the phase to
        `READ_REPLY` or `RANGE_REPLY`.
    streams
        Shape ``(s, 4)``: offset and length of the key, first entry, number of
        entries. Not used for XRANGE.
    entries, fields
        As in `cep.bus.page.Entries`.
    words, parts, places, sizes, shapes, found
        See `cep.bus.kernels.shape.new_shapes`; kept from reply to reply.
    """
    while True:
        position = state[POSITION]
        if state[PHASE] == READ_REPLY or state[PHASE] == RANGE_REPLY:
            if position < end and data[position] == _MINUS:
                for at in range(position + 1, end - 1):
                    if data[at] == _CR and data[at + 1] == _LF:
                        return ERROR_REPLY
                return MORE
            status, count, at = _array(data, end, position)
            if status != DONE:
                return status
            state[POSITION] = at
            if count < 0:
                count = 0
            if state[PHASE] == RANGE_REPLY:
                state[STREAMS_LEFT] = 0
                state[ENTRIES_LEFT] = count
            else:
                state[STREAMS_LEFT] = count
                state[ENTRIES_LEFT] = 0
            state[PHASE] = ENTRY
        elif state[PHASE] == STREAM:
            if state[STREAMS] >= len(streams):
                return FULL
            status, count, at = _array(data, end, position)
            if status == DONE and count != 2:
                status = NOT_RESP
            if status != DONE:
                return status
            status, key, key_length, at = _bulk(data, end, at)
            if status != DONE:
                return status
            status, count, at = _array(data, end, at)
            if status != DONE:
                return status
            if count < 0:
                count = 0
            row = state[STREAMS]
            streams[row, 0] = key
            streams[row, 1] = key_length
            streams[row, 2] = state[ENTRIES]
            streams[row, 3] = count
            state[STREAMS] = row + 1
            state[STREAMS_LEFT] -= 1
            state[ENTRIES_LEFT] = count
            state[POSITION] = at
            state[PHASE] = ENTRY
        elif state[ENTRIES_LEFT] > 0:
            row, used = state[ENTRIES], state[FIELDS]
            if row >= len(entries):
                return FULL
            at = -1
            if used + MOST_FIELDS <= len(fields):
                # Neighbours are mostly alike: begin with the last shape found.
                for i in range(shapes[KNOWN]):
                    shape = (shapes[LAST] + i) % shapes[KNOWN]
                    at = match(data, end, position, shape, words, parts, sizes, found)
                    if at >= 0:
                        shapes[LAST] = shape
                        count = fill(shape, places, sizes, found, fields, used)
                        entries[row, 0] = found[0, 1]
                        entries[row, 1] = found[0, 2]
                        entries[row, 2] = used
                        entries[row, 3] = count
                        entries[row, 4] = sizes[shape, NUMBER]
                        used += count
                        break
            if at < 0:
                first = used
                status, at, used = _entry(
                    data, end, position, entries, row, fields, used
                )
                if status != DONE:
                    return status
                if first + MOST_FIELDS <= len(fields):
                    entries[row, 4] = learn(
                        data,
                        position,
                        at,
                        entries[row, 0],
                        entries[row, 1],
                        fields,
                        first,
                        used - first,
                        words,
                        parts,
                        places,
                        sizes,
                        shapes,
                    )
            state[ENTRIES] += 1
            state[FIELDS] = used
            state[ENTRIES_LEFT] -= 1
            state[POSITION] = at
        elif state[STREAMS_LEFT] > 0:
            state[PHASE] = STREAM
        else:
            return DONE
