"""Rows spelled out, turned into batches and run: what engine tests share.

A row is a dict: ``t`` (event time, ms), any payload fields, and optionally
``type`` (default ``test.tick``), ``stream`` (default: the type's), ``entry`` (entry
id as ms or (ms, seq), default: the row's place) and ``id`` (event id as a number,
default: derived from type, entry and time).
"""

import hashlib
import itertools

import numpy as np
from pydantic import BaseModel

from cep.engine.operator import Operator
from cep.engine.ordering import InputStream, Ordering
from cep.events.columns import Column, EventColumns
from cep.events.registry import registry

T0 = 1_700_000_000_000
TICKS, TOCKS = "tick.events", "tock.events"


class Tick(BaseModel):
    key: str | None = None
    x: float | None = None
    y: float | None = None
    n: int | None = None
    flag: bool | None = None
    text: str | None = None
    number_key: float | None = None
    user_id: str | None = None
    tags: list[str] | None = None


class Tock(BaseModel):
    key: str | None = None
    x: float | None = None
    text: int | None = None
    only_tock: float | None = None


if "test.tick" not in registry:
    registry.register("test.tick", stream=TICKS)(Tick)
    registry.register("test.tock", stream=TOCKS)(Tock)
    registry.register("test.tack", stream=TICKS)(Tick)

KINDS = {
    "key": "str",
    "x": "float",
    "y": "float",
    "n": "int",
    "flag": "bool",
    "text": "str",
    "number_key": "float",
    "user_id": "str",
    "tags": "json",
    "only_tock": "float",
    "@correlation_id": "str",
    "@user_id": "str",
}
EMPTY = {"float": 0.0, "int": 0, "bool": False}
DTYPES = {"float": np.float64, "int": np.int64, "bool": np.bool_}
NOT_FIELDS = {"t", "type", "stream", "entry", "id"}


def stream_of(row):
    default = TOCKS if row.get("type") == "test.tock" else TICKS
    return row.get("stream", default)


def _entry(row, place):
    entry = row.get("entry", T0 + place)
    return entry if isinstance(entry, tuple) else (entry, 0)


def columns(rows, stream=None):
    """Return rows of one stream, in order of arrival, as columns."""
    stream = stream or (stream_of(rows[0]) if rows else TICKS)
    entries = [_entry(row, place) for place, row in enumerate(rows)]
    types = sorted({row.get("type", "test.tick") for row in rows})
    ids = []
    for row, (ms, seq) in zip(rows, entries, strict=True):
        cause = f"{stream}|{ms}|{seq}|{row['t']}".encode()
        made = int.from_bytes(hashlib.sha256(cause).digest()[:10], "big")
        ids.append(row.get("id", (T0 + row["t"]) << 80 | made))
    # A name that two types give different kinds has a column for each.
    names = {}
    for row in rows:
        for name in row.keys() - NOT_FIELDS:
            tock_text = name == "text" and row.get("type") == "test.tock"
            names["test.tock:text" if tock_text else name] = (
                "int" if tock_text else KINDS[name]
            )
    fields = {}
    for name, kind in names.items():
        values = [_value(row, name, kind) for row in rows]
        valid = np.array([v is not None for v in values], np.bool_)
        if kind in ("str", "json"):
            texts = list(dict.fromkeys(v for v in values if v is not None))
            codes = [0 if v is None else texts.index(v) for v in values]
            fields[name] = Column(kind, np.array(codes, np.int32), valid, texts)
        else:
            filled = [EMPTY[kind] if v is None else v for v in values]
            fields[name] = Column(kind, np.array(filled, DTYPES[kind]), valid)
    mask = (1 << 64) - 1
    return EventColumns(
        stream,
        np.array([ms for ms, _ in entries], np.int64),
        np.array([seq for _, seq in entries], np.int64),
        np.array([T0 + row["t"] for row in rows], np.int64),
        np.array([made >> 64 for made in ids], np.uint64),
        np.array([made & mask for made in ids], np.uint64),
        np.array([types.index(r.get("type", "test.tick")) for r in rows], np.int32),
        types,
        fields,
    )


def _value(row, name, kind):
    is_tock = row.get("type") == "test.tock"
    if name == "test.tock:text":
        return row.get("text") if is_tock else None
    if name == "text" and is_tock:
        return None
    value = row.get(name)
    if kind == "json" and value is not None:
        import json

        return json.dumps(value)
    return value


def ns(t):
    """Return the event time of ``t`` ms as the engine counts."""
    return (T0 + t) * 1_000_000


def ordered(operator, rows):
    """Return rows of all streams as one batch in release order, none late."""
    ordering = Ordering(
        [InputStream(name, 2**60) for name in sorted({*map(stream_of, rows), TICKS})],
        operator.plan.column_count,
    )
    for name, number in ordering.number.items():
        mine = [row for row in rows if stream_of(row) == name]
        ordering.add(operator.ingest(columns(mine, name), number))
    ordering.end()
    return ordering.release()[0]


def cut_batches(batch, cuts):
    """Return the parts of a batch between the positions ``cuts``."""
    bounds = sorted({0, len(batch), *(c for c in cuts if 0 < c < len(batch))})
    return [batch.take(slice(a, b)) for a, b in itertools.pairwise(bounds)]


def every(n, size):
    """Return the cuts that make batches of ``size`` out of ``n`` rows."""
    return list(range(size, n, size))


def step_all(operator, parts, *, end=None):
    """Run parts of one batch, each up to the next one's first time; then the end.

    ``end`` is the time (ms) that passes at last, None for the last row's.
    """
    events = []
    for i, part in enumerate(parts):
        follows = parts[i + 1 :]
        mark = follows[0].time[0] if follows else part.time[-1]
        events += operator.step(part, int(mark)).events
    if end is not None:
        nothing = operator.ingest(columns([]), 0)
        mark = np.iinfo(np.int64).max if end == "inf" else ns(end)
        events += operator.step(nothing, int(mark)).events
    return events


def run(rules, rows, *, cuts=(), end="inf"):
    """Run rules over rows (in order of arrival per stream); return derived events."""
    operator = Operator(rules if isinstance(rules, list) else [rules])
    return step_all(operator, cut_batches(ordered(operator, rows), cuts), end=end)


def told(events):
    """Return everything that a derived event says, for comparing."""
    return [
        (e.id, e.time_ns, e.type, e.stream, e.key, repr(e.data), e.lineage, e.steps)
        for e in events
    ]
