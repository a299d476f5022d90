"""Groups of windows and slots: what of a plan can share its rows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from cep.engine.kernels import ordered, sums, windows
from cep.rules.windows import ROWS, ROWS_PER_KEY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cep.rules.expressions import Key
    from cep.rules.windows import Span, WindowType

_SUMS = {
    "sum": sums.KEEPS_SUM,
    "avg": sums.KEEPS_MEAN,
    "var": sums.KEEPS_MEAN | sums.KEEPS_SQUARES,
    "std": sums.KEEPS_MEAN | sums.KEEPS_SQUARES,
}
_PLACED = ("first", "last", "rate")
_IN_ORDER = ("quantile", "distinct")


@dataclass(frozen=True, slots=True)
class WindowCounts:
    """What a group of windows or slots holds, and what limits have cost it.

    ``rows`` are events held (keys, for previous values and weighted means), ``dropped``
    events that left early because their key held too many, ``forgotten`` keys that
    lost what they had because all together held too many.
    """

    rows: int
    dropped: int
    forgotten: int


@dataclass(slots=True)
class WindowValue:
    """A value that a group of windows aggregates, and what must be kept for it."""

    key: Key
    column: int
    kind: str  # "str" where values are codes
    sums: int = 0  # bits
    places: bool = False
    lowest: int = -1
    highest: int = -1
    tree: int = -1

    @property
    def name(self) -> str:
        """What state calls it, and the sums that are kept of it."""
        digest = hashlib.sha256(repr(self.key).encode()).hexdigest()[:12]
        return f"{digest}:{self.sums}"

    def row(self) -> tuple[int, ...]:
        """Return the kernel's description."""
        kept = (self.lowest, self.highest, self.tree)
        more = self.places or max(kept) >= 0
        return (self.column, self.sums, more, self.places, *kept)


@dataclass(slots=True)
class WindowGroup:
    """Windows with one source, key and span: they share their rows.

    Events of ``types`` enter, where the batch column ``where`` is 1; those of ``looks``
    are told the aggregates. ``stage`` says how many windows deep the values are.
    """

    types: tuple[str, ...]
    where: int | None
    keyspace: int
    span: Span
    id: str
    stage: int = 0
    looks: set[str] = field(default_factory=set)
    values: list[WindowValue] = field(default_factory=list)
    pairs: list[tuple[int, int]] = field(default_factory=list)
    aggregates: list[tuple[int, int, int]] = field(default_factory=list)
    parameters: list[float] = field(default_factory=list)
    queues: int = 0
    trees: int = 0

    @property
    def columns(self) -> list[int]:
        """The batch columns that aggregates are written to."""
        return [column for _, _, column in self.aggregates]

    def value(self, key: Key, column: int, kind: str) -> int:
        """Return the number of a value."""
        for number, value in enumerate(self.values):
            if value.key == key:
                return number
        self.values.append(WindowValue(key, column, kind))
        return len(self.values) - 1

    def pair(self, x: int, y: int) -> int:
        """Return the number of a pair of values."""
        if (x, y) not in self.pairs:
            self.pairs.append((x, y))
        return self.pairs.index((x, y))

    def keep_for(self, function: str, number: int) -> None:
        """Keep what an aggregate of a value needs."""
        value = self.values[number]
        value.sums |= _SUMS.get(function, 0)
        value.places |= function in _PLACED
        if function == "min" and value.lowest < 0:
            value.lowest, self.queues = self.queues, self.queues + 1
        if function == "max" and value.highest < 0:
            value.highest, self.queues = self.queues, self.queues + 1
        if function in _IN_ORDER and value.tree < 0:
            value.tree, self.trees = self.trees, self.trees + 1

    def tables(self, roles: NDArray[np.uint8]) -> windows.Tables:
        """Return the kernel's tables, empty; ``roles`` says what types do."""
        span, values, trees = self.span, len(self.values), self.trees
        at_most = span.length if span.kind == "events" else ROWS_PER_KEY
        where = -1 if self.where is None else self.where
        kind = windows.KINDS[span.kind]
        spec = [kind, span.length, span.every, at_most, ROWS, where]
        described = [x.row() for x in self.values]
        return windows.Tables(
            spec=np.array(spec, np.int64),
            roles=roles,
            values=_table(described, windows.VALUE_WIDTH),
            pairs=_table(self.pairs, 2),
            aggregates=_table(self.aggregates, 3),
            parameters=np.array(self.parameters, np.float64),
            keys=np.zeros((0, windows.KEY_WIDTH), np.int64),
            links=np.zeros((0, 2), np.int64),
            ends=np.array([-1, -1], np.int64),
            sums=np.zeros((0, values, sums.SUMS_WIDTH)),
            pair_sums=np.zeros((0, len(self.pairs), sums.PAIRS_WIDTH)),
            places=np.zeros((0, 2 * values), np.int64),
            fronts=np.zeros((0, 2 * self.queues), np.int64),
            roots=np.zeros((0, ordered.ROOT_WIDTH * trees), np.int64),
            free=np.full(windows.CLASSES, -1, np.int64),
            counters=np.zeros(windows.COUNTER_WIDTH, np.int64),
            dirty=np.zeros(0, np.int64),
            times=np.zeros(64, np.int64),
            rows=np.zeros((64, values)),
            queues=np.zeros((64, self.queues), np.int64),
            nodes=np.zeros((64, ordered.NODE_WIDTH * trees), np.int64),
        )


@dataclass(frozen=True, slots=True)
class Closing:
    """Rows that tell of the windows of a group when they close.

    ``code`` is their type's; ``held`` the batch column that says how many events a
    window holds.
    """

    type: WindowType
    code: int
    group: WindowGroup
    held: int


@dataclass(slots=True)
class SlotGroup:
    """Previous values and weighted means with one source and key."""

    types: tuple[str, ...]
    keyspace: int
    id: str
    stage: int = 0
    keys: list[Key] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)  # "str" where values are codes
    slots: list[tuple[int, int, int]] = field(default_factory=list)
    half_lives: list[float] = field(default_factory=list)


def _table(rows: Sequence[tuple[int, ...]], width: int) -> NDArray[np.int64]:
    return np.array(rows, np.int64).reshape(-1, width)
