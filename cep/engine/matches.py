"""What a step found, as columns; events are made of them when they are asked for."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from cep.engine.derive import NS_PER_MS, cause_head, derived_events, leaf_value
from cep.events.ids import random_part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cep.engine.derive import DerivedEvent
    from cep.engine.keyspace import KeySpace
    from cep.engine.plan import CompiledRule
    from cep.engine.python_calls import RuleFailure


@dataclass(slots=True)
class Matches:
    """Matches and time-outs of one rule, n of them, in order of release.

    Attributes
    ----------
    time_ns
        ``(n,)``: the completing event's time; for an absence or a time-out, when
        it became certain.
    key
        ``(n,)``: numbers of the rule's key space, good until a step sweeps them;
        what ``keys`` says of them is good for ever.
    timeout
        ``(n,)``: whether it is a partial match that ran out of time.
    values
        ``(n, leaves)``: the emitted values as the kernels hold them.
    offsets
        ``(n + 1,)``: where each one's bound events begin in the next three.
    id_hi, id_lo, variable, bound_ns
        Of each bound event, in binding order: its id, the number of the step
        (a place in ``steps``) that bound it, and its time. Of a window it is the id
        of its last event, and its end.
    """

    compiled: CompiledRule
    space: KeySpace
    texts: Sequence[str]
    time_ns: NDArray[np.int64]
    key: NDArray[np.int64]
    timeout: NDArray[np.bool_]
    values: NDArray[np.float64]
    offsets: NDArray[np.int64]
    id_hi: NDArray[np.int64]
    id_lo: NDArray[np.int64]
    variable: NDArray[np.int64]
    bound_ns: NDArray[np.int64]
    _events: list[DerivedEvent] | None = field(default=None, repr=False)
    _keys: dict[int, tuple[tuple[str, ...], str]] | None = field(
        default=None, repr=False
    )

    def __len__(self) -> int:
        return len(self.time_ns)

    @property
    def rule(self) -> str:
        """The rule's name."""
        return self.compiled.rule.name

    @property
    def steps(self) -> list[str]:
        """The names of the rule's steps."""
        return self.compiled.variables

    @property
    def keys(self) -> dict[int, tuple[tuple[str, ...], str]]:
        """The values of each key as texts, and the key as `KeySpace.canonical`."""
        if self._keys is None:
            space = self.space
            self._keys = {
                k: (space.parts(k), space.canonical(k)) for k in set(self.key.tolist())
            }
        return self._keys

    def take(self, which: Sequence[int]) -> Matches:
        """Return the matches at these places."""
        rows = np.array(which, np.intp)
        lengths = np.diff(self.offsets)[rows]
        offsets = np.zeros(rows.size + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        bound = np.arange(offsets[-1]) + np.repeat(
            self.offsets[rows] - offsets[:-1], lengths
        )
        return replace(
            self,
            time_ns=self.time_ns[rows],
            key=self.key[rows],
            timeout=self.timeout[rows],
            values=self.values[rows],
            offsets=offsets,
            id_hi=self.id_hi[bound],
            id_lo=self.id_lo[bound],
            variable=self.variable[bound],
            bound_ns=self.bound_ns[bound],
            _events=None,
        )

    def derived_ids(self, output: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Return the ids of the events that output number ``output`` makes of each.

        As upper and lower words; the same as those of `events`.
        """
        heads: dict[int, bytes] = {}
        for k, (_, canonical) in self.keys.items():
            head = cause_head(self.compiled.rule, canonical)
            heads[k] = head + output.to_bytes(4, "big")
        ids = np.stack([self.id_hi, self.id_lo], axis=1).astype(">i8").tobytes()
        bound = self.variable.astype(">u2").tobytes()
        # Empty where all that is bound is events; see `cause_head`.
        at = b""
        if self.compiled.takes_windows:
            at = self.bound_ns.astype(">i8").tobytes()
        offsets = self.offsets.tolist()
        digests = b"".join(
            random_part(
                heads[k]
                + ids[16 * a : 16 * b]
                + bound[2 * a : 2 * b]
                + at[8 * a : 8 * b]
            )
            for k, (a, b) in zip(self.key.tolist(), pairwise(offsets), strict=True)
        )
        words = np.frombuffer(digests, np.dtype([("hi", ">u2"), ("lo", ">u8")]))
        time_ms = (self.time_ns // NS_PER_MS).astype(np.uint64)
        hi = time_ms << np.uint64(16) | words["hi"].astype(np.uint64)
        return hi, words["lo"].astype(np.uint64)

    @property
    def events(self) -> list[DerivedEvent]:
        """The derived events."""
        if self._events is None:
            self._events = self._derive()
        return self._events

    def _derive(self) -> list[DerivedEvent]:
        compiled, keys = self.compiled, self.keys
        found: list[DerivedEvent] = []
        hi, lo = self.id_hi.tolist(), self.id_lo.tolist()
        steps = [compiled.variables[v] for v in self.variable.tolist()]
        times = self.bound_ns.tolist()
        offsets, values = self.offsets.tolist(), self.values.tolist()
        kinds, texts = compiled.leaf_kinds, self.texts
        for j, (time_ns, k, timeout) in enumerate(
            zip(
                self.time_ns.tolist(),
                self.key.tolist(),
                self.timeout.tolist(),
                strict=True,
            )
        ):
            span = slice(offsets[j], offsets[j + 1])
            found += derived_events(
                compiled,
                time_ns=time_ns,
                key_parts=keys[k][0],
                key_canonical=keys[k][1],
                ids=list(zip(hi[span], lo[span], strict=True)),
                steps=steps[span],
                times=times[span],
                values=[
                    leaf_value(value, kind, texts)
                    for value, kind in zip(values[j], kinds, strict=True)
                ],
                timeout=timeout,
            )
        return found

    @staticmethod
    def concat(parts: Sequence[Matches]) -> Matches:
        """Return parts of one rule, one after the other; at least one."""
        if len(parts) == 1:
            return parts[0]
        first = parts[0]

        def joined(name: str) -> NDArray[Any]:
            return np.concatenate([getattr(part, name) for part in parts])

        lengths = np.concatenate([np.diff(part.offsets) for part in parts])
        offsets = np.zeros(lengths.size + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return Matches(
            first.compiled,
            first.space,
            first.texts,
            time_ns=joined("time_ns"),
            key=joined("key"),
            timeout=joined("timeout"),
            values=joined("values"),
            offsets=offsets,
            id_hi=joined("id_hi"),
            id_lo=joined("id_lo"),
            variable=joined("variable"),
            bound_ns=joined("bound_ns"),
        )


@dataclass(slots=True, weakref_slot=True, eq=False)
class Outputs:
    """What a step found.

    ``matches`` holds one `Matches` for each rule that found something, in the
    order of the rules; ``failures`` the events that a function of a rule failed on.
    """

    matches: list[Matches] = field(default_factory=list)
    failures: list[RuleFailure] = field(default_factory=list)
    _events: list[DerivedEvent] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return sum(map(len, self.matches))

    def keep_keys(self) -> None:
        """Look up all keys while they still have their numbers."""
        for matches in self.matches:
            _ = matches.keys

    @property
    def events(self) -> list[DerivedEvent]:
        """The derived events, in order of event time, then of the rules."""
        if self._events is None:
            events = [event for matches in self.matches for event in matches.events]
            events.sort(key=lambda event: event.time_ns)
            self._events = events
        return self._events
