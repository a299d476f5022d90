"""The live runtime: read, order, match, commit, again.

One process runs a pipeline. It reads its streams with plain ``XREAD`` from its
own positions, hands released rows to the engine, and commits what follows from
them in one script (`commit.lua`). It is crash-only: whenever the outcome of
something is unknown it drops its memory and starts from what is stored, which
is all that a restart does, too.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cep.bus import ColumnarReader, read_ids
from cep.bus.connection import clear_errors, connect_redis
from cep.clock import Clock, SystemClock
from cep.engine.operator import Operator
from cep.engine.ordering import NS_PER_MS, Ordering
from cep.errors import ConnectionFailedError, InvalidPayloadError, UsageError
from cep.events.columns import BadRow
from cep.pipeline.accounting import Accounting, Counts
from cep.pipeline.entries import (
    dead_letter,
    late_letter,
    output_fields,
    refused_output,
    vanished,
)
from cep.pipeline.store import Entry, Store, Stored

if TYPE_CHECKING:
    from collections.abc import Callable

    from cep.bus.page import StreamPage
    from cep.engine.batch import Batch
    from cep.events.columns import EventColumns
    from cep.pipeline.definition import Pipeline

# A commit holds at most this much; whichever comes first.
COMMIT_SECONDS = 0.1
COMMIT_BYTES = 1_000_000
STEP_ROWS = 1_000  # rows, hence at most that many changed keys, between looks

READ_COUNT = 2_000
BLOCK_MS = 250
TICK_SECONDS = 1.0
BACKOFF_SECONDS = (0.1, 0.2, 0.5, 1.0)


@dataclass(slots=True)
class Summary:
    """What a run did, counted since the pipeline first started."""

    pipeline: str
    streams: dict[str, Counts]
    outputs: dict[str, dict[str, int]]
    commits: int
    seconds: float
    held_back_by: str | None = None
    ended: bool = False

    @property
    def total(self) -> Counts:
        """The counts of all streams together."""
        return Accounting({k: asdict(v) for k, v in self.streams.items()}).total()


@dataclass(slots=True)
class _Pending:
    """What the next commit will hold."""

    entries: list[Entry] = field(default_factory=list)
    size: int = 0
    dirty: bool = False
    since: float = 0.0

    def add(self, stream: str, words: list[bytes]) -> None:
        self.entries.append((stream, words))
        self.size += sum(map(len, words))


class Runner:
    """Runs a pipeline until it is stopped or its input has ended.

    Parameters
    ----------
    pipeline
        What to run.
    url
        The server; None: the settings (``CEP_REDIS_URL``).
    drain
        Take what is there when the run begins as the whole input.
    report
        Called now and then with a `Summary`, at least once at the end.
    note
        Called with a line of text for what an operator should read.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        url: str | None = None,
        *,
        drain: bool = False,
        report: Callable[[Summary], None] | None = None,
        note: Callable[[str], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.pipeline, self.url, self.drain = pipeline, url, drain
        self._report = report or (lambda _: None)
        self._note = note or (lambda _: None)
        self._clock = clock or SystemClock()
        self.stopping = False
        self._reached = False
        self._began = time.monotonic()
        # Ourselves, and those whose place we took. Anyone else who owns the
        # pipeline after a lost connection came later and is not to be fenced.
        self._owners: set[str] = set()

    def stop(self) -> None:
        """End after the next commit; may be called from a signal handler."""
        self.stopping = True

    def run(self) -> Summary:
        """Run; returns the summary after a clean end.

        Raises
        ------
        FencedError
            If another process takes over the pipeline.
        ConnectionFailedError
            If the server cannot be reached at the start; later it is waited for.
        """
        attempt, committed = 0, -1
        while True:
            client = connect_redis(self.url)
            store = Store(client, self.pipeline.name)
            try:
                session = _Session(self, store)
                if self.drain and not self._reached:
                    store.tick("end")
                self._reached = True
                return session.run()
            except ConnectionFailedError as error:
                if not self._reached or self.stopping:
                    raise
                attempt = 0 if store.seq > committed else attempt + 1
                committed = max(committed, store.seq)
                wait = BACKOFF_SECONDS[min(attempt, len(BACKOFF_SECONDS) - 1)]
                self._note(f"{error} Starting from the last commit in {wait:g} s.")
                self._clock.sleep(wait)
            finally:
                client.close()


class _Session:
    """One life between two losses of memory."""

    def __init__(self, runner: Runner, store: Store) -> None:
        self.runner, self.store, self.client = runner, store, store.client
        self.pipeline = pipeline = runner.pipeline
        self.operator = Operator(pipeline.rules)
        self.ordering = Ordering(pipeline.streams, self.operator.plan.column_count)
        stored = store.take_over(runner._owners)
        if stored.ended and not runner._reached:
            raise UsageError(
                f"The input of pipeline {pipeline.name!r} was declared to have ended; "
                "all of it was processed.",
                "Give the pipeline another name to start anew.",
            )
        self.pending = _Pending(since=time.monotonic())
        self.ticks = self.ticks_read = stored.ticks
        self.end_read = False
        self.last_tick = self.last_lag = self.last_report = time.monotonic()
        self.base_outputs = stored.outputs
        names = [stream.name for stream in self.ordering.streams]
        self.accounting = Accounting({n: stored.counts.get(n, {}) for n in names})
        fields = {
            event_type: {f for f in wanted if not f.startswith("@")}
            for event_type, wanted in self.operator.reads.items()
        }
        wanted = {f for w in self.operator.reads.values() for f in w}
        self.reading: dict[str, Any] = {
            "fields": fields,
            "envelope": sorted(f for f in wanted if f.startswith("@")),
        }
        self.reader = ColumnarReader(
            self.client,
            names,
            start={n: stored.positions.get(n, "0-0") for n in names},
            count=READ_COUNT,
            **self.reading,
        )
        self._restore(stored)

    # Starting ----------------------------------------------------------------

    def _restore(self, stored: Stored) -> None:
        if stored.ordering:
            self.ordering.restore(stored.ordering)
        self.dropped = self.operator.restore(stored.state)
        current = {rule.name: rule.hash for rule in self.pipeline.rules}
        for name, found in stored.rules.items():
            if name not in current:
                self.runner._note(f"rule {name} is gone: its state is removed")
            elif current[name] != found:
                self.runner._note(f"rule {name} has changed: it starts without state")
        for name, ids in stored.buffered.items():
            if name in self.ordering.number:
                self._read_again(name, ids)
            elif ids:
                raise UsageError(
                    f"Pipeline {self.pipeline.name!r} still holds {len(ids)} entries "
                    f"of {name}, which it no longer reads.",
                    "Add the stream again, or give the pipeline another name.",
                )

    def _read_again(self, name: str, ids: list[str]) -> None:
        """Put entries back that were read but not released before the last commit.

        What is gone, or no event any more (its type is not registered now),
        becomes a dead letter.
        """
        page = read_ids(self.client, name, ids, **self.reading)
        number = self.ordering.number[name]
        self.ordering.put_back(self.operator.ingest(page.columns, number))
        me = self.pipeline.name
        found = set(_entry_ids(page.columns)) | {row.entry_id for row in page.bad}
        letters = [dead_letter(me, "quarantine", row) for row in page.bad]
        letters += [vanished(me, name, one) for one in ids if one not in found]
        for letter in letters:
            self.pending.add(self.store.dlq, letter)
        if letters:
            self.pending.dirty = True
            self.accounting[name].quarantined += len(letters)
            self.accounting[name].buffered -= len(letters)

    # Running -----------------------------------------------------------------

    def run(self) -> Summary:
        """Loop until stopped or ended."""
        while True:
            exhausted = self.ordering.ended or self._read()
            self._process()
            stopping = self.runner.stopping
            if self.pending.dirty and (exhausted or stopping or self._commit_is_due()):
                self._commit()
            self._report(force=False)
            if stopping or self.ordering.ended:
                break
        self._show_lag()
        return self._report(force=True)

    def _read(self) -> bool:
        """Take in what there is; returns whether that was all for now."""
        pages = self.reader.read(BLOCK_MS)
        self._take(pages)
        if not all(self.reader.exhausted.values()):
            return False
        self._pass_ticks()
        self._read_ticks(idle=not pages)
        return True

    def _take(self, pages: list[StreamPage]) -> None:
        for page in sorted(pages, key=_first_arrival):
            counts = self.accounting[page.stream]
            counts.read += page.entries_read
            counts.quarantined += len(page.bad)
            self.pending.dirty = True
            for row in page.bad:
                self.pending.add(
                    self.store.dlq, dead_letter(self.pipeline.name, "quarantine", row)
                )
            number = self.ordering.number[page.stream]
            batch = self.operator.ingest(page.columns, number)
            late = self.ordering.add(batch)
            if late.any():
                counts.late += int(late.sum())
                self._put_aside(page.stream, batch.take(late))
        if pages:
            # An entry of a stream that is not read to its end may lie before
            # those of the others: the arrival clock waits for it.
            behind = [
                _ms(self.reader.positions[name])
                for name, exhausted in self.reader.exhausted.items()
                if not exhausted
            ]
            ends = [_ms(page.last_id) for page in pages]
            self.ordering.arrived(min(behind) if behind else max(ends))

    def _put_aside(self, stream: str, late: Batch) -> None:
        ids = _entry_ids(late)
        with clear_errors(self.client):
            pipe = self.client.pipeline(transaction=False)
            for entry_id in ids:
                pipe.xrange(stream, entry_id, entry_id)
            found = pipe.execute()
        for entry_id, event_ns, entry in zip(
            ids, late.time.tolist(), found, strict=True
        ):
            raw = None
            if entry:
                pairs = list(entry[0][1].items())
                raw = BadRow.of(stream, entry_id, "late", "", pairs)
            words = late_letter(
                self.pipeline.name, stream, entry_id, event_ns // NS_PER_MS, raw
            )
            self.pending.add(self.store.dlq, words)

    def _process(self) -> None:
        while True:
            rows, mark = self.ordering.release(STEP_ROWS)
            outputs = self.operator.step(rows, mark)
            if len(rows):
                self.pending.dirty = True
                per_stream = np.bincount(
                    rows.stream, minlength=len(self.ordering.streams)
                )
                for stream, n in zip(
                    self.ordering.streams, per_stream.tolist(), strict=True
                ):
                    self.accounting[stream.name].processed += n
            for derived in outputs.events:
                self.pending.dirty = True
                try:
                    words = output_fields(derived)
                except InvalidPayloadError as error:
                    refused = refused_output(self.pipeline.name, derived, str(error))
                    self.pending.add(self.store.dlq, refused)
                else:
                    self.pending.add(derived.stream, words)
            if len(rows) < STEP_ROWS:
                return
            if self._commit_is_due():
                self._commit()

    def _commit_is_due(self) -> bool:
        waited = time.monotonic() - self.pending.since
        return self.pending.size >= COMMIT_BYTES or waited >= COMMIT_SECONDS

    def _commit(self) -> None:
        waiting = self.ordering.waiting_ids()
        waits = any(waiting.values())
        for name, ids in waiting.items():
            self.accounting[name].buffered = len(ids)
        self.accounting.check()
        state = self.operator.delta()
        state.update(dict.fromkeys(self.dropped, None))
        meta = {
            "rules": {rule.name: rule.hash for rule in self.pipeline.rules},
            "positions": {k: v.decode() for k, v in self.reader.positions.items()},
            "ordering": self.ordering.snapshot(),
            "buffered": waiting,
            "counts": self.accounting.as_dict(),
            "outputs": self._outputs(),
            "ticks": self.ticks,
            # Not before the last row: a commit may fall between two steps.
            "ended": "1" if self.ordering.ended and not waits else "0",
        }
        self.store.commit(self.pending.entries, state, meta)
        self.dropped = []
        now = time.monotonic()
        self.pending = _Pending(since=now)
        if now - self.last_lag > TICK_SECONDS:
            self.last_lag = now
            self._show_lag()

    def _show_lag(self) -> None:
        self.store.show_lag(
            {k: v for k, v in self.reader.positions.items() if v != b"0-0"},
            {name: counts.read for name, counts in self.accounting.streams.items()},
        )

    def _pass_ticks(self) -> None:
        """Let time go on to the ticks read: all older entries have been read now.

        Only a read that was begun after the ticks were read tells so. Until
        then a commit must not pass them either, or a restart would miss them.
        """
        if self.ticks == self.ticks_read:
            return
        self.ticks = self.ticks_read
        self.pending.dirty = True
        self.ordering.arrived(_ms(self.ticks.encode()))
        if self.end_read:
            self.ordering.end()

    def _read_ticks(self, *, idle: bool) -> None:
        now = time.monotonic()
        if not idle and now - self.last_tick < TICK_SECONDS:
            return
        for entry_id, fields in self.store.read_ticks(self.ticks_read):
            self.ticks_read = entry_id
            self.end_read |= fields.get(b"kind") == b"end"
        if now - self.last_tick < TICK_SECONDS:
            return
        self.last_tick = now
        if idle and self._waits_for_time():
            self.store.tick()

    def _waits_for_time(self) -> bool:
        """Whether anything would happen if only time went on."""
        if all(stream.idle_ns is None for stream in self.ordering.streams):
            return False
        live = any(c.live_partials for c in self.operator.counts().values())
        return bool(len(self.ordering)) or live

    # Telling -----------------------------------------------------------------

    def _outputs(self) -> dict[str, dict[str, int]]:
        found = {}
        for name, counts in self.operator.counts().items():
            base = self.base_outputs.get(name, {})
            now = asdict(counts)
            live, tripped = now.pop("live_partials"), now.pop("tripped")
            del now["tripped_why"]
            merged = {key: value + base.get(key, 0) for key, value in now.items()}
            found[name] = {**merged, "live_partials": live, "tripped": int(tripped)}
        return found

    def _report(self, *, force: bool) -> Summary | Any:
        now = time.monotonic()
        if not force and now - self.last_report < 0.5:
            return None
        self.last_report = now
        summary = Summary(
            pipeline=self.pipeline.name,
            streams={n: replace(c) for n, c in self.accounting.streams.items()},
            outputs=self._outputs(),
            commits=self.store.seq,
            seconds=now - self.runner._began,
            held_back_by=self.ordering.held_back_by(),
            ended=self.ordering.ended,
        )
        self.runner._report(summary)
        return summary


def _first_arrival(page: StreamPage) -> int:
    rows = page.columns
    return int(rows.entry_ms[0]) if len(rows) else 0


def _entry_ids(rows: Batch | EventColumns) -> list[str]:
    pairs = zip(rows.entry_ms.tolist(), rows.entry_seq.tolist(), strict=True)
    return [f"{ms}-{seq}" for ms, seq in pairs]


def _ms(entry_id: bytes) -> int:
    return int(entry_id.split(b"-")[0])
