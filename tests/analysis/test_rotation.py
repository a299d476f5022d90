from itertools import pairwise

import numpy as np
import pytest

from cep.analysis.rotation import (
    block_edges,
    p_value_of_largest,
    rotated,
    rotated_sums,
)


def test_the_sums_as_they_are_equal_a_double_loop():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 57))
    lags = np.array([-9, 0, 3, 20])
    got = rotated_sums(x, y, lags, block_edges(57, 10), draws=3, seed=0)
    expected = [
        sum(x[t] * y[t + lag] for t in range(57) if 0 <= t + lag < 57) for lag in lags
    ]
    np.testing.assert_allclose(got.observed, expected, atol=1e-12)


def test_drawn_sums_are_those_of_blocks_that_were_turned():
    """One block of three cells has three rotations, and no other sum comes out."""
    x, y = np.array([1.0, 0, 0]), np.array([5.0, 7, 11])
    got = rotated_sums(x, y, np.array([0]), block_edges(3, 3), draws=200, seed=1)
    assert set(got.drawn[:, 0].round(9)) == {5.0, 7.0, 11.0}


def test_a_rotation_keeps_what_each_block_holds():
    edges = block_edges(25, 8)
    order = rotated(edges, np.random.default_rng(0))
    for start, end in pairwise(edges):
        block = order[start:end]
        assert sorted(block) == list(range(start, end))
        assert (np.diff(block) % (end - start) == 1).all()


@pytest.mark.parametrize("either", [True, False])
def test_p_values_without_a_relation_are_spread_evenly(either):
    rng = np.random.default_rng(2)
    p = [
        p_value_of_largest(
            rng.normal(size=5), rng.normal(size=(99, 5)), either_sign=either
        )
        for _ in range(400)
    ]
    assert 8 <= (np.array(p) <= 0.05).sum() <= 34
    assert 0.45 < np.mean(p) < 0.55


def test_what_lies_far_off_has_the_least_p_value_and_what_never_varies_has_1():
    drawn = np.random.default_rng(0).normal(size=(99, 3))
    assert p_value_of_largest(np.array([0, 9.0, 0]), drawn) == 0.01
    low = np.array([0, -9.0, 0])
    assert p_value_of_largest(low, drawn) == 0.01
    assert p_value_of_largest(low, drawn, either_sign=False) > 0.1
    assert p_value_of_largest(np.ones(3), np.ones((99, 3))) == 1
    assert p_value_of_largest(np.ones(0), np.ones((99, 0))) == 1
