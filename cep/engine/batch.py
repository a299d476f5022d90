"""Rows as the engine takes them: released events of all streams, one clock.

`cep.events.columns.EventColumns` is what a reader delivers, one stream at a
time; a `Batch` holds what the compiled rules need of it, as numbers: strings
are codes, absent is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(slots=True)
class Batch:
    """Events as columns; all one-dimensional arrays have shape ``(n,)``.

    ``time`` is event time in ns; ``stream`` the number of the input stream in
    the pipeline's order; ``entry_ms`` and ``entry_seq`` the entry id; ``type``
    the engine's type code, -1 for a type that no rule names; ``id_hi`` and
    ``id_lo`` the bits of the event id; ``cols`` the engine's columns, shape
    ``(columns, n)``, inputs filled and the rest NaN.
    """

    time: NDArray[np.int64]
    stream: NDArray[np.int64]
    entry_ms: NDArray[np.int64]
    entry_seq: NDArray[np.int64]
    type: NDArray[np.int64]
    id_hi: NDArray[np.int64]
    id_lo: NDArray[np.int64]
    cols: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.time)

    def take(self, which: NDArray[np.int64] | NDArray[np.bool_] | slice) -> Batch:
        """Return the rows at ``which``."""
        return Batch(
            self.time[which],
            self.stream[which],
            self.entry_ms[which],
            self.entry_seq[which],
            self.type[which],
            self.id_hi[which],
            self.id_lo[which],
            np.ascontiguousarray(self.cols[:, which]),
        )

    @staticmethod
    def concat(parts: Sequence[Batch]) -> Batch:
        """Return the parts one after the other; at least one."""
        if len(parts) == 1:
            return parts[0]
        flat = [f.name for f in fields(Batch) if f.name != "cols"]
        joined: dict[str, Any] = {
            name: np.concatenate([getattr(p, name) for p in parts]) for name in flat
        }
        return Batch(**joined, cols=np.concatenate([p.cols for p in parts], axis=1))

    @staticmethod
    def empty(columns: int) -> Batch:
        """Return no rows of ``columns`` columns."""
        none = np.zeros(0, np.int64)
        return Batch(none, none, none, none, none, none, none, np.zeros((columns, 0)))
