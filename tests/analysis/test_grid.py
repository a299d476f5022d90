from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from scipy.ndimage import uniform_filter1d

from cep.analysis import EventTimes, Series, event_times
from cep.analysis.grid import (
    Grid,
    changes,
    common_grid,
    moving_mean,
    shape_cells,
    unusual_counts,
    without_day,
)
from cep.errors import UsageError

SECOND = 10**9
DAY = 86_400 * SECOND


def test_counts_are_those_of_a_histogram():
    times = np.sort(np.random.default_rng(0).integers(0, 1000, 300))
    grid = Grid(100, 7, 90)
    expected, _ = np.histogram(times, bins=np.append(grid.edges_ns[:-1], 729.5))
    assert grid.count(EventTimes("x", times)).tolist() == expected.tolist()


def test_changes_are_differences_of_the_last_values_and_0_where_unknown():
    series = Series("x", np.array([15, 22, 29, 55]), np.array([1.0, 2, 4, 8]))
    assert changes(series, Grid(0, 10, 6)).tolist() == [0, 0, 3, 0, 0, 4]


@pytest.mark.parametrize("width", [1, 4, 7])
def test_the_moving_mean_is_that_of_scipy_away_from_the_ends(width):
    values = np.random.default_rng(0).normal(size=60)
    inside = slice(width, -width)
    expected = uniform_filter1d(values, width)
    np.testing.assert_allclose(moving_mean(values, width)[inside], expected[inside])


def test_what_comes_each_day_is_taken_out_given_five_days():
    grid = Grid(0, 600 * SECOND, 144 * 6)
    daily = np.tile(np.arange(144.0), 6)
    assert np.abs(without_day(daily, grid)).max() == 0
    short = Grid(0, 600 * SECOND, 144 * 4)
    assert (without_day(daily[: 144 * 4], short) == daily[: 144 * 4]).all()


def test_unusual_counts_have_no_shape_left():
    rng = np.random.default_rng(0)
    times = np.sort((rng.power(2, 50_000) * 3600 * SECOND).astype(np.int64))
    grid = Grid(0, SECOND, 3600)
    left = unusual_counts(EventTimes("x", times), grid, 60)
    parts = left.reshape(12, 300)
    assert np.abs(parts.mean(axis=1)).max() < 0.05
    assert 0.85 < parts.std(axis=1).min() < parts.std(axis=1).max() < 1.15


def test_the_shape_is_twenty_lags_unless_the_span_is_short():
    hour = Grid(0, SECOND, 3600)
    assert shape_cells(hour, 5 * SECOND, None) == 100
    assert shape_cells(hour, 20 * SECOND, None) == 180
    assert shape_cells(hour, 5 * SECOND, "30s") == 30
    with pytest.raises(UsageError, match=r"have 1h in common.*at least 1h20m"):
        shape_cells(hour, 60 * SECOND, None)
    with pytest.raises(UsageError, match=r"shape of 10s is shorter.*Take 20s or more"):
        shape_cells(hour, 5 * SECOND, "10s")


def test_too_few_events_and_too_many_cells_are_refused():
    often = EventTimes("often", np.arange(0, DAY, SECOND))
    rarely = EventTimes("rarely", np.arange(0, DAY, DAY // 10))
    with pytest.raises(UsageError, match="rarely has 10 observations"):
        common_grid(often, rarely, SECOND)
    with pytest.raises(UsageError, match="none has no observations"):
        common_grid(often, EventTimes("none", np.zeros(0, np.int64)), SECOND)
    with pytest.raises(UsageError, match="more than 4,000,000"):
        common_grid(often, often, 10**6)


def test_times_of_events_are_sorted_and_missing_ones_counted():
    at = [datetime(2026, 1, 5, 9, 0, s, tzinfo=UTC) for s in (3, 1, 3)]
    got = event_times(pl.DataFrame({"event_time": [*at, None]}), name="trades")
    assert np.diff(got.time_ns).tolist() == [2 * SECOND, 0]
    assert (got.name, got.absent) == ("trades", 1)
