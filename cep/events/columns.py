"""Events as columns: what reader, frames and engine exchange.

Nothing here checks values; a reader has done that. `EventColumns` holds the
good rows of one stream in arrival order, event types mixed; `BadRow` is a row
that was not good. Arrays are never changed in place: `take`, `slice` and
`concat` return new ones (a slice shares memory).

If two types declare a field of one name with different kinds, ``float`` wins
over ``int`` over ``bool``; any other clash makes a second column, named
``type:field`` for the type that comes later in the registry's order.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

DTYPES: dict[str, type[np.generic]] = {
    "float": np.float64,
    "int": np.int64,
    "bool": np.bool_,
    "str": np.int32,
    "json": np.int32,
}
"""Of each kind of field, the dtype of its column's values."""

RAW_KEPT = 4096
"""How many bytes of an entry a `BadRow` keeps."""


@dataclass(slots=True)
class Column:
    """One field of all rows.

    ``values`` has shape ``(n,)`` and the dtype `DTYPES` gives for ``kind``;
    "str" and "json" hold codes into ``texts`` (json: the raw JSON text), which
    are in order of first appearance and may hold unused texts after a `take`.
    ``valid`` is None when every row has a value; where it is False the value
    is without meaning (0, code 0 or NaN) and must not be looked up.
    """

    kind: str
    values: NDArray[Any]
    valid: NDArray[np.bool_] | None = None
    texts: list[str] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def take(self, indices: NDArray[Any] | slice) -> Column:
        """Return the rows at ``indices`` (or a slice of them)."""
        valid = None if self.valid is None else self.valid[indices]
        return Column(self.kind, self.values[indices], valid, self.texts)

    def to_list(self) -> list[Any]:
        """Return the values as Python objects, None where not valid."""
        values: list[Any] = self.values.tolist()
        present = [True] * len(values) if self.valid is None else self.valid.tolist()
        if self.texts is None:
            return [v if ok else None for v, ok in zip(values, present, strict=True)]
        texts = self.texts
        return [texts[v] if ok else None for v, ok in zip(values, present, strict=True)]

    @staticmethod
    def empty(kind: str, n: int) -> Column:
        """Return a column of ``n`` rows, none of them valid."""
        texts: list[str] | None = [] if kind in ("str", "json") else None
        return Column(kind, np.zeros(n, DTYPES[kind]), np.zeros(n, np.bool_), texts)

    @staticmethod
    def concat(columns: Sequence[Column]) -> Column:
        """Return the columns one after the other; they must be of one kind."""
        first = columns[0]
        if any(column.kind != first.kind for column in columns):
            kinds = sorted({column.kind for column in columns})
            msg = f"columns of different kinds cannot be joined: {', '.join(kinds)}"
            raise ValueError(msg)
        valid = None
        if any(column.valid is not None for column in columns):
            valid = np.concatenate([_mask(column) for column in columns])
        if first.texts is None:
            values = np.concatenate([column.values for column in columns])
            return Column(first.kind, values, valid)
        codes, texts = _merge(
            [(column.values, column.texts or []) for column in columns]
        )
        return Column(first.kind, codes, valid, texts)


def _mask(column: Column) -> NDArray[np.bool_]:
    if column.valid is None:
        return np.ones(len(column.values), np.bool_)
    return column.valid


def _merge(
    parts: Sequence[tuple[NDArray[Any], list[str]]],
) -> tuple[NDArray[Any], list[str]]:
    """Join dictionary-coded parts into one dictionary, first come first coded."""
    code_of: dict[str, int] = {}
    out: list[NDArray[Any]] = []
    for codes, texts in parts:
        new = [code_of.setdefault(text, len(code_of)) for text in texts]
        # A part without texts has only invalid rows, coded 0.
        mapping = np.array(new or [0], np.int32)
        out.append(mapping[codes] if texts else np.zeros(len(codes), np.int32))
    return np.concatenate(out), list(code_of)


@dataclass(slots=True)
class EventColumns:
    """Good rows of one stream in arrival (entry id) order, event types mixed.

    All arrays have shape ``(n,)``. ``entry_ms`` and ``entry_seq`` are the two
    parts of the entry id, ``time_ms`` is event time in milliseconds since 1970
    in UTC, ``id_hi`` and ``id_lo`` the upper and lower 64 bits of the event
    id, ``types[type_code[i]]`` the event type of row ``i``. ``fields`` holds
    the payload fields that were asked for; a row whose type lacks a field is
    not valid there. Envelope fields appear as ``@version``,
    ``@correlation_id``, ``@user_id`` and ``@metadata`` when asked for.
    """

    stream: str
    entry_ms: NDArray[np.int64]
    entry_seq: NDArray[np.int64]
    time_ms: NDArray[np.int64]
    id_hi: NDArray[np.uint64]
    id_lo: NDArray[np.uint64]
    type_code: NDArray[np.int32]
    types: list[str]
    fields: dict[str, Column] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.time_ms)

    def take(self, indices: NDArray[Any]) -> EventColumns:
        """Return the rows at ``indices`` (integers, or a mask of shape ``(n,)``)."""
        return self._pick(indices)

    def slice(self, start: int, stop: int) -> EventColumns:
        """Return rows ``start`` to ``stop`` (exclusive), sharing memory."""
        return self._pick(slice(start, stop))

    def _pick(self, which: Any) -> EventColumns:
        return EventColumns(
            self.stream,
            self.entry_ms[which],
            self.entry_seq[which],
            self.time_ms[which],
            self.id_hi[which],
            self.id_lo[which],
            self.type_code[which],
            self.types,
            {name: column.take(which) for name, column in self.fields.items()},
        )

    @staticmethod
    def empty(stream: str) -> EventColumns:
        """Return no rows."""
        return EventColumns(
            stream,
            np.zeros(0, np.int64),
            np.zeros(0, np.int64),
            np.zeros(0, np.int64),
            np.zeros(0, np.uint64),
            np.zeros(0, np.uint64),
            np.zeros(0, np.int32),
            [],
        )

    @staticmethod
    def concat(parts: Sequence[EventColumns]) -> EventColumns:
        """Return the parts one after the other.

        They must be of one stream, at least one part. A field that some parts
        lack is not valid in their rows.

        Raises
        ------
        ValueError
            If there is no part, streams differ, or a field's kinds differ.
        """
        if not parts:
            msg = "no parts to join: pass at least one, such as EventColumns.empty()"
            raise ValueError(msg)
        if len(parts) == 1:
            return parts[0]
        stream = parts[0].stream
        if any(part.stream != stream for part in parts):
            streams = sorted({part.stream for part in parts})
            msg = f"columns of different streams cannot be joined: {', '.join(streams)}"
            raise ValueError(msg)
        type_code, types = _merge([(part.type_code, part.types) for part in parts])
        return EventColumns(
            stream,
            np.concatenate([part.entry_ms for part in parts]),
            np.concatenate([part.entry_seq for part in parts]),
            np.concatenate([part.time_ms for part in parts]),
            np.concatenate([part.id_hi for part in parts]),
            np.concatenate([part.id_lo for part in parts]),
            type_code,
            types,
            _concat_fields(parts),
        )


def _concat_fields(parts: Sequence[EventColumns]) -> dict[str, Column]:
    kinds = {
        name: column.kind for part in parts for name, column in part.fields.items()
    }
    return {
        name: Column.concat(
            [part.fields.get(name) or Column.empty(kind, len(part)) for part in parts]
        )
        for name, kind in kinds.items()
    }


@dataclass(frozen=True, slots=True)
class BadRow:
    """An entry that is not one of our events.

    ``reason`` is one of `cep.events.reasons.Reason`; ``raw`` the first 4096
    bytes of the entry's fields, each as ``field=value``, joined by newlines;
    ``raw_length`` the length of that text uncut and ``sha256`` its hash in
    hexadecimal. ``detail`` and ``raw`` hold foreign data: escape them.
    """

    stream: str
    entry_id: str
    reason: str
    detail: str
    raw: bytes
    raw_length: int
    sha256: str

    @staticmethod
    def of(
        stream: str,
        entry_id: str,
        reason: str,
        detail: str,
        fields: Iterable[tuple[bytes, bytes]],
    ) -> BadRow:
        """Return the row of an entry with these fields, in the entry's order."""
        raw = b"\n".join(name + b"=" + value for name, value in fields)
        digest = hashlib.sha256(raw).hexdigest()
        return BadRow(
            stream, entry_id, reason, detail, raw[:RAW_KEPT], len(raw), digest
        )
