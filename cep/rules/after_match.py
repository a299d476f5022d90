"""Where matching goes on after a match.

``no_skip`` (the default) releases a match the moment it is complete, and
matches may overlap. Every other strategy drops the partial and completed
matches that a released match overlaps, and for that it holds a complete match
back while a partial match that began earlier still lives: it costs latency,
and without a ``within`` it can wait for ever. Complete matches are released
earliest start first; of equal starts the longest, then the one with the lowest
event order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cep.errors import RuleError, near_miss

Kind = Literal["no_skip", "to_next", "past_last_event", "to_first", "to_last"]
KINDS: tuple[Kind, ...] = (
    "no_skip",
    "to_next",
    "past_last_event",
    "to_first",
    "to_last",
)


@dataclass(frozen=True, slots=True)
class AfterMatch:
    """A skip strategy; ``target`` is the step of ``to_first`` and ``to_last``."""

    kind: Kind = "no_skip"
    target: str | None = None

    def __str__(self) -> str:
        return self.kind if self.target is None else f"{self.kind}({self.target})"


def after_match(value: str | tuple[str, str] | AfterMatch) -> AfterMatch:
    """Read the ``after_match=`` of a rule.

    >>> after_match("past_last_event")
    AfterMatch(kind='past_last_event', target=None)
    >>> after_match(("to_first", "up"))
    AfterMatch(kind='to_first', target='up')
    """
    if isinstance(value, AfterMatch):
        return value
    kind, target = (value, None) if isinstance(value, str) else value
    if kind not in KINDS:
        near = near_miss(kind, KINDS)
        raise RuleError(
            f"after_match={value!r}",
            f"unknown strategy {kind!r}",
            f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(KINDS)}",
        )
    if (target is not None) != kind.startswith(("to_first", "to_last")):
        raise RuleError(
            f"after_match={value!r}",
            "to_first and to_last name a step, the others do not",
            'write after_match=("to_last", "up") or after_match="past_last_event"',
        )
    return AfterMatch(kind, target)
