"""Streams to pages of typed columns, by plain ``XREAD`` and ``XRANGE``.

The reader keeps its own positions (no consumer group: its pending list would
more than double what an entry costs the server). It takes a connection from
redis-py, then packs its commands and scans the replies itself, see
`cep.bus.link` and `cep.bus.page`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import hiredis

from cep.bus.connection import clear_errors, connect_redis, error_of_reply
from cep.bus.link import Link, packed
from cep.bus.page import Entries, PageDecoder, StreamPage
from cep.errors import UsageError
from cep.events.codec import FUTURE_TOLERANCE_MS
from cep.events.registry import Registry, registry

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    import redis

COUNT: Final = 2000
BEGINNING: Final = b"0-0"


class ColumnarReader:
    """Follows streams from positions of its own.

    Parameters
    ----------
    redis_or_url
        A client of `connect_redis`, or what to call that with.
    streams
        The keys; a stream that does not exist yet may come later.
    fields, envelope, registry, future_tolerance_ms
        As for `cep.bus.page.PageDecoder`.
    start
        Stream to the entry id after which to read. ``b"0-0"``, the default,
        reads from the beginning; ``b"$"`` reads what comes after the first
        `read` was called.
    count
        Entries of a stream in a page, at most.

    Attributes
    ----------
    positions
        Stream to the id of the last entry read.
    exhausted
        Stream to whether the last `read` found its end: a page shorter than
        ``count``, or none.
    """

    def __init__(
        self,
        redis_or_url: redis.Redis | str | None,
        streams: Sequence[str],
        *,
        fields: Mapping[str, Collection[str]] | None = None,
        envelope: Collection[str] = (),
        start: Mapping[str, bytes | str] | None = None,
        count: int = COUNT,
        registry: Registry = registry,
        future_tolerance_ms: int | None = FUTURE_TOLERANCE_MS,
    ) -> None:
        self.streams = _checked_streams(streams)
        if count < 1:
            raise UsageError(f"count is {count}.", "Pass at least 1.")
        self.count = count
        self.redis = _client(redis_or_url)
        self._decoders = {
            stream: PageDecoder(
                stream,
                fields=fields,
                envelope=envelope,
                registry=registry,
                future_tolerance_ms=future_tolerance_ms,
            )
            for stream in self.streams
        }
        self._replies = _Replies(self.redis)
        self.positions: dict[str, bytes] = {}
        self.exhausted: dict[str, bool] = {}
        self.reset(start or {})

    def read(self, block_ms: int = 0) -> list[StreamPage]:
        """Return a page of each stream that has new entries.

        Each stream gives up to ``count`` entries, however full the others are.

        Parameters
        ----------
        block_ms
            How long to wait if there is none at all, in milliseconds; 0: do
            not wait. An empty list means that the time ran out.

        Raises
        ------
        ConnectionFailedError
            If the connection was lost or the server cannot answer now. The
            positions are as before the call, which may be repeated.
        UsageError
            If a key is not a stream.
        """
        self._find_ends()
        words = [b"XREAD", b"COUNT", b"%d" % self.count]
        if block_ms > 0:
            words += [b"BLOCK", b"%d" % block_ms]
        words.append(b"STREAMS")
        words += [stream.encode() for stream in self.streams]
        words += [self.positions[stream] for stream in self.streams]
        self._replies.send(packed(*words))
        found = self._replies.streams(block_ms / 1000)
        self.exhausted = dict.fromkeys(self.streams, True)
        pages = []
        for stream, entries in found:
            page = self._decoders[stream].decode(entries)
            self.positions[stream] = page.last_id
            self.exhausted[stream] = page.entries_read < self.count
            pages.append(page)
        return pages

    def reset(self, positions: Mapping[str, bytes | str]) -> None:
        """Go on from other positions; streams not named begin anew."""
        unknown = positions.keys() - set(self.streams)
        if unknown:
            raise UsageError(
                f"{sorted(unknown)[0]!r} is not among the streams read.",
                f"They are {', '.join(self.streams)}.",
            )
        self._replies.drop()
        self.positions = {
            stream: _position(positions.get(stream, BEGINNING))
            for stream in self.streams
        }
        self.exhausted = dict.fromkeys(self.streams, False)

    def close(self) -> None:
        """Give the connection back."""
        self._replies.drop()

    def _find_ends(self) -> None:
        for stream, position in self.positions.items():
            if position == b"$":
                with clear_errors(self.redis):
                    last: Any = self.redis.xrevrange(stream, count=1)
                self.positions[stream] = _text(last[0][0]) if last else BEGINNING


def read_range(
    redis_or_url: redis.Redis | str | None,
    stream: str,
    start: bytes | str = b"-",
    end: bytes | str = b"+",
    count: int | None = None,
    *,
    fields: Mapping[str, Collection[str]] | None = None,
    envelope: Collection[str] = (),
    registry: Registry = registry,
    future_tolerance_ms: int | None = FUTURE_TOLERANCE_MS,
) -> StreamPage:
    """Return the entries of a stream from ``start`` to ``end``, as one page.

    Parameters
    ----------
    start, end
        Entry ids as ``XRANGE`` takes them: both included unless written with
        ``(``, ``-`` and ``+`` for the ends, ``ms`` alone for all of it.
    count
        How many at most; None: all, which are then held in memory at once.
    """
    words = [b"XRANGE", stream.encode(), _text(start), _text(end)]
    if count is not None:
        words += [b"COUNT", b"%d" % count]
    decoder = PageDecoder(
        stream,
        fields=fields,
        envelope=envelope,
        registry=registry,
        future_tolerance_ms=future_tolerance_ms,
    )
    replies = _Replies(_client(redis_or_url))
    try:
        replies.send(packed(*words))
        return decoder.decode(replies.entries(1))
    finally:
        replies.close()


def iterate_range(
    redis_or_url: redis.Redis | str | None,
    stream: str,
    start: bytes | str = b"-",
    end: bytes | str = b"+",
    *,
    count: int = COUNT,
    fields: Mapping[str, Collection[str]] | None = None,
    envelope: Collection[str] = (),
    registry: Registry = registry,
    future_tolerance_ms: int | None = FUTURE_TOLERANCE_MS,
) -> Iterator[StreamPage]:
    """Yield the entries of a stream from ``start`` to ``end``, page by page."""
    client = _client(redis_or_url)
    while True:
        page = read_range(
            client,
            stream,
            start,
            end,
            count,
            fields=fields,
            envelope=envelope,
            registry=registry,
            future_tolerance_ms=future_tolerance_ms,
        )
        if page.entries_read:
            yield page
        if page.entries_read < count:
            return
        start = b"(" + page.last_id


def read_ids(
    redis_or_url: redis.Redis | str | None,
    stream: str,
    ids: Iterable[bytes | str],
    *,
    fields: Mapping[str, Collection[str]] | None = None,
    envelope: Collection[str] = (),
    registry: Registry = registry,
    future_tolerance_ms: int | None = FUTURE_TOLERANCE_MS,
) -> StreamPage:
    """Return the entries with these ids, in the order asked for.

    An entry that is no longer there is left out, so ``entries_read`` may be
    smaller than the number of ids.
    """
    key = stream.encode()
    wanted = [_text(one) for one in ids]
    decoder = PageDecoder(
        stream,
        fields=fields,
        envelope=envelope,
        registry=registry,
        future_tolerance_ms=future_tolerance_ms,
    )
    if not wanted:
        return decoder.decode(Entries.of([]))
    replies = _Replies(_client(redis_or_url))
    try:
        replies.send(b"".join(packed(b"XRANGE", key, one, one) for one in wanted))
        return decoder.decode(replies.entries(len(wanted)))
    finally:
        replies.close()


def decode_entries(
    stream: str,
    entries: Iterable[tuple[bytes | str, Mapping[bytes, bytes]]],
    *,
    fields: Mapping[str, Collection[str]] | None = None,
    envelope: Collection[str] = (),
    registry: Registry = registry,
    future_tolerance_ms: int | None = FUTURE_TOLERANCE_MS,
) -> StreamPage:
    """Return entries that redis-py has read, ``(id, {field: value})``, as a page."""
    decoder = PageDecoder(
        stream,
        fields=fields,
        envelope=envelope,
        registry=registry,
        future_tolerance_ms=future_tolerance_ms,
    )
    pairs = ((entry_id, list(values.items())) for entry_id, values in entries)
    return decoder.decode(Entries.of(pairs))


class _Replies:
    """Sends commands and reads their replies to the end, one after the other."""

    def __init__(self, client: redis.Redis) -> None:
        self._link = Link(client)
        self._reader = hiredis.Reader()
        self._buffer = bytearray(1 << 18)

    def send(self, command: bytes) -> None:
        self._link.send(command)

    def streams(self, seconds: float) -> list[tuple[str, Entries]]:
        """Return the reply to XREAD: stream and entries of each that has some."""
        reply = self._next(seconds) or []
        return [(stream.decode(), _entries(found)) for stream, found in reply]

    def entries(self, count: int) -> Entries:
        """Return the replies to ``count`` XRANGE commands as one."""
        return _entries([entry for _ in range(count) for entry in self._next(0.0)])

    def drop(self) -> None:
        self._link.drop()
        self._reader = hiredis.Reader()

    def close(self) -> None:
        self._link.drop()

    def _next(self, seconds: float) -> Any:
        view = memoryview(self._buffer)
        while (reply := self._reader.gets()) is False:
            size = self._link.receive_into(view, seconds)
            self._reader.feed(bytes(view[:size]))
        if isinstance(reply, Exception):
            self.drop()
            raise error_of_reply(str(reply), self._link.address)
        return reply


def _entries(found: Iterable[Any]) -> Entries:
    return Entries.of(
        (entry_id, zip(flat[::2], flat[1::2], strict=True)) for entry_id, flat in found
    )


def _client(redis_or_url: redis.Redis | str | None) -> redis.Redis:
    if redis_or_url is None or isinstance(redis_or_url, str):
        return connect_redis(redis_or_url)
    return redis_or_url


def _checked_streams(streams: Sequence[str]) -> list[str]:
    if isinstance(streams, str) or not streams:
        raise UsageError(
            f"{streams!r} is not a list of streams.",
            "Pass at least one name in a list.",
        )
    if len(set(streams)) < len(streams):
        raise UsageError(
            f"A stream is named twice in {', '.join(streams)}.", "Name each once."
        )
    return list(streams)


def _position(given: bytes | str) -> bytes:
    position = _text(given)
    ms, _, seq = position.partition(b"-")
    if position != b"$" and not (ms.isdigit() and (seq.isdigit() or not seq)):
        raise UsageError(
            f"{given!r} is not an entry id.", "Pass ms-seq such as 0-0, or $."
        )
    return position


def _text(given: bytes | str) -> bytes:
    return given.encode() if isinstance(given, str) else given
