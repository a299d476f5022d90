"""Stream entries to pages of typed columns.

A `PageDecoder` takes the entries of one stream as places in a block of bytes
and returns their good rows as `EventColumns` and the others as `BadRow`, one
reason each. The verdict on every entry is that of `cep.events.codec.decode`:
compiled kernels settle the rows that are plainly good, every other row goes
through `decode_row`, one by one, with the same result.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from cep.bus.column_plan import ENVELOPE_COLUMNS, plan_columns
from cep.bus.kernels import payload as rule
from cep.bus.kernels.envelope import (
    CORRELATION_ID,
    GOOD,
    METADATA,
    SLOW,
    SPANS,
    USER_ID,
    decode_envelopes,
)
from cep.bus.kernels.payload import decode_payloads
from cep.bus.kernels.text import intern_column
from cep.errors import WireError
from cep.events.codec import FIELDS, FUTURE_TOLERANCE_MS, decode_row
from cep.events.columns import DTYPES, BadRow, Column, EventColumns
from cep.events.ids import ulid_to_words
from cep.events.reasons import Reason
from cep.events.registry import Registry, registry
from cep.events.schema import finite_number, whole_number

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from cep.bus.column_plan import ColumnPlan
    from cep.events.envelope import Event
    from cep.events.schema import FieldSpec

# Beside GOOD and SLOW, what a row's status may be.
BAD: Final = 2
SETTLED: Final = 3  # good, by the slow path

_INT64_MAX: Final = 2**63 - 1
_LAYOUTS_KEPT: Final = 64
_ENVELOPE_SPANS: Final = {
    "@correlation_id": CORRELATION_ID,
    "@user_id": USER_ID,
    "@metadata": METADATA,
}
_GROUPS: Final = {
    "float": rule.FLOATS,
    "int": rule.INTS,
    "bool": rule.BOOLS,
    "str": rule.TEXTS,
    "json": rule.TEXTS,
}
_PLAIN_KINDS: Final = {"float": rule.FLOAT, "int": rule.INT, "bool": rule.BOOL}
_raw_values: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


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

    ``entries`` has shape ``(n, 5)``: offset and length of the entry id, first
    field, number of fields, shape. Entries of one shape, unless that is -1, differ
    in nothing but values, and not in those of stream, type and version. ``fields``
    has shape ``(m, 4)``: offset and length
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
        first, count = self.entries[row, 2:4].tolist()
        data = self.data
        return [
            (data[a : a + b].tobytes(), data[c : c + d].tobytes())
            for a, b, c, d in self.fields[first : first + count].tolist()
        ]

    def texts(self, spans: NDArray[np.int64]) -> list[str]:
        """Return the UTF-8 texts at these offsets and lengths."""
        if not len(spans):
            return []
        start = int(spans[:, 0].min())
        ends = spans[:, 0] + spans[:, 1]
        block = self.data[start : int(ends.max())].tobytes()
        places = zip(
            (spans[:, 0] - start).tolist(), (ends - start).tolist(), strict=True
        )
        if block.isascii():
            # Slices of one text cost a fifth of decoding each.
            whole = block.decode("ascii")
            return [whole[a:b] for a, b in places]
        return [block[a:b].decode() for a, b in places]

    @staticmethod
    def of(
        entries: Iterable[tuple[bytes | str, Iterable[tuple[bytes, bytes]]]],
    ) -> Entries:
        """Return entries given as Python objects."""
        block = bytearray()
        places: list[tuple[int, int, int, int, int]] = []
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
            places.append((start, len(raw), first, len(spans) - first, -1))
        return Entries(
            np.frombuffer(block, np.uint8),
            np.array(places, np.int64).reshape(-1, 5),
            np.array(spans, np.int64).reshape(-1, 4),
        )


@dataclass(slots=True)
class _Rows:
    """What is known of each entry of a page; see `decode_envelopes`."""

    status: NDArray[np.int8]
    times: NDArray[np.int64]
    ids: NDArray[np.uint64]
    slots: NDArray[np.int32]
    spans: NDArray[np.int64]
    slow: dict[int, Event] = field(default_factory=dict)
    bad: dict[int, BadRow] = field(default_factory=dict)

    @staticmethod
    def of(n: int) -> _Rows:
        return _Rows(
            np.full(n, SLOW, np.int8),
            np.zeros((3, n), np.int64),
            np.zeros((2, n), np.uint64),
            np.zeros(n, np.int32),
            np.zeros((n, SPANS), np.int64),
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
        page has the columns of the types in it. Every field is checked in any
        case.
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
        self._key = _bytes_array(stream.encode())
        self._wanted = (fields, tuple(envelope))
        self._known = _KnownTypes(plan_columns(stream, registry, *self._wanted))

    def decode(self, entries: Entries) -> StreamPage:
        """Return the page of these entries."""
        if self._known.plan.types != self.registry.all():
            plan = plan_columns(self.stream, self.registry, *self._wanted)
            self._known = _KnownTypes(plan)
        rows = _Rows.of(len(entries))
        self._decode_envelopes(entries, rows)
        self._decode_slowly(entries, rows)
        slots = _present(rows.slots[rows.status != BAD])
        columns = self._decode_payloads(entries, rows, slots)
        self._decode_slowly(entries, rows)
        for row in rows.slow:
            self._fill_slowly(row, entries, rows, columns)
        return self._page(entries, rows, columns)

    def _decode_envelopes(self, entries: Entries, rows: _Rows) -> None:
        tolerance_ms = self.future_tolerance_ms
        decode_envelopes(
            entries.data,
            entries.entries,
            entries.fields,
            self._key,
            self._known.type_names,
            self._known.type_table,
            -1 if tolerance_ms is None else tolerance_ms,
            rows.status,
            rows.times,
            rows.ids,
            rows.slots,
            rows.spans,
            *self._known.work[:2],
        )

    def _decode_slowly(self, entries: Entries, rows: _Rows) -> None:
        """Settle each SLOW row, one by one."""
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
            rows.status[row] = SETTLED
            rows.times[:, row] = ms, seq, event.time_ms
            rows.ids[:, row] = ulid_to_words(event.id)
            rows.slots[row] = self._known.slots[event.type, event.version]
            rows.slow[row] = event

    def _decode_payloads(
        self, entries: Entries, rows: _Rows, slots: Sequence[int]
    ) -> dict[int | str, _ColumnInMaking]:
        n = len(entries)
        layout = self._known.layout(slots)
        valid = np.zeros((len(layout.columns), n), np.bool_)
        values: list[NDArray[Any]] = [
            np.zeros((count, n), dtype)
            for count, dtype in zip(
                layout.sizes, (np.float64, np.int64, np.bool_, np.int32), strict=True
            )
        ]
        tables, texts = _dictionaries(layout.sizes[rule.TEXTS], n)
        counts = np.zeros(layout.sizes[rule.TEXTS], np.int64)
        decode_payloads(
            entries.data,
            rows.spans,
            rows.slots,
            self._known.field_names,
            layout.rules,
            self._known.slot_fields,
            rows.status,
            values[rule.FLOATS],
            values[rule.INTS],
            values[rule.BOOLS],
            values[rule.TEXTS],
            valid,
            tables,
            texts,
            counts,
            *self._known.work[2:],
        )
        making: dict[int | str, _ColumnInMaking] = {}
        for at, (column, group, place) in enumerate(layout.columns):
            name, kind = self._known.plan.columns[column]
            found = _ColumnInMaking(name, kind, values[group][place], valid[at])
            if group == rule.TEXTS:
                found.take_texts(entries, texts[place, : counts[place]])
            making[column] = found
        for name in self._known.plan.envelope:
            making[name] = self._envelope_column(name, entries, rows)
        return making

    def _envelope_column(
        self, name: str, entries: Entries, rows: _Rows
    ) -> _ColumnInMaking:
        n = len(entries)
        kind = ENVELOPE_COLUMNS[name]
        values: NDArray[Any] = np.zeros(n, DTYPES[kind])
        made = _ColumnInMaking(name, kind, values, np.zeros(n, np.bool_))
        if name == "@version":
            known = rows.status == GOOD
            made.valid[:] = known
            versions = np.array([one.version for one in self._known.plan.types] or [0])
            values[known] = versions[rows.slots[known]]
            return made
        start = _ENVELOPE_SPANS[name]
        places = np.ascontiguousarray(rows.spans[:, start : start + 2])
        tables, texts = _dictionaries(1, n)
        count = intern_column(
            entries.data, places, rows.status, values, made.valid, tables[0], texts[0]
        )
        made.take_texts(entries, texts[0, :count])
        return made

    def _fill_slowly(
        self,
        row: int,
        entries: Entries,
        rows: _Rows,
        columns: dict[int | str, _ColumnInMaking],
    ) -> None:
        """Put the values of a row that `decode_row` settled into the columns."""
        event, slot = rows.slow[row], int(rows.slots[row])
        raw = dict(entries.pairs(row))
        texts: dict[str, msgspec.Raw] | None = None
        plan = self._known.plan
        for spec, target in zip(
            plan.types[slot].fields, plan.targets[slot], strict=True
        ):
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
            columns[target].put(row, value)
        for name in plan.envelope:
            if name == "@version":
                columns[name].put(row, event.version)
            elif text := raw[name[1:].encode()].decode():
                columns[name].put(row, text)

    def _page(
        self,
        entries: Entries,
        rows: _Rows,
        columns: dict[int | str, _ColumnInMaking],
    ) -> StreamPage:
        n = len(entries)
        good = np.flatnonzero(rows.status != BAD)
        which: NDArray[Any] | slice = slice(None) if len(good) == n else good
        slots = rows.slots[which]
        present = _present(slots)
        types, type_code = self._known.types_of(slots, present)
        # Types of which no row turned out good have no columns.
        used: set[int | str] = {at for at, _, _ in self._known.layout(present).columns}
        used.update(self._known.plan.envelope)
        found = EventColumns(
            self.stream,
            rows.times[0, which],
            rows.times[1, which],
            rows.times[2, which],
            rows.ids[0, which],
            rows.ids[1, which],
            type_code,
            types,
            {
                made.name: made.column(which)
                for at, made in columns.items()
                if at in used
            },
        )
        return StreamPage(
            self.stream,
            found,
            [rows.bad[row] for row in sorted(rows.bad)],
            entries.entry_id(0) if n else b"",
            entries.entry_id(n - 1) if n else b"",
            n,
            good.astype(np.int64),
            np.flatnonzero(rows.status == BAD).astype(np.int64),
        )


@dataclass(slots=True)
class _Layout:
    """Where the columns in use are: their (column, group, place), group sizes."""

    columns: list[tuple[int, int, int]]
    sizes: list[int]
    rules: NDArray[np.int64]


class _KnownTypes:
    """A column plan as the tables that the kernels read."""

    def __init__(self, plan: ColumnPlan) -> None:
        self.plan = plan
        self.slots = {
            (known.name, known.version): slot for slot, known in enumerate(plan.types)
        }
        names = bytearray()
        table = []
        for known in plan.types:
            raw = known.name.encode()
            table.append((len(names), len(raw), known.version))
            names += raw
        self.type_names = _bytes_array(names)
        self.type_table = np.array(table, np.int64).reshape(-1, 3)
        rules: list[list[int]] = []
        slot_fields: list[tuple[int, int]] = []
        names = bytearray()
        for known in plan.types:
            slot_fields.append((len(rules), len(known.fields)))
            for spec in known.fields:
                raw = spec.name.encode()
                row = [0] * rule.RULE_SIZE
                row[rule.NAME], row[rule.NAME_LENGTH] = len(names), len(raw)
                row[rule.WHAT] = _what(spec)
                row[rule.REQUIRED] = int(spec.required)
                row[rule.NULLABLE] = int(spec.nullable)
                row[rule.IS_PLAIN] = int(msgspec.json.encode(spec.name)[1:-1] == raw)
                rules.append(row)
                names += raw
        self.field_names = _bytes_array(names)
        self._rules = np.array(rules, np.int64).reshape(-1, rule.RULE_SIZE)
        self._targets = np.array(
            [target for targets in plan.targets for target in targets], np.int64
        )
        self.slot_fields = np.array(slot_fields, np.int64).reshape(-1, 2)
        most = max((len(known.fields) for known in plan.types), default=0)
        # Memory that the kernels work in; see their last parameters.
        self.work = (
            np.zeros((len(FIELDS), 2), np.int64),
            np.zeros(len(FIELDS), np.int64),
            np.zeros(most, np.int8),
            np.zeros(most, np.float64),
            np.zeros(most, np.int64),
            np.zeros((most, 3), np.int64),
        )
        self._layouts: dict[tuple[int, ...], _Layout] = {}

    def layout(self, slots: Sequence[int]) -> _Layout:
        """Return where to put the columns of these types and those always there."""
        key = tuple(slots)
        found = self._layouts.get(key)
        if found is None:
            if len(self._layouts) == _LAYOUTS_KEPT:
                self._layouts.clear()
            found = self._layouts[key] = self._new_layout(key)
        return found

    def _new_layout(self, slots: tuple[int, ...]) -> _Layout:
        used = set(self.plan.always)
        for slot in slots:
            used.update(self.plan.targets[slot])
        columns: list[tuple[int, int, int]] = []
        sizes = [0, 0, 0, 0]
        # One more, for the target -1.
        places = np.full((len(self.plan.columns) + 1, 3), -1, np.int64)
        for column in sorted(used - {-1}):
            group = _GROUPS[self.plan.columns[column][1]]
            places[column] = len(columns), group, sizes[group]
            columns.append((column, group, sizes[group]))
            sizes[group] += 1
        rules = self._rules.copy()
        if len(rules):
            rules[:, [rule.COLUMN, rule.GROUP, rule.PLACE]] = places[self._targets]
        return _Layout(columns, sizes, rules)

    def types_of(
        self, slots: NDArray[np.int32], present: Sequence[int]
    ) -> tuple[list[str], NDArray[np.int32]]:
        """Return the types there are, in registry order, and each row's place."""
        names = [self.plan.types[slot].name for slot in present]
        types = list(dict.fromkeys(names))
        code_of = np.zeros(len(self.plan.types) + 1, np.int32)
        code_of[present] = [types.index(name) for name in names]
        return types, code_of[slots]


class _ColumnInMaking:
    """A column with a value for each entry of the page."""

    def __init__(
        self, name: str, kind: str, values: NDArray[Any], valid: NDArray[np.bool_]
    ) -> None:
        self.name, self.kind = name, kind
        self.values = values
        self.valid = valid
        self.texts: list[str] | None = [] if kind in ("str", "json") else None
        self._codes: dict[str, int] | None = None
        self._in_order = True

    def take_texts(self, entries: Entries, spans: NDArray[np.int64]) -> None:
        """Set the texts that the kernel has coded, at their offsets and lengths."""
        self.texts = entries.texts(spans)
        if spans[:, 2].any():
            # Escapes hide equal texts from the kernel; so do full tables.
            self._in_order = False
            for code in np.flatnonzero(spans[:, 2] & 1).tolist():
                self.texts[code] = msgspec.json.decode(f'"{self.texts[code]}"')

    def put(self, row: int, value: Any) -> None:
        """Set the value of a row."""
        if self.texts is not None:
            if self._codes is None:
                self._codes = {text: code for code, text in enumerate(self.texts)}
                self._in_order = False
            code = self._codes.setdefault(value, len(self.texts))
            if code == len(self.texts):
                self.texts.append(value)
            value = code
        self.values[row] = value
        self.valid[row] = True

    def column(self, which: NDArray[Any] | slice) -> Column:
        """Return the column of these rows."""
        values, texts = self.values[which], self.texts
        valid: NDArray[np.bool_] | None = self.valid[which]
        if self.valid[which].all():
            valid = None
        if texts is not None and not self._in_order:
            values, texts = _in_order(values, valid, texts)
        return Column(self.kind, values, valid, texts)


def _in_order(
    values: NDArray[Any], valid: NDArray[np.bool_] | None, texts: list[str]
) -> tuple[NDArray[Any], list[str]]:
    """Return codes into texts that all differ, in order of first appearance."""
    first_code = {text: code for code, text in reversed(list(enumerate(texts)))}
    one_code = np.array([first_code[text] for text in texts] or [0], np.int32)
    codes = one_code[values]
    used, first = np.unique(codes if valid is None else codes[valid], return_index=True)
    order = used[np.argsort(first)]
    place = np.zeros(len(one_code), np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    codes = place[codes]
    if valid is not None:
        codes[~valid] = 0
    return codes, [texts[code] for code in order.tolist()]


def _what(spec: FieldSpec) -> int:
    """Return what may stand in a field, in the kernel's terms."""
    if spec.kind in _PLAIN_KINDS:
        return _PLAIN_KINDS[spec.kind]
    if spec.kind == "str":
        return rule.NON_EMPTY_TEXT if spec.non_empty else rule.TEXT
    if spec.fields or (spec.items is not None and spec.shape != "array"):
        return rule.BY_HAND
    if spec.items is not None:
        if spec.items.kind == "str" and not spec.items.nullable:
            if spec.items.non_empty:
                return rule.ARRAY_OF_NON_EMPTY_TEXTS
            return rule.ARRAY_OF_TEXTS
        return rule.BY_HAND
    return {"any": rule.ANY, "array": rule.ARRAY, "object": rule.OBJECT}[spec.shape]


def _present(slots: NDArray[np.int32]) -> list[int]:
    """Return the slots that occur, rising."""
    found: list[int] = np.flatnonzero(np.bincount(slots)).tolist()
    return found


def _bytes_array(raw: bytes | bytearray) -> NDArray[np.uint8]:
    # Writable, as a reply's bytes are: kernels are compiled per kind of array.
    return np.frombuffer(bytearray(raw or b"\0"), np.uint8)[: len(raw)]


def _dictionaries(count: int, n: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return empty tables and spans for `cep.bus.kernels.text.intern`."""
    size = 1 << max(4, (2 * n - 1).bit_length())
    return np.full((count, size), -1, np.int32), np.empty((count, n, 3), np.int64)


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
