"""Which columns the payloads of a stream become.

Worked out once from the registry and the fields asked for, never from what
pages happen to hold, so the same field has the same column in each page.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cep.errors import UsageError, near_miss

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from cep.events.registry import EventType, Registry

ENVELOPE_COLUMNS: Final = {
    "@version": "int",
    "@correlation_id": "str",
    "@user_id": "str",
    "@metadata": "json",
}
"""Envelope fields that may be asked for beside payload fields, and their kinds."""

_WIDTH: Final = {"bool": 0, "int": 1, "float": 2}


@dataclass(slots=True)
class ColumnPlan:
    """Where each field of each type goes.

    ``types`` are all types of the registry in all versions (a foreign type may
    turn up on any stream); their places are called slots. ``columns`` are pairs
    of name and kind. ``targets[slot]`` holds the column of each field of that
    type, -1 for one that nobody asked for. ``always`` are the columns that a
    page has even if no event in it has the field. ``envelope`` are the names of
    `ENVELOPE_COLUMNS` asked for.
    """

    types: list[EventType]
    columns: list[tuple[str, str]] = field(default_factory=list)
    targets: list[list[int]] = field(default_factory=list)
    always: list[int] = field(default_factory=list)
    envelope: list[str] = field(default_factory=list)


def plan_columns(
    stream: str,
    registry: Registry,
    fields: Mapping[str, Collection[str]] | None,
    envelope: Iterable[str] = (),
) -> ColumnPlan:
    """Return the columns of a stream.

    Types at home on the stream and types in ``fields`` come first, in registry
    order; only among them may a number's kind widen another's. Then all
    others, which get columns of their own where they do not fit.

    Raises
    ------
    UnknownEventTypeError, UsageError
        If ``fields`` or ``envelope`` name what there is not.
    """
    names = [*envelope]
    for event_type, wanted in (fields or {}).items():
        names += _checked(registry, event_type, wanted)
    unknown = [name for name in names if name not in ENVELOPE_COLUMNS]
    if unknown:
        raise UsageError(
            f"{unknown[0]!r} is not a field of the envelope.",
            f"There are {', '.join(ENVELOPE_COLUMNS)}.",
        )
    plan = ColumnPlan(registry.all())
    plan.envelope = [name for name in ENVELOPE_COLUMNS if name in names]

    def asked_for(known: EventType) -> list[bool]:
        wanted = None if fields is None else fields.get(known.name, ())
        return [wanted is None or spec.name in wanted for spec in known.fields]

    at_home = [
        known.stream == stream or known.name in (fields or {}) for known in plan.types
    ]
    plan.targets = [[] for _ in plan.types]
    place: dict[str, int] = {}
    for home in (True, False):
        settled = len(plan.columns)
        for slot, known in enumerate(plan.types):
            if at_home[slot] is home:
                asked = asked_for(known)
                plan.targets[slot] = _place(known, asked, plan, place, settled)
        if home and fields is not None:
            plan.always = list(range(len(plan.columns)))
    return plan


def _checked(registry: Registry, event_type: str, wanted: Collection[str]) -> list[str]:
    """Return the envelope fields among those wanted of a type; check the others."""
    registry.get(event_type)
    known = {
        spec.name
        for version in registry.versions(event_type).values()
        for spec in version.fields
    }
    for name in wanted:
        if name not in known and not name.startswith("@"):
            near = near_miss(name, known)
            meant = f"Did you mean {near[0]!r}? " if near else ""
            raise UsageError(
                f"{event_type} has no field {name!r}.",
                f"{meant}Its fields are: {', '.join(sorted(known))}.",
            )
    return [name for name in wanted if name.startswith("@")]


def _place(
    known: EventType,
    wanted: list[bool],
    plan: ColumnPlan,
    place: dict[str, int],
    settled: int,
) -> list[int]:
    targets = []
    for spec, asked in zip(known.fields, wanted, strict=True):
        column = -1
        if asked:
            column = _fit(spec.name, spec.kind, plan, place, settled)
            if column < 0:
                name = f"{known.name}:{spec.name}"
                column = _fit(name, spec.kind, plan, place, settled)
            if column < 0:
                # Two versions of one type that cannot share: tell them apart.
                name = f"{known.name}:{spec.name}@{known.version}"
                column = _fit(name, spec.kind, plan, place, settled)
        targets.append(column)
    return targets


def _fit(
    name: str, kind: str, plan: ColumnPlan, place: dict[str, int], settled: int
) -> int:
    """Return the column of this name if the kind fits it, a new one if none is."""
    column = place.get(name)
    if column is None:
        place[name] = len(plan.columns)
        plan.columns.append((name, kind))
        return place[name]
    has = plan.columns[column][1]
    if has == kind:
        return column
    if has in _WIDTH and kind in _WIDTH:
        if _WIDTH[kind] < _WIDTH[has]:
            return column
        if column >= settled:
            plan.columns[column] = (name, kind)
            return column
    return -1
