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


@nb.njit(cache=True, error_model="numpy", nogil=True)
def fading_correlation(x, y, decay):
    """Return the correlation of all up to each one, older ones weighing less.

    The one ``k`` places back weighs ``decay ** k``. Means and spreads are updated
    and not subtracted, so that far-off means lose no digits (D. H. D. West,
    "Updating mean and variance estimates", CACM 22, 1979). NaN where one of the
    two has not changed.
    """
    out = np.full(len(x), np.nan)
    weight = 0.0
    mean_x = mean_y = spread_x = spread_y = shared = 0.0
    for i in range(len(x)):
        old = weight * decay
        weight = old + 1.0
        off_x = x[i] - mean_x
        off_y = y[i] - mean_y
        mean_x += off_x / weight
        mean_y += off_y / weight
        part = old / weight
        spread_x = spread_x * decay + off_x * off_x * part
        spread_y = spread_y * decay + off_y * off_y * part
        shared = shared * decay + off_x * off_y * part
        scale = np.sqrt(spread_x * spread_y)
        if scale > 0:
            out[i] = shared / scale
    return out
