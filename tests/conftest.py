"""A real server for every test that asks for one."""

import os

import pytest

from cep.bus.connection import connect_redis
from cep.bus.embedded import EmbeddedServer
from cep.errors import EmbeddedServerError


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """One server for the whole run; `redis_url` and `redis` empty it per test."""
    embedded = EmbeddedServer(tmp_path_factory.mktemp("server"))
    try:
        embedded.start()
    except EmbeddedServerError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    yield embedded
    embedded.stop()


@pytest.fixture
def redis_url(server):
    """Address of an empty server."""
    with connect_redis(server.url) as client:
        client.flushall()
    return server.url


@pytest.fixture
def redis(redis_url):
    """Client of an empty server: bytes, no retries."""
    with connect_redis(redis_url) as client:
        yield client
