"""Fewer points that look the same.

A line of a million prices on a thousand pixels can show no more than the
lowest and the highest price of each pixel. `lowest_and_highest` keeps those
two, in the order in which they came, and the line's first and last point. No
point is made up or moved; a spike of one trade stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def lowest_and_highest(
    times: NDArray[np.int64],
    values: NDArray[np.float64],
    start: int,
    width: float,
) -> NDArray[np.intp]:
    """Return which points to keep.

    Parameters
    ----------
    times
        Shape ``(n,)``, never falling.
    values
        Shape ``(n,)``, no NaN.
    start, width
        Buckets are ``[start + i * width, start + (i + 1) * width)``, in the
        unit of ``times``; ``width`` above 0.

    Returns
    -------
    Rising indices: of each bucket that has points the first lowest and the
    first highest, and the first and the last of all.

    >>> low_high = lowest_and_highest
    >>> low_high(np.arange(6), np.array([3.0, 1, 5, 2, 2, 2]), 0, 3)
    array([0, 1, 2, 3, 5])
    """
    n = len(times)
    if n == 0:
        return np.zeros(0, np.intp)
    bucket = np.floor((times - start) / width).astype(np.int64)
    order = np.arange(n)
    # Sorted by bucket and value, a bucket's first row is its first lowest.
    low = np.lexsort((order, values, bucket))
    high = np.lexsort((order, -values, bucket))
    first_of_bucket = np.flatnonzero(np.diff(bucket, prepend=bucket[0] - 1))
    ends = np.array([0, n - 1])
    return np.unique(
        np.concatenate([low[first_of_bucket], high[first_of_bucket], ends])
    )
