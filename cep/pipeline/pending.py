"""What the next commit will hold, and whether it is time for it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cep.pipeline import limits

if TYPE_CHECKING:
    from cep.pipeline.store import Entry


class Pending:
    """Entries to be written, in order, since the last commit.

    ``dirty`` says that there is something to commit: entries, or a position
    that moved.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin the next commit."""
        self.entries: list[Entry] = []
        self.size = 0
        self.dirty = False
        self.since = time.monotonic()

    def add(self, stream: str, words: list[bytes]) -> None:
        """Write one entry with the commit."""
        self.entries.append((stream, words))
        self.size += sum(map(len, words))
        self.dirty = True

    def is_due(self) -> bool:
        """Whether the commit is large or old enough."""
        waited = time.monotonic() - self.since
        return self.size >= limits.COMMIT_BYTES or waited >= limits.COMMIT_SECONDS
