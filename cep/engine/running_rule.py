"""The state of one rule: its partial matches, and how they go to bytes and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cep.engine.derive import DerivedEvent, derived_events, leaf_value
from cep.engine.growth import doubled, grown
from cep.engine.kernels import nfa, vm
from cep.engine.state import MatchState, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from cep.engine.batch import Batch
    from cep.engine.operator import Operator
    from cep.engine.plan import CompiledRule


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


class RunningRule:
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
        rows = doubled(max(have, 16), need)
        keys = grown(self.arena.keys, rows)
        keys[have:, [nfa.K_HEAD, nfa.K_TAIL, nfa.K_HELD]] = -1
        keys[have:, nfa.K_EMITTED] = nfa.NEVER
        self.arena = self.arena._replace(
            keys=keys,
            heap=grown(self.arena.heap, rows),
            dirty=grown(self.arena.dirty, rows),
        )

    def ensure(self, partials: int, nodes: int) -> None:
        """Make room for that many more of each."""
        arena, c = self.arena, self.arena.counters
        need = int(c[nfa.C_PARTIAL_BUMP]) + partials
        if need > len(arena.partials):
            rows = doubled(len(arena.partials), need)
            arena = arena._replace(
                partials=grown(arena.partials, rows), held=grown(arena.held, rows)
            )
        need = int(c[nfa.C_NODE_BUMP]) + nodes
        if need > len(arena.nodes):
            rows = doubled(len(arena.nodes), need)
            arena = arena._replace(
                nodes=grown(arena.nodes, rows), vals=grown(arena.vals, rows)
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
            rows = doubled(len(arena.out), 2 * need + held)
            self.arena = self.arena._replace(
                out=grown(arena.out, rows), outv=grown(arena.outv, rows)
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
