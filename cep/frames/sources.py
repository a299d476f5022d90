"""Where frames are loaded from: a Redis server, or the bundled sample.

What talks to a server is imported when a server is asked for: the sample needs
neither redis nor the reader's compiled kernels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import polars as pl

from cep import sample
from cep.errors import UsageError, near_miss
from cep.events.registry import STREAMS, Registry
from cep.frames.from_frame import columns_from_frame
from cep.frames.span import FIRST, LAST

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from typing import Any

    import redis

    from cep.events.columns import BadRow, EventColumns
    from cep.frames.span import EntryId

    Page = tuple[EventColumns, Sequence[BadRow]]

SAMPLE: Final = "sample"
PAGE: Final = 4000


class Source(Protocol):
    """Where entries of streams are read from."""

    def check(self, stream: str) -> None:
        """Raise UsageError if there cannot be such a stream."""

    def newest_ms(self, stream: str) -> int | None:
        """Return when the newest entry arrived, None if there is no entry."""

    def length(self, stream: str) -> int:
        """Return how many entries there are."""

    def pages(
        self,
        stream: str,
        first: EntryId,
        last: EntryId,
        fields: Mapping[str, Collection[str]] | None,
        envelope: Collection[str],
    ) -> Iterator[Page]:
        """Yield good and bad rows of the entries from first to last."""


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
            count=PAGE,
            fields=fields,
            envelope=envelope,
            registry=self.registry,
        ):
            yield page.columns, page.bad

    def _ask(self, *words: str) -> Any:
        from cep.bus.connection import clear_errors

        with clear_errors(self.client):
            return self.client.execute_command(*words)  # type: ignore[no-untyped-call]


def _written(entry: EntryId) -> str:
    if entry == FIRST:
        return "-"
    return "+" if entry == LAST else f"{entry[0]}-{entry[1]}"


class SampleSource:
    """The bundled sample, as if each event had arrived when it happened.

    Entry ids and event ids are those of `cep.frames.ids.made_entry_ids` and
    `made_event_ids`: in publish order, and the same each time.
    """

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._events: dict[str, EventColumns] = {}

    def check(self, stream: str) -> None:
        """Refuse a name that is not in the sample."""
        known = sample.streams()
        if stream not in known:
            near = near_miss(stream, known)
            raise UsageError(
                f"The sample has no stream {stream!r}.",
                f"Did you mean {near[0]!r}?" if near else f"It has {', '.join(known)}.",
            )

    def newest_ms(self, stream: str) -> int | None:
        """Return the milliseconds of the last entry's id."""
        return int(self._all(stream).entry_ms[-1])

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
    ) -> Iterator[Page]:
        """Yield the events in one page, with all their fields; none is bad."""
        events = self._all(stream)
        ms, seq = events.entry_ms, events.entry_seq
        after = (ms > first[0]) | ((ms == first[0]) & (seq >= first[1]))
        before = (ms < last[0]) | ((ms == last[0]) & (seq <= min(last[1], 2**62)))
        chosen = events.take(after & before)
        if len(chosen):
            yield chosen, ()

    def _all(self, stream: str) -> EventColumns:
        if stream not in self._events:
            # What the publisher writes where nothing is said.
            envelope = {"@version": pl.lit(1), "@metadata": pl.lit("{}")}
            frame = sample.frame(stream).with_columns(**envelope)
            self._events[stream] = columns_from_frame(
                frame, stream=stream, registry=self.registry
            )
        return self._events[stream]
