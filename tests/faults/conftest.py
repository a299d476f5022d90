import pytest

from cep.bus.connection import connect_redis
from cep.ops.crash_test import Trial
from tests.faults import work


@pytest.fixture
def server_address(server):
    """Address of an empty server, without the number of a database."""
    with connect_redis(server.url) as client:
        client.flushall()
    return server.url.rpartition("/")[0]


@pytest.fixture
def trial(server_address, tmp_path, request):
    """A pipeline under faults, over as many entries as the module's ``ENTRIES``."""
    entries = work.entries(request.module.ENTRIES)
    log = tmp_path / "pipeline.log"
    with Trial(server_address, work.MODULE, entries, log, target=work.cep_run) as one:
        yield one
