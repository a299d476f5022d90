import numpy as np
import pytest

from cep.analysis import EventTimes, Series, change_points
from cep.analysis.change_points import best_cuts, long_run_variance
from cep.errors import UsageError
from tests.analysis.planted import SECOND, bursty


def levels_of(rng, parts, noise=1.0):
    return np.concatenate([rng.normal(level, noise, n) for level, n in parts])


@pytest.mark.parametrize("seed", range(4))
def test_cuts_are_the_best_of_all(seed):
    """Every way to cut, by dynamic programming, and which costs least."""
    rng = np.random.default_rng(seed)
    values = levels_of(rng, [(0, 20), (2, 15), (1, 25)])
    penalty, least, n = 6.0, 4, len(values)

    def cost(a, b):
        return ((values[a:b] - values[a:b].mean()) ** 2).sum()

    best = [-penalty] + [np.inf] * n
    came = [0] * (n + 1)
    for end in range(least, n + 1):
        for start in [0, *range(least, end - least + 1)]:
            total = best[start] + cost(start, end) + penalty
            if end - start >= least and total < best[end]:
                best[end], came[end] = total, start
    cuts, at = [], n
    while came[at]:
        at = came[at]
        cuts.insert(0, at)
    assert best_cuts(values, penalty, least).tolist() == cuts


def test_the_long_run_variance_is_that_of_an_autoregression():
    """Of 0.8 of the last one and unit noise: 1 / (1 - 0.8) ** 2."""
    rng = np.random.default_rng(0)
    values = np.zeros(100_000)
    for t, noise in enumerate(rng.normal(size=len(values) - 1), 1):
        values[t] = 0.8 * values[t - 1] + noise
    assert long_run_variance(values) == pytest.approx(25, rel=0.25)
    values[40_000:] += 20
    assert long_run_variance(values) == pytest.approx(25, rel=0.25)


def test_changes_of_a_series_are_found_with_their_levels():
    rng = np.random.default_rng(0)
    values = levels_of(rng, [(10, 150), (12, 100), (9, 151)])
    got = change_points(Series("latency", np.arange(401) * SECOND, values), every="1s")
    assert np.abs(got.at_ns / SECOND - [150, 250]).max() <= 2
    np.testing.assert_allclose(got.levels, [10, 12, 9], atol=0.3)
    assert (got.sizes > 5).all()
    assert "latency: 2 changes in 400 cells of 1s" in str(got)
    assert got.to_polars()["after"].to_list() == got.levels[1:].tolist()
    assert len(got.plot().layout.shapes) == 2


def test_a_rate_that_doubles_is_found():
    rng = np.random.default_rng(1)
    before, after = (
        np.sort(rng.random(2000) * 1000),
        1000 + np.sort(rng.random(3000) * 750),
    )
    times = np.concatenate([before, after]) * SECOND
    got = change_points(EventTimes("asked", times.astype(np.int64)), every="5s")
    assert len(got.at_ns) == 1
    assert got.at_ns[0] / SECOND == pytest.approx(1000, abs=20)
    np.testing.assert_allclose(got.levels, [2, 4], rtol=0.1)
    assert got.unit == "events per second"


def test_bursts_are_no_changes():
    """Of forty bursty streams without a change at most four are said to have one."""
    found = [
        len(change_points(bursty(np.random.default_rng(k), 1800), every="2s").at_ns)
        for k in range(40)
    ]
    assert (np.array(found) > 0).sum() <= 4


def test_spans_and_streams_that_have_no_level_are_refused():
    at = np.arange(500) * SECOND
    with pytest.raises(UsageError, match="has 49 cells of 10s, not 100 to 20,000"):
        change_points(Series("x", at, at % 7.0))
    with pytest.raises(UsageError, match="hardly changes from cell to cell"):
        change_points(Series("x", at, np.ones(500)), every="1s")
