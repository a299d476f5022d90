import hashlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cep.events import BadRow, Column, EventColumns

rows = st.tuples(
    st.sampled_from(["market.trade", "market.quote", "market.bar"]),
    st.none() | st.integers(-5, 5),
    st.none() | st.sampled_from(["a", "b", "c", ""]),
)


def coded(texts):
    """Return codes and dictionary of texts, first come first coded."""
    known = {}
    codes = [0 if t is None else known.setdefault(t, len(known)) for t in texts]
    return np.array(codes, np.int32), list(known)


def build(rows, *, with_text=True):
    n = len(rows)
    type_code, types = coded([row[0] for row in rows])
    codes, texts = coded([row[2] for row in rows])
    counter = np.arange(n, dtype=np.int64)
    valid = np.array([row[1] is not None for row in rows], np.bool_)
    fields = {
        "price": Column("float", np.array([row[1] or 0 for row in rows], float), valid),
    }
    if with_text:
        present = np.array([row[2] is not None for row in rows], np.bool_)
        all_valid = bool(present.all())
        fields["venue"] = Column("str", codes, None if all_valid else present, texts)
    return EventColumns(
        "market.events",
        counter,
        counter,
        counter,
        counter.astype(np.uint64),
        counter.astype(np.uint64),
        type_code,
        types,
        fields,
    )


def told(columns):
    names = [columns.types[code] for code in columns.type_code]
    price = columns.fields["price"].to_list()
    venue = columns.fields.get("venue")
    texts = venue.to_list() if venue else [None] * len(columns)
    return list(zip(names, price, texts, strict=True))


@given(st.lists(rows, max_size=12), st.lists(st.integers(0, 12), max_size=4))
def test_parts_joined_again_tell_the_same_rows(rows, cuts):
    columns = build(rows)
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    parts = [columns.slice(a, b) for a, b in pairwise(edges)]
    joined = EventColumns.concat(parts)
    assert told(joined) == told(columns) == rows
    assert joined.entry_ms.tolist() == list(range(len(rows)))


@given(st.lists(rows, max_size=6), st.lists(rows, max_size=6))
def test_parts_with_different_dictionaries_are_joined_by_text(first, second):
    joined = EventColumns.concat([build(first), build(second)])
    assert told(joined) == first + second
    assert len(set(joined.types)) == len(joined.types)


def test_field_that_a_part_lacks_is_not_valid_there():
    first = [("market.trade", 1, "a")]
    second = [("market.trade", 2, None)]
    for order in ([0, 1], [1, 0]):
        parts = [build(first), build(second, with_text=False)]
        joined = EventColumns.concat([parts[i] for i in order])
        assert told(joined) == [(first + second)[i] for i in order]


def test_take_accepts_indices_and_masks():
    columns = build([("market.trade", i, None) for i in range(4)])
    assert told(columns.take(np.array([2, 0]))) == [
        ("market.trade", 2, None),
        ("market.trade", 0, None),
    ]
    assert len(columns.take(np.array([True, False, True, False]))) == 2


def test_slice_shares_memory_and_take_does_not():
    columns = build([("market.trade", 1, "a")] * 3)
    assert np.shares_memory(columns.slice(1, 2).time_ms, columns.time_ms)
    assert not np.shares_memory(columns.take(np.array([1])).time_ms, columns.time_ms)


def test_empty_columns_join_with_any():
    columns = build([("market.trade", 1, "a")])
    joined = EventColumns.concat([EventColumns.empty("market.events"), columns])
    assert told(joined) == told(columns)
    assert len(EventColumns.empty("x")) == 0


@pytest.mark.parametrize("kind", ["float", "int", "bool", "str", "json"])
def test_empty_column_has_no_valid_row(kind):
    column = Column.empty(kind, 3)
    assert column.to_list() == [None, None, None]
    assert Column.concat([column, column]).to_list() == [None] * 6


def test_what_cannot_be_joined_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="no parts to join"):
        EventColumns.concat([])
    with pytest.raises(ValueError, match=r"different streams .*: a, b"):
        EventColumns.concat([EventColumns.empty("a"), EventColumns.empty("b")])
    with pytest.raises(ValueError, match=r"different kinds .*: float, int"):
        Column.concat([Column.empty("float", 1), Column.empty("int", 1)])


def test_bad_row_keeps_the_first_bytes_and_the_whole_hash():
    fields = [(b"id", b"x"), (b"data", b"y" * 5000)]
    raw = b"id=x\ndata=" + b"y" * 5000
    row = BadRow.of("market.events", "5-0", "bad_id", "id is 'x'", fields)
    assert row.raw == raw[:4096]
    assert row.raw_length == len(raw)
    assert row.sha256 == hashlib.sha256(raw).hexdigest()
