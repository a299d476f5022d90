"""Event ids for whole columns, the vectorised sibling of `cep.events.ids`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from cep.bus.kernels.rows import write_ulids
from cep.events.ids import LENGTH, MAX_TIME_MS

if TYPE_CHECKING:
    from numpy.typing import NDArray


def new_ulids(
    time_ms: NDArray[np.int64],
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return new ids whose time is the events' own, as upper and lower words.

    Sorting by id sorts by event time. Neighbours of equal time rise by one
    from a random start, so they sort in the order given; events of equal time
    that are not neighbours do not keep theirs.

    Parameters
    ----------
    time_ms
        Shape ``(n,)``, milliseconds since 1970 in UTC, 0 to 2**48 - 1.
    """
    n = len(time_ms)
    if n == 0:
        return np.zeros(0, np.uint64), np.zeros(0, np.uint64)
    if not 0 <= int(time_ms.min()) <= int(time_ms.max()) <= MAX_TIME_MS:
        msg = "time_ms must be 0 to 2**48 - 1 milliseconds"
        raise ValueError(msg)
    starts = np.flatnonzero(np.diff(time_ms, prepend=time_ms[0] - 1))
    lengths = np.diff(starts, append=n)
    random = np.frombuffer(os.urandom(16 * len(starts)), np.uint64).reshape(-1, 2)
    hi = time_ms.astype(np.uint64) << np.uint64(16)
    hi |= np.repeat(random[:, 0] & np.uint64(0xFFFF), lengths)
    # The top bit of the lower word starts clear: counting never overflows it.
    lo = np.repeat(random[:, 1] >> np.uint64(1), lengths)
    lo += (np.arange(n) - np.repeat(starts, lengths)).astype(np.uint64)
    return hi, lo


def ulid_texts(hi: NDArray[np.uint64], lo: NDArray[np.uint64]) -> list[bytes]:
    """Return ids as their canonical 26 characters.

    >>> ulid_texts(np.zeros(1, np.uint64), np.array([32], np.uint64))
    [b'00000000000000000000000010']
    """
    texts: list[bytes] = ulid_letters(hi, lo).view(f"S{LENGTH}").ravel().tolist()
    return texts


def ulid_letters(hi: NDArray[np.uint64], lo: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Return ids as `ulid_texts`, as bytes of shape ``(n, 26)``."""
    letters = np.empty((len(hi), LENGTH), np.uint8)
    write_ulids(letters, hi, lo)
    return letters
