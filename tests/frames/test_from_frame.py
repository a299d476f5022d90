from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import polars as pl
import pytest
from event_rows import rows_of
from pydantic import BaseModel

from cep.errors import UnknownEventTypeError, UsageError
from cep.events import registry
from cep.events.columns import Column, EventColumns
from cep.frames.convert import to_arrow, to_pandas, to_polars
from cep.frames.from_frame import columns_from_frame
from cep.frames.ids import made_event_ids

START = datetime(2026, 1, 5, 9, tzinfo=UTC)
FORMS = [
    pytest.param(lambda frame: frame, id="polars"),
    pytest.param(pl.DataFrame.lazy, id="lazy"),
    pytest.param(to_pandas, id="pandas"),
    pytest.param(to_arrow, id="arrow"),
]


def random_events(seed, n=300):
    """Trades and collections with nulls, odd texts and 64-bit integers."""
    rng = np.random.default_rng(seed)
    trade = rng.random(n) < 0.7
    side = trade & (rng.random(n) < 0.5)
    texts = ["a", "", "Ω\n\x00", "<b>", "a/b"]

    def column(kind, values, valid, texts=None):
        return Column(kind, np.where(valid, values, values.dtype.type(0)), valid, texts)

    codes = rng.integers(0, len(texts), n).astype(np.int32)
    return EventColumns(
        "market.events",
        np.sort(rng.integers(0, 50, n)) * 1000,
        np.arange(n),
        rng.integers(0, 2**41, n),
        rng.integers(0, 2**63, n).astype(np.uint64) * np.uint64(2) + np.uint64(1),
        rng.integers(0, 2**63, n).astype(np.uint64) * np.uint64(2),
        trade.astype(np.int32),
        ["market.data.collected", "market.trade"],
        {
            "collection_id": column("str", codes, ~trade, texts),
            "data_source": column("str", codes, ~trade, texts),
            "data_type": column("str", codes, ~trade, texts),
            "records_collected": column(
                "int", rng.integers(-(2**63), 2**63 - 1, n), ~trade
            ),
            "collection_time_ms": column("float", rng.normal(0, 1e300, n), ~trade),
            "data_quality_score": column("float", rng.random(n), ~trade),
            "symbol": column("str", codes, trade, texts),
            "price": column("float", rng.integers(0, 9, n) / 3, trade),
            "quantity": column("float", rng.random(n), trade),
            "side": column("str", codes, side, texts),
            "@version": Column("int", np.ones(n, np.int64)),
            "@correlation_id": column("str", codes, side, texts),
        },
    )


def trades(n=3, **changes):
    columns = {
        "event_time": [START + timedelta(milliseconds=i) for i in range(n)],
        "type": ["market.trade"] * n,
        "symbol": ["A"] * n,
        "price": [1.5] * n,
        "quantity": [1.0] * n,
    }
    kept = {k: v for k, v in (columns | changes).items() if v is not None}
    return pl.DataFrame(kept, strict=False)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", range(3))
def test_events_survive_the_way_to_a_frame_and_back(form, seed):
    events = random_events(seed)
    assert rows_of(columns_from_frame(form(to_polars(events)))) == rows_of(events)


def test_a_shuffled_frame_comes_back_in_entry_id_order():
    events = random_events(4)
    frame = to_polars(events).sort("event_time", "price")
    assert rows_of(columns_from_frame(frame)) == rows_of(events)


def test_a_filtered_frame_keeps_its_ids():
    events = random_events(5)
    frame = to_polars(events).filter(pl.col("type") == "market.trade")
    rows = [row for row in rows_of(events) if row["type"] == "market.trade"]
    assert rows_of(columns_from_frame(frame)) == rows


def test_ids_that_are_missing_are_made_the_same_each_time():
    frame = trades()
    first, second = columns_from_frame(frame), columns_from_frame(frame)
    hi, lo = made_event_ids("market.events", first.time_ms)
    assert first.id_hi.tolist() == second.id_hi.tolist() == hi.tolist()
    assert first.id_lo.tolist() == second.id_lo.tolist() == lo.tolist()
    assert first.entry_ms.tolist() == first.time_ms.tolist()


def test_entry_ids_that_are_missing_keep_the_order_of_rows():
    frame = trades(event_time=[START, START - timedelta(seconds=1), START])
    events = columns_from_frame(frame)
    start_ms = round(START.timestamp() * 1000)
    assert events.time_ms.tolist() == [start_ms, start_ms - 1000, start_ms]
    assert events.entry_ms.tolist() == [start_ms] * 3
    assert events.entry_seq.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "times",
    [
        pl.Series([1767603600000, 1767603600001]),
        pl.Series([datetime(2026, 1, 5, 9), datetime(2026, 1, 5, 9, 0, 0, 1999)]),  # noqa: DTZ001
        pl.Series(
            [START, START + timedelta(microseconds=1999)],
            dtype=pl.Datetime("ns", "UTC"),
        ),
        pl.Series([START, START + timedelta(milliseconds=1)]).dt.convert_time_zone(
            "Asia/Tokyo"
        ),
    ],
)
def test_event_times_of_any_resolution_are_cut_to_milliseconds_of_utc(times):
    events = columns_from_frame(trades(2, event_time=times))
    assert events.time_ms.tolist() == [1767603600000, 1767603600001]


def test_pandas_may_have_the_event_time_as_its_index():
    frame = trades().to_pandas().set_index("event_time")
    assert rows_of(columns_from_frame(frame)) == rows_of(columns_from_frame(trades()))


def test_pandas_nan_is_a_null():
    frame = trades().to_pandas().assign(side=["buy", None, float("nan")])
    assert columns_from_frame(frame).fields["side"].to_list() == ["buy", None, None]


def test_integers_that_went_through_floats_come_back():
    frame = pd.DataFrame(
        {
            "event_time": [START, START],
            "type": ["market.data.collected", "market.trade"],
            "records_collected": [5.0, float("nan")],
        }
    )
    column = columns_from_frame(frame).fields["records_collected"]
    assert (column.kind, column.to_list()) == ("int", [5, None])


def test_lists_are_written_as_json():
    frame = pl.DataFrame(
        {"event_time": [START], "keywords": [["a", "b"]], "user_ids": ['["u"]']}
    )
    events = columns_from_frame(frame, event_type="market.data.collection.started")
    assert events.fields["keywords"].to_list() == ['["a","b"]']
    assert events.fields["user_ids"].to_list() == ['["u"]']


def test_one_type_and_another_stream_may_be_named():
    frame = trades(type=None)
    events = columns_from_frame(frame, event_type="market.trade", stream="backup")
    assert (events.stream, events.types) == ("backup", ["market.trade"])


def test_columns_that_no_type_declares_are_passed_over():
    frame = trades().with_columns(mean=1.0, bid=pl.lit(2.0))
    assert list(columns_from_frame(frame).fields) == ["symbol", "price", "quantity"]


def test_only_the_fields_wanted_are_taken():
    events = columns_from_frame(trades(), fields={"market.trade": ["price"]})
    assert list(events.fields) == ["price"]


def test_a_wanted_field_without_column_names_the_near_one():
    frame = trades().rename({"price": "prices"})
    with pytest.raises(
        UsageError, match=r"no column 'price', a field of market.trade "
    ):
        columns_from_frame(frame, fields={"market.trade": ["price"]})
    with pytest.raises(UsageError, match=r"Did you mean 'prices'\?"):
        columns_from_frame(frame, fields={"market.trade": ["price"]})


def test_a_wanted_optional_field_without_column_is_absent():
    events = columns_from_frame(trades(), fields={"market.trade": ["price", "venue"]})
    assert list(events.fields) == ["price"]


def test_a_wanted_field_that_no_type_declares_is_an_error():
    with pytest.raises(UsageError, match=r"no column 'prcie'.*Did you mean 'price'"):
        columns_from_frame(trades(), fields={"market.trade": ["prcie"]})


def test_a_wanted_envelope_field_says_how_to_load_it():
    with pytest.raises(UsageError, match=r"'@user_id'. Load it with envelope=True"):
        columns_from_frame(trades(), fields={"market.trade": ["@user_id"]})


def test_an_empty_frame_needs_its_stream():
    frame = trades(0).cast({"event_time": pl.Datetime("ms", "UTC"), "type": pl.String})
    assert len(columns_from_frame(frame, stream="market.events")) == 0
    with pytest.raises(UsageError, match=r"does not say its stream. Pass stream="):
        columns_from_frame(frame)


def test_fields_named_like_the_frames_own_columns_come_back():
    mine = registry.copy()

    @mine.register("ops.note", stream="ops.events")
    class Note(BaseModel):
        type: str
        event_time: str

    events = EventColumns.empty("ops.events")
    events = EventColumns(
        "ops.events",
        *(np.array([i]) for i in (1, 0, 5)),
        *(np.array([i], np.uint64) for i in (7, 8)),
        np.zeros(1, np.int32),
        ["ops.note"],
        {
            "type": Column("str", np.zeros(1, np.int32), None, ["t"]),
            "event_time": Column("str", np.zeros(1, np.int32), None, ["soon"]),
        },
    )
    frame = to_polars(events, registry=mine)
    assert frame.columns[:4] == ["event_time", "type", "data.type", "data.event_time"]
    assert rows_of(columns_from_frame(frame, registry=mine)) == rows_of(events)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"event_time": None}, "no column 'event_time'. Add one"),
        ({"type": None}, "no column 'type'. Add one, or pass event_type="),
        ({"event_time": ["now"] * 3}, "event_time is of type String, which is no time"),
        ({"event_time": [0, -1, 0]}, "event_time, row 1: -1 .int. is not a time"),
        ({"event_time": [0, None, 0]}, "event_time, row 1: null is not a time"),
        ({"type": ["market.trade", None, None]}, "type, row 1: null is no event type"),
        (
            {"price": [1.0, None, None]},
            "price, row 1: null, but market.trade needs a f",
        ),
        (
            {"price": [1.0, float("nan"), 2.0]},
            "price, row 1: nan .float., allowed: a f",
        ),
        (
            {"price": ["1", "2", "3"]},
            "price is of type String .'1' .str. in row 0.. It",
        ),
        ({"price": [True, False, True]}, "price is of type Boolean"),
        ({"symbol": [1, 2, 3]}, "symbol is of type Int64"),
        ({"event_id": ["x"] * 3}, "event_id, row 0: 'x' .str. is no event id"),
        ({"event_id": [1, 2, 3]}, "event_id is of type Int64. It must hold event ids"),
        (
            {"entry_id": ["5-0", "4-0", "5-0"]},
            "entry_id 5-0 is in row 0 and again in r",
        ),
    ],
)
def test_what_is_no_event_is_refused_by_column_and_row(changes, said):
    with pytest.raises(UsageError, match=said):
        columns_from_frame(trades(**changes))


@pytest.mark.parametrize("wrong", [[2.5], [1e300], pl.Series([2**63], dtype=pl.UInt64)])
def test_what_is_no_integer_of_64_bits_is_refused(wrong):
    frame = pl.DataFrame({"event_time": [START], "records_collected": wrong})
    with pytest.raises(
        UsageError, match=r"records_collected, row 0: .* an integer of 64"
    ):
        columns_from_frame(frame, event_type="market.data.collected")


def test_text_that_is_no_json_is_refused_where_json_belongs():
    frame = pl.DataFrame({"event_time": [START], "keywords": ["a, b"]})
    with pytest.raises(UsageError, match=r"keywords, row 0: 'a, b' .str. is not JSON"):
        columns_from_frame(frame, event_type="market.data.collection.started")


def test_an_unknown_type_names_the_near_one():
    with pytest.raises(UnknownEventTypeError, match=r"Did you mean 'market.trade'"):
        columns_from_frame(trades(type=["market.trad"] * 3))


def test_a_type_given_twice_must_agree():
    with pytest.raises(
        UsageError, match=r"says 'market.trade', event_type 'market.bar'"
    ):
        columns_from_frame(trades(), event_type="market.bar")


def test_what_is_no_frame_is_refused():
    with pytest.raises(
        UsageError, match=r"\[\] .list. is no frame. Pass one of polars"
    ):
        columns_from_frame([])
