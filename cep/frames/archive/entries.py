"""Entries of a stream as an Arrow table, byte for byte, and back.

=====================================  ===========================================
column                                 holds
=====================================  ===========================================
``entry_ms``, ``entry_seq``            uint64: the entry id
``id``, ``event_stream``, ``type``,    binary: the nine fields of the wire format
...                                    (``stream`` is the name of a folder); null
                                       where an entry has no such field
``fields``                             null for an entry of just these nine fields
                                       in their order; else a list of all its
                                       fields in order, ``name`` and ``value``;
                                       the value is null where it is that of the
                                       column of this name
=====================================  ===========================================

So an entry is kept whatever it is: unknown fields, repeated names, another order,
bytes that are no text.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl
import pyarrow as pa

from cep.bus.kernels.raw import entry_numbers, gather, have_names
from cep.bus.page import Entries
from cep.events.codec import FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Pairs = list[tuple[bytes, bytes]]

NAMES: Final = tuple(name.encode() for name in FIELDS)
COLUMNS: Final = tuple("event_stream" if name == "stream" else name for name in FIELDS)
_PAIR: Final = pa.struct([("name", pa.binary()), ("value", pa.binary())])
SCHEMA: Final = pa.schema(
    [("entry_ms", pa.uint64()), ("entry_seq", pa.uint64())]
    + [(name, pa.binary()) for name in COLUMNS]
    + [("fields", pa.list_(_PAIR))]
)
_NAMES_BLOCK: Final = np.frombuffer(bytearray(b"".join(NAMES)), np.uint8)
_NAME_LENGTHS: Final = np.array([len(name) for name in NAMES], np.int64)
_NAME_PLACES: Final = np.stack(
    [np.cumsum(_NAME_LENGTHS) - _NAME_LENGTHS, _NAME_LENGTHS], axis=1
)


def to_table(entries: Entries) -> pa.Table:
    """Return entries as a table of `SCHEMA`, in their order."""
    n, count = len(entries), len(NAMES)
    ms, seq = np.zeros(n, np.uint64), np.zeros(n, np.uint64)
    entry_numbers(entries.data, entries.entries, ms, seq)
    standard = np.zeros(n, np.bool_)
    have_names(
        entries.data,
        entries.entries,
        entries.fields,
        _NAMES_BLOCK,
        _NAME_PLACES,
        standard,
    )
    odd = np.flatnonzero(~standard).tolist()
    first = entries.entries[standard, 2]
    places = np.zeros((count, n, 2), np.int64)
    present = np.zeros((count, n), np.bool_)
    for column in range(count):
        places[column, standard] = entries.fields[first + column, 2:4]
    present[:, standard] = True
    lists = [_odd_row(entries, row, places, present) for row in odd]
    columns = [_binary(entries.data, places[i], present[i]) for i in range(count)]
    if odd:
        others: list[list[dict[str, bytes | None]] | None] = [None] * n
        for row, pairs in zip(odd, lists, strict=True):
            others[row] = pairs
        fields = pa.array(others, SCHEMA.field("fields").type)
    else:
        fields = pa.nulls(n, SCHEMA.field("fields").type)
    return pa.Table.from_arrays(
        [pa.array(ms), pa.array(seq), *columns, fields], schema=SCHEMA
    )


def _odd_row(
    entries: Entries,
    row: int,
    places: NDArray[np.int64],
    present: NDArray[np.bool_],
) -> list[dict[str, bytes | None]]:
    """Put a row's known fields into their columns; return all of its fields."""
    first, count = entries.entries[row, 2:4].tolist()
    spans = entries.fields[first : first + count].tolist()
    listed: list[dict[str, bytes | None]] = []
    for (name, value), span in zip(entries.pairs(row), spans, strict=True):
        column = NAMES.index(name) if name in NAMES else -1
        if column >= 0 and not present[column, row]:
            places[column, row], present[column, row] = span[2:4], True
            listed.append({"name": name, "value": None})
        else:
            listed.append({"name": name, "value": value})
    return listed


def _binary(
    data: NDArray[np.uint8], places: NDArray[np.int64], present: NDArray[np.bool_]
) -> pa.Array:
    ends = np.cumsum(places[:, 1])
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    block = np.empty(int(ends[-1]) if len(ends) else 0, np.uint8)
    gather(data, places, block)
    valid = None
    if not present.all():
        valid = pa.py_buffer(np.packbits(present, bitorder="little"))
    return pa.BinaryArray.from_buffers(
        pa.binary(), len(places), [valid, pa.py_buffer(offsets), pa.py_buffer(block)]
    )


def to_entries(table: pa.Table) -> Entries:
    """Return a table's entries in a block of bytes, as a reader scans them."""
    n, count = len(table), len(NAMES)
    blocks: list[NDArray[np.uint8]] = [_NAMES_BLOCK]
    end = len(_NAMES_BLOCK)
    ids, id_places = _parts(entry_ids(table).to_arrow().cast(pa.binary()))
    id_places[:, 0] += end
    blocks.append(ids)
    end += len(ids)
    spans = np.empty((n, count, 4), np.int64)
    spans[:, :, :2] = _NAME_PLACES
    for column, name in enumerate(COLUMNS):
        block, places = _parts(_whole(table[name]))
        spans[:, column, 2] = places[:, 0] + end
        spans[:, column, 3] = places[:, 1]
        blocks.append(block)
        end += len(block)
    found = np.empty((n, 5), np.int64)
    found[:, :2] = id_places
    found[:, 2] = np.arange(n) * count
    found[:, 3] = count
    found[:, 4] = -1
    fields = spans.reshape(-1, 4)
    more = [fields]
    at = len(fields)
    for row in _odd_rows(table):
        pairs = _pairs_of(table, row)
        places = np.empty((len(pairs), 4), np.int64)
        for i, (name_bytes, value) in enumerate(pairs):
            places[i] = end, len(name_bytes), end + len(name_bytes), len(value)
            blocks.append(np.frombuffer(name_bytes + value, np.uint8))
            end += len(name_bytes) + len(value)
        found[row, 2:4] = at, len(pairs)
        more.append(places)
        at += len(pairs)
    return Entries(np.concatenate(blocks), found, np.concatenate(more))


def iterate_pairs(table: pa.Table) -> Iterator[tuple[bytes, Pairs]]:
    """Yield each entry as its id and its fields in order."""
    ids = entry_ids(table).to_list()
    columns = [table[name].to_pylist() for name in COLUMNS]
    odd = set(_odd_rows(table))
    for row, (entry_id, values) in enumerate(
        zip(ids, zip(*columns, strict=True), strict=True)
    ):
        if row in odd:
            yield entry_id.encode(), _pairs_of(table, row)
        else:
            yield entry_id.encode(), list(zip(NAMES, values, strict=True))


def entry_ids(table: pa.Table) -> pl.Series:
    """Return the entry ids as text, ``ms-seq``."""
    numbers = pl.DataFrame(
        {name: table[name].to_numpy() for name in ("entry_ms", "entry_seq")}
    )
    text = pl.concat_str("entry_ms", pl.lit("-"), "entry_seq")
    return numbers.select(entry_id=text).to_series()


def _odd_rows(table: pa.Table) -> list[int]:
    fields = table["fields"]
    if fields.null_count == len(fields):
        return []
    rows: list[int] = np.flatnonzero(fields.is_valid().to_numpy()).tolist()
    return rows


def _pairs_of(table: pa.Table, row: int) -> Pairs:
    pairs = []
    for pair in table["fields"][row].as_py():
        name, value = pair["name"], pair["value"]
        if value is None:
            value = table[COLUMNS[NAMES.index(name)]][row].as_py()
        pairs.append((name, value))
    return pairs


def _whole(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    return (
        pa.concat_arrays(column.chunks)
        if column.num_chunks
        else pa.array([], column.type)
    )


def _parts(array: pa.Array) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the bytes of a binary array, and offset and length of each value."""
    n = len(array)
    _, offsets_buffer, data_buffer = array.buffers()
    if n == 0 or data_buffer is None:
        return np.zeros(0, np.uint8), np.zeros((n, 2), np.int64)
    offsets = np.frombuffer(offsets_buffer, np.int32)[
        array.offset : array.offset + n + 1
    ]
    start, end = int(offsets[0]), int(offsets[-1])
    places = np.empty((n, 2), np.int64)
    places[:, 0] = offsets[:-1] - start
    places[:, 1] = np.diff(offsets)
    return np.frombuffer(data_buffer, np.uint8)[start:end], places


def digest(table: pa.Table) -> str:
    """Return a SHA-256 of all that the entries are, in hexadecimal.

    It depends on ids, names and values alone, not on how a file stores them: for
    each column of `SCHEMA`, numbers as 8 bytes, lengths of values as 8 bytes (-1 for
    null) and then their bytes, all little-endian.
    """
    found = hashlib.sha256(len(table).to_bytes(8, "little"))
    for name in ("entry_ms", "entry_seq"):
        found.update(table[name].to_numpy().astype("<u8").tobytes())
    for name in COLUMNS:
        _take_in(found, _whole(table[name]))
    lists = _whole(table["fields"])
    if lists.null_count < len(lists):
        lengths = lists.value_lengths().fill_null(-1).to_numpy(zero_copy_only=False)
        found.update(lengths.astype("<i8").tobytes())
        pairs = lists.flatten()
        _take_in(found, pairs.field("name"))
        _take_in(found, pairs.field("value"))
    return found.hexdigest()


def _take_in(found: hashlib._Hash, array: pa.Array) -> None:
    block, places = _parts(array)
    lengths = places[:, 1].copy()
    if array.null_count:
        lengths[~array.is_valid().to_numpy(zero_copy_only=False)] = -1
    found.update(lengths.astype("<i8").tobytes())
    found.update(block.tobytes())
