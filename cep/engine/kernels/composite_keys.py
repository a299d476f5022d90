"""From the values of several columns to the number of a key: a table of hashes.

Open addressing: ``slots`` holds numbers, -1 where it is free, ``parts`` the values that
belong to them. Its size is a power of two, and the caller keeps half of it free.
"""

from __future__ import annotations

import numpy as np

from cep.engine.kernels.jit import inner, kernel

LARGEST = 1e15  # of which an integer of 64 bits is made without overflow
FACTOR = np.int64(0x9E3779B97F4A7C1)


@inner
def place_of(cols, i, slots, parts):
    """Return where a row's values are in the table, or the free slot for them."""
    h = np.int64(0)
    for j in range(len(cols)):
        x = cols[j, i]
        if abs(x) < LARGEST:
            h = (h ^ np.int64(x * 1024.0)) * FACTOR
        h ^= h >> np.int64(29)
    at = h & np.int64(slots.size - 1)
    while slots[at] >= 0:
        same = True
        for j in range(len(cols)):
            if parts[at, j] != cols[j, i]:
                same = False
        if same:
            break
        at = (at + np.int64(1)) & np.int64(slots.size - 1)
    return at


@kernel
def look_up(cols, slots, parts, out, at):
    """Number rows from ``at`` on, as far as known; returns the first unknown one.

    ``cols`` (fields, n). A row that lacks a value gets -1; ``n`` if all are known.
    """
    for i in range(at, out.size):
        absent = False
        for j in range(len(cols)):
            absent |= cols[j, i] != cols[j, i]
        number = np.int64(-1)
        if not absent:
            number = slots[place_of(cols, np.int64(i), slots, parts)]
            if number < 0:
                return i
        out[i] = number
    return out.size


@kernel
def learn(cols, i, number, slots, parts):
    """Put a row's values and their number into the table."""
    at = place_of(cols, i, slots, parts)
    slots[at] = number
    for j in range(len(cols)):
        parts[at, j] = cols[j, i]
