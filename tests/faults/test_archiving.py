"""SIGKILL of `cep archive run` while entries come in; at full size by the command."""

import pytest

from tests.faults import archiving

pytestmark = [pytest.mark.redis, pytest.mark.slow]


def test_archive_and_tail_are_the_input_whenever_the_process_is_killed(
    redis_url, tmp_path
):
    found = archiving.kill(redis_url, tmp_path / "archive", 6_000, 3)
    assert found.problems == []
    assert found.kills == 3
    assert found.archived == 6_000
    assert found.pruned > 0
