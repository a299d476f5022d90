"""Patterns: steps, how they follow one another, and how often.

A step names the event types it takes and a condition. Steps follow by
``.next`` (strict: the very next event of the rule), ``.then`` (skip till next:
events that do not fit are passed over) or ``.then_any`` (skip till any: events
that fit may be passed over too). ``.not_next`` and ``.not_then`` say what must
not come; ``.not_then`` in last place needs ``.within`` and fires when that time
has run out.

A rule sees the events of the types that its steps name, of one key at a time;
"the very next event" is meant among those. A step may take windows of events
instead of events, each when it closes: ``on("market.trade").tumbling("60s")``.

Everything here is a definition: immutable, checked when it is built, and nothing
runs. Two of them are equal only if they are one: a condition in them has no truth
value. Compare their `key`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from keyword import iskeyword
from typing import TYPE_CHECKING, Literal

from cep.clock import duration_ns, format_duration
from cep.errors import RuleError
from cep.rules.expressions import Expr, Key, as_expr
from cep.rules.windows import MOST_CLOSES, Span, event_types, hopping_span

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta

Contiguity = Literal["next", "then", "then_any", "not_next", "not_then"]
Inner = Literal["relaxed", "consecutive", "any"]
NEGATIONS = ("not_next", "not_then")

# Each is a state of the automaton.
MOST_REPETITIONS = 1_000


@dataclass(frozen=True, slots=True, eq=False)
class Quantifier:
    """How often a step or group is taken; the default is exactly once."""

    least: int = 1
    most: int | None = 1
    optional: bool = False
    greedy: bool = False
    inner: Inner = "relaxed"
    until: Expr | None = None
    explicit: bool = False  # a repetition was asked for, if only times(1)

    @property
    def loops(self) -> bool:
        """Whether there is no upper bound."""
        return self.most is None

    @property
    def repeats(self) -> bool:
        """Whether this is anything but exactly once or at most once."""
        return self.explicit or self.least != 1 or self.most != 1

    @property
    def is_once(self) -> bool:
        """Whether nothing was asked for: exactly once."""
        return not (self.repeats or self.optional)

    @property
    def key(self) -> Key:
        """The structure as a tuple."""
        until = None if self.until is None else self.until.key
        return (
            self.least,
            self.most,
            self.optional,
            self.greedy,
            self.inner,
            until,
        )

    def __str__(self) -> str:
        text = ""
        if self.loops:
            text = ".one_or_more()" if self.least == 1 else f".at_least({self.least})"
        elif self.repeats:
            text = (
                f".times({self.least})"
                if self.least == self.most
                else f".between({self.least}, {self.most})"
            )
        if self.inner == "consecutive":
            text += ".consecutive()"
        if self.inner == "any":
            text += ".any_combination()"
        if self.greedy:
            text += ".greedy()"
        if self.until is not None:
            text += f".until({self.until})"
        if self.optional:
            text += ".optional()"
        return text


@dataclass(frozen=True, slots=True, eq=False)
class _Element(ABC):
    """What steps and groups share: quantifiers and time limits.

    ``within_ns`` bounds a match from its first event to its last, ``gap_ns`` the
    time between an event of this element and the one bound before it.
    """

    quantifier: Quantifier = field(default_factory=Quantifier, kw_only=True)
    within_ns: int | None = field(default=None, kw_only=True)
    gap_ns: int | None = field(default=None, kw_only=True)

    @property
    @abstractmethod
    def label(self) -> str:
        """How error messages call this element."""

    @property
    def _time_key(self) -> Key:
        return () if self.gap_ns is None else (("gap", self.gap_ns),)

    @property
    def _time_text(self) -> str:
        text = ""
        if self.within_ns is not None:
            text += f".within({format_duration(self.within_ns)!r})"
        if self.gap_ns is not None:
            text += f".within_previous({format_duration(self.gap_ns)!r})"
        return text

    def _limited(self, length: str | timedelta) -> _Element:
        if self.gap_ns is not None:
            raise RuleError(
                self.label,
                f"has a gap limit already: {format_duration(self.gap_ns)}",
                "keep one .within_previous(...)",
            )
        return replace(self, gap_ns=duration_ns(length, whole_ms=True))

    def _quantified(self, **changes: object) -> _Element:
        return replace(self, quantifier=replace(self.quantifier, **changes))  # type: ignore[arg-type]

    def _repeated(self, least: int, most: int | None) -> _Element:
        if self.quantifier.repeats:
            raise RuleError(
                self.label,
                f"has a repetition already: {self.quantifier}",
                "keep one of times, between, at_least, one_or_more",
            )
        for n in (least, most):
            if n is not None and (isinstance(n, bool) or not isinstance(n, int)):
                raise RuleError(
                    self.label,
                    f"a repetition is a whole number, got {n!r}",
                    "give an int",
                )
        if max(least, most or 0) > MOST_REPETITIONS:
            raise RuleError(
                self.label,
                f"a repetition of {max(least, most or 0):,}, at most "
                f"{MOST_REPETITIONS:,} is possible",
                "count over a window instead: count().over(events=...)",
            )
        if least == 0 and most is None:
            raise RuleError(
                self.label,
                "at_least(0) asks for nothing",
                "write .one_or_more().optional()",
            )
        if least == most == 0:
            raise RuleError(
                self.label,
                "cannot be taken 0 times",
                "leave it out, write .optional() if it may be missing, or "
                ".not_then(...) if it must be",
            )
        if least < 0 or (most is not None and (most < 1 or most < least)):
            raise RuleError(
                self.label,
                f"cannot be taken between {least} and {most} times",
                "use 1 <= least <= most; least 0 means optional",
            )
        if least == 0:
            return self._quantified(least=1, most=most, optional=True, explicit=True)
        return self._quantified(least=least, most=most, explicit=True)

    def times(self, n: int) -> _Element:
        """Take exactly ``n`` (events in between that do not fit are passed over)."""
        return self._repeated(n, n)

    def between(self, least: int, most: int) -> _Element:
        """Take ``least`` to ``most``; with least 0 the element may be skipped."""
        return self._repeated(least, most)

    def at_least(self, n: int) -> _Element:
        """Take ``n`` or more."""
        return self._repeated(n, None)

    def one_or_more(self) -> _Element:
        """Take one or more (the Kleene plus)."""
        return self._repeated(1, None)

    def optional(self) -> _Element:
        """Allow none at all as well."""
        if self.quantifier.optional:
            raise RuleError(self.label, "is optional already", "remove one .optional()")
        return self._quantified(optional=True)

    def greedy(self) -> _Element:
        """Take as many as possible: what fits here is not taken by the next step."""
        if isinstance(self, Sequence):
            raise RuleError(
                self.label,
                "a group cannot be greedy",
                "make a step in it greedy, or repeat it without .greedy()",
            )
        self._needs_repetition("greedy")
        if self.quantifier.inner == "any":
            raise RuleError(
                self.label,
                "greedy and any_combination contradict each other",
                "remove one of them",
            )
        return self._quantified(greedy=True)

    def consecutive(self) -> _Element:
        """Let no other event come between the repetitions."""
        self._needs_repetition("consecutive")
        return self._quantified(inner="consecutive")

    def any_combination(self) -> _Element:
        """Let repetitions pass over events that fit: all combinations match."""
        self._needs_repetition("any_combination")
        if self.quantifier.greedy:
            raise RuleError(
                self.label,
                "greedy and any_combination contradict each other",
                "remove one of them",
            )
        return self._quantified(inner="any")

    def until(self, condition: Expr) -> _Element:
        """End the repetition at the first event that satisfies ``condition``.

        That event is not taken by the repetition; the step after it may take it.
        Of a group, it is taken by no step inside, those of groups inside included.
        """
        if not self.quantifier.loops:
            raise RuleError(
                self.label,
                "until needs a repetition without an upper bound",
                "put .one_or_more() or .at_least(n) before .until(...)",
            )
        return self._quantified(until=as_expr(condition))

    def _needs_repetition(self, what: str) -> None:
        if not self.quantifier.repeats:
            raise RuleError(
                self.label,
                f"{what} needs a repetition",
                f"put .times, .between, .at_least or .one_or_more before .{what}()",
            )


@dataclass(frozen=True, slots=True, eq=False)
class Step(_Element):
    """One step: events of ``types`` that satisfy ``condition``; built by `on`.

    With a ``span`` it takes windows of those events that satisfy ``entering``, and
    ``condition`` is one on the window. In a rule ``types`` is then a `WindowType`.
    """

    types: tuple[str, ...]
    name: str | None = None
    condition: Expr | None = None
    span: Span | None = None
    entering: Expr | None = None

    @property
    def label(self) -> str:
        return f"step {self.name!r}" if self.name else f"step on {self.types[0]!r}"

    def where(self, condition: Expr) -> Step:
        """Require ``condition`` as well; several ``where`` are joined with and."""
        extra = as_expr(condition)
        joined = extra if self.condition is None else self.condition & extra
        return replace(self, condition=joined)

    def tumbling(self, length: str | timedelta) -> Step:
        """Take adjacent windows of ``length``, each when it closes; see `hopping`.

        The windows are ``[n * length, (n + 1) * length)`` since the epoch, in UTC.
        """
        return self.hopping(length, every=length)

    def hopping(self, length: str | timedelta, *, every: str | timedelta) -> Step:
        """Take windows of ``length`` that begin at each ``every``, each when it closes.

        They are ``[n * every, n * every + length)`` since the epoch, in UTC, split by
        the rule's key and held by the events that satisfy the conditions so far. A
        ``where`` from here on is one on the window, and in it and in what is emitted

        * an aggregate without a window of its own is over the one that closes,
        * ``e`` is the closed window, with the fields of the rule's key,
          ``window_start`` and ``window_end`` (ms since the epoch), and
          ``event_time``, which is its end.

        Each window that holds an event is taken once, when the watermark reaches its
        end: after all events before that, and before those of that time. Where the
        input is declared to have ended, all windows that are still open close.

        >>> from cep.rules import count
        >>> busy = on("market.trade").hopping("60s", every="1s")
        >>> print(busy.where(count() >= 100))  # doctest: +NORMALIZE_WHITESPACE
        on('market.trade', name=None).hopping('60s', every='1s').where((count()
        >= 100))
        """
        return self._closing(hopping_span(self.label, length, every))

    def session(self, gap: str | timedelta) -> Step:
        """Take sessions, each when nothing has come for ``gap``; see `hopping`.

        A session's ``window_start`` is the time of its first event, its end that of
        the last plus ``gap``; an event at the end begins another.
        """
        return self._closing(Span("session", duration_ns(gap, whole_ms=True)))

    def _closing(self, span: Span) -> Step:
        if self.span is not None:
            raise RuleError(
                self.label,
                f"takes windows already: {self.span})",
                "keep one of tumbling, hopping and session",
            )
        if span.kind == "time" and span.length > MOST_CLOSES * span.every:
            raise RuleError(
                f"{self.label}, {span})",
                f"lets each event be in more than {MOST_CLOSES:,} windows",
                "let windows begin less often",
            )
        made = replace(self, span=span, entering=self.condition, condition=None)
        assert isinstance(made, Step)
        return made

    def within(self, length: str | timedelta) -> Sequence:
        """Bound the time of a repeated single step; see `Sequence.within`."""
        return seq(self).within(length)

    def within_previous(self, length: str | timedelta) -> Step:
        """Take only events *less* than ``length`` after the event bound before.

        Every repetition of a repeated step is bound, the first one too. The
        first event of a match has none before it and is not. On a `not_then` in
        last place it is how long to wait after the last bound event, on a
        `not_next` how soon the next event must come.
        """
        limited = self._limited(length)
        assert isinstance(limited, Step)
        return limited

    @property
    def key(self) -> Key:
        """The structure as nested tuples."""
        condition = None if self.condition is None else self.condition.key
        quantifier = self.quantifier.key
        limits = self._time_key
        if self.within_ns is not None:
            limits = ("within", self.within_ns, *limits)
        if self.span is not None:
            entering = None if self.entering is None else self.entering.key
            limits = ("closing", self.span.key, entering, *limits)
        types = event_types(self.types)
        return ("step", types, self.name, condition, quantifier, *limits)

    def __str__(self) -> str:
        types = ", ".join(map(repr, event_types(self.types)))
        text = f"on({types}, name={self.name!r})"
        if self.span is not None:
            entering = "" if self.entering is None else f".where({self.entering})"
            text += f"{entering}.{self.span})"
        if self.condition is not None:
            text += f".where({self.condition})"
        return text + str(self.quantifier) + self._time_text


@dataclass(frozen=True, slots=True, eq=False)
class Sequence(_Element):
    """Steps and groups in order; built by `seq`, and a group when nested."""

    elements: tuple[tuple[Contiguity | None, Step | Sequence], ...]
    condition: Expr | None = None

    @property
    def label(self) -> str:
        names = [el.label for _, el in self.elements]
        return f"sequence of {', '.join(names)}"

    def next(self, step: Step | Sequence) -> Sequence:
        """Follow strictly: ``step`` takes the very next event, or the match dies."""
        return self._append("next", step)

    def then(self, step: Step | Sequence) -> Sequence:
        """Follow relaxed: events that do not fit ``step`` are passed over."""
        return self._append("then", step)

    def then_any(self, step: Step | Sequence) -> Sequence:
        """Follow freely: events that fit may be passed over too (more matches)."""
        return self._append("then_any", step)

    def not_next(self, step: Step) -> Sequence:
        """Require that the very next event does not fit ``step``.

        In last place it is confirmed by that next event, and by it only: a match
        is released once, whatever comes later.
        """
        return self._append("not_next", step)

    def not_then(self, step: Step) -> Sequence:
        """Require that no event fits ``step`` before the following step is taken.

        After a repetition it holds from the first event on, between the
        repetitions too: ``a.times(3)``, then not ``b``, then ``c`` has no ``b``
        among the three.

        In last place: none until ``.within`` has run out; the match is released
        by time, at the first event's time plus that length.
        """
        return self._append("not_then", step)

    def within(self, length: str | timedelta) -> Sequence:
        """Bound the time from first to last event: *less* than ``length``.

        On an element of a longer pattern it bounds the whole match as well; the
        shortest of all counts.
        """
        if self.within_ns is not None:
            raise RuleError(
                self.label,
                f"has a time bound already: {format_duration(self.within_ns)}",
                "keep one .within(...)",
            )
        return replace(self, within_ns=duration_ns(length, whole_ms=True))

    def within_previous(self, length: str | timedelta) -> Sequence:
        """Bound the time between an event and the one bound before: every step.

        Less than ``length`` may pass before each event of this sequence, groups
        and repetitions included; only a match's first event has none before it.
        With a `not_then` in last place it is also how long to wait after the
        last bound event. Where steps have limits of their own, the shorter
        counts.

        >>> print(seq(on("market.trade")).then(on("market.bar")).within_previous("3s"))
        ... # doctest: +NORMALIZE_WHITESPACE
        seq(on('market.trade', name=None)).then(on('market.bar',
        name=None)).within_previous('3s')
        """
        limited = self._limited(length)
        assert isinstance(limited, Sequence)
        return limited

    def where(self, condition: Expr) -> Sequence:
        """Keep only complete matches that satisfy ``condition``.

        It is looked at when the match completes; a match that fails it counts
        as if it had never completed. ``e`` is the completing event.
        """
        extra = as_expr(condition)
        joined = extra if self.condition is None else self.condition & extra
        return replace(self, condition=joined)

    def _append(self, contiguity: Contiguity, step: Step | Sequence) -> Sequence:
        if not isinstance(step, (Step, Sequence)):
            raise RuleError(
                f".{contiguity}({step!r})",
                f"takes a step or a group, got a {type(step).__name__}",
                'build a step with on("event.type") and a group with seq(...)',
            )
        if not self.quantifier.is_once:
            raise RuleError(
                self.label,
                f"is repeated as a whole ({self.quantifier}) and cannot go on",
                f"make it a group of its own: seq(seq(...){self.quantifier})"
                f".{contiguity}(...)",
            )
        step, previous = _element(step), self.elements[-1][1]
        if contiguity in NEGATIONS:
            if isinstance(step, Sequence):
                raise RuleError(
                    f".{contiguity}",
                    "a group cannot be negated",
                    "negate a single step",
                )
            if step.quantifier.repeats or step.quantifier.optional:
                raise RuleError(
                    step.label,
                    "what must not come cannot be repeated or optional",
                    f"remove {step.quantifier} from the step in .{contiguity}",
                )
            if previous.quantifier.optional:
                raise RuleError(
                    step.label,
                    f"a negation cannot follow the optional {previous.label}",
                    "put a step that must come between them",
                )
        bounded = step.quantifier.repeats and not step.quantifier.loops
        if previous.quantifier.greedy and step.quantifier.optional and not bounded:
            # Greed narrows the next step only: what follows an optional one
            # would take what the greedy step fits. `between(0, n)` is defined.
            raise RuleError(
                step.label,
                f"what is optional cannot follow the greedy {previous.label}",
                f"remove .greedy() from {previous.label}, put a step that must come "
                "between them, or write .between(0, 1)",
            )
        return replace(self, elements=(*self.elements, (contiguity, step)))

    @property
    def last_contiguity(self) -> Contiguity | None:
        """How the last element follows, looked up in a group that stands last."""
        contiguity, element = self.elements[-1]
        if isinstance(element, Sequence) and element.elements[1:]:
            return element.last_contiguity
        return contiguity

    @property
    def may_be_empty(self) -> bool:
        """Whether all elements may be skipped."""
        return all(
            element.quantifier.optional
            or (isinstance(element, Sequence) and element.may_be_empty)
            for _, element in self.elements
        )

    def steps(self) -> Iterator[tuple[Contiguity | None, Step]]:
        """Yield every step, groups flattened, with its own contiguity."""
        for contiguity, element in self.elements:
            if isinstance(element, Step):
                yield contiguity, element
            else:
                yield from element.steps()

    def walk(self) -> Iterator[Step | Sequence]:
        """Yield this sequence, then all its steps and groups, those inside too."""
        yield self
        for _, element in self.elements:
            if isinstance(element, Sequence):
                yield from element.walk()
            else:
                yield element

    @property
    def key(self) -> Key:
        """The structure as nested tuples."""
        condition = None if self.condition is None else self.condition.key
        parts = tuple((c, el.key) for c, el in self.elements)
        quantifier = self.quantifier.key
        return ("seq", parts, self.within_ns, condition, quantifier, *self._time_key)

    def __str__(self) -> str:
        text = f"seq({self.elements[0][1]})"
        for contiguity, element in self.elements[1:]:
            text += f".{contiguity}({element})"
        text += str(self.quantifier)
        text += self._time_text
        if self.condition is not None:
            text += f".where({self.condition})"
        return text


def on(*types: str, name: str | None = None) -> Step:
    """Begin a step that takes events of the given type (or any of several types).

    >>> print(on("market.trade", name="up"))
    on('market.trade', name='up')
    """
    if not types or not all(isinstance(t, str) for t in types):
        raise RuleError(
            f"on({', '.join(map(repr, types))})",
            "takes the names of event types",
            'write on("market.trade")',
        )
    if isinstance(name, str) and iskeyword(name):
        raise RuleError(
            f"on(..., name={name!r})",
            f"m.{name} cannot be written, as {name} is a word of Python",
            f'use another name, such as name="{name}_"',
        )
    if name is not None and not (isinstance(name, str) and name.isidentifier()):
        raise RuleError(
            f"on(..., name={name!r})",
            "a step's name must be a Python identifier",
            "use letters, digits and underscores, so that m.<name> works",
        )
    return Step(types=tuple(dict.fromkeys(types)), name=name)


def seq(first: Step | Sequence) -> Sequence:
    """Begin a sequence with its first step or group."""
    if not isinstance(first, (Step, Sequence)):
        raise RuleError(
            f"seq({first!r})",
            f"takes a step or a group, got a {type(first).__name__}",
            'build a step with on("event.type")',
        )
    return Sequence(elements=((None, _element(first)),))


def _element(given: Step | Sequence) -> Step | Sequence:
    """Return an element; ``step.within(...)`` stays a step with a time bound."""
    if not isinstance(given, Sequence) or given.within_ns is None:
        return given
    inner = given.elements[0][1]
    only = len(given.elements) == 1 and given.quantifier.is_once
    if not only or given.condition is not None or inner.within_ns is not None:
        return given
    if given.gap_ns is not None:
        inner = replace(inner, gap_ns=_shorter(given.gap_ns, inner.gap_ns))
    return replace(inner, within_ns=given.within_ns)


def _shorter(left: int | None, right: int | None) -> int | None:
    return min((x for x in (left, right) if x is not None), default=None)


def with_one_window(pattern: Sequence) -> Sequence:
    """Move the shortest time bound in a pattern to the whole of it."""
    shortest = pattern.within_ns

    def visit(group: Sequence) -> Sequence:
        nonlocal shortest
        elements: list[tuple[Contiguity | None, Step | Sequence]] = []
        for contiguity, element in group.elements:
            shortest = _shorter(shortest, element.within_ns)
            bare = replace(element, within_ns=None)
            elements.append(
                (contiguity, visit(bare) if isinstance(bare, Sequence) else bare)
            )
        return replace(group, elements=tuple(elements))

    moved = visit(pattern)
    return replace(moved, within_ns=shortest)
