"""Steps the automaton of one rule over a batch, key by key.

Partial matches live in an arena, in one linked list per key, earliest start
first. What a match has bound is a chain of immutable, reference-counted nodes
(`cep.engine.kernels.vm`), shared between branches. Per event a kernel call

1. lets time pass to the event's time: partial matches whose time bound has run
   out leave, and an absence that waited for it completes,
2. moves every partial match of the key along the edges that fit,
3. begins new ones,
4. releases complete matches, under the rule's after-match strategy.

Space is checked before an event is begun, so a call either takes an event
whole or returns its index and the caller enlarges the arena and calls again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cep.engine.kernels.jit import inner, kernel
from cep.engine.kernels.vm import (
    COUNT,
    FIRST,
    ID_HI,
    ID_LO,
    LENGTH,
    NODE_WIDTH,
    ORDER,
    PREV,
    REFS,
    STACK,
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
STATE_WIDTH = 5
NORMAL, FINAL, PENDING = 0, 1, 2

# Partial matches; a complete match that is held back is one with state -1.
P_STATE, P_NODE, P_START, P_END, P_ORDER, P_NEXT = 0, 1, 2, 3, 4, 5
PARTIAL_WIDTH = 6

# Keys.
K_HEAD, K_TAIL, K_COUNT, K_HELD, K_HELD_COUNT = 0, 1, 2, 3, 4
K_DIRTY, K_TIMER, K_LAST, K_EMITTED = 5, 6, 7, 8
K_BINDINGS = 9  # lengths of all live and held matches together
KEY_WIDTH = 10

# Counters of the arena.
C_PARTIAL_BUMP, C_PARTIAL_FREE, C_PARTIAL_FREED = 0, 1, 2
C_NODE_BUMP, C_NODE_FREE, C_NODE_FREED = 3, 4, 5
C_HEAP, C_OUT, C_DIRTY = 6, 7, 8
C_TIMEOUTS, C_DROPPED, C_TRIPPED, C_LIVE = 9, 10, 11, 12
C_MATCHES, C_HELD_PRUNED, C_TRIPPED_AT = 13, 14, 15
COUNTER_WIDTH = 16

# Output rows.
O_KEY, O_NODE, O_TIME, O_START, O_ROW = 0, 1, 2, 3, 4
OUT_WIDTH = 5

# Parameters of a rule.
R_WITHIN, R_SKIP, R_SKIP_VARIABLE, R_CAP, R_CAP_POLICY = 0, 1, 2, 3, 4
R_HAVING, R_BRANCH, R_BINDINGS = 5, 6, 7
PARAM_WIDTH = 8
NO_SKIP, TO_NEXT, PAST_LAST, TO_FIRST, TO_LAST = 0, 1, 2, 3, 4
DROP_OLDEST, DROP_NEW, TRIP = 0, 1, 2

NEVER = np.iinfo(np.int64).min
FOR_EVER = np.iinfo(np.int64).max


class Program(NamedTuple):
    """A rule's compiled form; read only."""

    code: NDArray[np.int32]  # (n, 3) expression programs
    progs: NDArray[np.int32]  # (p, 2) slices of code
    consts: NDArray[np.float64]
    edges: NDArray[np.int64]
    states: NDArray[np.int64]
    params: NDArray[np.int64]
    iterative: NDArray[np.int32]  # program of each iterative condition
    captures: NDArray[np.int32]  # columns a node keeps
    leaves: NDArray[np.int32]  # programs of the emitted values


class Arena(NamedTuple):
    """A rule's state; changed in place."""

    partials: NDArray[np.int64]
    nodes: NDArray[np.int64]
    vals: NDArray[np.float64]  # (nodes, captures)
    held: NDArray[np.float64]  # (partials, leaves) emitted values of held matches
    keys: NDArray[np.int64]
    counters: NDArray[np.int64]
    heap: NDArray[np.int64]  # (keys, 2): deadline, key; one timer per key
    dirty: NDArray[np.int64]  # keys changed since the last snapshot
    out: NDArray[np.int64]
    outv: NDArray[np.float64]  # (out, leaves)


class Events(NamedTuple):
    """The rows of a batch that a rule sees."""

    rows: NDArray[np.int64]  # into the batch
    bits: NDArray[np.int64]  # conditions on the event alone, per row seen
    key: NDArray[np.int64]  # per batch row
    time: NDArray[np.int64]
    order: NDArray[np.int64]
    id_hi: NDArray[np.int64]
    id_lo: NDArray[np.int64]
    cols: NDArray[np.float64]  # (columns, batch rows)
    tables: NDArray[np.uint8]


@inner
def release_node(arena, node):
    """Give up one reference; free the chain as far as nobody else holds it."""
    nodes, c = arena.nodes, arena.counters
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
def new_node(program, arena, events, i, before, variable):
    """Bind event ``i`` after ``before``; the caller takes the references."""
    nodes, c = arena.nodes, arena.counters
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
    nodes[node, TIME] = events.time[i]
    nodes[node, ORDER] = events.order[i]
    nodes[node, ID_HI] = events.id_hi[i]
    nodes[node, ID_LO] = events.id_lo[i]
    nodes[node, LENGTH] = nodes[before, LENGTH] + 1 if before >= 0 else 1
    if before >= 0:
        nodes[before, REFS] += 1
    for j in range(program.captures.size):
        arena.vals[node, j] = events.cols[program.captures[j], i]
    return node


@inner
def new_partial(arena, k, state, node, start, end, order):
    """Make a partial match, not yet in any list; takes a reference to its node."""
    partials, c = arena.partials, arena.counters
    p = c[C_PARTIAL_FREE]
    if p >= 0:
        c[C_PARTIAL_FREE] = partials[p, P_NEXT]
        c[C_PARTIAL_FREED] -= 1
    else:
        p = c[C_PARTIAL_BUMP]
        c[C_PARTIAL_BUMP] += 1
    partials[p, P_STATE] = state
    partials[p, P_NODE] = node
    partials[p, P_START] = start
    partials[p, P_END] = end
    partials[p, P_ORDER] = order
    partials[p, P_NEXT] = -1
    arena.nodes[node, REFS] += 1
    arena.keys[k, K_BINDINGS] += arena.nodes[node, LENGTH]
    return p


@inner
def free_partial(arena, k, p):
    """Return a partial match to the free list and give up its node."""
    c = arena.counters
    arena.keys[k, K_BINDINGS] -= arena.nodes[arena.partials[p, P_NODE], LENGTH]
    release_node(arena, arena.partials[p, P_NODE])
    arena.partials[p, P_NEXT] = c[C_PARTIAL_FREE]
    c[C_PARTIAL_FREE] = p
    c[C_PARTIAL_FREED] += 1


@inner
def unlink(arena, k, before, p):
    """Take ``p``, which follows ``before`` (-1: the head), out of its key's list."""
    partials, keys = arena.partials, arena.keys
    after = partials[p, P_NEXT]
    if before < 0:
        keys[k, K_HEAD] = after
    else:
        partials[before, P_NEXT] = after
    if keys[k, K_TAIL] == p:
        keys[k, K_TAIL] = before
    keys[k, K_COUNT] -= 1
    arena.counters[C_LIVE] -= 1


@inner
def insert_after(arena, k, before, p):
    """Put ``p`` behind ``before`` (-1: at the tail) in its key's list."""
    partials, keys = arena.partials, arena.keys
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
    arena.counters[C_LIVE] += 1


@inner
def mark_dirty(arena, k):
    """Note that the key's state has changed since the last snapshot."""
    if arena.keys[k, K_DIRTY] == 0:
        arena.keys[k, K_DIRTY] = 1
        arena.dirty[arena.counters[C_DIRTY]] = k
        arena.counters[C_DIRTY] += 1


@inner
def push_timer(arena, deadline, k):
    """Set the key's timer in the binary heap (earliest deadline on top)."""
    heap, c = arena.heap, arena.counters
    j = c[C_HEAP]
    c[C_HEAP] += 1
    while j > 0:
        parent = (j - 1) >> 1
        if heap[parent, 0] <= deadline:
            break
        heap[j, 0], heap[j, 1] = heap[parent, 0], heap[parent, 1]
        j = parent
    heap[j, 0], heap[j, 1] = deadline, k
    arena.keys[k, K_TIMER] = 1


@inner
def pop_timer(arena):
    """Take the earliest timer out and return its key."""
    heap, c = arena.heap, arena.counters
    k = heap[0, 1]
    c[C_HEAP] -= 1
    n = c[C_HEAP]
    deadline, key = heap[n, 0], heap[n, 1]
    j = 0
    while True:
        child = 2 * j + 1
        if child >= n:
            break
        if child + 1 < n and heap[child + 1, 0] < heap[child, 0]:
            child += 1
        if heap[child, 0] >= deadline:
            break
        heap[j, 0], heap[j, 1] = heap[child, 0], heap[child, 1]
        j = child
    heap[j, 0], heap[j, 1] = deadline, key
    arena.keys[k, K_TIMER] = 0
    return k


@inner
def complete(program, arena, events, k, i, node, start, end, order, stack):
    """A match is complete: keep it if its condition holds, put it out or hold it.

    ``i`` is the completing event's batch row, -1 when time completed it.
    """
    row = max(i, 0)
    p = program.params[R_HAVING]
    if p >= 0:
        x = run(
            program.code,
            program.progs[p, 0],
            program.progs[p, 1],
            program.consts,
            events.tables,
            events.cols,
            row,
            arena.nodes,
            arena.vals,
            node,
            stack,
        )
        if not (x == x and x != 0.0):
            return
    c = arena.counters
    hold = program.params[R_SKIP] != NO_SKIP
    if hold:
        at = new_partial(arena, k, np.int64(-1), node, start, end, order)
        arena.partials[at, P_NEXT] = arena.keys[k, K_HELD]
        arena.keys[k, K_HELD] = at
        arena.keys[k, K_HELD_COUNT] += 1
        values = arena.held[at]
    else:
        at = c[C_OUT]
        c[C_OUT] += 1
        c[C_MATCHES] += 1
        arena.out[at, O_KEY] = k
        arena.out[at, O_NODE] = node
        arena.out[at, O_TIME] = end
        arena.out[at, O_START] = order
        arena.out[at, O_ROW] = i
        arena.nodes[node, REFS] += 1
        values = arena.outv[at]
    for j in range(program.leaves.size):
        p = program.leaves[j]
        values[j] = run(
            program.code,
            program.progs[p, 0],
            program.progs[p, 1],
            program.consts,
            events.tables,
            events.cols,
            row,
            arena.nodes,
            arena.vals,
            node,
            stack,
        )


@inner
def before_in_release(arena, p, q):
    """Whether ``p`` goes before ``q``: earliest start, longest, lowest order."""
    partials, nodes = arena.partials, arena.nodes
    if partials[p, P_ORDER] != partials[q, P_ORDER]:
        return partials[p, P_ORDER] < partials[q, P_ORDER]
    a, b = partials[p, P_NODE], partials[q, P_NODE]
    if nodes[a, LENGTH] != nodes[b, LENGTH]:
        return nodes[a, LENGTH] > nodes[b, LENGTH]
    # Of equal length: compare the chains, the earliest difference decides.
    lower = False
    while a >= 0 and a != b:
        if nodes[a, ORDER] != nodes[b, ORDER]:
            lower = nodes[a, ORDER] < nodes[b, ORDER]
        a, b = nodes[a, PREV], nodes[b, PREV]
    return lower


@inner
def prune(arena, k, limit):
    """Drop partial and held matches of the key that began at or before ``limit``."""
    partials, keys = arena.partials, arena.keys
    before, p = np.int64(-1), keys[k, K_HEAD]
    while p >= 0:
        after = partials[p, P_NEXT]
        if partials[p, P_ORDER] <= limit:
            unlink(arena, k, before, p)
            free_partial(arena, k, p)
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
            arena.counters[C_HELD_PRUNED] += 1
            free_partial(arena, k, p)
        else:
            before = p
        p = after


@inner
def release(program, arena, k, i):
    """Release held matches that no earlier-started partial match can still displace."""
    partials, keys, nodes = arena.partials, arena.keys, arena.nodes
    c = arena.counters
    skip = program.params[R_SKIP]
    while keys[k, K_HELD] >= 0:
        best, best_before = keys[k, K_HELD], -1
        before, p = best, partials[best, P_NEXT]
        while p >= 0:
            if before_in_release(arena, p, best):
                best, best_before = p, before
            before, p = p, partials[p, P_NEXT]
        head = keys[k, K_HEAD]
        if head >= 0 and partials[head, P_ORDER] < partials[best, P_ORDER]:
            return
        after = partials[best, P_NEXT]
        if best_before < 0:
            keys[k, K_HELD] = after
        else:
            partials[best_before, P_NEXT] = after
        keys[k, K_HELD_COUNT] -= 1
        node = partials[best, P_NODE]
        at = c[C_OUT]
        c[C_OUT] += 1
        c[C_MATCHES] += 1
        arena.out[at, O_KEY] = k
        arena.out[at, O_NODE] = node
        arena.out[at, O_TIME] = partials[best, P_END]
        arena.out[at, O_START] = partials[best, P_ORDER]
        arena.out[at, O_ROW] = i
        for j in range(arena.outv.shape[1]):
            arena.outv[at, j] = arena.held[best, j]
        nodes[node, REFS] += 1
        start = partials[best, P_ORDER]
        free_partial(arena, k, best)
        if skip == TO_NEXT:
            prune(arena, k, start)
        elif skip == PAST_LAST:
            prune(arena, k, nodes[node, ORDER])
        else:
            target = latest(nodes, node, program.params[R_SKIP_VARIABLE])
            if target >= 0:
                if skip == TO_FIRST:
                    target = nodes[target, FIRST]
                prune(arena, k, nodes[target, ORDER] - 1)


@inner
def deadline_of(start, within):
    """When a match that began at ``start`` has run out; never beyond the last time."""
    return start + within if within < FOR_EVER - start else FOR_EVER


@inner
def expire(program, arena, events, k, now, stack):
    """Let time pass to ``now`` for one key."""
    within = program.params[R_WITHIN]
    if within <= 0:
        return
    partials, keys, c = arena.partials, arena.keys, arena.counters
    changed = False
    p = keys[k, K_HEAD]
    while p >= 0 and deadline_of(partials[p, P_START], within) <= now:
        unlink(arena, k, np.int64(-1), p)
        changed = True
        state = partials[p, P_STATE]
        end = deadline_of(partials[p, P_START], within)
        # A tripped rule no longer sees the events that would have broken an
        # absence, so only what was certain by then may come out.
        if c[C_TRIPPED] != 0 and end > c[C_TRIPPED_AT]:
            c[C_DROPPED] += 1
        elif program.states[state, S_KIND] == PENDING:
            complete(
                program,
                arena,
                events,
                k,
                np.int64(-1),
                partials[p, P_NODE],
                partials[p, P_START],
                end,
                partials[p, P_ORDER],
                stack,
            )
        else:
            c[C_TIMEOUTS] += 1
        free_partial(arena, k, p)
        p = keys[k, K_HEAD]
        # What ends at one moment is released before what ends later, however
        # far time moves in one call: a release may drop those that end later.
        last = p < 0 or deadline_of(partials[p, P_START], within) > end
        if last and program.params[R_SKIP] != NO_SKIP:
            release(program, arena, k, np.int64(-1))
            p = keys[k, K_HEAD]
    if changed:
        mark_dirty(arena, k)


@inner
def fits(program, arena, events, i, edge, bits, node, known, value, stack):
    """Whether an edge's conditions hold; returns (holds, known, value).

    ``known`` and ``value`` remember which iterative conditions were evaluated
    for this partial match, so that each runs at most once.
    """
    if (bits & edge[E_TRUE]) != edge[E_TRUE] or (bits & edge[E_FALSE]) != 0:
        return False, known, value
    wanted = edge[E_ITER_TRUE] | edge[E_ITER_FALSE]
    j = 0
    while wanted >> j:
        bit = 1 << j
        if wanted & bit:
            if not known & bit:
                p = program.iterative[j]
                x = run(
                    program.code,
                    program.progs[p, 0],
                    program.progs[p, 1],
                    program.consts,
                    events.tables,
                    events.cols,
                    i,
                    arena.nodes,
                    arena.vals,
                    node,
                    stack,
                )
                known |= bit
                if x == x and x != 0.0:
                    value |= bit
            if bool(value & bit) != bool(edge[E_ITER_TRUE] & bit):
                return False, known, value
        j += 1
    return True, known, value


@inner
def drop_guards(arena, made):
    """Give up the references that `advance` held on the nodes it made."""
    for j in range(1, made[0, 0] + 1):
        release_node(arena, made[j, 1])
    made[0, 0] = 0


@inner
def advance(program, arena, events, k, i, bits, p, kept, made, stack):
    """Move one partial match (``p`` -1: the start state) by one event.

    Fills ``kept`` with rows (state, node) of the partial matches that follow
    from it and returns their number; -1 means that nothing changes. Complete
    matches are passed on at once. Nodes made here are guarded by a reference
    in ``made`` until the caller has taken its own and calls `drop_guards`.
    """
    partials = arena.partials
    if p >= 0:
        state, node = partials[p, P_STATE], partials[p, P_NODE]
        start, order = partials[p, P_START], partials[p, P_ORDER]
    else:
        state, node = np.int64(0), np.int64(-1)
        start, order = events.time[i], events.order[i]
    now = events.time[i]
    known, value = np.int64(0), np.int64(0)
    n, stop = 0, False
    states = program.states
    for row in range(states[state, S_EDGES], states[state, S_EDGES_END]):
        edge = program.edges[row]
        holds, known, value = fits(
            program, arena, events, i, edge, bits, node, known, value, stack
        )
        if not holds:
            continue
        target = edge[E_TARGET]
        if edge[E_ACTION] == STOP:
            stop = True
        elif edge[E_ACTION] == IGNORE:
            if states[target, S_KIND] == FINAL:
                complete(program, arena, events, k, i, node, start, now, order, stack)
            else:
                kept[n, 0], kept[n, 1] = target, node
                n += 1
        else:
            variable, fresh = edge[E_VARIABLE], -1
            for j in range(1, made[0, 0] + 1):
                if made[j, 0] == variable:
                    fresh = made[j, 1]
            if fresh < 0:
                fresh = new_node(program, arena, events, i, node, variable)
                arena.nodes[fresh, REFS] += 1
                made[0, 0] += 1
                made[made[0, 0], 0], made[made[0, 0], 1] = variable, fresh
            done = states[target, S_KIND] == FINAL
            if not done:
                kept[n, 0], kept[n, 1] = target, fresh
                n += 1
                for last in range(
                    states[target, S_COMPLETES], states[target, S_COMPLETES_END]
                ):
                    done, known, value = fits(
                        program,
                        arena,
                        events,
                        i,
                        program.edges[last],
                        bits,
                        node,
                        known,
                        value,
                        stack,
                    )
                    if done:
                        break
            if done:
                complete(program, arena, events, k, i, fresh, start, now, order, stack)
    if stop:
        return 0
    if p >= 0 and n == 1 and kept[0, 0] == state and kept[0, 1] == node:
        return -1
    return n


@inner
def has_room(program, arena, k):
    """Whether the arena can take the worst that one event of the key may need."""
    c = arena.counters
    live, held = arena.keys[k, K_COUNT], arena.keys[k, K_HELD_COUNT]
    branch = program.params[R_BRANCH]
    need = (live + 1) * branch + live
    partials = arena.partials.shape[0] - c[C_PARTIAL_BUMP] + c[C_PARTIAL_FREED]
    nodes = arena.nodes.shape[0] - c[C_NODE_BUMP] + c[C_NODE_FREED]
    out = arena.out.shape[0] - c[C_OUT]
    return partials >= 2 * need and nodes >= need and out >= 2 * need + held


@kernel
def feed(program, arena, events, begin):
    """Take in ``events.rows[begin:]``; return the index reached.

    An index short of the end means that the arena is too small (or its output
    full) for the next event: drain, enlarge, and call again from there.
    """
    partials, keys, c = arena.partials, arena.keys, arena.counters
    stack = np.empty(STACK)
    kept = np.empty((program.params[R_BRANCH] + 2, 2), np.int64)
    made = np.zeros((program.params[R_BRANCH] + 2, 2), np.int64)
    first, first_end = program.states[0, S_EDGES], program.states[0, S_EDGES_END]
    # A key without partial matches is left at once unless some edge of the
    # start state can fit, judged by the bits alone.
    for at in range(begin, events.rows.size):
        i = events.rows[at]
        k = events.key[i]
        if k < 0 or c[C_TRIPPED] != 0:
            continue
        bits = events.bits[at]
        begins = False
        for row in range(first, first_end):
            if (bits & program.edges[row, E_TRUE]) == program.edges[row, E_TRUE] and (
                bits & program.edges[row, E_FALSE]
            ) == 0:
                begins = True
        if keys[k, K_HEAD] < 0 and not begins:
            continue
        if not has_room(program, arena, k):
            return at
        now = events.time[i]
        expire(program, arena, events, k, now, stack)
        changed = False
        before, p = np.int64(-1), keys[k, K_HEAD]
        while p >= 0:
            after = partials[p, P_NEXT]
            n = advance(program, arena, events, k, i, bits, p, kept, made, stack)
            if n < 0:
                before = p
            elif n == 0:
                changed = True
                unlink(arena, k, before, p)
                free_partial(arena, k, p)
            else:
                changed = True
                old = partials[p, P_NODE]
                arena.nodes[kept[0, 1], REFS] += 1
                keys[k, K_BINDINGS] += (
                    arena.nodes[kept[0, 1], LENGTH] - arena.nodes[old, LENGTH]
                )
                partials[p, P_STATE], partials[p, P_NODE] = kept[0, 0], kept[0, 1]
                if kept[0, 1] != old:
                    partials[p, P_END] = now
                start, order = partials[p, P_START], partials[p, P_ORDER]
                before = p
                for j in range(1, n):
                    end = partials[p, P_END] if kept[j, 1] == old else now
                    q = new_partial(arena, k, kept[j, 0], kept[j, 1], start, end, order)
                    insert_after(arena, k, before, q)
                    before = q
                release_node(arena, old)
            if made[0, 0] > 0:
                drop_guards(arena, made)
            p = after
        if begins:
            n = advance(
                program, arena, events, k, i, bits, np.int64(-1), kept, made, stack
            )
            for j in range(n):
                changed = True
                q = new_partial(
                    arena, k, kept[j, 0], kept[j, 1], now, now, events.order[i]
                )
                insert_after(arena, k, np.int64(-1), q)
            if made[0, 0] > 0:
                drop_guards(arena, made)
        if keys[k, K_HELD] >= 0:
            changed = True
            release(program, arena, k, i)
        while keys[k, K_COUNT] > program.params[R_CAP] or (
            keys[k, K_BINDINGS] > program.params[R_BINDINGS] and keys[k, K_COUNT] > 0
        ):
            changed = True
            c[C_DROPPED] += 1
            if program.params[R_CAP_POLICY] == DROP_OLDEST:
                p = keys[k, K_HEAD]
                unlink(arena, k, np.int64(-1), p)
                free_partial(arena, k, p)
            else:
                before, p = np.int64(-1), keys[k, K_HEAD]
                while partials[p, P_NEXT] >= 0:
                    before, p = p, partials[p, P_NEXT]
                unlink(arena, k, before, p)
                free_partial(arena, k, p)
                if program.params[R_CAP_POLICY] == TRIP:
                    c[C_TRIPPED], c[C_TRIPPED_AT] = 1, now
        if keys[k, K_HELD] >= 0:
            # What was dropped may have been what a match was held back for.
            release(program, arena, k, i)
        if changed:
            keys[k, K_LAST] = now
            mark_dirty(arena, k)
            head = keys[k, K_HEAD]
            if program.params[R_WITHIN] > 0 and head >= 0 and keys[k, K_TIMER] == 0:
                push_timer(
                    arena,
                    deadline_of(partials[head, P_START], program.params[R_WITHIN]),
                    k,
                )
    return events.rows.size


@kernel
def pass_time(program, arena, events, now):
    """Let time pass for every key; False if the output is full (call again)."""
    c, keys, partials = arena.counters, arena.keys, arena.partials
    stack = np.empty(STACK)
    while c[C_HEAP] > 0 and arena.heap[0, 0] <= now:
        k = arena.heap[0, 1]
        if not has_room(program, arena, k):
            return False
        pop_timer(arena)
        expire(program, arena, events, k, now, stack)
        head = keys[k, K_HEAD]
        if head >= 0:
            push_timer(
                arena,
                deadline_of(partials[head, P_START], program.params[R_WITHIN]),
                k,
            )
    return True


@kernel
def materialise(arena, offsets, ids_hi, ids_lo, variables):
    """Write out the bound events of every match in ``arena.out``, in binding order.

    ``offsets`` (matches + 1) must hold the running sum of chain lengths.
    """
    nodes = arena.nodes
    for j in range(arena.counters[C_OUT]):
        node = arena.out[j, O_NODE]
        at = offsets[j + 1]
        while node >= 0:
            at -= 1
            ids_hi[at] = nodes[node, ID_HI]
            ids_lo[at] = nodes[node, ID_LO]
            variables[at] = nodes[node, VARIABLE]
            node = nodes[node, PREV]


@kernel
def match_lengths(arena, lengths):
    """Fill the chain length of every match in ``arena.out``."""
    for j in range(arena.counters[C_OUT]):
        lengths[j] = arena.nodes[arena.out[j, O_NODE], LENGTH]


@kernel
def clear_out(arena):
    """Let go of the matches that were put out."""
    for j in range(arena.counters[C_OUT]):
        release_node(arena, arena.out[j, O_NODE])
    arena.counters[C_OUT] = 0


@kernel
def export_key(arena, k, scratch, partials_out, nodes_out, vals_out, held_out):
    """Copy one key's partial and held matches, nodes renumbered from 0.

    A node's number is that of its first appearance, predecessors first, so a
    copy says the same bytes however the arena is laid out. Returns the numbers
    of live matches, held matches and nodes. ``scratch`` (one int64 per node of
    the arena) must be -1 everywhere and is left so.
    """
    partials, nodes = arena.partials, arena.nodes
    count, n_live = 0, 0
    total = 0
    for which in range(2):
        p = arena.keys[k, K_HEAD] if which == 0 else arena.keys[k, K_HELD]
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
            partials_out[total, P_NEXT] = 0
            for j in range(held_out.shape[1]):
                held_out[total, j] = arena.held[p, j]
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
            vals_out[j, f] = arena.vals[source, f]
    for j in range(count):
        scratch[originals[j]] = -1
    return n_live, total - n_live, count


@kernel
def key_size(arena, k):
    """Return an upper bound of (matches, nodes) that `export_key` writes."""
    partials, nodes = arena.partials, arena.nodes
    matches, size = 0, 0
    for which in range(2):
        p = arena.keys[k, K_HEAD] if which == 0 else arena.keys[k, K_HELD]
        while p >= 0:
            matches += 1
            size += nodes[partials[p, P_NODE], LENGTH]
            p = partials[p, P_NEXT]
    return matches, size


@kernel
def import_key(program, arena, k, live, held, partials_in, nodes_in, vals_in, held_in):
    """Put back what `export_key` wrote; the arena must have room."""
    partials, nodes, keys = arena.partials, arena.nodes, arena.keys
    c = arena.counters
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
            arena.vals[base + j, f] = vals_in[j, f]
    c[C_NODE_BUMP] += nodes_in.shape[0]
    last = -1
    for j in range(live + held):
        p = new_partial(
            arena,
            k,
            partials_in[j, P_STATE],
            base + partials_in[j, P_NODE],
            partials_in[j, P_START],
            partials_in[j, P_END],
            partials_in[j, P_ORDER],
        )
        for f in range(held_in.shape[1]):
            arena.held[p, f] = held_in[j, f]
        if j < live:
            insert_after(arena, k, np.int64(-1), p)
        else:
            if last < 0:
                keys[k, K_HELD] = p
            else:
                partials[last, P_NEXT] = p
            keys[k, K_HELD_COUNT] += 1
            last = p
    head = keys[k, K_HEAD]
    if head >= 0 and program.params[R_WITHIN] > 0 and keys[k, K_TIMER] == 0:
        push_timer(
            arena, deadline_of(partials[head, P_START], program.params[R_WITHIN]), k
        )
