"""Says when windows close: one timer a key, and one row for each window.

A window is told of once, if it holds an event, as soon as time has come to its end:
before the first event of that time or later, whatever its type. The next window of a
key to close is all that must be known: as windows follow each other, the one after
it holds an event if the key's last event is not before it begins. So a key costs one
timer while windows of it are open and nothing after that.

The timer of a session is set when it begins and looked at again when it rings: each
event of the session has moved its end.

Timers lie in a binary heap, earliest on top, those of all kinds of windows together,
so that windows are told of in order of time.
"""

from __future__ import annotations

import numpy as np
from numba.core.types import int64, uint8

from cep.engine.kernels.handle import table
from cep.engine.kernels.jit import inner, kernel
from cep.engine.kernels.rows import ID_HI, ID_LO, TYPE
from cep.engine.kernels.rows import TIME as TIME_NS
from cep.engine.kernels.windows import TIME

# Of each kind of windows: its span, the batch column that is 1 where an event may
# enter (or -1), and the key space that splits it.
S_KIND, S_LENGTH, S_EVERY, S_WHERE, S_SPACE = range(5)
SPEC_WIDTH = 5

# Of a key: whether it has a timer, the time and id of its last event, and when its
# session began.
K_TIMED, K_LAST, K_HI, K_LO, K_BEGAN = range(5)
KEY_WIDTH = 5

# A window that has closed: how many rows of the batch come before, which kind of
# windows, the key, when it began and ended, and the id of its last event.
O_ROW, O_KIND, O_KEY, O_START, O_END, O_HI, O_LO = range(7)
OUT_WIDTH = 7

C_HEAP, C_OUT = 0, 1
COUNTER_WIDTH = 2

FOR_EVER = np.iinfo(np.int64).max

spec_of = table(0, int64, 2, width=SPEC_WIDTH)
enters_of = table(1, uint8, 2)  # (kinds, types + 1)
keys_of = table(2, int64, 3, width=KEY_WIDTH)  # (keys, kinds, KEY_WIDTH)
heap_of = table(3, int64, 2, width=2)  # (timers, 2): time, key * kinds + kind
counters_of = table(4, int64)
out_of = table(5, int64, 2, width=OUT_WIDTH)


@inner
def add(time, length):
    """Return a later time, but none beyond all times."""
    return time + length if time < FOR_EVER - length else np.int64(FOR_EVER)


@inner
def push(heap, c, time, which):
    """Set a timer."""
    j = c[C_HEAP]
    c[C_HEAP] += 1
    while j > 0:
        parent = (j - 1) >> 1
        if heap[parent, 0] <= time:
            break
        heap[j, 0], heap[j, 1] = heap[parent, 0], heap[parent, 1]
        j = parent
    heap[j, 0], heap[j, 1] = time, which


@inner
def replace_first(heap, c, time, which):
    """Put a timer in the place of the earliest."""
    j, n = np.int64(0), c[C_HEAP]
    while True:
        child = 2 * j + 1
        if child >= n:
            break
        if child + 1 < n and heap[child + 1, 0] < heap[child, 0]:
            child += 1
        if heap[child, 0] >= time:
            break
        heap[j, 0], heap[j, 1] = heap[child, 0], heap[child, 1]
        j = child
    heap[j, 0], heap[j, 1] = time, which


@inner
def ring(h, row, until):
    """Tell of the windows that close up to ``until``; False: there is no room."""
    spec, keys, heap = spec_of(h), keys_of(h), heap_of(h)
    c, out = counters_of(h), out_of(h)
    kinds = spec.shape[0]
    while c[C_HEAP] > 0 and heap[0, 0] <= until:
        end, which = heap[0, 0], heap[0, 1]
        k, kind = which // kinds, which % kinds
        length = spec[kind, S_LENGTH]
        last = keys[k, kind, K_LAST]
        following = np.int64(FOR_EVER)
        if spec[kind, S_KIND] == TIME:
            start = end - length
            if last >= start + spec[kind, S_EVERY]:
                following = add(end, spec[kind, S_EVERY])
            closes = True
        else:
            start = keys[k, kind, K_BEGAN]
            closes = last <= end - length
            if not closes:
                following = add(last, length)
        if closes:
            at = c[C_OUT]
            if at == out.shape[0]:
                return False
            c[C_OUT] += 1
            out[at, O_ROW], out[at, O_KIND], out[at, O_KEY] = row, kind, k
            out[at, O_START], out[at, O_END] = start, end
            out[at, O_HI], out[at, O_LO] = keys[k, kind, K_HI], keys[k, kind, K_LO]
        if following < FOR_EVER:
            replace_first(heap, c, following, which)
        else:
            keys[k, kind, K_TIMED] = 0
            c[C_HEAP] -= 1
            n = c[C_HEAP]
            if n > 0:
                replace_first(heap, c, heap[n, 0], heap[n, 1])
    return True


@inner
def first_end(spec, kind, time):
    """Return the end of the first window that holds an event of that time."""
    length, every = spec[kind, S_LENGTH], spec[kind, S_EVERY]
    if spec[kind, S_KIND] == TIME:
        return add(((time - length) // every + 1) * every, length)
    return add(time, length)


@kernel
def close(handle, ints, cols, all_keys, begin, until):
    """Take in the rows from ``begin`` on, then let time pass; return the row reached.

    Windows that have closed are put out; -1 after all is done. Otherwise there is no
    room for more: take them out, and call again from the row reached.
    """
    h = handle.ctypes.data
    spec, enters, keys, heap = spec_of(h), enters_of(h), keys_of(h), heap_of(h)
    c = counters_of(h)
    kinds = spec.shape[0]
    for i in range(begin, ints.shape[1]):
        now, code = ints[TIME_NS, i], ints[TYPE, i] + 1
        if c[C_HEAP] > 0 and heap[0, 0] <= now and not ring(h, i, now):
            return i
        for kind in range(kinds):
            if enters[kind, code] == 0:
                continue
            k, where = all_keys[spec[kind, S_SPACE], i], spec[kind, S_WHERE]
            if k < 0 or (where >= 0 and cols[where, i] != 1.0):
                continue
            if keys[k, kind, K_TIMED] == 0:
                keys[k, kind, K_TIMED] = 1
                keys[k, kind, K_BEGAN] = now
                push(heap, c, first_end(spec, kind, now), k * kinds + kind)
            keys[k, kind, K_LAST] = now
            keys[k, kind, K_HI], keys[k, kind, K_LO] = ints[ID_HI, i], ints[ID_LO, i]
    if not ring(h, ints.shape[1], until):
        return ints.shape[1]
    return -1


@kernel
def set_timer(handle, k, kind, time):
    """Let a key's next window close at ``time``, after a restart."""
    h = handle.ctypes.data
    spec, keys = spec_of(h), keys_of(h)
    keys[k, kind, K_TIMED] = 1
    push(heap_of(h), counters_of(h), time, k * spec.shape[0] + kind)
