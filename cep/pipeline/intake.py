"""From streams to ordered rows: read, decode, put aside what is late or bad."""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cep.bus import ColumnarReader, read_ids, read_spans
from cep.bus.connection import clear_errors
from cep.engine.ordering import NS_PER_MS, Ordering
from cep.errors import GapError, StateVersionError
from cep.events.codec import FUTURE_TOLERANCE_MS
from cep.events.columns import BadRow
from cep.events.ids import words_to_ulid
from cep.events.reasons import Reason
from cep.pipeline import limits
from cep.pipeline.accounting import Accounting
from cep.pipeline.entries import (
    dead_letter,
    duplicate_letter,
    failure_letter,
    gap_letter,
    late_letter,
    poison_letter,
    vanished,
)
from cep.pipeline.gaps import Gaps
from cep.pipeline.held import Run, decode, encode
from cep.pipeline.notes import Note
from cep.pipeline.store import Absent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from cep.bus.page import StreamPage
    from cep.engine.batch import Batch
    from cep.engine.operator import Operator, RuleFailure
    from cep.events.columns import EventColumns
    from cep.pipeline.definition import OnGap, Pipeline
    from cep.pipeline.gaps import Judgement
    from cep.pipeline.pending import Pending
    from cep.pipeline.poison import Care
    from cep.pipeline.store import Store, Stored


_AROUND = 500  # bytes of a dead letter around an entry's own, about
_AT_ONCE = 1_000  # entries looked up in one round trip


class Intake:
    """Reads a pipeline's streams and accounts for every entry.

    Attributes
    ----------
    ordering
        Holds the rows that were read and not released.
    accounting
        Where entries have gone; those released are counted by their taker.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        store: Store,
        operator: Operator,
        pending: Pending,
        stored: Stored,
        on_gap: Mapping[str, OnGap],
        note: Callable[[Note], None],
        care: Care,
    ) -> None:
        self._care = care
        self._on_gap, self._note = on_gap, note
        self._noted: set[str] = set()
        self._poison: tuple[str, int] | None = None  # held, and not to be put back
        self._most = limits.READ_COUNT  # entries of a stream to take at once
        self._me, self._store, self._client = pipeline.name, store, store.client
        self._operator, self._pending = operator, pending
        self.ordering = Ordering(pipeline.streams, operator.plan.column_count)
        self.ordering.latest_ms = -1  # so that the server is asked for its time
        names = [stream.name for stream in self.ordering.streams]
        self._absent = _absent(stored, names)
        back = {n: stored.absent[n] for n in names if n in stored.absent}
        counts = stored.counts | {n: one.counts for n, one in back.items()}
        positions = stored.positions | {n: one.position for n, one in back.items()}
        marks = stored.marks | {n: one.mark for n, one in back.items() if one.mark}
        self.accounting = Accounting({n: counts.get(n, {}) for n in names})
        fields = {
            event_type: {f for f in wanted if not f.startswith("@")}
            for event_type, wanted in operator.reads.items()
        }
        wanted = {f for w in operator.reads.values() for f in w}
        self._reading: dict[str, Any] = {
            "fields": fields,
            "envelope": sorted(f for f in wanted if f.startswith("@")),
        }
        self.reader = ColumnarReader(
            self._client,
            names,
            start={n: positions.get(n, "0-0") for n in names},
            count=care.rows or limits.READ_COUNT,
            **self._reading,
        )
        self.gaps = Gaps(self._client, marks)
        self._looked = time.monotonic() - limits.GAP_SECONDS
        if stored.ordering:
            self.ordering.restore(stored.ordering)

    def read_again(self, stored: Stored) -> None:
        """Put back the rows that were read but not released before the last commit.

        What is gone, or no event any more (its type is not registered now),
        becomes a dead letter. Entries of a stream that was not read for a while
        are judged anew, as time went on without it.
        """
        for name in self.ordering.number:
            back = stored.absent.get(name)
            held = stored.held.get(name, b"") if back is None else back.held
            runs = self._runs(name, held)
            runs += [Run(one, one, 1) for one in stored.buffered.get(name, ())]
            if runs:
                self._put_back(name, runs, anew=back is not None)

    def _runs(self, stream: str, held: bytes) -> list[Run]:
        try:
            return decode(held)
        except ValueError as error:
            where = f"pipeline {self._me!r} (entries held of {stream})"
            raise StateVersionError(where, f"damaged ({error})", "runs") from None

    def _put_back(self, name: str, runs: list[Run], *, anew: bool = False) -> None:
        counts = self.accounting[name]
        firsts = [_number(run.first) for run in runs]
        found = [0] * len(runs)
        # Places of their own, so that what is read from now on follows none of them.
        place = -sum(run.entries for run in runs) - 2 * len(runs) - 2
        spans = [(run.first, run.last) for run in runs]
        for page in read_spans(self._client, name, spans, **self._reading):
            batch = self._operator.ingest(page.columns, self.ordering.number[name])
            of_run = [bisect_right(firsts, n) - 1 for n in _numbers(page.columns)]
            batch.place[:] = place + page.rows + 2 * np.array(of_run, np.int64)
            place += page.entries_read
            if self._poison is not None and self._poison[0] == name:
                good = [n != self._poison[1] for n in _numbers(page.columns)]
                batch = batch.take(np.array(good, np.bool_))
            for i in of_run:
                found[i] += 1
            for row in page.bad:
                found[bisect_right(firsts, _number(row.entry_id)) - 1] += 1
                letter = dead_letter(self._me, "quarantine", row)
                self._pending.add(self._store.dlq, letter)
            counts.quarantined += len(page.bad)
            counts.buffered -= len(page.bad)
            if anew:
                counts.buffered -= len(batch)
                self._judge(name, batch)
            else:
                self.ordering.put_back(batch)
        for run, n in zip(runs, found, strict=True):
            if missing := run.entries - n:
                letter = vanished(self._me, name, run.first, run.last, missing)
                self._pending.add(self._store.dlq, letter)
                counts.quarantined += missing
                counts.buffered -= missing

    def _judge(self, stream: str, batch: Batch) -> None:
        """Order arrivals; put aside those that are late or duplicates."""
        counts = self.accounting[stream]
        late, duplicate = self.ordering.add(batch)
        gone = late | duplicate
        if gone.any():
            counts.late += int(late.sum())
            counts.duplicate += int(duplicate.sum())
            self._put_aside(stream, batch.take(gone), late[gone])

    def read(self) -> list[StreamPage]:
        """Take in what there is, waiting for it a moment if there is none."""
        self._wait_for_the_hindmost()
        look = time.monotonic() - self._looked >= limits.GAP_SECONDS
        left_ms = max(0.0, 1000 * self._pending.seconds_left())
        block_ms = math.ceil(min(limits.BLOCK_MS, left_ms))
        if self.reader.paused:
            block_ms = 0  # there is more in those
        if self._care.one_by_one:
            pages = self._read_one(block_ms)
        else:
            self.reader.count = self._care.rows or self._most
            pages = self._within_commit(self.reader.read(block_ms, ahead=not look))
        before = self._pending.size
        self._take(pages)
        self._fit(self._pending.size - before)
        self._care.count(sum(page.entries_read for page in pages))
        if look:
            self.look_for_gaps()
        return pages

    def _within_commit(self, pages: list[StreamPage]) -> list[StreamPage]:
        """Return as much of pages as the commit has room for dead letters of.

        The rest will be read again.
        """
        room = limits.COMMIT_BYTES - self._pending.size
        found = []
        for page in pages:
            sizes = [len(row.raw) + len(row.detail) + _AROUND for row in page.bad]
            ends = np.cumsum([0, *sizes])
            if page.bad and ends[-1] > room:
                n = max(1, int(np.searchsorted(ends, room, side="right")) - 1)
                found.append(self._head(page, page.bad[n - 1].entry_id))
            else:
                found.append(page)
            room -= int(ends[-1])
        return found

    def _head(self, page: StreamPage, last_id: str) -> StreamPage:
        """Read a page again up to an entry, and go on from there."""
        span = page.first_id, last_id
        head = next(read_spans(self._client, page.stream, [span], **self._reading))
        if not head.entries_read:  # deleted meanwhile
            return page
        self._most = head.entries_read
        self.reader.reset(self.reader.positions | {page.stream: head.last_id})
        return head

    def _fit(self, written: int) -> None:
        """Read so many entries at once that what is written of them fits a commit."""
        if written > limits.COMMIT_BYTES:
            self._most = max(1, self._most * limits.COMMIT_BYTES // written)
        elif 2 * written <= limits.COMMIT_BYTES:
            self._most = min(limits.READ_COUNT, 2 * self._most)

    def _read_one(self, block_ms: int) -> list[StreamPage]:
        """Return a page of the one entry that arrived next, and say so before."""
        positions = dict(self.reader.positions)
        with clear_errors(self._client):
            pipe = self._client.pipeline(transaction=False)
            for stream, position in positions.items():
                pipe.xrange(stream, b"(" + position, count=1)
            found = dict(zip(positions, pipe.execute(), strict=True))
            heads = {name: some[0][0] for name, some in found.items() if some}
            if not heads and block_ms:
                everything: Any = positions
                self._client.xread(everything, count=1, block=block_ms)
        pages = []
        if heads:
            name = min(heads, key=lambda name: (_pair(heads[name]), name))
            self._care.attempt(name, heads[name].decode(), was_read=False)
            pages = [read_ids(self._client, name, [heads[name]], **self._reading)]
            positions[name] = heads[name]
        self.reader.reset(positions)
        self.reader.exhausted = {name: name not in heads for name in positions}
        return pages

    def put_poison(self, stored: Stored) -> None:
        """Put the entry aside that kills the process, if one does."""
        if self._care.poison is None:
            return
        name, entry_id, was_read = self._care.poison
        if name not in self.ordering.number:
            return
        counts, positions = self.accounting[name], dict(self.reader.positions)
        [raw] = self._raw([(name, entry_id)])
        if not raw.raw_length:  # it is gone
            return
        if was_read:
            number = _number(entry_id)
            runs = self._runs(name, stored.held.get(name, b""))
            if not any(_number(x.first) <= number <= _number(x.last) for x in runs):
                return
            self._poison = name, number
            counts.buffered -= 1
        else:
            counts.read += 1
            positions[name] = entry_id.encode()
            self.reader.reset(positions)
        counts.quarantined += 1
        self._pending.add(self._store.dlq, poison_letter(self._me, raw))

    def look_for_gaps(self) -> None:
        """Account for entries that were lost; nothing may be on its way to us.

        Raises
        ------
        GapError
            If entries of a stream were lost for which we are to stop.
        """
        self._looked = time.monotonic()
        reader = self.reader
        positions = dict(reader.positions)
        for name, look in self.gaps.look(list(positions)).items():
            counts, after = self.accounting[name], positions[name]
            self._pending.dirty |= name not in self.gaps.marks
            found = self.gaps.judge(name, look, after, counts.read, counts.gaps)
            if found.from_beginning:
                positions[name] = b"0-0"
            if found.missing or found.begun_anew:
                self._count_gap(name, after.decode(), found)
        if positions != reader.positions:
            reader.reset(positions)
        if self.gaps.blind:
            text = f"Gaps cannot be seen: {self.gaps.blind}."
            self._note_once(Note(text, "gaps_unseen", "warning"))

    def _count_gap(self, stream: str, after: str, found: Judgement) -> None:
        error = GapError(stream, found.missing, after, found.begun_anew)
        if self._on_gap[stream] == "stop":
            raise error
        self.accounting[stream].gaps += found.missing
        detail = str(error).partition(". ")[0]
        letter = gap_letter(self._me, stream, after, found.missing, detail)
        self._pending.add(self._store.dlq, letter)
        text, fields = f"{detail}: going on without them", {"missing": found.missing}
        self._note(Note(text, "gap", "error", stream=stream, after=after, **fields))

    @property
    def is_exhausted(self) -> bool:
        """Whether the last read reached the end of every stream."""
        return all(self.reader.exhausted.values())

    def _look_at_ids(self, pages: list[StreamPage]) -> None:
        """Ask for the server's time if ids of entries may be of the future.

        Whoever writes ids of their own may write any; the server's are of its clock.
        """
        ends = {page.stream: _ms(page.last_id) for page in pages if page.last_id}
        latest = self.ordering.latest_ms
        if max(ends.values(), default=0) <= latest:
            return
        with clear_errors(self._client):
            seconds, _ = self._client.time()
        self.ordering.latest_ms = latest = 1000 * seconds + FUTURE_TOLERANCE_MS
        for stream, ms in ends.items():
            if ms > latest:
                text = (
                    f"entry ids of {stream} are far ahead of the server's clock: what "
                    "they say of when entries arrived is left out of account"
                )
                self._note_once(Note(text, "future_ids", "warning", stream=stream))

    def _without_future(self, stream: str, batch: Batch) -> Batch:
        """Quarantine events of the future, which ids of the future did not show."""
        latest_ms = self.ordering.latest_ms
        early = batch.time > (latest_ms + FUTURE_TOLERANCE_MS) * NS_PER_MS
        early &= batch.entry_ms > latest_ms
        if not early.any():
            return batch
        places = [(stream, x) for x in _entry_ids(batch.take(early))]
        detail = "its event time is further ahead of the server's clock than allowed"
        for raw in self._raw(places):
            row = replace(raw, reason=Reason.FUTURE_TIMESTAMP, detail=detail)
            letter = dead_letter(self._me, "quarantine", row)
            self._pending.add(self._store.dlq, letter)
        self.accounting[stream].quarantined += len(places)
        return batch.take(~early)

    def _take(self, pages: list[StreamPage]) -> None:
        self._look_at_ids(pages)
        for page in sorted(pages, key=_first_arrival):
            counts = self.accounting[page.stream]
            counts.read += page.entries_read
            counts.quarantined += len(page.bad)
            self._pending.dirty = True
            for row in page.bad:
                letter = dead_letter(self._me, "quarantine", row)
                self._pending.add(self._store.dlq, letter)
            number = self.ordering.number[page.stream]
            batch = self._operator.ingest(page.columns, number)
            batch.place[:] = counts.read - page.entries_read + page.rows
            if len(batch) and int(batch.entry_ms[-1]) > self.ordering.latest_ms:
                batch = self._without_future(page.stream, batch)
            self._judge(page.stream, batch)
        if pages:
            # An entry of a stream that is not read to its end may lie before
            # those of the others: the arrival clock waits for it.
            behind = [
                _ms(self.reader.positions[name])
                for name, exhausted in self.reader.exhausted.items()
                if not exhausted
            ]
            latest = self.ordering.latest_ms
            ends = [ms for page in pages if (ms := _ms(page.last_id)) <= latest]
            if behind or ends:
                self.ordering.arrived(min(behind) if behind else max(ends))

    def _wait_for_the_hindmost(self) -> None:
        """Read no more of streams that are far ahead of one with more to read.

        Their rows would only wait for it, and be listed in every commit. That goes
        for a stream that was read to its end, too: more comes all the time.
        """
        clocks, number = self.ordering.clocks, self.ordering.number
        more = [n for n, exhausted in self.reader.exhausted.items() if not exhausted]
        self.reader.paused = set()
        if more and len(number) > 1:
            last = min(more, key=lambda name: clocks[number[name]].watermark)
            self.reader.paused = self.ordering.ahead_of(last, limits.ROWS_AHEAD)

    def _put_aside(self, stream: str, rows: Batch, late: NDArray[np.bool_]) -> None:
        """Write rows of what is late, or else a duplicate, with its bytes."""
        for i, raw in enumerate(self._raw([(stream, x) for x in _entry_ids(rows)])):
            if late[i]:
                words = late_letter(self._me, raw, int(rows.time[i]) // NS_PER_MS)
            else:
                mask = (1 << 64) - 1
                halves = int(rows.id_hi[i]) & mask, int(rows.id_lo[i]) & mask
                words = duplicate_letter(self._me, raw, words_to_ulid(*halves))
            self._pending.add(self._store.dlq, words)

    def put_failures(self, failures: Sequence[RuleFailure]) -> None:
        """Write a row for each event that a rule failed on, with its bytes."""
        names = [stream.name for stream in self.ordering.streams]
        places = [(names[f.stream], f"{f.entry_ms}-{f.entry_seq}") for f in failures]
        for failure, raw in zip(failures, self._raw(places), strict=True):
            words = failure_letter(self._me, raw, failure.rule, failure.what)
            self._pending.add(self._store.dlq, words)

    def _raw(self, places: Sequence[tuple[str, str]]) -> Iterator[BadRow]:
        """Yield the bytes of entries, none for those that are gone."""
        for at in range(0, len(places), _AT_ONCE):
            some = places[at : at + _AT_ONCE]
            with clear_errors(self._client):
                pipe = self._client.pipeline(transaction=False)
                for stream, entry_id in some:
                    pipe.xrange(stream, entry_id, entry_id)
                found = pipe.execute()
            for (stream, entry_id), entry in zip(some, found, strict=True):
                fields = entry[0][1].items() if entry else ()
                yield BadRow.of(stream, entry_id, "", "", fields)

    def _note_once(self, note: Note) -> None:
        if note not in self._noted:
            self._noted.add(note)
            self._note(note)

    def place(self) -> dict[str, Any]:
        """Return where this is in its streams, as a commit stores it.

        Raises
        ------
        AccountingError
            If entries of a stream are not accounted for.
        """
        held = {}
        for name, number in self.ordering.number.items():
            rows = self.ordering.held(number)
            self.accounting[name].buffered = rows.shape[1]
            held[name] = encode(*rows)
        self.accounting.check()
        return {
            "positions": {k: v.decode() for k, v in self.reader.positions.items()},
            "ordering": self.ordering.snapshot(),
            "held": held,
            "buffered": {},
            "counts": self.accounting.as_dict(),
            "marks": {k: v for k, v in self.gaps.marks.items() if k in held},
            "absent": self._absent,
        }

    def show_lag(self) -> None:
        """Let the server's tools show how far behind this pipeline is."""
        self._store.show_lag(
            {k: v for k, v in self.reader.positions.items() if v != b"0-0"},
            {name: counts.read for name, counts in self.accounting.streams.items()},
        )


def _first_arrival(page: StreamPage) -> int:
    rows = page.columns
    return int(rows.entry_ms[0]) if len(rows) else 0


def _entry_ids(rows: Batch | EventColumns) -> list[str]:
    pairs = zip(rows.entry_ms.tolist(), rows.entry_seq.tolist(), strict=True)
    return [f"{ms}-{seq}" for ms, seq in pairs]


def _pair(entry_id: bytes) -> tuple[int, int]:
    ms, _, seq = entry_id.partition(b"-")
    return int(ms), int(seq)


def _numbers(rows: EventColumns) -> Iterator[int]:
    pairs = zip(rows.entry_ms.tolist(), rows.entry_seq.tolist(), strict=True)
    return (ms << 64 | seq for ms, seq in pairs)


def _number(entry_id: str) -> int:
    ms, _, seq = entry_id.partition("-")
    return int(ms) << 64 | int(seq)


def _absent(stored: Stored, names: Sequence[str]) -> dict[str, Absent]:
    """Return the places in streams that are not read any more."""
    absent = {k: v for k, v in stored.absent.items() if k not in names}
    for name, position in stored.positions.items():
        if name in names:
            continue
        runs = stored.held.get(name, b"")
        counts, mark = stored.counts.get(name, {}), stored.marks.get(name)
        absent[name] = Absent(position, counts, runs, mark)
    return absent


def _ms(entry_id: bytes) -> int:
    return int(entry_id.split(b"-")[0])
