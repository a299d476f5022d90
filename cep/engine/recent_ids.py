"""Which events of a stream are copies of another, by their ids.

A publisher that did not hear whether its event was written writes it again.
The copy has the same id and comes within the stream's out-of-orderness bound,
or is late; so what must be remembered are the ids of events that are not below
the stream's watermark. An id is what an event is: a copy counts as one whatever
else it says, another time too. The horizon is judged by the time of the first
one: once that lies below the watermark, its id may be used again.

All ids that are remembered belong to rows that are still held back, for rows
below the watermark alone are released. So there is no state to be stored: a
restart, which reads those rows again, remembers them by it.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import numpy as np

from cep.engine.kernels import recent_ids as kernels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cep.engine.batch import Batch

PART_ROWS = 16_384  # taken in at once, so that a large batch needs no large table
LEAST_ROWS = 1024


class RecentIds:
    """The ids of one stream's events that are not below its watermark."""

    def __init__(self) -> None:
        self._used = 0
        self._make(LEAST_ROWS)
        # Of no influence on what is found.
        self._key = np.frombuffer(secrets.token_bytes(16), np.uint64).copy()

    def __len__(self) -> int:
        """How many ids there is room for, at most eight times what is needed."""
        return len(self._log)

    def judge(
        self, batch: Batch, marks: NDArray[np.int64], late: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Take in arrivals of the stream; returns which repeat an earlier id.

        Parameters
        ----------
        marks
            ``(n,)``: the stream's watermark as each row arrived, never falling.
        late
            ``(n,)``: rows that are neither compared nor remembered.
        """
        n = len(batch)
        duplicate = np.zeros(n, np.bool_)
        for begin in range(0, n, PART_ROWS):
            part = slice(begin, min(begin + PART_ROWS, n))
            self._make_room(part.stop - begin, int(marks[begin]))
            self._take(batch, part, marks, late, duplicate)
        return duplicate

    def put_back(self, batch: Batch) -> None:
        """Remember rows that were judged before; of equal ids the latest time."""
        if n := len(batch):
            none = np.zeros(n, np.bool_)
            self._make_room(n, np.iinfo(np.int64).min)
            self._take(batch, slice(0, n), batch.time, none, none.copy())

    def _take(
        self,
        batch: Batch,
        part: slice,
        marks: NDArray[np.int64],
        late: NDArray[np.bool_],
        duplicate: NDArray[np.bool_],
    ) -> None:
        self._used = kernels.judge(
            self._slots,
            self._log,
            self._used,
            self._key,
            batch.id_hi[part],
            batch.id_lo[part],
            batch.time[part],
            marks[part],
            late[part],
            duplicate[part],
        )

    def _make_room(self, rows: int, mark: int) -> None:
        if self._used + rows <= len(self._log):
            return
        self._slots.fill(0)
        self._compact(self._log, mark)
        wanted = max(LEAST_ROWS, 1 << (2 * (self._used + rows) - 1).bit_length())
        if not wanted <= len(self._log) <= 8 * wanted:
            log = self._log
            self._make(wanted)
            self._compact(log, mark)

    def _make(self, rows: int) -> None:
        self._log = np.empty((rows, kernels.WIDTH), np.int64)
        self._slots = np.zeros(2 * rows, np.uint64)

    def _compact(self, log: NDArray[np.int64], mark: int) -> None:
        self._used = kernels.compact(
            log, self._used, mark, self._slots, self._log, self._key
        )
