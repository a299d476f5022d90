"""Streams to pages of typed columns, by plain ``XREAD`` and ``XRANGE``.

The reader keeps its own positions (no consumer group: its pending list would
more than double what an entry costs the server). It takes a connection from
redis-py, then packs its requests and scans the replies itself, see
`cep.bus.link`, `cep.bus.replies` and `cep.bus.page`.

An entry that alone exceeds `cep.bus.replies.MAX_REPLY_BYTES` is not read to
its end: it becomes a `BadRow` too_large whose ``raw_length`` is that limit and
whose ``sha256`` is that of the ``raw`` kept.
"""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cep.bus.connection import clear_errors, connect_redis
from cep.bus.link import packed
from cep.bus.page import Entries, PageDecoder, StreamPage
from cep.bus.replies import Replies, ReplyTooLargeError
from cep.errors import ConnectionFailedError, UsageError
from cep.events.codec import FUTURE_TOLERANCE_MS, MAX_ENTRY_BYTES
from cep.events.columns import BadRow, EventColumns
from cep.events.reasons import Reason
from cep.events.registry import Registry, registry

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from typing import Self

    import redis

COUNT: Final = 2000
BEGINNING: Final = b"0-0"
_IDS_AT_ONCE: Final = 512
_FEWER: Final = 16  # by how much a count falls when a reply was too large


class ColumnarReader:
    """Follows streams from positions of its own.

    While the caller works on full pages, the next ones are already asked for.

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
        Entries of a stream in a page, at most. Fewer are asked for while
        replies are too large to be held.

    Attributes
    ----------
    positions
        Stream to the id of the last entry read.
    exhausted
        Stream to whether its last page reached its end, as far as the stream
        went when the server answered.
    paused
        Streams not to be asked for any more until they are taken out again, as
        when they are far ahead of the others. A page that was asked for before
        still comes; not all streams are ever paused.
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
        self._replies = Replies(self.redis)
        self._asked = self.streams, count
        self._ahead = True
        self._count_now = count
        self.positions: dict[str, bytes] = {}
        self.exhausted: dict[str, bool] = {}
        self.paused: set[str] = set()
        self.reset(start or {})

    def read(self, block_ms: int = 0, *, ahead: bool = True) -> list[StreamPage]:
        """Return a page of each stream that has new entries.

        Each stream gives up to ``count`` entries, however full the others are.

        Parameters
        ----------
        block_ms
            How long to wait if there is none at all, in milliseconds; 0: do
            not wait. An empty list means that the time ran out.
        ahead
            Ask for the next page already. False: nothing is on its way to us
            after this call.

        Raises
        ------
        ConnectionFailedError
            If the connection was lost or the server cannot answer now. The
            positions are as before the call, which may be repeated.
        UsageError
            If a key is not a stream.
        """
        self._find_ends()
        self._ahead = ahead
        if self._replies.is_waiting and (pages := self._pages(0)):
            return pages
        # That reply may have been empty, and the next already been asked for.
        if not self._replies.is_waiting:
            self._ask(self._wanted(), self._count_now, block_ms)
        return self._pages(block_ms)

    def reset(self, positions: Mapping[str, bytes | str]) -> None:
        """Go on from other positions; streams not named begin anew."""
        unknown = positions.keys() - set(self.streams)
        if unknown:
            raise UsageError(
                f"{sorted(unknown)[0]!r} is not among the streams read.",
                f"They are {', '.join(self.streams)}.",
            )
        if self._replies.is_waiting:
            self._replies.drop()
        self.positions = {
            stream: _position(positions.get(stream, BEGINNING))
            for stream in self.streams
        }
        self.exhausted = dict.fromkeys(self.streams, False)

    def close(self) -> None:
        """Give the connection back; `read` would take another."""
        self._replies.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _wanted(self) -> list[str]:
        wanted = [stream for stream in self.streams if stream not in self.paused]
        return wanted or self.streams

    def _ask(self, streams: list[str], count: int, block_ms: int) -> None:
        words = [b"XREAD", b"COUNT", b"%d" % count]
        if block_ms > 0:
            words += [b"BLOCK", b"%d" % block_ms]
        words.append(b"STREAMS")
        words += [stream.encode() for stream in streams]
        words += [self.positions[stream] for stream in streams]
        self._replies.send(packed(*words))
        self._asked = streams, count

    def _pages(self, block_ms: int) -> list[StreamPage]:
        """Return the pages of the request that is waiting, and ask for the next."""
        before = self.positions
        try:
            found = self._replies.streams(block_ms / 1000)
            streams, count = self._asked
            self._count_now = min(self.count, 2 * self._count_now)
            exhausted = {stream: stream in streams for stream in self.streams}
            self.positions = dict(before)
            for stream, entries in found:
                self.positions[stream] = entries.entry_id(len(entries) - 1)
                exhausted[stream] = len(entries) < count
            if self._ahead and not all(exhausted.values()):
                # What is lost here will be asked for again by the next read.
                with contextlib.suppress(ConnectionFailedError):
                    self._ask(self._wanted(), self._count_now, 0)
            pages = [self._decoders[name].decode(entries) for name, entries in found]
        except ReplyTooLargeError as too_large:
            return self._fewer(too_large)
        except BaseException:
            self.positions = before
            self._replies.drop()
            raise
        self.exhausted = exhausted
        return pages

    def _fewer(self, too_large: ReplyTooLargeError) -> list[StreamPage]:
        streams, count = self._asked
        if count > 1:
            self._count_now = max(1, count // _FEWER)
            self._ask(streams, self._count_now, 0)
            return self._pages(0)
        if len(streams) > 1:
            self._ask([too_large.stream], 1, 0)
            return self._pages(0)
        stream = streams[0]
        page = _unread_page(self._decoders[stream], too_large)
        self.positions = self.positions | {stream: page.last_id}
        self.exhausted = dict.fromkeys(self.streams, False)
        return [page]

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

    Raises
    ------
    ReplyTooLargeError
        If they cannot be held; `iterate_range` can.
    """
    decoder = PageDecoder(
        stream,
        fields=fields,
        envelope=envelope,
        registry=registry,
        future_tolerance_ms=future_tolerance_ms,
    )
    with _replies(redis_or_url) as replies:
        return _range(replies, decoder, start, end, count)


def iterate_range(
    redis_or_url: redis.Redis | str | None,
    stream: str,
    start: bytes | str = b"-",
    end: bytes | str = b"+",
    *,
    count: int = COUNT,
    ahead: bool = True,
    fields: Mapping[str, Collection[str]] | None = None,
    envelope: Collection[str] = (),
    registry: Registry = registry,
    future_tolerance_ms: int | None = FUTURE_TOLERANCE_MS,
) -> Iterator[StreamPage]:
    """Yield the entries of a stream from ``start`` to ``end``, page by page.

    A page has up to ``count`` entries, fewer while they are very large. With
    ``ahead`` the next one is asked for before a page is yielded.
    """
    decoder = PageDecoder(
        stream,
        fields=fields,
        envelope=envelope,
        registry=registry,
        future_tolerance_ms=future_tolerance_ms,
    )
    with _replies(redis_or_url) as replies:
        yield from _in_parts(replies, decoder, start, end, count, ahead=ahead)


def _in_parts(
    replies: Replies,
    decoder: PageDecoder,
    start: bytes | str,
    end: bytes | str,
    count: int,
    *,
    ahead: bool = True,
) -> Iterator[StreamPage]:
    now = count
    while True:
        if not replies.is_waiting:
            _ask_range(replies, decoder.stream, start, end, now)
        try:
            entries = replies.ranges(1)
        except ReplyTooLargeError as too_large:
            if now == 1:
                page = _unread_page(decoder, too_large)
                yield page
                start = b"(" + page.last_id
            now = max(1, now // _FEWER)
            continue
        done = len(entries) < now
        if not done:
            # The server looks for the next page while we decode this one.
            start = b"(" + entries.entry_id(len(entries) - 1)
            now = min(count, 2 * now)
            if ahead:
                _ask_range(replies, decoder.stream, start, end, now)
        if len(entries):
            yield decoder.decode(entries)
        if done:
            return


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
    """Return the entries with these ids, in the order asked for, as one page.

    An entry that is no longer there is left out, so ``entries_read`` may be
    smaller than the number of ids.
    """
    decoder = PageDecoder(
        stream,
        fields=fields,
        envelope=envelope,
        registry=registry,
        future_tolerance_ms=future_tolerance_ms,
    )
    wanted = [(one, one) for one in map(_text, ids)]
    return _joined(list(_spans(redis_or_url, decoder, wanted)))


def read_spans(
    redis_or_url: redis.Redis | str | None,
    stream: str,
    spans: Iterable[tuple[bytes | str, bytes | str]],
    *,
    fields: Mapping[str, Collection[str]] | None = None,
    envelope: Collection[str] = (),
    registry: Registry = registry,
    future_tolerance_ms: int | None = FUTURE_TOLERANCE_MS,
) -> Iterator[StreamPage]:
    """Yield the entries from one id to another, both included, for many such pairs.

    Pages hold the entries of several pairs, or a part of those of one.
    """
    decoder = PageDecoder(
        stream,
        fields=fields,
        envelope=envelope,
        registry=registry,
        future_tolerance_ms=future_tolerance_ms,
    )
    wanted = [(_text(first), _text(last)) for first, last in spans]
    yield from _spans(redis_or_url, decoder, wanted)


def _spans(
    redis_or_url: redis.Redis | str | None,
    decoder: PageDecoder,
    wanted: list[tuple[bytes, bytes]],
) -> Iterator[StreamPage]:
    if not wanted:
        yield decoder.decode(Entries.of([]))
        return
    with _replies(redis_or_url) as replies:
        for at in range(0, len(wanted), _IDS_AT_ONCE):
            yield from _some_spans(replies, decoder, wanted[at : at + _IDS_AT_ONCE])


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


def _ask_range(
    replies: Replies, stream: str, start: bytes | str, end: bytes | str, count: int
) -> None:
    words = (b"XRANGE", stream.encode(), _text(start), _text(end))
    replies.send(packed(*words, b"COUNT", b"%d" % count))


def _range(
    replies: Replies,
    decoder: PageDecoder,
    start: bytes | str,
    end: bytes | str,
    count: int | None,
) -> StreamPage:
    words = [b"XRANGE", decoder.stream.encode(), _text(start), _text(end)]
    if count is not None:
        words += [b"COUNT", b"%d" % count]
    replies.send(packed(*words))
    try:
        return decoder.decode(replies.ranges(1))
    except ReplyTooLargeError as too_large:
        if count == 1:
            return _unread_page(decoder, too_large)
        raise


def _some_spans(
    replies: Replies, decoder: PageDecoder, spans: list[tuple[bytes, bytes]]
) -> Iterator[StreamPage]:
    key = decoder.stream.encode()
    requests = [packed(b"XRANGE", key, first, last) for first, last in spans]
    replies.send(b"".join(requests))
    try:
        yield decoder.decode(replies.ranges(len(spans)))
    except ReplyTooLargeError as too_large:
        first, last = spans[0]
        if len(spans) > 1:
            half = len(spans) // 2
            yield from _some_spans(replies, decoder, spans[:half])
            yield from _some_spans(replies, decoder, spans[half:])
        elif first == last:
            yield _unread_page(decoder, too_large)
        else:
            yield from _in_parts(replies, decoder, first, last, COUNT)


def _joined(pages: Sequence[StreamPage]) -> StreamPage:
    if len(pages) == 1:
        return pages[0]
    read = [page for page in pages if page.entries_read] or pages[:1]
    starts = np.cumsum([0, *(page.entries_read for page in pages)])[:-1].tolist()
    numbered = list(zip(starts, pages, strict=True))
    return StreamPage(
        pages[0].stream,
        EventColumns.concat([page.columns for page in pages]),
        [bad for page in pages for bad in page.bad],
        read[0].first_id,
        read[-1].last_id,
        sum(page.entries_read for page in pages),
        np.concatenate([start + page.rows for start, page in numbered]),
        np.concatenate([start + page.bad_rows for start, page in numbered]),
    )


def _unread_page(decoder: PageDecoder, too_large: ReplyTooLargeError) -> StreamPage:
    """Return the page of an entry that was too large to be read at all."""
    if not too_large.entry_id:
        raise too_large
    page = decoder.decode(Entries.of([]))
    bad = BadRow(
        decoder.stream,
        too_large.entry_id.decode(),
        Reason.TOO_LARGE,
        f"the entry has more than {too_large.limit} bytes and was not read to its "
        f"end, allowed: at most {MAX_ENTRY_BYTES}",
        too_large.raw,
        too_large.limit,
        hashlib.sha256(too_large.raw).hexdigest(),
    )
    page.bad, page.bad_rows, page.entries_read = [bad], np.zeros(1, np.int64), 1
    page.first_id = page.last_id = too_large.entry_id
    return page


@contextlib.contextmanager
def _replies(redis_or_url: redis.Redis | str | None) -> Iterator[Replies]:
    replies = Replies(_client(redis_or_url))
    try:
        yield replies
    finally:
        replies.close()


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
