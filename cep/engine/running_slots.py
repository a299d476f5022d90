"""The state of previous values and weighted means, as tables and as bytes."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from cep.engine.growth import doubled, grown
from cep.engine.kernels import slots
from cep.engine.kernels.handle import WORDS, handle
from cep.engine.kernels.recency import NOWHERE, line_up
from cep.engine.state import Contradiction, SlotState, damaged, need, pack, unpack
from cep.engine.window_plan import WindowCounts
from cep.rules.windows import KEYS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from cep.engine.batch import Batch
    from cep.engine.operator import Operator
    from cep.engine.window_plan import SlotGroup


class RunningSlots:
    """The state of one group of slots; a `cep.engine.work.Step`.

    A key is kept until more than `KEYS` have been seen since: nothing else says
    that its values are no longer wanted.
    """

    kernel = slots.feed

    def __init__(self, group: SlotGroup, operator: Operator) -> None:
        self.group, self.operator = group, operator
        self.space = operator.plan.keyspaces[group.keyspace]
        self.prefix = f"s|{group.id}|"
        self.names = [
            hashlib.sha256(repr(key).encode()).hexdigest()[:12] for key in group.keys
        ]
        self.keys = np.zeros((0, slots.KEY_WIDTH), np.int64)
        self.links = np.zeros((0, 2), np.int64)
        self.values = np.zeros((0, len(group.slots), 2))
        self.dirty = np.zeros(0, np.int64)
        self._ends = np.array([-1, -1])
        self._counters = np.zeros(slots.COUNTER_WIDTH, np.int64)
        self._counters[slots.C_LIMIT] = KEYS
        self._enters = operator.types_mask(group.types)
        self._slots = np.array(group.slots, np.int64)
        self._half_lives = np.array(group.half_lives)
        self._restored: list[int] = []
        self.argument = group.keyspace
        self.handle = np.zeros((9, WORDS), np.int64)
        self._hold()

    @property
    def description(self) -> str:
        """Say which values these are."""
        by = ", ".join(self.operator.plan.space_fields(self.space))
        return f"{' '.join(self.group.types)} by {by or 'nothing'} before"

    def counts(self) -> WindowCounts:
        """Return what is held, and what the limit has cost."""
        c = self._counters
        return WindowCounts(int(c[slots.C_KEYS]), 0, int(c[slots.C_FORGOTTEN]))

    def _hold(self) -> None:
        self.handle[:] = handle(
            [
                self._enters,
                self._slots,
                self._half_lives,
                self.keys,
                self.links,
                self._ends,
                self.values,
                self._counters,
                self.dirty,
            ]
        )

    def ensure_keys(self) -> None:
        """Make room for every key of the space."""
        need, have = len(self.space), len(self.keys)
        if need <= have:
            return
        rows = doubled(max(have, 16), need)
        self.keys = grown(self.keys, rows)
        self.links = grown(self.links, rows, NOWHERE)
        self.values = grown(self.values, rows)
        self.values[have:, self._slots[:, 0] == slots.PREVIOUS, 0] = np.nan
        self.dirty = grown(self.dirty, rows)
        self._hold()

    def help(self, batch: Batch, at: int, end: int) -> int:
        """Is never asked for: the kernel of slots always gets to the end."""
        raise AssertionError(at, end)

    def take_dirty(self) -> list[int]:
        """Return the keys that changed since the last call."""
        c = self._counters
        dirty: list[int] = self.dirty[: c[slots.C_DIRTY]].tolist()
        self.keys[dirty, slots.K_DIRTY] = 0
        c[slots.C_DIRTY] = 0
        return dirty

    def changes(self, keys: Iterable[int]) -> Iterator[tuple[str, bytes | None]]:
        """Yield the state fields of those keys; None for one that holds nothing."""
        self.ensure_keys()
        for k in keys:
            if self.space.keys[k] is None:
                continue
            name = self.prefix + self.space.canonical(k)
            if not self.keys[k, slots.K_SEEN]:
                yield name, None
                continue
            values, texts = self.values[k].copy(), dict[str, int]()
            for slot in self._text_slots(values):
                text = self.operator.plan.strings.text(int(values[slot, 0]))
                values[slot, 0] = texts.setdefault(text, len(texts))
            last, order = self.keys[k, [slots.K_LAST, slots.K_ORDER]].tolist()
            state = SlotState(values.tobytes(), last, order, self.names, list(texts))
            yield name, pack(state)

    def whole(self) -> Iterator[tuple[str, bytes | None]]:
        """Yield all state fields."""
        return self.changes(range(len(self.space)))

    def codes(self) -> Iterator[NDArray[np.float64]]:
        """Yield all that holds codes of strings, to be changed in place."""
        for slot, kind in enumerate(self.group.kinds):
            if kind == "str":
                yield self.values[:, slot, 0]

    def _text_slots(self, values: NDArray[np.float64]) -> list[int]:
        return [
            slot
            for slot, kind in enumerate(self.group.kinds)
            if kind == "str" and not np.isnan(values[slot, 0])
        ]

    def restore(
        self, fields: Sequence[tuple[int, str, bytes]], _: object
    ) -> tuple[str, ...]:
        """Put the slots of keys back; there are no further fields.

        Slots that a key did not hold start absent.
        """
        for k, name, blob in fields:
            try:
                self._restore(k, unpack(name, blob, SlotState))
            except Contradiction as error:
                raise damaged(name, str(error)) from error
        self._link_restored()
        return ()

    def _restore(self, k: int, state: SlotState) -> None:
        stored = state.array()
        self.ensure_keys()
        values = self.values[k]
        for here, name in enumerate(self.names):
            if name in state.names:
                values[here] = stored[state.names.index(name)]
        for slot in self._text_slots(values):
            need(values[slot, 0] in range(len(state.texts)))
            text = state.texts[int(values[slot, 0])]
            values[slot, 0] = self.operator.plan.strings.code(text)
        self.keys[k, slots.K_SEEN] = 1
        self.keys[k, [slots.K_LAST, slots.K_ORDER]] = state.last_ns, state.order
        self._restored.append(k)

    def _link_restored(self) -> None:
        """Line up restored keys as they were seen."""
        if self._restored:
            line_up(self.links, self._ends, self.keys[:, slots.K_ORDER], self._restored)
            self._counters[slots.C_KEYS] = len(self._restored)
            self._restored.clear()

    def mark_idle(self, watermark_ns: int, idle: NDArray[np.bool_]) -> None:
        """Clear ``idle`` for keys that have a value to remember."""
        self.ensure_keys()
        idle &= self.keys[: len(idle), slots.K_SEEN] == 0

    def forget(self, k: int) -> list[str]:
        """Drop what a key has; returns its state fields."""
        slots.forget(self.handle, np.int64(k))
        return [self.prefix + self.space.canonical(k)]
