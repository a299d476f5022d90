"""Windows that close: when, and the rows that tell of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cep.engine.batch import Batch
from cep.engine.growth import doubled, grown
from cep.engine.kernels import closing, rows, windows
from cep.engine.kernels.handle import handle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from cep.engine.operator import Operator
    from cep.engine.window_plan import WindowGroup

OUT_ROWS = 16_384  # windows told of at once
NS_PER_MS = 1_000_000
LONG_AGO = np.iinfo(np.int64).min


class RunningCloses:
    """Tells of the windows of some groups when they close.

    ``until_ns`` is the time up to which they have been told of: it and the rows of
    the windows say what is still to come.
    """

    def __init__(self, operator: Operator) -> None:
        plan = operator.plan
        self.closings = plan.closings
        self.until_ns: int = LONG_AGO
        kinds = len(self.closings)
        spec = np.zeros((kinds, closing.SPEC_WIDTH), np.int64)
        enters = np.zeros((kinds, len(plan.types) + 1), np.uint8)
        for kind, told in enumerate(self.closings):
            group, where = told.group, told.group.where
            spec[kind] = (
                windows.KINDS[group.span.kind],
                group.span.length,
                group.span.every,
                -1 if where is None else where,
                group.keyspace,
            )
            enters[kind] = operator.types_mask(group.types)
        self._spec, self._enters = spec, enters
        self.keys = np.zeros((0, kinds, closing.KEY_WIDTH), np.int64)
        self._heap = np.zeros((0, 2), np.int64)
        self._counters = np.zeros(closing.COUNTER_WIDTH, np.int64)
        self._out = np.zeros((OUT_ROWS if kinds else 0, closing.OUT_WIDTH), np.int64)
        self._spaces = [plan.keyspaces[told.group.keyspace] for told in self.closings]
        self._times = {
            number: column.name
            for number, column in plan.inputs.items()
            if column.kind == "float"
        }
        # What enters may depend on columns that are computed of each event.
        self.needs_columns = any(told.group.where is not None for told in self.closings)
        self._hold()

    def __bool__(self) -> bool:
        return bool(self.closings)

    def _hold(self) -> None:
        facts: list[NDArray[Any]] = [self._spec, self._enters, self.keys, self._heap]
        self._handle = handle([*facts, self._counters, self._out])

    def number_of(self, group: WindowGroup) -> int:
        """Return the number of a group among those that are told of, or -1."""
        found = [n for n, told in enumerate(self.closings) if told.group is group]
        return found[0] if found else -1

    def ensure_keys(self) -> None:
        """Make room for every key of the spaces."""
        need = max(map(len, self._spaces), default=0)
        if need <= len(self.keys):
            return
        size = doubled(max(len(self.keys), 16), need)
        self.keys = grown(self.keys, size)
        self._heap = grown(self._heap, size * len(self.closings))
        self._hold()

    def is_due(self, now_ns: int) -> bool:
        """Whether a window may close if time passes to then."""
        return bool(self._counters[closing.C_HEAP] and self._heap[0, 0] <= now_ns)

    def waits(self) -> bool:
        """Whether any window is open."""
        return bool(self._counters[closing.C_HEAP])

    def told(
        self, batch: Batch, keys: NDArray[np.int64], until_ns: int
    ) -> Iterator[tuple[Batch, NDArray[np.int64]]]:
        """Yield a batch in parts, with rows that tell of windows put in.

        With each part comes where in it these rows are. Their time is 1 ns before the
        window's end: what they see of windows is then what there was at the end.
        """
        self.ensure_keys()
        begin = 0
        while True:
            row = closing.close(
                self._handle, batch.ints, batch.cols, keys, begin, until_ns
            )
            reached = len(batch) if row < 0 else row
            part = batch
            if begin or reached < len(batch):
                part = batch.take(slice(begin, reached))
            yield self._put_in(part, begin)
            if row < 0:
                break
            begin = reached
        last = int(batch.time[-1]) if len(batch) else LONG_AGO
        self.until_ns = max(self.until_ns, until_ns, last)

    def _put_in(self, batch: Batch, first: int) -> tuple[Batch, NDArray[np.int64]]:
        n = int(self._counters[closing.C_OUT])
        if not n:
            return batch, np.zeros(0, np.int64)
        out = self._out[:n]
        # Of windows that end together, the order of timers is that of nothing.
        by = (closing.O_LO, closing.O_HI, closing.O_KIND, closing.O_END)
        out = out[np.lexsort([out[:, column] for column in by])]
        self._counters[closing.C_OUT] = 0
        at = out[:, closing.O_ROW] - first + np.arange(n)
        is_event = np.ones(len(batch) + n, np.bool_)
        is_event[at] = False
        made = Batch(
            np.empty((rows.ROWS, is_event.size), np.int64),
            np.empty((len(batch.cols), is_event.size)),
            batch.coding,
        )
        made.ints[:, is_event], made.cols[:, is_event] = batch.ints, batch.cols
        ints, cols = self._rows(out, len(batch.cols))
        made.ints[:, at], made.cols[:, at] = ints, cols
        return made, at

    def _rows(
        self, out: NDArray[np.int64], columns: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the rows that tell of windows, as a batch has them."""
        codes = np.array([told.code for told in self.closings])
        kind, end = out[:, closing.O_KIND], out[:, closing.O_END]
        ints = np.zeros((rows.ROWS, len(out)), np.int64)
        ints[rows.TIME] = end - 1
        ints[rows.TYPE] = codes[kind]
        ints[rows.ID_HI], ints[rows.ID_LO] = out[:, closing.O_HI], out[:, closing.O_LO]
        cols = np.full((columns, len(out)), np.nan)
        start_ms, end_ms = out[:, closing.O_START] // NS_PER_MS, end // NS_PER_MS
        said: dict[str, NDArray[Any]] = {
            "@type": codes[kind],
            "@time": end_ms,
            "event_time": end_ms,
            "window_start": start_ms,
            "window_end": end_ms,
        }
        for number, name in self._times.items():
            if name in said:
                cols[number] = said[name]
        for number, space in enumerate(self._spaces):
            mine = kind == number
            if space.columns and mine.any():
                split = space.columns_of(out[mine, closing.O_KEY])
                cols[np.ix_(space.columns, mine)] = split
        return ints, cols

    def settle(self, batch: Batch, told: NDArray[np.int64]) -> None:
        """Give rows that tell of windows the windows' ends as their times.

        Of one that holds no event any more, as a limit has made it forget them, there
        is nothing to be told.
        """
        if not told.size:
            return
        batch.ints[rows.TIME, told] += 1
        types = batch.ints[rows.TYPE]
        for one in self.closings:
            mine = told[types[told] == one.code]
            types[mine[batch.cols[one.held, mine] == 0.0]] = -1

    # State -------------------------------------------------------------------

    def facts(self, number: int, ks: NDArray[np.int64]) -> list[list[int]]:
        """Return what is stored of keys: the last event's id, the session's begin."""
        self.ensure_keys()
        found: list[list[int]] = self.keys[ks, number, closing.K_HI :].tolist()
        return found

    def restore(
        self, number: int, k: int, times: NDArray[np.int64], facts: list[int]
    ) -> None:
        """Put a key back whose window holds events of those times."""
        self.ensure_keys()
        key = self.keys[k, number]
        key[closing.K_LAST], key[closing.K_HI :] = times[-1], facts
        end = self._next_end(number, times)
        if end > self.until_ns:
            closing.set_timer(self._handle, np.int64(k), np.int64(number), end)

    def _next_end(self, number: int, times: NDArray[np.int64]) -> int:
        """Return when the first window ends that has not been told of."""
        span, done = self.closings[number].group.span, self.until_ns
        first, last = int(times[0]), int(times[-1])
        if span.kind == "session":
            return last + span.length
        length, every = span.length, span.every
        begin = (first - length) // every + 1
        if done > first:
            begin = (done - length) // every + 1
            at = int(np.searchsorted(times, begin * every))
            if at == len(times):
                return done
            begin = max(begin, (int(times[at]) - length) // every + 1)
        return min(begin * every + length, closing.FOR_EVER)

    def mark_idle(self, number: int, idle: NDArray[np.bool_]) -> None:
        """Clear ``idle`` for keys with an open window."""
        self.ensure_keys()
        idle &= self.keys[: len(idle), number, closing.K_TIMED] == 0
