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
from typing import TYPE_CHECKING

import numpy as np

from cep.engine import predicates
from cep.engine.batch import Batch, Coding
from cep.engine.derive import DerivedEvent
from cep.engine.loading import Loading
from cep.engine.matches import Matches, Outputs
from cep.engine.plan import Plan
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
from cep.engine.work import PART_ROWS, KeyNumbers, Order, Work

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from cep.engine.program import BlockCode
    from cep.engine.window_plan import WindowCounts
    from cep.engine.work import Step
    from cep.events.columns import EventColumns
    from cep.rules.rule import Rule

# Keys with nothing left to remember are given back when this many have piled
# up: sweeping is linear in the keys, so it must be rare.
SWEEP_AT = 10_000
LOADINGS = 64  # shapes of columns whose way into a batch is kept
LONG_AGO = np.iinfo(np.int64).min
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
        self.plan = Plan(rules)
        self.reads = self.plan.reads()
        programs = self.plan.programs
        self._code, self._slices = programs.code, programs.slices
        self._consts = programs.consts
        self.closes = RunningCloses(self)
        self._windows: list[RunningWindows | RunningSlots] = [
            *(RunningWindows(group, self) for group in self.plan.windows),
            *(RunningSlots(group, self) for group in self.plan.slots),
        ]
        self._rules = [RunningRule(compiled, self) for compiled in self.plan.compiled]
        self._parts: list[RunningWindows | RunningSlots | RunningRule] = [
            *self._windows,
            *self._rules,
        ]
        self._lay_out_work()
        texts = [n for n, column in self.plan.inputs.items() if column.kind == "str"]
        strings = self.plan.strings
        strings.fix()
        self._coding = Coding(strings, tuple(texts), strings.texts)
        self.python_calls = PythonCalls(self.plan)
        self._failures: list[RuleFailure] = []
        self._order = 0
        self._swept = 0
        self._take: Callable[[Outputs], None] | None = None
        # Kernels look at a row of columns even where there is no event.
        self._nothing = Batch.empty(self.plan.column_count)
        self._nothing.cols = np.full((max(1, self.plan.column_count), 1), np.nan)
        self._loadings: dict[tuple[str | None, ...], Loading] = {}
        self._removed: dict[str, None] = {}
        self._outputs: weakref.WeakSet[Outputs] = weakref.WeakSet()

    def _lay_out_work(self) -> None:
        """Put the steps in order, and remember where which begin."""
        plan = self.plan
        steps: list[Step] = [Order(self)]
        steps += [KeyNumbers(self, i) for i in range(len(plan.keyspaces))]
        self._computing = len(steps)
        self._filled = self._computing
        codes: list[BlockCode] = []
        for stage in range(plan.stages):
            filled = [(p, c) for p, c, at in plan.filled if at == stage]
            if filled:
                codes.append(predicates.columns(plan.programs, filled))
                steps.append(codes[-1])
                self._filled = len(steps) if stage == 0 else self._filled
            steps += [x for x in self._windows if x.group.stage == stage]
        conditions = [compiled.conditions for compiled in plan.compiled]
        codes.append(predicates.predicates(plan.programs, conditions))
        self._matching = len(steps)
        steps += [codes[-1], *self._rules]
        self._done = len(steps)
        self._steps = steps
        self._bound: list[BlockCode | RunningRule] = [*codes, *self._rules]
        self._tables: NDArray[np.float64] | None = None
        self._sized = 0  # keys that there is room for
        self._work = Work(steps, len(plan.keyspaces), len(self._rules))
        self._apart = [
            (number, space)
            for number, space in enumerate(plan.keyspaces)
            if not space.is_plain
        ]

    # Events in ---------------------------------------------------------------

    def ingest(self, columns: EventColumns, stream: int) -> Batch:
        """Turn good rows of one stream into engine rows, order kept.

        ``stream`` is the stream's number, which decides the order of rows with
        equal event times.
        """
        names = (*columns.types, None, *columns.fields)
        shape = self._loadings.get(names)
        if shape is None:
            shape = self._loadings[names] = Loading(self.plan, columns)
            if len(self._loadings) > LOADINGS:
                del self._loadings[next(iter(self._loadings))]
        ints, cols = shape.load(columns, stream)
        self._coding = self._coding.now()
        return Batch(ints, cols, self._coding)

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
        if n or self._is_due(watermark_ns):
            self._take_in(batch, n, watermark_ns)
        outputs = Outputs(failures=self._failures)
        if self._failures:
            self._failures = []
        if self._work.found:
            self._work.found = False
            for rule in self._rules:
                found = rule.take_matches()
                if found is not None:
                    outputs.matches.append(found)
            self._outputs.add(outputs)
        most = self._swept + SWEEP_AT
        if self._sized > most and self.keys() > most:
            self.sweep(watermark_ns)
        if self.plan.strings.is_due:
            self._drop_texts()
        return outputs

    def take_early(self, rule: RunningRule) -> None:
        """Let what a rule has found be taken if it is much."""
        self._work.found = True
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

    def _run(
        self,
        batch: Batch,
        rows: tuple[int, int, int],
        steps: tuple[int, int],
        until_ns: int = LONG_AGO,
    ) -> None:
        """Take some steps; see `Work.run`."""
        tables = self.plan.strings.tables()
        if tables is not self._tables:
            self._tables = tables
            for bound in self._bound:
                bound.bind(tables)
        self.size_parts()
        self._work.run(batch, rows, steps, self._order, until_ns)

    def size_parts(self) -> None:
        """Make room for every key."""
        keys = 0
        for space in self.plan.keyspaces:
            keys += len(space.keys)
        if keys != self._sized:
            self._sized = keys
            for part in self._parts:
                part.ensure_keys()

    @property
    def last_ns(self) -> int:
        """The time of the last event taken in."""
        return self._work.last_ns

    def key_of(self, space: int, row: int) -> int:
        """Return the key of a row that is being taken in."""
        return self._work.key_of(space, row)

    def feed_windows(
        self, running: RunningWindows, batch: Batch, key: NDArray[np.int64]
    ) -> None:
        """Let rows of these keys enter a group of windows."""
        step = self._steps.index(running)
        for begin in range(0, len(batch), PART_ROWS):
            end = min(begin + PART_ROWS, len(batch))
            self.size_parts()
            self._work.set_keys(running.group.keyspace, key[begin:end])
            self._work.run(batch, (begin, begin, end), (step, step + 1), 0, LONG_AGO)

    def _pass_time(self, until_ns: int) -> None:
        self._run(self._nothing, (0, 0, 0), (self._matching, self._done), until_ns)

    def fill(self, batch: Batch) -> NDArray[np.int64]:
        """Compute a batch's columns; returns the keys of its rows, (spaces, n).

        Of at most `PART_ROWS` rows.
        """
        self._call_functions(batch)
        self._number(batch, 0, len(batch))
        self._run(batch, (0, 0, len(batch)), (self._computing, self._matching))
        return self._work.keys[:, : len(batch)].copy()

    def _number(self, batch: Batch, begin: int, end: int) -> None:
        """Number the keys of some rows."""
        if self._apart:
            self._number_apart(batch, begin, end)
        self._run(batch, (begin, begin, end), (1, self._computing))

    def _number_apart(self, batch: Batch, begin: int, end: int) -> None:
        """Number the keys that no kernel numbers."""
        cols = batch.cols[:, begin:end]
        for number, space in self._apart:
            keys = np.empty(end - begin, np.int64)
            space.number_rows(cols, keys)
            self._work.set_keys(number, keys)

    def _take_in(self, batch: Batch, n: int, until_ns: int) -> None:
        if self.closes or self.plan.calls:
            self._run(batch, (0, 0, n), (0, 1))
            for begin in range(0, max(n, 1), PART_ROWS):
                end = min(begin + PART_ROWS, n)
                part = batch if end - begin == n else batch.take(slice(begin, end))
                self._take_in_told(part, until_ns if end == n else LONG_AGO)
            return
        if n <= PART_ROWS:
            if self._apart:
                self._number_apart(batch, 0, n)
            self._run(batch, (0, 0, n), (0, self._done), until_ns)
        else:
            self._run(batch, (0, 0, n), (0, 1))
            for begin in range(0, n, PART_ROWS):
                end = min(begin + PART_ROWS, n)
                if self._apart:
                    self._number_apart(batch, begin, end)
                until = until_ns if end == n else LONG_AGO
                self._run(batch, (begin, begin, end), (1, self._done), until)
        self._order += n

    def _take_in_told(self, batch: Batch, until_ns: int) -> None:
        """Take in rows that functions are called of, or that close windows."""
        self._call_functions(batch)
        if self.closes:
            self._take_in_closing(batch, until_ns)
            return
        n = len(batch)
        self._number(batch, 0, n)
        self._run(batch, (0, 0, n), (self._computing, self._matching))
        self._match(batch, n, until_ns)
        self._order += n

    def _take_in_closing(self, batch: Batch, until_ns: int) -> None:
        n = len(batch)
        self._number(batch, 0, n)
        if self.closes.needs_columns:
            self._run(batch, (0, 0, n), (self._computing, self._filled))
        keys = self._work.keys[:, :n].copy()
        for part, told in self.closes.told(batch, keys, until_ns):
            n = len(part)
            self._number(part, 0, n)
            self._run(part, (0, 0, n), (self._computing, self._matching))
            self.closes.settle(part, told)
            self._match(part, n, LONG_AGO)
            self._order += n
        self._pass_time(until_ns)

    def _match(self, batch: Batch, n: int, until_ns: int) -> None:
        """Let all rules see a batch, but for rows that their functions failed on."""
        self._run(batch, (0, 0, n), (self._matching, self._matching + 1))
        for number, rule in enumerate(self._rules):
            failed = self.python_calls.rows_failed(number, batch)
            if not failed:
                self._feed(number, batch, 0, n, until_ns)
            else:
                self._feed_around(number, rule, failed, batch, until_ns)

    def _feed(
        self, number: int, batch: Batch, begin: int, end: int, until_ns: int
    ) -> None:
        step = self._matching + 1 + number
        self._run(batch, (0, begin, end), (step, step + 1), until_ns)

    def _feed_around(
        self,
        number: int,
        rule: RunningRule,
        failed: Mapping[int, str],
        batch: Batch,
        until_ns: int,
    ) -> None:
        """Let a rule see all rows but those that its functions failed on."""
        seen = 0
        for row, what in failed.items():
            self._feed(number, batch, seen, row, LONG_AGO)
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
                self._feed(number, batch, seen, seen, time_ns)
                rule.trip(time_ns, ERRORS)
                break
        self._feed(number, batch, seen, len(batch), until_ns)

    def _call_functions(self, batch: Batch) -> None:
        if self.plan.calls:
            rules = enumerate(self._rules)
            tripped = {n for n, rule in rules if rule.tripped_at is not None}
            self.python_calls.fill(batch, tripped)

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


__all__ = [
    "Batch",
    "DerivedEvent",
    "Matches",
    "Operator",
    "Outputs",
    "RuleCounts",
    "RuleFailure",
]
