"""Aggregates over sliding event-time windows, many keys, whole columns.

The window of the event at time ``t`` is ``(t - length, t]``: an event counts
itself, one exactly ``length`` old has left, and of events with equal times an
earlier one does not see a later one. Cost per event does not depend on the
window's length: rows enter and leave once.

Rows are kept in linked blocks, so a key costs what it holds. Sums and sums of
squares are kept as unevaluated pairs of doubles (double-double), to which
values are added and from which they are taken away without loss worth naming:
the relative error stays near 1e-30 of the largest partial sum, so a variance at
price 64,000 with deviation 0.5 keeps more than twelve digits over any number of
events. They start from exact zero whenever a window runs empty, and are summed
afresh when most of what they held has left (`renew`), so that one absurd value
in a busy window leaves no trace. Values beyond `LARGEST`, whose sum of squares
could overflow, are passed over as if absent. Extremes are kept in monotonic
queues.

Sources: T. J. Dekker, "A floating-point technique for extending the available
precision", Numerische Mathematik 18, 1971 (double-double sums and products);
D. Lemire, "Streaming maximum-minimum filter using no more than three comparisons
per element", Nordic Journal of Computing 13(4), 2006 (monotonic queues).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cep.engine.kernels.jit import inner, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray


BLOCK = 16

COUNT_ROWS, COUNT, SUM, AVG, VAR, STD, MIN, MAX, FIRST, LAST = range(10)
FUNCTIONS = {
    "count": COUNT,
    "sum": SUM,
    "avg": AVG,
    "var": VAR,
    "std": STD,
    "min": MIN,
    "max": MAX,
    "first": FIRST,
    "last": LAST,
}

# Per key: the rows' queue. A queue is (head block, head offset, tail block,
# offset behind the last); head block -1 when empty.
Q_HEAD, Q_FIRST, Q_TAIL, Q_END = 0, 1, 2, 3
K_ROWS, K_DIRTY, K_LAST = 4, 5, 6
KEY_WIDTH = 7

# Per key and value: count of values, sum and sum of squares (high, low), last,
# sum of sizes (roughly) and the largest that it was since the sums were renewed.
A_COUNT, A_SUM, A_SUM_LOW, A_SQUARE, A_SQUARE_LOW, A_LAST, A_SIZE, A_PEAK = range(8)
ACC_WIDTH = 8

LARGEST = 1e140
# Sums are renewed when their sizes have fallen below the peak by this factor.
# What made the peak has then left, so all rows now in the window came after the
# last renewal: each row is summed again at most once, whatever the values are.
FALL = 16.0

C_BLOCK_BUMP, C_BLOCK_FREE, C_BLOCK_FREED, C_DIRTY, C_ROWS = range(5)
COUNTER_WIDTH = 8

NEXT, BEFORE = 0, 1
SPLITTER = 134217729.0  # 2**27 + 1


class Spec(NamedTuple):
    """What a group of windows computes; read only.

    ``values[v]`` is the batch column of the v-th aggregated value, ``lowest``
    and ``highest`` its queue of extremes or -1; ``aggregates`` holds rows
    (function, value, output column).
    """

    length: int
    values: NDArray[np.int64]
    squares: NDArray[np.int64]
    lowest: NDArray[np.int64]
    highest: NDArray[np.int64]
    aggregates: NDArray[np.int64]


class Store(NamedTuple):
    """The windows' contents; changed in place."""

    keys: NDArray[np.int64]
    acc: NDArray[np.float64]  # (keys, values, ACC_WIDTH)
    queues: NDArray[np.int64]  # (keys, extremes, 4)
    times: NDArray[np.int64]  # (blocks, BLOCK)
    rows: NDArray[np.float64]  # (blocks, BLOCK, values)
    links: NDArray[np.int64]  # (blocks, 2)
    counters: NDArray[np.int64]
    dirty: NDArray[np.int64]


@inner
def two_sum(a, b):
    """Sum and its exact rounding error."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


@inner
def two_square(a):
    """Square and its exact rounding error (Dekker's split; NaN where it overflows)."""
    p = a * a
    t = SPLITTER * a
    high = t - (t - a)
    low = a - high
    return p, ((high * high - p) + 2.0 * high * low) + low * low


@inner
def two_product(a, b):
    """Product and its exact rounding error (NaN where it overflows)."""
    p = a * b
    t = SPLITTER * a
    a_high = t - (t - a)
    a_low = a - a_high
    t = SPLITTER * b
    b_high = t - (t - b)
    b_low = b - b_high
    return p, ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low


@inner
def add_pair(high, low, x, x_low):
    """Add one double-double to another."""
    s, e = two_sum(high, x)
    t, f = two_sum(low, x_low)
    e += t
    s, e = two_sum(s, e)
    e += f
    return two_sum(s, e)


@inner
def new_block(store):
    """Take a block from the free list or the end of the pool."""
    c = store.counters
    b = c[C_BLOCK_FREE]
    if b >= 0:
        c[C_BLOCK_FREE] = store.links[b, NEXT]
        c[C_BLOCK_FREED] -= 1
    else:
        b = c[C_BLOCK_BUMP]
        c[C_BLOCK_BUMP] += 1
    store.links[b, NEXT] = -1
    store.links[b, BEFORE] = -1
    return b


@inner
def free_block(store, b):
    """Return a block to the free list."""
    c = store.counters
    store.links[b, NEXT] = c[C_BLOCK_FREE]
    c[C_BLOCK_FREE] = b
    c[C_BLOCK_FREED] += 1


@inner
def push_back(store, queue):
    """Make room for one row at the end of a queue; returns (block, offset)."""
    if queue[Q_HEAD] < 0:
        b = new_block(store)
        queue[Q_HEAD] = queue[Q_TAIL] = b
        queue[Q_FIRST] = 0
        queue[Q_END] = 0
    elif queue[Q_END] == BLOCK:
        b = new_block(store)
        store.links[b, BEFORE] = queue[Q_TAIL]
        store.links[queue[Q_TAIL], NEXT] = b
        queue[Q_TAIL] = b
        queue[Q_END] = 0
    offset = queue[Q_END]
    queue[Q_END] += 1
    return queue[Q_TAIL], offset


@inner
def pop_front(store, queue):
    """Drop the first row of a queue that is not empty."""
    b = queue[Q_HEAD]
    queue[Q_FIRST] += 1
    if b == queue[Q_TAIL]:
        if queue[Q_FIRST] == queue[Q_END]:
            free_block(store, b)
            queue[Q_HEAD] = queue[Q_TAIL] = -1
    elif queue[Q_FIRST] == BLOCK:
        queue[Q_HEAD] = store.links[b, NEXT]
        store.links[queue[Q_HEAD], BEFORE] = -1
        queue[Q_FIRST] = 0
        free_block(store, b)


@inner
def pop_back(store, queue):
    """Drop the last row of a queue that is not empty."""
    b = queue[Q_TAIL]
    queue[Q_END] -= 1
    if b == queue[Q_HEAD]:
        if queue[Q_FIRST] == queue[Q_END]:
            free_block(store, b)
            queue[Q_HEAD] = queue[Q_TAIL] = -1
    elif queue[Q_END] == 0:
        queue[Q_TAIL] = store.links[b, BEFORE]
        store.links[queue[Q_TAIL], NEXT] = -1
        queue[Q_END] = BLOCK
        free_block(store, b)


@inner
def push_extreme(store, queue, time, value, sign):
    """Add to a monotonic queue of maxima (``sign`` 1) or minima (-1)."""
    while (
        queue[Q_HEAD] >= 0
        and sign * store.rows[queue[Q_TAIL], queue[Q_END] - 1, 0] <= sign * value
    ):
        pop_back(store, queue)
    b, offset = push_back(store, queue)
    store.times[b, offset] = time
    store.rows[b, offset, 0] = value


@inner
def accumulate(acc, value, sign, squares):
    """Add (``sign`` 1) or take away (-1) one value."""
    acc[A_COUNT] += sign
    if acc[A_COUNT] == 0.0:
        acc[A_SUM] = acc[A_SUM_LOW] = acc[A_SQUARE] = acc[A_SQUARE_LOW] = 0.0
        acc[A_SIZE] = acc[A_PEAK] = 0.0
        return
    acc[A_SIZE] += sign * abs(value)
    acc[A_PEAK] = max(acc[A_PEAK], acc[A_SIZE])
    acc[A_SUM], acc[A_SUM_LOW] = add_pair(acc[A_SUM], acc[A_SUM_LOW], sign * value, 0.0)
    if squares:
        square, error = two_square(value)
        acc[A_SQUARE], acc[A_SQUARE_LOW] = add_pair(
            acc[A_SQUARE], acc[A_SQUARE_LOW], sign * square, sign * error
        )


@inner
def renew(spec, store, k, v):
    """Sum one value of a key's rows afresh."""
    acc = store.acc[k, v]
    acc[A_COUNT] = acc[A_SUM] = acc[A_SUM_LOW] = acc[A_SQUARE] = acc[A_SQUARE_LOW] = 0.0
    acc[A_SIZE] = acc[A_PEAK] = 0.0
    b, offset = store.keys[k, Q_HEAD], store.keys[k, Q_FIRST]
    for _ in range(store.keys[k, K_ROWS]):
        if offset == BLOCK:
            b, offset = store.links[b, NEXT], 0
        x = store.rows[b, offset, v]
        if x == x:
            accumulate(acc, x, 1.0, spec.squares[v] != 0)
        offset += 1


@inner
def average(acc):
    """Mean from a double-double sum, rounded once.

    That of equal values is exactly theirs, so that none of them is off its mean.
    """
    s, n = acc[A_SUM], acc[A_COUNT]
    q = s / n
    p, p_low = two_product(q, n)
    return q + ((s - p) - p_low + acc[A_SUM_LOW]) / n


@inner
def variance(acc):
    """Population variance from double-double sums."""
    n = acc[A_COUNT]
    # n * squares - sum * sum, then / n / n, the difference in double-double.
    s, s_low = acc[A_SUM], acc[A_SUM_LOW]
    p, p_low = two_square(s)
    p_low += 2.0 * s * s_low
    q, q_low = two_product(acc[A_SQUARE], n)
    q_low += acc[A_SQUARE_LOW] * n
    d, d_low = add_pair(q, q_low, -p, -p_low)
    return max(d + d_low, 0.0) / n / n


@kernel
def evict(spec, store, k, now):
    """Let rows leave that are ``length`` old or older at ``now``."""
    queue = store.keys[k]
    edge = now - spec.length
    while queue[Q_HEAD] >= 0 and store.times[queue[Q_HEAD], queue[Q_FIRST]] <= edge:
        b, offset = queue[Q_HEAD], queue[Q_FIRST]
        for v in range(spec.values.size):
            x = store.rows[b, offset, v]
            if x == x:
                accumulate(store.acc[k, v], x, -1.0, spec.squares[v] != 0)
        pop_front(store, queue)
        store.keys[k, K_ROWS] -= 1
        store.counters[C_ROWS] -= 1
    for v in range(spec.values.size):
        if FALL * store.acc[k, v, A_SIZE] < store.acc[k, v, A_PEAK]:
            renew(spec, store, k, v)
    for d in range(store.queues.shape[1]):
        queue = store.queues[k, d]
        while queue[Q_HEAD] >= 0 and store.times[queue[Q_HEAD], queue[Q_FIRST]] <= edge:
            pop_front(store, queue)


@inner
def insert(spec, store, k, now, values):
    """Let one row enter; ``values`` may hold NaN for absent."""
    b, offset = push_back(store, store.keys[k])
    store.times[b, offset] = now
    store.keys[k, K_ROWS] += 1
    store.counters[C_ROWS] += 1
    for v in range(spec.values.size):
        x = values[v]
        store.rows[b, offset, v] = x
        if x == x:
            accumulate(store.acc[k, v], x, 1.0, spec.squares[v] != 0)
            store.acc[k, v, A_LAST] = x
            if spec.highest[v] >= 0:
                push_extreme(store, store.queues[k, spec.highest[v]], now, x, 1.0)
            if spec.lowest[v] >= 0:
                push_extreme(store, store.queues[k, spec.lowest[v]], now, x, -1.0)


@inner
def aggregate(spec, store, k, function, v):
    """Return one aggregate of a key's window as it stands."""
    if function == COUNT_ROWS:
        return float(store.keys[k, K_ROWS])
    acc = store.acc[k, v]
    if function == COUNT:
        return acc[A_COUNT]
    if function == SUM:
        return acc[A_SUM] + acc[A_SUM_LOW]
    if acc[A_COUNT] == 0.0:
        return math.nan
    if function == AVG:
        return average(acc)
    if function == VAR:
        return variance(acc)
    if function == STD:
        return math.sqrt(variance(acc))
    if function == LAST:
        return acc[A_LAST]
    if function == FIRST:
        b, offset = store.keys[k, Q_HEAD], store.keys[k, Q_FIRST]
        while True:
            x = store.rows[b, offset, v]
            if x == x:
                return x
            offset += 1
            if offset == BLOCK:
                b, offset = store.links[b, NEXT], 0
    queue = store.queues[k, spec.highest[v] if function == MAX else spec.lowest[v]]
    return store.rows[queue[Q_HEAD], queue[Q_FIRST], 0]


@kernel
def feed(spec, store, rows, enters, key, time, cols, begin):
    """Take in ``rows[begin:]`` and write each one's aggregates into ``cols``.

    ``enters[i]`` says whether the i-th row enters the window or only looks at
    it. Returns the index reached; short of the end, the pool is too small.
    """
    need = 1 + store.queues.shape[1]
    values = np.empty(spec.values.size)
    c = store.counters
    for at in range(begin, rows.size):
        if store.links.shape[0] - c[C_BLOCK_BUMP] + c[C_BLOCK_FREED] < need:
            return at
        i = rows[at]
        k = key[i]
        if k < 0:
            continue
        now = time[i]
        evict(spec, store, k, now)
        if enters[at]:
            for v in range(values.size):
                x = cols[spec.values[v], i]
                values[v] = x if abs(x) <= LARGEST else math.nan
            insert(spec, store, k, now, values)
        store.keys[k, K_LAST] = now
        if store.keys[k, K_DIRTY] == 0:
            store.keys[k, K_DIRTY] = 1
            store.dirty[c[C_DIRTY]] = k
            c[C_DIRTY] += 1
        for j in range(spec.aggregates.shape[0]):
            cols[spec.aggregates[j, 2], i] = aggregate(
                spec, store, k, spec.aggregates[j, 0], spec.aggregates[j, 1]
            )
    return rows.size


@kernel
def export_key(store, k, times, rows):
    """Copy a key's rows, oldest first, into arrays of its length."""
    b, offset = store.keys[k, Q_HEAD], store.keys[k, Q_FIRST]
    for at in range(store.keys[k, K_ROWS]):
        if offset == BLOCK:
            b, offset = store.links[b, NEXT], 0
        times[at] = store.times[b, offset]
        for v in range(rows.shape[1]):
            rows[at, v] = store.rows[b, offset, v]
        offset += 1


@kernel
def import_key(spec, store, k, times, rows):
    """Insert the rows that `export_key` wrote; the accumulators follow from them."""
    for at in range(times.size):
        insert(spec, store, k, times[at], rows[at])
