"""A link that drops, delays, slices, resets or swallows what goes over it."""

import pytest

from cep.ops.crash_test import Trial
from tests.faults import work
from tests.faults.links import IMPATIENT, through_a_proxy

pytestmark = [pytest.mark.redis, pytest.mark.slow]

CLEAN = "0 lost, 0 duplicated, 0 phantom"


@pytest.fixture
def trial(server_address, tmp_path):
    log = tmp_path / "pipeline.log"
    entries = work.entries(1200, seed=3)
    with Trial(
        server_address, work.MODULE, entries, log, target=work.cep_run, at_once=10
    ) as one:
        yield one


def test_a_link_that_holds_changes_nothing(trial):
    with through_a_proxy(trial) as link:
        link.go_on()
        assert str(link.finish()) == CLEAN
    assert link.proxy.cuts == 0
    assert "Starting from the last commit" not in trial.log.read_text()


def test_replies_that_are_dropped_change_nothing(trial):
    with through_a_proxy(trial, IMPATIENT) as link:
        link.drop_replies(6)
        assert str(link.finish()) == CLEAN
    assert link.proxy.cuts == 6
    assert trial.log.read_text().count("Starting from the last commit") >= 6


def test_replies_that_come_too_late_change_nothing(trial):
    with through_a_proxy(trial, IMPATIENT) as link:
        link.delay_replies(4, seconds=1.2)
        assert str(link.finish()) == CLEAN
    assert link.proxy.cuts == 4


def test_replies_in_single_bytes_change_nothing(trial):
    with through_a_proxy(trial) as link:
        link.slice_replies(30)
        assert str(link.finish()) == CLEAN
    assert link.proxy.cuts > 30
    assert "Starting from the last commit" not in trial.log.read_text()


def test_links_that_are_reset_at_random_change_nothing(trial):
    with through_a_proxy(trial) as link:
        link.reset_at_random(5, seed=1)
        assert str(link.finish()) == CLEAN
    assert link.proxy.cuts >= 5


def test_a_link_that_goes_dark_changes_nothing_and_is_taken_up_again(trial):
    with through_a_proxy(trial) as link:
        link.go_dark(2, seconds=1.5)
        assert str(link.finish()) == CLEAN
    assert len(link.reconnects) == 2
    # The command measures them; here they only must not be out of bounds.
    assert max(link.reconnects) < 20
    assert max(link.idle_cpu) < 0.5


def test_outputs_that_are_sent_again_are_noticed(trial):
    with through_a_proxy(trial, IMPATIENT, work.outputs_sent_again) as link:
        link.drop_replies(6)
        assert link.finish().duplicated > 0
