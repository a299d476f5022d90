"""Entries that were lost before they were read: found by counting.

The server counts what was ever added to a stream (``entries-added``). Of that,
what we read, what is still to be read, what was lost earlier, and what had
gone before this pipeline first looked (`Mark.base`) are known, so that the
rest was trimmed or deleted unread. No field of the server tells that by itself.

It takes a moment in which no entries are on their way to us, and one in which
those still to be read can be counted: none are left, or none that we have read
is. Trimming cannot be missed for long, as it takes the oldest entries first;
an entry deleted in the middle is noticed when its stream has been read.

A stream that was deleted, or deleted and begun anew, counts from zero again,
or ends before our position. It is then read from its beginning. What the old
one held unread is known as far as the last look at it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import redis as redis_py

from cep.bus.connection import clear_errors
from cep.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

BEGINNING = (0, 0)
EntryId = tuple[int, int]


class Mark(msgspec.Struct, array_like=True):
    """A stream as it was last looked at.

    Attributes
    ----------
    base
        Entries added less those read and lost, by this pipeline's counts.
    added
        Entries ever added, by the server's count.
    read
        Entries ever read, by ours.
    """

    base: int
    added: int
    read: int


@dataclass(frozen=True, slots=True)
class Look:
    """A stream as the server describes it; all zero if there is none."""

    added: int = 0
    length: int = 0
    first: EntryId = BEGINNING
    last: EntryId = BEGINNING  # of the entries there are
    last_generated: EntryId = BEGINNING

    def unread(self, position: EntryId) -> int | None:
        """Return how many entries come after a position, None if unknown."""
        if not self.length or self.last <= position:
            return 0
        return self.length if self.first > position else None


@dataclass(frozen=True, slots=True)
class Gap:
    """Entries of a stream that were lost; ``begun_anew`` with the stream itself.

    ``missing`` is exact, but for a stream that was deleted: of what was added
    to it after the last look nobody can tell.
    """

    stream: str
    missing: int
    after: str
    begun_anew: bool = False


@dataclass(frozen=True, slots=True)
class Judgement:
    """What follows from a look: entries lost, and where to read on."""

    mark: Mark | None
    missing: int = 0
    begun_anew: bool = False
    from_beginning: bool = False


def judge(
    mark: Mark | None, look: Look, position: EntryId, read: int, lost: int
) -> Judgement:
    """Compare a stream with what is known of it.

    Parameters
    ----------
    mark
        What the last look left; None the first time.
    position, read, lost
        The last entry read, and how many entries were read and lost so far.

    Examples
    --------
    Ten entries were added, four read; of the others the two oldest are gone:

    >>> end = (10, 0)
    >>> look = Look(added=10, length=4, first=(7, 0), last=end, last_generated=end)
    >>> judge(Mark(base=0, added=4, read=4), look, (4, 0), 4, 0).missing
    2
    """
    unread = look.unread(position)
    if mark is None:
        if unread is None:
            return Judgement(None)
        return Judgement(Mark(look.added - unread - read - lost, look.added, read))
    known = mark.base + read + lost
    if (
        look.added < max(known, mark.added)
        or look.last_generated < position
        or (unread is not None and unread > look.added - known)
    ):
        return _begun_anew(mark, look, position, read, lost)
    missing = 0 if unread is None else look.added - known - unread
    return Judgement(Mark(mark.base, look.added, read), missing)


def _begun_anew(
    mark: Mark, look: Look, position: EntryId, read: int, lost: int
) -> Judgement:
    since = read - mark.read
    unread = look.unread(position)
    # Ids below our position: nothing of the new stream was read, or hardly.
    below = look.last_generated < position or (unread is None and not since)
    if below:
        unread, of_new = look.length, 0
    else:
        of_new = min(since, look.added - (unread or 0))
    missing = max(0, mark.added - (mark.base + read + lost - of_new))
    base = of_new - read - lost - missing
    if unread is not None:
        missing += look.added - of_new - unread
    return Judgement(Mark(base, look.added, read), missing, True, below)


class Gaps:
    """Looks at streams for entries that were lost.

    ``marks`` is to be stored with the positions and counts that it goes with.
    """

    def __init__(self, client: redis_py.Redis, marks: Mapping[str, Mark]) -> None:
        self._client = client
        self.marks = dict(marks)
        self.blind = ""  # why gaps cannot be seen, if so

    def look(self, streams: list[str]) -> dict[str, Look]:
        """Return streams as they are now; without those that cannot be described.

        Raises
        ------
        ConnectionFailedError
            If the connection was lost.
        UsageError
            If a key is not a stream.
        """
        pipe = self._client.pipeline(transaction=False)
        for stream in streams:
            pipe.xinfo_stream(stream)
        with clear_errors(self._client):
            answers = pipe.execute(raise_on_error=False)
        looks = {}
        for stream, answer in zip(streams, answers, strict=True):
            if isinstance(answer, redis_py.ResponseError):
                if "no such key" in str(answer).lower():
                    looks[stream] = Look()
                elif "wrong kind of value" in str(answer).lower():
                    raise UsageError(
                        f"The key {stream!r} is not a stream.",
                        "Read another one, or delete the key.",
                    )
                else:
                    self.blind = str(answer)
            elif isinstance(answer, Exception):
                with clear_errors(self._client):
                    raise answer
            elif "entries-added" not in answer:
                self.blind = "the server is older than Redis 7.0"
            else:
                looks[stream] = _look(answer)
        return looks

    def judge(
        self, stream: str, look: Look, position: bytes, read: int, lost: int
    ) -> Judgement:
        """Compare a stream with its mark, which moves on."""
        mark = self.marks.get(stream)
        found = judge(mark, look, _entry_id(position), read, lost)
        if found.mark is not None:
            self.marks[stream] = found.mark
        return found


def _look(info: Mapping[str, Any]) -> Look:
    first, last = info["first-entry"], info["last-entry"]
    return Look(
        info["entries-added"],
        info["length"],
        _entry_id(first[0]) if first else BEGINNING,
        _entry_id(last[0]) if last else BEGINNING,
        _entry_id(info["last-generated-id"]),
    )


def _entry_id(raw: bytes) -> EntryId:
    ms, _, seq = raw.partition(b"-")
    return int(ms), int(seq)
