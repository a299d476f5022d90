"""Event-time order: watermarks, lateness, and what may be released.

Each input stream has an out-of-orderness bound. Its watermark is its largest
event time minus the bound, a claim that nothing older is still to come; an
event below its own stream's watermark when it arrives is late. Events are
released strictly below the smallest watermark, in the order (event time,
stream, entry id), whatever the reading interleaved.

A stream that stays silent would hold everything back. So, once nothing has
arrived in it for longer than ``idle``, its watermark moves on with the arrival
clock: the entry ids of all streams, never the wall clock, so that a replay
sees the same time. Lateness counts that in from the stream's own entry ids
alone, which makes it independent of what other streams did meanwhile. A stream
that was never heard counts as silent since the first entry of any stream.

An event whose id an earlier one of its stream had, and not below the watermark,
is a duplicate and not kept either (`cep.engine.recent_ids`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cep.engine.batch import Batch
from cep.engine.kernels.rows import ENTRY_MS, ENTRY_SEQ, PLACE
from cep.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

NS_PER_MS = 1_000_000
LONG_AGO = np.iinfo(np.int64).min // 4
END_OF_TIME = np.iinfo(np.int64).max
SMALL_ROWS = 1024  # of batches that wait, below which they are joined
LAST_MS = END_OF_TIME // NS_PER_MS - 1  # an entry id may claim to be later


@dataclass(frozen=True, slots=True)
class InputStream:
    """How one input stream's time is judged.

    ``max_out_of_orderness_ns`` is how far its watermark trails; ``idle_ns`` how
    long it may be silent before time goes on without it, None for never;
    ``deduplicate`` whether an event with the id of one not below the watermark
    is a copy of it.
    """

    name: str
    max_out_of_orderness_ns: int = 0
    idle_ns: int | None = None
    deduplicate: bool = True


class Judged(NamedTuple):
    """Which arrivals are not kept: ``(n,)`` each, none both."""

    late: NDArray[np.bool_]
    duplicate: NDArray[np.bool_]


@dataclass(slots=True)
class _Clock:
    """One stream's time so far."""

    largest: int = LONG_AGO  # largest event time, ns
    watermark: int = LONG_AGO
    arrived_ms: int = -1  # entry id of the last row


class Ordering:
    """Holds rows back until their time has come.

    Parameters
    ----------
    streams
        Sorted by name here, so that equal times are ordered alike whatever
        order they are given in; `number` says a stream's place.
    columns
        How many columns the engine's batches have.
    """

    def __init__(self, streams: Sequence[InputStream], columns: int) -> None:
        self.streams = sorted(streams, key=lambda stream: stream.name)
        names = [stream.name for stream in self.streams]
        if len(set(names)) != len(names) or not names:
            raise UsageError(
                f"The input streams are {', '.join(names) or 'none'}.",
                "Name at least one, each once.",
            )
        # Kernels are loaded by who runs something, not by who defines it.
        from cep.engine.recent_ids import RecentIds

        self._recent = [
            RecentIds() if stream.deduplicate else None for stream in self.streams
        ]
        self.number = {name: i for i, name in enumerate(names)}
        self.clocks = [_Clock() for _ in names]
        self.arrival_ms = -1
        self.latest_ms = (
            END_OF_TIME  # entry ids beyond say nothing of when they arrived
        )
        self.began = (-1, LONG_AGO)  # entry id and event time of the very first row
        self.released_ns = LONG_AGO  # all below has been released
        self.ended = False
        self._columns = columns
        # Batches as they came, with the least time in each, so that a release
        # looks only at those it takes from; and what was due when a limit cut a
        # release, in order, from `_next` on.
        self._waiting: list[Batch] = []
        self._least: list[int] = []
        self._due, self._next = Batch.empty(columns), 0

    def __len__(self) -> int:
        """How many rows are held back."""
        return sum(map(len, self._waiting)) + len(self._due) - self._next

    def add(self, batch: Batch) -> Judged:
        """Take in arrivals of one stream, in entry id order.

        Returns which are late or duplicates; those are not kept. The result
        does not depend on how arrivals are cut into batches; of batches that were
        read together, the one with the first entry comes first.
        """
        n = len(batch)
        if not n:
            return Judged(np.zeros(0, np.bool_), np.zeros(0, np.bool_))
        number = int(batch.stream[0])
        stream, clock = self.streams[number], self.clocks[number]
        times, now_ms = batch.time, self._arrivals(batch, clock)
        if clock.arrived_ms < 0:
            clock.watermark = self._mark(number, int(now_ms[0]))
            first = int(now_ms[0]), int(times[0])
            if first[0] >= 0 and (self.began[0] < 0 or first < self.began):
                self.began = first
        largest = np.maximum.accumulate(np.maximum(times, clock.largest))
        before = np.concatenate([[clock.largest], largest[:-1]])
        marks = before - stream.max_out_of_orderness_ns
        if stream.idle_ns is not None:
            arrived = np.concatenate([[clock.arrived_ms], now_ms[:-1]])
            silent = (now_ms - 1 - arrived) * NS_PER_MS - stream.idle_ns
            silent[arrived < 0] = 0
            room = END_OF_TIME - np.maximum(marks, 0)
            marks = marks + np.minimum(np.maximum(silent, 0), room)
        marks = np.maximum.accumulate(np.maximum(marks, clock.watermark))
        late = times < marks
        # Of a stream that others have not waited for, as it was added to the
        # pipeline later, rows may be behind what was released.
        late |= times < self.released_ns
        # A late row may not move the clock by what it is: it is older.
        clock.largest = int(largest[-1])
        clock.watermark = max(
            int(marks[-1]), clock.largest - stream.max_out_of_orderness_ns
        )
        clock.arrived_ms = max(clock.arrived_ms, int(now_ms[-1]))
        recent = self._recent[number]
        if recent is None:
            duplicate = np.zeros(n, np.bool_)
        else:
            duplicate = recent.judge(batch, marks, late)
        gone = late | duplicate
        kept = batch.take(~gone) if gone.any() else batch
        self._hold(kept)
        return Judged(late, duplicate)

    def _arrivals(self, batch: Batch, clock: _Clock) -> NDArray[np.int64]:
        """Return when rows arrived; an id of the future does not tell, so as before."""
        ms, latest = np.minimum(batch.entry_ms, LAST_MS), self.latest_ms
        if int(ms[-1]) <= latest:
            return ms
        credible = np.where(ms > latest, -1, ms)
        return np.maximum.accumulate(np.maximum(credible, clock.arrived_ms))

    def put_back(self, batch: Batch) -> None:
        """Hold rows that were judged before (after a restart)."""
        self._hold(batch)
        for number in np.unique(batch.stream).tolist():
            recent = self._recent[number]
            if recent is not None:
                recent.put_back(batch.take(batch.stream == number))

    def arrived(self, arrival_ms: int) -> None:
        """Tell the arrival clock: every entry up to this id's time has been read."""
        if arrival_ms <= self.latest_ms:
            self.arrival_ms = max(self.arrival_ms, min(arrival_ms, LAST_MS))

    def end(self) -> None:
        """Declare that nothing will arrive any more: all is released."""
        self.ended = True

    def watermark(self) -> int:
        """Return the smallest watermark; only rows below it may be released."""
        if self.ended:
            return END_OF_TIME
        marks = [self._mark(i, self.arrival_ms) for i in range(len(self.streams))]
        return max(self.released_ns, min(marks))

    def _mark(self, number: int, now_ms: int) -> int:
        """Return a stream's watermark as of an arrival time."""
        now_ms = min(now_ms, LAST_MS)
        stream, clock = self.streams[number], self.clocks[number]
        since_ms, largest = clock.arrived_ms, clock.largest
        if since_ms < 0:
            since_ms, largest = self.began
        if stream.idle_ns is None or since_ms < 0:
            return clock.watermark
        # Entries of this very millisecond may still come: up to the one before.
        silent = (now_ms - 1 - since_ms) * NS_PER_MS - stream.idle_ns
        if silent <= 0:
            return clock.watermark
        mark = max(clock.watermark, largest - stream.max_out_of_orderness_ns + silent)
        return min(mark, END_OF_TIME)

    def held_back_by(self) -> str | None:
        """Return the stream whose watermark holds rows back, None if none does."""
        if not len(self) or self.ended:
            return None
        now_ms = self.arrival_ms
        marks = [(self._mark(i, now_ms), i) for i in range(len(self.streams))]
        return self.streams[min(marks)[1]].name

    def release(self, limit: int | None = None) -> tuple[Batch, int]:
        """Return rows whose time has come, in order, and the time they lie below.

        ``limit`` bounds their number; the time returned is then that of the
        first row still held, so that equal times may be split but never passed.
        """
        if limit is not None and self._next + limit < len(self._due):
            return self._release_due(limit)
        self._hold(self._rest_of_due())
        self._due, self._next = self._due.take(slice(0, 0)), 0
        mark = self.watermark()
        touched = [i for i, least in enumerate(self._least) if least < mark]
        if not touched:
            self.released_ns = max(self.released_ns, mark)
            return Batch.empty(self._columns), mark
        found = Batch.concat([self._waiting[i] for i in touched])
        for i in reversed(touched):
            del self._waiting[i], self._least[i]
        is_due = found.time < mark
        if not is_due.all():
            self._hold(found.take(~is_due))
        order = _in_order(found, np.flatnonzero(is_due))
        # Most come in order: then nothing is moved that can stay.
        if not (order[1:] > order[:-1]).all():
            found = found.take(order)
        elif len(order) < len(found):
            run = len(order) and order[-1] - order[0] + 1 == len(order)
            first = int(order[0]) if run else 0
            found = found.take(slice(first, first + len(order)) if run else order)
        if limit is not None and limit < len(found):
            self._due = found
            return self._release_due(limit)
        self.released_ns = max(self.released_ns, mark)
        return found, mark

    def _release_due(self, limit: int) -> tuple[Batch, int]:
        """Return the next rows of those due; what came since is later than all."""
        begin, self._next = self._next, self._next + limit
        mark = int(self._due.time[self._next])
        self.released_ns = max(self.released_ns, mark)
        return self._due.take(slice(begin, self._next)), mark

    def _rest_of_due(self) -> Batch:
        return self._due.take(slice(self._next, len(self._due)))

    def _hold(self, batch: Batch) -> None:
        """Hold a batch back; small ones are joined, so that they do not pile up."""
        if not len(batch):
            return
        waiting, least = self._waiting, self._least
        waiting.append(batch)
        least.append(int(batch.time.min()))
        while (
            len(waiting) > 1
            and len(waiting[-1]) < SMALL_ROWS
            and len(waiting[-2]) <= 2 * len(waiting[-1])
        ):
            waiting[-2:] = [Batch.concat(waiting[-2:])]
            least[-2:] = [min(least[-2:])]

    def _held(self) -> list[Batch]:
        """Return all rows that are held back."""
        return [*self._waiting, self._rest_of_due()]

    def ahead_of(self, name: str, rows: int) -> set[str]:
        """Return the streams ahead of one in time with so many rows waiting."""
        held = np.zeros(len(self.streams), np.int64)
        for batch in self._held():
            held += np.bincount(batch.stream, minlength=len(held))
        mark = self.clocks[self.number[name]].watermark
        return {
            stream.name
            for stream, clock, n in zip(
                self.streams, self.clocks, held.tolist(), strict=True
            )
            if n >= rows and clock.watermark > mark
        }

    def held(self, number: int) -> NDArray[np.int64]:
        """Return entry ids and places of a stream's rows held back, shape (3, n)."""
        which = [ENTRY_MS, ENTRY_SEQ, PLACE]
        parts = [batch.ints[which][:, batch.stream == number] for batch in self._held()]
        return np.concatenate([np.zeros((3, 0), np.int64), *parts], axis=1)

    def waiting_ids(self) -> dict[str, list[str]]:
        """Return the entry ids of the rows held back, by stream."""
        ids: dict[str, list[str]] = {stream.name: [] for stream in self.streams}
        for batch in self._held():
            for number, ms, seq in zip(
                batch.stream.tolist(),
                batch.entry_ms.tolist(),
                batch.entry_seq.tolist(),
                strict=True,
            ):
                ids[self.streams[number].name].append(f"{ms}-{seq}")
        return ids

    def snapshot(self) -> dict[str, Any]:
        """Return the clocks (the rows held back are named by `waiting_ids`)."""
        return {
            "arrival_ms": self.arrival_ms,
            "began": list(self.began),
            "released_ns": self.released_ns,
            "ended": self.ended,
            "clocks": {
                stream.name: [clock.largest, clock.watermark, clock.arrived_ms]
                for stream, clock in zip(self.streams, self.clocks, strict=True)
            },
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put the clocks back; a stream that was not there before starts anew."""
        self.arrival_ms = state["arrival_ms"]
        self.began = tuple(state["began"])
        self.released_ns = state["released_ns"]
        self.ended = state["ended"]
        for name, clock in state["clocks"].items():
            if name in self.number:
                self.clocks[self.number[name]] = _Clock(*clock)


def _in_order(batch: Batch, due: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return rows by (event time, stream, entry id).

    Rows mostly come in the order of their entries, stream by stream. Then a place
    says as much as stream and entry id, and one number of time and place sorts
    them: a third of the time that four keys take.
    """
    if len(due) < 2:
        return due
    time, stream, ms, seq = (
        row[due] for row in (batch.time, batch.stream, batch.entry_ms, batch.entry_seq)
    )
    if (stream[1:] < stream[:-1]).any():
        by_stream = np.argsort(stream, kind="stable")
        due, time, stream = due[by_stream], time[by_stream], stream[by_stream]
        ms, seq = ms[by_stream], seq[by_stream]
    later = (ms[1:] > ms[:-1]) | ((ms[1:] == ms[:-1]) & (seq[1:] > seq[:-1]))
    least, bits = int(time.min(initial=END_OF_TIME)), len(due).bit_length()
    spread = int(time.max(initial=LONG_AGO)) - least
    if not (later | (stream[1:] > stream[:-1])).all() or spread >> (63 - bits):
        order = np.lexsort((seq, ms, stream, time))
    else:
        order = (time - least) << bits | np.arange(len(due))
        order.sort()
        order &= (1 << bits) - 1
    rows: NDArray[np.int64] = due[order]
    return rows
