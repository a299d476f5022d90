"""How sure one may be: blocks of time, intervals, many tests at once.

Ticks are not independent of their neighbours, so what is drawn again is never
a tick but a block of time, and a test asks whether blocks agree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

DRAWS: Final = 999
_AT_ONCE: Final = 64


def enough_draws(tests: int) -> int:
    """Return how many draws let one of so many tests reach a q-value below 0.05.

    >>> enough_draws(10), enough_draws(190)
    (999, 3800)
    """
    return max(DRAWS, 20 * tests)


def max_statistic_p_value(
    sums: NDArray[np.float64], *, draws: int = DRAWS, seed: int = 0
) -> float:
    """Return how likely blocks without any relation give so large a sum somewhere.

    Parameters
    ----------
    sums
        Shape ``(blocks, m)``: what each block of time adds to each of ``m``
        covariances, which without a relation is as often negative as positive.

    Returns
    -------
    The share of draws in which the largest of the ``m`` standardised sums is at
    least as large as the one found when the signs of whole blocks are thrown
    (a wild bootstrap with Rademacher weights, corrected for ``m`` by its
    maximum); at least ``1 / (draws + 1)``.

    Source: R. Davidson, E. Flachaire, "The wild bootstrap, tamed at last",
    Journal of Econometrics 146, 2008; maximum as in P. H. Westfall,
    S. S. Young, "Resampling-Based Multiple Testing", 1993.
    """
    scale = np.sqrt((sums**2).sum(axis=0))
    scaled = np.divide(sums, scale, out=np.zeros_like(sums), where=scale > 0)
    found = np.abs(scaled.sum(axis=0)).max(initial=0.0)
    rng = np.random.default_rng(seed)
    larger = 0
    for start in range(0, draws, _AT_ONCE):
        n = min(_AT_ONCE, draws - start)
        signs = rng.choice([-1.0, 1.0], (n, len(sums)))
        # A draw that throws the signs that there are must not count as smaller
        # because its sum was rounded otherwise.
        tops = np.abs(signs @ scaled).max(axis=1, initial=0.0)
        larger += int((tops >= found * (1 - 1e-12)).sum())
    return (larger + 1) / (draws + 1)


def block_weights(
    blocks: int, *, draws: int = DRAWS, seed: int = 0
) -> NDArray[np.float64]:
    """Return how often each block comes in each draw with replacement.

    Shape ``(draws, blocks)``; every row sums to ``blocks``.
    """
    rng = np.random.default_rng(seed)
    return rng.multinomial(blocks, np.full(blocks, 1 / blocks), draws).astype(float)


def q_values(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return p-values adjusted for how many there are; NaN stays and is not counted.

    Calling those below ``x`` a discovery is wrong in at most a share ``x`` of
    the discoveries on average (Y. Benjamini, Y. Hochberg, "Controlling the
    False Discovery Rate", JRSS B 57, 1995).

    >>> q_values([0.01, 0.04, 0.03, 0.5]).round(4).tolist()
    [0.04, 0.0533, 0.0533, 0.5]
    """
    p = np.asarray(p_values, float)
    adjusted = np.full(p.shape, np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(-p[known], kind="stable")]
    n = len(order)
    if n:
        ranks = np.arange(n, 0, -1)
        adjusted[order] = np.minimum(1, np.minimum.accumulate(p[order] * n / ranks))
    return adjusted
