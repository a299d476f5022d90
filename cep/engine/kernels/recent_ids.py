"""Event ids seen lately: a log of them, and a hash table of places in it.

A row of the log holds the two halves of an id and the event time it came with. A
slot of the table holds, in its lower half, a place in the log plus one, and bits
of the hash above, so that the log is looked at for equal ids alone; 0 is a free
slot. New ids only ever go to the log's end: of the 100,000 ids a second of a busy
stream the table, 16 bytes for each, is all that is read here and there. The hash
is keyed, so that no publisher can choose ids that fall into one place.
"""

from __future__ import annotations

import numpy as np

from cep.engine.kernels.jit import inner, plain_kernel

ID_HI, ID_LO, TIME, WIDTH = 0, 1, 2, 3


@inner
def _hash(key, hi, lo):
    x = np.uint64(hi) ^ key[0]
    x = (x ^ (x >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    x ^= np.uint64(lo) ^ key[1]
    x = (x ^ (x >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    return x ^ (x >> np.uint64(32))


@plain_kernel
def judge(slots, log, used, key, hi, lo, times, marks, skip, duplicate):
    """Find which rows repeat the id of an earlier one; take in the others.

    An earlier row counts if its time is not below the later one's mark. Rows to
    ``skip`` are passed over. Returns how many rows of the log are used then; it
    must have room for all, and twice as many slots.
    """
    mask, low = np.uint64(len(slots) - 1), np.uint64(0xFFFFFFFF)
    one = np.uint64(1)
    for i in range(len(times)):
        if skip[i]:
            continue
        h = _hash(key, hi[i], lo[i])
        at, tag = h & mask, h & ~low
        while True:
            slot = slots[at]
            if slot == np.uint64(0):
                log[used, ID_HI] = hi[i]
                log[used, ID_LO] = lo[i]
                log[used, TIME] = times[i]
                used += 1
                slots[at] = tag | np.uint64(used)
                break
            if slot & ~low == tag:
                place = np.int64(slot & low) - 1
                if log[place, ID_LO] == lo[i] and log[place, ID_HI] == hi[i]:
                    if log[place, TIME] >= marks[i]:
                        duplicate[i] = True
                    else:
                        log[place, TIME] = times[i]
                    break
            at = (at + one) & mask
    return used


@plain_kernel
def compact(old, used, mark, slots, log, key):
    """Take over from a log what is not below a mark; returns how much that is.

    ``slots`` must be free. ``log`` may be the old one.
    """
    mask, low = np.uint64(len(slots) - 1), np.uint64(0xFFFFFFFF)
    one = np.uint64(1)
    kept = 0
    for j in range(used):
        if old[j, TIME] < mark:
            continue
        h = _hash(key, old[j, ID_HI], old[j, ID_LO])
        at = h & mask
        while slots[at] != np.uint64(0):
            at = (at + one) & mask
        for column in range(WIDTH):
            log[kept, column] = old[j, column]
        kept += 1
        slots[at] = (h & ~low) | np.uint64(kept)
    return kept
