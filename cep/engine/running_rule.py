"""The state of one rule: its partial matches, and how they go to bytes and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cep.engine.growth import doubled, grown
from cep.engine.kernels import nfa, vm
from cep.engine.kernels.handle import WORDS, handle
from cep.engine.matches import Matches
from cep.engine.python_calls import ERRORS_WITHIN_NS, MOST_ERRORS
from cep.engine.state import MatchState, damaged, pack
from cep.engine.stored_matches import read_matches

OUT_ROWS = 4096  # of what kernels put out, before it has to be copied
_WHY = ("", "limit", "skip_target_missing", "skip_target_is_first_event", "errors")
ERRORS = _WHY.index("errors")

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from cep.engine.batch import Batch
    from cep.engine.operator import Operator
    from cep.engine.plan import CompiledRule


@dataclass(slots=True)
class RuleCounts:
    """What one rule has done so far; every number but ``live_partials`` only grows.

    ``dropped_partials`` and ``dropped_outputs`` are what its `Limits` cost it:
    partial matches, and matches and time-outs beyond what one event may put out.
    """

    matches: int = 0
    emitted: int = 0
    suppressed: int = 0
    timeouts: int = 0
    dropped_partials: int = 0
    dropped_outputs: int = 0
    live_partials: int = 0
    errors: int = 0
    tripped: bool = False
    tripped_why: str = ""


class RunningRule:
    """The state of one rule; a `cep.engine.work.Step`."""

    kernel = nfa.feed
    argument = 0

    def __init__(self, compiled: CompiledRule, operator: Operator) -> None:
        self.compiled, self.operator = compiled, operator
        self.space = operator.plan.keyspaces[compiled.keyspace]
        rule = compiled.rule
        self.prefix = f"r|{rule.name}:{rule.hash}|"
        self.suppressed = self.emitted = self.errors = 0
        self.dropped_outputs = 0
        self.error_times: list[int] = []
        # Whether a leaf is a code of a string, or a number as it stands.
        self.leaf_kinds = [
            "str" if kind in ("str", "json") else "float"
            for kind in compiled.leaf_kinds
        ]
        self.program = nfa.Program(
            operator._code,
            operator._slices,
            operator._consts,
            operator.plan.strings.tables(),
            compiled.edges,
            compiled.states,
            compiled.params(operator.plan.compiled.index(compiled)),
            np.array(compiled.iterative, np.int64),
            np.array(compiled.captures, np.int64),
            np.array(compiled.leaves, np.int64),
            compiled.watches,
            compiled.reactions,
            compiled.type_table(len(operator.plan.types)),
        )
        self.arena = self._empty_arena()
        self.handle = np.zeros((nfa.HANDLE_LENGTH, WORDS), np.int64)
        self._bind()
        self._scratch = np.zeros(0, np.int64)
        self._found: list[Matches] = []
        self.found_bindings = 0

    def _empty_arena(self) -> nfa.Arena:
        compiled = self.compiled
        counters = np.zeros(nfa.COUNTER_WIDTH, np.int64)
        counters[nfa.C_PARTIAL_FREE] = counters[nfa.C_NODE_FREE] = -1
        leaves, branch = len(compiled.leaves), compiled.branch
        return nfa.Arena(
            partials=np.zeros((256, nfa.PARTIAL_WIDTH), np.int64),
            watched=np.zeros(256),
            nodes=np.zeros((256, vm.NODE_WIDTH), np.int64),
            vals=np.zeros((256, len(compiled.captures))),
            held=np.zeros((256, leaves)),
            keys=np.zeros((0, nfa.KEY_WIDTH), np.int64),
            bars=np.zeros((0, len(compiled.watches))),
            counters=counters,
            heap=np.zeros((0, 2), np.int64),
            dirty=np.zeros(0, np.int64),
            out=np.zeros((OUT_ROWS, nfa.OUT_WIDTH), np.int64),
            outv=np.zeros((OUT_ROWS, leaves)),
            stack=np.empty(vm.STACK),
            kept=np.zeros((branch + 2, 2), np.int64),
            made=np.zeros((branch + 2, 2), np.int64),
        )

    def _bind(self) -> None:
        """Tell the kernels where the tables are now."""
        self._counters = self.arena.counters
        tables = handle((*self.program, *self.arena))
        self.handle[: len(tables)] = tables

    def _replace(self, **tables: NDArray[Any]) -> None:
        self.arena = self.arena._replace(**tables)
        self._bind()

    def bind(self, tables: NDArray[np.float64]) -> None:
        """Tell the kernels what the tables of strings are now."""
        self.program = self.program._replace(tables=tables)
        self._bind()

    def ensure_keys(self) -> None:
        """Make room for every key of the space."""
        need, have = len(self.space), len(self.arena.keys)
        if need <= have:
            return
        rows = doubled(max(have, 16), need)
        arena = self.arena
        keys = grown(arena.keys, rows)
        keys[have:, [nfa.K_HEAD, nfa.K_TAIL, nfa.K_HELD]] = -1
        keys[have:, [nfa.K_EMITTED, nfa.K_EMITTED_TIMEOUT]] = nfa.NEVER
        keys[have:, nfa.K_DEADLINE] = nfa.FOR_EVER
        self._replace(
            keys=keys,
            bars=grown(arena.bars, rows, np.nan),
            heap=grown(arena.heap, rows),
            dirty=grown(arena.dirty, rows),
        )

    def ensure(self, partials: int, nodes: int) -> None:
        """Make room for that many more of each."""
        arena, c = self.arena, self.arena.counters
        need = int(c[nfa.C_PARTIAL_BUMP]) + partials
        if need > len(arena.partials):
            rows = doubled(len(arena.partials), need)
            self._replace(
                partials=grown(arena.partials, rows),
                watched=grown(arena.watched, rows),
                held=grown(arena.held, rows),
            )
        need = int(c[nfa.C_NODE_BUMP]) + nodes
        if need > len(arena.nodes):
            rows = doubled(len(arena.nodes), need)
            self._replace(nodes=grown(arena.nodes, rows), vals=grown(arena.vals, rows))

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
            rows = doubled(len(arena.out), 2 * need + held)
            self._replace(out=grown(arena.out, rows), outv=grown(arena.outv, rows))

    def help(self, batch: Batch, at: int, end: int) -> int:
        """Take what was put out, and make room for the row or what time ends."""
        self._drain()
        if at >= 0:
            self.make_room(self.operator.key_of(self.compiled.keyspace, at))
        else:
            self.make_room(int(self.arena.heap[0, 1]))
            at = -1 - at
        if len(self.arena.nodes) < OUT_ROWS:
            # Nodes of what is put out are held until it is copied.
            self.ensure(0, len(self.arena.nodes))
        self.operator.take_early(self)
        return at

    def is_due(self, now_ns: int) -> bool:
        """Whether anything happens if time passes to then."""
        if not self._counters[nfa.C_HEAP]:
            return False
        return bool(self.arena.heap[0, 0] <= now_ns)

    def take_matches(self) -> Matches | None:
        """Return what was found since the last call."""
        self._drain()
        if not self._found:
            return None
        found, self._found, self.found_bindings = self._found, [], 0
        return Matches.concat(found)

    def _drain(self) -> None:
        """Copy what the kernel put out: in order, once each, cooldown observed."""
        n = int(self._counters[nfa.C_OUT])
        if n:
            self._take_out(n)
        if self._counters[nfa.C_TRIPPED]:
            self._let_go()

    def _let_go(self) -> None:
        """Drop all that a tripped rule still holds: nothing comes of it any more.

        It no longer sees the events that would have broken an absence, or that would
        have displaced a match that is held back.
        """
        c, keys = self._counters, self.arena.keys
        if not c[nfa.C_PARTIAL_BUMP]:
            return
        c[nfa.C_DROPPED] += c[nfa.C_LIVE]
        c[nfa.C_HELD_PRUNED] += keys[:, nfa.K_HELD_COUNT].sum()
        used = np.flatnonzero((keys[:, nfa.K_HEAD] >= 0) | (keys[:, nfa.K_HELD] >= 0))
        changed = used[keys[used, nfa.K_DIRTY] == 0]
        dirty = int(c[nfa.C_DIRTY])
        self.arena.dirty[dirty : dirty + changed.size] = changed
        keys[changed, nfa.K_DIRTY] = 1
        keys[used[:, None], [nfa.K_HEAD, nfa.K_TAIL, nfa.K_HELD]] = -1
        empty = [nfa.K_COUNT, nfa.K_HELD_COUNT, nfa.K_BINDINGS, nfa.K_OCCUPIED]
        keys[used[:, None], empty] = 0
        keys[used, nfa.K_DEADLINE] = nfa.FOR_EVER
        keys[:, nfa.K_TIMER] = 0
        self.arena.bars[used] = np.nan
        c[nfa.C_DIRTY] += changed.size
        c[[nfa.C_LIVE, nfa.C_HEAP]] = 0
        c[[nfa.C_PARTIAL_BUMP, nfa.C_PARTIAL_FREED]] = 0
        c[[nfa.C_NODE_BUMP, nfa.C_NODE_FREED]] = 0
        c[[nfa.C_PARTIAL_FREE, nfa.C_NODE_FREE]] = -1

    def _take_out(self, n: int) -> None:
        """Copy the ``n`` rows that the kernel put out."""
        arena, compiled = self.arena, self.compiled
        order, offsets = np.empty(n, np.int64), np.empty(n + 1, np.int64)
        count = nfa.settle(self.handle, order, offsets)
        rule = compiled.rule
        if rule.cooldown_ns:
            before = count
            cooldown = rule.cooldown_ns
            count = nfa.suppress(self.handle, order, offsets, count, cooldown)
            self.suppressed += before - count
        limits = rule.limits
        if (
            count > limits.matches_per_event
            or offsets[count] > limits.bindings_per_event
        ):
            count = self._within_limits(order, offsets, count)
        facts = np.empty((2, count), np.int64)
        timeout = np.empty(count, np.bool_)
        values = np.empty((count, arena.outv.shape[1]))
        bound = np.empty((4, offsets[count]), np.int64)
        timeouts = nfa.take_out(
            self.handle, order, offsets, facts, timeout, values, bound
        )
        self.emitted += (count - timeouts) * len(rule.emissions)
        self.emitted += timeouts * len(rule.timeouts)
        self.found_bindings += int(offsets[count])
        if count:
            self._found.append(
                Matches(
                    compiled,
                    self.space,
                    self.operator.plan.strings.texts,
                    facts[0],
                    facts[1],
                    timeout,
                    values,
                    offsets[: count + 1],
                    *bound,
                )
            )

    def _within_limits(
        self, order: NDArray[np.int64], offsets: NDArray[np.int64], count: int
    ) -> int:
        """Keep of ``order`` what its events may put out; returns how many those are.

        The others are counted.
        """
        limits, rows = self.compiled.rule.limits, self.arena.out[order[:count]]
        held = np.diff(offsets[: count + 1])
        begins = _begins(rows)
        first = np.maximum.accumulate(np.where(begins, np.arange(count), 0))
        before = offsets[:count] - offsets[first]
        place = np.arange(count) - first
        keep = place < limits.matches_per_event
        keep &= (before < limits.bindings_per_event) | (place == 0)
        kept = int(keep.sum())
        self.dropped_outputs += count - kept
        if limits.policy == "trip" and kept < count and not self.tripped_at:
            # It was the last event: the kernel waits for this.
            self.trip(int(rows[-1, nfa.O_TIME]), nfa.LIMIT)
        order[:kept] = order[:count][keep]
        np.cumsum(held[keep], out=offsets[1 : kept + 1])
        return kept

    def counts(self) -> RuleCounts:
        """Return what the rule has done so far."""
        c = self.arena.counters
        return RuleCounts(
            matches=int(c[nfa.C_MATCHES]),
            emitted=self.emitted,
            suppressed=self.suppressed,
            timeouts=int(c[nfa.C_TIMEOUTS]),
            dropped_partials=int(c[nfa.C_DROPPED]),
            dropped_outputs=self.dropped_outputs,
            live_partials=int(c[nfa.C_LIVE]),
            errors=self.errors,
            tripped=bool(c[nfa.C_TRIPPED]),
            tripped_why=_WHY[c[nfa.C_TRIPPED]],
        )

    @property
    def tripped_at(self) -> tuple[int, int] | None:
        """When and why the rule stopped (event time in ns, code); None if it runs."""
        c = self.arena.counters
        if not c[nfa.C_TRIPPED]:
            return None
        return int(c[nfa.C_TRIPPED_AT]), int(c[nfa.C_TRIPPED])

    def failed(self, time_ns: int) -> bool:
        """Count an event that its functions failed on; whether the rule must trip."""
        self.errors += 1
        self.error_times = [*self.error_times[1 - MOST_ERRORS :], time_ns]
        many = len(self.error_times) == MOST_ERRORS
        return many and time_ns - self.error_times[0] <= ERRORS_WITHIN_NS

    def trip(self, at_ns: int, why: int) -> None:
        """Stop the rule, now or as it was before a restart."""
        if not 0 < why < len(_WHY):
            raise damaged(self.prefix, f"it tripped for reason {why}")
        self.arena.counters[[nfa.C_TRIPPED, nfa.C_TRIPPED_AT]] = why, at_ns

    def start_anew(self) -> list[str]:
        """Forget all matches that were begun; returns the state fields that go.

        A rule that has tripped goes on.
        """
        keys, before = self.arena.keys, self.arena.counters
        emitted = keys[:, [nfa.K_EMITTED, nfa.K_EMITTED_TIMEOUT]]
        held = (keys[:, nfa.K_HEAD] >= 0) | (keys[:, nfa.K_HELD] >= 0)
        held |= (emitted != nfa.NEVER).any(axis=1) | (keys[:, nfa.K_DIRTY] != 0)
        gone = [k for k in np.flatnonzero(held).tolist() if k < len(self.space)]
        self.arena, self.error_times = self._empty_arena(), []
        for counter in (nfa.C_MATCHES, nfa.C_TIMEOUTS, nfa.C_DROPPED):
            self.arena.counters[counter] = before[counter]
        self._bind()
        self.ensure_keys()
        names = self.space
        return [
            self.prefix + names.canonical(k) for k in gone if names.keys[k] is not None
        ]

    def take_dirty(self) -> list[int]:
        """Return the keys that changed since the last call."""
        arena, c = self.arena, self.arena.counters
        dirty: list[int] = arena.dirty[: c[nfa.C_DIRTY]].tolist()
        arena.keys[dirty, nfa.K_DIRTY] = 0
        c[nfa.C_DIRTY] = 0
        return dirty

    def changes(self, keys: Iterable[int]) -> Iterator[tuple[str, bytes | None]]:
        """Yield the state fields of those keys; None for one that holds nothing."""
        self.ensure_keys()
        if len(self._scratch) < len(self.arena.nodes):
            self._scratch = np.full(len(self.arena.nodes), -1, np.int64)
        for k in keys:
            if self.space.keys[k] is not None:
                yield self.prefix + self.space.canonical(k), self._export(k)

    def _export(self, k: int) -> bytes | None:
        arena = self.arena
        matches, size = nfa.key_size(self.handle, k)
        emitted = int(arena.keys[k, nfa.K_EMITTED])
        timed_out = int(arena.keys[k, nfa.K_EMITTED_TIMEOUT])
        if not matches and emitted == timed_out == nfa.NEVER:
            return None
        partials = np.zeros((matches, nfa.PARTIAL_WIDTH), np.int64)
        watched = np.zeros(matches)
        held = np.zeros((matches, arena.held.shape[1]))
        size = min(size, len(arena.nodes))
        nodes = np.zeros((size, vm.NODE_WIDTH), np.int64)
        vals = np.zeros((size, arena.vals.shape[1]))
        live, waiting, count = nfa.export_key(
            self.handle, k, self._scratch, partials, watched, nodes, vals, held
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
                watched.tobytes(),
                nodes.tobytes(),
                vals.tobytes(),
                held.tobytes(),
                list(texts),
                emitted,
                timed_out,
                int(arena.keys[k, nfa.K_LAST]),
            )
        )

    def whole(self) -> Iterator[tuple[str, bytes | None]]:
        """Yield all state fields."""
        return self.changes(range(len(self.space)))

    def codes(self) -> Iterator[NDArray[np.float64]]:
        """Yield all that holds codes of strings, to be changed in place."""
        arena, c = self.arena, self.arena.counters
        for table, used, kinds in (
            (arena.vals, nfa.C_NODE_BUMP, self.compiled.capture_kinds),
            (arena.held, nfa.C_PARTIAL_BUMP, self.leaf_kinds),
        ):
            for j, kind in enumerate(kinds):
                if kind == "str":
                    yield table[: c[used], j]

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

    def restore(
        self, fields: Sequence[tuple[int, str, bytes]], _: object
    ) -> tuple[str, ...]:
        """Put the matches of keys back; there are no further fields."""
        self.ensure_keys()
        strings = self.operator.plan.strings
        for part in read_matches(fields, self.compiled, self.leaf_kinds, strings):
            self.ensure(len(part.partials), len(part.nodes))
            nfa.import_keys(self.handle, *part[:-1])
            places = [nfa.K_EMITTED, nfa.K_EMITTED_TIMEOUT, nfa.K_LAST]
            self.arena.keys[part.keys[:, None], places] = part.emitted
        return ()

    def mark_idle(self, watermark_ns: int, idle: NDArray[np.bool_]) -> None:
        """Clear ``idle`` for keys that this part still needs."""
        self.ensure_keys()
        keys = self.arena.keys[: len(idle)]
        idle &= (keys[:, nfa.K_HEAD] < 0) & (keys[:, nfa.K_HELD] < 0)
        for emitted in (keys[:, nfa.K_EMITTED], keys[:, nfa.K_EMITTED_TIMEOUT]):
            cooled = emitted <= watermark_ns - self.compiled.rule.cooldown_ns
            idle &= (emitted == nfa.NEVER) | cooled

    def forget(self, k: int) -> list[str]:
        """Drop a key; returns its state fields."""
        keys = self.arena.keys
        keys[k, [nfa.K_EMITTED, nfa.K_EMITTED_TIMEOUT]] = nfa.NEVER
        return [self.prefix + self.space.canonical(k)]


def _begins(rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return the rows with which what one event or moment puts out begins."""
    same = rows[:, [nfa.O_KEY, nfa.O_CAUSE]]
    begins = np.ones(len(rows), np.bool_)
    begins[1:] = (same[1:] != same[:-1]).any(axis=1)
    return begins
