"""A pipeline's place in Redis: owner, positions, state, and the commit.

Fields of ``cep:{name}:meta``:

=============  ===============================================================
``owner``      ULID of the process that may commit, taken when it starts
``holder``     JSON: which process that is (`cep.pipeline.owner`)
``since``      when it took the pipeline, milliseconds of the server's clock
``alive``      its last heartbeat, likewise; 0 once it has ended
``seq``        number of the last commit
``committed``  when that was, likewise
``rules``      JSON: rule name to structural hash
``positions``  JSON: stream to the last entry id read
``ordering``   JSON: the clocks (`cep.engine.ordering`)
``held``       JSON: stream to the entries read and not released, as runs of ids
               (`cep.pipeline.held`) in base 64
``absent``     JSON: stream that the pipeline no longer reads to its place
``counts``     JSON: stream to counts (`cep.pipeline.accounting`)
``outputs``    JSON: rule to numbers of matches, outputs, suppressed ones
``marks``      JSON: stream to its last look (`cep.pipeline.gaps.Mark`)
``attempts``   JSON: deaths without a commit (`cep.pipeline.poison.Attempts`)
``trimmed``    how many dead letters had to go for newer ones
``ticks``      last tick that time has passed
``resume:R``   when someone asked that rule R, which had stopped, go on
               (`cep.pipeline.resuming`)
``resumed``    JSON: rule to the last such request that was followed
``ended``      "1" once the input was declared to have ended
=============  ===============================================================
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import groupby
from typing import TYPE_CHECKING, Any

import msgspec
import redis as redis_py

from cep.bus.connection import clear_errors
from cep.bus.keys import dlq_key, meta_key, state_key, ticks_key
from cep.bus.link import Words, answer_to
from cep.errors import FencedError, StateVersionError, UsageError
from cep.pipeline import limits
from cep.pipeline.gaps import Mark
from cep.pipeline.owner import Ownership
from cep.pipeline.poison import Attempts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cep.pipeline.blocks import Block, Shape


class Absent(msgspec.Struct):
    """The place in a stream that is not read now, for when it comes back."""

    position: str
    counts: dict[str, int]
    held: bytes
    mark: Mark | None


# The parts of `Stored` that are JSON.
_KINDS: dict[str, Any] = {
    "rules": dict[str, str],
    "positions": dict[str, str],
    "ordering": dict[str, Any],
    "buffered": dict[str, list[str]],  # how ids were listed before `held`
    "held": dict[str, bytes],
    "absent": dict[str, Absent],
    "counts": dict[str, dict[str, int]],
    "outputs": dict[str, dict[str, int]],
    "marks": dict[str, Mark],
    "resumed": dict[str, str],
}

_PUT_ATTEMPTS = """
if redis.call('HGET', KEYS[1], 'owner') == ARGV[1] then
  redis.call('HSET', KEYS[1], 'attempts', ARGV[2])
end
"""


@dataclass(slots=True)
class Stored:
    """What a pipeline finds of itself when it starts; empty the first time."""

    seq: int = 0
    rules: dict[str, str] = field(default_factory=dict)
    positions: dict[str, str] = field(default_factory=dict)
    ordering: dict[str, Any] = field(default_factory=dict)
    buffered: dict[str, list[str]] = field(default_factory=dict)
    held: dict[str, bytes] = field(default_factory=dict)
    absent: dict[str, Absent] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    outputs: dict[str, dict[str, int]] = field(default_factory=dict)
    marks: dict[str, Mark] = field(default_factory=dict)
    attempts: Attempts = field(default_factory=Attempts)
    resumed: dict[str, str] = field(default_factory=dict)
    ticks: str = "0-0"
    ended: bool = False
    state: dict[str, bytes] = field(default_factory=dict)


class Store:
    """Reads and commits one pipeline's state.

    Whoever took ownership last may commit; every earlier owner's next commit
    is refused with FencedError, whatever it still believes.
    """

    def __init__(
        self,
        client: redis_py.Redis,
        name: str,
        max_dead_letters: int | None = None,
    ) -> None:
        self.client, self.name = client, name
        self.meta, self.state = meta_key(name), state_key(name)
        self.dlq, self.ticks = dlq_key(name), ticks_key(name)
        self._ownership = Ownership(client, name, self.meta)
        self.owner = self._ownership.token
        self.seq = 0
        self.trimmed = 0  # dead letters ever, at the last commit
        self._most_letters = max_dead_letters or 0
        self._beaten = 0.0
        source = files("cep.pipeline").joinpath("commit.lua").read_text()
        self._script = client.register_script(source)
        self._put_attempts = client.register_script(_PUT_ATTEMPTS)

    def take_over(
        self,
        known: set[str] | None = None,
        *,
        force: bool = False,
        wait: Callable[[str], bool] | None = None,
    ) -> Stored:
        """Become the owner and return what is stored.

        Parameters and errors are those of `Ownership.take`.

        Raises
        ------
        UsageError
            If one of our keys is of another type.
        """
        with clear_errors(self.client):
            self._check_types()
        known = set() if known is None else known
        self._ownership.take(known, force=force, wait=wait)
        self._beaten = time.monotonic()
        with clear_errors(self.client):
            meta: Any = self.client.hgetall(self.meta)
            state = {
                name.decode(): value
                for name, value in self.client.hscan_iter(self.state, count=1000)
            }
        self.seq = self._decoded(meta, "seq", int, 0)
        self.trimmed = self._decoded(meta, "trimmed", int, 0)
        self._check_whole(state)
        stored = Stored(seq=self.seq, state=state)
        for name, kind in _KINDS.items():
            setattr(stored, name, self._decoded(meta, name, kind, {}))
        stored.attempts = self._decoded(meta, "attempts", Attempts, Attempts())
        stored.ticks = meta.get(b"ticks", b"0-0").decode()
        stored.ended = meta.get(b"ended") == b"1"
        return stored

    def _check_whole(self, state: dict[str, bytes]) -> None:
        """Refuse a place and a state that do not belong together."""
        found = state.pop("seq", b"").decode("ascii", "replace")
        if found == str(self.seq) or (not found and bool(state) == bool(self.seq)):
            return
        raise StateVersionError(
            f"pipeline {self.name!r}",
            f"that of commit {found or 'none'} beside a place of commit {self.seq}",
            "both of one commit",
            f"Restore {self.meta} and {self.state} from one backup, or delete both "
            "to start anew.",
        )

    @property
    def follows_death(self) -> bool:
        """Whether the owner before us had not ended in order."""
        return self._ownership.follows_death

    def put_attempts(self, attempts: Attempts) -> None:
        """Write what is known of deaths, if we are the owner."""
        value = msgspec.json.encode(attempts)
        with clear_errors(self.client):
            self._put_attempts(keys=[self.meta], args=[self.owner, value])

    def asked_to_resume(self, rules: Sequence[str]) -> dict[str, str]:
        """Return of those rules that someone asked to go on the last request."""
        with clear_errors(self.client):
            found: Any = self.client.hmget(self.meta, [f"resume:{r}" for r in rules])
        return {r: x.decode() for r, x in zip(rules, found, strict=True) if x}

    def beat(self) -> None:
        """Say that we are alive, if it is time; raise FencedError if we are fenced."""
        if time.monotonic() - self._beaten >= limits.HEARTBEAT_SECONDS:
            self._ownership.beat()
            self._beaten = time.monotonic()

    def leave(self, *, reachable: bool = True) -> None:
        """Give up ownership at the end; to the server, if it can be reached."""
        if reachable:
            self._ownership.release()
        else:
            self._ownership.forget()

    def _decoded(
        self, meta: Mapping[bytes, bytes], name: str, kind: Any, absent: Any
    ) -> Any:
        raw = meta.get(name.encode())
        if raw is None:
            return absent
        try:
            return msgspec.json.decode(raw, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            where = f"pipeline {self.name!r} (field {name} of {self.meta})"
            raise StateVersionError(where, f"damaged ({error})", str(kind)) from None

    def _check_types(self) -> None:
        kinds = {
            self.meta: b"hash",
            self.state: b"hash",
            self.ticks: b"stream",
            self.dlq: b"stream",
        }
        for key, kind in kinds.items():
            found: Any = self.client.type(key)
            if found not in (kind, b"none"):
                raise UsageError(
                    f"The key {key} is a {found.decode()}, not a {kind.decode()}.",
                    "Rename the pipeline, or remove the key.",
                )

    def commit(
        self,
        blocks: Sequence[Block],
        state: Mapping[str, bytes | None],
        meta: Mapping[str, Any],
    ) -> None:
        """Write outputs, dead letters, changed state and positions as one.

        Raises
        ------
        FencedError
            If another process has taken over. Nothing was written.
        ConnectionFailedError
            If the outcome is not known, or the server has lost commits: drop
            everything and start from what is stored.
        """
        places = {self.meta: 1, self.state: 2, self.dlq: 3}
        for block in blocks:
            places.setdefault(block.stream, len(places) + 1)
        parts = [Words.of([b"%d" % len(places), *map(str.encode, places)])]
        runs = [
            (stream, shape, list(some))
            for (stream, shape), some in groupby(blocks, key=_alike)
        ]
        parts.append(_words(self.owner, self.seq, self._most_letters, len(runs)))
        for stream, shape, some in runs:
            count = sum(block.entries for block in some)
            parts.append(_words(places[stream], shape.mask, count))
            parts.append(shape.constants)
            varying = shape.mask.count(b"v")
            parts += [Words(varying * one.entries, one.data) for one in some]
        present = [(name, value) for name, value in state.items() if value is not None]
        gone = [name for name, value in state.items() if value is None]
        parts.append(_words(len(present), *(word for pair in present for word in pair)))
        parts.append(_words(len(gone), *gone, len(meta)))
        for name, value in meta.items():
            text = value if isinstance(value, str) else msgspec.json.encode(value)
            parts.append(_words(name, text))
        with clear_errors(self.client):
            answer = self._evaluate(parts)
        verdict, found = answer[0].decode(), answer[1].decode()
        if verdict == "fenced" and found:
            raise self._ownership.refusal()
        if verdict == "fenced" or (verdict == "seq" and int(found) < self.seq):
            what = f"commit {found}, not {self.seq}," if found else "nothing"
            raise self._ownership.lost(what)
        if verdict == "seq":
            raise FencedError(self.name, f"commit {self.seq}", f"commit {found}")
        if verdict == "type":
            raise UsageError(
                f"The key {found} is of another type.", "Remove it, or rename ours."
            )
        self.seq, self.trimmed = int(found), int(answer[2])
        self._beaten = time.monotonic()

    def _evaluate(self, parts: list[Words]) -> Any:
        script = self._script
        call = Words.of([b"EVALSHA", script.sha.encode()])
        try:
            return answer_to(self.client, [call, *parts])
        except redis_py.exceptions.NoScriptError:
            self.client.script_load(script.script)
            return answer_to(self.client, [call, *parts])

    def show_lag(self, positions: Mapping[str, bytes], read: Mapping[str, int]) -> None:
        """Set a consumer group's position to ours, so that any tool shows our lag.

        For show only: a stream that is gone or a right that is lacking must not
        stop the pipeline, and a lost connection will be noticed by the next
        command. Of a stream that was trimmed the server cannot tell the lag,
        but that there is none.
        """
        for stream, position in positions.items():
            with contextlib.suppress(redis_py.RedisError):
                info: Any = self.client.xinfo_stream(stream)
                whole = info.get("entries-added") == info["length"]
                so_far = read[stream] if whole else None
                group = (stream, self.name, position)
                try:
                    self.client.xgroup_setid(*group, entries_read=so_far)
                except redis_py.ResponseError:
                    self.client.xgroup_create(*group, entries_read=so_far)

    def read_ticks(self, after: str) -> list[tuple[str, dict[bytes, bytes]]]:
        """Return the ticks after an entry id."""
        with clear_errors(self.client):
            found: Any = self.client.xrange(self.ticks, f"({after}", "+")
        return [(entry_id.decode(), fields) for entry_id, fields in found]

    def tick(self, kind: str = "idle") -> None:
        """Write a tick: time has come this far, or (``end``) the input has ended."""
        with clear_errors(self.client):
            self.client.xadd(self.ticks, {"kind": kind}, maxlen=1000, approximate=True)


def _alike(block: Block) -> tuple[str, Shape]:
    return block.stream, block.shape


def _words(*words: str | bytes | int) -> Words:
    return Words.of(
        [word if isinstance(word, bytes) else str(word).encode() for word in words]
    )
