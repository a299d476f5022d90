"""The state of one group of windows."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from cep.engine.batch import Batch
from cep.engine.growth import doubled, grown
from cep.engine.kernels import windows
from cep.engine.kernels.handle import handle
from cep.engine.kernels.ordered import ROOT, ROOT_WIDTH
from cep.engine.kernels.recency import NOWHERE, line_up
from cep.engine.kernels.rows import ROWS, TIME, TYPE
from cep.engine.stored_windows import StoredWindows
from cep.engine.window_plan import WindowCounts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from cep.engine.operator import Operator
    from cep.engine.stored_windows import Field
    from cep.engine.window_plan import WindowGroup


class RunningWindows:
    """The state of one group of windows; a `cep.engine.work.Step`."""

    kernel = windows.feed

    def __init__(self, group: WindowGroup, operator: Operator) -> None:
        self.group, self.operator = group, operator
        self.space = operator.plan.keyspaces[group.keyspace]
        self.types = [operator.plan.types.index(t) for t in group.types]
        self.prefix = f"w|{group.id}|"
        # A rule that changes may add values to a window that others keep, or
        # take some away, so state says which it holds.
        self.names = [value.name for value in group.values]
        self.pair_names = [
            hashlib.sha256(
                f"{self.names[x][:12]} {self.names[y][:12]}".encode()
            ).hexdigest()[:12]
            for x, y in group.pairs
        ]
        roles = windows.ENTERS * operator.types_mask(group.types)
        roles += windows.LOOKS * operator.types_mask(group.looks)
        self.tables = group.tables(roles)
        self.closes, self.told_as = operator.closes, operator.closes.number_of(group)
        self.stored = StoredWindows(self)
        self.argument = group.keyspace
        self.handle = handle(self.tables)

    @property
    def description(self) -> str:
        """Say which windows these are."""
        group, by = self.group, ", ".join(self.operator.plan.space_fields(self.space))
        where = "" if group.where is None else ", some"
        return f"{' '.join(group.types)}{where} by {by or 'nothing'} {group.span})"

    def counts(self) -> WindowCounts:
        """Return what is held, and what limits have cost."""
        c = self.tables.counters
        by_count = self.group.span.kind == "events"
        return WindowCounts(
            int(c[windows.C_ROWS]),
            0 if by_count else int(c[windows.C_DROPPED]),
            int(c[windows.C_FORGOTTEN]),
        )

    def _hold(self) -> None:
        self.handle[:] = handle(self.tables)

    def ensure_keys(self) -> None:
        """Make room for every key of the space."""
        need, have = len(self.space), len(self.tables.keys)
        if need <= have:
            return
        rows, t = doubled(max(have, 16), need), self.tables
        roots = grown(t.roots, rows)
        roots[have:, ROOT::ROOT_WIDTH] = -1
        self.tables = t._replace(
            keys=grown(t.keys, rows),
            links=grown(t.links, rows, NOWHERE),
            sums=grown(t.sums, rows),
            pair_sums=grown(t.pair_sums, rows),
            places=grown(t.places, rows),
            fronts=grown(t.fronts, rows),
            roots=roots,
            dirty=grown(t.dirty, rows),
        )
        self._hold()

    def _double_pool(self) -> None:
        t, rows = self.tables, 2 * len(self.tables.times)
        self.tables = t._replace(
            times=grown(t.times, rows),
            rows=grown(t.rows, rows),
            queues=grown(t.queues, rows),
            nodes=grown(t.nodes, rows),
        )
        self._hold()

    def help(self, batch: Batch, at: int, end: int) -> int:
        """Make room for rows, or begin to know which keys were not seen for long."""
        if self.tables.counters[windows.C_LISTED] == windows.ASKED:
            self._list_keys()
        else:
            self._double_pool()
        return at

    def _list_keys(self) -> None:
        """Begin to keep keys as they were last seen."""
        t = self.tables
        held = np.flatnonzero(t.keys[:, windows.K_BEGIN] < t.keys[:, windows.K_END])
        line_up(t.links, t.ends, t.keys[:, windows.K_ORDER], held.tolist())
        t.counters[windows.C_LISTED] = 1

    def take_dirty(self) -> list[int]:
        """Return the keys that changed since the last call."""
        t = self.tables
        dirty: list[int] = t.dirty[: t.counters[windows.C_DIRTY]].tolist()
        t.keys[dirty, windows.K_DIRTY] = 0
        t.counters[windows.C_DIRTY] = 0
        return dirty

    def _rows_of(self, k: int) -> int:
        keys = self.tables.keys
        return int(keys[k, windows.K_END] - keys[k, windows.K_BEGIN])

    def enter(
        self,
        key: NDArray[np.int64],
        times: NDArray[np.int64],
        rows: NDArray[np.float64],
    ) -> None:
        """Let rows that are stored enter again: times (n,), values (n, values)."""
        n = len(times)
        ints = np.zeros((ROWS, n), np.int64)
        ints[TIME], ints[TYPE] = times, self.types[0]
        cols = np.full((self.operator.plan.column_count, n), np.nan)
        cols[[value.column for value in self.group.values]] = rows.T
        if self.group.where is not None:
            cols[self.group.where] = 1.0
        self.operator.feed_windows(self, Batch(ints, cols), key)

    def codes(self) -> Iterator[NDArray[np.float64]]:
        """Yield all that holds codes of strings, to be changed in place."""
        for column in self.stored.text_columns:
            yield self.tables.rows[:, column]

    def changes(self, keys: Iterable[int]) -> Iterator[tuple[str, bytes | None]]:
        """Yield what must be stored of those keys; see `StoredWindows.changes`."""
        return self.stored.changes(keys)

    def whole(self) -> Iterator[tuple[str, bytes | None]]:
        """Yield all state fields."""
        return self.stored.whole()

    def restore(
        self, fields: Sequence[Field], state: Mapping[str, bytes]
    ) -> Iterable[str]:
        """Put windows back; returns the names of further fields that are theirs."""
        return self.stored.restore(fields, state)

    def mark_idle(self, watermark_ns: int, idle: NDArray[np.bool_]) -> None:
        """Clear ``idle`` for keys that this part still needs."""
        self.ensure_keys()
        keys, span = self.tables.keys[: len(idle)], self.group.span
        left = keys[:, windows.K_BEGIN] == keys[:, windows.K_END]
        if span.kind != "events":
            past = watermark_ns - span.length  # the sum may overflow
            if span.every > 1:
                past = (past // span.every + 1) * span.every - 1
            left |= keys[:, windows.K_LAST] <= past
        idle &= left
        if self.told_as >= 0:
            self.closes.mark_idle(self.told_as, idle)

    def forget(self, k: int) -> list[str]:
        """Drop a key's rows; returns its state fields."""
        if self._rows_of(k):
            windows.forget(self.handle, np.int64(k))
        return self.stored.forget(k)
