"""Aggregates over windows: what ``avg(e.price).over("60s")`` means.

The kinds of windows, and what an event at time ``t`` sees in each:

===================================  ===========================================
``.over("60s")``                     sliding: ``(t - 60 s, t]``
``.over(events=100)``                sliding: the last 100 events
``.tumbling("60s")``                 the minute of the clock with ``t`` in it, so far
``.hopping("60s", every="1s")``      of the windows with ``t`` in them, the earliest
``.session(gap="5s")``               all since the last pause of 5 s or more
===================================  ===========================================

An event counts itself. Tumbling and hopping windows begin at multiples of
``every`` since the epoch (UTC) and hold ``[begin, begin + length)``; a tumbling
window is a hopping one with ``every`` equal to its length. An event exactly
``length`` old has left a sliding window, and one exactly ``gap`` after the last
begins a session. Of events with equal times, an earlier one does not see a later
one.

An event sees a window as far as it has come. What it holds in the end is for a step
that takes windows instead of events, ``on("market.trade").tumbling("60s")``, each
when it closes: see `cep.rules.patterns.Step.hopping`. There an aggregate without a
window of its own is over the one that closes.

`prev` and `ewm` look back without a window and keep one value a key.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from cep.clock import duration_ns, format_duration
from cep.errors import RuleError
from cep.rules.expressions import WINDOW_METHODS, Expr, Field, as_expr

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import timedelta

    from cep.rules.expressions import Key

    By = str | Sequence[str] | Expr | None

# Aggregates whose result is a value that went in, of whatever kind.
CHOOSING = ("first", "last", "prev")

ROWS_PER_KEY = 1_000_000
ROWS = 20_000_000
KEYS = 1_000_000
# Windows that one event may be in where each is told of when it closes.
MOST_CLOSES = 100_000


@dataclass(frozen=True, slots=True)
class Span:
    """Which of the events before it an event sees.

    ``length`` is in ns for "time" and "session" (there it is the gap), a number of
    events for "events"; windows of time begin at multiples of ``every`` ns, where
    1 stands for a sliding one. "previous" and "all" are those of `prev` and `ewm`,
    "step" is the window that a step takes.
    """

    kind: Literal["time", "events", "session", "previous", "all", "step"]
    length: int = 0
    every: int = 1

    @property
    def key(self) -> Key | int:
        """The structure; the length alone of a sliding window of time."""
        if self.kind == "time" and self.every == 1:
            return self.length
        return (self.kind, self.length, self.every)

    def __str__(self) -> str:
        length = format_duration(self.length) if self.kind != "events" else ""
        if self.kind == "events":
            return f"over(events={self.length}"
        if self.kind == "session":
            return f"session(gap={length!r}"
        if self.every == 1:
            return f"over({length!r}"
        if self.every == self.length:
            return f"tumbling({length!r}"
        return f"hopping({length!r}, every={format_duration(self.every)!r}"


OF_STEP = Span("step")


def hopping_span(what: str, length: str | timedelta, every: str | timedelta) -> Span:
    """Return windows of ``length`` that begin at each ``every``.

    Raises
    ------
    RuleError
        If they would leave gaps; ``what`` is what is split into windows.
    """
    long, hop = (duration_ns(x, whole_ms=True) for x in (length, every))
    if hop > long:
        raise RuleError(
            f"{what}.hopping({length!r}, every={every!r})",
            "would leave out what happens between two windows",
            "give a length of at least `every`",
        )
    return Span("time", long, hop)


class WindowType(str):
    """The type of events that say that a window has closed; made for rules.

    As a string it says which windows of which events; they are split by the fields
    ``by`` and hold the events of ``types`` for which ``where`` holds.
    """

    types: tuple[str, ...]
    span: Span
    by: tuple[str, ...]
    where: Expr | None

    def __new__(
        cls,
        types: tuple[str, ...],
        span: Span,
        by: tuple[str, ...],
        where: Expr | None = None,
    ) -> WindowType:
        text = " or ".join(types) + ("" if where is None else f".where({where})")
        made = super().__new__(cls, f"{text}.{span}, by={list(by)!r})")
        made.types, made.span, made.by, made.where = types, span, by, where
        return made

    def __getnewargs__(self) -> tuple[Any, ...]:
        return self.types, self.span, self.by, self.where


def event_types(types: Iterable[str]) -> tuple[str, ...]:
    """Return ``types`` with the types that are in windows in the windows' places."""
    return tuple(
        name
        for given in types
        for name in (given.types if isinstance(given, WindowType) else (given,))
    )


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Window(Expr):
    """An aggregate over a window of events: ``avg(e.price).over("60s")``.

    The module says which events the kinds of windows hold: those of the step's
    types, or of the types in ``source``. ``condition`` limits which events enter;
    absent values are passed over (``count()`` counts events, ``count(e.x)`` those
    that have an x). In an empty window count, distinct and sum are 0, all others
    absent. Values beyond 1e140 in size are passed over like absent ones.

    ``by`` names the fields that split the events into windows of their own:
    None for the rule's key, an empty tuple for one window over all.

    A key holds at most `ROWS_PER_KEY` events and all keys of a window together at
    most `ROWS`: then the key's oldest events leave, or those of the keys that
    were not seen for longest, and both are counted.
    """

    function: str
    values: tuple[Expr, ...]
    condition: Expr | None = None
    parameter: float | None = None
    source: tuple[str, ...] = ()
    span: Span = OF_STEP
    by: tuple[str, ...] | None = None

    @property
    def value(self) -> Expr | None:
        """The first value that is aggregated; None for ``count()``."""
        return self.values[0] if self.values else None

    @property
    def inputs(self) -> tuple[Expr, ...]:
        """The expressions that are computed of each event that enters."""
        return self.values if self.condition is None else (*self.values, self.condition)

    def sources(self) -> set[str]:
        """Return the event types that ``source`` names, here and in windows inside."""
        found = set(self.source)
        for node in (node for inner in self.inputs for node in inner.walk()):
            if isinstance(node, Window):
                found |= node.sources()
        return found

    @property
    def key(self) -> Key:
        # Rules are known by a hash of this, so what came later is added only
        # where it is used.
        more = (*(x.key for x in self.values[1:]), self.parameter, self.source)
        return (
            "window",
            self.function,
            self.values[0].key if self.values else None,
            self.span.key,
            self.by,
            None if self.condition is None else self.condition.key,
            *(() if more == (None, ()) else more),
        )

    def _missing(self, name: str) -> tuple[str, str]:
        if name not in WINDOW_METHODS:
            return Expr._missing(self, name)
        if self.span.kind in ("previous", "all"):
            return (
                f"{self.function} looks back by itself and takes no window",
                f"leave .{name}(...) out, or aggregate: avg({self.value}).over(...)",
            )
        return (
            "has its window already",
            f"leave .{name}(...) out; .where and .of go before the window",
        )

    def __str__(self) -> str:
        values = ", ".join(map(str, self.values))
        by = "" if self.by is None else f", by={list(self.by)!r}"
        if self.function == "prev":
            return f"prev({values}{by})"
        if self.function == "ewm":
            half_life = format_duration(int(self.parameter or 0))
            return f"ewm({values}, half_life={half_life!r}{by})"
        if self.function == "quantile":
            values += f", {self.parameter:g}"
        text = f"{self.function}({values})"
        if self.condition is not None:
            text += f".where({self.condition})"
        if self.source:
            text += f".of({', '.join(map(repr, self.source))})"
        return text if self.span.kind == "step" else f"{text}.{self.span}{by})"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Aggregate(Window):
    """An aggregate without a window of its own: ``avg(e.price)`` before ``.over``.

    As it stands it is over the window that a step takes.
    """

    def where(self, condition: Expr) -> Aggregate:
        """Let only events that satisfy ``condition`` enter the window."""
        extra = as_expr(condition)
        joined = extra if self.condition is None else self.condition & extra
        return replace(self, condition=joined)

    def of(self, *types: str) -> Aggregate:
        """Aggregate over events of ``types`` instead of the step's own.

        ``e`` inside the aggregate is then an event of those types, and the fields
        of ``by`` (or the rule's key) must be theirs and the step's.
        """
        if not types or not all(isinstance(t, str) for t in types):
            raise RuleError(
                f"{self}.of({', '.join(map(repr, types))})",
                "takes the names of event types",
                'write .of("market.trade")',
            )
        return replace(self, source=tuple(sorted(set(types))))

    def over(
        self,
        length: str | timedelta | None = None,
        *,
        events: int | None = None,
        by: By = None,
    ) -> Window:
        """Aggregate over the last ``length`` of event time, or the last ``events``.

        At an event at time ``t`` that is ``(t - length, t]``, or the last so many
        events of those that enter, itself among them if it does. An event that lacks
        the value enters, too: ``avg(e.price).over(events=100)`` averages the prices
        that there are among 100 events. ``.where(~e.price.is_null())`` before it makes
        that the last 100 prices.

        ``by`` splits by one or several fields; the default is the rule's key,
        ``by=[]`` is one window over all events of the types.
        """
        if (length is None) == (events is None):
            raise RuleError(
                f"{self}.over(...)",
                "takes a length of time or a number of events, and not both",
                'write .over("60s") or .over(events=100)',
            )
        if length is not None:
            return self._window(Span("time", duration_ns(length, whole_ms=True)), by)
        if type(events) is not int or not 1 <= events <= ROWS_PER_KEY:
            raise RuleError(
                f"{self}.over(events={events!r})",
                f"takes a whole number of events from 1 to {ROWS_PER_KEY}",
                "write .over(events=100)",
            )
        return self._window(Span("events", events), by)

    def tumbling(self, length: str | timedelta, *, by: By = None) -> Window:
        """Aggregate over what the adjacent window of ``length`` holds so far.

        The windows are ``[n * length, (n + 1) * length)`` since the epoch, in UTC.
        """
        return self.hopping(length, every=length, by=by)

    def hopping(
        self, length: str | timedelta, *, every: str | timedelta, by: By = None
    ) -> Window:
        """Aggregate over windows of ``length`` that begin at each ``every``.

        They are ``[n * every, n * every + length)`` since the epoch, in UTC. Of
        those that hold an event's time it sees the earliest, which closes next,
        as far as it has come.
        """
        return self._window(hopping_span(str(self), length, every), by)

    def session(self, gap: str | timedelta, *, by: By = None) -> Window:
        """Aggregate over the events since the last pause of ``gap`` or longer.

        Only events that enter the window keep a session going.
        """
        return self._window(Span("session", duration_ns(gap, whole_ms=True)), by)

    def _window(self, span: Span, by: By) -> Window:
        return Window(
            self.function,
            self.values,
            self.condition,
            self.parameter,
            self.source,
            span,
            field_names(by),
        )


def field_names(by: By) -> tuple[str, ...] | None:
    """Return what ``by=`` names; None for the rule's key."""
    if by is None:
        return None
    parts = list(by) if isinstance(by, (list, tuple)) else [by]
    for part in parts:
        if not isinstance(part, (str, Field)):
            raise RuleError(
                f"by={by!r:.60}",
                "a window is split by fields",
                'name them: by="symbol" or by=["symbol", "venue"]',
            )
    return tuple(p.name if isinstance(p, Field) else str(p) for p in parts)
