"""The state of one group of windows: its tables, and how they go to bytes and back."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from cep.engine.growth import doubled, grown
from cep.engine.kernels import windows
from cep.engine.kernels.handle import handle
from cep.engine.kernels.ordered import ROOT, ROOT_WIDTH
from cep.engine.kernels.recency import NOWHERE, line_up
from cep.engine.state import WindowState, pack, unpack
from cep.engine.window_plan import WindowCounts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from cep.engine.batch import Batch
    from cep.engine.operator import Operator
    from cep.engine.window_plan import WindowGroup

RESTORED_ROWS = 4096  # rows put back at once


class RunningWindows:
    """The state of one group of windows."""

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
        self._hold()

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
        self.handle = handle(self.tables)

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

    def feed(self, batch: Batch, key: NDArray[np.int64], order: int) -> None:
        """Take in a batch and write the aggregates into its columns."""
        self.ensure_keys()
        self._feed(batch.time, batch.type, key, batch.cols, order)

    def _feed(
        self,
        time: NDArray[np.int64],
        types: NDArray[np.int64],
        key: NDArray[np.int64],
        cols: NDArray[np.float64],
        order: int,
    ) -> None:
        at = 0
        while True:
            at = windows.feed(self.handle, time, types, key, cols, at, order)
            if at == len(time):
                return
            if self.tables.counters[windows.C_LISTED] == windows.ASKED:
                self._list_keys()
            else:
                self._double_pool()

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

    def _places(self, k: int) -> NDArray[np.int64]:
        """Return where a key's rows are in the pool, oldest first."""
        base, size, begin, end = self.tables.keys[k, : windows.K_END + 1].tolist()
        places: NDArray[np.int64] = base + (np.arange(begin, end) & (size - 1))
        return places

    def fields(self, keys: Iterable[int]) -> Iterator[tuple[str, bytes | None]]:
        """Yield the state fields of those keys; None for one that holds nothing."""
        self.ensure_keys()
        t, texts_of = self.tables, self.operator.plan.strings
        for k in keys:
            if self.space.keys[k] is None:
                continue
            name = self.prefix + self.space.canonical(k)
            if not self._rows_of(k):
                yield name, None
                continue
            places = self._places(k)
            rows, texts = t.rows[places], dict[str, int]()
            for column, codes in self._text_columns(rows):
                rows[codes, column] = [
                    texts.setdefault(texts_of.text(int(code)), len(texts))
                    for code in rows[codes, column].tolist()
                ]
            state = WindowState(
                t.times[places].tobytes(),
                rows.tobytes(),
                t.sums[k].tobytes(),
                t.pair_sums[k].tobytes(),
                int(t.keys[k, windows.K_ORDER]),
                self.names,
                self.pair_names,
                list(texts),
                self.closes.facts(self.told_as, k) if self.told_as >= 0 else [],
            )
            yield name, pack(state)

    def codes(self) -> Iterator[NDArray[np.float64]]:
        """Yield all that holds codes of strings, to be changed in place."""
        for column, value in enumerate(self.group.values):
            if value.kind == "str":
                yield self.tables.rows[:, column]

    def _text_columns(
        self, rows: NDArray[np.float64]
    ) -> Iterator[tuple[int, NDArray[np.bool_]]]:
        for column, value in enumerate(self.group.values):
            if value.kind == "str":
                yield column, ~np.isnan(rows[:, column])

    def restore(self, k: int, name: str, blob: bytes) -> None:
        """Put one key's window back; values that it did not hold start absent."""
        state = unpack(name, blob, WindowState)
        times, stored, sums, pair_sums = state.arrays()
        self.ensure_keys()
        rows = np.full((len(times), len(self.names)), np.nan)
        place = {name[:12]: there for there, name in enumerate(state.names)}
        for here, value in enumerate(self.names):
            if (there := place.get(value[:12])) is not None:
                rows[:, here] = stored[:, there]
        codes = self.operator.plan.strings.codes(state.texts)
        for column, present in self._text_columns(rows):
            rows[present, column] = codes[state.text_places(rows[present, column])]
        self._put_back(k, times, rows, state.order)
        if self.told_as >= 0 and state.closing:
            self.closes.restore(self.told_as, k, times, state.closing)
        # Inserting the rows again rounds the sums afresh; as they stood they are
        # part of the state so that a restart changes no bit.
        t = self.tables
        for here, value in enumerate(self.names):
            if value in state.names:
                t.sums[k, here] = sums[state.names.index(value)]
        for here, pair in enumerate(self.pair_names):
            if pair in state.pairs:
                t.pair_sums[k, here] = pair_sums[state.pairs.index(pair)]

    def _put_back(
        self, k: int, times: NDArray[np.int64], rows: NDArray[np.float64], order: int
    ) -> None:
        """Let the rows of a key enter again."""
        one = np.array([self.types[0]], np.int64)
        for begin in range(0, len(times), RESTORED_ROWS):
            part = slice(begin, begin + RESTORED_ROWS)
            n = len(times[part])
            cols = np.full((self.operator.plan.column_count, n), np.nan)
            cols[[value.column for value in self.group.values]] = rows[part].T
            if self.group.where is not None:
                cols[self.group.where] = 1.0
            key = np.full(n, k, np.int64)
            self._feed(times[part], one.repeat(n), key, cols, order)
        if self._rows_of(k) != len(times):
            msg = "its rows are not of one window"
            raise ValueError(msg)
        self.tables.keys[k, windows.K_ORDER] = order

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

    def forget(self, k: int) -> str:
        """Drop a key's rows; returns its state field."""
        if self._rows_of(k):
            windows.forget(self.handle, np.int64(k))
        return self.prefix + self.space.canonical(k)
