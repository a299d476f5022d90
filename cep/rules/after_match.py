"""Where matching goes on after a match.

``no_skip`` (the default) releases a match the moment it is complete, and
matches may overlap. Every other strategy drops the partial and completed
matches that a released match overlaps, and for that it holds a complete match
back while a partial match that began earlier still lives: it costs latency,
and without a ``within`` it can wait for ever. Complete matches are released
earliest start first; of equal starts the longest, then the one with the lowest
event order, then the one whose steps come first in the pattern.

``to_first`` and ``to_last`` go on at an event of their target step. A match in
which that step bound nothing, or whose first event is the target event, leaves
nothing to skip to: it is released and drops nothing (``on_missing="ignore"``, the
default), or the rule stops before it, counted and said (``on_missing="trip"``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from cep.errors import RuleError, near_miss

Kind = Literal["no_skip", "to_next", "past_last_event", "to_first", "to_last"]
KINDS: tuple[Kind, ...] = (
    "no_skip",
    "to_next",
    "past_last_event",
    "to_first",
    "to_last",
)


OnMissing = Literal["ignore", "trip"]
_TARGETED = ("to_first", "to_last")


@dataclass(frozen=True, slots=True)
class AfterMatch:
    """A skip strategy; ``target`` is the step of ``to_first`` and ``to_last``.

    Raises
    ------
    RuleError
        For an unknown strategy, and a target where none is meant.
    """

    kind: Kind = "no_skip"
    target: str | None = None
    on_missing: OnMissing = "ignore"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            begun = [kind for kind in KINDS if kind.startswith(str(self.kind))]
            near = begun or near_miss(str(self.kind), KINDS)
            meant = f"did you mean {near[0]!r}?" if near else ""
            raise RuleError(
                f"after_match={self.kind!r}",
                f"unknown strategy {self.kind!r}",
                meant or f"use one of {', '.join(KINDS)}",
            )
        if (self.target is not None) != (self.kind in _TARGETED):
            raise RuleError(
                f"after_match={self}",
                "to_first and to_last name a step, the others do not",
                'write after_match=("to_last", "up") or after_match="past_last_event"',
            )
        if self.on_missing not in get_args(OnMissing):
            raise RuleError(
                f"after_match={self.kind!r}, on_missing={self.on_missing!r}",
                "there is no such policy",
                "use one of ignore, trip",
            )
        if self.on_missing == "trip" and self.target is None:
            raise RuleError(
                f"after_match={self.kind!r}, on_missing='trip'",
                "only to_first and to_last have a target that may be missing",
                "leave on_missing out",
            )

    def __str__(self) -> str:
        text = self.kind if self.target is None else f"{self.kind}({self.target})"
        return text if self.on_missing == "ignore" else f"{text} or {self.on_missing}"


def after_match(value: str | tuple[str, str] | AfterMatch) -> AfterMatch:
    """Read the ``after_match=`` of a rule.

    >>> after_match("past_last_event")
    AfterMatch(kind='past_last_event', target=None, on_missing='ignore')
    >>> after_match(("to_first", "up"))
    AfterMatch(kind='to_first', target='up', on_missing='ignore')
    """
    if isinstance(value, AfterMatch):
        return value
    if isinstance(value, str):
        return AfterMatch(value)  # type: ignore[arg-type]
    if (
        not isinstance(value, tuple)
        or len(value) != 2
        or not all(isinstance(x, str) for x in value)
    ):
        raise RuleError(
            f"after_match={value!r:.60}",
            "takes a strategy's name, or a pair of it and a step's name",
            'write after_match=("to_last", "up") or after_match="past_last_event"',
        )
    return AfterMatch(*value)  # type: ignore[arg-type]
