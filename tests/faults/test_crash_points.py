"""A process that dies at a certain place, three times in a row at each."""

import zlib

import pytest

from cep.ops.crash_test import Trial
from tests.faults import crash_points, work

pytestmark = [pytest.mark.redis, pytest.mark.slow]

TIMES = 3


@pytest.fixture
def trial(server_address, tmp_path, request):
    name = request.node.callspec.params["name"]
    module = work.TICKING if crash_points.POINTS[name].idle else work.MODULE
    log = tmp_path / "pipeline.log"
    entries = work.entries(600, seed=zlib.crc32(name.encode()))
    with Trial(
        server_address, module, entries, log, target=work.cep_run, at_once=5
    ) as one:
        yield one


@pytest.mark.parametrize("name", crash_points.POINTS)
def test_dying_there_changes_nothing(name, trial):
    seed = zlib.crc32(name.encode())
    assert crash_points.crash(trial, name, TIMES, seed) == [-9] * TIMES
    assert str(trial.finish()) == "0 lost, 0 duplicated, 0 phantom"
    assert trial.expected.outputs.total() > 100


@pytest.mark.parametrize("name", ["before the reply to a commit"])
def test_a_commit_in_two_parts_is_noticed(name, trial):
    planted = crash_points.run_to_in_two
    assert crash_points.crash(trial, name, TIMES, 0, planted) == [-9] * TIMES
    assert trial.finish().duplicated > 0
