"""Keys in the order in which they were last seen, so that the oldest can go first.

A doubly linked list through a table with a row for each key; ``ends`` holds the
key that was not seen for longest, and the one seen last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cep.engine.kernels.jit import inner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

OLDEST, NEWEST = 0, 1
BEFORE, AFTER = 0, 1
NOWHERE, END = -2, -1


@inner
def remove(links, ends, k):
    """Take a key out of the list, if it is there."""
    before, after = links[k, BEFORE], links[k, AFTER]
    if before == NOWHERE:
        return
    if before >= 0:
        links[before, AFTER] = after
    else:
        ends[OLDEST] = after
    if after >= 0:
        links[after, BEFORE] = before
    else:
        ends[NEWEST] = before
    links[k, BEFORE] = NOWHERE


@inner
def touch(links, ends, k):
    """Make a key the one seen last."""
    if ends[NEWEST] == k:
        return
    remove(links, ends, k)
    links[k, BEFORE] = ends[NEWEST]
    links[k, AFTER] = END
    if ends[NEWEST] >= 0:
        links[ends[NEWEST], AFTER] = k
    else:
        ends[OLDEST] = k
    ends[NEWEST] = k


def line_up(
    links: NDArray[np.int64],
    ends: NDArray[np.int64],
    order: NDArray[np.int64],
    keys: Sequence[int],
) -> None:
    """Make a list of nothing but ``keys``, by what ``order`` says of each."""
    line = np.array(keys, np.int64)
    line = line[np.argsort(order[line], kind="stable")]
    links[line[1:], BEFORE] = line[:-1]
    links[line[:-1], AFTER] = line[1:]
    links[line[0], BEFORE] = links[line[-1], AFTER] = END
    ends[OLDEST], ends[NEWEST] = line[0], line[-1]
