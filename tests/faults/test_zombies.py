"""A process that was stopped wakes up when another one runs its pipeline."""

import json

import pytest

from cep.bus.keys import meta_key
from tests.faults import work, zombies

pytestmark = [pytest.mark.redis, pytest.mark.slow]

ENTRIES = 1_500
ROUNDS = 4


def test_the_loser_ends_with_3_naming_the_winner_and_nothing_is_twice(trial):
    codes, winner = zombies.duel(trial, ROUNDS, seconds=0.3)
    assert codes == [3] * ROUNDS
    lines = trial.log.read_text().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == ROUNDS
    pid = json.loads(trial.client.hget(meta_key(trial.name), "holder"))["pid"]
    assert pid == winner.pid
    assert f"pid {winner.pid}" in errors[-1]
    assert str(trial.finish(lambda: winner)) == "0 lost, 0 duplicated, 0 phantom"


def test_a_commit_without_a_fence_is_noticed(trial):
    trial.target = work.outputs_unfenced
    codes, winner = zombies.duel(trial, 2, seconds=0.1)
    assert codes == [3, 3]
    assert trial.finish(lambda: winner).duplicated > 0


def test_without_takeover_the_second_is_refused(trial):
    first = trial.begin()
    trial.feed.let(50)
    trial.wait_for_commit(first, 0)
    second = trial.begin()
    second.join(60)
    assert second.exitcode == 3
    assert f"pid {first.pid}" in trial.log.read_text()
    assert str(trial.finish(lambda: first)) == "0 lost, 0 duplicated, 0 phantom"
