"""Twenty seconds of load and kills; the command does ten minutes."""

import pytest

from tests.faults import soak

pytestmark = [pytest.mark.redis, pytest.mark.slow]


def test_memory_does_not_grow_under_load_and_kills(server_address, tmp_path):
    verdict, kills, memory = soak.soak(server_address, tmp_path, 20, 1500, 6)
    assert str(verdict) == "0 lost, 0 duplicated, 0 phantom"
    assert kills >= 2
    # From its first commits on a process grows by less than its start took.
    for looks in memory:
        sizes = [size for since, size in looks if since > 2]
        assert not sizes or max(sizes) - min(sizes) < 60


def test_growth_is_seen_for_what_it_is():
    looks = [(t / 10, 200 + t / 100) for t in range(600)]
    assert soak.slope_mb_per_minute(looks) == 6.0
