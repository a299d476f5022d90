"""Whether two runs of the same rules derived the same events."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cep.errors import UsageError, shown
from cep.events.ids import ulid_problem, ulid_time_ms
from cep.events.timestamps import format_timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cep.engine.derive import DerivedEvent


@dataclass(frozen=True, slots=True)
class Comparison:
    """How the derived ids of a backtest differ from others.

    Attributes
    ----------
    only_here, only_there
        Ids that only the backtest has, and only the others, in order of time.
    common
        How many both have.
    twice
        Ids that the others name more than once.
    text
        The same in words, with the first difference.
    """

    only_here: list[str]
    only_there: list[str]
    common: int
    twice: list[str]
    text: str

    @property
    def equal(self) -> bool:
        """Whether both have the same ids, each once."""
        return not (self.only_here or self.only_there or self.twice)

    def __bool__(self) -> bool:
        return self.equal

    def __str__(self) -> str:
        return self.text


def compared(here: Mapping[str, DerivedEvent], given: Any) -> Comparison:
    """Compare events by id with ids, a frame with ``event_id``, or another result."""
    there = _ids(given)
    for event_id in there:
        problem = ulid_problem(event_id)
        if problem:
            raise UsageError(
                f"{shown(event_id)} is no event id: {problem}.",
                "Pass the ids of derived events, as in a frame's column event_id.",
            )
    known = set(there)
    only_here = sorted(here.keys() - known)
    only_there = sorted(known - here.keys())
    seen: set[str] = set()
    twice = sorted({x for x in there if x in seen or seen.add(x)})  # type: ignore[func-returns-value]
    common = len(known & here.keys())
    text = f"equal: both derived the same {common:,} events"
    if only_here or only_there:
        first = _first(here, only_here, only_there)
        text = (
            f"different: {len(only_here):,} only in the backtest, {len(only_there):,} "
            f"only in the other, {common:,} in both\n{first}"
        )
    elif twice:
        text = (
            f"different: the other has {len(twice):,} events more than once, the first "
            f"{twice[0]}"
        )
    return Comparison(only_here, only_there, common, twice, text)


def _first(
    here: Mapping[str, DerivedEvent], only_here: list[str], only_there: list[str]
) -> str:
    """Say which the first event is that only one side has; ids begin with a time."""
    first = min([*only_here[:1], *only_there[:1]])
    at = format_timestamp(ulid_time_ms(first))
    if first in only_there:
        return f"the first is only in the other: {first} at {at}"
    event = here[first]
    key = f", key {event.key!r}" if event.key else ""
    return (
        f"the first is only in the backtest: {first} at {at}, of rule {event.rule!r}"
        f"{key}, from {', '.join(event.lineage[:5])}"
        f"{' and more' if len(event.lineage) > 5 else ''}"
    )


def _ids(given: Any) -> list[str]:
    ids = getattr(given, "ids", given)
    if hasattr(ids, "columns"):
        if "event_id" not in list(ids.columns):
            raise UsageError(
                f"The frame has no column 'event_id', but {', '.join(ids.columns)}.",
                "Pass the frame of derived events, or their ids.",
            )
        ids = list(ids["event_id"])
    if isinstance(ids, str) or not isinstance(ids, Iterable):
        raise UsageError(f"{shown(given)} are no ids.", "Pass a list of event ids.")
    return [x.decode() if isinstance(x, bytes) else x for x in ids]
