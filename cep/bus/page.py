"""Stream entries to pages of typed columns.

A `PageDecoder` takes the entries of one stream as places in a block of bytes
and returns their good rows as `EventColumns` and the others as `BadRow`, one
reason each. The verdict on every entry is that of `cep.events.codec.decode`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from cep.bus.column_plan import ENVELOPE_COLUMNS, plan_columns
from cep.errors import WireError
from cep.events.codec import FUTURE_TOLERANCE_MS, decode_row
from cep.events.columns import DTYPES, BadRow, Column, EventColumns
from cep.events.ids import ulid_to_words
from cep.events.reasons import Reason
from cep.events.registry import Registry, registry
from cep.events.schema import finite_number, whole_number

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from cep.events.envelope import Event

_INT64_MAX: Final = 2**63 - 1
_raw_values: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])

GOOD, SLOW, BAD = 0, 1, 2


@dataclass(slots=True)
class StreamPage:
    """A run of entries of one stream, in the order they were asked for.

    ``columns`` holds the good rows, ``bad`` the others; ``rows`` and
    ``bad_rows`` say which places in the page they had. ``entries_read ==
    len(columns) + len(bad)`` always holds. ``first_id`` and ``last_id`` are
    entry ids, ``b""`` for an empty page.
    """

    stream: str
    columns: EventColumns
    bad: list[BadRow]
    first_id: bytes
    last_id: bytes
    entries_read: int
    rows: NDArray[np.int64]
    bad_rows: NDArray[np.int64]


@dataclass(slots=True)
class Entries:
    """Where entries lie in a block of bytes.

    ``entries`` has shape ``(n, 4)``: offset and length of the entry id, first
    field, number of fields. ``fields`` has shape ``(m, 4)``: offset and length
    of the name, offset and length of the value.
    """

    data: NDArray[np.uint8]
    entries: NDArray[np.int64]
    fields: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.entries)

    def entry_id(self, row: int) -> bytes:
        """Return the entry id of a row."""
        offset, length = self.entries[row, :2].tolist()
        return self.data[offset : offset + length].tobytes()

    def pairs(self, row: int) -> list[tuple[bytes, bytes]]:
        """Return the fields of a row, in their order, repeated names included."""
        first, count = self.entries[row, 2:].tolist()
        data = self.data
        return [
            (data[a : a + b].tobytes(), data[c : c + d].tobytes())
            for a, b, c, d in self.fields[first : first + count].tolist()
        ]

    @staticmethod
    def of(
        entries: Iterable[tuple[bytes | str, Iterable[tuple[bytes, bytes]]]],
    ) -> Entries:
        """Return entries given as Python objects."""
        block = bytearray()
        places: list[tuple[int, int, int, int]] = []
        spans: list[tuple[int, int, int, int]] = []
        for entry_id, pairs in entries:
            raw = entry_id.encode() if isinstance(entry_id, str) else entry_id
            start, first = len(block), len(spans)
            block += raw
            for name, value in pairs:
                at = len(block)
                spans.append((at, len(name), at + len(name), len(value)))
                block += name
                block += value
            places.append((start, len(raw), first, len(spans) - first))
        return Entries(
            np.frombuffer(bytes(block), np.uint8),
            np.array(places, np.int64).reshape(-1, 4),
            np.array(spans, np.int64).reshape(-1, 4),
        )


@dataclass(slots=True)
class _Rows:
    """What is known of each entry of a page, shape ``(n,)`` each."""

    status: NDArray[np.int8]
    entry_ms: NDArray[np.int64]
    entry_seq: NDArray[np.int64]
    time_ms: NDArray[np.int64]
    id_hi: NDArray[np.uint64]
    id_lo: NDArray[np.uint64]
    slot: NDArray[np.int32]
    slow: dict[int, Event] = field(default_factory=dict)
    bad: dict[int, BadRow] = field(default_factory=dict)

    @staticmethod
    def of(n: int) -> _Rows:
        return _Rows(
            np.full(n, SLOW, np.int8),
            np.zeros(n, np.int64),
            np.zeros(n, np.int64),
            np.zeros(n, np.int64),
            np.zeros(n, np.uint64),
            np.zeros(n, np.uint64),
            np.zeros(n, np.int32),
        )


class PageDecoder:
    """Decodes the entries of one stream.

    Parameters
    ----------
    stream
        The key; an event must name it.
    fields
        Event type to the payload fields wanted of it, `ENVELOPE_COLUMNS` among
        them where wanted; None for all payload fields of all types. With a
        mapping, the columns of these types are there in each page; without, a
        page has the columns of the types in it.
    envelope
        More of `ENVELOPE_COLUMNS`.
    registry
        Where types are looked up; types that are registered later count.
    future_tolerance_ms
        How far an event may lie after its arrival. None: any.
    """

    def __init__(
        self,
        stream: str,
        *,
        fields: Mapping[str, Collection[str]] | None = None,
        envelope: Collection[str] = (),
        registry: Registry = registry,
        future_tolerance_ms: int | None = FUTURE_TOLERANCE_MS,
    ) -> None:
        self.stream = stream
        self.registry = registry
        self.future_tolerance_ms = future_tolerance_ms
        self._wanted = (fields, tuple(envelope))
        self._plan = plan_columns(stream, registry, *self._wanted)
        self._slots: dict[tuple[str, int], int] = {}
        self._number_slots()

    def decode(self, entries: Entries) -> StreamPage:
        """Return the page of these entries."""
        if self._plan.types != self.registry.all():
            self._plan = plan_columns(self.stream, self.registry, *self._wanted)
            self._number_slots()
        rows = _Rows.of(len(entries))
        self._decode_slowly(entries, rows)
        return self._page(entries, rows)

    def _number_slots(self) -> None:
        self._slots = {
            (known.name, known.version): slot
            for slot, known in enumerate(self._plan.types)
        }

    def _decode_slowly(self, entries: Entries, rows: _Rows) -> None:
        """Settle each row that is not settled yet, one by one."""
        for row in np.flatnonzero(rows.status == SLOW).tolist():
            entry_id = entries.entry_id(row)
            pairs = entries.pairs(row)
            try:
                ms, seq = _entry_time(entry_id)
                event = decode_row(
                    pairs,
                    self.stream,
                    self.registry,
                    entry_id,
                    self.future_tolerance_ms,
                )
            except WireError as error:
                rows.status[row] = BAD
                rows.bad[row] = BadRow.of(
                    self.stream,
                    entry_id.decode("utf-8", "replace"),
                    error.reason,
                    error.detail,
                    pairs,
                )
                continue
            rows.status[row] = GOOD
            rows.entry_ms[row], rows.entry_seq[row] = ms, seq
            rows.time_ms[row] = event.time_ms
            rows.id_hi[row], rows.id_lo[row] = ulid_to_words(event.id)
            rows.slot[row] = self._slots[event.type, event.version]
            rows.slow[row] = event

    def _page(self, entries: Entries, rows: _Rows) -> StreamPage:
        n = len(entries)
        good = np.flatnonzero(rows.status == GOOD)
        slots = np.unique(rows.slot[good])
        builders = self._builders(n, slots.tolist())
        for row in rows.slow:
            self._fill_slowly(row, entries, rows, builders)
        types, type_code = self._types(rows.slot[good], slots)
        columns = EventColumns(
            self.stream,
            rows.entry_ms[good],
            rows.entry_seq[good],
            rows.time_ms[good],
            rows.id_hi[good],
            rows.id_lo[good],
            type_code,
            types,
            {one.name: one.column(good) for one in builders.values()},
        )
        return StreamPage(
            self.stream,
            columns,
            [rows.bad[row] for row in sorted(rows.bad)],
            entries.entry_id(0) if n else b"",
            entries.entry_id(n - 1) if n else b"",
            n,
            good.astype(np.int64),
            np.flatnonzero(rows.status == BAD).astype(np.int64),
        )

    def _types(
        self, slot: NDArray[np.int32], slots: NDArray[np.int32]
    ) -> tuple[list[str], NDArray[np.int32]]:
        """Return the types present, in registry order, and each row's place there."""
        names = [self._plan.types[one].name for one in slots.tolist()]
        types = list(dict.fromkeys(names))
        code_of = np.zeros(len(self._plan.types) + 1, np.int32)
        code_of[slots] = [types.index(name) for name in names]
        return types, code_of[slot]

    def _builders(self, n: int, slots: Sequence[int]) -> dict[int | str, _Builder]:
        plan = self._plan
        used = set(plan.always)
        for slot in slots:
            used.update(plan.targets[slot])
        builders: dict[int | str, _Builder] = {
            column: _Builder(*plan.columns[column], n) for column in sorted(used - {-1})
        }
        for name in plan.envelope:
            builders[name] = _Builder(name, ENVELOPE_COLUMNS[name], n)
        return builders

    def _fill_slowly(
        self,
        row: int,
        entries: Entries,
        rows: _Rows,
        builders: dict[int | str, _Builder],
    ) -> None:
        event, slot = rows.slow[row], int(rows.slot[row])
        raw = dict(entries.pairs(row))
        texts: dict[str, Any] | None = None
        known = self._plan.types[slot]
        for spec, target in zip(known.fields, self._plan.targets[slot], strict=True):
            value = event.data.get(spec.name)
            if target < 0 or value is None:
                continue
            if spec.kind == "json":
                if texts is None:
                    texts = _raw_values.decode(raw[b"data"])
                value = bytes(texts[spec.name]).decode()
            elif spec.kind == "int":
                value = whole_number(value)
            elif spec.kind == "float":
                value = finite_number(value)
            builders[target].put(row, value)
        for name in self._plan.envelope:
            if name == "@version":
                builders[name].put(row, event.version)
            elif text := raw[name[1:].encode()].decode():
                builders[name].put(row, text)


class _Builder:
    """A column in the making, one value for each entry of the page."""

    def __init__(self, name: str, kind: str, n: int) -> None:
        self.name, self.kind = name, kind
        self.values: NDArray[Any] = np.zeros(n, DTYPES[kind])
        self.valid = np.zeros(n, np.bool_)
        self.texts: dict[str, int] | None = {} if kind in ("str", "json") else None

    def put(self, row: int, value: Any) -> None:
        """Set the value of a row; texts in the order of rows."""
        if self.texts is not None:
            value = self.texts.setdefault(value, len(self.texts))
        self.values[row] = value
        self.valid[row] = True

    def column(self, good: NDArray[Any]) -> Column:
        """Return the column of the good rows."""
        valid = self.valid[good]
        texts = None if self.texts is None else list(self.texts)
        return Column(
            self.kind, self.values[good], None if valid.all() else valid, texts
        )


def _entry_time(entry_id: bytes) -> tuple[int, int]:
    ms, _, seq = entry_id.partition(b"-")
    try:
        pair = int(ms), int(seq)
    except ValueError:
        pair = -1, -1
    if not 0 <= min(pair) <= max(pair) <= _INT64_MAX:
        detail = "its entry id is not two numbers of at most 63 bits"
        raise WireError(Reason.BAD_ID, detail)
    return pair
