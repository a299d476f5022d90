"""Running sums of a window, to which values are added and from which they leave.

Each sum is a double with the rounding errors of all its additions gathered in a
second one (`add`); the error of an addition is known exactly, so what is lost is
what the gathered errors lose themselves. Squares and products are summed of
differences from an origin, a value of the window: sums of squares of values near
64,000 would lose nine digits of a deviation of 0.5.

Three things make sums of long use bad, and each has its remedy. An absurd value
takes the digits of all others with it and leaves with them: when a sum of sizes or
squares has fallen far below its highest, the sums are made anew from the rows. The
values wander off from the origin: when that is four deviations away from the mean
(where no squares are kept, further than the values are large), and no row is left of
those that were there when it was chosen, the sums are made anew with another. And what
cannot be taken away cleanly is dropped: sums of nothing are zero. Either way, a row
is summed again once for each time that all rows have changed, or that the sum has
fallen by as much.

Source: O. Møller, "Quasi double-precision in floating point addition", BIT 5, 1965
(the error of an addition).
"""

from __future__ import annotations

import math

import numpy as np

from cep.engine.kernels.jit import inlined, inner

# Of a value: how many there are; the sum, its low part, the sum of sizes and the
# largest that this was; origin, sum and sum of squares of differences from it with
# their low parts, and the largest sum of squares; how many came in since the sums
# were made.
# Those that `add` and `moment` are given are no Python numbers: each of these would be
# a kind of argument of its own, compiled anew.
N, SUM, SUM_LOW, SIZE, PEAK = 0, np.int64(1), 2, 3, 4
ORIGIN, SHIFTED, SHIFTED_LOW, SQUARES, SQUARES_LOW = 5, np.int64(6), 7, np.int64(8), 9
SQUARES_PEAK, FRESH = 10, 11
SUMS_WIDTH = 12

# Of two values that are both there, x and y: likewise. Each low part follows its sum.
X_ORIGIN, Y_ORIGIN = 1, 2
X, Y, XX, YY, XY = np.int64(3), np.int64(5), np.int64(7), np.int64(9), np.int64(11)
XX_PEAK, YY_PEAK, PAIRS_FRESH = 13, 14, 15
PAIRS_WIDTH = 16

# The sums of a value that are kept, as bits; squares need the mean.
KEEPS_SUM, KEEPS_MEAN, KEEPS_SQUARES = 1, 2, 4

FALL = 1.0 / 16.0
SQUARES_FALL = 2.0**-20
FAR = 16.0  # squared deviations between origin and mean


@inner
def add(sums, k, v, at, x):
    """Add to the sum at ``at``, whose low part follows it."""
    high = sums[k, v, at]
    total = high + x
    part = total - high
    sums[k, v, at] = total
    sums[k, v, at + 1] += (high - (total - part)) + (x - part)


@inlined
def plus(high, low, x):
    """Return a sum and its low part with ``x`` added, as `add` does."""
    total = high + x
    part = total - high
    return total, low + ((high - (total - part)) + (x - part))


@inlined
def slide(sums, k, v, kept, rows, base, mask, begin, end, x):
    """Let rows ``begin`` to ``end`` of a ring leave and ``x``, if it is one, enter.

    What `take_value` and `add_value` do, to the last bit, with all sums at hand.
    """
    n, fresh = sums[k, v, N], sums[k, v, FRESH]
    size, peak, origin = sums[k, v, SIZE], sums[k, v, PEAK], sums[k, v, ORIGIN]
    total, total_low = sums[k, v, SUM], sums[k, v, SUM_LOW]
    shifted, shifted_low = sums[k, v, SHIFTED], sums[k, v, SHIFTED_LOW]
    squares, squares_low = sums[k, v, SQUARES], sums[k, v, SQUARES_LOW]
    squares_peak = sums[k, v, SQUARES_PEAK]
    for r in range(begin, end):
        y = rows[base + (r & mask), v]
        if y != y:
            continue
        if n == 1.0:
            n = fresh = size = peak = origin = total = total_low = 0.0
            shifted = shifted_low = squares = squares_low = squares_peak = 0.0
            continue
        n -= 1.0
        size -= abs(y)
        if kept & KEEPS_SUM:
            total, total_low = plus(total, total_low, -y)
        d = y - origin
        if kept & KEEPS_MEAN:
            shifted, shifted_low = plus(shifted, shifted_low, -d)
        if kept & KEEPS_SQUARES:
            squares, squares_low = plus(squares, squares_low, -(d * d))
    if x == x:
        if n == 0.0:
            origin = x
        n += 1.0
        fresh += 1.0
        size += abs(x)
        peak = max(peak, size)
        if kept & KEEPS_SUM:
            total, total_low = plus(total, total_low, x)
        d = x - origin
        if kept & KEEPS_MEAN:
            shifted, shifted_low = plus(shifted, shifted_low, d)
        if kept & KEEPS_SQUARES:
            squares, squares_low = plus(squares, squares_low, d * d)
            squares_peak = max(squares_peak, squares)
    sums[k, v, N], sums[k, v, FRESH] = n, fresh
    sums[k, v, SIZE], sums[k, v, PEAK], sums[k, v, ORIGIN] = size, peak, origin
    sums[k, v, SUM], sums[k, v, SUM_LOW] = total, total_low
    sums[k, v, SHIFTED], sums[k, v, SHIFTED_LOW] = shifted, shifted_low
    sums[k, v, SQUARES], sums[k, v, SQUARES_LOW] = squares, squares_low
    sums[k, v, SQUARES_PEAK] = squares_peak


@inner
def clear_sums(sums, k, v):
    """Make the sums those of nothing."""
    for at in range(sums.shape[2]):
        sums[k, v, at] = 0.0


@inner
def add_value(sums, k, v, x, kept):
    """Let a value enter; ``kept`` are the sums that are."""
    if sums[k, v, N] == 0.0:
        sums[k, v, ORIGIN] = x
    sums[k, v, N] += 1.0
    sums[k, v, FRESH] += 1.0
    sums[k, v, SIZE] += abs(x)
    sums[k, v, PEAK] = max(sums[k, v, PEAK], sums[k, v, SIZE])
    if kept & KEEPS_SUM:
        add(sums, k, v, SUM, x)
    d = x - sums[k, v, ORIGIN]
    if kept & KEEPS_MEAN:
        add(sums, k, v, SHIFTED, d)
    if kept & KEEPS_SQUARES:
        add(sums, k, v, SQUARES, d * d)
        sums[k, v, SQUARES_PEAK] = max(sums[k, v, SQUARES_PEAK], sums[k, v, SQUARES])


@inner
def take_value(sums, k, v, x, kept):
    """Let a value leave that had entered."""
    if sums[k, v, N] == 1.0:
        clear_sums(sums, k, v)
        return
    sums[k, v, N] -= 1.0
    sums[k, v, SIZE] -= abs(x)
    if kept & KEEPS_SUM:
        add(sums, k, v, SUM, -x)
    d = x - sums[k, v, ORIGIN]
    if kept & KEEPS_MEAN:
        add(sums, k, v, SHIFTED, -d)
    if kept & KEEPS_SQUARES:
        add(sums, k, v, SQUARES, -(d * d))


@inner
def spoilt(sums, k, v, kept):
    """Whether the sums of a value should be made anew."""
    n, size, shifted = sums[k, v, N], sums[k, v, SIZE], sums[k, v, SHIFTED]
    if size < FALL * sums[k, v, PEAK]:
        return True
    if kept & KEEPS_SQUARES:
        squares = sums[k, v, SQUARES]
        if squares < SQUARES_FALL * sums[k, v, SQUARES_PEAK]:
            return True
        far = (FAR + 1.0) * shifted * shifted > FAR * n * squares
    else:
        far = abs(shifted) > size
    return far and sums[k, v, FRESH] >= n


@inner
def mean(sums, k, v):
    """Mean of a value, of which there is one at least; that of equal ones exactly."""
    shifted = sums[k, v, SHIFTED] + sums[k, v, SHIFTED_LOW]
    return sums[k, v, ORIGIN] + shifted / sums[k, v, N]


@inner
def variance(sums, k, v):
    """Population variance of a value, of which there is one at least."""
    n = sums[k, v, N]
    shifted = sums[k, v, SHIFTED] + sums[k, v, SHIFTED_LOW]
    squares = sums[k, v, SQUARES] + sums[k, v, SQUARES_LOW]
    return max(squares - shifted * (shifted / n), 0.0) / n


@inner
def add_pair(sums, k, p, x, y):
    """Let two values enter."""
    if sums[k, p, N] == 0.0:
        sums[k, p, X_ORIGIN] = x
        sums[k, p, Y_ORIGIN] = y
    sums[k, p, N] += 1.0
    sums[k, p, PAIRS_FRESH] += 1.0
    x -= sums[k, p, X_ORIGIN]
    y -= sums[k, p, Y_ORIGIN]
    add(sums, k, p, X, x)
    add(sums, k, p, Y, y)
    add(sums, k, p, XX, x * x)
    add(sums, k, p, YY, y * y)
    add(sums, k, p, XY, x * y)
    sums[k, p, XX_PEAK] = max(sums[k, p, XX_PEAK], sums[k, p, XX])
    sums[k, p, YY_PEAK] = max(sums[k, p, YY_PEAK], sums[k, p, YY])


@inner
def take_pair(sums, k, p, x, y):
    """Let two values leave that had entered together."""
    if sums[k, p, N] == 1.0:
        clear_sums(sums, k, p)
        return
    sums[k, p, N] -= 1.0
    x -= sums[k, p, X_ORIGIN]
    y -= sums[k, p, Y_ORIGIN]
    add(sums, k, p, X, -x)
    add(sums, k, p, Y, -y)
    add(sums, k, p, XX, -(x * x))
    add(sums, k, p, YY, -(y * y))
    add(sums, k, p, XY, -(x * y))


@inner
def spoilt_pair(sums, k, p):
    """Whether the sums of two values should be made anew."""
    n, x, y = sums[k, p, N], sums[k, p, X], sums[k, p, Y]
    xx, yy = sums[k, p, XX], sums[k, p, YY]
    return (
        xx < SQUARES_FALL * sums[k, p, XX_PEAK]
        or yy < SQUARES_FALL * sums[k, p, YY_PEAK]
        or (
            sums[k, p, PAIRS_FRESH] >= n
            and (
                (FAR + 1.0) * x * x > FAR * n * xx or (FAR + 1.0) * y * y > FAR * n * yy
            )
        )
    )


@inner
def moment(sums, k, p, a, b, product):
    """Population covariance of two values by their sums and the sum of products."""
    n = sums[k, p, N]
    mean = (sums[k, p, b] + sums[k, p, b + 1]) / n
    total = sums[k, p, a] + sums[k, p, a + 1]
    return (sums[k, p, product] + sums[k, p, product + 1] - total * mean) / n


@inner
def slope(sums, k, p):
    """Least squares slope of y over x; absent where all x are equal."""
    xx = moment(sums, k, p, X, X, XX)
    return moment(sums, k, p, X, Y, XY) / xx if xx > 0.0 else math.nan


@inner
def correlation(sums, k, p):
    """Pearson's correlation; absent where all x or all y are equal."""
    xx, yy = moment(sums, k, p, X, X, XX), moment(sums, k, p, Y, Y, YY)
    if not (xx > 0.0 and yy > 0.0):
        return math.nan
    r = moment(sums, k, p, X, Y, XY) / math.sqrt(xx) / math.sqrt(yy)
    return min(max(r, -1.0), 1.0)


@inner
def weighted_mean(sums, k, p):
    """Mean of x weighted by y; absent where the weights sum to nothing."""
    weights = sums[k, p, N] * sums[k, p, Y_ORIGIN] + (sums[k, p, Y] + sums[k, p, Y + 1])
    products = (sums[k, p, XY] + sums[k, p, XY + 1]) + sums[k, p, Y_ORIGIN] * (
        sums[k, p, X] + sums[k, p, X + 1]
    )
    if weights == 0.0:
        return math.nan
    return sums[k, p, X_ORIGIN] + products / weights
