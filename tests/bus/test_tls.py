"""The embedded server has no TLS: a proxy in front of it speaks it."""

import contextlib
import os
import select
import shutil
import socket
import ssl
import subprocess
import threading

import numpy as np
import pytest

from cep.bus.connection import clear_errors, connect_redis
from cep.bus.publisher import Publisher
from cep.bus.reader import ColumnarReader
from cep.errors import ConnectionFailedError

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None and not os.environ.get("CI"),
    reason="needs openssl to make a certificate (apt-get install openssl)",
)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    command += " -addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem"
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return folder


def pump(tls, plain):
    with contextlib.suppress(OSError), tls, plain:
        while True:
            ready = [tls] if tls.pending() else select.select([tls, plain], [], [])[0]
            for one in ready:
                data = one.recv(65536)
                if not data:
                    return
                (plain if one is tls else tls).sendall(data)


@pytest.fixture
def tls_url(certificate, redis_url):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    port = int(redis_url.rpartition(":")[2].partition("/")[0])
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        with contextlib.suppress(OSError):
            while True:
                link, _ = listener.accept()
                with contextlib.suppress(OSError):
                    tls = context.wrap_socket(link, server_side=True)
                    plain = socket.create_connection(("127.0.0.1", port))
                    threading.Thread(target=pump, args=(tls, plain)).start()

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"rediss://localhost:{listener.getsockname()[1]}/0"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_events_travel_over_tls(tls_url, certificate, monkeypatch):
    monkeypatch.setenv("CEP_REDIS_CA_CERTS", str(certificate / "cert.pem"))
    n = 5000
    with connect_redis(tls_url) as client:
        Publisher(client).publish_columns(
            "market.events",
            "market.trade",
            {"symbol": ["a"] * n, "price": np.arange(n), "quantity": np.ones(n)},
            event_time=np.full(n, 1_700_000_000_000),
        )
        seen = []
        with ColumnarReader(client, ["market.events"]) as reader:
            while not reader.exhausted["market.events"]:
                for page in reader.read(block_ms=50):
                    seen += page.columns.fields["price"].values.tolist()
            assert reader.read(block_ms=50) == []
    assert seen == list(range(n))


def test_certificate_of_an_unknown_authority_is_told_with_the_remedy(tls_url):
    with connect_redis(tls_url) as client:
        with pytest.raises(ConnectionFailedError, match="CEP_REDIS_CA_CERTS"):
            ColumnarReader(client, ["market.events"]).read()
        told = pytest.raises(ConnectionFailedError, match="certificate")
        with told, clear_errors(client):
            client.ping()
