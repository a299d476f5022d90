"""Events that kill the process: found by dying at them, and put aside.

A process that is killed, or ends by an error that nobody expected, has died; how
often in a row without a commit is kept in the field ``attempts`` of the meta hash.
After `DEATHS` deaths at the same place the next process commits every `FEW` rows;
if it dies again, the one after it goes entry by entry, and says before each which
one it tries, both when it reads the entry and when it hands its row to the rules. An
entry that has killed the process `ALONE` times like this is poison: it becomes a row
of the quarantine, and all goes on as before.

So a good entry is given up on only if the process dies six times in a row, the last
two exactly while it is tried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cep.pipeline.notes import Note

if TYPE_CHECKING:
    from collections.abc import Callable

DEATHS = 3
ALONE = 2
FEW = 200
ZONE = 100_000  # entries read or processed, after which a death was not theirs


Place = tuple[str, str, bool]


class Attempts(msgspec.Struct):
    """What is known of deaths.

    Attributes
    ----------
    deaths
        Without a commit since.
    crashed
        Whether the last process ended by an error that nobody expected.
    rows
        How many rows a commit may hold; 0: as many as ever.
    left
        How many entries to read or process before that is over.
    trying
        Stream and id of the entry that is tried, and whether it was read before;
        empty if none is.
    suspect, times
        The last entry that the process died at when trying it, and how often.
    """

    deaths: int = 0
    crashed: bool = False
    rows: int = 0
    left: int = 0
    trying: Place | None = None
    suspect: Place | None = None
    times: int = 0


class Care:
    """How carefully to go on, after deaths.

    Parameters
    ----------
    attempts
        What is stored; changed by each call.
    put
        Writes it.
    died
        Whether the process before this one has died.
    streams
        How many input streams there are.
    """

    def __init__(
        self,
        attempts: Attempts,
        put: Callable[[Attempts], None],
        *,
        died: bool,
        streams: int,
    ) -> None:
        self.attempts, self._put = attempts, put
        self._streams = streams
        if died or attempts.crashed:
            attempts.crashed = False
            self._count_death()
            put(attempts)
        found = attempts.suspect if attempts.times >= ALONE else None
        self.poison: Place | None = found

    def _count_death(self) -> None:
        now = self.attempts
        now.deaths += 1
        if now.rows == 1:
            if now.trying is not None:
                now.times = now.times + 1 if now.suspect == now.trying else 1
                now.suspect, now.trying = now.trying, None
        elif now.rows > 1:
            # Read of each stream, then processed.
            now.rows, now.left = 1, 2 * FEW * (self._streams + 1)
        elif now.rows == 0 and now.deaths >= DEATHS:
            now.rows, now.left = FEW, ZONE

    @property
    def rows(self) -> int:
        """How many rows a commit may hold; 0: as many as ever."""
        return self.attempts.rows

    @property
    def one_by_one(self) -> bool:
        """Whether each entry is tried by itself."""
        return self.attempts.rows == 1

    def told(self) -> Note | None:
        """Return what to tell the user at the start."""
        now = self.attempts
        if self.poison is not None:
            stream, entry_id, _ = self.poison
            text = (
                f"entry {entry_id} of {stream} has killed the process again and again: "
                "it is quarantined as poison"
            )
            return Note(text, "poison", "warning", stream=stream, entry_id=entry_id)
        if not now.rows:
            return None
        how = "one event" if self.one_by_one else f"{now.rows} events"
        text = (
            f"The process has died {now.deaths} times at the same place: going on by "
            f"{how} at a time to find out where"
        )
        return Note(text, "died_often", "warning", deaths=now.deaths, rows=now.rows)

    def attempt(self, stream: str, entry_id: str, *, was_read: bool) -> None:
        """Say which entry is tried now."""
        self.attempts.trying = (stream, entry_id, was_read)
        self._put(self.attempts)

    def count(self, entries: int) -> None:
        """Count entries that were read or processed without harm."""
        if self.attempts.rows:
            self.attempts.left -= entries

    def to_commit(self) -> Attempts:
        """Return what a commit holds: that we have come so far alive."""
        now = self.attempts
        over = self.poison is not None or now.left <= 0
        self.attempts = Attempts() if over else Attempts(0, False, now.rows, now.left)
        self.poison = None
        return self.attempts
