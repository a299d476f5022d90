"""The primary dies, and sentinels make its replica the next one."""

import json

import live
import pytest

from cep.bus.keys import meta_key
from cep.ops.crash_test import Trial
from tests.faults import outages, sentinels, work

pytestmark = [pytest.mark.redis, pytest.mark.slow]


def fail_over(folder, target=work.cep_run, *, dies=True):
    """Let a primary die while a pipeline runs; return what is left of both."""
    log = folder / "pipeline.log"
    with (
        sentinels.watched(folder) as service,
        Trial(service.url, work.MODULE, work.entries(900), log, target=target) as trial,
    ):
        process = trial.begin()
        try:
            trial.feed.let(400)
            live.wait_until(lambda: trial.feed.written == 400)
            trial.wait_for_commit(process, 0)
            if dies:
                service.kill_primary()
            seq = trial.seq
            trial.feed.let(600)
            trial.wait_for_commit(process, seq)
            rival = trial.begin()
            rival.join(60)
            holder = json.loads(trial.client.hget(meta_key(trial.name), "holder"))
            trial.finish(lambda: process)
            verdict, _ = outages.verdict_over_survivors(trial)
            return verdict, rival.exitcode, holder["pid"] == process.pid
        finally:
            process.kill()
            process.join()


def test_after_a_failover_all_is_a_whole_prefix_and_there_is_one_owner(tmp_path):
    verdict, rival, same_owner = fail_over(tmp_path)
    assert str(verdict) == "0 lost, 0 duplicated, 0 phantom"
    assert rival == 3
    assert same_owner
    assert "Starting from the last commit" in (tmp_path / "pipeline.log").read_text()


def test_where_no_primary_dies_nothing_is_started_again(tmp_path):
    verdict, rival, same_owner = fail_over(tmp_path, dies=False)
    assert str(verdict) == "0 lost, 0 duplicated, 0 phantom"
    assert (rival, same_owner) == (3, True)
    assert "Starting from" not in (tmp_path / "pipeline.log").read_text()


def test_outputs_that_are_forgotten_are_noticed(tmp_path):
    verdict, _, _ = fail_over(tmp_path, work.outputs_forgotten)
    assert not verdict.clean
