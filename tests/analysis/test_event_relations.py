"""Rates, event studies, coincidences, Granger and transfer entropy: what they equal."""

import numpy as np
import pytest
from scipy import signal, stats
from statsmodels.tsa.stattools import grangercausalitytests

from cep.analysis import (
    EventTimes,
    Series,
    event_coincidence,
    event_study,
    granger,
    rate_correlation,
    transfer_entropy,
)
from cep.analysis.coincidence import coincidences, poisson_p_value
from cep.analysis.grid import Grid, changes, unusual_counts
from cep.analysis.transfer_entropy import bits_told, states_of
from cep.errors import MissingExtraError, UsageError
from tests.analysis.planted import SECOND, bursty, bursty_walk, followed, pushed


@pytest.fixture(scope="module")
def unrelated():
    rng = np.random.default_rng(5)
    return bursty(rng, 900, "x"), bursty(rng, 900, "y"), bursty_walk(rng, 900)


def test_the_correlation_of_rates_is_scipys_of_the_unusual_counts(unrelated):
    x, y, _ = unrelated
    got = rate_correlation(x, y, max_lag="4s", step="500ms", draws=19)
    start = max(x.time_ns[0], y.time_ns[0])
    cells = (min(x.time_ns[-1], y.time_ns[-1]) - start) // (SECOND // 2) + 1
    grid = Grid(start, SECOND // 2, cells)
    a, b = (unusual_counts(s, grid, got.shape_ns // got.step_ns) for s in (x, y))
    full = signal.correlate(b, a) / np.sqrt((a**2).sum() * (b**2).sum())
    lags = signal.correlation_lags(len(b), len(a))
    np.testing.assert_allclose(got.rho, full[np.abs(lags) <= 8], atol=1e-12)
    assert (got.low <= got.high).all()
    assert got.to_polars().columns == ["lag", "rho", "low", "high"]


@pytest.mark.parametrize("lead_ns", [50_000_000, SECOND, 60 * SECOND])
def test_a_planted_lead_of_events_is_found(lead_ns):
    """A third of 1,000 events and more is followed, among as many unrelated ones."""
    rng = np.random.default_rng(1)
    scale = lead_ns / SECOND
    seconds = max(300, 600 * scale)
    burst = max(3.0, scale / 2)
    rates = [r * min(1, 5 / burst) for r in (0.3, 1, 10)]
    x = bursty(rng, seconds, "x", burst, rates)
    y = followed(rng, x, lead_ns, noise=bursty(rng, seconds, "y", burst, rates))
    lags = {"max_lag": _text(4 * lead_ns), "step": _text(lead_ns // 5), "draws": 199}
    got = rate_correlation(x, y, **lags)
    assert got.best_lag_ns.low > 0
    assert abs(got.best_lag_ns.value - lead_ns) <= lead_ns / 5
    assert got.verdict.startswith("x leads y by")
    assert rate_correlation(y, x, **lags).verdict.startswith("x leads y by")


def _text(ns):
    return f"{ns}ns"


def test_rates_that_rise_together_are_no_relation():
    """Both grow twentyfold over the hour; their plain correlation is large."""
    rng = np.random.default_rng(0)
    x, y = (
        EventTimes(n, np.sort((rng.power(3, 20_000) * 3600 * SECOND).astype(np.int64)))
        for n in "xy"
    )
    grid = Grid(0, SECOND, 3600)
    assert np.corrcoef(grid.count(x), grid.count(y))[0, 1] > 0.5
    assert rate_correlation(x, y, max_lag="5s", step="1s", draws=199).p_value > 0.05
    assert event_coincidence(x, y, window="100ms", draws=199).p_value > 0.05
    poisson = event_coincidence(x, y, window="100ms", draws=19).trigger.p_poisson
    assert poisson < 1e-6


def test_a_burst_at_the_same_time_each_day_is_no_relation(monkeypatch):
    """Two streams that both burst at 13:30 for some seconds, on twenty days."""
    rng = np.random.default_rng(0)

    def stream(name):
        usual = rng.random(40_000) * 20 * 86_400
        opening = np.repeat(np.arange(20) * 86_400.0 + 48_600, 300)
        times = np.concatenate([usual, opening + rng.exponential(60, len(opening))])
        return EventTimes(name, np.sort(times * SECOND).astype(np.int64))

    x, y = stream("x"), stream("y")
    lags = {"max_lag": "5m", "step": "1m", "draws": 199}
    assert rate_correlation(x, y, **lags).p_value > 0.05
    monkeypatch.setattr("cep.analysis.grid.MIN_DAYS", 100)
    assert rate_correlation(x, y, **lags).p_value < 0.05


def test_coincidences_are_those_of_a_double_loop():
    rng = np.random.default_rng(0)
    a, b = np.sort(rng.integers(0, 1000, (2, 60)))
    for low, high in ((0, 5), (3, 9), (-9, -3)):
        expected = [any(low <= t - s <= high for t in b) for s in a]
        assert coincidences(a, b, low, high).tolist() == expected


def test_published_law_of_coincidences_is_that_of_poisson_events():
    """Donges et al. 2016, equation 5, beside 4,000 pairs thrown at random."""
    rng = np.random.default_rng(0)
    thrown = np.array(
        [
            coincidences(
                rng.random(12) * 100, np.sort(rng.random(15) * 100), -2.0, 0.0
            ).sum()
            for _ in range(4000)
        ]
    )
    for k in (2, 4, 6):
        expected = poisson_p_value(k, 12, 15, window=2.0, lag=0.0, span=100.0)
        assert (thrown >= k).mean() == pytest.approx(expected, abs=0.04)
    chance = 1 - (1 - 2 / 95) ** 15
    assert poisson_p_value(3, 12, 15, window=2, lag=5, span=100) == pytest.approx(
        1 - stats.binom.cdf(2, 12, chance)
    )


def test_coincidence_rates_count_both_ways_and_expect_the_base_rate(unrelated):
    x, y, _ = unrelated
    got = event_coincidence(x, y, window="500ms", lag="200ms", draws=199)
    start, end = max(x.time_ns[0], y.time_ns[0]), min(x.time_ns[-1], y.time_ns[-1])
    a, b = x.between(start, end).time_ns, y.between(start, end).time_ns
    low, high = SECOND // 5, SECOND * 7 // 10
    assert got.trigger.count == coincidences(a, b, low, high).sum()
    assert got.precursor.count == coincidences(b, a, -high, -low).sum()
    for rate in (got.trigger, got.precursor):
        assert rate.low <= rate.count <= rate.high
        assert rate.lift == pytest.approx(1, abs=0.1)
    assert "no more often than by chance" in str(got)


def test_events_that_trigger_others_are_found_by_their_coincidences(unrelated):
    x, noise, _ = unrelated
    y = followed(np.random.default_rng(3), x, SECOND // 2, share=0.15, noise=noise)
    got = event_coincidence(x, y, window="100ms", lag="450ms", draws=199)
    assert got.p_value <= 0.02
    assert got.trigger.lift > 1.1
    assert "y follows x within 450ms to 550ms" in got.verdict


def test_the_path_around_events_is_what_each_is_followed_by():
    """From two to four seconds after each event the value is one higher."""
    at = np.arange(100, 4000, 130)
    values = np.zeros(4000)
    values[at[:, None] + np.arange(2, 5)] = 1
    line = Series("w", np.arange(4000) * SECOND, values)
    events = EventTimes("x", at * SECOND)
    got = event_study(events, line, before="5s", after="10s", step="1s", draws=99)
    assert got.count == len(at) - 2  # the first and last have no whole window
    bump = np.isin(got.offsets_ns, np.arange(2, 5) * SECOND)
    np.testing.assert_allclose(got.path, bump, atol=0.04)
    assert got.p_after == 0.01
    assert SECOND < got.largest_ns < 5 * SECOND


def test_the_band_is_that_of_means_of_a_walks_differences():
    rng = np.random.default_rng(0)
    walk = Series("w", np.arange(4000) * SECOND, np.cumsum(rng.normal(size=4000)))
    at = np.sort(rng.choice(np.arange(50, 3950), 40, replace=False))
    events = EventTimes("x", at * SECOND)
    got = event_study(events, walk, before="5s", after="10s", step="1s", draws=499)
    wide = (got.high - got.low)[-1]
    assert wide == pytest.approx(2 * 1.96 * np.sqrt(10 / got.count), rel=0.35)
    assert got.p_after > 0.05


def test_a_series_that_events_push_is_found_after_and_not_before():
    rng = np.random.default_rng(2)
    x = bursty(rng, 1800, "x", rates=(0.02, 0.1, 0.4))
    walk = pushed(rng, x, SECOND, push=1e-3)
    got = event_study(x, walk, before="4s", after="4s", step="250ms", draws=199)
    assert got.p_after <= 0.01
    assert got.p_before > 0.05
    assert "w goes up after x" in str(got)
    at_three = got.path[np.flatnonzero(got.offsets_ns == 3 * SECOND)[0]]
    assert at_three == pytest.approx(1e-3, rel=0.5)


def test_granger_is_that_of_statsmodels(unrelated):
    x, _, walk = unrelated
    got = granger(x, walk, order=2, draws=19)
    start = max(x.time_ns[0], walk.time_ns[0])
    end = min(x.time_ns[-1], walk.time_ns[-1])
    grid = Grid(start, SECOND, (end - start) // SECOND + 1)
    past = unusual_counts(x, grid, got.shape_ns // SECOND)
    both = np.column_stack([changes(walk, grid), past])
    expected = grangercausalitytests(both, [2])[2][0]["ssr_ftest"]
    assert (got.f, got.p_f) == pytest.approx(expected[:2])
    # The gain behind the p-value is the one behind F.
    f = got.gain / (1 - got.gain) * got.df_denom / got.df_num
    assert f == pytest.approx(got.f)


def test_granger_finds_the_order_and_the_direction():
    rng = np.random.default_rng(0)
    driver = rng.normal(size=3000)
    y = np.zeros(3000)
    for t in range(2, 3000):
        y[t] = 0.3 * y[t - 1] + 0.2 * driver[t - 2] + rng.normal()
    at = np.arange(3000) * SECOND
    a, b = Series("a", at, np.cumsum(driver)), Series("b", at, np.cumsum(y))
    ahead, behind = granger(a, b, draws=199), granger(b, a, draws=199)
    assert (ahead.order, ahead.p_value) == (2, 0.005)
    assert ahead.weights[1] == pytest.approx(0.2, abs=0.06)
    assert behind.p_value > 0.05


def test_bits_are_those_of_the_definition():
    """Schreiber 2000, equation 4, with a dictionary of counts."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 3, 400), rng.integers(0, 2, 400)
    y[1:] = np.where(rng.random(399) < 0.3, x[:-1] % 2, y[1:])
    for history in (1, 2):
        counts, own_counts = {}, {}
        pairs, owns = {}, {}
        for t in range(history, 400):
            own, other = tuple(y[t - history : t]), tuple(x[t - history : t])
            for table, key in (
                (counts, (y[t], own, other)),
                (own_counts, (y[t], own)),
                (pairs, (own, other)),
                (owns, own),
            ):
                table[key] = table.get(key, 0) + 1
        expected = sum(
            n
            / (400 - history)
            * np.log2(n / pairs[own, other] / (own_counts[next_, own] / owns[own]))
            for (next_, own, other), n in counts.items()
        )
        assert bits_told(x, y, history) == pytest.approx(expected)


def test_bits_over_a_noisy_channel_are_those_of_the_formula():
    """A coin told with an error of 10 %: 1 - H(0.1) bits."""
    rng = np.random.default_rng(0)
    coin = rng.integers(0, 2, 200_000)
    heard = coin ^ (rng.random(200_000) < 0.1)
    got = bits_told(coin[1:], heard[:-1])
    assert got == pytest.approx(1 - stats.entropy([0.1, 0.9], base=2), abs=0.003)


def test_transfer_entropy_goes_one_way_and_sees_what_is_no_line():
    rng = np.random.default_rng(0)
    driver = rng.normal(size=2000)
    moved = rng.normal(size=2000)
    moved[1:] *= 1 + 1.5 * (np.abs(driver[:-1]) > 1)
    at = np.arange(2000) * SECOND
    a, b = Series("a", at, np.cumsum(driver)), Series("b", at, np.cumsum(moved))
    assert granger(a, b, order=1, draws=99).p_value > 0.05
    ahead = transfer_entropy(a, b, draws=99)
    assert ahead.p_value == 0.01
    assert 0 < ahead.effective < ahead.bits
    assert transfer_entropy(b, a, draws=99).p_value > 0.05


def test_states_are_about_equally_frequent_and_equal_values_alike():
    values = np.random.default_rng(0).normal(size=999)
    assert np.bincount(states_of(values, 3)).tolist() == [333, 333, 333]
    zeros = np.array([0.0] * 90 + [1.0] * 10)
    assert states_of(zeros, 3).max() == 1


def test_all_results_print_draw_and_become_tables(unrelated, tmp_path):
    x, y, walk = unrelated
    results = [
        rate_correlation(x, y, max_lag="2s", draws=19),
        event_coincidence(x, y, draws=19),
        event_study(x, walk, before="2s", after="3s", draws=19, step="500ms"),
        event_study(x, y, before="2s", after="3s", draws=19, step="500ms"),
        granger(x, walk, draws=19),
        transfer_entropy(x, y, draws=19),
    ]
    for result in results:
        figure = result.plot()
        assert figure.layout.xaxis.title.text
        assert result.to_polars().height
        written = result.to_csv(tmp_path / "made" / "table.csv").read_text()
        assert written.count("\n") == result.to_polars().height + 1
        assert result._repr_html_().startswith("<pre>")
        assert repr(result) == str(result)


def test_foreign_names_are_neither_markup_nor_formulas(tmp_path):
    rng = np.random.default_rng(0)
    x, y = bursty(rng, 300, "=<script>"), bursty(rng, 300, "@<b>")
    found = event_coincidence(x, y, draws=19)
    assert "<script>" not in found._repr_html_() + found.plot().to_json()
    cells = found.to_csv(tmp_path / "table.csv").read_text().splitlines()[1]
    assert cells.startswith("'=<script>,'@<b>")


def test_a_missing_library_names_the_extra(monkeypatch, unrelated):
    monkeypatch.setitem(__import__("sys").modules, "statsmodels.tsa.stattools", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'cep-kit\[stats\]'"):
        granger(*unrelated[:2], draws=19)


def test_windows_and_lags_that_make_no_grid_are_refused(unrelated):
    x, y, _ = unrelated
    with pytest.raises(UsageError, match="max_lag 5s is no multiple of step 3s"):
        rate_correlation(x, y, step="3s")
    with pytest.raises(UsageError, match="is no multiple of step 7s"):
        event_study(x, y, step="7s")
    with pytest.raises(UsageError, match="An order of 0 is none"):
        granger(x, y, order=0)
    with pytest.raises(UsageError, match="1 states and 1 steps"):
        transfer_entropy(x, y, states=1)
