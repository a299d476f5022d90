from datetime import UTC, datetime

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from cep.events.columns import BadRow, Column, EventColumns
from cep.frames.convert import bad_to_polars, to_arrow, to_pandas, to_polars

EXACT = 2**62 + 1  # no double has this value


def coded(kind, values):
    texts = list(dict.fromkeys(value for value in values if value is not None))
    codes = [0 if value is None else texts.index(value) for value in values]
    valid = np.array([value is not None for value in values])
    return Column(kind, np.array(codes, np.int32), valid, texts)


@pytest.fixture
def events():
    """Three events of two types, each kind of field with a value and a null."""
    some = np.array([True, False, True])
    return EventColumns(
        "market.events",
        np.array([5, 5, 6]),
        np.array([0, 1, 0]),
        np.array([0, 1700000000123, 25]),
        np.array([0, 1, 2], np.uint64),
        np.array([32, 0, 2**64 - 1], np.uint64),
        np.array([1, 0, 1], np.int32),
        ["market.quote", "market.trade"],
        {
            "symbol": coded("str", ["B", "A", "B"]),
            "price": Column("float", np.array([1.5, 0.0, -0.25]), some),
            "records_collected": Column("int", np.array([EXACT, 0, 7]), some),
            "success": Column("bool", np.array([True, False, False]), some),
            "request_id": coded("str", ["r1", None, "r2"]),
            "type": coded("str", ["x", None, "x"]),
            "keywords": coded("json", ['["k" , 1]', None, "[]"]),
            "nothing": Column.empty("str", 3),
            "@version": Column("int", np.ones(3, np.int64)),
            "@user_id": coded("str", [None, "u", None]),
        },
    )


def test_columns_are_typed_by_their_kind_and_in_order(events):
    assert dict(to_polars(events).schema) == {
        "event_time": pl.Datetime("ms", "UTC"),
        "type": pl.Categorical,
        "symbol": pl.Categorical,
        "price": pl.Float64,
        "records_collected": pl.Int64,
        "success": pl.Boolean,
        "request_id": pl.String,
        "data.type": pl.String,
        "keywords": pl.String,
        "nothing": pl.String,
        "event_id": pl.String,
        "entry_id": pl.String,
        "@version": pl.Int64,
        "@user_id": pl.String,
    }


def test_values_are_exact_and_absent_ones_null(events):
    first, second, third = to_polars(events).to_dicts()
    assert first == {
        "event_time": datetime(1970, 1, 1, tzinfo=UTC),
        "type": "market.trade",
        "symbol": "B",
        "price": 1.5,
        "records_collected": EXACT,
        "success": True,
        "request_id": "r1",
        "data.type": "x",
        "keywords": '["k" , 1]',
        "nothing": None,
        "event_id": "00000000000000000000000010",
        "entry_id": "5-0",
        "@version": 1,
        "@user_id": None,
    }
    assert second["type"] == "market.quote"
    assert second["event_time"] == datetime(
        2023, 11, 14, 22, 13, 20, 123000, tzinfo=UTC
    )
    assert second["@user_id"] == "u"
    assert [second[name] for name in ("price", "success", "keywords")] == [None] * 3
    assert third["event_id"] == "0000000000001FZZZZZZZZZZZZ"
    assert third["entry_id"] == "6-0"


def test_pandas_and_arrow_hold_the_same_values(events):
    frame = to_polars(events)
    table, pandas = to_arrow(frame), to_pandas(frame)
    assert pl.from_arrow(table).equals(frame)
    assert pl.from_pandas(pandas).equals(frame)


def test_pandas_keeps_integers_and_booleans_beside_nulls(events):
    frame = to_pandas(to_polars(events))
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == {
        "event_time": "datetime64[ms, UTC]",
        "type": "category",
        "symbol": "category",
        "price": "float64",
        "records_collected": "Int64",
        "success": "boolean",
        "request_id": "str",
        "data.type": "str",
        "keywords": "str",
        "nothing": "str",
        "event_id": "str",
        "entry_id": "str",
        "@version": "Int64",
        "@user_id": "str",
    }
    assert frame["records_collected"][0] == EXACT
    assert frame["records_collected"][1] is pd.NA
    assert frame["symbol"].cat.categories.to_list() == ["B", "A"]


def test_arrow_has_dictionaries_of_signed_indices(events):
    table = to_arrow(to_polars(events))
    assert table.schema.field("symbol").type == pa.dictionary(
        pa.int32(), pa.large_string()
    )
    assert table.schema.field("records_collected").type == pa.int64()
    assert table.schema.field("event_time").type == pa.timestamp("ms", "UTC")
    assert table["records_collected"].to_pylist() == [EXACT, None, 7]


def test_arrow_joins_dictionaries_of_several_pages(events):
    pages = [to_polars(events), to_polars(events.take(np.array([1])))]
    table = to_arrow(pl.concat(pages, rechunk=False))
    assert table["symbol"].to_pylist() == ["B", "A", "B", "A"]


def test_conversion_changes_nothing_it_was_given(events):
    before = to_polars(events)
    changed = to_pandas(before)
    changed.loc[:, "records_collected"] = 0
    changed.loc[:, "price"] = 0.0
    assert to_polars(events).equals(before)


def test_no_events_are_a_frame_without_rows():
    frame = to_polars(EventColumns.empty("market.events"))
    assert frame.columns == ["event_time", "type", "event_id", "entry_id"]
    assert len(to_pandas(frame)) == to_arrow(frame).num_rows == len(frame) == 0


def test_bad_rows_keep_their_bytes():
    row = BadRow.of("s", "1-0", "not_utf8", "why", [(b"id", b"\xff\x00")])
    frame = bad_to_polars([row])
    assert frame["raw"].to_list() == [b"id=\xff\x00"]
    assert to_pandas(frame)["raw"].to_list() == [b"id=\xff\x00"]
    assert bad_to_polars([]).schema == frame.schema
