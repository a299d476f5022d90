"""Surrogates that keep each stream's own rhythm: rotation within blocks of time.

Two streams that are busy at the same hours look related and need not be. What
is compared with is therefore not a shuffled stream, but the stream itself with
each of its blocks of time rotated by a random number of cells: counts of every
block, and so all that changes more slowly than a block, stay where they are,
bursts inside it stay bursts, and only what ties one stream's instants to the
other's is lost. If a stream is stationary within blocks and has nothing to do
with the other, all rotations are equally likely, and the p-value is exact
but for the bursts that the ends of blocks cut.

Source: rotation as a group of transformations, E. L. Lehmann, J. P. Romano,
"Testing Statistical Hypotheses", 3rd ed., 2005, 15.2; conditioning on counts of
coarse blocks, A. Amarasingham, M. T. Harrison, N. G. Hatsopoulos, S. Geman,
"Conditional modeling and the jitter method of spike resampling", Journal of
Neurophysiology 107, 2012.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_AT_ONCE: Final = 2_000_000
_ROUNDING: Final = 1e-9


@dataclass(frozen=True, slots=True)
class RotatedSums:
    """Sums of products of two streams, as they are and rotated.

    Attributes
    ----------
    by_block
        Shape ``(blocks, m)``: what each block of ``x`` adds to each lag's sum.
    usual
        Shape ``(blocks, m)``: what it adds on average over all its rotations.
    drawn
        Shape ``(draws, m)``: the sums with blocks of ``x`` rotated at random.
    """

    by_block: NDArray[np.float64]
    usual: NDArray[np.float64]
    drawn: NDArray[np.float64]

    @property
    def observed(self) -> NDArray[np.float64]:
        """Shape ``(m,)``: the sums as they are."""
        found: NDArray[np.float64] = self.by_block.sum(axis=0)
        return found


def block_edges(cells: int, length: int) -> NDArray[np.int64]:
    """Return where blocks of about ``length`` cells begin, and the end of the last.

    >>> block_edges(10, 3).tolist()
    [0, 3, 6, 10]
    """
    blocks = max(1, cells // length)
    return np.arange(blocks + 1) * cells // blocks


def rotated_sums(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    lags: NDArray[np.int64],
    edges: NDArray[np.int64],
    *,
    draws: int,
    seed: int,
    hold: bool = False,
) -> RotatedSums:
    """Return ``sum(x[t] * y[t + lag])`` for each lag, and with ``x`` rotated.

    Parameters
    ----------
    x, y
        Shape ``(n,)``, a value for each cell of time. Outside, ``y`` counts as 0,
        or stays what it was at the end if ``hold``.
    lags
        Shape ``(m,)``, in cells, in any order.
    edges
        As `block_edges` gives them.

    Costs ``O(n m log(block))`` however many draws there are: one Fourier
    transform a block and lag gives the sums of all of its rotations.
    """
    rng = np.random.default_rng(seed)
    reach = int(np.abs(lags).max(initial=0))
    padded = np.pad(y, reach, mode="edge" if hold else "constant")
    by_block, usual = np.zeros((2, len(edges) - 1, len(lags)))
    drawn = np.zeros((draws, len(lags)))
    for block, (start, end) in enumerate(pairwise(edges)):
        n = int(end - start)
        turns = rng.integers(0, n, draws)
        part = x[start:end]
        if not part.any():
            continue
        spectrum = np.conj(np.fft.rfft(part))
        some = max(1, _AT_ONCE // n)
        for low in range(0, len(lags), some):
            at = lags[low : low + some] + reach + start
            others = padded[at[:, None] + np.arange(n)]
            sums = np.fft.irfft(np.fft.rfft(others) * spectrum, n)
            by_block[block, low : low + some] = sums[:, 0]
            usual[block, low : low + some] = sums.mean(axis=1)
            drawn[:, low : low + some] += sums[:, turns].T
    return RotatedSums(by_block, usual, drawn)


def rotated(edges: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the cells in the order of one random rotation of every block."""
    lengths = np.diff(edges)
    turns = rng.integers(0, lengths)
    start, length, turn = (v.repeat(lengths) for v in (edges[:-1], lengths, turns))
    found: NDArray[np.int64] = start + (np.arange(edges[-1]) - start + turn) % length
    return found


def p_value_of_largest(
    observed: NDArray[np.float64],
    drawn: NDArray[np.float64],
    *,
    either_sign: bool = True,
) -> float:
    """Return how likely rotated streams differ as much from their mean somewhere.

    Parameters
    ----------
    observed, drawn
        Shapes ``(m,)`` and ``(draws, m)``. Each of the ``m`` is measured in its
        own standard deviations; the largest of all is compared, so that the
        p-value accounts for ``m`` looks.
    either_sign
        Count what lies far below the mean as well as what lies far above.

    At least ``1 / (draws + 1)``; 1 if nothing varies.
    """
    if not len(observed):
        return 1.0
    pool = np.vstack([observed, drawn])
    spread = pool.std(axis=0)
    floor = _ROUNDING * np.abs(pool).max(axis=0)
    off = pool - pool.mean(axis=0)
    scaled = np.divide(off, spread, out=np.zeros_like(pool), where=spread > floor)
    top = (np.abs(scaled) if either_sign else scaled).max(axis=1)
    larger = int((top[1:] >= top[0] - _ROUNDING).sum())
    return (larger + 1) / len(pool)
