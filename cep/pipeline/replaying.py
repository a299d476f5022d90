"""What a changed rule begins with: the state that history would have given it.

A rule with ``on_change="replay 15m"`` that has changed is run by an operator of its
own over the last 15 minutes of event time before the pipeline's place: over the
entries that were read and released, judged as late or duplicate as they were. What
it would have put out is left out, as all of that lies before the place, where the
rule as it was has had its say. What it holds then joins the pipeline's state, and
is written with the first commit; whoever dies before that does it all again.

History is what the streams still hold. A window that other rules have used all along
stays as it is, also where the changed rule asks for another field of its events.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cep.bus import decode_entries, read_spans
from cep.bus.connection import clear_errors
from cep.engine.operator import Operator
from cep.engine.ordering import END_OF_TIME, NS_PER_MS, Ordering
from cep.engine.state import added
from cep.pipeline import limits
from cep.pipeline.held import decode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    import redis
    from numpy.typing import NDArray

    from cep.bus.page import StreamPage
    from cep.engine.batch import Batch
    from cep.pipeline.definition import Pipeline
    from cep.pipeline.store import Stored
    from cep.rules.rule import Rule

_PAGE = 1_000  # entries looked at together to find where the history begins


@dataclass(slots=True)
class Replayed:
    """State to be added to what is stored, and the events replayed for each rule."""

    state: dict[str, bytes] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)


def replay(
    client: redis.Redis,
    pipeline: Pipeline,
    stored: Stored,
    alive: Callable[[], None],
) -> Replayed:
    """Replay history for the rules that have changed and ask for that.

    ``alive`` is called now and then.
    """
    lengths: dict[int, list[Rule]] = {}
    for rule in pipeline.rules:
        length = pipeline.replay_ns(rule.name)
        if length and stored.rules.get(rule.name, rule.hash) != rule.hash:
            lengths.setdefault(length, []).append(rule)
    found = Replayed()
    for length, rules in lengths.items() if stored.ordering else ():
        history = _History(client, pipeline, rules, stored, length)
        state, events = history.replay(alive)
        found.state |= added(stored.state | found.state, state)
        found.events |= {rule.name: events for rule in rules}
    return found


class _History:
    """The entries of a pipeline before its place, for some of its rules."""

    def __init__(
        self,
        client: redis.Redis,
        pipeline: Pipeline,
        rules: Sequence[Rule],
        stored: Stored,
        length_ns: int,
    ) -> None:
        self._client = client
        self._operator = Operator(rules)
        self._ordering = Ordering(pipeline.streams, self._operator.plan.column_count)
        self._until = int(stored.ordering["released_ns"])
        self._since = self._until - length_ns
        self._positions = {
            stream.name: stored.positions[stream.name]
            for stream in pipeline.streams
            if stored.positions.get(stream.name, "0-0") != "0-0"
        }
        self._held = {
            self._ordering.number[name]: _spans(stored.held.get(name, b""))
            for name in self._positions
        }
        self._events = 0

    def replay(self, alive: Callable[[], None]) -> tuple[dict[str, bytes], int]:
        """Return what the rules hold after it, and how many events that took."""
        ordering = self._ordering
        pages = {name: self._pages(name) for name in self._positions}
        for name, number in ordering.number.items():
            if name not in pages:
                ordering.clocks[number].watermark = END_OF_TIME
        while pages:
            alive()
            name = min(
                pages, key=lambda n: ordering.clocks[ordering.number[n]].watermark
            )
            number = ordering.number[name]
            page = next(pages[name], None)
            if page is None:
                del pages[name]
                ordering.clocks[number].watermark = END_OF_TIME
            else:
                ordering.add(self._operator.ingest(page.columns, number))
            self._release()
        self._operator.step(ordering.release(0)[0], self._until)
        return self._operator.snapshot(), self._events

    def _release(self) -> None:
        n = limits.STEP_ROWS
        while n == limits.STEP_ROWS:
            rows, mark = self._ordering.release(limits.STEP_ROWS)
            n = len(rows)
            rows = rows.take(self._were_released(rows))
            self._events += len(rows)
            self._operator.step(rows, min(mark, self._until), take=lambda _: None)

    def _were_released(self, rows: Batch) -> NDArray[np.bool_]:
        """Return which rows are of the history; the others wait to be released."""
        found = (rows.time >= self._since) & (rows.time <= self._until)
        for number, spans in self._held.items():
            for (first_ms, first_seq), (last_ms, last_seq) in spans:
                ms, seq = rows.entry_ms, rows.entry_seq
                after = (ms > first_ms) | ((ms == first_ms) & (seq >= first_seq))
                before = (ms < last_ms) | ((ms == last_ms) & (seq <= last_seq))
                found &= ~((rows.stream == number) & after & before)
        return found

    def _pages(self, stream: str) -> Iterator[StreamPage]:
        wanted = self._operator.reads
        yield from read_spans(
            self._client,
            stream,
            [(self._beginning(stream), self._positions[stream])],
            fields={
                t: {f for f in w if not f.startswith("@")} for t, w in wanted.items()
            },
            envelope=sorted(
                {f for w in wanted.values() for f in w if f.startswith("@")}
            ),
        )

    def _beginning(self, stream: str) -> str:
        """Return the id of an entry before which all events are older than asked for.

        It is looked for backwards, until a page of entries has none that recent.
        """
        at: str = self._positions[stream]
        end = at
        while True:
            with clear_errors(self._client):
                found: Any = self._client.xrevrange(stream, end, "-", count=_PAGE)
            if not found:
                return at
            at = found[-1][0].decode()
            times = decode_entries(stream, found[::-1], fields={}).columns.time_ms
            old = len(times) and int(times.max()) * NS_PER_MS < self._since
            if old or len(found) < _PAGE:
                return at
            end = f"({at}"


def _spans(held: bytes) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    return [(_pair(run.first), _pair(run.last)) for run in decode(held)]


def _pair(entry_id: str) -> tuple[int, int]:
    ms, _, seq = entry_id.partition("-")
    return int(ms), int(seq)
