"""Which entries are held: read, and not yet released when a commit was made.

A restart reads them again. They are named by runs of entries that follow each
other in the stream, by first and last id and number: what waits for a silent
stream is one run however much it is, and an id in a run cannot be made up
later, as ids only rise. Runs are stored as differences, compressed.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_COLUMNS = 5  # first ms and seq, last ms and seq, number of entries
_LARGEST = 1 << 28  # bytes of runs that are taken from the server


class Run(NamedTuple):
    """Entries that follow each other: ids of the first and the last, how many."""

    first: str
    last: str
    entries: int


def encode(
    ms: NDArray[np.int64], seq: NDArray[np.int64], place: NDArray[np.int64]
) -> bytes:
    """Return entries as runs.

    Parameters
    ----------
    ms, seq
        The entries' ids, shape ``(n,)``, in any order.
    place
        A number for each that is one more than that of the entry before it in
        the stream.

    Examples
    --------
    >>> ids = np.array([5, 6, 8]), np.zeros(3, int)
    >>> decode(encode(*ids, np.array([0, 1, 3])))
    [Run(first='5-0', last='6-0', entries=2), Run(first='8-0', last='8-0', entries=1)]
    """
    order = np.argsort(place)
    place = place[order]
    starts = np.flatnonzero(np.diff(place, prepend=place[:1] - 2) != 1)
    if not starts.size:
        return b""
    ends = np.append(starts[1:], len(place)) - 1
    first, last = order[starts], order[ends]
    table = np.stack(
        [
            np.diff(ms[first], prepend=0),
            seq[first],
            ms[last] - ms[first],
            seq[last],
            ends - starts + 1,
        ]
    )
    return zlib.compress(table.astype("<i8").tobytes(), 1)


def decode(raw: bytes) -> list[Run]:
    """Return the runs; raise ValueError if that is none."""
    if not raw:
        return []
    unpacker = zlib.decompressobj()
    try:
        plain = unpacker.decompress(raw, _LARGEST)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if not unpacker.eof or not plain or len(plain) % (8 * _COLUMNS):
        msg = "it is cut off or of another form"
        raise ValueError(msg)
    table: Any = np.frombuffer(plain, "<i8").reshape(_COLUMNS, -1)
    first_ms = np.cumsum(table[0])
    last_ms = first_ms + table[2]
    if min(first_ms.min(), last_ms.min(), table[[1, 3]].min()) < 0:
        msg = "an entry id is negative"
        raise ValueError(msg)
    if table[4].min() < 1:
        msg = "a run has no entries"
        raise ValueError(msg)
    rows = zip(first_ms, table[1], last_ms, table[3], table[4], strict=True)
    return [Run(f"{a}-{b}", f"{c}-{d}", int(n)) for a, b, c, d, n in rows]
