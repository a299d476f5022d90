"""Partial matches of many keys out of bytes, checked together.

They come back from a server that others can write to, and kernels follow the numbers
in them without looking: so all of them are looked at here, a table at a time.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cep.engine.kernels import nfa, vm
from cep.engine.state import Contradiction, MatchState, damaged, need, unpack

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from cep.engine.interner import Interner
    from cep.engine.plan import CompiledRule

    Field = tuple[int, str, bytes]  # the key's number, the field's name, what it holds

# Keys and nodes that are put back together.
RESTORED_KEYS = 10_000
RESTORED_NODES = 100_000


class Matches(NamedTuple):
    """Partial and held matches of some keys; nodes are numbered through."""

    keys: NDArray[np.int64]
    live: NDArray[np.int64]
    waiting: NDArray[np.int64]
    partials: NDArray[np.int64]
    watched: NDArray[np.float64]
    nodes: NDArray[np.int64]
    values: NDArray[np.float64]
    held: NDArray[np.float64]
    emitted: NDArray[np.int64]  # (keys, 3): outputs' and time-outs' times, last event's


def read_matches(
    fields: Sequence[Field],
    compiled: CompiledRule,
    leaf_kinds: Sequence[str],
    strings: Interner,
) -> Iterator[Matches]:
    """Yield what the fields of a rule hold, in parts.

    Raises
    ------
    StateVersionError
        If one was written by other code, or its parts contradict each other.
    """
    part, size = _Part(compiled, leaf_kinds, strings), 0
    for k, name, blob in fields:
        state = unpack(name, blob, MatchState)
        part.add(k, name, state)
        size += len(state.nodes) // (8 * vm.NODE_WIDTH)
        if len(part.keys) >= RESTORED_KEYS or size >= RESTORED_NODES:
            yield part.read()
            part, size = _Part(compiled, leaf_kinds, strings), 0
    if part.keys:
        yield part.read()


class _Part:
    """States of some keys."""

    def __init__(
        self, compiled: CompiledRule, leaf_kinds: Sequence[str], strings: Interner
    ) -> None:
        self.compiled, self.strings = compiled, strings
        self.capture_kinds, self.leaf_kinds = compiled.capture_kinds, leaf_kinds
        self.keys: list[int] = []
        self.fields: list[str] = []
        self.states: list[MatchState] = []

    def add(self, k: int, name: str, state: MatchState) -> None:
        """Take a state whose tables have the lengths that they say."""
        matches, nodes = state.live + state.waiting, len(state.nodes)
        try:
            need(state.live >= 0 and state.waiting >= 0)
            need(len(state.partials) == 8 * nfa.PARTIAL_WIDTH * matches)
            need(len(state.watched) == 8 * matches)
            need(len(state.held) == 8 * len(self.leaf_kinds) * matches)
            need(nodes % (8 * vm.NODE_WIDTH) == 0)
            captured = len(self.capture_kinds) * (nodes // vm.NODE_WIDTH)
            need(len(state.values) == captured)
        except Contradiction as error:
            raise damaged(name, str(error)) from error
        self.keys.append(k)
        self.fields.append(name)
        self.states.append(state)

    def read(self) -> Matches:
        """Return the tables of all."""
        states = self.states
        live, waiting, nodes_of = (
            np.array(column, np.int64)
            for column in zip(
                *((x.live, x.waiting, len(x.nodes)) for x in states), strict=True
            )
        )
        partials = self._table("partials", np.int64, nfa.PARTIAL_WIDTH)
        nodes = self._table("nodes", np.int64, vm.NODE_WIDTH)
        matches_of = live + waiting
        nodes_of //= 8 * vm.NODE_WIDTH
        mine = np.repeat(np.arange(len(states)), matches_of)
        owner = np.repeat(np.arange(len(states)), nodes_of)
        first_node = np.cumsum(nodes_of) - nodes_of
        at = np.arange(len(partials)) - (np.cumsum(matches_of) - matches_of)[mine]
        self._check_partials(partials, mine, at < live[mine], nodes_of)
        self._check_nodes(nodes, owner, np.arange(len(nodes)) - first_node[owner])
        # From here on nodes have numbers of their own among all.
        partials[:, nfa.P_NODE] += first_node[mine]
        nodes[:, vm.FIRST] += first_node[owner]
        before = nodes[:, vm.PREV]
        before[before >= 0] += first_node[owner[before >= 0]]
        used = np.zeros(len(nodes), np.bool_)
        used[partials[:, nfa.P_NODE]] = True
        used[before[before >= 0]] = True
        lengths = nodes[:, vm.LENGTH]
        expected = np.ones(len(nodes), np.int64)
        expected[before >= 0] += lengths[before[before >= 0]]
        self._refuse(owner[~used | (lengths != expected)])
        values = self._table("values", np.float64, len(self.capture_kinds), len(nodes))
        held = self._table("held", np.float64, len(self.leaf_kinds), len(partials))
        texts = [text for state in states for text in state.texts]
        codes = self.strings.codes(texts)
        self._place_texts(values, self.capture_kinds, owner, codes)
        self._place_texts(held, self.leaf_kinds, mine, codes)
        return Matches(
            np.array(self.keys),
            live,
            waiting,
            partials,
            self._table("watched", np.float64, 1).reshape(-1),
            nodes,
            values,
            held,
            np.array([(x.emitted_ns, x.emitted_timeout_ns, x.last_ns) for x in states]),
        )

    def _table(
        self, name: str, dtype: type[Any], width: int, rows: int = 0
    ) -> NDArray[Any]:
        """Return the tables of all keys as one; ``rows`` counts where nothing does."""
        raw = b"".join(getattr(state, name) for state in self.states)
        flat = np.frombuffer(raw, dtype).copy()
        return flat.reshape(-1, width) if width else np.zeros((rows, 0), dtype)

    def _check_partials(
        self,
        partials: NDArray[np.int64],
        mine: NDArray[np.int64],
        live: NDArray[np.bool_],
        nodes_of: NDArray[np.int64],
    ) -> None:
        state, node = partials[:, nfa.P_STATE], partials[:, nfa.P_NODE]
        states = len(self.compiled.states)
        wrong = np.where(live, (state < 0) | (state >= states), state != -1)
        wrong |= (node < 0) | (node >= nodes_of[mine])
        wrong |= (partials[:, [nfa.P_START, nfa.P_END]] < 0).any(axis=1)
        # Earliest start first: what expires is looked for from the head only.
        follows = live[1:] & (mine[1:] == mine[:-1])
        for column in (nfa.P_START, nfa.P_ORDER):
            wrong[1:] |= follows & (partials[1:, column] < partials[:-1, column])
        self._refuse(mine[wrong])

    def _check_nodes(
        self,
        nodes: NDArray[np.int64],
        owner: NDArray[np.int64],
        place: NDArray[np.int64],
    ) -> None:
        before, first = nodes[:, vm.PREV], nodes[:, vm.FIRST]
        variable = nodes[:, vm.VARIABLE]
        wrong = (before < -1) | (before >= place) | (first < 0) | (first > place)
        wrong |= (variable < 0) | (variable >= len(self.compiled.variables))
        self._refuse(owner[wrong])

    def _place_texts(
        self,
        values: NDArray[np.float64],
        kinds: Sequence[str],
        owner: NDArray[np.int64],
        codes: NDArray[np.int64],
    ) -> None:
        """Replace places in each key's texts by the engine's codes."""
        columns = [j for j, kind in enumerate(kinds) if kind == "str"]
        if not columns:
            return
        texts_of = np.array([len(state.texts) for state in self.states])
        before = np.array([0, *accumulate(texts_of.tolist())])[owner]
        for j in columns:
            column = values[:, j]
            present = ~np.isnan(column)
            asked, limit = column[present], texts_of[owner[present]]
            wrong = (asked != np.floor(asked)) | (asked < 0) | (asked >= limit)
            self._refuse(owner[present][wrong])
            column[present] = codes[before[present] + asked.astype(np.int64)]

    def _refuse(self, which: NDArray[np.int64]) -> None:
        if which.size:
            name = self.fields[int(which[0])]
            raise damaged(name, "its parts contradict each other")
