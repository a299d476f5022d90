"""What keeps `cep run` from a server is one line: cause, remedy, no password."""

import contextlib
import os
import shutil
import socket
import socketserver
import subprocess
import threading

import live
import pytest

from cep.bus.connection import connect_redis
from cep.bus.embedded import EmbeddedServer
from cep.cli import main

pytestmark = pytest.mark.redis

CANARY = "c4nary-0f-a-passw0rd"

MODULE = """
from cep import Pipeline, e, emit, on, rule, stream

@rule("every")
def every():
    return on("market.trade"), emit(price=e.price)

pipeline = Pipeline("p", [every], [stream("market.events", idle=None)])
"""


@pytest.fixture
def ends(tmp_path, capfd, caplog):
    """Run the pipeline at a URL; return exit code and its one line."""
    module = tmp_path / "rules.py"
    module.write_text(MODULE)

    def run(url, *options):
        capfd.readouterr()
        code = main(["run", str(module), "--redis", url, "--quiet", *options])
        shown = capfd.readouterr()
        assert CANARY not in shown.out + shown.err + caplog.text
        errors = [x for x in shown.err.splitlines() if x.startswith("error: ")]
        return code, errors[0] if errors else shown.out

    return run


def with_login(url, login):
    return url.replace("://", f"://{login}@")


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    """A server with a password."""
    folder = tmp_path_factory.mktemp("locked")
    with EmbeddedServer(folder, password=CANARY) as server:
        yield server


def test_with_the_right_password_it_runs(locked, ends):
    assert ends(locked.url, "--drain")[0] == 0


def test_a_wrong_password(locked, ends):
    code, line = ends(locked.url.replace(CANARY, CANARY + "x"))
    assert code == 6
    assert "Check the user and password in the URL" in line


def test_no_password(locked, ends):
    code, line = ends(locked.url.replace(f":{CANARY}@", ""))
    assert code == 6
    assert "Put the user and password into the URL" in line


def test_a_password_where_there_is_none(redis_url, ends):
    code, line = ends(with_login(redis_url, f":{CANARY}"))
    assert code == 6
    assert "has no password" in line
    assert "Take the password out of the URL" in line


def test_a_key_that_is_no_stream_is_named(redis, redis_url, ends):
    redis.set("market.events", "hello")
    code, line = ends(redis_url)
    assert code == 2
    assert "'market.events' is not a stream" in line


@pytest.mark.parametrize("lacking", ["xread", "evalsha", "hgetall"])
def test_a_missing_right(lacking, redis, redis_url, ends):
    redis.acl_setuser(
        "weak",
        enabled=True,
        passwords=[f"+{CANARY}"],
        keys=["*"],
        commands=["+@all", f"-{lacking}"],
    )
    live.write(redis, [(live.MARKET, f"{live.START_MS}-0", live.trade(0, 0))])
    code, line = ends(with_login(redis_url, f"weak:{CANARY}"))
    redis.acl_deluser("weak")
    assert code == 6
    assert "Give this user the right to that command and key (ACL SETUSER)" in line
    assert lacking in line.lower() or "script" in line.lower()


def test_a_full_server(redis, redis_url, ends):
    redis.config_set("maxmemory", 1)
    try:
        code, line = ends(redis_url)
    finally:
        redis.config_set("maxmemory", 0)
    assert code == 1
    assert "The server is full; raise its maxmemory or trim streams." in line


def test_a_replica(redis, redis_url, ends):
    redis.replicaof("127.0.0.1", 1)
    try:
        code, line = ends(redis_url)
    finally:
        redis.replicaof("NO", "ONE")
    assert code == 1
    assert "connect to its primary" in line or "connect to the primary" in line


REPLIES = {
    b"-LOADING Redis is loading the dataset in memory": "reading its data from disk",
    b"-MISCONF Redis is configured to save RDB snapshots": "cannot write to its disk",
    b"-MOVED 3999 127.0.0.1:6381": "This is a node of a cluster",
    b"-BUSY Redis is busy running a script.": "wait for it or use SCRIPT KILL",
    b"-MASTERDOWN Link with MASTER is down": "This is a replica without its primary",
    b"-READONLY You can't write against a read only replica.": "connect to its prim",
    b"-ERR max number of clients reached": "max number of clients reached",
}


@pytest.mark.parametrize("reply", REPLIES, ids=lambda reply: reply.split()[0].decode())
def test_a_server_that_refuses_everything(reply, ends):
    class Refuses(socketserver.BaseRequestHandler):
        def handle(self):
            # The client may be gone before it has heard all; what the server
            # would say of that is not what is looked at.
            with contextlib.suppress(ConnectionError):
                while self.request.recv(65536):
                    self.request.sendall(reply + b"\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Refuses) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        code, line = ends(f"redis://:{CANARY}@127.0.0.1:{server.server_address[1]}")
        server.shutdown()
    assert code in (1, 2)
    assert REPLIES[reply] in line


def test_nobody_there(ends):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    code, line = ends(f"redis://:{CANARY}@127.0.0.1:{port}")
    assert code == 1
    assert "Start a server there" in line


# TLS --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """A redis-server with TLS: its port and the folder of its certificates."""
    binary = shutil.which("redis-server")
    if (binary is None or shutil.which("openssl") is None) and not os.environ.get("CI"):
        pytest.skip("needs a server with TLS (apt-get install redis-server openssl)")
    folder = tmp_path_factory.mktemp("tls")
    for name in ("server", "other"):
        command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2"
        command += " -subj /CN=localhost -addext subjectAltName=DNS:localhost"
        command += f" -keyout {name}.key -out {name}.pem"
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = f"{binary} --port 0 --tls-port {port} --tls-cert-file server.pem"
    command += " --tls-key-file server.key --tls-ca-cert-file server.pem"
    command += f" --tls-auth-clients no --save --bind 127.0.0.1 --requirepass {CANARY}"
    with subprocess.Popen(
        command.split(), cwd=folder, stdout=subprocess.DEVNULL
    ) as process:
        url = f"rediss://:{CANARY}@localhost:{port}/0?ssl_ca_certs={folder}/server.pem"

        def answers():
            with connect_redis(url) as client:
                try:
                    return client.ping()
                except ConnectionError:
                    return False
                except Exception:
                    assert process.poll() is None
                    return False

        live.wait_until(answers, 30)
        yield url
        process.kill()


def test_over_tls_it_runs(tls, ends):
    assert ends(tls, "--drain")[0] == 0


def test_a_certificate_of_another_authority(tls, ends):
    code, line = ends(tls.replace("server.pem", "other.pem"))
    assert code == 6
    assert "Check the certificate; name its authority with CEP_REDIS_CA_CERTS" in line


def test_plain_against_tls(tls, ends):
    code, line = ends(tls.replace("rediss://", "redis://").partition("?")[0])
    assert code == 6
    assert "the server wants TLS. Begin the URL with rediss://." in line


def test_tls_against_plain(redis_url, ends):
    code, line = ends(redis_url.replace("redis://", f"rediss://:{CANARY}@"))
    assert code == 6
    assert "the server speaks no TLS. Begin the URL with redis://." in line


def test_the_help_says_the_exit_codes(capsys):
    assert main(["run", "--help"]) == 0
    shown = capsys.readouterr().out
    for code in range(7):
        assert f"      {code}  " in shown or f"    {code}  " in shown
