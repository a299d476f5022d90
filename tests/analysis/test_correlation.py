import numpy as np
import pandas as pd
import pytest

from cep.analysis import Series, ewm_correlation, rolling_correlation
from cep.errors import UsageError

SECOND = 10**9


def pair(seed, n=300, level=0.0):
    rng = np.random.default_rng(seed)
    shared, a, b = rng.normal(size=(3, n))
    at = np.arange(n) * SECOND
    return (
        Series("x", at, level + np.cumsum(shared + a)),
        Series("y", at, np.cumsum(shared + b)),
    )


def changes(s):
    return pd.Series(np.diff(s.values))


@pytest.mark.parametrize("seed", range(3))
def test_the_rolling_correlation_is_that_of_pandas(seed):
    x, y = pair(seed)
    got = rolling_correlation(x, y, window="20s")
    expected = changes(x).rolling(20).corr(changes(y))
    np.testing.assert_allclose(got.rho, expected, rtol=1e-9)
    assert len(got.to_polars()) == 299


@pytest.mark.parametrize("level", [0, 1e6])
def test_the_fading_correlation_is_that_of_pandas(level):
    x, y = pair(0, level=level)
    got = ewm_correlation(x, y, half_life="15s")
    expected = changes(x).ewm(halflife=15).corr(changes(y))
    np.testing.assert_allclose(got.rho[2:], expected[2:], rtol=1e-7)
    assert np.isnan(got.rho[:2]).all()


def test_a_series_that_stands_still_has_no_correlation():
    x, y = pair(0)
    values = y.values.copy()
    values[100:160] = values[100]
    got = rolling_correlation(x, Series("y", y.time_ns, values), window="20s")
    assert np.isnan(got.rho[119:158]).all()
    assert np.isfinite(got.rho[[118, 160]]).all()
    assert np.isnan(ewm_correlation(x, Series("y", y.time_ns, values * 0)).rho).all()


def test_the_band_without_a_relation_holds_95_percent():
    rng = np.random.default_rng(0)
    at = np.arange(20_000) * SECOND
    a, b = (Series(n, at, np.cumsum(rng.normal(size=20_000))) for n in "ab")
    for got in (rolling_correlation(a, b), ewm_correlation(a, b)):
        beyond = np.abs(got.rho[200:]) > 1.96 / np.sqrt(got.changes)
        assert beyond.mean() == pytest.approx(0.05, abs=0.025)
        assert "without a relation" in str(got)
        assert got.plot().layout.yaxis.title.text == "Correlation"


def test_windows_and_spans_that_are_too_short_are_refused():
    x, y = pair(0)
    with pytest.raises(UsageError, match="window of 2s is no multiple of 1s, or less"):
        rolling_correlation(x, y, window="2s")
    with pytest.raises(UsageError, match="x and y have 2 instants in common"):
        ewm_correlation(x.between(0, SECOND), y)
