"""Streams of events for hypothesis, which must be installed for this.

>>> from hypothesis import given as for_all, settings
>>> from hypothesis import strategies as st
>>> from cep import e, emit, on, rule
>>> from cep.testing import given
>>> from cep.testing.strategies import event_streams
>>> @rule("dear", key="symbol")
... def dear():
...     return on("market.trade").where(e.price > 100), emit(price=e.price)
>>> cheap = event_streams("market.trade", price=st.floats(1, 99))
>>> @settings(max_examples=5, deadline=None)
... @for_all(cheap)
... def never_fires(stream):
...     given(stream).when(dear).expect_none()
>>> never_fires()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cep.clock import duration_ns
from cep.errors import UsageError
from cep.events.registry import registry
from cep.testing.streams import NS_PER_MS, Events, events

if TYPE_CHECKING:
    from datetime import timedelta

    from hypothesis.strategies import SearchStrategy

    from cep.events.schema import FieldSpec


def event_streams(
    event_type: str,
    /,
    *more: str,
    most: int = 20,
    longest_pause: str | timedelta = "10s",
    **fields: SearchStrategy[Any],
) -> SearchStrategy[list[Events]]:
    """Return a strategy for lists of events that `cep.testing.given` takes.

    Parameters
    ----------
    event_type, more
        The types that the events are of.
    most
        How many there are at most.
    longest_pause
        Between two events; some come at the same time.
    fields
        Strategies for payload fields. The other fields that a type requires have any
        value that may be published.

    Raises
    ------
    UsageError
        If hypothesis is not installed, or no type has such a field.
    """
    try:
        from hypothesis import strategies as st
    except ImportError:
        raise UsageError(
            "Event streams need hypothesis, which is not installed.",
            "Install it: pip install hypothesis",
        ) from None
    types = (event_type, *more)
    for name in fields:
        if not any(registry.get(one).field(name) for one in types):
            known = [field.name for one in types for field in registry.get(one).fields]
            raise UsageError(
                f"None of the types has a field {name!r}.",
                f"Their fields are {', '.join(dict.fromkeys(known))}.",
            )
    longest_ms = duration_ns(longest_pause, allow_zero=True) // NS_PER_MS

    def of_type(name: str) -> SearchStrategy[Events]:
        known = registry.get(name)
        payload = st.fixed_dictionaries(
            {
                field.name: fields[field.name]
                if field.name in fields
                else published(field)
                for field in known.fields
                if field.required or field.name in fields
            }
        )
        pause = st.just(0) | st.integers(0, longest_ms)
        return st.builds(
            lambda row, ms: events(name, every=f"{ms}ms", **_single(row, name)),
            payload,
            pause,
        )

    return st.lists(st.one_of([of_type(name) for name in types]), max_size=most)


def published(field: FieldSpec) -> SearchStrategy[Any]:
    """Return a strategy for values that may be published in a field."""
    from hypothesis import strategies as st

    values: SearchStrategy[Any]
    if field.choices is not None:
        values = st.sampled_from(field.choices)
    elif field.shape == "array":
        items = field.items
        values = st.lists(published(items), max_size=3) if items else st.just([])
    elif field.shape == "object":
        values = st.fixed_dictionaries(
            {one.name: published(one) for one in field.fields if one.required}
        )
    elif field.kind == "float":
        values = st.floats(-1e9, 1e9) | st.integers(-1000, 1000).map(float)
    elif field.kind == "int":
        values = st.integers(-(10**9), 10**9)
    elif field.kind == "bool":
        values = st.booleans()
    else:
        values = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
    return st.none() | values if field.nullable else values


def _single(row: dict[str, Any], event_type: str) -> dict[str, Any]:
    """Return a payload as one event's: a list is one value only where it may be."""
    known = registry.get(event_type)
    return {
        name: [value]
        if isinstance(value, list)
        and (field := known.field(name)) is not None
        and field.kind != "json"
        else value
        for name, value in row.items()
    }
