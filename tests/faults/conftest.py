import pytest

from cep.bus.connection import connect_redis


@pytest.fixture
def server_address(server):
    """Address of an empty server, without the number of a database."""
    with connect_redis(server.url) as client:
        client.flushall()
    return server.url.rpartition("/")[0]
