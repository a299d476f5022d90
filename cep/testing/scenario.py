"""Given events, when a rule runs, expect what it derives.

Every test runs more than once: in order; then with the events arriving out of order
within the bound, cut into random batches. All runs must derive the same, or the test
fails and says with which seed.
"""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from cep.backtesting.run import History, RunResult, rules_of, run_over
from cep.clock import duration_ns
from cep.errors import UsageError, shown
from cep.testing.explain import explained
from cep.testing.seed import DEFAULTS
from cep.testing.streams import NS_PER_MS, START_MS, Given, offset, placed, told

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from cep.backtesting.run import RulesAndStreams
    from cep.engine.derive import DerivedEvent
    from cep.engine.ordering import InputStream
    from cep.events import Event
    from cep.rules.rule import Rule

RUNS: Final = 4  # out of order, besides the one in order


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is given; made by `given`."""

    given: tuple[Given, ...]
    end_ms: int
    seed: int

    def when(
        self,
        rules: Rule | Sequence[Rule] | RulesAndStreams,
        *,
        max_out_of_orderness: str | timedelta = "1s",
        runs: int = RUNS,
    ) -> Outcome:
        """Run rules over the events.

        Parameters
        ----------
        rules
            One rule, several, or a pipeline, whose streams then say how late rows are
            judged.
        max_out_of_orderness
            How far out of order events arrive in the runs after the first.
        runs
            How many those are.

        Raises
        ------
        AssertionError
            If a run out of order derives something else.
        UsageError
            If no event that a rule could see has the rule's key.
        """
        found = rules_of(rules, "when")
        stage = Stage(self, found, rules, max_out_of_orderness)
        first = stage.run()
        for number in range(runs):
            stage.check(first, self.seed + number)
        return Outcome(stage, first)


def _field(event: Event, name: str) -> Any:
    return event.data[name] if name in event.data else getattr(event, name, None)


class Stage:
    """Rules and events, to be run in whatever order."""

    def __init__(
        self,
        scenario: Scenario,
        rules: Sequence[Rule],
        given: Any,
        max_out_of_orderness: str | timedelta,
    ) -> None:
        self.scenario, self.rules = scenario, list(rules)
        self._said, self._bound = given, max_out_of_orderness
        last = max([scenario.end_ms, *(one.at_ms for one in scenario.given)])
        # Rows lie below the watermark; limits are whole milliseconds.
        self.until_ns = (START_MS + last) * NS_PER_MS + 1
        for rule in self.rules:
            self._check_key(rule)

    def _check_key(self, rule: Rule) -> None:
        """Refuse a test whose events no rule could see: it would show nothing."""
        events = [
            one.event
            for one in self.scenario.given
            if one.event.type in rule.sources and rule.key
        ]
        if not events or any(
            _field(event, name) is not None for event in events for name in rule.key
        ):
            return
        names = ", ".join(f"{name}=..." for name in rule.key)
        raise UsageError(
            f"None of the {len(events)} events that rule {rule.name!r} could see has "
            f"its key {', '.join(rule.key)}, so it passes over all of them.",
            f"Give the events their key: events(..., {names}).",
        )

    def streams(self, history: History) -> list[InputStream]:
        """Return how time is judged."""
        return history.streams(self._said, self._bound)

    def run(self, rules: Sequence[Rule] | None = None) -> RunResult:
        """Run rules, these or others, over the events in order."""
        return self._run(self.rules if rules is None else list(rules))

    def _run(
        self,
        rules: list[Rule],
        arrival: Sequence[int] | None = None,
        edges: Sequence[int] = (),
    ) -> RunResult:
        events = self.scenario.given
        order = range(len(events)) if arrival is None else arrival
        history = History.of(rules, _frames(events, order, rules))
        return run_over(
            rules, history, self.streams(history), edges, until_ns=self.until_ns
        )

    def check(self, first: RunResult, seed: int) -> None:
        """Run once more, out of order and in batches, and compare."""
        events = self.scenario.given
        random_ = random.Random(seed)
        arrival = self._out_of_order(random_)
        cuts = random_.randint(0, max(0, len(events) - 1))
        edges = sorted(random_.sample(range(1, max(2, len(events))), min(cuts, 20)))
        again = self._run(self.rules, arrival, edges)
        if again.ids == first.ids:
            return
        mine, other = ({x.id: x for x in run.events} for run in (first, again))
        again_by = f"given(..., seed={seed}).when(...) does it again"
        lines = [
            f"Out of order the rules derive something else (seed {seed}: {again_by}).",
            f"arrived as: {', '.join(f'#{i}' for i in arrival)}",
            f"cut into batches before row: {', '.join(map(str, edges)) or 'none'}",
            *(f"only in order: {_shown(mine[x])}" for x in mine.keys() - other.keys()),
            *(
                f"only out of order: {_shown(other[x])}"
                for x in other.keys() - mine.keys()
            ),
            "A function given to py(...) that remembers something does that.",
        ]
        raise AssertionError("\n".join(lines))

    def _out_of_order(self, random_: random.Random) -> list[int]:
        """Return an order of arrival that makes no event late.

        Events of one time and stream keep their order: it is their entry ids'.
        """
        events = self.scenario.given
        bounds = {
            x.name: x.max_out_of_orderness_ns // NS_PER_MS
            for x in getattr(self._said, "streams", ())
        }
        usual = duration_ns(self._bound, allow_zero=True) // NS_PER_MS
        delays: dict[tuple[int, str], float] = {}
        for one in events:
            bound = bounds.get(one.event.stream, usual)
            at = one.at_ms, one.event.stream
            delays.setdefault(at, random_.uniform(0, bound))
        return sorted(
            range(len(events)),
            key=lambda i: (
                events[i].at_ms + delays[events[i].at_ms, events[i].event.stream],
                i,
            ),
        )


class Outcome:
    """What rules derived; each ``expect`` returns it again.

    Attributes
    ----------
    result
        The `cep.backtesting.RunResult` of the run in order.
    """

    def __init__(self, stage: Stage, result: RunResult) -> None:
        self._stage, self.result = stage, result

    @property
    def events(self) -> list[DerivedEvent]:
        """The derived events."""
        return self.result.events

    def expect(
        self,
        times: int = 1,
        /,
        *,
        rule: str | None = None,
        at: str | timedelta | None = None,
        key: str | None = None,
        type: str | None = None,
        severity: str | None = None,
        title: str | None = None,
        timeout: bool | None = None,
        **values: Any,
    ) -> Outcome:
        """Expect exactly so many derived events, like this if something is said.

        Parameters
        ----------
        times
            How many.
        rule, key, type, severity, title
            As they must be.
        at
            The event's time, counted from the start of the test.
        timeout
            Whether it tells of a partial match that ran out of time.
        values
            Fields of what is emitted; numbers to nine digits.

        Raises
        ------
        AssertionError
            With what was given, what was derived, and where there is too little, how
            far the rules came and what was missing.
        """
        __tracebackhide__ = True
        wanted = {
            name: value
            for name, value in {
                "rule": rule,
                "at": None
                if at is None
                else offset(duration_ns(at, allow_zero=True) // NS_PER_MS),
                "key": key,
                "type": type,
                "severity": severity,
                "title": title,
                "timeout": timeout,
            }.items()
            if value is not None
        }
        self._check_rule(rule)
        like = [x for x in self.events if not _differences(x, wanted, values)]
        if len(like) == times:
            return self
        what = ", ".join(f"{k}={v!r}" for k, v in (wanted | values).items())
        such = f" with {what}" if what else ""
        self._fail(
            f"Expected {_events(times)}{such}, there {_are(len(like))}.",
            wanted,
            values,
            too_few=len(like) < times,
        )
        return self

    def expect_none(self, *, because: str = "", rule: str | None = None) -> Outcome:
        """Expect that nothing is derived, or nothing by one rule.

        Parameters
        ----------
        because
            Why not; the message repeats it.
        rule
            The rule's name.

        Raises
        ------
        AssertionError
            With what was derived, and from which events.
        """
        __tracebackhide__ = True
        self._check_rule(rule)
        found = [x for x in self.events if rule in (None, x.rule)]
        if found:
            why = f" ({because})" if because else ""
            self._fail(f"Expected no event{why}, there {_are(len(found))}.", {}, {})
        return self

    def _check_rule(self, rule: str | None) -> None:
        known = [x.name for x in self._stage.rules]
        if rule is not None and rule not in known:
            raise UsageError(
                f"The rule {shown(rule)} did not run.",
                f"The rules are {', '.join(known)}.",
            )

    def _fail(
        self,
        problem: str,
        wanted: dict[str, Any],
        values: dict[str, Any],
        *,
        too_few: bool = False,
    ) -> None:
        __tracebackhide__ = True
        scenario = self._stage.scenario
        numbers = {one.event.id: one.number for one in scenario.given}
        lines = [problem, "given:", told(scenario.given, scenario.end_ms)]
        lines.append("derived:" if self.events else "derived: nothing")
        for event in self.events[:20]:
            lines.append(f"  {_shown(event)}")
            steps = zip(event.steps, event.lineage, strict=True)
            bound = [f"{step} #{numbers[x]}" for step, x in steps]
            lines.append(f"    from {', '.join(bound)}")
            missed = _differences(event, wanted, values)
            if missed and (wanted or values):
                lines.append(f"    not as expected: {'; '.join(missed)}")
        if len(self.events) > 20:
            lines.append(f"  ... and {len(self.events) - 20} more")
        lines += [
            f"{failure.rule} failed on an event: {failure.what}"
            for failure in self.result.failures[:5]
        ]
        if too_few:
            only = wanted.get("rule")
            for one in self._stage.rules:
                if only in (None, one.name):
                    lines += explained(one, self._stage, self.result)
        raise AssertionError("\n".join(lines))


def given(*parts: Any, seed: int | None = None) -> Scenario:
    """Say what happens, for a test of rules.

    Parameters
    ----------
    parts
        `events` and `advance`, in order, or lists of them. The test starts with the
        first; at its end all events have arrived, and time has gone on to its last
        event or `advance`, so that absences up to then are certain.
    seed
        Of the runs out of order; ``pytest --cep-seed`` sets it for all tests, else 0.

    >>> from cep import count, e, emit, on, rule
    >>> from cep.testing import events, given
    >>> @rule("three-rises", key="symbol")
    ... def busy():
    ...     third = on("market.trade").where(count().over("10s") >= 3)
    ...     return third, emit(price=e.price)
    >>> trades = events("market.trade", symbol="BTC", price=[1, 2, 3], every="2s")
    >>> _ = given(trades).when(busy).expect(1, at="4s", key="BTC", price=3)
    >>> slow = events("market.trade", symbol="BTC", price=[1, 2, 3], every="5s")
    >>> _ = given(slow).when(busy).expect_none(because="the first has left the window")
    """
    found, end_ms = placed(parts)
    return Scenario(tuple(found), end_ms, DEFAULTS["seed"] if seed is None else seed)


def _frames(
    events: Sequence[Given], arrival: Sequence[int], rules: Sequence[Rule]
) -> dict[str, pl.DataFrame]:
    """Return a frame for each stream, the rows in their order of arrival."""
    from cep.events.registry import registry
    from cep.frames.shape import column_name

    rows: dict[str, list[dict[str, Any]]] = {
        registry.get(name).stream: [] for rule in rules for name in rule.sources
    }
    for place, number in enumerate(arrival):
        event = events[number].event
        row: dict[str, Any] = {
            "event_id": event.id,
            "entry_id": f"{START_MS + place}-0",
            "type": event.type,
            "event_time": event.time_ms,
            "@correlation_id": event.correlation_id or "",
            "@user_id": event.user_id or "",
        }
        for name, value in event.data.items():
            field = registry.get(event.type).field(name)
            nested = field is not None and field.kind == "json"
            row[column_name(name)] = json.dumps(value) if nested else value
        rows.setdefault(event.stream, []).append(row)
    return {
        stream: pl.from_dicts(some, infer_schema_length=None, strict=False)
        if some
        else _EMPTY
        for stream, some in rows.items()
    }


_EMPTY: Final = pl.DataFrame(
    schema={
        "event_id": pl.String,
        "entry_id": pl.String,
        "type": pl.String,
        "event_time": pl.Int64,
    }
)


def _values(event: DerivedEvent) -> dict[str, Any]:
    data = event.data
    return {**data, **data.get("values", {}), **data.get("trend_data", {})}


def _differences(
    event: DerivedEvent, wanted: dict[str, Any], values: dict[str, Any]
) -> list[str]:
    """Return how an event is not as described."""
    own = {
        "rule": event.rule,
        "at": _at(event),
        "key": event.key,
        "type": event.type,
        "severity": event.severity,
        "timeout": event.timeout,
        "title": _values(event).get("title"),
    }
    emitted = _values(event)
    missed = [
        f"{name} is {own[name]!r}" for name, one in wanted.items() if own[name] != one
    ]
    for name, value in values.items():
        if name not in emitted:
            missed.append(f"it has no {name}")
        elif not _same(emitted[name], value):
            missed.append(f"{name} is {emitted[name]!r}")
    return missed


def _same(found: Any, wanted: Any) -> bool:
    numbers = (int, float)
    if isinstance(found, numbers) and isinstance(wanted, numbers):
        if isinstance(found, bool) or isinstance(wanted, bool):
            return found is wanted
        return math.isclose(found, wanted, rel_tol=1e-9, abs_tol=1e-12)
    return bool(found == wanted)


def _at(event: DerivedEvent) -> str:
    return offset(event.time_ns // NS_PER_MS - START_MS)


def _shown(event: DerivedEvent) -> str:
    hidden = ("rule", "rule_version", "key", "severity", "values", "trend_data")
    told = {k: v for k, v in _values(event).items() if k not in hidden}
    key = f", key {event.key!r}" if event.key else ""
    what = ", ".join(f"{k}={v!r:.60}" for k, v in told.items())
    return f"{event.rule} at {_at(event)}{key}: {what}"


def _events(n: int) -> str:
    return f"{n} event{'s' * (n != 1)}"


def _are(n: int) -> str:
    return "is 1" if n == 1 else f"are {n or 'none'}"
