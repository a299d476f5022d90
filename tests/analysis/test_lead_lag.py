"""Correlation of ticks by lag: exact, honest where there is nothing, and awake.

The published figures are those of trades of 8 August 2024, computed on all
observations by another implementation of the same definition.
"""

import numpy as np
import oracles
import polars as pl
import pytest

import cep
from cep.analysis import Series, lead_lag, series
from cep.analysis.kernels import hayashi_yoshida
from cep.errors import UsageError
from tests.analysis.planted import MS, pair_with_lead


def walk(rng, n, mean_ms, name="x", start=0):
    times = start + np.cumsum(rng.integers(1, 2 * mean_ms, n)) * MS
    return Series(name, times, np.cumsum(rng.normal(0, 1e-4, n)))


def bursty(rng, seconds, name):
    """Ticks whose rate and size change by a factor of ten every few seconds."""
    rates = rng.choice([2, 20], seconds // 4).repeat(4)
    times = np.concatenate(
        [
            np.sort(rng.integers(s * 1000, (s + 1) * 1000, r))
            for s, r in enumerate(rates)
        ]
    )
    size = (rates / 10).repeat(rates) * 1e-4
    times, first = np.unique(times, return_index=True)
    return Series(
        name, times * MS, np.cumsum(rng.normal(0, 1, len(times)) * size[first])
    )


@pytest.mark.parametrize("seed", range(20))
def test_the_covariance_is_that_of_every_pair_of_overlapping_returns(seed):
    rng = np.random.default_rng(seed)
    x = walk(rng, int(rng.integers(2, 40)), 4)
    y = walk(rng, int(rng.integers(2, 40)), int(rng.integers(1, 9)), start=5 * MS)
    lags = np.arange(-60, 61, 4) * MS
    got = hayashi_yoshida(
        x.time_ns, x.values, y.time_ns, y.values, lags, np.zeros(len(x), np.int64), 1
    )
    series_ = (x.time_ns, x.values, y.time_ns, y.values)
    expected = [oracles.hayashi_yoshida(*series_, lag) for lag in lags]
    np.testing.assert_allclose(got[0], expected, rtol=1e-9, atol=1e-18)


def test_which_of_the_two_is_named_first_changes_signs_and_nothing_else():
    rng = np.random.default_rng(3)
    x, y = walk(rng, 3000, 20), walk(rng, 700, 90, name="y")
    one, other = (lead_lag(*pair, draws=99) for pair in ((x, y), (y, x)))
    assert one.p_value == other.p_value
    assert one.best_lag_ns.value == -other.best_lag_ns.value
    for name in ("rho", "low", "high"):
        there, back = getattr(one, name), getattr(other, name)[::-1]
        np.testing.assert_allclose(there, back, atol=1e-12)


PUBLISHED = [
    ("binance-usdm BTCUSDT", "binance-spot BTCUSDT", 0.132, 20, 0.161, 2.06),
    ("binance-usdm BTCUSDT", "binance-usdm ETHUSDT", 0.102, 20, 0.204, 2.41),
    ("binance-usdm BTCUSDT", "binance-cm BTCUSD_PERP", 0.194, 30, 0.476, 7.57),
]


@pytest.fixture(scope="module")
def trades():
    rows = cep.sample.frame("market.events").filter(pl.col("type") == "market.trade")
    named = rows.with_columns(name=pl.concat_str("venue", pl.lit(" "), "symbol"))
    return {
        name: series(part, name=name)
        for (name,), part in named.partition_by("name", as_dict=True).items()
    }


@pytest.mark.parametrize(("x", "y", "at_zero", "lag_ms", "best", "ratio"), PUBLISHED)
def test_published_figures_of_real_trades_come_out(
    trades, x, y, at_zero, lag_ms, best, ratio
):
    found = lead_lag(trades[x], trades[y], max_lag="1s", step="10ms")
    # What lies outside the common span is cut here and was not there.
    assert found.rho_zero == pytest.approx(at_zero, abs=0.001)
    assert found.rho_best == pytest.approx(best, abs=0.001)
    assert found.best_lag_ns.value == lag_ms * MS
    assert round(found.ratio.value, 2) == ratio
    assert found.p_value < 0.05


def test_exchanging_the_series_turns_the_curve_around(trades):
    one, other = trades["binance-usdm BTCUSDT"], trades["binance-cm BTCUSD_PERP"]
    ahead, behind = lead_lag(one, other), lead_lag(other, one)
    np.testing.assert_allclose(ahead.rho, behind.rho[::-1], rtol=1e-9, atol=1e-12)
    assert "binance-usdm BTCUSDT leads" in str(ahead)
    assert "binance-usdm BTCUSDT leads" in str(behind)


@pytest.mark.slow
def test_unrelated_bursty_series_are_called_related_no_more_often_than_said():
    rng = np.random.default_rng(7)
    p = [
        lead_lag(
            bursty(rng, 600, "x"),
            bursty(rng, 600, "y"),
            max_lag="2s",
            step="100ms",
            draws=199,
            seed=i,
        ).p_value
        for i in range(100)
    ]
    # 5 % of 100 is 5; 12 or more has a chance of 0.4 %.
    assert sum(value <= 0.05 for value in p) < 12


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lead_ms", "seconds", "max_lag", "step"),
    [
        (50, 300, "500ms", "10ms"),
        (1_000, 1_200, "5s", "100ms"),
        (60_000, 12_000, "2m", "5s"),
    ],
)
def test_a_planted_lead_is_found_with_its_sign_and_lag(lead_ms, seconds, max_lag, step):
    """Half of the variance is shared: in 19 of 20 runs or more."""
    found = 0
    for seed in range(20):
        x, y = pair_with_lead(np.random.default_rng(seed), lead_ms, seconds)
        got = lead_lag(x, y, max_lag=max_lag, step=step, draws=199)
        near = abs(got.best_lag_ns.value - lead_ms * MS) <= max(50, lead_ms / 10) * MS
        found += near and got.best_lag_ns.low > 0 and got.p_value <= 0.05
    assert found >= 19


def test_a_grid_makes_the_slower_series_seem_to_follow_and_ticks_do_not():
    """The trap: of two prices of one thing the rarer one is stale on a grid."""
    rng = np.random.default_rng(3)
    path = np.cumsum(rng.normal(0, 1e-4, 600_000))
    often = np.flatnonzero(rng.random(600_000) < 0.2)
    rarely = np.flatnonzero(rng.random(600_000) < 0.0005)
    x = Series("often", often * MS, path[often])
    y = Series("rarely", rarely * MS, path[rarely])
    grid = np.arange(10_000, 600_000, 1000)
    steps = [
        np.diff(s.values[np.searchsorted(s.time_ns, grid * MS, "right") - 1])
        for s in (x, y)
    ]
    after = np.corrcoef(steps[0][:-1], steps[1][1:])[0, 1]
    before = np.corrcoef(steps[0][1:], steps[1][:-1])[0, 1]
    assert after > before + 0.2
    found = lead_lag(x, y, max_lag="5s", step="200ms", draws=199)
    assert abs(found.best_lag_ns.value) <= 200 * MS
    assert 0.5 < found.ratio.value < 2


def test_equal_seeds_give_equal_results_and_the_curve_as_a_frame():
    x, y = pair_with_lead(np.random.default_rng(0), 50, 200)
    one, other = lead_lag(x, y, seed=5), lead_lag(x, y, seed=5)
    assert str(one) == str(other)
    frame = one.to_polars()
    assert frame.equals(other.to_polars())
    assert frame.columns == ["lag", "rho", "low", "high"]
    assert frame["lag"].dt.total_milliseconds().to_list() == list(
        range(-1000, 1001, 10)
    )
    inside = (frame["low"] <= frame["rho"]) & (frame["rho"] <= frame["high"])
    assert inside.mean() > 0.9


def test_too_little_time_for_the_lags_says_how_much_is_needed():
    x, y = (walk(np.random.default_rng(i), 500, 10) for i in range(2))
    with pytest.raises(UsageError, match=r"too few for 20 blocks of 10"):
        lead_lag(walk(np.random.default_rng(0), 150, 10), y, max_lag="20ms")
    with pytest.raises(UsageError, match=r"too little for lags up to 1s.*at least 40s"):
        lead_lag(x, y)


def test_series_that_share_no_time_or_never_move_are_refused():
    rng = np.random.default_rng(0)
    x, later = walk(rng, 100, 10), walk(rng, 100, 10, "y", start=10**13)
    with pytest.raises(UsageError, match="x has 0 observations"):
        lead_lag(x, later)
    flat = Series("flat", x.time_ns, np.zeros(len(x)))
    with pytest.raises(UsageError, match=r"flat has 100 observations.*never change"):
        lead_lag(x, flat)


def test_lags_that_make_no_grid_are_refused():
    x, y = pair_with_lead(np.random.default_rng(0), 50, 200)
    with pytest.raises(UsageError, match="max_lag 1s is no multiple of step 300ms"):
        lead_lag(x, y, step="300ms")
