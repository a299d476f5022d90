"""Loops over ticks, compiled."""

from __future__ import annotations

import numba as nb
import numpy as np


@nb.njit(cache=True, error_model="numpy", nogil=True)
def hayashi_yoshida(time_x, x, time_y, y, lags, block_of, blocks):
    """Return the Hayashi-Yoshida covariance by block and lag, shape (blocks, lags).

    The returns of ``y`` that overlap one of ``x`` are neighbours, so their sum
    is a difference of two values, and over all of ``x`` both ends only advance:
    each lag costs one walk through both series. Block ``block_of[i]`` gets what
    the return of ``x`` that ends at ``i`` contributes.
    """
    out = np.zeros((blocks, len(lags)))
    last = len(time_y) - 1
    for k in range(len(lags)):
        low = 0
        high = 0
        for i in range(1, len(time_x)):
            start = time_x[i - 1] + lags[k]
            end = time_x[i] + lags[k]
            while low < last and time_y[low + 1] <= start:
                low += 1
            high = max(high, low)
            while high < last and time_y[high] < end:
                high += 1
            out[block_of[i], k] += (x[i] - x[i - 1]) * (y[high] - y[low])
    return out
