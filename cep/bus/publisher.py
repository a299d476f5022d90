"""Writing events to their streams.

Whatever is written was valid as a whole before the first command went out.
Nothing is ever sent twice: if a connection is lost on the way, the error says
how many entries were confirmed, and what became of the rest is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import hiredis
import numpy as np

from cep.bus.connection import connect_redis, error_of_reply
from cep.bus.link import Link, packed
from cep.bus.payload_columns import Payloads, dump_metadata, read_column, texts_of
from cep.bus.row_template import Hole, RowTemplate, Texts
from cep.bus.ulid_columns import new_ulids, ulid_letters
from cep.errors import (
    ConnectionFailedError,
    InvalidPayloadError,
    Problem,
    UsageError,
    shown,
)
from cep.events.codec import FIELDS, MAX_ENTRY_BYTES, encode
from cep.events.ids import LENGTH, ulid_problem
from cep.events.registry import Registry, registry
from cep.events.timestamps import ALLOWED, END_MS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import redis
    from numpy.typing import NDArray

    from cep.events.envelope import Event

CHUNK_ROWS: Final = 1000
CHUNK_BYTES: Final = 1 << 20
_RECEIVE_BYTES: Final = 1 << 16
_SHORT_TEXT: Final = 1000
_DATE: Final = np.dtype("datetime64[ms]")


class Publisher:
    """Writes events through a client; may be shared between threads.

    Parameters
    ----------
    redis_or_url
        A client of `connect_redis`, or what to call that with.
    maxlen
        Trim each stream written to about this many entries. None keeps all.
    registry
        Where event types are looked up.
    """

    def __init__(
        self,
        redis_or_url: redis.Redis | str | None = None,
        *,
        maxlen: int | None = None,
        registry: Registry = registry,
    ) -> None:
        if maxlen is not None and maxlen < 1:
            raise UsageError(f"maxlen is {maxlen}.", "Pass at least 1, or None.")
        if redis_or_url is None or isinstance(redis_or_url, str):
            redis_or_url = connect_redis(redis_or_url)
        self.redis = redis_or_url
        self.maxlen = maxlen
        self.registry = registry

    def publish(self, event: Event) -> str:
        """Write one event; return its entry id, ``ms-seq``.

        Raises
        ------
        InvalidPayloadError
            If the payload is not one of its type.
        ConnectionFailedError
            If the server did not confirm it; it may or may not be written.
        """
        return self.publish_many([event])[0]

    def publish_many(self, events: Iterable[Event]) -> list[str]:
        """Write events in their order, pipelined; return their entry ids.

        Events are checked and encoded all before the first is sent.
        """
        commands = []
        for event in events:
            fields = encode(event, registry=self.registry)
            words = [word for pair in fields.items() for word in pair]
            head = self._head(event.stream)
            commands.append(packed(*head, *words))
        return [
            entry.decode()
            for entries in self._send(_chunks(commands), len(commands))
            for entry in entries
        ]

    def publish_columns(
        self,
        stream: str,
        event_type: str,
        columns: Mapping[str, Any] | Any,
        *,
        event_time: Any,
        ids: Any = None,
        version: int | None = None,
        correlation_id: Any = None,
        user_id: Any = None,
        metadata: Mapping[str, Any] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Write many events of one type, given by columns; return how many.

        Parameters
        ----------
        stream
            Where to write, usually the type's home.
        event_type
            A registered type.
        columns
            Payload field to values, or a frame; see `cep.bus.payload_columns`
            for what a column may be and what counts as null.
        event_time
            Event times: integers in milliseconds since 1970 in UTC,
            ``datetime64`` (taken as UTC) or aware datetimes; years 1970 to
            2261, cut to milliseconds.
        ids
            Event ids, canonical ULIDs. None makes new ones whose time is the
            event's, so that sorting by id sorts by event time; events of one
            millisecond that follow each other keep their order.
        version
            The type's newest if not given.
        correlation_id, user_id
            One text for all, or one per event; None and ``''`` for none.
        metadata
            The same for all events.
        progress
            Called after each confirmed chunk with (confirmed, all).

        Raises
        ------
        InvalidPayloadError
            Naming type, place (``data.price[17]``), value and what is allowed.
            Nothing was written.
        UsageError
            If columns differ in length or are no columns.
        ConnectionFailedError
            If the server did not confirm all; the text says how many it did.
        """
        rows = self._rows(
            stream,
            event_type,
            columns,
            event_time,
            ids=ids,
            version=version,
            owners=(correlation_id, user_id),
            metadata=metadata,
        )

        def chunks() -> Iterator[tuple[bytes, int]]:
            for start in range(0, len(rows), CHUNK_ROWS):
                commands, ends = rows.packed(start, start + CHUNK_ROWS)
                yield commands, len(ends)

        return self._count(chunks(), len(rows), progress)

    def publish_mixed(
        self,
        stream: str,
        batches: Sequence[tuple[str, Mapping[str, Any] | Any, Any]],
        order: Sequence[int] | NDArray[np.integer[Any]],
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Write events of several types to one stream, in a given order.

        Parameters
        ----------
        stream
            Where to write.
        batches
            Event type, columns and event times of each type, as
            `publish_columns` takes them.
        order
            For each entry, in the order of writing, the index of the batch
            whose next row it is. Names each batch as often as it has rows.
        progress
            Called after each confirmed chunk with (confirmed, all).

        Returns
        -------
        How many were written.

        Raises
        ------
        UsageError
            If ``order`` does not fit the batches, and what `publish_columns`
            raises. All batches are checked before anything is written.
        """
        parts = [self._rows(stream, *batch) for batch in batches]
        codes = np.asarray(order, np.intp)
        lengths = [len(part) for part in parts]
        if np.bincount(codes, minlength=len(parts)).tolist() != lengths:
            raise UsageError(
                "The order does not name each batch once per row.",
                f"The batches have {lengths} rows.",
            )

        def chunks() -> Iterator[tuple[bytes, int]]:
            taken = [0] * len(parts)
            for start in range(0, len(codes), CHUNK_ROWS):
                chunk = codes[start : start + CHUNK_ROWS]
                counts = np.bincount(chunk, minlength=len(parts)).tolist()
                queues = [
                    iter(part.commands(begin, begin + count))
                    for part, begin, count in zip(parts, taken, counts, strict=True)
                ]
                taken = [a + b for a, b in zip(taken, counts, strict=True)]
                commands = [next(queues[code]) for code in chunk.tolist()]
                yield b"".join(commands), len(commands)

        return self._count(chunks(), len(codes), progress)

    def _rows(
        self,
        stream: str,
        event_type: str,
        columns: Mapping[str, Any] | Any,
        event_time: Any,
        *,
        ids: Any = None,
        version: int | None = None,
        owners: tuple[Any, Any] = (None, None),
        metadata: Mapping[str, Any] | None = None,
    ) -> _Rows:
        """Return events of one type, checked as a whole; see `publish_columns`."""
        known = self.registry.get(event_type, version)
        if hasattr(columns, "columns"):
            columns = {name: columns[name] for name in columns.columns}
        payloads = Payloads(known, columns)
        time_ms = times_of(event_time, event_type)
        rows = len(time_ms)
        if payloads.columns and payloads.rows != rows:
            raise UsageError(
                f"There are {rows} event times for {payloads.rows} events.",
                "Pass one per event.",
            )
        if ids is None:
            letters = ulid_letters(*new_ulids(time_ms))
        else:
            letters = _checked_ids(ids, rows, event_type)
        correlation_id, user_id = owners
        template = _Template(
            self._head(stream),
            stream,
            event_type,
            known.version,
            texts_of("correlation_id", correlation_id, rows, event_type),
            texts_of("user_id", user_id, rows, event_type),
            dump_metadata(metadata, event_type),
            payloads.parts(),
        )
        if payloads.longest_text() > _SHORT_TEXT:
            template.check_sizes(payloads, rows, event_type)
        return _Rows(template, payloads, letters, time_ms)

    def _count(
        self,
        chunks: Iterable[tuple[bytes, int]],
        rows: int,
        progress: Callable[[int, int], None] | None,
    ) -> int:
        done = 0
        for entries in self._send(chunks, rows):
            done += len(entries)
            if progress is not None:
                progress(done, rows)
        return done

    def _head(self, stream: str) -> list[bytes]:
        trim = []
        if self.maxlen is not None:
            trim = [b"MAXLEN", b"~", b"%d" % self.maxlen]
        return [b"XADD", stream.encode(), *trim, b"*"]

    def _send(
        self, chunks: Iterable[tuple[bytes, int]], rows: int
    ) -> Iterator[list[bytes]]:
        """Send chunks, one ahead of the replies; yield entry ids chunk by chunk."""
        link = Link(self.redis)
        replies = _Replies(link)
        waiting = 0
        all_read = False
        try:
            for data, count in chunks:
                link.send(data)
                if waiting:
                    yield replies.take(waiting)
                waiting = count
            last = replies.take(waiting)
            all_read = True
            yield last
        except ConnectionFailedError as error:
            if rows == 1:
                raise
            raise ConnectionFailedError(
                error.url_masked,
                f"{error.cause.rstrip('.')} ({replies.confirmed} of {rows} events "
                "were confirmed as written)",
                error.remedy,
            ) from None
        finally:
            if all_read:
                link.give_back()
            else:
                link.drop()


Commands = tuple[bytes, "NDArray[np.int64]"]  # one after the other; each one's end


class _Replies:
    """Reads the replies of pipelined ``XADD`` commands."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._reader = hiredis.Reader()
        self._buffer = bytearray(_RECEIVE_BYTES)
        self.confirmed = 0

    def take(self, count: int) -> list[bytes]:
        """Return ``count`` replies; an error among them is raised at the end."""
        entries: list[bytes] = []
        error = None
        view = memoryview(self._buffer)
        while count:
            reply = self._reader.gets()
            if reply is False:
                size = self._link.receive_into(view)
                self._reader.feed(bytes(view[:size]))
                continue
            count -= 1
            if isinstance(reply, Exception):
                error = error or reply
            else:
                entries.append(reply)
                self.confirmed += 1
        if error is not None:
            raise error_of_reply(str(error), self._link.address)
        return entries


class _Template:
    """A row's command with holes for what differs from row to row."""

    def __init__(
        self,
        head: Sequence[bytes],
        stream: str,
        event_type: str,
        version: int,
        correlation_id: list[bytes] | bytes,
        user_id: list[bytes] | bytes,
        metadata: bytes,
        data: list[bytes | Hole],
    ) -> None:
        self._owners = {"@correlation_id": correlation_id, "@user_id": user_id}
        values: dict[str, list[bytes | Hole]] = {
            "id": [Hole("@id")],
            "stream": [stream.encode()],
            "type": [event_type.encode()],
            "version": [b"%d" % version],
            "timestamp": [Hole("@time")],
            "data": data,
            "metadata": [metadata],
        }
        for name, owner in self._owners.items():
            values[name[1:]] = [owner if isinstance(owner, bytes) else Hole(name)]
        words: list[list[bytes | Hole]] = [[word] for word in head]
        for name in FIELDS:
            words += [[name.encode()], values[name]]
        self._rows = RowTemplate.of(words, b"*%d\r\n" % len(words))
        self._fixed_bytes = (
            sum(map(len, FIELDS))
            + 26
            + 24
            + sum(
                len(part)
                for name, parts in values.items()
                for part in parts
                if name != "data" and isinstance(part, bytes)
            )
        )

    def fill(self, texts: dict[str, Texts], start: int, stop: int) -> Commands:
        """Return the commands of a chunk."""
        for name, owner in self._owners.items():
            if isinstance(owner, list):
                texts[name] = Texts.of(owner[start:stop])
        return self._rows.fill(texts)

    def check_sizes(self, payloads: Payloads, rows: int, event_type: str) -> None:
        """Raise InvalidPayloadError if an entry is too large to be read."""
        for start in range(0, rows, CHUNK_ROWS):
            texts = payloads.encode(start, min(start + CHUNK_ROWS, rows))
            for index, text in enumerate(texts, start):
                size = self._fixed_bytes + len(text)
                size += sum(
                    len(o[index]) for o in self._owners.values() if isinstance(o, list)
                )
                if size > MAX_ENTRY_BYTES:
                    most = f"at most {MAX_ENTRY_BYTES} bytes"
                    problem = Problem(f"the entry [{index}]", f"{size} bytes", most)
                    raise InvalidPayloadError(event_type, [problem])


@dataclass(slots=True)
class _Rows:
    """Events of one type, checked, and all that their commands need."""

    template: _Template
    payloads: Payloads
    ids: NDArray[np.uint8]
    time_ms: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.time_ms)

    def commands(self, start: int, stop: int) -> list[bytes]:
        """Return the commands of rows ``start`` to ``stop``, or to the end."""
        data, ends = self.packed(start, stop)
        return [data[a:b] for a, b in pairwise([0, *ends.tolist()])]

    def packed(self, start: int, stop: int) -> Commands:
        """Return those commands one after the other, and where each ends."""
        stop = min(stop, len(self))
        texts = self.payloads.texts(start, stop)
        texts["@id"] = Texts.of_equal_length(self.ids[start:stop])
        texts["@time"] = Texts.of_times(self.time_ms[start:stop])
        return self.template.fill(texts, start, stop)


def _chunks(commands: Sequence[bytes]) -> Iterator[tuple[bytes, int]]:
    waiting: list[bytes] = []
    size = 0
    for command in commands:
        waiting.append(command)
        size += len(command)
        if len(waiting) == CHUNK_ROWS or size >= CHUNK_BYTES:
            yield b"".join(waiting), len(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting), len(waiting)


def times_of(event_time: Any, event_type: str) -> NDArray[np.int64]:
    """Return event times in milliseconds, or raise InvalidPayloadError.

    See `Publisher.publish_columns` for what they may be.
    """
    if hasattr(event_time, "to_numpy"):
        event_time = _as_utc(event_time)
    values = np.asarray(event_time)
    if values.ndim != 1:
        raise UsageError(
            f"event_time has the shape {values.shape}.", "Pass one value per event."
        )
    wrong = np.zeros(len(values), np.bool_)
    if values.dtype.kind == "M":
        wrong = np.isnat(values)
        time_ms = _floor_ms(np.where(wrong, np.datetime64(0, "ms"), values))
    elif values.dtype.kind in "iu":
        wrong = values > END_MS
        time_ms = np.where(wrong, 0, values).astype(np.int64)
    else:
        column = read_column(event_time)
        values = np.empty(len(column), object)
        values[:] = column
        time_ms = np.fromiter(map(_ms_of, values), np.int64, len(values))
        wrong = time_ms < 0
    wrong |= (time_ms < 0) | (time_ms >= END_MS)
    if wrong.any():
        problems = [
            Problem(
                f"timestamp[{index}]", shown(values[index]), f"milliseconds, {ALLOWED}"
            )
            for index in np.flatnonzero(wrong)[:10].tolist()
        ]
        raise InvalidPayloadError(event_type, problems)
    return time_ms


def _as_utc(series: Any) -> Any:
    """Return what a polars or pandas Series holds as an array in UTC."""
    array = series.to_numpy()
    if array.dtype.kind == "O" and len(array) and hasattr(array[0], "tz_convert"):
        return np.array([one.tz_convert("UTC").to_datetime64() for one in array])
    return array


def _floor_ms(values: NDArray[Any]) -> NDArray[np.int64]:
    # astype to a coarser unit rounds towards the past, also before 1970.
    return values.astype(_DATE).astype(np.int64)


def _ms_of(moment: Any) -> int:
    if isinstance(moment, datetime) and moment.tzinfo is not None:
        return int(
            np.datetime64(moment.astimezone(UTC).replace(tzinfo=None), "ms").astype(
                np.int64
            )
        )
    if isinstance(moment, int) and not isinstance(moment, bool):
        return moment if 0 <= moment < END_MS else -1
    if isinstance(moment, np.datetime64) and not np.isnat(moment):
        return int(moment.astype(_DATE).astype(np.int64))
    return -1


def _checked_ids(ids: Any, rows: int, event_type: str) -> NDArray[np.uint8]:
    texts = read_column(ids)
    if len(texts) != rows:
        raise UsageError(
            f"There are {len(texts)} ids for {rows} events.", "Pass one per event."
        )
    problems = [
        Problem(f"id[{index}]", shown(text), "a ULID in canonical form")
        for index, text in enumerate(texts)
        if not isinstance(text, str) or ulid_problem(text)
    ]
    if problems:
        raise InvalidPayloadError(event_type, problems[:10])
    letters = np.frombuffer("".join(texts).encode(), np.uint8)
    return letters.reshape(rows, LENGTH)
