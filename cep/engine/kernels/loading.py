"""Takes columns as a reader or a frame has them into a batch.

They may be slices, strided, or read-only. For numba each of these is a type of its
own, and a kernel would be compiled anew for each mixture when it comes. So these
kernels are compiled for arrays of any layout that they only read, and for nothing
else (`prepare`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba.core.types import Array, boolean, float64, int32, int64, uint64

from cep.engine.kernels.jit import plain_kernel
from cep.engine.kernels.rows import (
    ENTRY_MS,
    ENTRY_SEQ,
    ID_HI,
    ID_LO,
    STREAM,
    TIME,
    TYPE,
)

NS_PER_MS = 1_000_000


@plain_kernel
def load_rows(
    ints, cols, blank, stream, time, entry_ms, entry_seq, id_hi, id_lo, types, codes
):
    """Fill the table of integers; the columns in ``blank`` become absent.

    ``time`` is in ms. ``codes`` gives the engine's code of each of ``types``.
    """
    for i in range(time.size):
        ints[TIME, i] = time[i] * NS_PER_MS
        ints[STREAM, i] = stream
        ints[ENTRY_MS, i] = entry_ms[i]
        ints[ENTRY_SEQ, i] = entry_seq[i]
        ints[TYPE, i] = codes[types[i]]
        ints[ID_HI, i] = np.int64(id_hi[i])
        ints[ID_LO, i] = np.int64(id_lo[i])
    for j in range(blank.size):
        out = cols[blank[j]]
        for i in range(time.size):
            out[i] = math.nan


@plain_kernel
def load_numbers(cols, column, values, valid, over):
    """Fill a column of a batch.

    ``valid`` is empty where all values are. Where they are not, the column becomes
    absent, or with ``over`` stays as it is.
    """
    out = cols[column]
    if valid.size == 0:
        for i in range(out.size):
            out[i] = values[i]
    else:
        for i in range(out.size):
            if valid[i]:
                out[i] = values[i]
            elif not over:
                out[i] = math.nan


@plain_kernel
def load_codes(cols, column, values, codes, valid, over):
    """Fill a column with ``codes[values]``, otherwise as `load_numbers` does."""
    out = cols[column]
    if valid.size == 0:
        for i in range(out.size):
            out[i] = codes[values[i]]
    else:
        for i in range(out.size):
            if valid[i]:
                out[i] = codes[values[i]]
            elif not over:
                out[i] = math.nan


@plain_kernel
def first_fall(times):
    """Return the first place whose time is before that of the one before, or -1."""
    for i in range(1, times.size):
        if times[i] < times[i - 1]:
            return i
    return -1


def prepare() -> None:
    """Compile the kernels for what they may be given."""

    def some(dtype):
        return Array(dtype, 1, "A", readonly=True)

    table, cols = Array(int64, 2, "C"), Array(float64, 2, "C")
    longs, words, mask = some(int64), some(uint64), some(boolean)
    rows = (longs, longs, longs, words, words, some(int32), longs)
    kernels: Any = (
        (load_rows, (table, cols, longs, int64, *rows)),
        (load_numbers, (cols, int64, some(float64), mask, boolean)),
        (load_codes, (cols, int64, some(int32), longs, mask, boolean)),
    )
    for kernel, signature in kernels:
        if not kernel.overloads:
            kernel.compile(signature)
            kernel.disable_compile()
