"""The engine: a pure function from (state, batch, watermark) to outputs.

`Operator` holds the state of a set of rules. `ingest` turns one stream's
columns into engine rows, `step` takes released rows in event-time order and
returns what they derive. It knows no Redis, no DataFrame and no clock: live,
history and a distributed engine are edges around it.

State is per (rule, key) and per (window, key). `delta` returns what changed
since the last call as bytes by field name, `snapshot` everything, `restore`
puts either back; from any event boundary on, results are identical.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cep.engine.batch import Batch
from cep.engine.derive import DerivedEvent, derived_events, leaf_value
from cep.engine.kernels import nfa, vm, windows
from cep.engine.plan import Plan
from cep.engine.state import (
    EngineState,
    MatchState,
    WindowState,
    damaged,
    pack,
    unpack,
)
from cep.errors import OutOfOrderError, RuleError, StateVersionError
from cep.rules.types import ENVELOPE, payload_kinds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from cep.engine.plan import CompiledRule, ComputedColumn, WindowGroup
    from cep.events.columns import Column, EventColumns
    from cep.rules.expressions import Python
    from cep.rules.rule import Rule

NS_PER_MS = 1_000_000
_ENGINE_FIELD = "engine"
# Keys with nothing left to remember are given back when this many have piled
# up: sweeping is linear in the keys, so it must be rare.
SWEEP_AT = 10_000


@dataclass(slots=True)
class RuleCounts:
    """What one rule has done so far; every number only grows but ``live``."""

    matches: int = 0
    emitted: int = 0
    suppressed: int = 0
    timeouts: int = 0
    dropped_partials: int = 0
    live_partials: int = 0
    tripped: bool = False


@dataclass(slots=True)
class Outputs:
    """What a step derived, in order of event time."""

    events: list[DerivedEvent] = field(default_factory=list)


class Operator:
    """Runs rules over batches.

    Parameters
    ----------
    rules
        The rules, in the order in which their outputs are put out.

    Examples
    --------
    >>> from cep.rules import count, e, emit, on, rule
    >>> @rule("first-of-many", key="symbol")
    ... def burst():
    ...     busy = on("market.trade").where(count().over("1s") >= 3)
    ...     return busy, emit(price=e.price)
    >>> operator = Operator([burst])
    >>> sorted(operator.reads["market.trade"])
    ['price', 'symbol']
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.plan = Plan(rules)
        self.reads = self.plan.reads()
        programs = self.plan.programs
        self._code, self._slices = programs.code, programs.slices
        self._consts = programs.consts
        self._windows = [_Windows(group, self) for group in self.plan.windows]
        self._rules = [_RuleState(compiled, self) for compiled in self.plan.compiled]
        self._parts: list[_Windows | _RuleState] = [*self._windows, *self._rules]
        self._order = 0
        self._time = 0
        self._swept = 0
        self._removed: dict[str, None] = {}

    # Events in ---------------------------------------------------------------

    def ingest(self, columns: EventColumns, stream: int) -> Batch:
        """Turn good rows of one stream into engine rows, order kept.

        ``stream`` is the stream's number, which decides the order of rows with
        equal event times.
        """
        plan, n = self.plan, len(columns)
        cols = np.full((plan.column_count, n), np.nan)
        code_of = {name: code for code, name in enumerate(plan.types)}
        codes = np.array([code_of.get(t, -1) for t in columns.types] or [-1], np.int64)
        types = codes[columns.type_code] if n else np.zeros(0, np.int64)
        for number, column in plan.inputs.items():
            self._load(cols[number], column.name, column.kind, columns, types)
        return Batch(
            columns.time_ms * NS_PER_MS,
            np.full(n, stream, np.int64),
            columns.entry_ms,
            columns.entry_seq,
            types,
            columns.id_hi.view(np.int64),
            columns.id_lo.view(np.int64),
            cols,
        )

    def _load(
        self,
        out: NDArray[np.float64],
        name: str,
        kind: str,
        columns: EventColumns,
        types: NDArray[np.int64],
    ) -> None:
        if name == "@type":
            out[:] = types
            return
        if name not in ENVELOPE:
            self._load_payload(out, name, kind, columns)
            return
        strings = self.plan.strings
        if kind == "str" and name in ("correlation_id", "user_id"):
            envelope = columns.fields.get(f"@{name}")
            if envelope is not None:
                _copy(out, envelope, kind, strings.codes, absent="")
        if name == "event_time":
            out[:] = columns.time_ms
        elif name == "type":
            out[:] = strings.codes(columns.types)[columns.type_code]
        elif name == "stream":
            out[:] = strings.code(columns.stream)
        # Where a type has the field in its payload, that one is meant, or nothing.
        for code, event_type in enumerate(self.plan.types):
            if name in payload_kinds(event_type):
                out[types == code] = np.nan
        self._load_payload(out, name, kind, columns)

    def _load_payload(
        self, out: NDArray[np.float64], name: str, kind: str, columns: EventColumns
    ) -> None:
        for field_name, column in columns.fields.items():
            if field_name.rpartition(":")[2] == name:
                _copy(out, column, kind, self.plan.strings.codes)

    def step(self, batch: Batch, watermark_ns: int) -> Outputs:
        """Take in rows in release order and let time pass to the watermark.

        ``batch`` must be sorted by (time, stream, entry id) and lie below the
        watermark; rows of earlier steps must not be later than its first.

        Raises
        ------
        OutOfOrderError
            If a time falls, in this batch or from the one before.
        """
        n = len(batch)
        if n:
            self._check_order(batch.time)
        order = np.arange(self._order, self._order + n, dtype=np.int64)
        self._order += n
        outputs = Outputs()
        if n:
            keys = [space.numbers(batch.cols) for space in self.plan.keyspaces]
            for computed in self.plan.computed:
                self._compute(computed, batch)
            for window in self._windows:
                window.feed(batch, keys[window.group.keyspace])
            for rule in self._rules:
                rule.feed(batch, keys[rule.compiled.keyspace], order, outputs.events)
        for rule in self._rules:
            rule.pass_time(watermark_ns, outputs.events)
        outputs.events.sort(key=lambda event: event.time_ns)
        if sum(s.live for s in self.plan.keyspaces) > self._swept + SWEEP_AT:
            self.sweep(watermark_ns)
        return outputs

    def _check_order(self, times: NDArray[np.int64]) -> None:
        falls = np.flatnonzero(times[1:] < times[:-1])
        if times[0] < self._time:
            raise OutOfOrderError("Operator.step", int(times[0]), self._time)
        if falls.size:
            i = int(falls[0])
            raise OutOfOrderError("Operator.step", int(times[i + 1]), int(times[i]))
        self._time = int(times[-1])

    def rows_of(self, batch: Batch, types: Sequence[int]) -> NDArray[np.int64]:
        """Return the rows whose type is one of ``types``."""
        if len(types) == 1:
            return np.flatnonzero(batch.type == types[0])
        return np.flatnonzero(np.isin(batch.type, types))

    def run_program(
        self, program: int, batch: Batch, rows: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Run a program of the event alone over some rows."""
        out = np.empty(rows.size)
        begin, end = self._slices[program]
        vm.run_rows(
            self._code,
            begin,
            end,
            self._consts,
            self.plan.strings.tables(),
            batch.cols,
            rows,
            out,
        )
        return out

    def _compute(self, computed: ComputedColumn, batch: Batch) -> None:
        types = [self.plan.types.index(t) for t in computed.types]
        rows = self.rows_of(batch, types)
        if computed.program is not None:
            batch.cols[computed.column, rows] = self.run_program(
                computed.program, batch, rows
            )
            return
        assert computed.python is not None
        texts = self.plan.strings.texts
        for i in rows.tolist():
            args = [
                leaf_value(float(batch.cols[c, i]), kind, texts)
                for c, kind in zip(computed.reads, computed.kinds, strict=True)
            ]
            try:
                result = computed.python.function(*args)
            except Exception as error:
                raise RuleError(
                    str(computed.python),
                    f"raised {type(error).__name__}: {error}, given {args!r:.200}",
                    "mend the function; the event waits for it",
                ) from error
            batch.cols[computed.column, i] = _number(result, computed.python)

    # State -------------------------------------------------------------------

    def counts(self) -> dict[str, RuleCounts]:
        """Return each rule's counts."""
        return {r.compiled.rule.name: r.counts() for r in self._rules}

    def keys(self) -> int:
        """Return how many keys have state."""
        return sum(space.live for space in self.plan.keyspaces)

    def delta(self) -> dict[str, bytes | None]:
        """Return the state that changed since the last call; None: the field goes."""
        changed: dict[str, bytes | None] = dict.fromkeys(self._removed, None)
        self._removed.clear()
        for part in self._parts:
            changed.update(part.fields(part.take_dirty()))
        changed[_ENGINE_FIELD] = self._engine_state()
        return changed

    def snapshot(self) -> dict[str, bytes]:
        """Return the whole state; the next delta is what it would have been."""
        fields = {
            name: blob
            for part in self._parts
            for name, blob in part.fields(range(len(part.space)))
            if blob is not None
        }
        fields[_ENGINE_FIELD] = self._engine_state()
        return fields

    def _engine_state(self) -> bytes:
        tripped = {
            rule.prefix: at
            for rule in self._rules
            if (at := rule.tripped_at) is not None
        }
        return pack(EngineState(self._order, tripped))

    def restore(self, state: Mapping[str, bytes]) -> list[str]:
        """Put back a snapshot into a new operator.

        Returns the fields of rules and windows that are not here, or that have
        changed: those begin without state.

        Raises
        ------
        StateVersionError
            If a field was written by other code or is damaged. The operator is
            then of no use.
        """
        parts = {part.prefix: part for part in self._parts}
        unknown = []
        for name, blob in state.items():
            if name == _ENGINE_FIELD:
                self._restore_engine(unpack(name, blob, EngineState))
                continue
            kind, _, rest = name.partition("|")
            identity, _, key = rest.partition("|")
            part = parts.get(f"{kind}|{identity}|")
            if part is None:
                unknown.append(name)
                continue
            try:
                k = part.space.from_canonical(key)
                part.restore(k, name, blob)
            except StateVersionError:
                raise
            except ValueError as error:
                raise damaged(name, str(error)) from error
        return unknown

    def _restore_engine(self, state: EngineState) -> None:
        self._order = state.order
        for rule in self._rules:
            if rule.prefix in state.tripped:
                rule.trip(state.tripped[rule.prefix])

    def sweep(self, watermark_ns: int) -> int:
        """Give back keys that have nothing left to remember; returns how many."""
        swept = 0
        for space in self.plan.keyspaces:
            if not space.columns:
                continue
            idle = np.array([key is not None for key in space.keys], np.bool_)
            users = [part for part in self._parts if part.space is space]
            for user in users:
                user.mark_idle(watermark_ns, idle)
            for k in np.flatnonzero(idle).tolist():
                for user in users:
                    self._removed[user.forget(k)] = None
                space.release(k)
                swept += 1
        self._swept = self.keys()
        return swept


def _number(result: object, call: Python) -> float:
    """Return what a Python function returned as a column holds it."""
    if result is None:
        return np.nan
    if not isinstance(result, (bool, int, float, np.bool_, np.integer, np.floating)):
        raise RuleError(
            str(call),
            f"returned {result!r:.60}, a {type(result).__name__}",
            "return a number, a truth value, or None for absent",
        )
    try:
        number = float(result)
    except OverflowError:
        return np.nan
    return number if np.isfinite(number) else np.nan


def _copy(
    out: NDArray[np.float64],
    column: Column,
    kind: str,
    codes_of: Any,
    absent: str | None = None,
) -> None:
    """Copy a column's valid rows; a column of the other kind is another type's."""
    is_text = column.texts is not None
    if is_text != (kind == "str"):
        return
    valid = np.ones(len(out), bool) if column.valid is None else column.valid
    if is_text:
        texts = column.texts or []
        if not texts:
            return
        if absent in texts:
            valid = valid & (column.values != texts.index(absent))
        values = column.values[valid]
        if len(texts) > 2 * len(values):  # a small slice of a large frame
            used, values = np.unique(values, return_inverse=True)
            texts = [texts[code] for code in used.tolist()]
        out[valid] = codes_of(texts)[values]
    elif valid.all():
        out[:] = column.values
    else:
        out[valid] = column.values[valid]


def _grown(array: NDArray[Any], rows: int, fill: Any = 0) -> NDArray[Any]:
    """Return a copy with ``rows`` rows."""
    out = np.full((rows, *array.shape[1:]), fill, array.dtype)
    out[: len(array)] = array
    return out


def _doubled(rows: int, need: int) -> int:
    while rows < need:
        rows *= 2
    return rows


class _Windows:
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
        rows = _doubled(max(have, 16), need)
        store = self.store
        keys = _grown(store.keys, rows)
        keys[have:, windows.Q_HEAD] = keys[have:, windows.Q_TAIL] = -1
        queues = _grown(store.queues, rows)
        queues[have:, :, windows.Q_HEAD] = queues[have:, :, windows.Q_TAIL] = -1
        self.store = store._replace(
            keys=keys,
            acc=_grown(store.acc, rows),
            queues=queues,
            dirty=_grown(store.dirty, rows),
        )

    def ensure_blocks(self, more: int) -> None:
        """Make room for ``more`` blocks."""
        store, c = self.store, self.store.counters
        need = int(c[windows.C_BLOCK_BUMP]) + more
        if need > len(store.links):
            rows = _doubled(len(store.links), need)
            self.store = store._replace(
                times=_grown(store.times, rows),
                rows=_grown(store.rows, rows),
                links=_grown(store.links, rows),
            )

    def feed(self, batch: Batch, key: NDArray[np.int64]) -> None:
        """Take in a batch and write the aggregates into its columns."""
        self.ensure_keys()
        rows = self.operator.rows_of(batch, self.types)
        if self.group.where is None:
            enters = np.ones(rows.size, np.bool_)
        else:
            enters = self.operator.run_program(self.group.where, batch, rows) == 1.0
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


class _RuleState:
    """The state of one rule."""

    def __init__(self, compiled: CompiledRule, operator: Operator) -> None:
        self.compiled, self.operator = compiled, operator
        self.space = operator.plan.keyspaces[compiled.keyspace]
        rule = compiled.rule
        self.prefix = f"r|{rule.name}:{rule.hash}|"
        self.suppressed = self.emitted = 0
        # Whether a leaf is a code of a string, or a number as it stands.
        self.leaf_kinds = [
            "str" if kind in ("str", "json") else "float"
            for kind in compiled.leaf_kinds
        ]
        self.conditions = np.array(compiled.conditions, np.int32)
        self.program = nfa.Program(
            operator._code,
            operator._slices,
            operator._consts,
            compiled.edges,
            compiled.states,
            compiled.params(),
            np.array(compiled.iterative, np.int32),
            np.array(compiled.captures, np.int32),
            np.array(compiled.leaves, np.int32),
        )
        counters = np.zeros(nfa.COUNTER_WIDTH, np.int64)
        counters[nfa.C_PARTIAL_FREE] = counters[nfa.C_NODE_FREE] = -1
        leaves = len(compiled.leaves)
        self.arena = nfa.Arena(
            partials=np.zeros((256, nfa.PARTIAL_WIDTH), np.int64),
            nodes=np.zeros((256, vm.NODE_WIDTH), np.int64),
            vals=np.zeros((256, len(compiled.captures))),
            held=np.zeros((256, leaves)),
            keys=np.zeros((0, nfa.KEY_WIDTH), np.int64),
            counters=counters,
            heap=np.zeros((0, 2), np.int64),
            dirty=np.zeros(0, np.int64),
            out=np.zeros((256, nfa.OUT_WIDTH), np.int64),
            outv=np.zeros((256, leaves)),
        )
        none = np.zeros(0, np.int64)
        columns = max(1, operator.plan.column_count)
        self._scratch = np.zeros(0, np.int64)
        self._nothing = nfa.Events(
            none,
            none,
            none,
            none,
            none,
            none,
            none,
            np.full((columns, 1), np.nan),
            operator.plan.strings.tables(),
        )

    def ensure_keys(self) -> None:
        """Make room for every key of the space."""
        need, have = len(self.space), len(self.arena.keys)
        if need <= have:
            return
        rows = _doubled(max(have, 16), need)
        keys = _grown(self.arena.keys, rows)
        keys[have:, [nfa.K_HEAD, nfa.K_TAIL, nfa.K_HELD]] = -1
        keys[have:, nfa.K_EMITTED] = nfa.NEVER
        self.arena = self.arena._replace(
            keys=keys,
            heap=_grown(self.arena.heap, rows),
            dirty=_grown(self.arena.dirty, rows),
        )

    def ensure(self, partials: int, nodes: int) -> None:
        """Make room for that many more of each."""
        arena, c = self.arena, self.arena.counters
        need = int(c[nfa.C_PARTIAL_BUMP]) + partials
        if need > len(arena.partials):
            rows = _doubled(len(arena.partials), need)
            arena = arena._replace(
                partials=_grown(arena.partials, rows), held=_grown(arena.held, rows)
            )
        need = int(c[nfa.C_NODE_BUMP]) + nodes
        if need > len(arena.nodes):
            rows = _doubled(len(arena.nodes), need)
            arena = arena._replace(
                nodes=_grown(arena.nodes, rows), vals=_grown(arena.vals, rows)
            )
        self.arena = arena

    def make_room(self, k: int) -> None:
        """Make room for the worst that one event of a key may need."""
        arena, c = self.arena, self.arena.counters
        live, held = (int(arena.keys[k, x]) for x in (nfa.K_COUNT, nfa.K_HELD_COUNT))
        need = (live + 1) * self.compiled.branch + live
        self.ensure(
            max(0, 2 * need - int(c[nfa.C_PARTIAL_FREED])),
            max(0, need - int(c[nfa.C_NODE_FREED])),
        )
        if len(arena.out) < 2 * need + held:
            rows = _doubled(len(arena.out), 2 * need + held)
            self.arena = self.arena._replace(
                out=_grown(arena.out, rows), outv=_grown(arena.outv, rows)
            )

    def feed(
        self,
        batch: Batch,
        key: NDArray[np.int64],
        order: NDArray[np.int64],
        out: list[DerivedEvent],
    ) -> None:
        """Take in a batch and append what it derives."""
        self.ensure_keys()
        operator = self.operator
        rows = operator.rows_of(batch, self.compiled.types)
        if not rows.size:
            return
        bits = np.zeros(rows.size, np.int64)
        tables = operator.plan.strings.tables()
        vm.condition_bits(
            operator._code,
            operator._slices,
            self.conditions,
            operator._consts,
            tables,
            batch.cols,
            rows,
            bits,
        )
        events = nfa.Events(
            rows,
            bits,
            key,
            batch.time,
            order,
            batch.id_hi,
            batch.id_lo,
            batch.cols,
            tables,
        )
        at = 0
        while True:
            at = nfa.feed(self.program, self.arena, events, at)
            self.drain(out)
            if at == rows.size:
                return
            self.make_room(int(key[rows[at]]))

    def pass_time(self, now_ns: int, out: list[DerivedEvent]) -> None:
        """Let time pass: expire partial matches, release absences."""
        arena = self.arena
        if not arena.counters[nfa.C_HEAP] or arena.heap[0, 0] > now_ns:
            return
        # What matches captured may be tested by what they emit.
        tables = self.operator.plan.strings.tables()
        nothing = self._nothing._replace(tables=tables)
        while not nfa.pass_time(self.program, self.arena, nothing, now_ns):
            self.drain(out)
            self.make_room(int(self.arena.heap[0, 1]))
        self.drain(out)

    def drain(self, out: list[DerivedEvent]) -> None:
        """Turn complete matches into derived events."""
        arena = self.arena
        n = int(arena.counters[nfa.C_OUT])
        if not n:
            return
        lengths = np.zeros(n, np.int64)
        nfa.match_lengths(arena, lengths)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        hi, lo, steps = (np.zeros(offsets[-1], np.int64) for _ in range(3))
        nfa.materialise(arena, offsets, hi, lo, steps)
        rows = arena.out[:n]
        seen: set[str] = set()
        for j in self._release_order(rows, lengths):
            span = offsets[j : j + 2]
            self._derive(rows[j], arena.outv[j], span, hi, lo, steps, out, seen)
        nfa.clear_out(arena)

    @staticmethod
    def _release_order(
        rows: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> list[int]:
        """Order matches of one event: earliest start, then longest."""
        if len(rows) == 1:
            return [0]
        same = rows[:, [nfa.O_KEY, nfa.O_TIME, nfa.O_ROW]]
        group = np.cumsum((np.diff(same, axis=0) != 0).any(axis=1))
        group = np.concatenate([[0], group])
        picked = np.lexsort((-lengths, rows[:, nfa.O_START], group))
        return picked.tolist()  # type: ignore[no-any-return]

    def _derive(
        self,
        row: NDArray[np.int64],
        values: NDArray[np.float64],
        span: NDArray[np.int64],
        hi: NDArray[np.int64],
        lo: NDArray[np.int64],
        steps: NDArray[np.int64],
        out: list[DerivedEvent],
        seen: set[str],
    ) -> None:
        compiled, k, time = self.compiled, int(row[nfa.O_KEY]), int(row[nfa.O_TIME])
        keys = self.arena.keys
        cooldown = compiled.rule.cooldown_ns
        if cooldown:
            last = int(keys[k, nfa.K_EMITTED])
            if last != nfa.NEVER and time - last < cooldown:
                self.suppressed += 1
                return
            keys[k, nfa.K_EMITTED] = time
            if not keys[k, nfa.K_DIRTY]:
                keys[k, nfa.K_DIRTY] = 1
                c = self.arena.counters
                self.arena.dirty[c[nfa.C_DIRTY]] = k
                c[nfa.C_DIRTY] += 1
        a, b = span.tolist()
        texts = self.operator.plan.strings.texts
        events = derived_events(
            compiled,
            time_ns=time,
            key_parts=self.space.parts(k),
            key_canonical=self.space.canonical(k),
            ids=list(zip(hi[a:b].tolist(), lo[a:b].tolist(), strict=True)),
            steps=[compiled.variables[v] for v in steps[a:b].tolist()],
            values=[
                leaf_value(value, kind, texts)
                for value, kind in zip(
                    values.tolist(), compiled.leaf_kinds, strict=True
                )
            ],
        )
        for event in events:
            # Two routes through the automaton may bind the same events.
            if event.id not in seen:
                seen.add(event.id)
                out.append(event)
                self.emitted += 1

    def counts(self) -> RuleCounts:
        """Return what the rule has done so far."""
        c = self.arena.counters
        return RuleCounts(
            matches=int(c[nfa.C_MATCHES]),
            emitted=self.emitted,
            suppressed=self.suppressed,
            timeouts=int(c[nfa.C_TIMEOUTS]),
            dropped_partials=int(c[nfa.C_DROPPED]),
            live_partials=int(c[nfa.C_LIVE]),
            tripped=bool(c[nfa.C_TRIPPED]),
        )

    @property
    def tripped_at(self) -> int | None:
        """When the rule stopped at its limit (event time, ns); None if it runs."""
        c = self.arena.counters
        return int(c[nfa.C_TRIPPED_AT]) if c[nfa.C_TRIPPED] else None

    def trip(self, at_ns: int) -> None:
        """Stop the rule, as it was before a restart."""
        self.arena.counters[[nfa.C_TRIPPED, nfa.C_TRIPPED_AT]] = 1, at_ns

    def take_dirty(self) -> list[int]:
        """Return the keys that changed since the last call."""
        arena, c = self.arena, self.arena.counters
        dirty: list[int] = arena.dirty[: c[nfa.C_DIRTY]].tolist()
        arena.keys[dirty, nfa.K_DIRTY] = 0
        c[nfa.C_DIRTY] = 0
        return dirty

    def fields(self, keys: Iterable[int]) -> Iterator[tuple[str, bytes | None]]:
        """Yield the state fields of those keys; None for one that holds nothing."""
        self.ensure_keys()
        if len(self._scratch) < len(self.arena.nodes):
            self._scratch = np.full(len(self.arena.nodes), -1, np.int64)
        for k in keys:
            if self.space.keys[k] is not None:
                yield self.prefix + self.space.canonical(k), self._export(k)

    def _export(self, k: int) -> bytes | None:
        arena = self.arena
        matches, size = nfa.key_size(arena, k)
        emitted = int(arena.keys[k, nfa.K_EMITTED])
        if not matches and emitted == nfa.NEVER:
            return None
        partials = np.zeros((matches, nfa.PARTIAL_WIDTH), np.int64)
        held = np.zeros((matches, arena.held.shape[1]))
        size = min(size, len(arena.nodes))
        nodes = np.zeros((size, vm.NODE_WIDTH), np.int64)
        vals = np.zeros((size, arena.vals.shape[1]))
        live, waiting, count = nfa.export_key(
            arena, k, self._scratch, partials, nodes, vals, held
        )
        nodes, vals = nodes[:count], vals[:count].copy()
        nodes[:, vm.REFS] = 0
        texts: dict[str, int] = {}
        self._swap_texts(vals, self.compiled.capture_kinds, texts)
        self._swap_texts(held, self.leaf_kinds, texts)
        return pack(
            MatchState(
                live,
                waiting,
                partials.tobytes(),
                nodes.tobytes(),
                vals.tobytes(),
                held.tobytes(),
                list(texts),
                emitted,
                int(arena.keys[k, nfa.K_LAST]),
            )
        )

    def _swap_texts(
        self, values: NDArray[np.float64], kinds: Sequence[str], texts: dict[str, int]
    ) -> None:
        """Replace engine codes of strings by codes of the blob's own list."""
        strings = self.operator.plan.strings
        for j, kind in enumerate(kinds):
            if kind == "str":
                column = values[:, j]
                for i in np.flatnonzero(~np.isnan(column)).tolist():
                    text = strings.text(int(column[i]))
                    column[i] = texts.setdefault(text, len(texts))

    def restore(self, k: int, name: str, blob: bytes) -> None:
        """Put one key's matches back."""
        state = unpack(name, blob, MatchState)
        compiled = self.compiled
        partials, nodes, vals, held = state.arrays(
            len(compiled.states),
            len(compiled.variables),
            compiled.capture_kinds,
            self.leaf_kinds,
        )
        codes = self.operator.plan.strings.codes(state.texts)
        vals = self._with_codes(vals, compiled.capture_kinds, codes)
        held = self._with_codes(held, self.leaf_kinds, codes)
        self.ensure_keys()
        self.ensure(len(partials), len(nodes))
        nfa.import_key(
            self.program,
            self.arena,
            k,
            state.live,
            state.waiting,
            partials,
            nodes,
            vals,
            held,
        )
        self.arena.keys[k, nfa.K_EMITTED] = state.emitted_ns
        self.arena.keys[k, nfa.K_LAST] = state.last_ns

    @staticmethod
    def _with_codes(
        values: NDArray[np.float64], kinds: Sequence[str], codes: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        out = values.copy()
        for j, kind in enumerate(kinds):
            if kind == "str":
                present = ~np.isnan(out[:, j])
                out[present, j] = codes[out[present, j].astype(np.int64)]
        return out

    def mark_idle(self, watermark_ns: int, idle: NDArray[np.bool_]) -> None:
        """Clear ``idle`` for keys that this part still needs."""
        self.ensure_keys()
        keys = self.arena.keys[: len(idle)]
        idle &= (keys[:, nfa.K_HEAD] < 0) & (keys[:, nfa.K_HELD] < 0)
        emitted = keys[:, nfa.K_EMITTED]
        cooled = emitted <= watermark_ns - self.compiled.rule.cooldown_ns
        idle &= (emitted == nfa.NEVER) | cooled

    def forget(self, k: int) -> str:
        """Drop a key; returns its state field."""
        self.arena.keys[k, nfa.K_EMITTED] = nfa.NEVER
        return self.prefix + self.space.canonical(k)


__all__ = ["Batch", "DerivedEvent", "Operator", "Outputs", "RuleCounts"]
