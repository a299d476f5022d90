"""How the windows of a group go to bytes and back.

A key's state is a field that holds its latest rows and all else that changes with each
event, and one field for each `CHUNK_ROWS` rows before that. Rows are counted from a
key's first, so that a chunk is written once, when its last row is there, and goes when
its last row has left: what a commit writes of a key grows with what came, and not with
what the window holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cep.engine.growth import doubled, grown
from cep.engine.kernels import sums, windows
from cep.engine.state import (
    CHUNK_ROWS,
    Contradiction,
    WindowRows,
    WindowState,
    damaged,
    need,
    pack,
    places,
    unpack,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from cep.engine.running_windows import RunningWindows

    Field = tuple[int, str, bytes]  # the key's number, the field's name, what it holds

# Keys and rows that are put back together.
RESTORED_KEYS = 10_000
RESTORED_ROWS = 100_000
ENTERED_ROWS = 16_384


class StoredWindows:
    """Writes and restores the windows of one group."""

    def __init__(self, running: RunningWindows) -> None:
        self.running = running
        self.names, self.pair_names = running.names, running.pair_names
        self.strings = running.operator.plan.strings
        values = running.group.values
        self.text_columns = [n for n, value in enumerate(values) if value.kind == "str"]
        # Of each key, the first chunk that is stored and the one behind the last.
        self._stored = np.zeros((0, 2), np.int64)

    def _name(self, k: int) -> str:
        return self.running.prefix + self.running.space.canonical(k)

    def _chunk_name(self, k: int, number: int) -> str:
        running = self.running
        return f"c|{running.group.id}|{number}|{running.space.canonical(k)}"

    def _ensure_keys(self) -> None:
        self.running.ensure_keys()
        have = len(self._stored)
        if have < len(self.running.space):
            rows = doubled(max(have, 16), len(self.running.space))
            self._stored = grown(self._stored, rows)

    # Out ---------------------------------------------------------------------

    def changes(self, keys: Iterable[int]) -> Iterator[tuple[str, bytes | None]]:
        """Yield the fields of those keys that are not stored yet, None for those to go.

        From then on they are held to be stored.
        """
        self._ensure_keys()
        used = self.running.space.keys
        ks = np.array([k for k in keys if used[k] is not None], np.int64)
        facts = self.running.tables.keys[ks]
        lowest = facts[:, windows.K_BEGIN] // CHUNK_ROWS
        stored = self._stored[ks]
        left = np.minimum(lowest, stored[:, 1])
        for i in np.flatnonzero(stored[:, 0] < left).tolist():
            for number in range(int(stored[i, 0]), int(left[i])):
                yield self._chunk_name(int(ks[i]), number), None
        yield from self._written(ks, np.maximum(lowest, stored[:, 1]))
        self._stored[ks, 0] = lowest
        self._stored[ks, 1] = facts[:, windows.K_END] // CHUNK_ROWS

    def whole(self) -> Iterator[tuple[str, bytes | None]]:
        """Yield all fields."""
        self._ensure_keys()
        used = self.running.space.keys
        ks = np.array([k for k, key in enumerate(used) if key is not None], np.int64)
        yield from self._written(ks, np.zeros(ks.size, np.int64))

    def forget(self, k: int) -> list[str]:
        """Return the fields of a key that is given up."""
        self._ensure_keys()
        first, end = self._stored[k].tolist()
        self._stored[k] = 0
        return [self._name(k), *(self._chunk_name(k, n) for n in range(first, end))]

    def _written(
        self, ks: NDArray[np.int64], chunks: NDArray[np.int64]
    ) -> Iterator[tuple[str, bytes | None]]:
        """Yield the fields of keys, with chunks from those numbers on."""
        running, t = self.running, self.running.tables
        facts = t.keys[ks]
        first = np.maximum(facts[:, windows.K_BEGIN], chunks * CHUNK_ROWS)
        counts = facts[:, windows.K_END] - first
        at = np.cumsum(counts) - counts
        row = np.repeat(first - at, counts) + np.arange(counts.sum())
        mask = np.repeat(facts[:, windows.K_SIZE] - 1, counts)
        pool = np.repeat(facts[:, windows.K_BASE], counts) + (row & mask)
        times, rows = t.times[pool], t.rows[pool]
        table, pair_table = t.sums[ks], t.pair_sums[ks]
        closing: list[list[int]] = [[]] * ks.size
        if running.told_as >= 0:
            closing = running.closes.facts(running.told_as, ks)
        columns = [windows.K_BEGIN, windows.K_END, windows.K_ORDER]
        kept = facts[:, columns].tolist()
        for i, (k, now, place) in enumerate(
            zip(ks.tolist(), first.tolist(), at.tolist(), strict=True)
        ):
            begin, end, order = kept[i]
            if begin == end:
                yield self._name(k), None
                continue
            for number in range(now // CHUNK_ROWS, end // CHUNK_ROWS):
                n = (number + 1) * CHUNK_ROWS - now
                part = slice(place, place + n)
                chunk = self._rows(now, times[part], rows[part])
                yield self._chunk_name(k, number), pack(chunk)
                now, place = now + n, place + n
            part = slice(place, place + end - now)
            state = WindowState(
                begin,
                end,
                self._rows(now, times[part], rows[part]),
                table[i].tobytes(),
                pair_table[i].tobytes(),
                order,
                self.pair_names,
                closing[i],
            )
            yield self._name(k), pack(state)

    def _rows(
        self, first: int, times: NDArray[np.int64], rows: NDArray[np.float64]
    ) -> WindowRows:
        """Return rows as they are stored; in ``rows`` codes become places."""
        texts: dict[str, int] = {}
        for column in self.text_columns:
            for i in np.flatnonzero(~np.isnan(rows[:, column])).tolist():
                text = self.strings.text(int(rows[i, column]))
                rows[i, column] = texts.setdefault(text, len(texts))
        return WindowRows(
            first, times.tobytes(), rows.tobytes(), self.names, list(texts)
        )

    # Back --------------------------------------------------------------------

    def restore(
        self, fields: Sequence[Field], state: Mapping[str, bytes]
    ) -> Iterator[str]:
        """Put windows back; values that they did not hold start absent.

        ``fields`` are those that are no chunks. Yields the chunks' names.
        """
        self._ensure_keys()
        part = _Part(self)
        for k, name, blob in fields:
            stored = unpack(name, blob, WindowState)
            at = name
            try:
                stored.check()
                low, high = stored.begin // CHUNK_ROWS, stored.end // CHUNK_ROWS
                for number in range(low, high):
                    at = self._chunk_name(k, number)
                    if at not in state:
                        raise damaged(at, "it is missing")
                    chunk = unpack(at, state[at], WindowRows)
                    part.gather(chunk, stored.begin, (number + 1) * CHUNK_ROWS)
                    yield at
                at = name
                part.gather(stored.latest, stored.begin, stored.end)
            except Contradiction as error:
                raise damaged(at, str(error)) from error
            self._stored[k] = low, high
            part.add(k, name, stored)
            if part.is_full:
                part.enter()
                part = _Part(self)
        part.enter()
        self.running.take_dirty()


class _Part:
    """Windows of many keys that are put back together."""

    def __init__(self, to: StoredWindows) -> None:
        self.to = to
        self.keys: list[int] = []
        self.fields: list[str] = []
        self.states: list[WindowState] = []
        self.times: list[bytes] = []
        self.rows: list[bytes] = []
        self.size = 0

    @property
    def is_full(self) -> bool:
        return len(self.keys) >= RESTORED_KEYS or self.size >= RESTORED_ROWS

    def add(self, k: int, name: str, stored: WindowState) -> None:
        """Take a key whose rows have been gathered."""
        self.keys.append(k)
        self.fields.append(name)
        self.states.append(stored)
        self.size += stored.end - stored.begin

    def gather(self, stored: WindowRows, begin: int, end: int) -> None:
        """Take stored rows up to ``end``, those from ``begin`` on."""
        n, width = end - stored.first, len(self.to.names)
        skip = max(0, begin - stored.first)
        need(0 <= skip <= n and len(stored.times) == 8 * n)
        need(len(stored.rows) == 8 * n * len(stored.names))
        values = stored.rows
        if stored.names != self.to.names or self.to.text_columns:
            values = self._as_ours(stored, n).tobytes()
        self.times.append(stored.times[8 * skip :])
        self.rows.append(values[8 * skip * width :])

    def _as_ours(self, stored: WindowRows, n: int) -> NDArray[np.float64]:
        """Return stored rows with the values that we hold, in our order and codes."""
        need(len({name[:12] for name in stored.names}) == len(stored.names))
        table = np.frombuffer(stored.rows).reshape(n, len(stored.names))
        place = {name[:12]: there for there, name in enumerate(stored.names)}
        rows = np.full((n, len(self.to.names)), np.nan)
        for here, value in enumerate(self.to.names):
            if (there := place.get(value[:12])) is not None:
                rows[:, here] = table[:, there]
        codes = self.to.strings.codes(stored.texts)
        for column in self.to.text_columns:
            present = ~np.isnan(rows[:, column])
            rows[present, column] = codes[
                places(rows[present, column], len(stored.texts))
            ]
        return rows

    def enter(self) -> None:
        """Let all rows enter their windows again."""
        if not self.keys:
            return
        running, names = self.to.running, self.to.names
        ks, states = np.array(self.keys), self.states
        counts = np.array([stored.end - stored.begin for stored in states])
        times = np.frombuffer(b"".join(self.times), np.int64)
        rows = np.frombuffer(b"".join(self.rows)).reshape(len(times), len(names))
        owner = np.repeat(np.arange(ks.size), counts)
        present = ~np.isnan(rows)
        wrong = np.zeros(len(times), np.bool_)
        wrong[1:] = (times[1:] < times[:-1]) & (owner[1:] == owner[:-1])
        wrong |= (present & ~(np.abs(rows) <= windows.LARGEST)).any(axis=1)
        self._refuse(owner[wrong])
        kept = running.tables.keys
        kept[ks, windows.K_BEGIN] = kept[ks, windows.K_END] = [x.begin for x in states]
        for begin in range(0, len(times), ENTERED_ROWS):
            part = slice(begin, begin + ENTERED_ROWS)
            running.enter(ks[owner[part]], times[part], rows[part])
        kept = running.tables.keys
        held = kept[ks, windows.K_END] - kept[ks, windows.K_BEGIN]
        self._refuse(np.flatnonzero(held != counts), "its rows are not of one window")
        kept[ks, windows.K_ORDER] = [stored.order for stored in states]
        self._restore_sums(
            ks, np.add.reduceat(present, np.cumsum(counts) - counts, dtype=np.int64)
        )
        if running.told_as >= 0:
            ends = np.cumsum(counts).tolist()
            for k, stored, end in zip(self.keys, states, ends, strict=True):
                if stored.closing:
                    mine = times[end - (stored.end - stored.begin) : end]
                    running.closes.restore(running.told_as, k, mine, stored.closing)

    def _restore_sums(self, ks: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        """Put sums back as they stood, for ``counts`` values of each key.

        Letting the rows enter again rounds them afresh; a restart changes no bit.
        """
        groups: dict[tuple[str, ...], list[int]] = {}
        for i, stored in enumerate(self.states):
            groups.setdefault((*stored.latest.names, "", *stored.pairs), []).append(i)
        t = self.to.running.tables
        for mine in groups.values():
            stored = self.states[mine[0]]
            names, pairs = stored.latest.names, stored.pairs
            table = np.frombuffer(b"".join(self.states[i].sums for i in mine))
            table = table.reshape(len(mine), len(names), sums.SUMS_WIDTH)
            for here, name in enumerate(self.to.names):
                if name in names:
                    values = table[:, names.index(name)]
                    # An aggregate looks for as many values as are counted here.
                    differs = values[:, sums.N] != counts[mine, here]
                    self._refuse(np.array(mine)[differs])
                    t.sums[ks[mine], here] = values
            table = np.frombuffer(b"".join(self.states[i].pair_sums for i in mine))
            table = table.reshape(len(mine), len(pairs), sums.PAIRS_WIDTH)
            for here, name in enumerate(self.to.pair_names):
                if name in pairs:
                    t.pair_sums[ks[mine], here] = table[:, pairs.index(name)]

    def _refuse(
        self,
        which: NDArray[np.int64],
        why: str = "its parts contradict each other",
    ) -> None:
        if which.size:
            raise damaged(self.fields[int(which[0])], why)
