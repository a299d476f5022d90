"""Takes columns as a reader or a frame has them into a batch.

They are a dozen arrays and more, new ones for each batch, of which some are slices
or read-only. So they come as objects (`cep.engine.kernels.handle`); what is not
contiguous, or of another dtype than it should be, is told before anything is
written, and the caller makes it so.
"""

from __future__ import annotations

import math

import numpy as np
from numba.core.types import boolean, float64, int32, int64, uint64

from cep.engine.kernels.handle import array_at, dtype_of, stride_of, table
from cep.engine.kernels.jit import inner, plain_kernel
from cep.engine.kernels.rows import (
    ENTRY_MS,
    ENTRY_SEQ,
    ID_HI,
    ID_LO,
    PLACE,
    STREAM,
    TIME,
    TYPE,
)

NS_PER_MS = 1_000_000

# Of a field: the column that it fills; whether its values are places in a table of
# codes, and that table as an object; whether rows without a value stay as they are.
F_COLUMN, F_TEXT, F_CODES, F_OVER = range(4)
FIELD_WIDTH = 4
FIELDS = 4  # taken in by one call

# Dtypes that are known, each its ``id``.
LONGS, WORDS, INTS, DOUBLES, BOOLS = range(5)
DTYPES = [np.dtype(x) for x in (np.int64, np.uint64, np.int32, np.float64, np.bool_)]

blank_of, types_of = table(0, int64), table(1, int64)
fields_of, dtypes_of = table(2, int64, 2, width=FIELD_WIDTH), table(3, int64)

longs_at, words_at, ints_at = array_at(int64), array_at(uint64), array_at(int32)
doubles_at, bools_at = array_at(float64), array_at(boolean)
rows_at, cols_at = array_at(int64, 2), array_at(float64, 2)


@inner
def is_plain(h, array, n, dtype, size):
    """Whether an array can be read as it stands; of one item, strides say nothing."""
    same = dtype_of(array) == dtypes_of(h)[dtype]
    return same and (n < 2 or stride_of(array) == size)


@inner
def is_plain_field(h, field, n, values, valid):
    """Whether a field can be read as it stands; 0 stands for no array."""
    if values == 0:
        return True
    if valid != 0 and not is_plain(h, valid, n, BOOLS, 1):
        return False
    if is_plain(h, values, n, INTS, 4):
        return True
    if fields_of(h)[field, F_TEXT] != 0:
        return False
    return (
        is_plain(h, values, n, DOUBLES, 8)
        or is_plain(h, values, n, LONGS, 8)
        or is_plain(h, values, n, BOOLS, 1)
    )


@inner
def copy(out, values):
    """Fill a row."""
    for i in range(out.size):
        out[i] = values[i]


@inner
def put(out, value):
    """Fill a row with one value."""
    for i in range(out.size):
        out[i] = value


@inner
def fill(out, values, valid, over):
    """Fill a column; where ``valid`` is not 0, as it says."""
    if valid == 0:
        for i in range(out.size):
            out[i] = values[i]
        return
    mask = bools_at(valid)
    for i in range(out.size):
        if mask[i]:
            out[i] = values[i]
        elif not over:
            out[i] = math.nan


@inner
def fill_coded(out, places, codes, valid, over):
    """Fill a column with ``codes[places]``, otherwise as `fill` does."""
    if valid == 0:
        for i in range(out.size):
            out[i] = codes[np.uint32(places[i])]
        return
    mask = bools_at(valid)
    for i in range(out.size):
        if mask[i]:
            out[i] = codes[np.uint32(places[i])]
        elif not over:
            out[i] = math.nan


@inner
def load_field(h, field, cols, values, valid):
    """Fill a field's column."""
    if values == 0:
        return
    fields = fields_of(h)
    out, over = cols[fields[field, F_COLUMN]], fields[field, F_OVER] != 0
    kind = dtype_of(values)
    if fields[field, F_TEXT] != 0:
        codes = doubles_at(fields[field, F_CODES])
        fill_coded(out, ints_at(values), codes, valid, over)
    elif kind == dtypes_of(h)[DOUBLES]:
        fill(out, doubles_at(values), valid, over)
    elif kind == dtypes_of(h)[LONGS]:
        fill(out, longs_at(values), valid, over)
    elif kind == dtypes_of(h)[INTS]:
        fill(out, ints_at(values), valid, over)
    else:
        fill(out, bools_at(values), valid, over)


@inner
def load_rows(h, rows, cols, stream, time, ms, seq, hi, lo, types):
    """Fill the table of integers; columns that no field fills become absent."""
    codes, blank = types_of(h), blank_of(h)
    # Row by row, each a plain loop that uses the processor's vectors.
    times, kinds = longs_at(time), ints_at(types)
    out, coded = rows[TIME], rows[TYPE]
    for i in range(out.size):
        out[i] = times[i] * NS_PER_MS
    for i in range(coded.size):
        coded[i] = codes[np.uint32(kinds[i])]
    put(rows[STREAM], stream)
    put(rows[PLACE], 0)  # for who reads streams to fill in
    copy(rows[ENTRY_MS], longs_at(ms))
    copy(rows[ENTRY_SEQ], longs_at(seq))
    copy(rows[ID_HI], longs_at(hi))
    copy(rows[ID_LO], longs_at(lo))
    for j in range(blank.size):
        put(cols[blank[j]], math.nan)


@plain_kernel
def load(
    h,
    rows,
    cols,
    stream,
    time,
    ms,
    seq,
    hi,
    lo,
    types,
    first,
    values_0,
    valid_0,
    values_1,
    valid_1,
    values_2,
    valid_2,
    values_3,
    valid_3,
):
    """Load rows, if ``first`` is 0, and the fields from ``first`` on; False: not plain.

    All from ``rows`` on but ``stream`` and ``first`` are arrays as objects: the
    tables of a batch; what `EventColumns` holds of each row; values and masks of
    fields, 0 for a field that is not there and a mask of valid values only.
    """
    out, ints = cols_at(cols), rows_at(rows)
    n = ints.shape[1]
    plain = (
        is_plain(h, time, n, LONGS, 8)
        and is_plain(h, ms, n, LONGS, 8)
        and is_plain(h, seq, n, LONGS, 8)
        and is_plain(h, hi, n, WORDS, 8)
        and is_plain(h, lo, n, WORDS, 8)
        and is_plain(h, types, n, INTS, 4)
        and is_plain_field(h, first, n, values_0, valid_0)
        and is_plain_field(h, first + 1, n, values_1, valid_1)
        and is_plain_field(h, first + 2, n, values_2, valid_2)
        and is_plain_field(h, first + 3, n, values_3, valid_3)
    )
    if not plain:
        return False
    if first == 0:
        load_rows(h, ints, out, stream, time, ms, seq, hi, lo, types)
    load_field(h, first, out, values_0, valid_0)
    load_field(h, first + 1, out, values_1, valid_1)
    load_field(h, first + 2, out, values_2, valid_2)
    load_field(h, first + 3, out, values_3, valid_3)
    return True
