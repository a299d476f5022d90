"""One life between two losses of memory: restore, then read, match and commit."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np

from cep.bus.connection import clear_errors
from cep.engine.operator import Operator
from cep.errors import InvalidPayloadError, MemoryLimitError, UsageError
from cep.pipeline import limits
from cep.pipeline.blocks import Block
from cep.pipeline.durability import WAIT_MS, Replicas, weakness
from cep.pipeline.entries import output_fields, refused_output, rollback_letter
from cep.pipeline.intake import Intake
from cep.pipeline.memory import resident_bytes
from cep.pipeline.notes import Note
from cep.pipeline.output_rows import OutputRows
from cep.pipeline.pending import Pending
from cep.pipeline.poison import Care
from cep.pipeline.replaying import replay
from cep.pipeline.summary import Summary
from cep.pipeline.ticks import Ticks

if TYPE_CHECKING:
    from collections.abc import Collection

    from cep.engine.batch import Batch
    from cep.engine.derive import DerivedEvent
    from cep.engine.matches import Outputs
    from cep.pipeline.definition import Level
    from cep.pipeline.notes import Severity
    from cep.pipeline.runtime import Runner
    from cep.pipeline.store import Store, Stored

WHY = {
    "errors": "its functions failed on five events within a minute of event time",
    "limit": "it had more partial matches than its limit",
}


class Session:
    """Takes over a pipeline from what is stored and runs it.

    All that it knows is lost with it, and can be: `Store.take_over` gives the
    next one the same place.
    """

    def __init__(self, runner: Runner, store: Store) -> None:
        self.runner, self.store = runner, store
        self.pipeline = pipeline = runner.pipeline
        self.operator = Operator(pipeline.rules)
        self.hashes = {rule.name: rule.hash for rule in pipeline.rules}
        stored = store.take_over(
            runner.owners,
            force=runner.takeover and not runner.reached,
            wait=runner.wait_for_owner,
        )
        if stored.ended and not runner.reached:
            raise UsageError(
                f"The input of pipeline {pipeline.name!r} was declared to have ended; "
                "all of it was processed.",
                "Give the pipeline another name to start anew.",
            )
        self.care = runner.care = Care(
            stored.attempts,
            store.put_attempts,
            died=store.follows_death,
            streams=len(pipeline.streams),
        )
        if told := self.care.told():
            runner.note(told)
        self.pending = Pending()
        self.output_rows = OutputRows()
        self.ticks = Ticks(store, stored.ticks)
        self.replicas, self.in_time = Replicas(store.client), True
        if runner.durability and not runner.reached:
            self._note_durability(runner.durability)
        self.last_lag = self.last_report = self.last_memory = time.monotonic()
        self.base_outputs = stored.outputs
        self.step_rows = min(limits.FIRST_ROWS, limits.STEP_ROWS)
        self.stopped: set[str] = set()
        self.told: set[str] = set()
        self.slow: set[str] = set()
        self.intake = Intake(
            pipeline,
            store,
            self.operator,
            self.pending,
            stored,
            {s.name: runner.on_gap or pipeline.on_gap_of(s) for s in pipeline.streams},
            runner.note,
            self.care,
        )
        self.ordering, self.accounting = self.intake.ordering, self.intake.accounting
        self.replayed = replay(store.client, pipeline, stored, store.beat)
        self.pending.dirty |= bool(self.replayed.state)
        self.dropped = self.operator.restore(stored.state | self.replayed.state)
        self._note_changes(stored)
        self._note_rollback(stored)
        self.resumed = stored.resumed
        self._resume(self.hashes)
        self._note_stops()
        self.intake.put_poison(stored)
        self.intake.read_again(stored)
        self.intake.look_for_gaps()

    def _note_changes(self, stored: Stored) -> None:
        current = self.hashes
        for name, found in stored.rules.items():
            if name not in current:
                text = f"rule {name} is gone: its state is removed"
                self.runner.note(Note(text, "rule_gone", rule=name))
            elif current[name] != found:
                events = self.replayed.events.get(name)
                what = "it starts without state"
                if events is not None:
                    what = f"{events:,} events were replayed for it"
                text = f"rule {name} has changed: {what}"
                self.runner.note(
                    Note(text, "rule_changed", rule=name, replayed=events or 0)
                )

    def _note_durability(self, level: Level) -> None:
        with clear_errors(self.store.client):
            lacking = weakness(self.store.client, level)
        if lacking:
            text = f"durability {level} was asked for, but {lacking}"
            self.runner.note(Note(text, "durability", "warning", asked=level))

    def _note_rollback(self, stored: Stored) -> None:
        """Report commits that the server had acknowledged and holds no more.

        What they wrote has gone with them, so that going on from what is stored
        does it again, as far as the input is still there.
        """
        known = self.runner.committed
        if stored.seq >= known:
            return
        letter = rollback_letter(self.pipeline.name, stored.seq, known)
        self.pending.add(self.store.dlq, letter)
        lost = known - stored.seq
        text = (
            f"rollback: the server has lost {lost} commits of "
            f"{self.pipeline.name!r}; going on from commit {stored.seq}"
        )
        self.runner.note(
            Note(text, "rollback", "error", commit=stored.seq, lost_commits=lost)
        )
        self.runner.committed = stored.seq

    def run(self) -> Summary:
        """Loop until stopped or ended."""
        if self.care.poison is not None:
            self._commit()
        while True:
            exhausted = self.ordering.ended or self._read()
            if self.pending.dirty and (self.care.one_by_one or self.pending.is_large):
                # So that a row that is tried was read before, and that what its
                # dead letters fill takes no outputs as well.
                self._commit()
            self._process()
            stopping = self.runner.stopping
            # Outputs go out at once; a position or state alone waits for more.
            due = bool(exhausted and self.pending.blocks) or self.pending.is_due()
            if self.pending.dirty and (due or stopping or self.ordering.ended):
                self._commit()
            self.store.beat()
            self._report()
            self._check_memory()
            if stopping or self.ordering.ended:
                break
        self.intake.show_lag()
        self._note_slowness()
        summary = self._summary()
        self.runner.report(summary)
        return summary

    def _check_memory(self) -> None:
        """Commit and end before the system ends us, where it may be in a commit."""
        now = time.monotonic()
        if now - self.last_memory < limits.MEMORY_SECONDS:
            return
        self.last_memory = now
        used = resident_bytes()
        if used > self.runner.max_rss:
            if self.pending.dirty:
                self._commit()
            raise MemoryLimitError(used, self.runner.max_rss)

    def _read(self) -> bool:
        """Take in what there is; returns whether that was all for now."""
        pages = self.intake.read()
        if not self.intake.is_exhausted:
            return False
        self.ticks.pass_on(self.ordering, self.pending)
        if self.ordering.ended:
            self.intake.look_for_gaps()
        self.ticks.read(idle=not pages, waits_for_time=self._waits_for_time)
        return True

    def _waits_for_time(self) -> bool:
        """Whether anything would happen if only time went on."""
        if all(stream.idle_ns is None for stream in self.ordering.streams):
            return False
        return bool(len(self.ordering)) or self.operator.waits_for_time()

    def _process(self) -> None:
        while True:
            limit = min(self.care.rows or self.step_rows, self.step_rows)
            rows, mark = self.ordering.release(limit)
            if len(rows) and self.care.one_by_one:
                self._attempt(rows)
            before = self.pending.size
            outputs = self.operator.step(rows, mark, take=self._write)
            self._write(outputs)
            if len(rows):
                self._count_processed(rows)
            if outputs.failures:
                self.intake.put_failures(outputs.failures)
                self._note_stops()
            was_all = len(rows) < limit
            self.care.count(len(rows))
            self.step_rows = _next_rows(self.step_rows, self.pending.size - before)
            careful = self.care.rows and self.pending.dirty
            if careful or (not was_all and self.pending.is_due()):
                self._commit()
            if was_all:
                return

    def _attempt(self, rows: Batch) -> None:
        stream = self.ordering.streams[int(rows.stream[0])].name
        entry_id = f"{rows.entry_ms[0]}-{rows.entry_seq[0]}"
        self.care.attempt(stream, entry_id, was_read=True)

    def _note_stops(self) -> None:
        for name, counts in self.operator.counts().items():
            if counts.tripped and name not in self.stopped:
                self.stopped.add(name)
                why = WHY.get(counts.tripped_why, counts.tripped_why)
                text = (
                    f"rule {name} has stopped: {why}; it sees no more events until "
                    f"`cep resume {self.pipeline.name} {name}`"
                )
                cause = counts.tripped_why
                self.runner.note(
                    Note(text, "rule_stopped", "error", rule=name, cause=cause)
                )

    def _resume(self, rules: Collection[str]) -> None:
        """Let those of some rules go on that have stopped, if someone asked for it."""
        asked = self.store.asked_to_resume(sorted(rules)) if rules else {}
        for name, request in asked.items():
            if self.resumed.get(name) == request:
                continue
            self.resumed[name] = request  # also of a rule that has changed since
            if self.operator.resume(name):
                self.stopped.discard(name)
                self.pending.dirty = True
                text = f"rule {name} goes on, without matches it had begun"
                self.runner.note(Note(text, "rule_resumed", rule=name))

    def _note_held_back(self) -> None:
        """Say once of a stream that many rows wait for it: they are all in memory."""
        name = self.ordering.held_back_by()
        if len(self.ordering) < limits.ROWS_TOLD or name is None or name in self.told:
            return
        self.told.add(name)
        waiting = len(self.ordering)
        text = (
            f"{waiting:,} events wait for {name}, which is silent or far "
            "behind; say with idle='30s' of that stream when to go on without it"
        )
        self.runner.note(
            Note(text, "held_back", "warning", stream=name, waiting=waiting)
        )

    def _note_slowness(self) -> None:
        for name, cost in self.operator.python_calls.slow().items():
            if name not in self.slow:
                self.slow.add(name)
                text = (
                    f"{name} took {cost.worst_seconds:.1f} s for "
                    f"{cost.worst_events:,} events; nothing else goes on meanwhile"
                )
                seconds, events = round(cost.worst_seconds, 3), cost.worst_events
                fields = {"rule": name, "seconds": seconds, "events": events}
                self.runner.note(Note(text, "rule_slow", "warning", **fields))

    def _count_processed(self, rows: Batch) -> None:
        self.pending.dirty = True
        streams = self.ordering.streams
        per_stream = np.bincount(rows.stream, minlength=len(streams))
        for stream, n in zip(streams, per_stream.tolist(), strict=True):
            self.accounting[stream.name].processed += n

    def _write(self, outputs: Outputs) -> None:
        for row in self.output_rows.of(outputs):
            if isinstance(row, Block):
                self.pending.add_block(row)
            else:
                self._put_out(row)

    def _put_out(self, derived: DerivedEvent) -> None:
        try:
            words = output_fields(derived)
        except InvalidPayloadError as error:
            refused = refused_output(self.pipeline.name, derived, str(error))
            self.pending.add(self.store.dlq, refused)
        else:
            self.pending.add(derived.stream, words)

    def _commit(self) -> None:
        place = self.intake.place()
        waits = bool(len(self.ordering))
        state = self.replayed.state | self.operator.delta()
        state.update(dict.fromkeys(self.dropped, None))
        meta = {
            "rules": self.hashes,
            **place,
            "outputs": self._outputs(),
            "attempts": self.care.to_commit(),
            "ticks": self.ticks.passed,
            "resumed": self.resumed,
            # Not before the last row: a commit may fall between two steps.
            "ended": "1" if self.ordering.ended and not waits else "0",
        }
        self.store.commit(self.pending.blocks, state, meta)
        if self.runner.durability == "ha":
            self._wait_for_replica()
        self.dropped, self.replayed.state = [], {}
        self.pending.clear()
        now = time.monotonic()
        if now - self.last_lag > limits.LAG_SECONDS:
            self.last_lag = now
            self.intake.show_lag()

    def _wait_for_replica(self) -> None:
        """Wait until a replica has the commit; without one, say so and go on."""
        in_time = self.replicas.wait()
        if in_time == self.in_time:
            return
        self.in_time = in_time
        if in_time:
            text = f"a replica has commit {self.store.seq}, as before"
        else:
            seconds = f"{WAIT_MS / 1000:g} s"
            text = f"no replica had commit {self.store.seq} within {seconds}; going on"
        text = f"durability ha: {text}"
        level: Severity = "info" if in_time else "warning"
        self.runner.note(Note(text, "replica", level, commit=self.store.seq))

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

    def _report(self) -> None:
        now = time.monotonic()
        if now - self.last_report >= limits.REPORT_SECONDS:
            self.last_report = now
            self._note_held_back()
            self._resume(self.stopped)
            self.runner.report(self._summary())
            self._note_stops()
            self._note_slowness()

    def _summary(self) -> Summary:
        return Summary(
            pipeline=self.pipeline.name,
            streams={n: replace(c) for n, c in self.accounting.streams.items()},
            outputs=self._outputs(),
            commits=self.store.seq,
            seconds=time.monotonic() - self.runner.began,
            held_back_by=self.ordering.held_back_by(),
            ended=self.ordering.ended,
            trimmed=self.store.trimmed,
            windows={
                name: asdict(counts)
                for name, counts in self.operator.window_counts().items()
            },
        )


def _next_rows(rows: int, written: int) -> int:
    """Return how many rows to take next, after ``rows`` that had ``written`` bytes.

    A commit cannot be cut within a step: a flood of outputs is taken in few rows.
    """
    if written > limits.COMMIT_BYTES:
        return max(1, rows * limits.COMMIT_BYTES // written)
    return min(limits.STEP_ROWS, 2 * rows)
