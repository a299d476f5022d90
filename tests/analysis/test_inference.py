import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from cep.analysis.inference import block_weights, max_statistic_p_value, q_values


@pytest.mark.parametrize("seed", range(5))
def test_q_values_are_those_of_statsmodels(seed):
    p = np.random.default_rng(seed).uniform(0, 1, 40) ** 3
    expected = multipletests(p, method="fdr_bh")[1]
    np.testing.assert_allclose(q_values(p), expected, rtol=1e-12)


def test_q_values_pass_over_what_could_not_be_tested():
    got = q_values([0.01, np.nan, 0.02])
    assert np.isnan(got[1])
    assert got[[0, 2]].tolist() == [0.02, 0.02]
    assert q_values([]).size == 0


def test_p_values_of_unrelated_blocks_are_spread_evenly():
    rng = np.random.default_rng(0)
    # Neighbouring columns hang together, as neighbouring lags do.
    p = np.array(
        [
            max_statistic_p_value(
                np.cumsum(rng.standard_t(3, (40, 30)), axis=1), draws=199, seed=i
            )
            for i in range(300)
        ]
    )
    # 5 % of 300 is 15; 27 or more has a chance of 0.2 %.
    assert 4 <= (p <= 0.05).sum() < 27
    assert 0.44 < p.mean() < 0.57


def test_blocks_that_agree_give_the_smallest_p_value():
    sums = np.random.default_rng(0).normal(1, 0.5, (40, 10))
    assert max_statistic_p_value(sums, draws=199) == 1 / 200
    assert max_statistic_p_value(np.zeros((40, 10)), draws=199) == 1


def test_one_wild_block_makes_no_relation():
    sums = np.random.default_rng(0).normal(0, 1, (40, 10))
    sums[7] = 1e6
    assert max_statistic_p_value(sums, draws=199) > 0.2


def test_weights_draw_as_many_blocks_as_there_are():
    weights = block_weights(30, draws=500, seed=1)
    assert weights.shape == (500, 30)
    assert (weights.sum(axis=1) == 30).all()
    assert 0.9 < weights.var() < 1.1
