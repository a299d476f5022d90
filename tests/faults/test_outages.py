"""The server is killed and comes back, or comes back without its last seconds."""

import random

import pytest

from tests.faults import outages, work

pytestmark = [pytest.mark.redis, pytest.mark.slow]

CLEAN = "0 lost, 0 duplicated, 0 phantom"


def test_a_server_that_is_killed_and_comes_back_changes_nothing(tmp_path):
    assert str(outages.kill_server(tmp_path, 3)) == CLEAN
    assert "Starting from the last commit" in (tmp_path / "pipeline.log").read_text()


@pytest.mark.parametrize("seed", range(3))
def test_what_a_server_has_lost_is_done_again_and_told(seed, tmp_path):
    verdict, lost, rollbacks = outages.cut_file(tmp_path, random.Random(seed), seed)
    assert str(verdict) == CLEAN
    # Cut behind the last commit none is lost.
    assert rollbacks == (1 if lost else 0)
    told = f"has lost {lost} commits" in (tmp_path / "pipeline.log").read_text()
    assert told == (lost > 0)


def test_without_a_loss_no_rollback_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(outages.Outage, "cut", lambda self, at: None)
    verdict, lost, rollbacks = outages.cut_file(tmp_path, random.Random(0))
    assert str(verdict) == CLEAN
    assert (lost, rollbacks) == (0, 0)


def test_outputs_apart_from_their_commit_are_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(work, "cep_run", work.outputs_apart)
    verdicts = []
    for seed in range(2):
        folder = tmp_path / str(seed)
        folder.mkdir()
        verdicts.append(outages.cut_file(folder, random.Random(seed))[0])
    assert not all(verdict.clean for verdict in verdicts)
