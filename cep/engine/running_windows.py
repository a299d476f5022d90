"""The state of one group of windows: its tables, and how they go to bytes and back."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from cep.engine.growth import doubled, grown
from cep.engine.kernels import windows
from cep.engine.state import WindowState, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from cep.engine.batch import Batch
    from cep.engine.operator import Operator
    from cep.engine.plan import WindowGroup


class RunningWindows:
    """The state of one group of windows."""

    def __init__(self, group: WindowGroup, operator: Operator) -> None:
        self.group, self.operator = group, operator
        self.space = operator.plan.keyspaces[group.keyspace]
        self.spec = group.spec()
        self.types = [operator.plan.types.index(t) for t in group.types]
        self.prefix = f"w|{group.id}|"
        # A rule that changes may add values to a window that others keep, or
        # take some away, so state says which it holds ("+": squares, too).
        self.names = [
            hashlib.sha256(repr(key).encode()).hexdigest()[:12] + "+" * squares
            for key, squares in zip(group.value_keys, group.squares, strict=True)
        ]
        values, queues = len(group.values), group.queues
        counters = np.zeros(windows.COUNTER_WIDTH, np.int64)
        counters[windows.C_BLOCK_FREE] = -1
        self.store = windows.Store(
            keys=np.zeros((0, windows.KEY_WIDTH), np.int64),
            acc=np.zeros((0, values, windows.ACC_WIDTH)),
            queues=np.zeros((0, queues, 4), np.int64),
            times=np.zeros((64, windows.BLOCK), np.int64),
            rows=np.zeros((64, windows.BLOCK, max(1, values))),
            links=np.zeros((64, 2), np.int64),
            counters=counters,
            dirty=np.zeros(0, np.int64),
        )

    def ensure_keys(self) -> None:
        """Make room for every key of the space."""
        need, have = len(self.space), len(self.store.keys)
        if need <= have:
            return
        rows = doubled(max(have, 16), need)
        store = self.store
        keys = grown(store.keys, rows)
        keys[have:, windows.Q_HEAD] = keys[have:, windows.Q_TAIL] = -1
        queues = grown(store.queues, rows)
        queues[have:, :, windows.Q_HEAD] = queues[have:, :, windows.Q_TAIL] = -1
        self.store = store._replace(
            keys=keys,
            acc=grown(store.acc, rows),
            queues=queues,
            dirty=grown(store.dirty, rows),
        )

    def ensure_blocks(self, more: int) -> None:
        """Make room for ``more`` blocks."""
        store, c = self.store, self.store.counters
        need = int(c[windows.C_BLOCK_BUMP]) + more
        if need > len(store.links):
            rows = doubled(len(store.links), need)
            self.store = store._replace(
                times=grown(store.times, rows),
                rows=grown(store.rows, rows),
                links=grown(store.links, rows),
            )

    def feed(self, batch: Batch, key: NDArray[np.int64]) -> None:
        """Take in a batch and write the aggregates into its columns."""
        self.ensure_keys()
        rows = self.operator.rows_of(batch, self.types)
        if self.group.where is None:
            enters = np.ones(rows.size, np.bool_)
        else:
            enters = batch.cols[self.group.where, rows] == 1.0
        at = 0
        while True:
            at = windows.feed(
                self.spec, self.store, rows, enters, key, batch.time, batch.cols, at
            )
            if at == rows.size:
                return
            self.ensure_blocks(len(self.store.links))

    def take_dirty(self) -> list[int]:
        """Return the keys that changed since the last call."""
        store, c = self.store, self.store.counters
        dirty: list[int] = store.dirty[: c[windows.C_DIRTY]].tolist()
        store.keys[dirty, windows.K_DIRTY] = 0
        c[windows.C_DIRTY] = 0
        return dirty

    def fields(self, keys: Iterable[int]) -> Iterator[tuple[str, bytes | None]]:
        """Yield the state fields of those keys; None for one that holds nothing."""
        self.ensure_keys()
        store = self.store
        for k in keys:
            if self.space.keys[k] is None:
                continue
            name = self.prefix + self.space.canonical(k)
            n = int(store.keys[k, windows.K_ROWS])
            if n == 0:
                yield name, None
                continue
            times = np.empty(n, np.int64)
            rows = np.empty((n, store.rows.shape[2]))
            windows.export_key(store, k, times, rows)
            yield (
                name,
                pack(
                    WindowState(
                        times.tobytes(),
                        rows.tobytes(),
                        store.acc[k].tobytes(),
                        int(store.keys[k, windows.K_LAST]),
                        self.names,
                    )
                ),
            )

    def restore(self, k: int, name: str, blob: bytes) -> None:
        """Put one key's window back; values that it did not hold start absent."""
        state = unpack(name, blob, WindowState)
        times, stored, acc = state.arrays()
        names = state.names
        self.ensure_keys()
        rows = np.full((times.size, self.store.rows.shape[2]), np.nan)
        place = {name.rstrip("+"): there for there, name in enumerate(names)}
        for here, value in enumerate(self.names):
            if (there := place.get(value.rstrip("+"))) is not None:
                rows[:, here] = stored[:, there]
        self.ensure_blocks((times.size // windows.BLOCK + 2) * (1 + self.group.queues))
        windows.import_key(self.spec, self.store, k, times, rows)
        # Inserting the rows again rounds the sums afresh; the accumulators are
        # part of the state so that a restart changes no bit.
        for here, value in enumerate(self.names):
            if value in names:
                self.store.acc[k, here] = acc[names.index(value)]
        self.store.keys[k, windows.K_LAST] = state.last_ns

    def mark_idle(self, watermark_ns: int, idle: NDArray[np.bool_]) -> None:
        """Clear ``idle`` for keys that this part still needs."""
        self.ensure_keys()
        keys = self.store.keys[: len(idle)]
        past = watermark_ns - self.group.length_ns  # the sum may overflow
        idle &= (keys[:, windows.K_ROWS] == 0) | (keys[:, windows.K_LAST] <= past)

    def forget(self, k: int) -> str:
        """Drop a key's rows; returns its state field."""
        everything = self.spec._replace(length=0)
        windows.evict(everything, self.store, k, np.iinfo(np.int64).max)
        self.store.keys[k, windows.K_LAST] = 0
        return self.prefix + self.space.canonical(k)
