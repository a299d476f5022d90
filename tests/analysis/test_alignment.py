from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import polars as pl
import pytest

from cep.analysis import Series, join_as_of, refresh_times, resample
from cep.errors import UsageError

START = datetime(2026, 1, 5, 9, tzinfo=UTC)
SECOND = 10**9


def at(*seconds):
    return [START + timedelta(seconds=s) for s in seconds]


def ticks(name, times, values=None):
    values = np.arange(1.0, len(times) + 1) if values is None else values
    return Series(name, np.array(times) * SECOND, np.array(values, float))


def random_frames(seed):
    rng = np.random.default_rng(seed)
    base = np.datetime64("2026-01-05T09:00", "ns")
    return [
        pl.DataFrame(
            {
                "event_time": base + rng.integers(0, 500, n) * np.timedelta64(1, "s"),
                "symbol": rng.choice(["a", "b"], n),
                name: rng.normal(size=n),
            }
        )
        for n, name in ((80, "price"), (60, "bid"))
    ]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("by", [(), "symbol"])
def test_rows_as_of_are_those_of_pandas(seed, by):
    left, right = random_frames(seed)
    if not by:
        right = right.drop("symbol")
    got = join_as_of(left, right, by=by, tolerance="7s")
    expected = pd.merge_asof(
        left.to_pandas().sort_values("event_time", kind="stable"),
        right.to_pandas().sort_values("event_time", kind="stable"),
        on="event_time",
        by=by or None,
        tolerance=pd.Timedelta("7s"),
    )
    assert got["price"].to_list() == expected["price"].tolist()
    np.testing.assert_array_equal(
        got["bid"].fill_null(np.nan).to_numpy(), expected["bid"].to_numpy()
    )
    assert got["age"].drop_nulls().dt.total_seconds().is_between(0, 7).all()


def test_rows_without_a_time_are_kept_and_match_nothing():
    left = pl.DataFrame({"event_time": [*at(1), None], "v": [1, 2]})
    right = pl.DataFrame({"event_time": [*at(0), None], "v": [3, 4]})
    got = join_as_of(left, right, tolerance="1s")
    assert got["v"].to_list() == [1, 2]
    assert got["v_right"].to_list() == [3, None]
    with pytest.raises(UsageError, match="no column 'venue'"):
        join_as_of(left, right, by="venue", tolerance="1s")


def test_refresh_times_are_by_when_all_have_ticked_again():
    one = ticks("one", [1, 3, 4, 7, 10, 11])
    two = ticks("two", [2, 5, 8, 9])
    three = ticks("three", [3, 6, 12])
    got = refresh_times([one, two, three])
    assert (got.time_ns // SECOND).tolist() == [3, 6, 12]
    assert got.values.tolist() == [[2, 1, 1], [3, 2, 2], [6, 4, 3]]


@pytest.mark.parametrize("seed", range(5))
def test_refresh_times_are_those_of_a_walk_through_all_ticks(seed):
    rng = np.random.default_rng(seed)
    given = [
        ticks(str(k), np.unique(rng.integers(0, 200, n)))
        for k, n in enumerate((20, 60, 40))
    ]
    expected, waiting = [], {0, 1, 2}
    for second in range(200):
        waiting -= {k for k, s in enumerate(given) if second * SECOND in s.time_ns}
        if not waiting:
            expected.append(second)
            waiting = {0, 1, 2}
    assert (refresh_times(given).time_ns // SECOND).tolist() == expected


@pytest.mark.parametrize(
    ("fill", "expected"),
    [
        ("none", [1, 1.6, 3, np.nan, np.nan]),
        ("last", [1, 1.6, 3, 3, 3]),
        ("zero", [1, 1.6, 3, 0, 0]),
        ("linear", [1, 2.3, 3 + 1 / 6, 3.5, 3 + 5 / 6]),
    ],
)
def test_a_grid_is_filled_as_it_says(fill, expected):
    got = resample([ticks("s", [2, 3, 5, 11], [1, 1.6, 3, 4])], "2s", fill=fill)
    assert (got.time_ns // SECOND).tolist() == [2, 4, 6, 8, 10]
    np.testing.assert_allclose(got.values[:, 0], expected)


def test_the_last_value_of_each_interval_is_that_of_pandas():
    rng = np.random.default_rng(0)
    s = ticks("s", np.unique(rng.integers(10, 500, 80)), None)
    got = resample([s], "10s")
    table = pd.Series(s.values, index=pd.to_datetime(s.time_ns))
    expected = table.resample("10s", closed="right", label="right").last().ffill()
    np.testing.assert_array_equal(
        got.values[:, 0], expected.to_numpy()[: len(got.values)]
    )


def test_values_that_are_too_old_count_as_none():
    s = ticks("s", [0, 10], [1, 2])
    last = resample([s], "2s", max_age="4s").values[:, 0]
    assert np.isnan(last).tolist() == [False, False, False, True, True, False]
    line = resample([s], "2s", fill="linear", max_age="7s").values[:, 0]
    assert np.isnan(line).tolist() == [False, True, False, False, True, False]


def test_what_is_aligned_covers_the_common_time_prints_and_draws():
    got = resample([ticks("a", [0, 5, 9]), ticks("b", [3, 12])], "1s", fill="none")
    assert (got.time_ns[[0, -1]] // SECOND).tolist() == [3, 9]
    assert got.to_polars().columns == ["event_time", "a", "b"]
    assert got.to_polars()["b"].null_count() == 6
    assert "every 1s, nothing where no value is new" in str(got)
    assert len(got.plot().data) == 2


def test_fills_and_series_that_are_none_are_refused():
    with pytest.raises(UsageError, match=r"no fill 'lst'. Did you mean 'last'"):
        resample([ticks("a", [0, 1])], "1s", fill="lst")
    with pytest.raises(UsageError, match="There is no series"):
        resample([], "1s")
    with pytest.raises(UsageError, match="b has no observations"):
        refresh_times([ticks("a", [0]), ticks("b", [])])
