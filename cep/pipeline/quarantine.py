"""The rows of what a pipeline has given up on: reading them, trying again, removing.

Rows are the entries of ``dlq:{name}`` (`cep.pipeline.entries` says what they hold).
What is in them came from outside: show it by `printable` only.

Trying again publishes the event anew on its stream, where the pipeline takes it for
a new arrival. That is written together with a mark in ``cep:{name}:retried`` (row
id to new entry id), in one script, so that a row is published once however often and
by how many it is retried.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from cep.bus.connection import clear_errors
from cep.bus.keys import dlq_key, meta_key, retried_key
from cep.engine.ordering import NS_PER_MS
from cep.errors import UsageError, WireError, near_miss
from cep.events.codec import FIELDS, decode_row
from cep.events.timestamps import format_timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import redis

PAGE = 500
_PUBLISH = """
local done = redis.call('HGET', KEYS[1], ARGV[1])
if done then return {'done', done} end
local id = redis.call('XADD', KEYS[2], '*', unpack(ARGV, 2))
redis.call('HSET', KEYS[1], ARGV[1], id)
return {'ok', id}
"""
_NEVER = {
    "duplicate": "the event it is a copy of was processed",
    "gap": "the entries were lost; nothing is left of them",
    "rollback": "it tells of lost commits, not of an event",
    "rule": "all other rules have processed the event; published again it would be "
    "a duplicate, or late",
    "output": "it is an output that its type's model refuses: mend the rule's emit",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One row; `cep.pipeline.entries` says what its fields hold.

    ``id`` is the row's own entry id, ``time_ms`` when it was written.
    """

    id: str
    kind: str
    reason: str
    stream: str
    entry_id: str
    rule: str
    detail: str
    raw: bytes
    raw_length: int
    sha256: str
    missing: int

    @property
    def time_ms(self) -> int:
        """When the row was written, ms since 1970."""
        return int(self.id.partition("-")[0])

    @property
    def is_whole(self) -> bool:
        """Whether ``raw`` is all of the entry, and there is any."""
        return 0 < self.raw_length == len(self.raw)

    @classmethod
    def of(cls, row_id: bytes, fields: dict[bytes, bytes]) -> Row:
        """Return the row of an entry, whatever it holds."""

        def text(name: bytes) -> str:
            return fields.get(name, b"").decode("utf-8", "backslashreplace")

        def number(name: bytes) -> int:
            value = fields.get(name, b"0")[:18]
            return int(value) if value.isdigit() else 0

        return cls(
            id=row_id.decode(),
            kind=text(b"kind"),
            reason=text(b"reason"),
            stream=text(b"stream"),
            entry_id=text(b"entry_id"),
            rule=text(b"rule"),
            detail=text(b"detail"),
            raw=fields.get(b"raw", b""),
            raw_length=number(b"raw_length"),
            sha256=text(b"sha256"),
            missing=number(b"missing"),
        )


@dataclass(frozen=True, slots=True)
class Which:
    """Which rows are meant; None: any. Times in ms since 1970, the end excluded."""

    kind: str | None = None
    reason: str | None = None
    stream: str | None = None
    rule: str | None = None
    before_ms: int | None = None

    def takes(self, row: Row) -> bool:
        """Whether a row is meant."""
        names = ("kind", "reason", "stream", "rule")
        if any(getattr(self, n) not in (None, getattr(row, n)) for n in names):
            return False
        return self.before_ms is None or row.time_ms < self.before_ms


@dataclass(frozen=True, slots=True)
class Retried:
    """What became of trying a row again: the new entry, or why there is none."""

    row: Row
    entry_id: str | None
    problem: str = ""


class Quarantine:
    """The rows of one pipeline.

    Raises
    ------
    UsageError
        From all methods, if nothing is known of a pipeline of that name.
    """

    def __init__(self, client: redis.Redis, name: str) -> None:
        self.client, self.name = client, name
        self.key, self.marks = dlq_key(name), retried_key(name)
        self._publish = client.register_script(_PUBLISH)
        with clear_errors(client):
            if not client.exists(self.key, meta_key(name)):
                raise unknown_pipeline(client, name)
            kind: Any = client.type(self.key)
        if kind not in (b"stream", b"none"):
            raise UsageError(
                f"The key {self.key} is a {kind.decode()}, not a stream.",
                "Rename the pipeline, or remove the key.",
            )

    def rows(self, which: Which | None = None) -> Iterator[Row]:
        """Yield rows, oldest first."""
        which = which or Which()
        start = "-"
        while True:
            with clear_errors(self.client):
                found: Any = self.client.xrange(self.key, start, "+", count=PAGE)
            for row_id, fields in found:
                row = Row.of(row_id, fields)
                if which.takes(row):
                    yield row
            if len(found) < PAGE:
                return
            start = f"({found[-1][0].decode()}"

    def trimmed(self) -> int:
        """Return how many rows had to go for newer ones, at the pipeline's limit."""
        with clear_errors(self.client):
            found: Any = self.client.hget(meta_key(self.name), "trimmed")
        return int(found or 0)

    def row(self, row_id: str) -> Row:
        """Return one row by its id.

        Raises
        ------
        UsageError
            If there is none.
        """
        found: Any = []
        if _is_id(row_id):
            with clear_errors(self.client):
                found = self.client.xrange(self.key, row_id, row_id)
        if not found:
            raise UsageError(
                f"Pipeline {self.name!r} has no row {row_id[:40]!r}.",
                "`cep quarantine list` shows the rows and their ids.",
            )
        return Row.of(*found[0])

    def retry(self, rows: Iterable[Row], *, now: bool = False) -> Iterator[Retried]:
        """Publish the events of rows again, once each.

        Parameters
        ----------
        now
            With the present as their event time, and not their own, with which
            all but the latest would be late.
        """
        for row in rows:
            yield self._retry(row, now=now)

    def _retry(self, row: Row, *, now: bool) -> Retried:
        if row.kind in _NEVER or row.kind not in ("quarantine", "late"):
            why = _NEVER.get(row.kind, f"rows of kind {row.kind} hold no event")
            return Retried(row, None, why)
        with clear_errors(self.client):
            done: Any = self.client.hget(self.marks, row.id)
        if done is not None:
            return Retried(row, None, f"was published already, as {done.decode()}")
        fields, problem = self._fields(row)
        if problem:
            return Retried(row, None, problem)
        if now:
            fields = self._dated_now(fields)
        try:
            event = decode_row(fields, row.stream)
        except WireError as error:
            why = f"it is still no event of ours ({error.reason}: {error.detail})"
            return Retried(row, None, why)
        if event.time_ms * NS_PER_MS < self._watermark(row.stream):
            why = (
                f"its event time {format_timestamp(event.time_ms)} is below the "
                "stream's watermark: it would be late; --now gives it the present"
            )
            return Retried(row, None, why)
        words = [word for pair in fields for word in pair]
        with clear_errors(self.client):
            answer: Any = self._publish(
                keys=[self.marks, row.stream], args=[row.id, *words]
            )
        if answer[0] == b"done":
            why = f"was published already, as {answer[1].decode()}"
            return Retried(row, None, why)
        return Retried(row, answer[1].decode())

    def _fields(self, row: Row) -> tuple[list[tuple[bytes, bytes]], str]:
        """Return the fields of the entry, or why they cannot be had."""
        found: Any = []
        if _is_id(row.entry_id):
            with clear_errors(self.client):
                found = self.client.xrange(row.stream, row.entry_id, row.entry_id)
        if found:
            fields = list(found[0][1].items())
            if hashlib.sha256(raw_of(fields)).hexdigest() == row.sha256:
                return fields, ""
        if not row.is_whole:
            return [], (
                f"the entry is gone from {row.stream}, and only {len(row.raw):,} of "
                f"its {row.raw_length:,} bytes are kept"
            )
        fields = fields_of(row.raw)
        if not fields:
            return [], "the entry is gone, and its bytes are not nine fields of ours"
        return fields, ""

    def _dated_now(
        self, fields: Sequence[tuple[bytes, bytes]]
    ) -> list[tuple[bytes, bytes]]:
        with clear_errors(self.client):
            seconds, micros = self.client.time()
        stamp = format_timestamp(seconds * 1000 + micros // 1000).encode()
        return [(n, stamp if n == b"timestamp" else value) for n, value in fields]

    def _watermark(self, stream: str) -> int:
        """Return below which event time an event of the stream is late, in ns."""
        with clear_errors(self.client):
            raw: Any = self.client.hget(meta_key(self.name), "ordering")
        try:
            state = msgspec.json.decode(raw or b"{}")
            clock = state["clocks"][stream]
            return max(int(clock[1]), int(state["released_ns"]))
        except (msgspec.MsgspecError, LookupError, TypeError, ValueError):
            return 0

    def purge(self, rows: Iterable[Row]) -> int:
        """Remove rows for good; return how many."""
        removed, some = 0, []
        for row in rows:
            some.append(row.id)
            if len(some) == PAGE:
                removed += self._remove(some)
                some = []
        return removed + (self._remove(some) if some else 0)

    def _remove(self, ids: list[str]) -> int:
        with clear_errors(self.client):
            removed: Any = self.client.xdel(self.key, *ids)
            self.client.hdel(self.marks, *ids)
        return int(removed)


def raw_of(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return an entry's fields as rows keep them."""
    return b"\n".join(name + b"=" + value for name, value in fields)


def fields_of(raw: bytes) -> list[tuple[bytes, bytes]]:
    r"""Return the fields of an entry kept whole; none unless that is beyond doubt.

    A value may hold line ends, and then what looks like a field: only the nine
    names, each once and at the beginning of a line, are taken.

    >>> fields_of(b"id=1\nstream=s") == []
    True
    """
    names = {name.encode() for name in FIELDS}
    fields: list[tuple[bytes, bytes]] = []
    for line in raw.split(b"\n"):
        name, equals, value = line.partition(b"=")
        if equals and name in names:
            fields.append((name, value))
        elif fields:
            fields[-1] = fields[-1][0], fields[-1][1] + b"\n" + line
        else:
            return []
    whole = sorted(name for name, _ in fields) == sorted(names)
    # A line that is no field may have been one of another name.
    return fields if whole and raw.count(b"\n") == len(fields) - 1 else []


def printable(value: bytes | str) -> str:
    r"""Return foreign text with nothing in it that a terminal would act on.

    >>> printable(b"a\x1b[2J\xff \xc3\xa9")
    'a\\x1b[2J\\xff é'
    """
    text = (
        value if isinstance(value, str) else value.decode("utf-8", "backslashreplace")
    )
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )


def _is_id(text: str) -> bool:
    ms, _, seq = text.partition("-")
    return ms.isascii() and ms.isdigit() and seq.isascii() and seq.isdigit()


def unknown_pipeline(client: redis.Redis, name: str) -> UsageError:
    """Return the error for a name of which nothing is stored."""
    prefix, suffix = dlq_key("x").split("x")
    known = [
        key.decode("utf-8", "replace").removeprefix(prefix).removesuffix(suffix)
        for key in client.scan_iter(match=f"{prefix}*{suffix}", count=1000)
    ]
    near = near_miss(name, known)
    hint = f"Did you mean {near[0]!r}?" if near else "Has it run on this server?"
    return UsageError(f"There is no pipeline {name!r} on this server.", hint)
