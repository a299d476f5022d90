"""An archive as a source of frames, alone or joined with the streams it goes on in."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from cep.bus.page import PageDecoder
from cep.errors import UsageError, near_miss
from cep.events.registry import Registry, registry
from cep.frames.archive.entries import to_entries
from cep.frames.archive.layout import (
    following,
    id_at,
    parts_of,
    preceding,
    streams_in,
)
from cep.frames.sources import Page

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    import pyarrow as pa

    from cep.frames.sources import Source
    from cep.frames.span import EntryId


class ArchiveSource:
    """The files of an archive. What they hold is judged as if read from Redis."""

    def __init__(self, root: Path, registry: Registry = registry) -> None:
        self.root, self.registry = root, registry

    def check(self, stream: str) -> None:
        """Refuse a name of which nothing is archived."""
        known = streams_in(self.root)
        if stream not in known:
            near = near_miss(stream, known)
            raise UsageError(
                f"The archive {self.root} has no stream {stream!r}.",
                f"Did you mean {near[0]!r}?"
                if near
                else f"It has {', '.join(known) or 'none yet'}.",
            )

    def newest_ms(self, stream: str) -> int | None:
        """Return the milliseconds of the last entry's id."""
        parts = parts_of(self.root, stream)
        return parts[-1].last[0] if parts else None

    def length(self, stream: str) -> int:
        """Return the number of entries."""
        return sum(part.footer().rows for part in parts_of(self.root, stream))

    def end(self, stream: str, first: EntryId) -> EntryId:
        """Return the last entry id from ``first`` on, ``(0, 0)`` if there is none."""
        parts = parts_of(self.root, stream, preceding(first))
        return parts[-1].last if parts else (0, 0)

    def pages(
        self,
        stream: str,
        first: EntryId,
        last: EntryId,
        fields: Mapping[str, Collection[str]] | None,
        envelope: Collection[str],
        most: int | None = None,
    ) -> Iterator[Page]:
        """Yield pages of a row group each."""
        decoder = PageDecoder(
            stream, fields=fields, envelope=envelope, registry=self.registry
        )
        while first <= last:
            parts = parts_of(self.root, stream, preceding(first))
            try:
                for part in parts:
                    for table in _cut(part.groups(first, last), most):
                        page = decoder.decode(to_entries(table))
                        end = id_at(table, len(table) - 1)
                        first = following(end)
                        yield Page(page.columns, page.bad, end)
                return
            except FileNotFoundError:
                # It was joined with others meanwhile, which are there.
                continue


def _cut(tables: Iterator[pa.Table], most: int | None) -> Iterator[pa.Table]:
    for table in tables:
        size = len(table) if most is None else max(1, most)
        for at in range(0, len(table), size or 1):
            yield table.slice(at, size)


class JoinedSource:
    """An archive and the streams that go on where it ends: no gap, no duplicate.

    An entry is trimmed only after its file is in place. So a page that the server
    has given is whole if after that the archive still ends before it; otherwise its
    entries are taken from there.
    """

    def __init__(self, archive: ArchiveSource, live: Source) -> None:
        self.archive, self.live = archive, live

    def check(self, stream: str) -> None:
        """Refuse a name that neither has."""
        try:
            self.archive.check(stream)
        except UsageError:
            self.live.check(stream)

    def newest_ms(self, stream: str) -> int | None:
        """Return the milliseconds of the last entry's id."""
        found = [self.archive.newest_ms(stream), self.live.newest_ms(stream)]
        return max((ms for ms in found if ms is not None), default=None)

    def length(self, stream: str) -> None:
        """Return None: nobody knows yet how much the two have in common."""

    def pages(
        self,
        stream: str,
        first: EntryId,
        last: EntryId,
        fields: Mapping[str, Collection[str]] | None,
        envelope: Collection[str],
        most: int | None = None,
    ) -> Iterator[Page]:
        """Yield pages of the archive, then of the server, and so on to the end."""
        wanted = (fields, envelope, most)
        while first <= last:
            end = self.archive.end(stream, first)
            if end >= first:
                yield from self.archive.pages(stream, first, min(last, end), *wanted)
                first = following(end)
                continue
            live = self.live.pages(stream, first, last, *wanted)
            with contextlib.closing(live):  # type: ignore[type-var]
                for page in live:
                    if self.archive.end(stream, first) >= first:
                        break
                    first = following(page.last)
                    yield page
            if self.archive.end(stream, first) < first:
                return
