"""Rows as the engine takes them: released events of all streams, one clock.

`cep.events.columns.EventColumns` is what a reader delivers, one stream at a
time; a `Batch` holds what the compiled rules need of it, as numbers: strings
are codes, absent is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from cep.engine.kernels.rows import (
    ENTRY_MS,
    ENTRY_SEQ,
    ID_HI,
    ID_LO,
    PLACE,
    ROWS,
    STREAM,
    TIME,
    TYPE,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cep.engine.interner import Interner


@dataclass(frozen=True, slots=True)
class Coding:
    """What the codes in some columns mean: places in ``texts``."""

    strings: Interner
    columns: tuple[int, ...]
    texts: list[str]

    def now(self) -> Coding:
        """Return what codes mean now; the same until the engine drops texts."""
        texts = self.strings.texts
        return self if self.texts is texts else replace(self, texts=texts)


@dataclass(slots=True)
class Batch:
    """Events as columns, n of them.

    Attributes
    ----------
    ints
        ``(ROWS, n)``: event time in ns; the number of the input stream in the
        pipeline's order; the entry id; the engine's type code, -1 for a type
        that no rule names; the bits of the event id. One table, so that a kernel
        gets it as one.
    cols
        ``(columns, n)``: the engine's columns, inputs filled and the rest NaN.
    coding
        What codes of strings in ``cols`` mean; None where there are none.
    """

    ints: NDArray[np.int64]
    cols: NDArray[np.float64]
    coding: Coding | None = None

    def __len__(self) -> int:
        return int(self.ints.shape[1])

    @property
    def time(self) -> NDArray[np.int64]:
        """Event times in ns."""
        row: NDArray[np.int64] = self.ints[TIME]
        return row

    @property
    def stream(self) -> NDArray[np.int64]:
        """Numbers of the input streams."""
        row: NDArray[np.int64] = self.ints[STREAM]
        return row

    @property
    def entry_ms(self) -> NDArray[np.int64]:
        """The first parts of the entry ids."""
        row: NDArray[np.int64] = self.ints[ENTRY_MS]
        return row

    @property
    def entry_seq(self) -> NDArray[np.int64]:
        """The second parts of the entry ids."""
        row: NDArray[np.int64] = self.ints[ENTRY_SEQ]
        return row

    @property
    def type(self) -> NDArray[np.int64]:
        """Type codes."""
        row: NDArray[np.int64] = self.ints[TYPE]
        return row

    @property
    def id_hi(self) -> NDArray[np.int64]:
        """The high halves of the event ids."""
        row: NDArray[np.int64] = self.ints[ID_HI]
        return row

    @property
    def id_lo(self) -> NDArray[np.int64]:
        """The low halves of the event ids."""
        row: NDArray[np.int64] = self.ints[ID_LO]
        return row

    @property
    def place(self) -> NDArray[np.int64]:
        """How many entries of the stream were read before each, where that is known."""
        row: NDArray[np.int64] = self.ints[PLACE]
        return row

    def take(self, which: NDArray[np.int64] | NDArray[np.bool_] | slice) -> Batch:
        """Return the rows at ``which``."""
        if isinstance(which, slice):
            return Batch(
                np.ascontiguousarray(self.ints[:, which]),
                np.ascontiguousarray(self.cols[:, which]),
                self.coding,
            )
        if which.dtype == np.bool_:
            which = np.flatnonzero(which)
        ints, cols = self.ints.take(which, axis=1), self.cols.take(which, axis=1)
        return Batch(ints, cols, self.coding)

    def renewed(self) -> Batch:
        """Return the rows with the codes that their strings have now."""
        old = self.coding
        if old is None or old.texts is old.strings.texts:
            return self
        cols = self.cols.copy()
        for column in old.columns:
            old.strings.renew(cols[column], old.texts)
        return Batch(self.ints, cols, old.now())

    @staticmethod
    def concat(parts: Sequence[Batch]) -> Batch:
        """Return the parts one after the other; at least one."""
        if len(parts) == 1:
            return parts[0]
        parts = [part.renewed() for part in parts]
        codings = [part.coding for part in parts if part.coding is not None]
        return Batch(
            np.concatenate([part.ints for part in parts], axis=1),
            np.concatenate([part.cols for part in parts], axis=1),
            codings[0] if codings else None,
        )

    @staticmethod
    def empty(columns: int) -> Batch:
        """Return no rows of ``columns`` columns."""
        return Batch(np.zeros((ROWS, 0), np.int64), np.zeros((columns, 0)))
