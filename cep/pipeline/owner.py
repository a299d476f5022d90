"""Who may run a pipeline: one owner, fenced by compare-and-set.

Nothing that is written depends on a clock: every commit names its owner, and
only the last one to have taken the pipeline is let through. The heartbeat here
only spares two processes from taking it from each other by mistake. A process
that starts is refused while the owner is alive, that is unless

* it has ended, and said so; or
* it was a process of this machine that is there no more, so that a supervisor
  can start the next one at once; or
* its heartbeat has not moved for `LEASE_SECONDS`, as of one that is stopped,
  cut off, or was killed on another machine.
"""

from __future__ import annotations

import contextlib
import os
import socket
import weakref
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cep.bus.connection import address_of, clear_errors
from cep.errors import (
    AlreadyRunningError,
    CepError,
    ConnectionFailedError,
    FencedError,
)
from cep.events.ids import MonotonicUlids
from cep.events.timestamps import format_timestamp
from cep.pipeline import limits

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

_FIELDS = ("owner", "holder", "since", "alive", "seq", "committed")


class Holder(msgspec.Struct, frozen=True):
    """A process: where it runs, and what tells it from a later one of its number.

    ``machine`` names the running system and its process numbers, "" if unknown;
    ``began`` is when the process began, in the system's own ticks.
    """

    host: str = "?"
    machine: str = ""
    pid: int = 0
    began: str = ""

    @classmethod
    def decoded(cls, raw: bytes | None) -> Holder:
        """Return what is stored; of what cannot be read nothing is known."""
        try:
            return msgspec.json.decode(raw or b"{}", type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return cls()

    def has_ended(self) -> bool:
        """Whether this was a process of our machine that is there no more."""
        here = this_process()
        if not self.machine or self.machine != here.machine:
            return False
        return _began(self.pid) != self.began


_HELD: weakref.WeakSet[Ownership] = weakref.WeakSet()  # by this process


@cache
def this_process() -> Holder:
    """Return the holder that this process is."""
    machine = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        machine = f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return Holder(socket.gethostname(), machine, os.getpid(), _began(os.getpid()))


os.register_at_fork(after_in_child=this_process.cache_clear)


def _began(pid: int) -> str:
    """Return when a process began, "" if it is there no more or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    state, *fields = stat.rpartition(")")[2].split()
    return "" if state in "ZX" else fields[18]


class Ownership:
    """Takes, keeps and gives back one pipeline; ``token`` is this owner's ULID."""

    def __init__(self, client: redis.Redis, name: str, key: str) -> None:
        self._client, self._name, self._key = client, name, key
        self.token = MonotonicUlids().next()
        self.follows_death = False  # of a process that had not ended in order
        source = files("cep.pipeline").joinpath("owner.lua").read_text()
        self._script = client.register_script(source)

    def take(
        self,
        known: set[str],
        *,
        force: bool = False,
        wait: Callable[[str], bool] | None = None,
    ) -> None:
        """Become the owner.

        Parameters
        ----------
        known
            Owners that we were, or whose place we took; empty when a process
            starts. Whom we find and ourselves are added.
        force
            Take the place of one who is alive, too.
        wait
            Called again and again, with who it is, while it is not known yet
            whether the owner of another machine is alive; it should sleep for
            a part of a second and return whether to go on. None: such a one is
            taken to be alive.

        Raises
        ------
        AlreadyRunningError
            If another process owns the pipeline and is alive, when we start.
        FencedError
            The same, when we were the owner before.
        """
        starting, first = not known, None
        while True:
            found = self._found()
            owner, alive = found["owner"], found["alive"]
            if not (force or owner in known or self._may_follow(found)):
                if first is None:
                    first = alive
                moved = alive != first
                sure = not starting or moved or self._is_near(found)
                if sure or wait is None or not wait(_described(found)):
                    raise self.refusal(found, started=starting)
                continue
            # First, as the reply to what follows may be lost.
            known |= {owner, self.token}
            holder = msgspec.json.encode(this_process())
            if self._call("take", self.token, holder, owner)[0] == b"ok":
                _HELD.add(self)
                self.follows_death = starting and _has_died(found, forced=force)
                return

    def beat(self) -> None:
        """Say that we are alive.

        Raises
        ------
        FencedError
            If another owner took the pipeline.
        ConnectionFailedError
            If it has none, so that the server has lost it.
        """
        verdict, owner, *_ = self._call("beat", self.token)
        if verdict != b"ok":
            raise self.refusal() if owner else self.lost("nothing")

    def lost(self, found: str) -> ConnectionFailedError:
        """Return the error for a server that has lost what it acknowledged."""
        return ConnectionFailedError(
            address_of(self._client),
            f"it holds {found} of pipeline {self._name!r}",
            "The server has lost what it had acknowledged; see its log.",
        )

    def release(self) -> None:
        """Say that we have ended, so that the next process may start at once.

        Where that fails the next one finds out by itself.
        """
        self.forget()
        with contextlib.suppress(CepError):
            self._call("release", self.token)

    def forget(self) -> None:
        """Let another owner in this process take our place."""
        _HELD.discard(self)

    def refusal(
        self, found: dict[str, str] | None = None, *, started: bool = False
    ) -> FencedError:
        """Return the error that names who owns the pipeline now."""
        found = self._found() if found is None else found
        kind = AlreadyRunningError if started else FencedError
        return kind(self._name, self.token, found["owner"], _described(found))

    def _may_follow(self, found: dict[str, str]) -> bool:
        """Whether nobody owns the pipeline, or one who is certainly gone."""
        if not found["owner"] or not int(found["alive"]):
            return True
        if abs(int(found["age"])) > 1000 * limits.LEASE_SECONDS:
            return True  # ahead of the server's clock: of a server before it
        holder = Holder.decoded(found["holder"].encode())
        if holder != this_process():
            return holder.has_ended()
        return all(one.token != found["owner"] for one in _HELD)

    def _is_near(self, found: dict[str, str]) -> bool:
        """Whether the owner is a process of our machine, known to be there."""
        holder = Holder.decoded(found["holder"].encode())
        return bool(holder.machine) and holder.machine == this_process().machine

    def _found(self) -> dict[str, str]:
        with clear_errors(self._client):
            pipe = self._client.pipeline(transaction=True)
            pipe.time()
            pipe.hmget(self._key, _FIELDS)
            (seconds, micros), values = pipe.execute()
        found = {
            name: (value or b"").decode("utf-8", "replace")
            for name, value in zip(_FIELDS, values, strict=True)
        }
        for name in ("since", "alive", "seq", "committed"):
            found[name] = found[name] if found[name].isdecimal() else "0"
        found["age"] = str(seconds * 1000 + micros // 1000 - int(found["alive"]))
        return found

    def _call(self, *words: str | bytes) -> list[bytes]:
        with clear_errors(self._client):
            answer: Any = self._script(keys=[self._key], args=words)
        return list(answer)


def _has_died(found: dict[str, str], *, forced: bool) -> bool:
    """Whether an owner whose place was taken had ended without saying so."""
    if not found["owner"] or not int(found["alive"]):
        return False
    return not forced or Holder.decoded(found["holder"].encode()).has_ended()


def _described(found: dict[str, str]) -> str:
    """Return who an owner is, since when, and its last commit."""
    holder = Holder.decoded(found["holder"].encode())
    text = f"host {holder.host}, pid {holder.pid}" if holder.pid else "process unknown"
    if since := int(found["since"]):
        text += f", since {format_timestamp(since)}"
    if committed := int(found["committed"]):
        text += f", last commit {found['seq']} at {format_timestamp(committed)}"
    else:
        text += ", no commit yet"
    return text
