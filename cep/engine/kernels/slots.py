"""What is remembered of each key without a window: the previous value, and a mean.

A slot is two doubles of a key. That of a previous value holds it and nothing. That
of an exponentially weighted mean holds the sum of the weights and the mean, both as
of the key's last event: a value weighs ``2 ** -(age / half-life)``, and as all
weights shrink alike, the mean changes only when a value comes in.
"""

from __future__ import annotations

import math

from numba.core.types import float64, int64, uint8

from cep.engine.kernels import work
from cep.engine.kernels.handle import table
from cep.engine.kernels.jit import inner, kernel, step_kernel
from cep.engine.kernels.recency import OLDEST, remove, touch
from cep.engine.kernels.rows import TIME, TYPE

PREVIOUS, WEIGHTED = 0, 1

K_SEEN, K_DIRTY, K_LAST, K_ORDER = 0, 1, 2, 3
KEY_WIDTH = 4

C_DIRTY, C_KEYS, C_LIMIT, C_FORGOTTEN = 0, 1, 2, 3
COUNTER_WIDTH = 4

# Tables of a group, by their places in its handle.
enters_of = table(0, uint8)  # by type code + 1: whether events of the type are seen
slots_of = table(1, int64, 2, width=3)  # rows (function, value's column, output's)
half_lives_of = table(2, float64)  # ns
keys_of = table(3, int64, 2, width=KEY_WIDTH)
links_of = table(4, int64, 2)
ends_of = table(5, int64)
values_of = table(6, float64, 3, width=2)  # (keys, slots, 2)
counters_of = table(7, int64)
dirty_of = table(8, int64)

LARGEST = 1e140  # values beyond are passed over, as by windows
LEAST = 1e-300  # a weight never runs out: the mean stays what it was


@inner
def mark(keys, dirty, c, k):
    """Note that a key's state has changed."""
    if keys[k, K_DIRTY] == 0:
        keys[k, K_DIRTY] = 1
        dirty[c[C_DIRTY]] = k
        c[C_DIRTY] += 1


@inner
def clear(slots, keys, links, ends, values, c, k):
    """Forget what a key has."""
    c[C_KEYS] -= 1
    keys[k, K_SEEN] = 0
    remove(links, ends, k)
    for s in range(slots.shape[0]):
        values[k, s, 0] = math.nan if slots[s, 0] == PREVIOUS else 0.0
        values[k, s, 1] = 0.0


@kernel
def forget(tables, k):
    """Forget what a key has, if anything."""
    h = tables.ctypes.data
    keys = keys_of(h)
    if keys[k, K_SEEN] != 0:
        links, ends, values = links_of(h), ends_of(h), values_of(h)
        clear(slots_of(h), keys, links, ends, values, counters_of(h), k)


@step_kernel
def feed(h, w, space, at, end, until):
    """Take in events; keys are those of ``space``."""
    ints, cols, all_keys = work.ints_of(w), work.cols_of(w), work.keys_of(w)
    time, types = ints[TIME], ints[TYPE]
    first, order = work.facts_of(w)[work.FIRST], work.facts_of(w)[work.ORDER]
    enters, slots, half_lives = enters_of(h), slots_of(h), half_lives_of(h)
    keys, values, links, ends = keys_of(h), values_of(h), links_of(h), ends_of(h)
    c, dirty = counters_of(h), dirty_of(h)
    for i in range(at, end):
        k = all_keys[space, i - first]
        if k < 0 or enters[types[i] + 1] == 0:
            continue
        if keys[k, K_SEEN] == 0:
            if c[C_KEYS] >= c[C_LIMIT]:
                oldest = ends[OLDEST]
                mark(keys, dirty, c, oldest)
                clear(slots, keys, links, ends, values, c, oldest)
                c[C_FORGOTTEN] += 1
            keys[k, K_SEEN] = 1
            c[C_KEYS] += 1
        touch(links, ends, k)
        for s in range(slots.shape[0]):
            x = cols[slots[s, 1], i]
            if slots[s, 0] == PREVIOUS:
                cols[slots[s, 2], i] = values[k, s, 0]
                values[k, s, 0] = x
                continue
            age = float(time[i] - keys[k, K_LAST])
            weight = values[k, s, 0]
            if weight > 0.0:
                weight = max(weight * 0.5 ** (age / half_lives[s]), LEAST)
            if abs(x) <= LARGEST:
                weight += 1.0
                values[k, s, 1] += (x - values[k, s, 1]) / weight
            values[k, s, 0] = weight
            cols[slots[s, 2], i] = values[k, s, 1] if weight > 0.0 else math.nan
        keys[k, K_LAST] = time[i]
        keys[k, K_ORDER] = order + i
        mark(keys, dirty, c, k)
    return end
