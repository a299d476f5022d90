"""What keeps a pipeline out is told in one line, with what to do, and no secret."""

import os
import shutil

import live
import pytest

from cep.bus.connection import connect_redis
from cep.bus.embedded import EmbeddedServer
from cep.cli import main
from cep.ops.crash_test import Trial, start
from tests.faults import servers, work

pytestmark = [pytest.mark.redis, pytest.mark.slow]

CANARY = "c4naryOfTheMine"
CLEAN = "0 lost, 0 duplicated, 0 phantom"


@pytest.fixture(scope="module")
def locked_server():
    with EmbeddedServer(password=CANARY) as one:
        yield one


@pytest.fixture
def redis(locked_server):
    with connect_redis(locked_server.url) as client:
        client.flushall()
        yield client


def at(server, login):
    return server.url.replace(f":{CANARY}@", login)


def said(log, url):
    """Run ``cep run`` to its end; return its exit code and the error it told."""
    process = start(log, work.cep_run, work.MODULE, url)
    process.join(60)
    assert process.exitcode is not None
    (line,) = log.read_text().splitlines()
    assert line.startswith("error: ")
    return process.exitcode, line


def told_by_doctor(url, capsys):
    main(["doctor", "--redis", url])
    shown = capsys.readouterr()
    return shown.out + shown.err


def test_the_right_password_lets_us_in(redis, locked_server, tmp_path):
    log = tmp_path / "log"
    live.declare_end(redis)
    process = start(log, work.cep_run, work.MODULE, locked_server.url)
    process.join(60)
    assert process.exitcode == 0
    assert "error" not in log.read_text()
    assert CANARY not in log.read_text()


@pytest.mark.parametrize(
    ("login", "cause", "remedy"),
    [
        ("", "Authentication required", "Put the user and password into the URL"),
        (f":{CANARY}2@", "invalid username-password", "Check the user and password"),
        (f"{CANARY}:{CANARY}@", "invalid username-pass", "Check the user and password"),
        (f"guest:{CANARY}3@", "no permissions", "Give this user the right"),
    ],
)
def test_who_is_not_let_in_is_told_why(
    login, cause, remedy, redis, locked_server, tmp_path, capsys
):
    redis.execute_command(
        "ACL", "SETUSER", "guest", "on", f">{CANARY}3", "~*", "+@all", "-@scripting"
    )
    code, line = said(tmp_path / "log", at(locked_server, login))
    assert code == 6
    assert cause in line
    assert remedy in line
    shown = line.replace(f"redis://{CANARY}:***@", "")  # a user's name is no secret
    assert CANARY not in shown
    told = told_by_doctor(at(locked_server, login), capsys)
    assert f":{CANARY}" not in told
    redis.execute_command("ACL", "DELUSER", "guest")


FULL = [("CONFIG", "SET", "maxmemory", "1")], [("CONFIG", "SET", "maxmemory", "0")]
REPLICA = [("REPLICAOF", "127.0.0.1", "1")], [("REPLICAOF", "NO", "ONE")]


@pytest.mark.parametrize(
    ("do", "undo", "remedy"),
    [(*FULL, "raise its maxmemory"), (*REPLICA, "connect to its primary")],
    ids=["full", "replica"],
)
def test_a_server_that_takes_no_writes_is_waited_for(
    do, undo, remedy, redis, locked_server, tmp_path
):
    """It says so in a line for each try, and goes on when it can."""
    log = tmp_path / "log"
    url = locked_server.url.rpartition("/")[0]
    with Trial(url, work.MODULE, work.entries(600), log, target=work.cep_run) as trial:
        process = trial.begin()
        trial.feed.let(100)
        live.wait_until(lambda: trial.feed.written == 100)
        trial.wait_for_commit(process, 0)
        seq = trial.seq
        for words in do:
            redis.execute_command(*words)
        live.wait_until(lambda: remedy in log.read_text(), 60)
        assert trial.seq == seq
        for words in undo:
            redis.execute_command(*words)
        assert str(trial.finish(lambda: process)) == CLEAN
    lines = log.read_text().splitlines()
    assert all("Starting from the last commit" in x for x in lines if "Cannot" in x)
    assert CANARY not in log.read_text()


# TLS --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """Debian's server, which speaks TLS; yields its port and two authorities."""
    tools = servers.debian_server() and shutil.which("openssl")
    if not tools and not os.environ.get("CI"):
        pytest.skip("needs Debian's server (apt-get install redis-server openssl)")
    folder = tmp_path_factory.mktemp("tls")
    ours = servers.certificates(folder / "ours", "ours")
    other = servers.certificates(folder / "other", "other")
    port = servers.free_port()
    words = [
        "port 0",
        f"tls-port {port}",
        f"tls-cert-file {ours / 'cert.pem'}",
        f"tls-key-file {ours / 'key.pem'}",
        f"tls-ca-cert-file {ours / 'ca.pem'}",
        "tls-auth-clients no",
        f"requirepass {CANARY}",
    ]
    server = servers.running(folder / "server", *words, binary=servers.debian_server())
    with server:
        servers.wait_for_port(port)
        yield port, ours / "ca.pem", other / "ca.pem"


def test_tls_with_the_right_authority_lets_us_in(tls, tmp_path):
    port, ours, _ = tls
    url = f"rediss://:{CANARY}@localhost:{port}/0?ssl_ca_certs={ours}"
    log = tmp_path / "log"
    with connect_redis(url) as client:
        live.declare_end(client)
    process = start(log, work.cep_run, work.MODULE, url)
    process.join(60)
    assert process.exitcode == 0
    assert CANARY not in log.read_text()


def test_tls_with_the_wrong_authority_is_told(tls, tmp_path, capsys):
    port, _, other = tls
    url = f"rediss://:{CANARY}@localhost:{port}/0?ssl_ca_certs={other}"
    code, line = said(tmp_path / "log", url)
    assert code == 6
    assert "certificate verify failed" in line
    assert "name its authority with CEP_REDIS_CA_CERTS" in line
    assert CANARY not in line + told_by_doctor(url, capsys)


def test_no_tls_against_a_server_that_wants_it_is_told(tls, tmp_path, capsys):
    url = f"redis://:{CANARY}@localhost:{tls[0]}/0"
    code, line = said(tmp_path / "log", url)
    assert code in {1, 6}
    assert "rediss://" in line
    assert CANARY not in line + told_by_doctor(url, capsys)


def test_tls_against_a_server_without_is_told(locked_server, tmp_path, capsys):
    url = locked_server.url.replace("redis://", "rediss://")
    code, line = said(tmp_path / "log", url)
    assert code in {1, 6}
    assert "redis://" in line.replace("rediss://", "")
    assert CANARY not in line + told_by_doctor(url, capsys)
