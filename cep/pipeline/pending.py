"""What the next commit will hold, and whether it is time for it."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from cep.pipeline import limits
from cep.pipeline.blocks import Block

if TYPE_CHECKING:
    from cep.bus.link import Words


class Pending:
    """Entries to be written, in order, since the last commit.

    ``dirty`` says that there is something to commit: entries, or a position
    that moved. What nobody sees yet may wait for more of it.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin the next commit."""
        self.blocks: list[Block] = []
        self.size = 0
        self._since: float | None = None

    @property
    def dirty(self) -> bool:
        """Whether there is anything to commit."""
        return self._since is not None

    @dirty.setter
    def dirty(self, value: bool) -> None:
        if value and self._since is None:
            self._since = time.monotonic()
        elif not value:
            self._since = None

    def add(self, stream: str, words: list[bytes] | Words) -> None:
        """Write one entry with the commit."""
        self.add_block(Block.of_one(stream, words))

    def add_block(self, block: Block) -> None:
        """Write entries with the commit."""
        self.blocks.append(block)
        self.size += len(block.data)
        self.dirty = True

    @property
    def is_large(self) -> bool:
        """Whether the commit is as large as it should get."""
        return self.size >= limits.COMMIT_BYTES

    def is_due(self) -> bool:
        """Whether the commit is large or old enough."""
        return self.is_large or self.seconds_left() <= 0

    def seconds_left(self) -> float:
        """Return how long the commit may still wait; infinite if there is none."""
        if self._since is None:
            return math.inf
        return self._since + limits.COMMIT_SECONDS - time.monotonic()
