"""SIGKILL at random moments while events come in."""

import pytest

from cep.ops.crash_test import CrashTestError, crash_test
from tests.faults import work

pytestmark = [pytest.mark.redis, pytest.mark.slow]

KILLS = 25


def killed(kills, target=work.cep_run, each=200):
    entries = work.entries((kills + 1) * each)
    return crash_test(work.MODULE, entries, kills, target=target)


def test_nothing_is_lost_or_twice_after_kills_while_events_come_in():
    result = killed(KILLS)
    assert str(result.verdict) == "0 lost, 0 duplicated, 0 phantom"
    assert len(result.kills) == KILLS
    assert all(kill.exit_code == -9 for kill in result.kills)
    assert all(kill.seq_after > kill.seq_before for kill in result.kills)
    assert result.passed
    reasons = {letter[:2] for letter in result.expected.letters}
    assert {kind for kind, _ in reasons} == {"late", "quarantine"}
    assert result.expected.outputs.total() > 1000


def test_without_a_kill_two_runs_are_the_same():
    result = killed(0, each=2000)
    assert result.kills == []
    assert result.passed


@pytest.mark.parametrize("planted", [work.outputs_apart, work.state_forgotten])
def test_the_comparison_notices_a_planted_bug(planted):
    result = killed(5, planted, each=200)
    assert all(kill.proved for kill in result.kills)
    assert not result.verdict.clean


def test_a_pipeline_that_ends_by_itself_is_told_with_its_last_words():
    with pytest.raises(CrashTestError, match=r"code 1\. It said: no such planet"):
        killed(1, ends_by_itself)


def ends_by_itself(module, url):
    print("no such planet")
    return 1


def test_more_kills_than_entries_are_refused():
    with pytest.raises(CrashTestError, match="10 entries are too few for 10 kills"):
        crash_test(work.MODULE, work.entries(10), 10)
