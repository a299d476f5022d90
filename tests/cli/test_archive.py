"""The commands `cep archive` and `cep restore`, as a user calls them."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import live
import pytest

from cep.cli import main
from cep.frames.archive.layout import parts_of

MARKET = live.MARKET


def lines(capsys):
    return capsys.readouterr().out.splitlines()


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path / "archive")


def test_an_archive_from_beginning_to_restore(redis, redis_url, folder, capsys):
    live.write(redis, live.traffic(1, 300))
    market = redis.xrange(MARKET)
    at = ["--redis", redis_url]
    assert main(["archive", "run", folder, "--once", *at]) == 0
    assert lines(capsys)[-1] == "300 entries archived"
    redis.xadd(MARKET, {"a": "b"})
    assert main(["archive", "status", folder, "--json", *at]) == 0
    [ai, found] = json.loads(capsys.readouterr().out)
    assert (found["stream"], found["rows"], found["behind"]) == (MARKET, len(market), 1)
    assert ai["behind"] == 0
    assert main(["archive", "status", folder, *at]) == 0
    assert "1 not archived yet" in lines(capsys)[1]
    assert main(["archive", "verify", folder]) == 0
    assert lines(capsys)[1].endswith("entries in 1 files, as written")
    assert main(["archive", "prune", folder, "--dry-run", *at]) == 0
    assert redis.xlen(MARKET) == len(market) + 1
    assert f"{len(market)} entries may go, 1 stay" in lines(capsys)[1]
    assert main(["archive", "prune", folder, *at]) == 2
    assert "Add --yes" in capsys.readouterr().err
    assert main(["archive", "prune", folder, "--yes", *at]) == 0
    assert lines(capsys)[-1] == "300 entries trimmed"
    assert redis.xlen(MARKET) == 1
    assert main(["restore", folder, *at]) == 2
    assert "is not empty" in capsys.readouterr().err
    again = ["restore", folder, "--stream", MARKET, "--into", "again", *at]
    assert main(again) == 0
    assert lines(capsys) == [f"again: {len(market)} entries"]
    assert redis.xrange("again") == market


def test_pipelines_and_groups_hold_entries_back(redis, redis_url, folder, capsys):
    live.write(redis, live.traffic(1, 100))
    at = ["--redis", redis_url]
    main(["archive", "run", folder, "--once", *at])
    redis.hset("cep:{p}:meta", "positions", json.dumps({MARKET: "0-0"}))
    redis.xgroup_create(live.AI, "g", id="0")
    capsys.readouterr()
    assert main(["archive", "prune", folder, "--yes", *at]) == 0
    ai, market = lines(capsys)
    assert ai.startswith(f"ai.events: 0 entries may go, {redis.xlen(live.AI)} stay: ")
    assert ai.endswith("group 'g' has not read the rest")
    assert market.endswith("stay: pipeline 'p' has not read the rest")
    ignore = ["--ignore", "p", "--ignore", "g"]
    assert main(["archive", "prune", folder, "--yes", *ignore, *at]) == 0
    assert redis.xlen(MARKET) == redis.xlen(live.AI) == 0


def test_damage_is_exit_code_1_and_names_the_file(redis, redis_url, tmp_path, capsys):
    live.write(redis, live.traffic(1, 100))
    folder = tmp_path / "archive"
    main(["archive", "run", str(folder), "--once", "--redis", redis_url])
    path = next((folder / f"stream={MARKET}").rglob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-1])
    assert main(["archive", "verify", str(folder)]) == 1
    said = capsys.readouterr()
    assert str(path) in said.err
    assert "DAMAGED" in said.out
    assert main(["archive", "prune", str(folder), "--yes", "--redis", redis_url]) == 1
    assert redis.xlen(MARKET) > 0


def test_a_folder_that_is_none_is_a_mistake(tmp_path, capsys):
    assert main(["archive", "verify", str(tmp_path / "no")]) == 2
    assert "There is no archive" in capsys.readouterr().err


@pytest.mark.slow
def test_it_goes_on_until_it_is_stopped(redis, redis_url, folder):
    live.write(redis, live.traffic(1, 100))
    command = [sys.executable, "-m", "cep", "archive", "run", folder, "--every", "50ms"]
    with subprocess.Popen(
        [*command, "--redis", redis_url], text=True, stdout=-1
    ) as one:
        path = Path(folder)
        live.wait_until(lambda: len(parts_of(path, MARKET)) == 1, 60)
        live.write(redis, live.traffic(1, 200)[100:])
        live.wait_until(lambda: len(parts_of(path, MARKET)) == 2, 60)
        one.send_signal(signal.SIGTERM)
        said, _ = one.communicate(timeout=60)
    assert one.returncode == 0
    assert said.splitlines()[-1] == "200 entries archived"
