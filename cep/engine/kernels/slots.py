"""What is remembered of each key without a window: the previous value, and a mean.

A slot is two doubles of a key. That of a previous value holds it and nothing. That
of an exponentially weighted mean holds the sum of the weights and the mean, both as
of the key's last event: a value weighs ``2 ** -(age / half-life)``, and as all
weights shrink alike, the mean changes only when a value comes in.
"""

from __future__ import annotations

import math

from cep.engine.kernels.handle import bytes1, floats, floats3, ints, ints2
from cep.engine.kernels.jit import inner, kernel
from cep.engine.kernels.recency import OLDEST, remove, touch

PREVIOUS, WEIGHTED = 0, 1

# Tables of a group, in the order of its handle.
T_ENTERS = 0  # by type code + 1: whether events of the type are seen
T_SLOTS = 1  # rows (function, value's column, output's column)
T_HALF_LIVES = 2  # ns
T_KEYS = 3
T_LINKS = 4
T_ENDS = 5
T_VALUES = 6  # (keys, slots, 2)
T_COUNTERS = 7
T_DIRTY = 8

K_SEEN, K_DIRTY, K_LAST, K_ORDER = 0, 1, 2, 3
KEY_WIDTH = 4

C_DIRTY, C_KEYS, C_LIMIT, C_FORGOTTEN = 0, 1, 2, 3
COUNTER_WIDTH = 4

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
    keys = ints2(tables, T_KEYS)
    if keys[k, K_SEEN] != 0:
        links, ends = ints2(tables, T_LINKS), ints(tables, T_ENDS)
        slots, values = ints2(tables, T_SLOTS), floats3(tables, T_VALUES)
        clear(slots, keys, links, ends, values, ints(tables, T_COUNTERS), k)


@kernel
def adopt(tables, k):
    """Take up a restored key as the one seen last."""
    touch(ints2(tables, T_LINKS), ints(tables, T_ENDS), k)
    ints(tables, T_COUNTERS)[C_KEYS] += 1


@kernel
def feed(tables, time, types, key, cols, order):
    """Take in a batch; the first event is the ``order``-th that the engine saw."""
    enters = bytes1(tables, T_ENTERS)
    slots, half_lives = ints2(tables, T_SLOTS), floats(tables, T_HALF_LIVES)
    keys, values = ints2(tables, T_KEYS), floats3(tables, T_VALUES)
    links, ends = ints2(tables, T_LINKS), ints(tables, T_ENDS)
    c, dirty = ints(tables, T_COUNTERS), ints(tables, T_DIRTY)
    for i in range(time.size):
        k = key[i]
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
