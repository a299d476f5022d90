"""The track record of rules: what they would have found, and how right that is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from cep.analysis.inference import DRAWS
from cep.analysis.result import Result
from cep.backtesting.compare import Comparison, compared
from cep.backtesting.labels import Labels, labels_of
from cep.backtesting.run import (
    MOST,
    History,
    RunResult,
    alert_frame,
    check_count,
    rules_of,
    run_over,
)
from cep.backtesting.score import NS_PER_MS, Alerts, Score, Span, score, tally
from cep.errors import UsageError, shown
from cep.events.ids import ulid_to_words
from cep.events.timestamps import format_timestamp
from cep.rules.emission import emit

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    import plotly.graph_objects as go

    from cep.backtesting.labels import Tolerance
    from cep.backtesting.run import RulesAndStreams
    from cep.engine.derive import DerivedEvent
    from cep.engine.ordering import InputStream
    from cep.rules.rule import Rule


@dataclass(slots=True, repr=False, eq=False)
class Backtest(RunResult, Result):
    """What rules found in history; print it, `plot` it, or take its tables.

    It is a `RunResult` (``events``, ``alerts``, ``ids``, ``counts``, ``accounting``,
    ``seconds``, ``failures``) and has, besides:

    Attributes
    ----------
    rules
        The rules that ran.
    start_ns, end_ns
        The first and the last event time in the data; both 0 if there is none.
    labels
        What should have been found; None if nothing was said of that.
    scores
        With labels: of each rule its `Score`.
    """

    rules: tuple[Rule, ...] = ()
    start_ns: int = 0
    end_ns: int = 0
    labels: Labels | None = None
    scores: dict[str, Score] = field(default_factory=dict)
    _history: History | None = None
    _streams: Sequence[InputStream] = ()
    _end: bool = True
    _most: int = MOST
    _hidden: list[DerivedEvent] | None = None

    @property
    def timeouts(self) -> pl.DataFrame:
        """Partial matches that ran out of time, as a frame like ``alerts``.

        ``lineage`` is what they had bound by then. Found by running the rules again,
        as `suppressed`.
        """
        return alert_frame([x for x in self._all() if x.timeout])

    @property
    def suppressed(self) -> pl.DataFrame:
        """What a cooldown kept from being derived, as a frame like ``alerts``.

        Found by running the rules once more without cooldowns, when it is first asked
        for; without them, limits on what one event puts out may strike sooner.
        """
        known = set(self.ids)
        return alert_frame(
            [x for x in self._all() if not x.timeout and x.id not in known]
        )

    def _all(self) -> list[DerivedEvent]:
        if self._hidden is None:
            assert self._history is not None
            told = [
                replace(
                    rule,
                    cooldown_ns=0,
                    timeouts=rule.timeouts
                    or ((emit(),) if _may_time_out(rule) else ()),
                )
                for rule in self.rules
            ]
            again = run_over(
                told,
                self._history,
                self._streams,
                self._history.edges(None),
                end=self._end,
                most=self._most,
            )
            self._hidden = again.events
        return self._hidden

    def contributing(self) -> pl.DataFrame:
        """Return the events that the derived ones come of, a row for each use.

        Columns: ``event_id`` of the derived event, ``rule``, ``key``, ``place`` (in
        binding order, from 0), ``step`` that bound it, then of the contributing event
        ``contributing_id``, ``stream``, ``event_time``, ``type`` and the fields that
        the rules read.
        """
        rows: dict[str, list[Any]] = {
            name: []
            for name in ("event_id", "rule", "key", "place", "step", "contributing_id")
        }
        for event in self.events:
            for place, bound in enumerate(zip(event.steps, event.lineage, strict=True)):
                for name, value in zip(
                    rows, (event.id, event.rule, event.key, place, *bound), strict=True
                ):
                    rows[name].append(value)
        kinds = dict.fromkeys(rows, pl.String()) | {"place": pl.Int64()}
        uses = pl.DataFrame(rows, schema=kinds)
        return uses.join(
            self._rows(uses["contributing_id"].unique()),
            on="contributing_id",
            how="left",
            maintain_order="left",
        )

    def _rows(self, wanted: pl.Series) -> pl.DataFrame:
        """Return the events of those ids."""
        assert self._history is not None
        words = [ulid_to_words(text) for text in wanted]
        ids = pl.DataFrame(
            {
                "contributing_id": wanted,
                "hi": pl.Series([hi for hi, _ in words], dtype=pl.UInt64),
                "lo": pl.Series([lo for _, lo in words], dtype=pl.UInt64),
            }
        )
        parts = []
        for name, table in self._history.tables.items():
            places = pl.DataFrame(
                {"hi": table.id_hi, "lo": table.id_lo}
            ).with_row_index()
            found = ids.join(places, on=["hi", "lo"]).unique("contributing_id")
            rows = table.take(found["index"].to_numpy())
            columns: dict[str, Any] = {
                "contributing_id": found["contributing_id"],
                "stream": [name] * len(rows),
                "event_time": pl.Series(rows.time_ms).cast(pl.Datetime("ms", "UTC")),
                "type": [rows.types[code] for code in rows.type_code.tolist()],
            }
            columns |= {x: y.to_list() for x, y in rows.fields.items()}
            parts.append(pl.DataFrame(columns))
        return pl.concat(parts, how="diagonal_relaxed")

    def compare(self, other: Any) -> Comparison:
        """Print whether others derived the same events, or the first difference.

        Parameters
        ----------
        other
            The ids that a live run published, a frame of derived events with the
            column ``event_id``, or another result.

        Returns
        -------
        What differs; true if nothing does.
        """
        found = compared({event.id: event for event in self.events}, other)
        print(found)
        return found

    def score_table(self) -> pl.DataFrame:
        """Return the scores, a row for each rule; leads in milliseconds."""
        self._check_labels()
        return pl.DataFrame([one.row() for one in self.scores.values()])

    def labelled(self) -> pl.DataFrame:
        """Return the labels within the data and what was found of each.

        Columns: ``rule``, ``start``, ``end``, ``moment``, ``key``, ``first_alert``
        (null where it was not found), ``lead``.
        """
        self._check_labels()
        assert self.labels is not None
        parts = []
        for name, one in self.scores.items():
            of_rule = self.labels.of_rule(name)
            reached = (of_rule.end_ns >= self.start_ns) & (
                of_rule.start_ns <= self.end_ns
            )
            inside = of_rule.take(reached)
            times = {
                "start": inside.start_ns,
                "end": inside.end_ns,
                "moment": inside.moment_ns,
                "first_alert": one.first_ns,
            }
            known = one.first_ns >= 0
            lead = pl.Series(inside.moment_ns - one.first_ns).cast(pl.Duration("ns"))
            table = pl.DataFrame(
                {"rule": [name] * len(inside)}
                | {
                    what: pl.Series(ns // NS_PER_MS).cast(pl.Datetime("ms", "UTC"))
                    for what, ns in times.items()
                }
                | {"key": pl.Series(inside.keys, dtype=pl.String), "lead": lead}
            )
            hidden = pl.when(pl.lit(pl.Series(known)))
            parts.append(
                table.with_columns(
                    hidden.then(pl.col(x)).alias(x) for x in ("first_alert", "lead")
                )
            )
        return pl.concat(parts)

    def _check_labels(self) -> None:
        if self.labels is None:
            raise UsageError(
                "There is no score without labels.",
                "Pass labels= to cep.backtest: what should have been found, and when.",
            )

    def to_polars(self) -> pl.DataFrame:
        """Return ``alerts``, the lineage as one text; with labels, which are right."""
        table = self.alerts.with_columns(pl.col("lineage").list.join(" "))
        if self.labels is None:
            return table
        right = dict.fromkeys(self.ids, False)
        for name in self.scores:
            mine = [x for x in self.events if x.rule == name and not x.timeout]
            good, _ = tally(_alerts_of(mine), self.labels.of_rule(name))
            right |= dict(zip([x.id for x in mine], good.tolist(), strict=True))
        return table.with_columns(
            right=pl.Series(list(right.values()), dtype=pl.Boolean)
        )

    def plot(self) -> go.Figure:
        """Return the backtest sheet: alerts and labels over time, scores, leads."""
        from cep.backtesting.figures import backtest_sheet

        return backtest_sheet(self)

    def __str__(self) -> str:
        rows = sum(one["read"] for one in self.accounting.values())
        first, last = (
            format_timestamp(ns // NS_PER_MS) for ns in (self.start_ns, self.end_ns)
        )
        head = f"{rows:,} events from {first} to {last} in {self.seconds:.2f} s"
        found = super(Backtest, self).__str__()
        return "\n".join([head, found, *map(str, self.scores.values())])

    def __repr__(self) -> str:
        return str(self)


def backtest(
    rules: Rule | Sequence[Rule] | RulesAndStreams,
    data: Any,
    labels: Any = None,
    *,
    tolerance: Tolerance | None = None,
    max_out_of_orderness: str | timedelta = "1s",
    end: bool = True,
    batch_rows: int | None = None,
    most: int = MOST,
    draws: int = DRAWS,
    seed: int = 0,
) -> Backtest:
    """Run rules over history; with labels, say how right they are.

    The rules are those that run live, compiled by the same code. Rows come in order
    of arrival where frames have an ``entry_id``, and are judged late as live.

    Parameters
    ----------
    rules, data, max_out_of_orderness, end, batch_rows, most
        As for `cep.run_rules`.
    labels
        What should have been found: windows, or points with a ``tolerance``; see
        `cep.backtesting.labels_of`. A label without a rule counts for each rule.
    tolerance
        How far from a point an alert may be: ``"5m"``, or a pair for before and
        after.
    draws, seed
        Of the bootstrap behind the intervals, and of the random alerts that the rules
        are held against; see `cep.backtesting.score`.

    Raises
    ------
    UsageError
        As `cep.run_rules`; if labels cannot be read, or name a rule that is not there.

    Examples
    --------
    >>> import cep
    >>> @cep.rule("big-trade", key="symbol", cooldown="60s")
    ... def big_trade():
    ...     "A trade of more than 50 coins."
    ...     big = cep.on("market.trade").where(cep.e.quantity > 50)
    ...     return big, cep.emit(quantity=cep.e.quantity)
    >>> bt = cep.backtest(big_trade, cep.sample.frame("market.events"))
    >>> bt.counts["big-trade"].emitted, len(bt.suppressed), len(bt.contributing())
    (14, 989, 14)
    >>> bt.compare(bt.ids).equal
    equal: both derived the same 14 events
    True
    """
    check_count("batch_rows", batch_rows)
    check_count("most", most)
    given = rules_of(rules, "backtest")
    history = History.of(given, data)
    streams = history.streams(rules, max_out_of_orderness)
    run = run_over(
        given, history, streams, history.edges(batch_rows), end=end, most=most
    )
    history.warn_unsorted(run, stacklevel=2)
    start_ns, end_ns = span_of(history)
    found = Backtest(
        run.events,
        run.counts,
        run.accounting,
        run.seconds,
        run.failures,
        rules=tuple(given),
        start_ns=start_ns,
        end_ns=end_ns,
        _history=history,
        _streams=streams,
        _end=end,
        _most=most,
    )
    if labels is not None:
        found.labels = labels_of(labels, tolerance)
        _check_rules(found.labels, given)
        for rule in given:
            found.scores[rule.name] = score(
                rule.name,
                matches_of(run, rule.name),
                found.labels.of_rule(rule.name),
                Span(start_ns, end_ns, keys_of(rule, history)),
                draws=draws,
                seed=seed,
            )
    return found


def span_of(history: History) -> tuple[int, int]:
    """Return the first and the last event time in ns; 0 and 0 if there is none."""
    times = [table.time_ms for table in history.tables.values() if len(table)]
    if not times:
        return 0, 0
    first, last = min(int(x.min()) for x in times), max(int(x.max()) for x in times)
    return first * NS_PER_MS, last * NS_PER_MS


def keys_of(rule: Rule, history: History) -> frozenset[str]:
    """Return the keys of a rule that the data has; none where one is no text."""
    found: set[str] = set()
    for table in history.tables.values():
        columns = [table.fields.get(name) for name in rule.key]
        kinds = {None if column is None else column.kind for column in columns}
        if kinds != {"str"}:
            continue
        codes = [code for code, name in enumerate(table.types) if name in rule.sources]
        rows = np.isin(table.type_code, codes)
        for column in columns:
            if column is not None and column.valid is not None:
                rows &= column.valid
        parts = np.stack([c.values[rows] for c in columns if c is not None])
        texts = [c.texts or [] for c in columns if c is not None]
        for one in np.unique(parts, axis=1).T.tolist():
            found.add("/".join(t[code] for t, code in zip(texts, one, strict=True)))
    return frozenset(found)


def _alerts_of(events: Sequence[DerivedEvent]) -> Alerts:
    times = np.array([x.time_ns for x in events], np.int64)
    return Alerts(times, [x.key for x in events])


def matches_of(run: RunResult, rule: str) -> Alerts:
    """Return when a rule's matches came, each once however much it put out."""
    once = {
        (x.time_ns, x.key, x.lineage, x.steps): x
        for x in run.events
        if x.rule == rule and not x.timeout
    }
    return _alerts_of(list(once.values()))


def _may_time_out(rule: Rule) -> bool:
    gaps = any(part.gap_ns is not None for part in rule.pattern.walk())
    return rule.pattern.within_ns is not None or gaps


def _check_rules(labels: Labels, rules: Sequence[Rule]) -> None:
    names = Counter(rule.name for rule in rules)
    for name in labels.rules:
        if name is not None and name not in names:
            raise UsageError(
                f"A label is for the rule {shown(name)}, which is not run.",
                f"The rules are {', '.join(names)}; leave its rule out if any will do.",
            )
