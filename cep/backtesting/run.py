"""Run rules over frames: the same compiled rules, the same matches as live.

Rows come in their order of arrival (``entry_id`` where the frame has it), are
judged late and put in event-time order by the very code that does it live, and
get the same derived ids.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

import msgspec

from cep.clock import duration_ns
from cep.engine.operator import Operator, RuleCounts
from cep.engine.ordering import END_OF_TIME, InputStream, Ordering
from cep.errors import CepWarning, UsageError, near_miss, shown
from cep.rules.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import timedelta

    import polars as pl

    from cep.engine.derive import DerivedEvent
    from cep.engine.matches import Outputs
    from cep.engine.python_calls import RuleFailure
    from cep.events.columns import EventColumns


BATCH_ROWS: Final = 65_536  # what a batch takes up is used again for the next
MOST: Final = 5_000_000  # events, and events that they come of, in a result


class RulesAndStreams(Protocol):
    """What a pipeline's definition says; `cep.pipeline.Pipeline` is one."""

    @property
    def rules(self) -> Sequence[Rule]:
        """The rules."""
        ...

    @property
    def streams(self) -> Sequence[InputStream]:
        """The input streams and how their time is judged."""
        ...


@dataclass(slots=True)
class RunResult:
    """What rules found in frames.

    Attributes
    ----------
    events
        The derived events, in order of event time, of equal times in that of the
        rules, and then of the ids of the events that they come of.
    counts
        Of each rule: matches, outputs, suppressed ones, timeouts.
    accounting
        Of each stream: rows read, processed, late, duplicate and buffered.
    seconds
        Wall time of the run, loading not counted.
    failures
        The events that a Python function of a rule failed on, and that the rule
        did not see.
    """

    events: list[DerivedEvent]
    counts: dict[str, RuleCounts]
    accounting: dict[str, dict[str, int]]
    seconds: float
    failures: list[RuleFailure] = field(default_factory=list)
    _frame: pl.DataFrame | None = field(default=None, repr=False)

    @property
    def ids(self) -> list[str]:
        """The derived ids, in order of event time."""
        return [event.id for event in self.events]

    @property
    def alerts(self) -> pl.DataFrame:
        """The derived events as a frame, one row each.

        Columns: ``event_time`` (ms, UTC), ``rule``, ``severity``, ``key``,
        ``title``, ``type``, ``event_id``, ``values`` (the payload's own part, as
        JSON), ``lineage`` (ids of the contributing events, in binding order).
        """
        if self._frame is None:
            self._frame = alert_frame(self.events)
        return self._frame

    def __str__(self) -> str:
        lines = [f"{name}: {_told(counts)}" for name, counts in self.counts.items()]
        for name, numbers in self.accounting.items():
            said = " + ".join(f"{k} {v:,}" for k, v in numbers.items() if k != "read")
            lines.append(f"{name}: read {numbers['read']:,} = {said}")
        return "\n".join(lines)


def _told(counts: RuleCounts) -> str:
    """Say what a rule did; what a limit cost it, too, if it did."""
    said = f"{counts.emitted:,} derived, {counts.suppressed:,} suppressed"
    if counts.errors:
        said += f", {counts.errors:,} events on which it failed"
    if counts.dropped_partials:
        said += f", {counts.dropped_partials:,} partial matches dropped at its limit"
    if counts.dropped_outputs:
        said += (
            f", {counts.dropped_outputs:,} matches dropped at its limit of one event"
        )
    if counts.tripped:
        said += f", then stopped ({counts.tripped_why})"
    return said


def run_rules(
    rules: Rule | Sequence[Rule] | RulesAndStreams,
    data: Any,
    *,
    max_out_of_orderness: str | timedelta = "1s",
    end: bool = True,
    batch_rows: int | None = None,
    most: int = MOST,
) -> RunResult:
    """Run rules over frames and return what they derive.

    Parameters
    ----------
    rules
        One rule, several, or a pipeline, whose streams then say how late rows
        are judged.
    data
        Stream name to frame (polars, pandas, Arrow), as `cep.load` gives it, or
        one frame, which is taken for the stream its event types live on.
    max_out_of_orderness
        How much older than the newest row of its stream a row may be when it
        arrives; older ones are late. Not used with a pipeline.
    end
        Whether the frames are the whole input, so that absences at their end
        come to be; False holds the last rows back as a live run would.
    batch_rows
        Cut the input into batches of that many rows, 65,536 if nothing is said. Changes
        nothing but speed.
    most
        How much the result may hold: derived events, and the events that they come
        of, counted for each.

    Raises
    ------
    UsageError
        If the rules derive more than ``most``, naming the rule with the most; if
        something that is no rule is passed, a stream that no event type lives on, or a
        number that is no number of rows.

    Examples
    --------
    >>> import cep
    >>> @cep.rule("big-trade", key="symbol")
    ... def big_trade():
    ...     "A trade of more than 50 coins."
    ...     big = cep.on("market.trade").where(cep.e.quantity > 50)
    ...     return big, cep.emit(quantity=cep.e.quantity)
    >>> frame = cep.sample.frame("market.events").head(2000)
    >>> run_rules(big_trade, frame).alerts.columns[:3]
    ['event_time', 'rule', 'severity']
    """
    for name, number in (("batch_rows", batch_rows), ("most", most)):
        check_count(name, number)
    given = rules_of(rules, "run_rules")
    history = History.of(given, data)
    streams = history.streams(rules, max_out_of_orderness)
    edges = history.edges(batch_rows)
    result = run_over(given, history, streams, edges, end=end, most=most)
    history.warn_unsorted(result, stacklevel=2)
    return result


@dataclass(frozen=True, slots=True)
class History:
    """Frames as columns, which rules can run over again and again.

    Attributes
    ----------
    tables
        Of each stream its rows in order of arrival, with the fields that the rules
        read; the stream with the first entry comes first.
    made_arrival
        The streams whose frames do not say when rows arrived.
    """

    tables: dict[str, EventColumns]
    made_arrival: frozenset[str]

    @classmethod
    def of(cls, rules: Sequence[Rule], data: Any) -> History:
        """Return what those rules read of frames, as `run_rules` takes them."""
        tables, made_arrival = _tables(Operator(rules), data)
        return cls(dict(sorted(tables.items(), key=_first_arrival)), made_arrival)

    @property
    def lengths(self) -> dict[str, int]:
        """How many rows each stream has."""
        return {name: len(table) for name, table in self.tables.items()}

    def edges(self, batch_rows: int | None) -> range:
        """Return where to cut the streams into batches of so many rows."""
        size = batch_rows or BATCH_ROWS
        return range(size, max(self.lengths.values()), size)

    def streams(
        self, rules: Any, max_out_of_orderness: str | timedelta
    ) -> list[InputStream]:
        """Return how time is judged, as a pipeline says or by one bound for all."""
        return _streams_of(rules, max_out_of_orderness, sorted(self.tables))

    def warn_unsorted(self, result: RunResult, stacklevel: int) -> None:
        """Warn of frames that lost rows to their order and say no arrival."""
        for name, counts in result.accounting.items():
            if counts["late"] and name in self.made_arrival:
                _warn_unsorted(name, counts["late"], counts["read"], stacklevel + 1)


def run_over(
    rules: Sequence[Rule],
    history: History,
    streams: Sequence[InputStream],
    edges: Iterable[int] = (),
    *,
    end: bool = True,
    until_ns: int = END_OF_TIME,
    most: int = MOST,
) -> RunResult:
    """Run rules over columns; see `run_rules`.

    Parameters
    ----------
    rules, history, streams
        What to run over what, and how each stream's time is judged.
    edges
        Where each stream is cut into batches: rising row numbers. What lies behind
        the last one is a batch, too.
    end
        Whether all rows have arrived at the end.
    until_ns
        The time that it then is; after all rows.
    most
        As for `run_rules`.
    """
    operator, tables, lengths = Operator(rules), history.tables, history.lengths
    found = _Found([rule.name for rule in rules], most)
    began = time.perf_counter()
    ordering = Ordering(streams, operator.plan.column_count)
    late, duplicate = dict.fromkeys(tables, 0), dict.fromkeys(tables, 0)
    last = max([0, *lengths.values()])
    cuts = [0, *(edge for edge in edges if 0 < edge < last), last]
    for at, to in pairwise(cuts):
        for name, table in tables.items():
            part = table.slice(min(at, len(table)), min(to, len(table)))
            batch = operator.ingest(part, ordering.number[name])
            judged = ordering.add(batch)
            late[name] += int(judged.late.sum())
            duplicate[name] += int(judged.duplicate.sum())
        found.take(operator.step(*ordering.release(), take=found.take))
    if end:
        ordering.end()
        batch, mark = ordering.release()
        found.take(operator.step(batch, min(mark, until_ns), take=found.take))
    waiting = {name: len(ids) for name, ids in ordering.waiting_ids().items()}
    accounting = {
        name: {
            "read": n,
            "processed": n - late[name] - duplicate[name] - waiting[name],
            "late": late[name],
            "duplicate": duplicate[name],
            "buffered": waiting[name],
        }
        for name, n in lengths.items()
    }
    seconds = time.perf_counter() - began
    return RunResult(
        found.in_order(), operator.counts(), accounting, seconds, found.failures
    )


def check_count(name: str, number: Any) -> None:
    """Refuse what is no number of rows or events."""
    if number is None and name == "batch_rows":
        return
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise UsageError(
            f"{name} is {shown(number)}.",
            "Pass a whole number from 1, or leave it out.",
        )


def _warn_unsorted(stream: str, late: int, rows: int, stacklevel: int) -> None:
    warnings.warn(
        f"{stream}: {late:,} of {rows:,} rows are late and no rule saw them: the frame "
        "has no entry_id, so its rows count as arriving in their order, and that is "
        'not the order of their times. Sort it: frame.sort("event_time"), or raise '
        "max_out_of_orderness.",
        CepWarning,
        stacklevel=stacklevel + 1,
    )


class _Found:
    """The derived events so far, as many as the result may hold."""

    def __init__(self, rules: Sequence[str], most: int) -> None:
        self.places = {name: place for place, name in enumerate(rules)}
        self.events: list[DerivedEvent] = []
        self.failures: list[RuleFailure] = []
        self.size, self.most = 0, most

    def take(self, piece: Outputs) -> None:
        self.size += sum(len(m) + len(m.id_hi) for m in piece.matches)
        if self.size > self.most:
            self.refuse(piece)
        self.events += piece.events
        self.failures += piece.failures

    def refuse(self, piece: Outputs) -> NoReturn:
        by_rule = Counter(event.rule for event in self.events)
        for matches in piece.matches:
            by_rule[matches.rule] += len(matches)
        rule, n = by_rule.most_common(1)[0]
        raise UsageError(
            f"Rule {rule!r} derives more than a result may hold: {n:,} events so far; "
            f"all derived events and those that they come of are {self.size:,}, "
            f"{self.most:,} are allowed.",
            'Give the rule a cooldown="60s", a .within(...) or after_match='
            '"past_last_event", run over fewer rows, or raise most=.',
        )

    def in_order(self) -> list[DerivedEvent]:
        """Return them in an order that no cutting into batches changes."""
        return sorted(
            self.events, key=lambda x: (x.time_ns, self.places[x.rule], x.lineage)
        )


def rules_of(rules: Rule | Sequence[Rule] | RulesAndStreams, caller: str) -> list[Rule]:
    """Return the rules that were passed to a function of that name, at least one."""
    if isinstance(rules, Rule):
        return [rules]
    parts: Any = rules
    several = getattr(parts, "rules", parts)
    found = list(several) if isinstance(several, Iterable) else []
    if not found or not all(isinstance(rule, Rule) for rule in found):
        raise UsageError(
            f"{caller} takes rules, got {rules!r:.80}.",
            "Pass functions decorated with @rule(...), or a Pipeline.",
        )
    return found


def _streams_of(
    rules: Any, max_out_of_orderness: str | timedelta, names: Sequence[str]
) -> list[InputStream]:
    said = {stream.name: stream for stream in getattr(rules, "streams", ())}
    bound = duration_ns(max_out_of_orderness, allow_zero=True)
    for name in names:
        _check_stream(name, said)
    return [said.get(name, InputStream(name, bound)) for name in names]


def _check_stream(name: str, said: Collection[str]) -> None:
    """Refuse a stream that no event type lives on and no pipeline reads."""
    from cep.events.registry import STREAMS, registry

    known = {*STREAMS, *said, *(each.stream for each in registry.all())}
    if name in known:
        return
    near = near_miss(name, known)
    listed = ", ".join(sorted(known))
    raise UsageError(
        f"There is no stream {name!r:.80}.",
        f"Did you mean {near[0]!r}?" if near else f"Streams: {listed}.",
    )


def _tables(
    operator: Operator, data: Any
) -> tuple[dict[str, EventColumns], frozenset[str]]:
    """Return the rows of each stream, and the streams whose frames say no arrival."""
    from cep.frames.from_frame import as_polars, columns_from_frame

    if isinstance(data, dict) and not data:
        raise UsageError("There is no frame to run over.", "Pass {stream: frame}.")
    frames = data if isinstance(data, dict) else {None: data}
    tables, made = {}, set()
    for stream, given in frames.items():
        frame = as_polars(given)
        table = columns_from_frame(frame, stream=stream, fields=operator.reads)
        tables[table.stream] = table
        if "entry_id" not in frame.columns:
            made.add(table.stream)
    return tables, frozenset(made)


def _first_arrival(table: tuple[str, EventColumns]) -> int:
    rows = table[1]
    return int(rows.entry_ms[0]) if len(rows) else 0


def alert_frame(events: Sequence[DerivedEvent]) -> pl.DataFrame:
    """Return derived events as a frame, as `RunResult.alerts`."""
    import polars as pl

    def title(data: Mapping[str, Any]) -> str:
        inner = data.get("trend_data", {})
        return str(data.get("title") or inner.get("title") or "")

    rows = {
        "event_time": [event.time_ns // 1_000_000 for event in events],
        "rule": [event.rule for event in events],
        "severity": [event.severity for event in events],
        "key": [event.key for event in events],
        "title": [title(event.data) for event in events],
        "type": [event.type for event in events],
        "event_id": [event.id for event in events],
        "values": [
            msgspec.json.encode(event.data.get("values", event.data)).decode()
            for event in events
        ],
        "lineage": [list(event.lineage) for event in events],
    }
    text = pl.String
    schema: dict[str, Any] = {
        "event_time": pl.Int64,
        **dict.fromkeys(
            ["rule", "severity", "key", "title", "type", "event_id", "values"], text
        ),
        "lineage": pl.List(text),
    }
    frame = pl.DataFrame(rows, schema=schema)
    return frame.with_columns(pl.col("event_time").cast(pl.Datetime("ms", "UTC")))
