"""Where frames are loaded from: a Redis server, the bundled sample, or frames.

What talks to a server is imported when a server is asked for: the sample needs
neither redis nor the reader's compiled kernels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import polars as pl

from cep import sample
from cep.errors import UsageError, near_miss
from cep.events.registry import STREAMS, Registry
from cep.frames.from_frame import as_polars, columns_from_frame
from cep.frames.span import FIRST, LAST

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from typing import Any

    import redis

    from cep.events.columns import BadRow, EventColumns
    from cep.frames.span import EntryId
SAMPLE: Final = "sample"
PAGE: Final = 4000
_LARGEST: Final = 2**63 - 1


class Page(NamedTuple):
    """Good and bad rows of some entries, and the id of the last of these."""

    columns: EventColumns
    bad: Sequence[BadRow]
    last: EntryId


class Source(Protocol):
    """Where entries of streams are read from."""

    def check(self, stream: str) -> None:
        """Raise UsageError if there cannot be such a stream."""

    def newest_ms(self, stream: str) -> int | None:
        """Return when the newest entry arrived, None if there is no entry."""

    def length(self, stream: str) -> int | None:
        """Return how many entries there are, None if that takes long to tell."""

    def pages(
        self,
        stream: str,
        first: EntryId,
        last: EntryId,
        fields: Mapping[str, Collection[str]] | None,
        envelope: Collection[str],
        most: int | None = None,
    ) -> Iterator[Page]:
        """Yield good and bad rows of the entries from first to last.

        ``most`` is how many rows are wanted, if not all: pages are no larger.
        """


class RedisSource:
    """A server."""

    def __init__(self, client: redis.Redis, registry: Registry) -> None:
        self.client, self.registry = client, registry

    def check(self, stream: str) -> None:
        """Refuse a name that is neither in Redis nor any type's home."""
        from cep.bus.connection import address_of

        known = {*STREAMS, *(one.stream for one in self.registry.all())}
        if stream in known:
            return
        if self._ask("EXISTS", stream):
            return
        near = near_miss(stream, known)
        raise UsageError(
            f"There is no stream {stream!r} at {address_of(self.client)}.",
            f"Did you mean {near[0]!r}?" if near else f"Known are {', '.join(known)}.",
        )

    def newest_ms(self, stream: str) -> int | None:
        """Return the milliseconds of the last entry's id."""
        last = self._ask("XREVRANGE", stream, "+", "-", "COUNT", "1")
        return int(last[0][0].partition(b"-")[0]) if last else None

    def length(self, stream: str) -> int:
        """Return the stream's length."""
        return int(self._ask("XLEN", stream))

    def pages(
        self,
        stream: str,
        first: EntryId,
        last: EntryId,
        fields: Mapping[str, Collection[str]] | None,
        envelope: Collection[str],
        most: int | None = None,
    ) -> Iterator[Page]:
        """Yield pages of a few thousand entries."""
        from cep.bus.reader import iterate_range

        if last < first:
            return
        for page in iterate_range(
            self.client,
            stream,
            _written(first),
            _written(last),
            count=PAGE if most is None else min(PAGE, max(1, most)),
            ahead=most is None or most > PAGE,
            fields=fields,
            envelope=envelope,
            registry=self.registry,
        ):
            ms, _, seq = page.last_id.partition(b"-")
            yield Page(page.columns, page.bad, (int(ms), int(seq)))

    def _ask(self, *words: str) -> Any:
        from cep.bus.connection import clear_errors

        with clear_errors(self.client):
            return self.client.execute_command(*words)  # type: ignore[no-untyped-call]


def _written(entry: EntryId) -> str:
    if entry == FIRST:
        return "-"
    return "+" if entry == LAST else f"{entry[0]}-{entry[1]}"


class FrameSource:
    """Frames in memory, or the bundled sample: events that are there as columns.

    Parameters
    ----------
    known
        The streams there are.
    read
        Gives the events of one, in entry id order; called once for each.
    where
        Whose streams they are, for messages.
    """

    def __init__(
        self,
        known: Sequence[str],
        read: Callable[[str], EventColumns],
        where: str = "The sample",
    ) -> None:
        self._known, self._read, self._where = known, read, where
        self._events: dict[str, EventColumns] = {}

    @staticmethod
    def of_sample(registry: Registry) -> FrameSource:
        """Return the bundled sample, as if each event had arrived when it happened.

        Entry ids and event ids are those of `cep.frames.ids.made_entry_ids` and
        `made_event_ids`: in publish order, and the same each time.
        """

        def read(stream: str) -> EventColumns:
            # What the publisher writes where nothing is said.
            envelope = {"@version": pl.lit(1), "@metadata": pl.lit("{}")}
            frame = sample.frame(stream).with_columns(**envelope)
            return columns_from_frame(frame, stream=stream, registry=registry)

        return FrameSource(sample.streams(), read)

    @staticmethod
    def of_frames(
        frames: Mapping[str, Any],
        registry: Registry,
        types: str | Sequence[str] | None = None,
    ) -> FrameSource:
        """Return frames of the user's own, as `columns_from_frame` takes them.

        A frame without a column ``type`` holds events of ``types``, if that is one.
        """
        named = [types] if isinstance(types, str) else list(types or ())

        def read(stream: str) -> EventColumns:
            frame = as_polars(frames[stream])
            only = len(named) == 1 and "type" not in frame.columns
            return columns_from_frame(
                frame,
                stream=stream,
                event_type=named[0] if only else None,
                registry=registry,
            )

        return FrameSource(list(frames), read, "data")

    def check(self, stream: str) -> None:
        """Refuse a name that is not among the streams."""
        if stream not in self._known:
            near = near_miss(stream, self._known)
            raise UsageError(
                f"{self._where} has no stream {stream!r}.",
                f"Did you mean {near[0]!r}?"
                if near
                else f"It has {', '.join(self._known) or 'none'}.",
            )

    def newest_ms(self, stream: str) -> int | None:
        """Return the milliseconds of the last entry's id."""
        events = self._all(stream)
        return int(events.entry_ms[-1]) if len(events) else None

    def length(self, stream: str) -> int:
        """Return the number of events."""
        return len(self._all(stream))

    def pages(
        self,
        stream: str,
        first: EntryId,
        last: EntryId,
        fields: Mapping[str, Collection[str]] | None,
        envelope: Collection[str],
        most: int | None = None,
    ) -> Iterator[Page]:
        """Yield the events in one page, with all their fields; none is bad."""
        events = self._all(stream)
        ms, seq = events.entry_ms, events.entry_seq
        low, high = ([min(number, _LARGEST) for number in end] for end in (first, last))
        after = (ms > low[0]) | ((ms == low[0]) & (seq >= low[1]))
        before = (ms < high[0]) | ((ms == high[0]) & (seq <= high[1]))
        chosen = events.take(after & before)
        if len(chosen):
            end = int(chosen.entry_ms[-1]), int(chosen.entry_seq[-1])
            yield Page(chosen, (), end)

    def _all(self, stream: str) -> EventColumns:
        if stream not in self._events:
            self._events[stream] = self._read(stream)
        return self._events[stream]
