"""Aggregates over windows, many keys, whole columns.

What an event sees of its key is said in `cep.rules.windows`. Kinds of windows differ
only in which rows have left when an event comes (`edge`), so that one kernel runs
them all: rows enter and leave once, and cost per event does not depend on the
window's length, but for the logarithm that values in order cost.

The rows of a key lie in a ring, a stretch of the pool whose length is a power of two,
and are known by their number: row ``r`` is at ``base + (r & (size - 1))``. A ring that
is full moves to one of twice its size, one that is mostly empty to a smaller one.
Beside the rows lie the queues of extremes, which are rings of row numbers, and the
nodes of values in order.

Source: D. Lemire, "Streaming maximum-minimum filter using no more than three
comparisons per element", Nordic Journal of Computing 13(4), 2006 (queues of extremes).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba.core.types import float64, int64, uint8

from cep.engine.kernels import ordered, sums, work
from cep.engine.kernels.handle import table
from cep.engine.kernels.jit import inlined, inner, kernel, step_kernel
from cep.engine.kernels.recency import OLDEST, remove, touch
from cep.engine.kernels.rows import TIME as EVENT_TIME
from cep.engine.kernels.rows import TYPE as EVENT_TYPE

if TYPE_CHECKING:
    from numpy.typing import NDArray

TIME, SESSION, EVENTS = 0, 1, 2
KINDS = {"time": TIME, "session": SESSION, "events": EVENTS}

COUNT_ROWS, COUNT, SUM, AVG, VAR, STD, MIN, MAX, FIRST, LAST = range(10)
RATE, QUANTILE, DISTINCT, COV, CORR, SLOPE, WAVG = range(10, 17)
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
    "rate": RATE,
    "quantile": QUANTILE,
    "distinct": DISTINCT,
    "cov": COV,
    "corr": CORR,
    "slope": SLOPE,
    "wavg": WAVG,
}
PAIRED = ("cov", "corr", "slope", "wavg")

# Parts of ``spec``: which rows have left, how many a key and all may have, and the
# batch column that is 1 where an event may enter, or -1.
S_KIND, S_LENGTH, S_EVERY, S_KEY_LIMIT, S_LIMIT, S_WHERE = range(6)

# What events of a type do, as bits.
ENTERS, LOOKS = 1, 2

# Of a value: its batch column, the sums that are kept as bits, whether there is any
# more: whether the first row that has it is known, its queues and its tree, -1 for
# none.
V_COLUMN, V_SUMS, V_MORE, V_PLACES, V_LOWEST, V_HIGHEST, V_TREE = range(7)
VALUE_WIDTH = 7

# Of a key: where its ring is, its first row and the one behind its last, the time of
# the last and its place among the engine's events.
K_BASE, K_SIZE, K_BEGIN, K_END, K_LAST, K_ORDER, K_DIRTY = range(7)
KEY_WIDTH = 7

LEAST = 4  # rows in the smallest ring
CLASSES = 48  # of rings, by the logarithm of their size

# C_LISTED: whether keys are kept as they were last seen, which is not done before
# there are too many rows; ASKED while that is wanted.
C_BUMP, C_DIRTY, C_ROWS, C_DROPPED, C_FORGOTTEN, C_LISTED = range(6)
COUNTER_WIDTH = 6
ASKED = -1

LARGEST = 1e140


class Tables(NamedTuple):
    """What a group of windows computes and holds; the order is that of its handle."""

    spec: NDArray[np.int64]
    roles: NDArray[np.uint8]  # by type code + 1
    values: NDArray[np.int64]  # (values, VALUE_WIDTH)
    pairs: NDArray[np.int64]  # (pairs, 2): values
    aggregates: NDArray[np.int64]  # (n, 3): function, value or pair, output column
    parameters: NDArray[np.float64]
    keys: NDArray[np.int64]
    links: NDArray[np.int64]  # of keys, as they were last seen
    ends: NDArray[np.int64]
    sums: NDArray[np.float64]  # (keys, values, SUMS_WIDTH)
    pair_sums: NDArray[np.float64]  # (keys, pairs, PAIRS_WIDTH)
    places: NDArray[np.int64]  # (keys, 2 * values): first and last row with a value
    fronts: NDArray[np.int64]  # (keys, 2 * queues): begin and end
    roots: NDArray[np.int64]  # (keys, ROOT_WIDTH * trees)
    free: NDArray[np.int64]  # by size of ring: one that is free, or -1
    counters: NDArray[np.int64]
    dirty: NDArray[np.int64]
    times: NDArray[np.int64]  # the pool; a free ring's first says the next one
    rows: NDArray[np.float64]  # (pool, values)
    queues: NDArray[np.int64]  # (pool, queues): row numbers
    nodes: NDArray[np.int64]  # (pool, NODE_WIDTH * trees)


spec_of, roles_of = table(0, int64), table(1, uint8)
values_of = table(2, int64, 2, width=VALUE_WIDTH)
pairs_of, aggregates_of = table(3, int64, 2, width=2), table(4, int64, 2, width=3)
parameters_of = table(5, float64)
keys_of, links_of = table(6, int64, 2, width=KEY_WIDTH), table(7, int64, 2, width=2)
ends_of = table(8, int64)
sums_of = table(9, float64, 3, width=sums.SUMS_WIDTH)
pair_sums_of = table(10, float64, 3, width=sums.PAIRS_WIDTH)
places_of, fronts_of, roots_of = (table(i, int64, 2) for i in (11, 12, 13))
free_of, counters_of, dirty_of, times_of = (table(i, int64) for i in (14, 15, 16, 17))
rows_of, queues_of = table(18, float64, 2), table(19, int64, 2)
nodes_of = table(20, int64, 2)


@inlined
def opened(h):
    """Return the tables of the handle at an address."""
    return Tables(
        spec_of(h),
        roles_of(h),
        values_of(h),
        pairs_of(h),
        aggregates_of(h),
        parameters_of(h),
        keys_of(h),
        links_of(h),
        ends_of(h),
        sums_of(h),
        pair_sums_of(h),
        places_of(h),
        fronts_of(h),
        roots_of(h),
        free_of(h),
        counters_of(h),
        dirty_of(h),
        times_of(h),
        rows_of(h),
        queues_of(h),
        nodes_of(h),
    )


@inlined
def edge(spec, last, now):
    """Return the time before which a key's rows have left at ``now``."""
    if spec[S_KIND] == TIME:
        begin, every = now - spec[S_LENGTH], spec[S_EVERY]
        return begin + 1 if every == 1 else (begin // every + 1) * every
    if spec[S_KIND] == SESSION and now - last >= spec[S_LENGTH]:
        return now + 1
    return -(2**62)


@inner
def ring_class(size):
    """Return the logarithm of a ring's size."""
    found = 0
    while size > 1:
        size >>= 1
        found += 1
    return found


@inner
def resize(h, k, size):
    """Move a key to a ring of another size, 0 for none; False: the pool is full."""
    keys, c, free, times = keys_of(h), counters_of(h), free_of(h), times_of(h)
    base, old = keys[k, K_BASE], keys[k, K_SIZE]
    to = np.int64(-1)
    if size > 0:
        place = ring_class(size)
        to = free[place]
        if to >= 0:
            free[place] = times[to]
        elif c[C_BUMP] + size <= times.size:
            to = c[C_BUMP]
            c[C_BUMP] += size
        else:
            return False
        rows, nodes, queues, fronts = (
            rows_of(h),
            nodes_of(h),
            queues_of(h),
            fronts_of(h),
        )
        for r in range(keys[k, K_BEGIN], keys[k, K_END]):
            a, b = base + (r & (old - 1)), to + (r & (size - 1))
            times[b] = times[a]
            for v in range(rows.shape[1]):
                rows[b, v] = rows[a, v]
            for v in range(nodes.shape[1]):
                nodes[b, v] = nodes[a, v]
        for d in range(queues.shape[1]):
            for q in range(fronts[k, 2 * d], fronts[k, 2 * d + 1]):
                queues[to + (q & (size - 1)), d] = queues[base + (q & (old - 1)), d]
    if old > 0:
        place = ring_class(old)
        times[base] = free[place]
        free[place] = base
    keys[k, K_BASE], keys[k, K_SIZE] = to, size
    return True


@inner
def clear(h, k):
    """Let all rows of a key leave, and give its ring back."""
    keys, roots, fronts = keys_of(h), roots_of(h), fronts_of(h)
    table, pairs = sums_of(h), pair_sums_of(h)
    counters_of(h)[C_ROWS] -= keys[k, K_END] - keys[k, K_BEGIN]
    # Rows go on being counted: state is stored by their numbers.
    keys[k, K_BEGIN] = keys[k, K_END]
    resize(h, k, np.int64(0))
    remove(links_of(h), ends_of(h), k)
    for v in range(table.shape[1]):
        sums.clear_sums(table, k, v)
    for p in range(pairs.shape[1]):
        sums.clear_sums(pairs, k, p)
    for d in range(fronts.shape[1]):
        fronts[k, d] = 0
    for o in range(0, roots.shape[1], ordered.ROOT_WIDTH):
        roots[k, o + ordered.ROOT] = -1
        roots[k, o + ordered.DISTINCT] = 0


@inner
def mark(keys, dirty, c, k):
    """Note that a key's state has changed."""
    if keys[k, K_DIRTY] == 0:
        keys[k, K_DIRTY] = 1
        dirty[c[C_DIRTY]] = k
        c[C_DIRTY] += 1


@inlined
def next_present(rows, base, mask, v, r):
    """Return the first row after ``r`` that has the value; there is one."""
    r += 1
    while rows[base + (r & mask), v] != rows[base + (r & mask), v]:
        r += 1
    return r


@inlined
def leave(t, k, base, mask, r):
    """Let row ``r``, the first of a key, leave."""
    at = base + (r & mask)
    for v in range(t.values.shape[0]):
        x = t.rows[at, v]
        if x != x:
            continue
        if t.values[v, V_SUMS] != 0:
            sums.take_value(t.sums, k, v, x, t.values[v, V_SUMS])
        else:
            t.sums[k, v, sums.N] -= 1.0
        if t.values[v, V_MORE] == 0:
            continue
        if t.values[v, V_PLACES] != 0 and t.sums[k, v, sums.N] > 0.0:
            t.places[k, 2 * v] = next_present(t.rows, base, mask, v, r)
        for d in (t.values[v, V_LOWEST], t.values[v, V_HIGHEST]):
            if d >= 0:
                front = t.fronts[k, 2 * d]
                if t.queues[base + (front & mask), d] == r:
                    t.fronts[k, 2 * d] += 1
        o = t.values[v, V_TREE]
        if o >= 0:
            root, column = o * ordered.ROOT_WIDTH, o * ordered.NODE_WIDTH
            ordered.leave(t.nodes, t.roots, t.rows, k, root, base, mask, column, v, r)
    for p in range(t.pairs.shape[0]):
        x, y = t.rows[at, t.pairs[p, 0]], t.rows[at, t.pairs[p, 1]]
        if x == x and y == y:
            sums.take_pair(t.pair_sums, k, p, x, y)


@inlined
def push_extreme(t, k, d, base, mask, v, r, x, sign):
    """Add to a queue of maxima (``sign`` 1) or minima (-1)."""
    begin, end = t.fronts[k, 2 * d], t.fronts[k, 2 * d + 1]
    while (
        end > begin
        and sign * t.rows[base + (t.queues[base + ((end - 1) & mask), d] & mask), v]
        <= sign * x
    ):
        end -= 1
    t.queues[base + (end & mask), d] = r
    t.fronts[k, 2 * d + 1] = end + 1


@inlined
def enter(t, k, base, mask, r, now, cols, i):
    """Let event ``i`` enter as row ``r``, for which its key's ring has room."""
    at = base + (r & mask)
    t.times[at] = now
    for v in range(t.values.shape[0]):
        x = cols[t.values[v, V_COLUMN], i]
        if not abs(x) <= LARGEST:
            t.rows[at, v] = math.nan
            continue
        t.rows[at, v] = x
        if t.values[v, V_SUMS] != 0:
            sums.add_value(t.sums, k, v, x, t.values[v, V_SUMS])
        else:
            t.sums[k, v, sums.N] += 1.0
        if t.values[v, V_MORE] == 0:
            continue
        if t.sums[k, v, sums.N] == 1.0:
            t.places[k, 2 * v] = r
        t.places[k, 2 * v + 1] = r
        if t.values[v, V_LOWEST] >= 0:
            push_extreme(t, k, t.values[v, V_LOWEST], base, mask, v, r, x, -1.0)
        if t.values[v, V_HIGHEST] >= 0:
            push_extreme(t, k, t.values[v, V_HIGHEST], base, mask, v, r, x, 1.0)
        o = t.values[v, V_TREE]
        if o >= 0:
            root, column = o * ordered.ROOT_WIDTH, o * ordered.NODE_WIDTH
            ordered.enter(t.nodes, t.roots, t.rows, k, root, base, mask, column, v, r)
    for p in range(t.pairs.shape[0]):
        x, y = t.rows[at, t.pairs[p, 0]], t.rows[at, t.pairs[p, 1]]
        if x == x and y == y:
            sums.add_pair(t.pair_sums, k, p, x, y)


@inlined
def is_plain(t):
    """Whether nothing but sums is kept, of each value some, and of pairs none."""
    plain = t.pairs.shape[0] == 0
    for v in range(t.values.shape[0]):
        if t.values[v, V_SUMS] == 0 or t.values[v, V_MORE] != 0:
            plain = False
    return plain


@inlined
def slide(t, k, base, mask, first, begin, end, now, cols, i):
    """Let rows ``first`` to ``begin`` leave and event ``i`` enter as row ``end``.

    For groups that are plain (`is_plain`), with room in the key's ring.
    """
    at = base + (end & mask)
    for v in range(t.values.shape[0]):
        x = cols[t.values[v, V_COLUMN], i]
        if not abs(x) <= LARGEST:
            x = math.nan
        kept = t.values[v, V_SUMS]
        sums.slide(t.sums, k, v, kept, t.rows, base, mask, first, begin, x)
        t.rows[at, v] = x
    t.times[at] = now


@inner
def renew_value(keys, rows, values, table, k, v):
    """Make the sums of a value anew from a key's rows.

    From the latest on, which makes that one's value the origin: near those to come.
    """
    base, mask = keys[k, K_BASE], keys[k, K_SIZE] - 1
    sums.clear_sums(table, k, v)
    for r in range(keys[k, K_END] - 1, keys[k, K_BEGIN] - 1, -1):
        x = rows[base + (r & mask), v]
        if x == x:
            sums.add_value(table, k, v, x, values[v, V_SUMS])
    table[k, v, sums.FRESH] = 0.0


@inner
def renew_pair(keys, rows, pairs, table, k, p):
    """Make the sums of a pair anew from a key's rows, from the latest on."""
    base, mask = keys[k, K_BASE], keys[k, K_SIZE] - 1
    sums.clear_sums(table, k, p)
    for r in range(keys[k, K_END] - 1, keys[k, K_BEGIN] - 1, -1):
        at = base + (r & mask)
        x, y = rows[at, pairs[p, 0]], rows[at, pairs[p, 1]]
        if x == x and y == y:
            sums.add_pair(table, k, p, x, y)
    table[k, p, sums.PAIRS_FRESH] = 0.0


@inlined
def settle(t, k):
    """Make sums anew where they have lost digits."""
    for v in range(t.values.shape[0]):
        if t.values[v, V_SUMS] != 0 and sums.spoilt(t.sums, k, v, t.values[v, V_SUMS]):
            renew_value(t.keys, t.rows, t.values, t.sums, k, v)
    for p in range(t.pairs.shape[0]):
        if sums.spoilt_pair(t.pair_sums, k, p):
            renew_pair(t.keys, t.rows, t.pairs, t.pair_sums, k, p)


@inner
def make_room(h, k, now):
    """Make room for a row of a key; False: the pool is full.

    Where all keys together hold too many, those not seen for longest are forgotten:
    that is no loss where their rows have left anyhow.
    """
    keys, c, spec = keys_of(h), counters_of(h), spec_of(h)
    links, ends = links_of(h), ends_of(h)
    if c[C_ROWS] >= spec[S_LIMIT] and c[C_LISTED] != 1:
        c[C_LISTED] = ASKED
        return False
    if c[C_LISTED] == 1 and keys[k, K_BEGIN] < keys[k, K_END]:
        touch(links, ends, k)
    while c[C_ROWS] >= spec[S_LIMIT] and ends[OLDEST] != k and ends[OLDEST] >= 0:
        oldest = ends[OLDEST]
        last = keys[oldest, K_LAST]
        if last >= edge(spec, last, now):
            c[C_FORGOTTEN] += 1
        clear(h, oldest)
        mark(keys, dirty_of(h), c, oldest)
    held, size = keys[k, K_END] - keys[k, K_BEGIN], keys[k, K_SIZE]
    if held == size:
        return resize(h, k, max(2 * size, LEAST))
    if size > LEAST and held * 8 < size:
        return resize(h, k, size // 4)
    return True


@inlined
def aggregate(t, k, function, v, parameter):
    """Return one aggregate of a key's window as it stands; ``v`` may be a pair."""
    if function == COUNT_ROWS:
        return float(t.keys[k, K_END] - t.keys[k, K_BEGIN])
    if function >= COV:
        if t.pair_sums[k, v, sums.N] == 0.0:
            return math.nan
        if function == COV:
            return sums.moment(t.pair_sums, k, v, sums.X, sums.Y, sums.XY)
        if function == CORR:
            return sums.correlation(t.pair_sums, k, v)
        if function == SLOPE:
            return 1000.0 * sums.slope(t.pair_sums, k, v)  # per s, as x is in ms
        return sums.weighted_mean(t.pair_sums, k, v)
    n = t.sums[k, v, sums.N]
    if function == COUNT:
        return n
    if function == SUM:
        return t.sums[k, v, sums.SUM] + t.sums[k, v, sums.SUM_LOW]
    if function == DISTINCT:
        o = t.values[v, V_TREE] * ordered.ROOT_WIDTH
        return float(t.roots[k, o + ordered.DISTINCT])
    if n == 0.0:
        return math.nan
    if function == AVG:
        return sums.mean(t.sums, k, v)
    if function == STD:
        return math.sqrt(sums.variance(t.sums, k, v))
    if function == VAR:
        return sums.variance(t.sums, k, v)
    base, mask = t.keys[k, K_BASE], t.keys[k, K_SIZE] - 1
    if function == QUANTILE:
        return quantile(t, k, base, mask, v, n, parameter)
    if function <= MAX:
        d = t.values[v, V_HIGHEST if function == MAX else V_LOWEST]
        found = t.queues[base + (t.fronts[k, 2 * d] & mask), d]
        return t.rows[base + (found & mask), v]
    begin = base + (t.places[k, 2 * v] & mask)
    end = base + (t.places[k, 2 * v + 1] & mask)
    if function == FIRST:
        return t.rows[begin, v]
    if function == LAST:
        return t.rows[end, v]
    passed = t.times[end] - t.times[begin]
    return (t.rows[end, v] - t.rows[begin, v]) / passed * 1e9 if passed else math.nan


@inlined
def quantile(t, k, base, mask, v, n, q):
    """Return a quantile, by a straight line between the two values around it."""
    o = t.values[v, V_TREE]
    root, column = t.roots[k, o * ordered.ROOT_WIDTH], o * ordered.NODE_WIDTH
    place = q * (n - 1.0)
    below = math.floor(place)
    x = ordered.nth(t.nodes, t.rows, base, mask, column, v, root, int(below))
    if place == below:
        return x
    y = ordered.nth(t.nodes, t.rows, base, mask, column, v, root, int(below) + 1)
    return x + (y - x) * (place - below)


@step_kernel
def feed(h, w, space, begin, stop, until):
    """Take in events, with the keys of ``space``, and write each one's aggregates.

    Short of ``stop``, the pool is too small, or keys are to be listed as they were
    last seen (`C_LISTED`).
    """
    t = opened(h)
    ints, cols, all_keys = work.ints_of(w), work.cols_of(w), work.keys_of(w)
    first_row, order = work.facts_of(w)[work.FIRST], work.facts_of(w)[work.ORDER]
    spec, c, keys, times = t.spec, t.counters, t.keys, t.times
    where, at_most = spec[S_WHERE], spec[S_KEY_LIMIT]
    plain = is_plain(t)
    for i in range(begin, stop):
        role = t.roles[ints[EVENT_TYPE, i] + 1]
        k = all_keys[space, i - first_row]
        if role == 0 or k < 0:
            continue
        now = ints[EVENT_TIME, i]
        entering = role & ENTERS != 0 and (where < 0 or cols[where, i] == 1.0)
        before = edge(spec, keys[k, K_LAST], now)
        base, mask = keys[k, K_BASE], keys[k, K_SIZE] - 1
        first, end = keys[k, K_BEGIN], keys[k, K_END]
        r = first
        while r < end:
            if times[base + (r & mask)] >= before:
                if not (entering and end - r >= at_most):
                    break
                c[C_DROPPED] += 1
            if not plain:
                leave(t, k, base, mask, r)
            r += 1
        held, size = end - r, mask + 1
        rows = c[C_ROWS] - (r - first)
        full = held == size or held * 8 < size or rows >= spec[S_LIMIT]
        slides = plain and entering and not full
        if plain and not slides:
            for old in range(first, r):
                leave(t, k, base, mask, old)
        if r > first:
            keys[k, K_BEGIN] = r
            c[C_ROWS] -= r - first
        if entering:
            if full:
                if not make_room(h, k, now):
                    return i
                base, mask = keys[k, K_BASE], keys[k, K_SIZE] - 1
            if slides:
                slide(t, k, base, mask, first, r, end, now, cols, i)
            else:
                enter(t, k, base, mask, end, now, cols, i)
            keys[k, K_END] = end + 1
            c[C_ROWS] += 1
            if c[C_LISTED] == 1:
                touch(t.links, t.ends, k)
            keys[k, K_LAST] = now
            keys[k, K_ORDER] = order + i
        if entering or r > first:
            settle(t, k)
            mark(keys, t.dirty, c, k)
        if role & LOOKS:
            for j in range(t.aggregates.shape[0]):
                cols[t.aggregates[j, 2], i] = aggregate(
                    t,
                    k,
                    t.aggregates[j, 0],
                    t.aggregates[j, 1],
                    t.parameters[j],
                )
    return stop


@kernel
def forget(handle, k):
    """Let all rows of a key leave."""
    clear(handle.ctypes.data, k)
