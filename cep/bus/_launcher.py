"""Starts a server that cannot outlive the process that asked for it.

Run by path in a bare interpreter (``python -I -S _launcher.py MODE ARGS``), so
nothing runs between fork and exec in the caller and threads there do no harm.

``exec PARENT_PID COMMAND...``
    Linux. Ask the kernel for SIGTERM when the parent goes, then become the
    server: same pid, no process in between. The request survives ``exec`` and
    is tied to the parent *thread* that forked us, see `EmbeddedServer`.
``watch PIPE_FD COMMAND...``
    Elsewhere. Stay, run the server as a child, end it when the other end of
    the pipe closes, which the kernel does for a parent that is killed.
``plain COMMAND...``
    No tie at all: a server that is meant to stay.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

PR_SET_PDEATHSIG = 1
CANNOT_EXECUTE = 127


def become(command: list[str]) -> int:
    try:
        os.execv(command[0], command)
    except OSError as error:
        sys.stderr.write(f"cannot execute {command[0]}: {error}\n")
    return CANNOT_EXECUTE


def tied_by_kernel(parent: int, command: list[str]) -> int:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        sys.stderr.write(f"prctl: {os.strerror(ctypes.get_errno())}\n")
        return 1
    # The parent may have died before the request was made.
    if os.getppid() != parent:
        return 1
    return become(command)


def tied_by_pipe(pipe: int, command: list[str]) -> int:
    try:
        # close_fds=False: the folder's lock must live as long as the server.
        server = subprocess.Popen(command, close_fds=False)
    except OSError as error:
        sys.stderr.write(f"cannot execute {command[0]}: {error}\n")
        return CANNOT_EXECUTE

    def end(_signal: int = 0, _frame: object = None) -> None:
        if server.poll() is None:
            server.terminate()

    def watch() -> None:
        while os.read(pipe, 1):
            pass
        end()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()
    return server.wait()


def main(arguments: list[str]) -> int:
    mode, rest = arguments[0], arguments[1:]
    if mode == "exec":
        return tied_by_kernel(int(rest[0]), rest[1:])
    if mode == "watch":
        return tied_by_pipe(int(rest[0]), rest[1:])
    return become(rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
