"""Durable ticks: time goes on while all streams are silent.

A tick is an entry of a stream of the pipeline's own, so that its id is of the
same clock as those of the input, and a restart sees the same time.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cep.pipeline import limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from cep.engine.ordering import Ordering
    from cep.pipeline.pending import Pending
    from cep.pipeline.store import Store


class Ticks:
    """Writes and reads ticks; ``passed`` is the last one that time has reached."""

    def __init__(self, store: Store, passed: str) -> None:
        self._store = store
        self.passed = self._read = passed
        self._end_read = False
        self._last = time.monotonic()

    def pass_on(self, ordering: Ordering, pending: Pending) -> None:
        """Let time go on to the ticks read: all older entries have been read now.

        Only a read that was begun after the ticks were read tells so. Until
        then a commit must not pass them either, or a restart would miss them.
        """
        if self.passed == self._read:
            return
        self.passed = self._read
        pending.dirty = True
        ordering.arrived(int(self.passed.partition("-")[0]))
        if self._end_read:
            ordering.end()

    def read(self, *, idle: bool, waits_for_time: Callable[[], bool]) -> None:
        """Read new ticks, now and then or when idle; write one if it is waited for."""
        now = time.monotonic()
        if not idle and now - self._last < limits.TICK_SECONDS:
            return
        for entry_id, fields in self._store.read_ticks(self._read):
            self._read = entry_id
            self._end_read |= fields.get(b"kind") == b"end"
        if now - self._last < limits.TICK_SECONDS:
            return
        self._last = now
        if idle and waits_for_time():
            self._store.tick()
