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

import gc
import weakref
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cep.engine.batch import Batch, Coding
from cep.engine.derive import DerivedEvent
from cep.engine.kernels import loading, rows
from cep.engine.matches import Matches, Outputs
from cep.engine.plan import Plan
from cep.engine.predicates import Columns, Predicates
from cep.engine.python_calls import MOST_ERRORS, PythonCalls, RuleFailure
from cep.engine.running_closes import RunningCloses
from cep.engine.running_rule import ERRORS, RuleCounts, RunningRule
from cep.engine.running_slots import RunningSlots
from cep.engine.running_windows import RunningWindows
from cep.engine.state import (
    ENGINE_FIELD,
    EngineState,
    damaged,
    pack,
    unpack,
)
from cep.errors import OutOfOrderError
from cep.rules.types import ENVELOPE, payload_kinds

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from cep.engine.interner import Interner
    from cep.engine.window_plan import WindowCounts
    from cep.events.columns import Column, EventColumns
    from cep.rules.rule import Rule

# Keys with nothing left to remember are given back when this many have piled
# up: sweeping is linear in the keys, so it must be rare.
SWEEP_AT = 10_000
LOADINGS = 64  # shapes of columns whose way into a batch is kept
MOST_TEXTS = 256  # of a dictionary that is taken up whole for however few rows
LONG_AGO = np.iinfo(np.int64).min
_ALL = np.ones(0, np.bool_)  # the mask of a column whose values are all valid
# A large batch is taken in in parts of so many rows, which fit in the cache.
PART_ROWS = 16_384
PIECE_BINDINGS = 1_000_000  # events that matches hold before they are taken early


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
        loading.prepare()
        self.plan = Plan(rules)
        self.reads = self.plan.reads()
        programs = self.plan.programs
        self._code, self._slices = programs.code, programs.slices
        self._consts = programs.consts
        self._columns = [
            Columns(programs, [(p, c) for p, c, at in self.plan.filled if at == stage])
            for stage in range(self.plan.stages)
        ]
        self._predicates = Predicates(
            programs, [compiled.conditions for compiled in self.plan.compiled]
        )
        self.closes = RunningCloses(self)
        self._windows: list[RunningWindows | RunningSlots] = [
            *(RunningWindows(group, self) for group in self.plan.windows),
            *(RunningSlots(group, self) for group in self.plan.slots),
        ]
        self._stages = [
            (columns, [x for x in self._windows if x.group.stage == stage])
            for stage, columns in enumerate(self._columns)
        ]
        self._rules = [RunningRule(compiled, self) for compiled in self.plan.compiled]
        self._parts: list[RunningWindows | RunningSlots | RunningRule] = [
            *self._windows,
            *self._rules,
        ]
        texts = [n for n, column in self.plan.inputs.items() if column.kind == "str"]
        strings = self.plan.strings
        strings.fix()
        self._coding = Coding(strings, tuple(texts), strings.texts)
        self.python_calls = PythonCalls(self.plan)
        self._failures: list[RuleFailure] = []
        self._order = 0
        self._time = 0
        self._swept = 0
        # Kernels look at a row of columns even where there is no event.
        self._take: Callable[[Outputs], None] | None = None
        self._nothing = Batch.empty(self.plan.column_count)
        self._nothing.cols = np.full((max(1, self.plan.column_count), 1), np.nan)
        self._loadings: dict[tuple[str | None, ...], _Loading] = {}
        self._removed: dict[str, None] = {}
        self._outputs: weakref.WeakSet[Outputs] = weakref.WeakSet()

    # Events in ---------------------------------------------------------------

    def ingest(self, columns: EventColumns, stream: int) -> Batch:
        """Turn good rows of one stream into engine rows, order kept.

        ``stream`` is the stream's number, which decides the order of rows with
        equal event times.
        """
        names = (*columns.types, None, *columns.fields)
        shape = self._loadings.get(names)
        if shape is None:
            shape = self._loadings[names] = _Loading.of(self.plan, columns)
            if len(self._loadings) > LOADINGS:
                del self._loadings[next(iter(self._loadings))]
        n = columns.time_ms.size
        ints = np.empty((rows.ROWS, n), np.int64)
        cols = np.empty((self.plan.column_count, n))
        loading.load_rows(
            ints,
            cols,
            shape.blank,
            stream,
            columns.time_ms,
            columns.entry_ms,
            columns.entry_seq,
            columns.id_hi,
            columns.id_lo,
            columns.type_code,
            shape.codes,
        )
        ints[rows.PLACE] = 0  # for who reads streams to fill in
        fields, strings = columns.fields, self.plan.strings
        for number, name, is_text, over in shape.payload:
            _load(cols, number, fields[name], is_text, strings, over=over)
        for number, name, is_text in shape.envelope:
            self._load_envelope(cols, number, name, is_text, columns, ints[rows.TYPE])
        self._coding = self._coding.now()
        return Batch(ints, cols, self._coding)

    def _load_envelope(
        self,
        cols: NDArray[np.float64],
        number: int,
        name: str,
        is_text: bool,
        columns: EventColumns,
        types: NDArray[np.int64],
    ) -> None:
        strings, out = self.plan.strings, cols[number]
        if name == "@type":
            out[:] = types
            return
        if name == "@time":
            out[:] = columns.time_ms
            return
        if is_text and name in ("correlation_id", "user_id"):
            envelope = columns.fields.get(f"@{name}")
            if envelope is not None:
                _load(cols, number, envelope, is_text, strings, absent="")
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
        for field_name, column in columns.fields.items():
            if field_name.rpartition(":")[2] == name:
                _load(cols, number, column, is_text, strings)

    def step(
        self,
        batch: Batch,
        watermark_ns: int,
        *,
        take: Callable[[Outputs], None] | None = None,
    ) -> Outputs:
        """Take in rows in release order and let time pass to the watermark.

        ``batch`` must be sorted by (time, stream, entry id) and lie below the
        watermark; rows of earlier steps must not be later than its first.

        ``take`` is called with a rule's matches whenever they hold more than
        ``PIECE_BINDINGS`` events, so that a flood of them need not fit into memory;
        what is left is returned. It may ask nothing of the operator.

        Raises
        ------
        OutOfOrderError
            If a time falls, in this batch or from the one before.
        """
        self._take = take
        batch = batch.renewed()
        n = batch.ints.shape[1]
        if n:
            self._check_order(batch)
            self._take_in(batch, watermark_ns)
        elif self._is_due(watermark_ns):
            self._take_in(batch, watermark_ns)
        outputs = Outputs(failures=self._failures)
        self._failures = []
        for rule in self._rules:
            found = rule.take_matches()
            if found is not None:
                outputs.matches.append(found)
        if outputs.matches:
            self._outputs.add(outputs)
        if self.keys() > self._swept + SWEEP_AT:
            self.sweep(watermark_ns)
        if self.plan.strings.is_due:
            self._drop_texts()
        return outputs

    def take_early(self, rule: RunningRule) -> None:
        """Let what a rule has found be taken if it is much."""
        if self._take is None or rule.found_bindings <= PIECE_BINDINGS:
            return
        found = rule.take_matches()
        if found is not None:
            self._take(Outputs([found]))

    def _drop_texts(self) -> None:
        """Forget strings that no state refers to."""
        self.plan.strings.keep(
            [codes for part in self._parts for codes in part.codes()]
        )
        for space in self.plan.keyspaces:
            space.forget_codes()

    def _is_due(self, watermark_ns: int) -> bool:
        """Whether anything happens if time passes to then."""
        if self.closes.is_due(watermark_ns):
            return True
        return any(rule.is_due(watermark_ns) for rule in self._rules)

    def waits_for_time(self) -> bool:
        """Whether anything would come of time going on without an event."""
        if self.closes.waits():
            return True
        return any(rule.counts().live_partials for rule in self._rules)

    def _pass_time(self, until_ns: int) -> None:
        none = np.zeros((0, 0), np.int64)
        for rule in self._rules:
            rule.feed(self._nothing, none, none, self._order, 0, 0, until_ns)

    def fill(self, batch: Batch) -> NDArray[np.int64]:
        """Compute a batch's columns; returns the keys of its rows, (spaces, n)."""
        n = batch.ints.shape[1]
        keys = np.empty((len(self.plan.keyspaces), n), np.int64)
        self._call_functions(batch)
        self._fill(batch, keys, 0, n)
        return keys

    def _fill(
        self, batch: Batch, keys: NDArray[np.int64], begin: int, end: int
    ) -> None:
        self._number(batch, keys, begin, end)
        self._compute(batch, keys, begin, end)

    def _number(
        self, batch: Batch, keys: NDArray[np.int64], begin: int, end: int
    ) -> None:
        for number, space in enumerate(self.plan.keyspaces):
            space.number_rows(batch.cols, keys, number, begin, end)

    def _compute(
        self, batch: Batch, keys: NDArray[np.int64], begin: int, end: int
    ) -> None:
        order = self._order
        for columns, windows in self._stages:
            columns.fill(batch, begin, end)
            for window in windows:
                window.feed(batch, keys[window.group.keyspace], begin, end, order)

    def _take_in(self, batch: Batch, until_ns: int) -> None:
        n = batch.ints.shape[1]
        if n > PART_ROWS and (self.closes or self.plan.calls):
            for begin in range(0, n, PART_ROWS):
                part = batch.take(slice(begin, begin + PART_ROWS))
                last = begin + PART_ROWS >= n
                self._take_in(part, until_ns if last else LONG_AGO)
            return
        self._call_functions(batch)
        if self.closes:
            self._take_in_closing(batch, until_ns)
            return
        if not n:
            self._pass_time(until_ns)
        keys = np.empty((len(self.plan.keyspaces), n), np.int64)
        for begin in range(0, n, PART_ROWS):
            end = min(begin + PART_ROWS, n)
            self._fill(batch, keys, begin, end)
            self._match(batch, keys, begin, end, until_ns if end == n else LONG_AGO)
        self._order += n

    def _take_in_closing(self, batch: Batch, until_ns: int) -> None:
        n, spaces = batch.ints.shape[1], len(self.plan.keyspaces)
        keys = np.empty((spaces, n), np.int64)
        self._number(batch, keys, 0, n)
        if self.closes.needs_columns:
            self._columns[0].fill(batch, 0, n)
        for part, told in self.closes.told(batch, keys, until_ns):
            n = part.ints.shape[1]
            keys = np.empty((spaces, n), np.int64)
            self._number(part, keys, 0, n)
            self._compute(part, keys, 0, n)
            self.closes.settle(part, told)
            self._match(part, keys, 0, n, LONG_AGO)
            self._order += n
        self._pass_time(until_ns)

    def _match(
        self,
        batch: Batch,
        keys: NDArray[np.int64],
        begin: int,
        end: int,
        until_ns: int,
    ) -> None:
        bits = self._predicates.evaluate(batch, begin, end)
        for number, rule in enumerate(self._rules):
            failed = self.python_calls.rows_failed(number, batch)
            if not failed:
                rule.feed(batch, keys, bits, self._order, begin, end, until_ns)
            else:
                self._feed_around(rule, failed, batch, keys, bits, until_ns)

    def _feed_around(
        self,
        rule: RunningRule,
        failed: Mapping[int, str],
        batch: Batch,
        keys: NDArray[np.int64],
        bits: NDArray[np.int64],
        until_ns: int,
    ) -> None:
        """Let a rule see all rows but those that its functions failed on."""

        def feed(begin: int, end: int, until_ns: int) -> None:
            part = np.ascontiguousarray(bits[:, begin:end])
            rule.feed(batch, keys, part, self._order, begin, end, until_ns)

        seen = 0
        for row, what in failed.items():
            feed(seen, row, LONG_AGO)
            seen = row + 1
            if rule.tripped_at is not None:
                break
            time_ns = int(batch.time[row])
            failure = RuleFailure(
                rule.compiled.rule.name,
                time_ns,
                int(batch.stream[row]),
                int(batch.entry_ms[row]),
                int(batch.entry_seq[row]),
                what,
            )
            self._failures.append(failure)
            if rule.failed(time_ns):
                # What was certain before this event comes out.
                feed(seen, seen, time_ns)
                rule.trip(time_ns, ERRORS)
                break
        feed(seen, len(batch), until_ns)

    def _call_functions(self, batch: Batch) -> None:
        if self.plan.calls:
            rules = enumerate(self._rules)
            tripped = {n for n, rule in rules if rule.tripped_at is not None}
            self.python_calls.fill(batch, tripped)

    def _check_order(self, batch: Batch) -> None:
        times = batch.ints[rows.TIME]
        first = last = times.item(0)
        if times.size > 1:
            last = times.item(-1)
            i = loading.first_fall(times)
            if i > 0:
                raise OutOfOrderError("Operator.step", int(times[i]), int(times[i - 1]))
        if first < self._time:
            raise OutOfOrderError("Operator.step", first, self._time)
        self._time = last

    def types_mask(self, types: Collection[str]) -> NDArray[np.uint8]:
        """Return 1 for those types, by type code + 1; events of others have code -1."""
        return np.array([0, *(t in types for t in self.plan.types)], np.uint8)

    # State -------------------------------------------------------------------

    def counts(self) -> dict[str, RuleCounts]:
        """Return each rule's counts."""
        return {r.compiled.rule.name: r.counts() for r in self._rules}

    def resume(self, name: str) -> bool:
        """Let a rule that has tripped go on from here; whether it had.

        It begins without matches: what it has not seen since it tripped could
        have ended or completed those that it had.
        """
        for rule in self._rules:
            if rule.compiled.rule.name == name and rule.tripped_at is not None:
                self._removed.update(dict.fromkeys(rule.start_anew()))
                return True
        return False

    def window_counts(self) -> dict[str, WindowCounts]:
        """Return what windows hold and have let go, by a description of each."""
        return {part.description: part.counts() for part in self._windows}

    def keys(self) -> int:
        """Return how many keys have state."""
        return sum([space.live for space in self.plan.keyspaces])

    def texts(self) -> int:
        """Return how many different strings are kept; see `cep.engine.interner`."""
        return len(self.plan.strings)

    def delta(self) -> dict[str, bytes | None]:
        """Return the state that changed since the last call; None: the field goes."""
        changed: dict[str, bytes | None] = dict.fromkeys(self._removed, None)
        self._removed.clear()
        for part in self._parts:
            changed.update(part.changes(part.take_dirty()))
        changed[ENGINE_FIELD] = self._engine_state()
        return changed

    def snapshot(self) -> dict[str, bytes]:
        """Return the whole state; the next delta is what it would have been."""
        fields = {
            name: blob
            for part in self._parts
            for name, blob in part.whole()
            if blob is not None
        }
        fields[ENGINE_FIELD] = self._engine_state()
        return fields

    def _engine_state(self) -> bytes:
        tripped = {
            rule.prefix: at
            for rule in self._rules
            if (at := rule.tripped_at) is not None
        }
        errors = {r.prefix: r.error_times for r in self._rules if r.error_times}
        return pack(EngineState(self._order, tripped, self.closes.until_ns, errors))

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
        if ENGINE_FIELD in state:
            blob = state[ENGINE_FIELD]
            self._restore_engine(unpack(ENGINE_FIELD, blob, EngineState))
        unknown = dict.fromkeys(state)
        unknown.pop(ENGINE_FIELD, None)
        with _uncollected():
            self._restore_parts(state, unknown)
        return list(unknown)

    def _restore_parts(
        self, state: Mapping[str, bytes], unknown: dict[str, None]
    ) -> None:
        """Put back what the parts know; of ``unknown`` the rest is left."""
        parts = {part.prefix: part for part in self._parts}
        fields: dict[str, list[tuple[int, str, bytes]]] = {name: [] for name in parts}
        for name, blob in state.items():
            kind, _, rest = name.partition("|")
            identity, _, key = rest.partition("|")
            prefix = f"{kind}|{identity}|"
            if prefix not in parts:
                continue
            try:
                k = parts[prefix].space.from_canonical(key)
            except ValueError as error:
                raise damaged(name, str(error)) from error
            fields[prefix].append((k, name, blob))
            del unknown[name]
        for prefix, part in parts.items():
            for name in part.restore(fields[prefix], state):
                del unknown[name]

    def _restore_engine(self, state: EngineState) -> None:
        self._order, self.closes.until_ns = state.order, state.closed_ns
        for rule in self._rules:
            if rule.prefix in state.tripped:
                rule.trip(*state.tripped[rule.prefix])
            rule.error_times = state.errors.get(rule.prefix, [])[-MOST_ERRORS:]

    def sweep(self, watermark_ns: int) -> int:
        """Give back keys that have nothing left to remember; returns how many."""
        for outputs in list(self._outputs):
            outputs.keep_keys()
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
                    self._removed.update(dict.fromkeys(user.forget(k)))
                space.release(k)
                swept += 1
        self._swept = self.keys()
        return swept


@contextmanager
def _uncollected() -> Iterator[None]:
    """Make many objects and no cycles: looking for some is half of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@dataclass(frozen=True, slots=True)
class _Loading:
    """How columns of one shape go into a batch: types and fields named alike.

    ``codes`` are the engine's codes of the types; ``payload`` and ``envelope`` rows
    (batch column, name, whether it is a text), those of ``payload`` with whether
    another field fills the same column before. ``blank`` are columns that no field
    of the payload fills.
    """

    codes: NDArray[np.int64]
    blank: NDArray[np.int64]
    payload: tuple[tuple[int, str, bool, bool], ...]
    envelope: tuple[tuple[int, str, bool], ...]

    @classmethod
    def of(cls, plan: Plan, columns: EventColumns) -> _Loading:
        code_of = {name: code for code, name in enumerate(plan.types)}
        payload, envelope = [], []
        for number, column in plan.inputs.items():
            name, is_text = column.name, column.kind == "str"
            if name in ("@type", "@time") or name in ENVELOPE:
                envelope.append((number, name, is_text))
                continue
            names = [x for x in columns.fields if x.rpartition(":")[2] == name]
            payload += [(number, x, is_text, x != names[0]) for x in names]
        codes = [code_of.get(t, -1) for t in columns.types] or [-1]
        filled = {number for number, *_ in payload}
        blank = [i for i in range(plan.column_count) if i not in filled]
        return cls(
            np.array(codes, np.int64),
            np.array(blank, np.int64),
            tuple(payload),
            tuple(envelope),
        )


def _load(
    cols: NDArray[np.float64],
    number: int,
    column: Column,
    is_text: bool,
    strings: Interner,
    *,
    absent: str | None = None,
    over: bool = True,
) -> None:
    """Load a column; one of the other kind is another type's, and has no values.

    ``over`` whether rows without a value stay as they are.
    """
    texts, values = column.texts, column.values
    valid = _ALL if column.valid is None else column.valid
    if (texts is not None) != is_text or texts == []:
        if not over:
            cols[number] = np.nan
        return
    if texts is None:
        if values.dtype.char != "d":
            values = values.astype(np.float64)
        loading.load_numbers(cols, number, values, valid, over)
        return
    if absent in texts:
        valid = (values != texts.index(absent)) & (valid if len(valid) else True)
    if len(texts) <= MOST_TEXTS or len(texts) <= 2 * len(values):
        codes = strings.dictionary(texts)
    else:
        # A small slice of a large frame: only its own texts are taken up.
        used, places = np.unique(values, return_inverse=True)
        codes = strings.codes([texts[code] for code in used.tolist()])
        values = places.astype(np.int32)
    loading.load_codes(cols, number, values, codes, valid, over)


__all__ = [
    "Batch",
    "DerivedEvent",
    "Matches",
    "Operator",
    "Outputs",
    "RuleCounts",
    "RuleFailure",
]
