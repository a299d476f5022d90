import numpy as np
import pytest

from cep.reporting.downsample import lowest_and_highest


def kept_by_definition(times, values, start, width):
    """Bucket by bucket, the slow and obvious way."""
    kept = {0, len(times) - 1}
    buckets = [int((time - start) // width) for time in times]
    for bucket in set(buckets):
        rows = [i for i, one in enumerate(buckets) if one == bucket]
        kept.add(min(rows, key=lambda i: (values[i], i)))
        kept.add(min(rows, key=lambda i: (-values[i], i)))
    return sorted(kept)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("width", [1, 3.5, 40, 1e6])
def test_keeps_the_first_lowest_and_highest_of_each_bucket(seed, width):
    rng = np.random.default_rng(seed)
    times = rng.integers(0, 4, 200).cumsum()
    values = rng.integers(0, 12, 200) / 4
    kept = lowest_and_highest(times, values, int(times[0]), width)
    assert kept.tolist() == kept_by_definition(times, values, int(times[0]), width)


def test_a_spike_of_one_point_stays():
    values = np.ones(100_000)
    values[54_321] = 9.0
    kept = lowest_and_highest(np.arange(100_000), values, 0, 1000)
    assert len(kept) <= 2 * 100 + 2
    assert values[kept].max() == 9.0


def test_no_points_and_one_point():
    none = np.zeros(0, np.int64)
    assert lowest_and_highest(none, none.astype(float), 0, 1).tolist() == []
    assert lowest_and_highest(np.array([7]), np.array([1.0]), 0, 1).tolist() == [0]
