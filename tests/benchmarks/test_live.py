"""The live benchmark measures what it says: nothing is lost, ratios follow."""

import json

import pytest

from tests.benchmarks import live
from tests.benchmarks import live_paths as paths
from tests.benchmarks.live_traffic import fill


def test_what_is_thrown_away_is_what_the_reader_reads(redis_url, redis):
    fill(redis_url, 5_000)
    drain = paths.Drain(redis)
    assert paths.read_columns(redis) == 5_000
    drain()
    drain()
    assert redis.ping()
    assert paths.read_dicts(redis, 4_000) == 4_000


@pytest.mark.slow
def test_prints_one_json_object_with_ratios_of_its_rows(redis_url, capsys):
    words = ["--json", "--events", "2000", "--repeat", "1", "--url", redis_url]
    parts = [f"--only={part}" for part in ("read", "path", "publish")]
    assert live.main([*words, *parts]) == 0
    result = json.loads(capsys.readouterr().out)
    ratios, read, path = result["ratios"], result["read"], result["path"]
    assert ratios["read_wall"] == pytest.approx(
        read["columns"]["wall_us"] / read["drain"]["wall_us"]
    )
    assert ratios["path_client_us"] == max(
        row["client_us"] for name, row in path.items() if name != "drain"
    )
    assert path["5 % emitting"]["outputs"] > path["1 % emitting"]["outputs"] > 0
    assert set(ratios) < set(live.GOALS)
