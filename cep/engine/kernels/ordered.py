"""The values of a window in order: a treap of its rows for each key.

Nodes are rows, known by their number, whose links lie beside the rows in a ring (see
`windows`): row ``r`` of a key is at ``base + (r & mask)``. A node is less than another
if its value is, or it came before with an equal one. Priorities are a hash of
the row's number, so that depth does not follow from what the values are: entering,
leaving and finding the n-th take O(log n).

Source: R. Seidel and C. R. Aragon, "Randomized search trees", Algorithmica 16, 1996.
"""

from __future__ import annotations

import numpy as np

from cep.engine.kernels.jit import inner

# Columns of a node, and of a key's root: links are row numbers, -1 for none.
LESS, MORE, HOLDS = 0, 1, 2
NODE_WIDTH = 3
ROOT, DISTINCT = 0, 1
ROOT_WIDTH = 2


@inner
def priority(r):
    """Bits that look random (the finalizer of MurmurHash3)."""
    h = np.uint64(r)
    h ^= h >> np.uint64(33)
    h *= np.uint64(0xFF51AFD7ED558CCD)
    h ^= h >> np.uint64(33)
    h *= np.uint64(0xC4CEB9FE1A85EC53)
    return h ^ (h >> np.uint64(33))


@inner
def size(nodes, base, mask, o, r):
    """How many rows the subtree of ``r`` holds."""
    return nodes[base + (r & mask), o + HOLDS] if r >= 0 else 0


@inner
def hang(nodes, roots, k, root, base, mask, parent, side, r):
    """Make ``r`` the child of ``parent`` on a side; the root, if there is none."""
    if parent < 0:
        roots[k, root] = r
    else:
        nodes[base + (parent & mask), side] = r


@inner
def holds(nodes, rows, base, mask, o, v, r, x):
    """Whether the subtree of ``r`` has a row with the value ``x``."""
    while r >= 0:
        at = base + (r & mask)
        if rows[at, v] == x:
            return True
        r = nodes[at, o + (LESS if x < rows[at, v] else MORE)]
    return False


@inner
def enter(nodes, roots, rows, k, root, base, mask, o, v, new):
    """Put in a row that came after all others.

    ``o`` is the first of the node's columns and ``root`` that of the key's root.
    """
    x = rows[base + (new & mask), v]
    if not holds(nodes, rows, base, mask, o, v, roots[k, root], x):
        roots[k, root + DISTINCT] += 1
    mine = priority(new)
    parent, side = np.int64(-1), o
    r = roots[k, root]
    while r >= 0 and priority(r) >= mine:
        at = base + (r & mask)
        nodes[at, o + HOLDS] += 1
        parent, side = r, o + (MORE if rows[at, v] <= x else LESS)
        r = nodes[at, side]
    hang(nodes, roots, k, root, base, mask, parent, side, new)
    # The subtree that hung there is parted into what is less, equal ones
    # included as they came before, and what is more.
    below, less = r, 0
    while below >= 0:
        at = base + (below & mask)
        if rows[at, v] <= x:
            less += size(nodes, base, mask, o, nodes[at, o + LESS]) + 1
            below = nodes[at, o + MORE]
        else:
            below = nodes[at, o + LESS]
    more = size(nodes, base, mask, o, r) - less
    nodes[base + (new & mask), o + HOLDS] = less + more + 1
    low, low_side, high, high_side = new, o + LESS, new, o + MORE
    while r >= 0:
        at = base + (r & mask)
        if rows[at, v] <= x:
            hang(nodes, roots, k, root, base, mask, low, low_side, r)
            nodes[at, o + HOLDS] = less
            less -= size(nodes, base, mask, o, nodes[at, o + LESS]) + 1
            low, low_side = r, o + MORE
            r = nodes[at, o + MORE]
        else:
            hang(nodes, roots, k, root, base, mask, high, high_side, r)
            nodes[at, o + HOLDS] = more
            more -= size(nodes, base, mask, o, nodes[at, o + MORE]) + 1
            high, high_side = r, o + LESS
            r = nodes[at, o + LESS]
    hang(nodes, roots, k, root, base, mask, low, low_side, np.int64(-1))
    hang(nodes, roots, k, root, base, mask, high, high_side, np.int64(-1))


@inner
def leave(nodes, roots, rows, k, root, base, mask, o, v, old):
    """Take out a row."""
    x = rows[base + (old & mask), v]
    parent, side = np.int64(-1), o
    r = roots[k, root]
    while r != old:
        at = base + (r & mask)
        nodes[at, o + HOLDS] -= 1
        y = rows[at, v]
        parent, side = r, o + (MORE if y < x or (y == x and r < old) else LESS)
        r = nodes[at, side]
    a = nodes[base + (old & mask), o + LESS]
    b = nodes[base + (old & mask), o + MORE]
    while a >= 0 and b >= 0:
        at_a, at_b = base + (a & mask), base + (b & mask)
        if priority(a) >= priority(b):
            hang(nodes, roots, k, root, base, mask, parent, side, a)
            nodes[at_a, o + HOLDS] += nodes[at_b, o + HOLDS]
            parent, side = a, o + MORE
            a = nodes[at_a, o + MORE]
        else:
            hang(nodes, roots, k, root, base, mask, parent, side, b)
            nodes[at_b, o + HOLDS] += nodes[at_a, o + HOLDS]
            parent, side = b, o + LESS
            b = nodes[at_b, o + LESS]
    hang(nodes, roots, k, root, base, mask, parent, side, a if a >= 0 else b)
    if not holds(nodes, rows, base, mask, o, v, roots[k, root], x):
        roots[k, root + DISTINCT] -= 1


@inner
def nth(nodes, rows, base, mask, o, v, r, n):
    """Return the n-th smallest value of a subtree that has as many, from 0."""
    while True:
        at = base + (r & mask)
        less = size(nodes, base, mask, o, nodes[at, o + LESS])
        if n == less:
            return rows[at, v]
        if n < less:
            r = nodes[at, o + LESS]
        else:
            n -= less + 1
            r = nodes[at, o + MORE]
