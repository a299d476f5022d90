"""Replies full of entries, read from the socket and scanned as they come."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import numpy as np

from cep.bus.connection import error_of_reply
from cep.bus.kernels import reply as scan
from cep.bus.kernels.shape import new_shapes
from cep.bus.link import Link
from cep.bus.page import Entries
from cep.errors import ConnectionFailedError, UsageError
from cep.events.columns import RAW_KEPT

if TYPE_CHECKING:
    import redis
    from numpy.typing import NDArray

MAX_REPLY_BYTES: Final = 256 * 1024 * 1024
"""The most that is held of the replies to one request."""

_FIRST_BYTES: Final = 1 << 20
_KEPT_BYTES: Final = 1 << 24
_ROOM: Final = 1 << 16
_FIRST_ROWS: Final = 4096
_ENTRY_HEAD: Final = re.compile(rb"\*2\r\n\$(\d+)\r\n(\d+-\d+)\r\n\*\d+\r\n")
_BULK_HEAD: Final = re.compile(rb"\$(\d+)\r\n")


class ReplyTooLargeError(UsageError):
    """A reply exceeds `MAX_REPLY_BYTES`; the connection was closed.

    Attributes
    ----------
    stream
        Of XREAD, the key whose entries did not fit.
    entry_id, raw
        The entry that did not fit, ``b""`` if not even its id came, and the
        first bytes of its fields as in `BadRow`.
    """

    def __init__(
        self, limit: int, stream: str = "", entry_id: bytes = b"", raw: bytes = b""
    ) -> None:
        super().__init__(
            f"A reply of the server exceeds {limit} bytes.",
            "Read fewer entries at once: pass a smaller count.",
        )
        self.args = (limit, stream, entry_id, raw)
        self.limit, self.stream = limit, stream
        self.entry_id, self.raw = entry_id, raw


class Replies:
    """Sends requests for entries and scans the replies, one request at a time.

    The `Entries` returned lie in this object's memory and last until the next
    reply is read. After any error the connection is closed and the object can
    be used anew.
    """

    def __init__(self, client: redis.Redis, max_bytes: int | None = None) -> None:
        self._link = Link(client)
        self._max_bytes = MAX_REPLY_BYTES if max_bytes is None else max_bytes
        self._data = np.empty(_FIRST_BYTES, np.uint8)
        self._end = 0
        self._state = np.zeros(scan.STATE_SIZE, np.int64)
        self._streams = np.empty((16, 4), np.int64)
        self._entries = np.empty((_FIRST_ROWS, 5), np.int64)
        self._fields = np.empty((9 * _FIRST_ROWS, 4), np.int64)
        self._shapes = new_shapes()
        self.is_waiting = False
        """Whether a request was sent whose reply has not been read."""

    def send(self, request: bytes) -> None:
        """Send a request, of which the reply must be read before the next."""
        self._link.send(request)
        self.is_waiting = True

    def streams(self, seconds: float) -> list[tuple[str, Entries]]:
        """Read the reply to XREAD: key and entries of each stream that has some.

        ``seconds`` is how long the server may take on top of the client's
        timeout.
        """
        self._begin()
        self._read(scan.READ_REPLY, seconds)
        self._finish()
        return [
            (self._text(key, length), self._found(first, count))
            for key, length, first, count in self._streams[
                : self._state[scan.STREAMS]
            ].tolist()
        ]

    def ranges(self, count: int) -> Entries:
        """Read the replies to ``count`` XRANGE commands; return all entries."""
        self._begin()
        for _ in range(count):
            self._read(scan.RANGE_REPLY, 0.0)
        self._finish()
        return self._found(0, int(self._state[scan.ENTRIES]))

    def drop(self) -> None:
        """Close the connection, and with it any reply on its way."""
        self.is_waiting = False
        self._link.drop()

    def close(self) -> None:
        """Give the connection back to its pool, or close it if a reply is due."""
        if self.is_waiting:
            self.drop()
        self._link.give_back()

    def _begin(self) -> None:
        self._end = 0
        self._state[:] = 0
        if len(self._data) > _KEPT_BYTES:
            self._data = np.empty(_FIRST_BYTES, np.uint8)

    def _finish(self) -> None:
        if self._state[scan.POSITION] != self._end:
            self._fail("It sent more than one reply.")
        self.is_waiting = False

    def _found(self, first: int, count: int) -> Entries:
        return Entries(self._data, self._entries[first : first + count], self._fields)

    def _text(self, offset: int, length: int) -> str:
        return self._data[offset : offset + length].tobytes().decode()

    def _read(self, phase: int, seconds: float) -> None:
        state = self._state
        state[scan.PHASE] = phase
        while True:
            status = scan.scan_reply(
                self._data,
                self._end,
                state,
                self._streams,
                self._entries,
                self._fields,
                *self._shapes,
            )
            if status == scan.DONE:
                return
            if status == scan.MORE:
                self._receive(seconds)
            elif status == scan.FULL:
                self._enlarge_tables()
            elif status == scan.ERROR_REPLY:
                self._raise_error_reply()
            else:
                self._fail("It sent what is no RESP2 reply to XREAD or XRANGE.")

    def _receive(self, seconds: float) -> None:
        if self._end >= self._max_bytes:
            self._raise_too_large()
        if len(self._data) - self._end < _ROOM:
            larger = np.empty(2 * len(self._data), np.uint8)
            larger[: self._end] = self._data[: self._end]
            self._data = larger
        try:
            room = memoryview(self._data.data)[self._end :]
            self._end += self._link.receive_into(room, seconds)
        except BaseException:
            self.is_waiting = False
            raise

    def _enlarge_tables(self) -> None:
        state = self._state
        if state[scan.STREAMS] == len(self._streams):
            self._streams = _doubled(self._streams)
        if state[scan.ENTRIES] == len(self._entries):
            self._entries = _doubled(self._entries)
        # An entry begun does not show in the count of fields.
        self._fields = _doubled(self._fields)

    def _raise_error_reply(self) -> None:
        start = int(self._state[scan.POSITION])
        text = self._data[start + 1 : self._end].tobytes().partition(b"\r\n")[0]
        self.drop()
        raise error_of_reply(text.decode("utf-8", "replace"), self._link.address)

    def _raise_too_large(self) -> None:
        state = self._state
        stream = ""
        if state[scan.STREAMS]:
            stream = self._text(*self._streams[state[scan.STREAMS] - 1, :2].tolist())
        start = int(state[scan.POSITION])
        begun = self._data[start : start + 4 * RAW_KEPT].tobytes()
        self.drop()
        raise ReplyTooLargeError(self._max_bytes, stream, *_first_part(begun))

    def _fail(self, what: str) -> None:
        self.drop()
        raise ConnectionFailedError(
            self._link.address, what, "See whether that is a Redis server."
        )


def _doubled(table: NDArray[np.int64]) -> NDArray[np.int64]:
    larger = np.empty((2 * len(table), table.shape[1]), np.int64)
    larger[: len(table)] = table
    return larger


def _first_part(begun: bytes) -> tuple[bytes, bytes]:
    """Return the id of an entry of which this is the beginning, and raw fields."""
    head = _ENTRY_HEAD.match(begun)
    if head is None:
        return b"", b""
    words: list[bytes] = []
    at = head.end()
    while bulk := _BULK_HEAD.match(begun, at):
        end = bulk.end() + int(bulk[1])
        words.append(begun[bulk.end() : end])
        at = end + 2
    pairs = zip(words[::2], [*words[1::2], b""], strict=False)
    raw = b"\n".join(name + b"=" + value for name, value in pairs)
    return head[2], raw[:RAW_KEPT]
