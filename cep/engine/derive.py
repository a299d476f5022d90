"""From matches to derived events: ids, lineage, payloads, cooldown.

A derived event's id is a ULID whose time is the completing event's time and
whose random bits are a hash of rule, version, key, the contributing events'
ids in binding order with the step that bound each, and the output's index. Same
cause, same id, whatever cut the input into batches or restarted the process.

A window that closed counts as its last event and its end: it may hold a million
events, and rule, key and times say which.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from cep.rules.emission import ALERT, DERIVED_FIELDS, OPEN_FIELD
from cep.rules.expressions import Expr

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cep.engine.plan import CompiledRule
    from cep.rules.emission import Emission
    from cep.rules.rule import Rule

DEFAULT_STREAM = "notification.events"
NS_PER_MS = 1_000_000
_HEADS_KEPT = 16_384


@dataclass(frozen=True, slots=True)
class DerivedEvent:
    """An output of a rule, ready to be published.

    ``time_ns`` is the completing event's time (for an absence, when it became
    certain; for a window, its end); ``lineage`` the contributing events' ids in
    binding order (of a window its last event's), and ``steps`` the step that bound
    each. ``timeout`` says that it tells of a partial
    match that ran out of time. ``key`` is written as `key_text` says.
    """

    id: str
    type: str
    stream: str
    time_ns: int
    rule: str
    rule_version: int
    severity: str
    key: str
    data: dict[str, Any]
    lineage: tuple[str, ...]
    steps: tuple[str, ...]
    correlation_id: str = ""
    timeout: bool = False

    def metadata(self) -> dict[str, Any]:
        """Return the envelope's metadata: where the event comes from."""
        return {
            "rule": self.rule,
            "rule_version": self.rule_version,
            "severity": self.severity,
            "key": self.key,
            "lineage": list(self.lineage),
        }


def key_text(parts: Sequence[str]) -> str:
    r"""Return a key as one text: as it is, or several parts joined by slashes.

    Among several parts, one's own slashes and backslashes have a backslash before
    them, so that no two keys read alike.

    >>> key_text(["BTC/USD"])
    'BTC/USD'
    >>> print(key_text(["BTC/USD", "kraken"]), key_text(["BTC", "USD/kraken"]))
    BTC\/USD/kraken BTC/USD\/kraken
    """
    if len(parts) == 1:
        return parts[0]
    return "/".join(part.replace("\\", "\\\\").replace("/", "\\/") for part in parts)


def cause_head(rule: Rule, key_canonical: str) -> bytes:
    """Return what a derived event's cause begins with: rule, key, version.

    Then come the output's index (4 bytes), of each bound event the id (16), and of
    each the number of the step that bound it (2), all big-endian. If steps take
    windows, the time of each follows (8): windows that overlap may end with the same
    event.
    """
    return _cause_head(rule.name, key_canonical, rule.version)


@lru_cache(_HEADS_KEPT)
def _cause_head(name: str, key_canonical: str, version: int) -> bytes:
    # Every part has its length before it, so that no two causes read alike.
    parts = name.encode(), key_canonical.encode()
    head = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return head + version.to_bytes(4, "big")


def derived_events(
    compiled: CompiledRule,
    *,
    time_ns: int,
    key_parts: Sequence[str],
    key_canonical: str,
    ids: Sequence[tuple[int, int]],
    steps: Sequence[str],
    times: Sequence[int],
    values: Sequence[Any],
    timeout: bool = False,
) -> Iterator[DerivedEvent]:
    """Yield the outputs of one match or time-out.

    ``values`` are the emitted leaves in order, those of time-outs last.

    ``key_parts`` are the key's values as text, ``key_canonical`` the key
    unmistakably.
    """
    from cep.events.ids import derived_ulid, words_to_ulid

    rule = compiled.rule
    mask = (1 << 64) - 1
    packed = b"".join(
        ((hi & mask) << 64 | (lo & mask)).to_bytes(16, "big") for hi, lo in ids
    )
    head = cause_head(rule, key_canonical)
    bound = [compiled.variables.index(step) for step in steps]
    packed += b"".join(number.to_bytes(2, "big") for number in bound)
    if compiled.takes_windows:
        packed += b"".join(time.to_bytes(8, "big", signed=True) for time in times)
    lineage = tuple(words_to_ulid(hi & mask, lo & mask) for hi, lo in ids)
    key = key_text(key_parts)
    at = 0
    for index, emission in enumerate((*rule.emissions, *rule.timeouts)):
        n = len(emission.leaves())
        if timeout != (index >= len(rule.emissions)):
            at += n
            continue
        leaves = iter(values[at : at + n])
        at += n
        event_id = derived_ulid(
            time_ns // NS_PER_MS, head + index.to_bytes(4, "big") + packed
        )
        data = _payload(compiled, emission, leaves, event_id, key_parts)
        yield DerivedEvent(
            id=event_id,
            type=emission.type,
            stream=emission.stream or DEFAULT_STREAM,
            time_ns=time_ns,
            rule=rule.name,
            rule_version=rule.version,
            severity=rule.severity,
            key=key,
            data=data,
            lineage=lineage,
            steps=tuple(steps),
            correlation_id=key if rule.key == ("correlation_id",) else "",
            timeout=timeout,
        )


def _payload(
    compiled: CompiledRule,
    emission: Emission,
    leaves: Iterator[Any],
    event_id: str,
    key_parts: Sequence[str],
) -> dict[str, Any]:
    rule, key = compiled.rule, key_text(key_parts)
    values = filled_fields(emission, leaves)
    title = emission.title
    if title is not None:
        title = filled_title(title, {**values, "key": key})
    if emission.type == ALERT:
        return {
            "rule": rule.name,
            "rule_version": rule.version,
            "key": key,
            "severity": rule.severity,
            "title": title if title is not None else rule.doc or rule.name,
            "values": values,
        }
    data: dict[str, Any] = {}
    sources = {
        "id": event_id,
        "key_list": list(key_parts),
        "empty_list": [],
    }
    for name, source in DERIVED_FIELDS.get(emission.type, {}).items():
        data[name] = sources[source]
    known = compiled.emitted_fields[emission.type]
    open_field = OPEN_FIELD.get(emission.type)
    rest: dict[str, Any] = {}
    for name, value in values.items():
        (data if name in known else rest)[name] = value
    if open_field is not None:
        data[open_field] = {**data.get(open_field, {}), **rest}
        if title is not None:
            data[open_field]["title"] = title
    return data


def filled_fields(emission: Emission, leaves: Iterator[Any]) -> dict[str, Any]:
    """Return the fields of an emission, the values of its leaves in their places."""
    return {name: _fill(value, leaves) for name, value in emission.fields.items()}


def filled_title(title: str, values: dict[str, Any]) -> str:
    """Return a title with its values; as it is if their formats do not fit them."""
    try:
        return title.format_map(_Titles(values))
    except (ValueError, TypeError, OverflowError):
        return title


class _Titles(dict[str, Any]):
    """Values for a title: an absent one reads as ``?`` whatever its format."""

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        return _Absent() if value is None else value


class _Absent:
    def __format__(self, spec: str) -> str:
        return "?"

    # For {name!s} and {name!r}: the default would show an address.
    def __repr__(self) -> str:
        return "?"


def _fill(value: Any, leaves: Iterator[Any]) -> Any:
    if isinstance(value, Expr):
        return next(leaves)
    if isinstance(value, dict):
        return {k: _fill(v, leaves) for k, v in value.items()}
    if isinstance(value, list):
        return [_fill(v, leaves) for v in value]
    return value


def leaf_value(number: float, kind: str, texts: Sequence[str]) -> Any:
    """Return a kernel's number as the value it stands for; None when absent."""
    if math.isnan(number):
        return None
    if kind == "str":
        return texts[int(number)]
    if kind == "json":
        return msgspec.json.decode(texts[int(number)])
    if kind == "bool":
        return bool(number)
    if kind == "int" or (kind == "any" and number.is_integer()):
        return int(number)
    return number
