"""Steps the automaton of one rule over a batch, key by key.

Partial matches live in an arena, in one linked list per key, earliest start
first. What a match has bound is a chain of immutable, reference-counted nodes
(`cep.engine.kernels.vm`), shared between branches. Per event a kernel call

1. lets time pass to the event's time: partial matches whose time bound has run
   out leave, and an absence that waited for it completes,
2. moves every partial match of the key along the edges that fit,
3. begins new ones,
4. releases complete matches, under the rule's after-match strategy.

Most events change nothing for most keys. That is told before any partial match is
looked at: a table says what an event with certain bits can do in a state, and a
key notes which states are occupied and the lowest (or highest) value that any of
its partial matches compares with.

Space is checked before an event is begun, so a call either takes an event
whole or returns its index and the caller enlarges the arena and calls again.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba.core.types import float64, int32, int64, uint8

from cep.engine.kernels import work
from cep.engine.kernels.handle import WORDS, copy_table, length, set_word, table, word
from cep.engine.kernels.jit import inner, kernel, step_kernel
from cep.engine.kernels.rows import ID_HI as EVENT_HI
from cep.engine.kernels.rows import ID_LO as EVENT_LO
from cep.engine.kernels.rows import TIME as TIME_NS
from cep.engine.kernels.rows import TYPE
from cep.engine.kernels.vm import (
    COUNT,
    FIRST,
    GE,
    GT,
    ID_HI,
    ID_LO,
    LENGTH,
    LT,
    NODE_WIDTH,
    ORDER,
    PREV,
    REFS,
    TIME,
    VARIABLE,
    latest,
    run,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


# Edge table: one row per edge of a flattened state, then one per completion.
E_ACTION, E_TARGET, E_VARIABLE = 0, 1, 2
E_TRUE, E_FALSE = 3, 4  # bits of conditions on the event alone
E_ITER_TRUE, E_ITER_FALSE = 5, 6  # bits of iterative conditions
EDGE_WIDTH = 7
IGNORE, TAKE, STOP = 0, 1, 2

# State table.
S_EDGES, S_EDGES_END, S_COMPLETES, S_COMPLETES_END, S_KIND = 0, 1, 2, 3, 4
S_GAP = 5  # how long after its last bound event a partial match here may wait; 0: any
S_WATCH = 6  # the one iterative condition asked here, if it can be watched; else -1
STATE_WIDTH = 7
NORMAL, FINAL, PENDING = 0, 1, 2

# Watched conditions: a comparison of a column of the event with what a program
# says of the match, which is computed once, when a partial match enters a state.
W_OP, W_COLUMN, W_PROGRAM = 0, 1, 2
WATCH_WIDTH = 3

# What an event with certain bits can do to a partial match in a certain state:
# nothing, something, something only if the watched condition holds, end it, or take
# it along one edge for certain, and nothing else (TAKES and the edge's row).
INERT, REACTS, WATCHES, DIES, TAKES = 0, 1, 2, 3, 4

# Partial matches; a complete match that is held back is one with state -1. P_END
# is when a partial match runs out, and when a held match was completed.
P_STATE, P_NODE, P_START, P_END, P_ORDER, P_NEXT = 0, 1, 2, 3, 4, 5
PARTIAL_WIDTH = 6

# Keys.
K_HEAD, K_TAIL, K_COUNT, K_HELD, K_HELD_COUNT = 0, 1, 2, 3, 4
K_DIRTY, K_TIMER, K_LAST, K_EMITTED = 5, 6, 7, 8
K_BINDINGS = 9  # lengths of all live and held matches together
K_EMITTED_TIMEOUT = 10
K_OCCUPIED = 11  # a bit for each state that partial matches may be in
K_DEADLINE = 12  # no partial match runs out before
KEY_WIDTH = 13

# Counters of the arena.
C_PARTIAL_BUMP, C_PARTIAL_FREE, C_PARTIAL_FREED = 0, 1, 2
C_NODE_BUMP, C_NODE_FREE, C_NODE_FREED = 3, 4, 5
C_HEAP, C_OUT, C_DIRTY = 6, 7, 8
C_TIMEOUTS, C_DROPPED, C_TRIPPED, C_LIVE = 9, 10, 11, 12
C_MATCHES, C_HELD_PRUNED, C_TRIPPED_AT = 13, 14, 15
C_OUT_BINDINGS = 16  # lengths of all that is in the output table together
C_MOMENT = 17  # how often time has let something of a key end
COUNTER_WIDTH = 18

# Output rows. O_CAUSE is the place of the event at which it came out; of what time let
# out it tells the moments apart, below 0.
O_KEY, O_NODE, O_TIME, O_START, O_CAUSE, O_TIMEOUT = 0, 1, 2, 3, 4, 5
O_HASH = 6  # of what is bound, where several have one cause
OUT_WIDTH = 7

# Parameters of a rule.
R_WITHIN, R_SKIP, R_SKIP_VARIABLE, R_CAP, R_CAP_POLICY = 0, 1, 2, 3, 4
R_HAVING, R_BRANCH, R_BINDINGS = 5, 6, 7
R_GAPS = 8  # whether any state has a gap limit
R_LEAVES = 9  # how many of the emitted values are those of matches, not time-outs
R_TIMEOUTS = 10  # whether time-outs are put out
R_MISSING = 11  # whether a skip target that is not there trips the rule
R_CONDITIONS = 12  # conditions on the event alone, if there is a table of reactions
R_SPACE, R_WORD = 13, 14  # which keys and which bits of a batch are the rule's
R_OUT, R_OUT_BINDINGS = 15, 16  # how much is put out before it has to be taken
R_AHEAD = 17  # whether `dies_ahead` may be asked
R_TRIPS = 18  # whether the rule may trip, so that time passes for all keys at once
PARAM_WIDTH = 19
NO_SKIP, TO_NEXT, PAST_LAST, TO_FIRST, TO_LAST = 0, 1, 2, 3, 4
DROP_OLDEST, DROP_NEW, TRIP = 0, 1, 2
AHEAD = 8  # events of a key that are looked at ahead of a partial match's beginning
# Why a rule tripped (C_TRIPPED).
LIMIT, SKIP_TARGET_MISSING, SKIP_TARGET_IS_FIRST = 1, 2, 3

NEVER = np.iinfo(np.int64).min
FOR_EVER = np.iinfo(np.int64).max
HASH_FACTOR = np.int64(-7046029254386353131)
MOST_STATES = 62  # bits of K_OCCUPIED; larger automata share the last


class Program(NamedTuple):
    """A rule's compiled form; read only."""

    code: NDArray[np.int32]  # (n, 3) expression programs
    progs: NDArray[np.int32]  # (p, 2) slices of code
    consts: NDArray[np.float64]
    tables: NDArray[np.float64]  # functions of strings
    edges: NDArray[np.int64]
    states: NDArray[np.int64]
    params: NDArray[np.int64]
    iterative: NDArray[np.int64]  # program of each iterative condition
    captures: NDArray[np.int64]  # columns a node keeps
    leaves: NDArray[np.int64]  # programs of the emitted values
    watches: NDArray[np.int64]  # (iterative, WATCH_WIDTH)
    reactions: NDArray[np.int32]  # (states + 1, 2 ** conditions)
    types: NDArray[np.uint8]  # 1 for event types that the rule sees


class Arena(NamedTuple):
    """A rule's state; changed in place."""

    partials: NDArray[np.int64]
    watched: NDArray[np.float64]  # (partials,) the match's side of what is watched
    nodes: NDArray[np.int64]
    vals: NDArray[np.float64]  # (nodes, captures)
    held: NDArray[np.float64]  # (partials, leaves) emitted values of held matches
    keys: NDArray[np.int64]
    bars: NDArray[np.float64]  # (keys, watches) the lowest or highest that is watched
    counters: NDArray[np.int64]
    heap: NDArray[np.int64]  # (keys, 2): deadline, key; one timer per key
    dirty: NDArray[np.int64]  # keys changed since the last snapshot
    out: NDArray[np.int64]
    outv: NDArray[np.float64]  # (out, leaves)
    stack: NDArray[np.float64]
    kept: NDArray[np.int64]  # (branch + 2, 2)
    made: NDArray[np.int64]  # (branch + 2, 2), zeros


# Places of the tables in a rule's handle: those of `Program`, of `Arena`, of a batch.
CODE = np.int64(0)
PROGS = np.int64(1)
CONSTS = np.int64(2)
TABLES = np.int64(3)
EDGES = np.int64(4)
STATES = np.int64(5)
PARAMS = np.int64(6)
ITERATIVE = np.int64(7)
CAPTURES = np.int64(8)
LEAVES = np.int64(9)
WATCHED_BY = np.int64(10)
REACTIONS = np.int64(11)
TYPES = np.int64(12)
PARTIALS = np.int64(13)
WATCHED = np.int64(14)
NODES = np.int64(15)
VALS = np.int64(16)
HELD = np.int64(17)
KEYS = np.int64(18)
BARS = np.int64(19)
COUNTERS = np.int64(20)
HEAP = np.int64(21)
DIRTY = np.int64(22)
OUT = np.int64(23)
OUTV = np.int64(24)
STACK_ROWS = np.int64(25)
KEPT = np.int64(26)
MADE = np.int64(27)
INTS = np.int64(28)
COLS = np.int64(29)
FIRST_ROW = np.int64(30)
BITS = np.int64(31)
FOLLOWING = np.int64(32)
HANDLE_LENGTH = 33


code_of = table(CODE, int32, 2, width=3)
progs_of = table(PROGS, int32, 2, width=2)
consts_of = table(CONSTS, float64)
tables_of = table(TABLES, float64, 2)
stack_of = table(STACK_ROWS, float64)
edges_of = table(EDGES, int64, 2, width=EDGE_WIDTH)
states_of = table(STATES, int64, 2, width=STATE_WIDTH)
params_of = table(PARAMS, int64)
iterative_of = table(ITERATIVE, int64)
captures_of = table(CAPTURES, int64)
leaves_of = table(LEAVES, int64)
watches_of = table(WATCHED_BY, int64, 2, width=WATCH_WIDTH)
reactions_of = table(REACTIONS, int32, 2)
types_of = table(TYPES, uint8)
partials_of = table(PARTIALS, int64, 2, width=PARTIAL_WIDTH)
watched_of = table(WATCHED, float64)
nodes_of = table(NODES, int64, 2, width=NODE_WIDTH)
vals_of = table(VALS, float64, 2)
held_of = table(HELD, float64, 2)
keys_of = table(KEYS, int64, 2, width=KEY_WIDTH)
bars_of = table(BARS, float64, 2)
counters_of = table(COUNTERS, int64)
heap_of = table(HEAP, int64, 2, width=2)
dirty_of = table(DIRTY, int64)
out_of = table(OUT, int64, 2, width=OUT_WIDTH)
outv_of = table(OUTV, float64, 2)
kept_of = table(KEPT, int64, 2, width=2)
made_of = table(MADE, int64, 2, width=2)
ints_of = table(INTS, int64, 2)
cols_of = table(COLS, float64, 2)
bits_of = table(BITS, int64, 2)
following_of = table(FOLLOWING, int64)


@inner
def place_of(h, i):
    """Row ``i``'s place among all events."""
    return word(h, FIRST_ROW * WORDS) + i


@inner
def evaluate(h, program, row, node):
    """Run a program of the rule over an event and what a match has bound."""
    progs = progs_of(h)
    return run(
        code_of(h),
        progs[program, 0],
        progs[program, 1],
        consts_of(h),
        tables_of(h),
        cols_of(h),
        row,
        nodes_of(h),
        vals_of(h),
        node,
        stack_of(h),
    )


@inner
def release_node(h, node):
    """Give up one reference; free the chain as far as nobody else holds it."""
    nodes = nodes_of(h)
    c = counters_of(h)
    while node >= 0:
        nodes[node, REFS] -= 1
        if nodes[node, REFS] > 0:
            return
        before = nodes[node, PREV]
        nodes[node, PREV] = c[C_NODE_FREE]
        c[C_NODE_FREE] = node
        c[C_NODE_FREED] += 1
        node = before


@inner
def new_node(h, i, before, variable):
    """Bind event ``i`` after ``before``; the caller takes the references."""
    nodes = nodes_of(h)
    c = counters_of(h)
    ints = ints_of(h)
    captures = captures_of(h)
    vals = vals_of(h)
    cols = cols_of(h)
    node = c[C_NODE_FREE]
    if node >= 0:
        c[C_NODE_FREE] = nodes[node, PREV]
        c[C_NODE_FREED] -= 1
    else:
        node = c[C_NODE_BUMP]
        c[C_NODE_BUMP] += 1
    same = latest(nodes, before, np.int64(variable))
    nodes[node, PREV] = before
    nodes[node, VARIABLE] = variable
    nodes[node, COUNT] = nodes[same, COUNT] + 1 if same >= 0 else 1
    nodes[node, FIRST] = nodes[same, FIRST] if same >= 0 else node
    nodes[node, REFS] = 0
    nodes[node, TIME] = ints[TIME_NS, i]
    nodes[node, ORDER] = place_of(h, i)
    nodes[node, ID_HI] = ints[EVENT_HI, i]
    nodes[node, ID_LO] = ints[EVENT_LO, i]
    nodes[node, LENGTH] = nodes[before, LENGTH] + 1 if before >= 0 else 1
    if before >= 0:
        nodes[before, REFS] += 1
    for j in range(captures.size):
        vals[node, j] = cols[captures[j], i]
    return node


@inner
def deadline_of(h, state, start, last):
    """When a partial match runs out: start and last event's times decide."""
    params = params_of(h)
    states = states_of(h)
    within, gap = params[R_WITHIN], states[state, S_GAP]
    end = np.int64(FOR_EVER)
    if within > 0:
        end = start + within if within < FOR_EVER - 1 - start else FOR_EVER - 1
    if gap > 0 and gap < FOR_EVER - last and last + gap < end:
        end = last + gap
    return end


@inner
def new_partial(h, k, node, start, end, order):
    """Make a partial match, not yet in any list; takes a reference to its node."""
    partials = partials_of(h)
    c = counters_of(h)
    nodes = nodes_of(h)
    keys = keys_of(h)
    p = c[C_PARTIAL_FREE]
    if p >= 0:
        c[C_PARTIAL_FREE] = partials[p, P_NEXT]
        c[C_PARTIAL_FREED] -= 1
    else:
        p = c[C_PARTIAL_BUMP]
        c[C_PARTIAL_BUMP] += 1
    partials[p, P_STATE] = -1
    partials[p, P_NODE] = node
    partials[p, P_START] = start
    partials[p, P_END] = end
    partials[p, P_ORDER] = order
    partials[p, P_NEXT] = -1
    nodes[node, REFS] += 1
    keys[k, K_BINDINGS] += nodes[node, LENGTH]
    return p


@inner
def note(h, k, p):
    """Let the key know of what a partial match of it waits for."""
    partials = partials_of(h)
    keys = keys_of(h)
    states = states_of(h)
    watched = watched_of(h)
    watches = watches_of(h)
    bars = bars_of(h)
    state = partials[p, P_STATE]
    keys[k, K_OCCUPIED] |= np.int64(1) << min(state, MOST_STATES - 1)
    if partials[p, P_END] < keys[k, K_DEADLINE]:
        keys[k, K_DEADLINE] = partials[p, P_END]
    j = states[state, S_WATCH]
    if j >= 0:
        x, op = watched[p], watches[j, W_OP]
        bar = bars[k, j]
        # NaN: nothing is waited for yet.
        if bar != bar or (x < bar if op in (GT, GE) else x > bar):
            bars[k, j] = x


@inner
def enter(h, k, p, state):
    """Put a partial match into a state."""
    partials = partials_of(h)
    nodes = nodes_of(h)
    states = states_of(h)
    watches = watches_of(h)
    watched = watched_of(h)
    partials[p, P_STATE] = state
    node = partials[p, P_NODE]
    partials[p, P_END] = deadline_of(h, state, partials[p, P_START], nodes[node, TIME])
    j = states[state, S_WATCH]
    if j >= 0:
        w = watches[j, W_PROGRAM]
        watched[p] = evaluate(h, w, np.int64(0), node)
    note(h, k, p)


@inner
def compare(op, x, y):
    """Compare as the stack machine does."""
    if op == GT:
        return x > y
    if op == GE:
        return x >= y
    if op == LT:
        return x < y
    return x <= y


@inner
def forget_notes(h, k):
    """Before the notes of a key's partial matches are taken anew."""
    keys = keys_of(h)
    bars = bars_of(h)
    keys[k, K_OCCUPIED] = 0
    keys[k, K_DEADLINE] = FOR_EVER
    for j in range(bars.shape[1]):
        bars[k, j] = math.nan


@inner
def free_partial(h, k, p):
    """Return a partial match to the free list and give up its node."""
    c = counters_of(h)
    keys = keys_of(h)
    nodes = nodes_of(h)
    partials = partials_of(h)
    keys[k, K_BINDINGS] -= nodes[partials[p, P_NODE], LENGTH]
    release_node(h, partials[p, P_NODE])
    partials[p, P_NEXT] = c[C_PARTIAL_FREE]
    c[C_PARTIAL_FREE] = p
    c[C_PARTIAL_FREED] += 1


@inner
def unlink(h, k, before, p):
    """Take ``p``, which follows ``before`` (-1: the head), out of its key's list."""
    partials = partials_of(h)
    keys = keys_of(h)
    c = counters_of(h)
    after = partials[p, P_NEXT]
    if before < 0:
        keys[k, K_HEAD] = after
    else:
        partials[before, P_NEXT] = after
    if keys[k, K_TAIL] == p:
        keys[k, K_TAIL] = before
    keys[k, K_COUNT] -= 1
    c[C_LIVE] -= 1


@inner
def insert_after(h, k, before, p):
    """Put ``p`` behind ``before`` (-1: at the tail) in its key's list."""
    partials = partials_of(h)
    keys = keys_of(h)
    c = counters_of(h)
    if before < 0:
        before = keys[k, K_TAIL]
    if before < 0:
        keys[k, K_HEAD] = p
        partials[p, P_NEXT] = -1
    else:
        partials[p, P_NEXT] = partials[before, P_NEXT]
        partials[before, P_NEXT] = p
    if keys[k, K_TAIL] == before:
        keys[k, K_TAIL] = p
    keys[k, K_COUNT] += 1
    c[C_LIVE] += 1


@inner
def mark_dirty(h, k):
    """Note that the key's state has changed since the last snapshot."""
    keys = keys_of(h)
    dirty = dirty_of(h)
    c = counters_of(h)
    if keys[k, K_DIRTY] == 0:
        keys[k, K_DIRTY] = 1
        dirty[c[C_DIRTY]] = k
        c[C_DIRTY] += 1


@inner
def place_timer(h, j, deadline, k):
    """Write one entry of the heap; the key knows where its timer is."""
    heap = heap_of(h)
    keys = keys_of(h)
    heap[j, 0], heap[j, 1] = deadline, k
    keys[k, K_TIMER] = j + 1


@inner
def set_timer(h, deadline, k):
    """Let the key's timer ring at ``deadline`` at the latest.

    A binary heap, earliest deadline on top. A timer that rings too early finds
    nothing due and is set again.
    """
    heap = heap_of(h)
    c = counters_of(h)
    keys = keys_of(h)
    j = keys[k, K_TIMER] - 1
    if j < 0:
        j = c[C_HEAP]
        c[C_HEAP] += 1
    elif heap[j, 0] <= deadline:
        return
    while j > 0:
        parent = (j - 1) >> 1
        if heap[parent, 0] <= deadline:
            break
        place_timer(h, j, heap[parent, 0], heap[parent, 1])
        j = parent
    place_timer(h, j, deadline, k)


@inner
def pop_timer(h):
    """Take the earliest timer out and return its key."""
    heap = heap_of(h)
    c = counters_of(h)
    keys = keys_of(h)
    k = heap[0, 1]
    keys[k, K_TIMER] = 0
    c[C_HEAP] -= 1
    n = c[C_HEAP]
    if n == 0:
        return k
    deadline, key = heap[n, 0], heap[n, 1]
    j = np.int64(0)
    while True:
        child = 2 * j + 1
        if child >= n:
            break
        if child + 1 < n and heap[child + 1, 0] < heap[child, 0]:
            child += 1
        if heap[child, 0] >= deadline:
            break
        place_timer(h, j, heap[child, 0], heap[child, 1])
        j = child
    place_timer(h, j, deadline, key)
    return k


@inner
def fill(h, row, node, begin, end, values, at):
    """Compute emitted values ``begin`` to ``end`` into a row of ``values``."""
    leaves = leaves_of(h)
    for j in range(begin, end):
        p = leaves[j]
        values[at, j] = evaluate(h, p, row, node)


@inner
def put_out(h, k, i, node, end, order, timeout):
    """Add an output row; returns its place."""
    c = counters_of(h)
    out = out_of(h)
    nodes = nodes_of(h)
    at = c[C_OUT]
    c[C_OUT] += 1
    out[at, O_KEY] = k
    out[at, O_NODE] = node
    out[at, O_TIME] = end
    out[at, O_START] = order
    out[at, O_CAUSE] = place_of(h, i) if i >= 0 else -1 - c[C_MOMENT]
    out[at, O_TIMEOUT] = timeout
    nodes[node, REFS] += 1
    c[C_OUT_BINDINGS] += nodes[node, LENGTH]
    return at


@inner
def complete(h, k, i, node, start, end, order):
    """A match is complete: keep it if its condition holds, put it out or hold it.

    ``i`` is the completing event's batch row, -1 when time completed it.
    """
    params = params_of(h)
    partials = partials_of(h)
    keys = keys_of(h)
    held = held_of(h)
    c = counters_of(h)
    outv = outv_of(h)
    row = max(i, np.int64(0))
    p = params[R_HAVING]
    if p >= 0:
        x = evaluate(h, p, row, node)
        if not (x == x and x != 0.0):
            return
    if params[R_SKIP] != NO_SKIP:
        at = new_partial(h, k, node, start, end, order)
        partials[at, P_NEXT] = keys[k, K_HELD]
        keys[k, K_HELD] = at
        keys[k, K_HELD_COUNT] += 1
        values = held
    else:
        at = put_out(h, k, i, node, end, order, np.int64(0))
        c[C_MATCHES] += 1
        values = outv
    leaves = params[R_LEAVES]
    fill(h, row, node, np.int64(0), leaves, values, at)


@inner
def before_in_release(h, p, q):
    """Whether ``p`` goes before ``q``: earliest start, longest, lowest order.

    Of matches of the same events the one whose steps come first in the pattern.
    """
    partials = partials_of(h)
    nodes = nodes_of(h)
    if partials[p, P_ORDER] != partials[q, P_ORDER]:
        return partials[p, P_ORDER] < partials[q, P_ORDER]
    a, b = partials[p, P_NODE], partials[q, P_NODE]
    if nodes[a, LENGTH] != nodes[b, LENGTH]:
        return nodes[a, LENGTH] > nodes[b, LENGTH]
    # Of equal length: compare the chains, the earliest difference decides.
    lower = differ = False
    while a >= 0 and a != b:
        if nodes[a, ORDER] != nodes[b, ORDER]:
            lower, differ = nodes[a, ORDER] < nodes[b, ORDER], True
        elif not differ and nodes[a, VARIABLE] != nodes[b, VARIABLE]:
            lower = nodes[a, VARIABLE] < nodes[b, VARIABLE]
        a, b = nodes[a, PREV], nodes[b, PREV]
    return lower


@inner
def prune(h, k, limit):
    """Drop partial and held matches of the key that began at or before ``limit``."""
    partials = partials_of(h)
    keys = keys_of(h)
    c = counters_of(h)
    before, p = np.int64(-1), keys[k, K_HEAD]
    while p >= 0:
        after = partials[p, P_NEXT]
        if partials[p, P_ORDER] <= limit:
            unlink(h, k, before, p)
            free_partial(h, k, p)
        else:
            before = p
        p = after
    before, p = np.int64(-1), keys[k, K_HELD]
    while p >= 0:
        after = partials[p, P_NEXT]
        if partials[p, P_ORDER] <= limit:
            if before < 0:
                keys[k, K_HELD] = after
            else:
                partials[before, P_NEXT] = after
            keys[k, K_HELD_COUNT] -= 1
            c[C_HELD_PRUNED] += 1
            free_partial(h, k, p)
        else:
            before = p
        p = after


@inner
def release(h, k, i):
    """Release held matches that no earlier-started partial match can still displace."""
    partials = partials_of(h)
    keys = keys_of(h)
    nodes = nodes_of(h)
    c = counters_of(h)
    params = params_of(h)
    outv = outv_of(h)
    held = held_of(h)
    skip = params[R_SKIP]
    while keys[k, K_HELD] >= 0 and c[C_TRIPPED] <= LIMIT:
        best, best_before = keys[k, K_HELD], np.int64(-1)
        before, p = best, partials[best, P_NEXT]
        while p >= 0:
            if before_in_release(h, p, best):
                best, best_before = p, before
            before, p = p, partials[p, P_NEXT]
        head = keys[k, K_HEAD]
        if head >= 0 and partials[head, P_ORDER] < partials[best, P_ORDER]:
            return
        node, start = partials[best, P_NODE], partials[best, P_ORDER]
        target = np.int64(-1)
        if skip in (TO_FIRST, TO_LAST):
            target = latest(nodes, node, params[R_SKIP_VARIABLE])
            if target >= 0 and skip == TO_FIRST:
                target = nodes[target, FIRST]
            if params[R_MISSING] != 0:
                if target < 0:
                    c[C_TRIPPED] = SKIP_TARGET_MISSING
                elif nodes[target, ORDER] == start:
                    c[C_TRIPPED] = SKIP_TARGET_IS_FIRST
                if c[C_TRIPPED] > LIMIT:
                    c[C_TRIPPED_AT] = partials[best, P_END]
                    return
        after = partials[best, P_NEXT]
        if best_before < 0:
            keys[k, K_HELD] = after
        else:
            partials[best_before, P_NEXT] = after
        keys[k, K_HELD_COUNT] -= 1
        c[C_MATCHES] += 1
        at = put_out(h, k, i, node, partials[best, P_END], start, np.int64(0))
        for j in range(params[R_LEAVES]):
            outv[at, j] = held[best, j]
        free_partial(h, k, best)
        if skip == TO_NEXT:
            prune(h, k, start)
        elif skip == PAST_LAST:
            prune(h, k, nodes[node, ORDER])
        elif target >= 0:
            prune(h, k, nodes[target, ORDER] - 1)


@inner
def next_deadline(h, k):
    """When the first of a key's partial matches runs out."""
    partials = partials_of(h)
    keys = keys_of(h)
    params = params_of(h)
    p = keys[k, K_HEAD]
    if p < 0:
        return np.int64(FOR_EVER)
    first = partials[p, P_END]
    if params[R_GAPS] != 0:
        while p >= 0:
            first = min(first, partials[p, P_END])
            p = partials[p, P_NEXT]
    return first


@inner
def must_be_taken(h):
    """Whether so much has been put out that it has to be taken first."""
    c, params = counters_of(h), params_of(h)
    return c[C_OUT] > params[R_OUT] or c[C_OUT_BINDINGS] > params[R_OUT_BINDINGS]


@inner
def expire(h, k, now):
    """Let time pass to ``now`` for one key.

    What ends at one moment is released before what ends later, however far time
    moves in one call: a release may drop those that end later.
    """
    partials = partials_of(h)
    keys = keys_of(h)
    c = counters_of(h)
    params = params_of(h)
    states = states_of(h)
    leaves = leaves_of(h)
    outv = outv_of(h)
    end = next_deadline(h, k)
    if end > now:
        keys[k, K_DEADLINE] = end
        return
    mark_dirty(h, k)
    while end <= now and end < FOR_EVER:
        c[C_MOMENT] += 1
        before, p = np.int64(-1), keys[k, K_HEAD]
        while p >= 0:
            after = partials[p, P_NEXT]
            if partials[p, P_END] > end:
                if params[R_GAPS] == 0:
                    break  # in order of their start, they run out in that order
                before, p = p, after
                continue
            unlink(h, k, before, p)
            node, start = partials[p, P_NODE], partials[p, P_START]
            order = partials[p, P_ORDER]
            if states[partials[p, P_STATE], S_KIND] == PENDING:
                complete(h, k, np.int64(-1), node, start, end, order)
            else:
                c[C_TIMEOUTS] += 1
                if params[R_TIMEOUTS] != 0:
                    at = put_out(h, k, np.int64(-1), node, end, order, np.int64(1))
                    fill(h, np.int64(0), node, params[R_LEAVES], leaves.size, outv, at)
            free_partial(h, k, p)
            p = after
        if keys[k, K_HELD] >= 0:
            release(h, k, np.int64(-1))
        end = next_deadline(h, k)
        if must_be_taken(h):
            break  # the rest is due still
    # What is noted of those that are left may be too much, which costs a look at
    # them when it matters, and less than to note it anew.
    if keys[k, K_HEAD] < 0:
        forget_notes(h, k)
    keys[k, K_DEADLINE] = end


@inner
def fits(h, i, row, bits, node, known, value):
    """Whether the conditions of edge ``row`` hold; returns (holds, known, value).

    ``known`` and ``value`` remember which iterative conditions were evaluated
    for this partial match, so that each runs at most once.
    """
    edges = edges_of(h)
    iterative = iterative_of(h)
    if (bits & edges[row, E_TRUE]) != edges[row, E_TRUE]:
        return False, known, value
    if (bits & edges[row, E_FALSE]) != 0:
        return False, known, value
    true = edges[row, E_ITER_TRUE]
    wanted = true | edges[row, E_ITER_FALSE]
    j = np.int64(0)
    while wanted >> j:
        bit = np.int64(1) << j
        if wanted & bit:
            if not known & bit:
                p = iterative[j]
                x = evaluate(h, p, i, node)
                known |= bit
                if x == x and x != 0.0:
                    value |= bit
            if bool(value & bit) != bool(true & bit):
                return False, known, value
        j += 1
    return True, known, value


@inner
def drop_guards(h):
    """Give up the references that `advance` held on the nodes it made."""
    made = made_of(h)
    for j in range(1, made[0, 0] + 1):
        release_node(h, made[j, 1])
    made[0, 0] = 0


@inner
def advance(h, k, i, bits, p, known, value):
    """Move one partial match (``p`` -1: the start state) by one event.

    Fills the table ``kept`` with rows (state, node) of the partial matches that
    follow from it and returns their number; -1 means that nothing changes.
    Complete matches are passed on at once. Nodes made here are guarded by a
    reference in the table ``made`` until the caller has taken its own and calls
    `drop_guards`. ``known`` and ``value`` are as in `fits`.
    """
    partials = partials_of(h)
    edges = edges_of(h)
    states = states_of(h)
    kept = kept_of(h)
    made = made_of(h)
    ints = ints_of(h)
    nodes = nodes_of(h)
    now = ints[TIME_NS, i]
    if p >= 0:
        state, node = partials[p, P_STATE], partials[p, P_NODE]
        start, order = partials[p, P_START], partials[p, P_ORDER]
    else:
        state, node = np.int64(0), np.int64(-1)
        start, order = now, place_of(h, i)
    n, stop = 0, False
    for row in range(states[state, S_EDGES], states[state, S_EDGES_END]):
        holds, known, value = fits(h, i, row, bits, node, known, value)
        if not holds:
            continue
        target, action = edges[row, E_TARGET], edges[row, E_ACTION]
        if action == STOP:
            stop = True
        elif action == IGNORE:
            if states[target, S_KIND] == FINAL:
                complete(h, k, i, node, start, now, order)
            else:
                kept[n, 0], kept[n, 1] = target, node
                n += 1
        else:
            variable, fresh = edges[row, E_VARIABLE], np.int64(-1)
            for j in range(1, made[0, 0] + 1):
                if made[j, 0] == variable:
                    fresh = made[j, 1]
            if fresh < 0:
                fresh = new_node(h, i, node, variable)
                nodes[fresh, REFS] += 1
                made[0, 0] += 1
                made[made[0, 0], 0], made[made[0, 0], 1] = variable, fresh
            done = states[target, S_KIND] == FINAL
            if not done:
                kept[n, 0], kept[n, 1] = target, fresh
                n += 1
                for last in range(
                    states[target, S_COMPLETES], states[target, S_COMPLETES_END]
                ):
                    done, known, value = fits(h, i, last, bits, node, known, value)
                    if done:
                        break
            if done:
                complete(h, k, i, fresh, start, now, order)
    if stop:
        return 0
    if p >= 0 and n == 1 and kept[0, 0] == state and kept[0, 1] == node:
        return -1
    return n


@inner
def has_room(h, k):
    """Whether the arena can take the worst that one event of the key may need."""
    if must_be_taken(h):
        return False
    c, keys = counters_of(h), keys_of(h)
    need = (keys[k, K_COUNT] + 1) * params_of(h)[R_BRANCH] + keys[k, K_COUNT]
    partials = length(h, PARTIALS) - c[C_PARTIAL_BUMP] + c[C_PARTIAL_FREED]
    nodes = length(h, NODES) - c[C_NODE_BUMP] + c[C_NODE_FREED]
    out = length(h, OUT) - c[C_OUT]
    room = partials >= 2 * need and nodes >= need
    return room and out >= 2 * need + keys[k, K_HELD_COUNT]


@inner
def reaction(h, state, bits):
    """What an event with these bits can do in a state."""
    if params_of(h)[R_CONDITIONS] < 0:
        return np.int64(REACTS)
    return np.int64(reactions_of(h)[state, bits])


@inner
def may_move(h, k, i, bits, occupied):
    """Whether an event may change any of a key's partial matches."""
    states = states_of(h)
    cols = cols_of(h)
    watches = watches_of(h)
    bars = bars_of(h)
    state = np.int64(0)
    while occupied != 0:
        if occupied & 1:
            what = reaction(h, state, bits)
            if what == WATCHES:
                j = states[state, S_WATCH]
                x = cols[watches[j, W_COLUMN], i]
                if compare(watches[j, W_OP], x, bars[k, j]):
                    return True
            elif what != INERT:
                return True
            if state == MOST_STATES - 1:
                return True
        occupied >>= 1
        state += 1
    return False


@inner
def take(h, k, i, p, row):
    """Let a partial match take an event along one edge."""
    partials, nodes, edges = partials_of(h), nodes_of(h), edges_of(h)
    old = partials[p, P_NODE]
    fresh = new_node(h, i, old, edges[row, E_VARIABLE])
    nodes[fresh, REFS] = 1
    nodes[old, REFS] -= 1  # the new node holds it
    keys_of(h)[k, K_BINDINGS] += 1
    partials[p, P_NODE] = fresh
    enter(h, k, p, edges[row, E_TARGET])


@inner
def move(h, k, i, bits):
    """Move every partial match of a key by one event; whether any changed."""
    partials = partials_of(h)
    nodes = nodes_of(h)
    kept = kept_of(h)
    made = made_of(h)
    keys = keys_of(h)
    states = states_of(h)
    cols = cols_of(h)
    watches = watches_of(h)
    watched = watched_of(h)
    changed = False
    forget_notes(h, k)
    before, p = np.int64(-1), keys[k, K_HEAD]
    while p >= 0:
        after = partials[p, P_NEXT]
        state = partials[p, P_STATE]
        what = reaction(h, state, bits)
        if what >= TAKES:
            changed = True
            take(h, k, i, p, what - TAKES)
            before, p = p, after
            continue
        if what == DIES:
            changed = True
            unlink(h, k, before, p)
            free_partial(h, k, p)
            p = after
            continue
        known, value = np.int64(0), np.int64(0)
        j = states[state, S_WATCH]
        if j >= 0 and what != INERT:
            known = np.int64(1) << j
            x = cols[watches[j, W_COLUMN], i]
            if compare(watches[j, W_OP], x, watched[p]):
                value = known
            elif what == WATCHES:
                what = INERT
        n = -1
        if what != INERT:
            n = advance(h, k, i, bits, p, known, value)
        if n < 0:
            note(h, k, p)
            before = p
        elif n == 0:
            changed = True
            unlink(h, k, before, p)
            free_partial(h, k, p)
        else:
            changed = True
            old = partials[p, P_NODE]
            start, order = partials[p, P_START], partials[p, P_ORDER]
            nodes[kept[0, 1], REFS] += 1
            keys[k, K_BINDINGS] += nodes[kept[0, 1], LENGTH] - nodes[old, LENGTH]
            partials[p, P_NODE] = kept[0, 1]
            enter(h, k, p, kept[0, 0])
            before = p
            for j in range(1, n):
                q = new_partial(h, k, kept[j, 1], start, np.int64(0), order)
                insert_after(h, k, before, q)
                enter(h, k, q, kept[j, 0])
                before = q
            release_node(h, old)
        if made[0, 0] > 0:
            drop_guards(h)
        p = after
    return changed


@inner
def look_ahead(h, following, all_keys, first, begin, end):
    """Note of each row from ``begin`` to ``end`` the next one of its key, or -1.

    ``following`` begins with row ``first``. The heap of timers is used for it, which
    a rule without time limits leaves empty.
    """
    ints, types, last = ints_of(h), types_of(h), heap_of(h)
    space, stamp = params_of(h)[R_SPACE], place_of(h, begin) + 1
    for i in range(end - 1, begin - 1, -1):
        code, k = ints[TYPE, i], all_keys[space, i - first]
        if code < 0 or types[code] == 0 or k < 0:
            continue
        known = last[k, 1] == stamp and last[k, 0] > i
        following[i - first] = last[k, 0] if known else -1
        last[k, 0], last[k, 1] = i, stamp


@inner
def dies_ahead(h, k, i, first, what):
    """Return the row that ends what would begin with an event, unseen; or -1.

    Many a partial match dies at one of its key's next events. If they are in the
    batch, it need not begin, provided that nothing else can tell: no time limit
    runs out and no rule trips (`R_AHEAD`), no limit is near, and no match
    completes meanwhile that it would hold back.
    """
    params, keys = params_of(h), keys_of(h)
    # Bounds of what there may be meanwhile, those that were left out included.
    count = keys[k, K_COUNT] + 2 * AHEAD
    bindings = keys[k, K_BINDINGS] + (AHEAD + 1) * (count + AHEAD)
    if count > params[R_CAP] or bindings > params[R_BINDINGS]:
        return np.int64(-1)
    following, all_bits = following_of(h), bits_of(h)
    reactions, edges, word = reactions_of(h), edges_of(h), params[R_WORD]
    completes, state = reactions.shape[0] - 1, edges[what - TAKES, E_TARGET]
    j = i
    for _ in range(AHEAD):
        j = following[j - first]
        if j < 0:
            return j
        bits = all_bits[word, j - first]
        what = reactions[state, bits]
        if what == DIES:
            return j
        if reactions[completes, bits] != 0:
            return np.int64(-1)
        if what >= TAKES:
            state = edges[what - TAKES, E_TARGET]
        elif what != INERT:
            return np.int64(-1)
    return np.int64(-1)


@inner
def begin_matches(h, k, i, bits):
    """Begin partial matches with an event; whether there is one."""
    kept = kept_of(h)
    ints = ints_of(h)
    made = made_of(h)
    none = np.int64(0)
    what = reaction(h, none, bits)
    if what >= TAKES:
        row, edges = what - TAKES, edges_of(h)
        node = new_node(h, i, np.int64(-1), edges[row, E_VARIABLE])
        p = new_partial(h, k, node, ints[TIME_NS, i], none, place_of(h, i))
        insert_after(h, k, np.int64(-1), p)
        enter(h, k, p, edges[row, E_TARGET])
        return True
    n = advance(h, k, i, bits, np.int64(-1), none, none)
    for j in range(n):
        q = new_partial(h, k, kept[j, 1], ints[TIME_NS, i], np.int64(0), place_of(h, i))
        insert_after(h, k, np.int64(-1), q)
        enter(h, k, q, kept[j, 0])
    if made[0, 0] > 0:
        drop_guards(h)
    return n > 0


@inner
def last_within_limits(h, k):
    """Return the newest partial match that may stay when the newest go; -1: none."""
    keys = keys_of(h)
    partials = partials_of(h)
    nodes = nodes_of(h)
    params = params_of(h)
    bindings, count = keys[k, K_BINDINGS], 0
    p = keys[k, K_HEAD]
    while p >= 0:
        bindings -= nodes[partials[p, P_NODE], LENGTH]
        p = partials[p, P_NEXT]
    last, p = np.int64(-1), keys[k, K_HEAD]
    while p >= 0:
        count += 1
        bindings += nodes[partials[p, P_NODE], LENGTH]
        if count > params[R_CAP] or bindings > params[R_BINDINGS]:
            break
        last, p = p, partials[p, P_NEXT]
    return last


@inner
def exceeds_limits(h, k):
    """Whether a key has more partial matches, or larger ones, than it may."""
    keys = keys_of(h)
    params = params_of(h)
    return keys[k, K_COUNT] > params[R_CAP] or (
        keys[k, K_BINDINGS] > params[R_BINDINGS] and keys[k, K_COUNT] > 0
    )


@inner
def enforce_limits(h, k, now):
    """Drop partial matches beyond the rule's limits; whether any went."""
    if not exceeds_limits(h, k):
        return False
    keys = keys_of(h)
    c = counters_of(h)
    partials = partials_of(h)
    policy = params_of(h)[R_CAP_POLICY]
    oldest = policy == DROP_OLDEST
    last = np.int64(-1) if oldest else last_within_limits(h, k)
    while exceeds_limits(h, k) if oldest else keys[k, K_TAIL] != last:
        p = keys[k, K_HEAD] if last < 0 else partials[last, P_NEXT]
        unlink(h, k, last, p)
        free_partial(h, k, p)
        c[C_DROPPED] += 1
    if policy == TRIP:
        c[C_TRIPPED], c[C_TRIPPED_AT] = LIMIT, now
    return True


@inner
def let_time_pass(h, until):
    """Let time pass to ``until`` for all keys; whether there was room for all.

    Where what one key does may trip the rule, what ends goes in order of time.
    """
    heap, keys, c = heap_of(h), keys_of(h), counters_of(h)
    in_turn = params_of(h)[R_TRIPS] != 0
    while c[C_HEAP] > 0 and heap[0, 0] <= until and c[C_TRIPPED] == 0:
        k = heap[0, 1]
        if not has_room(h, k):
            return False
        end = heap[0, 0] if in_turn else until
        pop_timer(h)
        expire(h, k, end)
        if keys[k, K_HEAD] >= 0 and keys[k, K_DEADLINE] < FOR_EVER:
            set_timer(h, keys[k, K_DEADLINE], k)
    return True


@inner
def next_busy(h, all_keys, all_bits, first, i, end):
    """Return the first row from ``i`` on that may do anything, or ``end``.

    Nothing is written here, so that what is looked at stays in registers.
    """
    params, types, ints, keys = params_of(h), types_of(h), ints_of(h), keys_of(h)
    reactions, space, word = reactions_of(h), params[R_SPACE], params[R_WORD]
    told = params[R_CONDITIONS] >= 0
    while i < end:
        code = ints[TYPE, i]
        if code >= 0 and types[code] != 0:
            k, b = all_keys[space, i - first], all_bits[word, i - first]
            if k >= 0:
                occupied = keys[k, K_OCCUPIED]
                if not told or reactions[0, b] != INERT:
                    return i
                if occupied != 0 and (
                    keys[k, K_DEADLINE] <= ints[TIME_NS, i]
                    or may_move(h, k, i, b, occupied)
                ):
                    return i
        i += 1
    return end


@step_kernel
def feed(h, w, _, begin, end, until):
    """Take in rows ``begin`` to ``end``, then let time pass.

    A row short of the end means that the arena is too small (or its output full,
    R_OUT) for the next event; ``-1 - row`` that, before that row, it is for the key
    whose time runs out next: drain, enlarge, and call again from there. The batch's
    columns must have a row even if there is none to take in.
    """
    copy_table(h, INTS, w, work.INTS)
    copy_table(h, COLS, w, work.COLS)
    facts = work.facts_of(w)
    first = facts[work.FIRST]
    set_word(h, FIRST_ROW * WORDS, facts[work.ORDER])
    keys = keys_of(h)
    c = counters_of(h)
    ints, all_keys, all_bits = ints_of(h), work.keys_of(w), work.bits_of(w)
    most, most_bound = params_of(h)[R_CAP], params_of(h)[R_BINDINGS]
    space, word = params_of(h)[R_SPACE], params_of(h)[R_WORD]
    trips = params_of(h)[R_TRIPS] != 0
    looks = params_of(h)[R_AHEAD] != 0 and end - begin >= len(keys)
    if looks:
        copy_table(h, BITS, w, work.BITS)
        copy_table(h, FOLLOWING, w, work.FOLLOWING)
        look_ahead(h, following_of(h), all_keys, first, begin, end)
    i = begin - 1
    while c[C_TRIPPED] == 0:
        i = next_busy(h, all_keys, all_bits, first, i + 1, end)
        if i >= end:
            break
        k, b = all_keys[space, i - first], all_bits[word, i - first]
        now = ints[TIME_NS, i]
        if trips and not let_time_pass(h, now):
            return -1 - i
        if c[C_TRIPPED] != 0:
            break
        occupied = keys[k, K_OCCUPIED]
        what = reaction(h, np.int64(0), b)
        begins = what != INERT
        if looks and what >= TAKES:
            j = dies_ahead(h, k, i, first, what)
            if j >= 0:
                begins = False
                keys[k, K_LAST] = ints[TIME_NS, j]
                mark_dirty(h, k)
        due = moves = False
        if occupied != 0:
            due = keys[k, K_DEADLINE] <= now
            moves = may_move(h, k, i, b, occupied)
        if not (begins or moves or due):
            continue
        if not has_room(h, k):
            return i
        if due:
            expire(h, k, now)
            if must_be_taken(h):
                return i
        changed = moves and move(h, k, i, b)
        if begins and begin_matches(h, k, i, b):
            changed = True
        if keys[k, K_HELD] >= 0:
            changed = True
            release(h, k, i)
        over = keys[k, K_COUNT] > most or keys[k, K_BINDINGS] > most_bound
        if over and enforce_limits(h, k, now):
            changed = True
            if keys[k, K_HELD] >= 0:
                # What was dropped may have been what a match was held back for.
                release(h, k, i)
        if changed:
            keys[k, K_LAST] = max(keys[k, K_LAST], now)
            mark_dirty(h, k)
            if keys[k, K_HEAD] >= 0 and keys[k, K_DEADLINE] < FOR_EVER:
                set_timer(h, keys[k, K_DEADLINE], k)
    if not let_time_pass(h, until):
        return -1 - end
    if c[C_OUT] > 0 or (c[C_TRIPPED] != 0 and c[C_PARTIAL_BUMP] > 0):
        facts[work.FOUND] = 1
    return end


@inner
def hash_chain(nodes, node):
    """Return a hash of which events a chain has bound, and to which steps."""
    mixed = np.int64(0)
    while node >= 0:
        mixed = (mixed ^ nodes[node, ORDER]) * HASH_FACTOR
        mixed = (mixed ^ nodes[node, VARIABLE]) * HASH_FACTOR
        mixed ^= mixed >> 29
        node = nodes[node, PREV]
    return mixed


@inner
def compare_outputs(h, a, b, by_hash):
    """Return below 0 if output ``a`` goes before ``b`` of its cause, 0 if either."""
    out, nodes = out_of(h), nodes_of(h)
    for column in (O_TIMEOUT, O_START):
        if out[a, column] != out[b, column]:
            return -1 if out[a, column] < out[b, column] else 1
    long_a = nodes[out[a, O_NODE], LENGTH]
    long_b = nodes[out[b, O_NODE], LENGTH]
    if long_a != long_b:
        return -1 if long_a > long_b else 1
    if by_hash and out[a, O_HASH] != out[b, O_HASH]:
        return -1 if out[a, O_HASH] < out[b, O_HASH] else 1
    return 0


@inner
def sort_outputs(h, order, begin, end, by_hash):
    """Sort a part of ``order``; of equal ones the first put out goes first."""
    gap = end - begin
    while gap > 1:
        gap = max(gap * 5 // 11, 1)
        for i in range(begin + gap, end):
            j, at = order[i], i
            while at - gap >= begin:
                other = order[at - gap]
                sign = compare_outputs(h, j, other, by_hash)
                if sign > 0 or (sign == 0 and j > other):
                    break
                order[at] = other
                at -= gap
            order[at] = j


@inner
def add_lengths(h, order, count, offsets):
    """Fill where the bound events of each output in ``order`` begin; one more."""
    nodes, out = nodes_of(h), out_of(h)
    offsets[0] = 0
    for at in range(count):
        offsets[at + 1] = offsets[at] + nodes[out[order[at], O_NODE], LENGTH]


@kernel
def settle(handle, order, offsets):
    """Fill in which outputs are to be released, in order; returns how many.

    Those of one key and cause are matches before time-outs, each
    earliest start first, then longest. Two routes through the automaton may bind
    the same events: one of them is put out. ``offsets`` (one more than there are
    outputs) says where the bound events of each begin.
    """
    h = handle.ctypes.data
    out, nodes, n = out_of(h), nodes_of(h), counters_of(h)[C_OUT]
    count = begin = np.int64(0)
    while begin < n:
        end = begin + 1
        while (
            end < n
            and out[end, O_KEY] == out[begin, O_KEY]
            and out[end, O_CAUSE] == out[begin, O_CAUSE]
        ):
            end += 1
        first, last = count, count + end - begin
        for j in range(begin, end):
            order[first + j - begin] = j
        count = last
        if end > begin + 1:
            for j in range(begin, end):
                out[j, O_HASH] = hash_chain(nodes, out[j, O_NODE])
            sort_outputs(h, order, first, last, True)
            count = first + 1
            for at in range(first + 1, last):
                if compare_outputs(h, order[count - 1], order[at], True) != 0:
                    order[count] = order[at]
                    count += 1
            sort_outputs(h, order, first, count, False)
        begin = end
    add_lengths(h, order, count, offsets)
    return count


@kernel
def suppress(handle, order, offsets, count, cooldown):
    """Keep of the outputs in ``order`` those that no cooldown stops; returns how many.

    ``offsets`` is filled as `settle` does.
    """
    h = handle.ctypes.data
    out = out_of(h)
    keys = keys_of(h)
    kept = np.int64(0)
    for at in range(count):
        j = order[at]
        k, now = out[j, O_KEY], out[j, O_TIME]
        kind = K_EMITTED if out[j, O_TIMEOUT] == 0 else K_EMITTED_TIMEOUT
        last = keys[k, kind]
        if last == NEVER or now - last >= cooldown:
            keys[k, kind] = now
            mark_dirty(h, k)
            order[kept] = j
            kept += 1
    add_lengths(h, order, kept, offsets)
    return kept


@kernel
def take_out(handle, order, offsets, facts, timeouts, values, bound):
    """Write the outputs in ``order`` and their bound events; let go of all outputs.

    ``facts`` (2, n) gets their times and keys, ``bound`` (4, their lengths together)
    both halves of the events' ids, the steps, and the events' times. Of the values a
    time-out has only those of time-outs and a match only the others: the rest is NaN.
    Returns how many are time-outs.
    """
    h = handle.ctypes.data
    leaves = params_of(h)[R_LEAVES]
    nodes = nodes_of(h)
    out = out_of(h)
    outv = outv_of(h)
    c = counters_of(h)
    late = 0
    for place in range(timeouts.size):
        j = order[place]
        node = out[j, O_NODE]
        facts[0, place], facts[1, place] = out[j, O_TIME], out[j, O_KEY]
        timeouts[place] = out[j, O_TIMEOUT] != 0
        late += out[j, O_TIMEOUT]
        for v in range(values.shape[1]):
            computed = (v >= leaves) == timeouts[place]
            values[place, v] = outv[j, v] if computed else np.nan
        at = offsets[place + 1]
        while node >= 0:
            at -= 1
            bound[0, at] = nodes[node, ID_HI]
            bound[1, at] = nodes[node, ID_LO]
            bound[2, at] = nodes[node, VARIABLE]
            bound[3, at] = nodes[node, TIME]
            node = nodes[node, PREV]
    for j in range(c[C_OUT]):
        release_node(h, out[j, O_NODE])
    c[C_OUT] = c[C_OUT_BINDINGS] = 0
    return late


@kernel
def export_key(
    handle, k, scratch, partials_out, watched_out, nodes_out, vals_out, held_out
):
    """Copy one key's partial and held matches, nodes renumbered from 0.

    A node's number is that of its first appearance, predecessors first, so a
    copy says the same bytes however the arena is laid out. Returns the numbers
    of live matches, held matches and nodes. ``scratch`` (one int64 per node of
    the arena) must be -1 everywhere and is left so.
    """
    h = handle.ctypes.data
    partials = partials_of(h)
    nodes = nodes_of(h)
    keys = keys_of(h)
    watched = watched_of(h)
    held = held_of(h)
    vals = vals_of(h)
    count, n_live = 0, 0
    total = 0
    for which in range(2):
        p = keys[k, K_HEAD] if which == 0 else keys[k, K_HELD]
        while p >= 0:
            node = partials[p, P_NODE]
            # Number the chain from its beginning: walk back to the first known
            # node, remembering the way in REFS-free space of nodes_out.
            depth = 0
            walker = node
            while walker >= 0 and scratch[walker] < 0:
                nodes_out[count + depth, 0] = walker
                depth += 1
                walker = nodes[walker, PREV]
            for j in range(depth // 2):
                a, b = count + j, count + depth - 1 - j
                nodes_out[a, 0], nodes_out[b, 0] = nodes_out[b, 0], nodes_out[a, 0]
            for j in range(depth):
                scratch[nodes_out[count + j, 0]] = count + j
            count += depth
            for j in range(PARTIAL_WIDTH):
                partials_out[total, j] = partials[p, j]
            partials_out[total, P_NODE] = scratch[node]
            watched_out[total] = watched[p] if which == 0 else 0.0
            partials_out[total, P_NEXT] = 0
            for j in range(held_out.shape[1]):
                held_out[total, j] = held[p, j] if which == 1 else math.nan
            total += 1
            p = partials[p, P_NEXT]
        if which == 0:
            n_live = total
    originals = nodes_out[:count, 0].copy()
    for j in range(count):
        source = originals[j]
        for f in range(NODE_WIDTH):
            nodes_out[j, f] = nodes[source, f]
        before = nodes[source, PREV]
        nodes_out[j, PREV] = scratch[before] if before >= 0 else -1
        nodes_out[j, FIRST] = scratch[nodes[source, FIRST]]
        for f in range(vals_out.shape[1]):
            vals_out[j, f] = vals[source, f]
    for j in range(count):
        scratch[originals[j]] = -1
    return n_live, total - n_live, count


@kernel
def key_size(handle, k):
    """Return an upper bound of (matches, nodes) that `export_key` writes."""
    h = handle.ctypes.data
    partials = partials_of(h)
    nodes = nodes_of(h)
    keys = keys_of(h)
    matches, size = 0, 0
    for which in range(2):
        p = keys[k, K_HEAD] if which == 0 else keys[k, K_HELD]
        while p >= 0:
            matches += 1
            size += nodes[partials[p, P_NODE], LENGTH]
            p = partials[p, P_NEXT]
    return matches, size


@kernel
def import_keys(
    handle,
    ks,
    live,
    waiting,
    partials_in,
    watched_in,
    nodes_in,
    vals_in,
    held_in,
):
    """Put back what `export_key` wrote of many keys; the arena must have room.

    Nodes are numbered through; matches come key by key, live ones first.
    """
    h = handle.ctypes.data
    partials = partials_of(h)
    nodes = nodes_of(h)
    keys = keys_of(h)
    c = counters_of(h)
    vals = vals_of(h)
    held = held_of(h)
    watched = watched_of(h)
    base = c[C_NODE_BUMP]
    for j in range(nodes_in.shape[0]):
        for f in range(NODE_WIDTH):
            nodes[base + j, f] = nodes_in[j, f]
        nodes[base + j, REFS] = 0
        nodes[base + j, FIRST] = base + nodes_in[j, FIRST]
        if nodes_in[j, PREV] >= 0:
            nodes[base + j, PREV] = base + nodes_in[j, PREV]
            nodes[base + nodes_in[j, PREV], REFS] += 1
        for f in range(vals_in.shape[1]):
            vals[base + j, f] = vals_in[j, f]
    c[C_NODE_BUMP] += nodes_in.shape[0]
    first = 0
    for q in range(ks.size):
        k = ks[q]
        last = np.int64(-1)
        held_from = first + live[q]
        for j in range(first, held_from + waiting[q]):
            p = new_partial(
                h,
                k,
                base + partials_in[j, P_NODE],
                partials_in[j, P_START],
                partials_in[j, P_END],
                partials_in[j, P_ORDER],
            )
            for f in range(held_in.shape[1]):
                held[p, f] = held_in[j, f]
            if j < held_from:
                insert_after(h, k, np.int64(-1), p)
                state, start = partials_in[j, P_STATE], partials_in[j, P_START]
                last_time = nodes[partials[p, P_NODE], TIME]
                partials[p, P_STATE] = state
                partials[p, P_END] = deadline_of(h, state, start, last_time)
                watched[p] = watched_in[j]
                note(h, k, p)
            else:
                if last < 0:
                    keys[k, K_HELD] = p
                else:
                    partials[last, P_NEXT] = p
                keys[k, K_HELD_COUNT] += 1
                last = p
        first = held_from + waiting[q]
        if keys[k, K_HEAD] >= 0 and keys[k, K_DEADLINE] < FOR_EVER:
            set_timer(h, keys[k, K_DEADLINE], k)
