import json
import logging
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from event_rows import rows_of
from polars.testing import assert_frame_equal
from pydantic import BaseModel

import cep
from cep import sample
from cep.bus.publisher import Publisher
from cep.bus.reader import read_range
from cep.errors import ConnectionFailedError, UnknownEventTypeError, UsageError
from cep.events import Event, encode, format_timestamp, registry
from cep.frames import columns_from_frame, load
from cep.frames.sources import PAGE

STREAM = "market.events"
START = 1_700_000_000_000


def publish_trades(redis, n, **more):
    number = np.arange(n)
    Publisher(redis).publish_columns(
        STREAM,
        "market.trade",
        {"symbol": [f"S{i % 3}" for i in number], "price": number / 4, **more},
        event_time=START + number,
    )


def mixed_events():
    at = datetime(2026, 1, 5, 9, 30, 0, 125_999, tzinfo=UTC)
    return [
        Event.new(
            "market.trade",
            {"symbol": "Ω\n<b>", "price": 0.1, "quantity": 3, "venue": "x"},
            timestamp=at,
            correlation_id="c1",
            metadata={"k": [1, None]},
        ),
        Event.new(
            "market.data.collected",
            {
                "collection_id": "c",
                "data_source": "reddit",
                "data_type": "trend",
                "records_collected": 2**62 + 1,
                "collection_time_ms": 1,
                "data_quality_score": -0.0,
            },
            timestamp=at,
        ),
        Event.new(
            "market.data.collection.started",
            {
                "collection_id": "c",
                "data_source": "reddit",
                "keywords": ["a", '"'],
                "user_ids": [],
            },
            timestamp=at,
            user_id="u1",
        ),
    ]


def spoiled(**changes):
    event = Event.new("market.trade", {"symbol": "A", "price": 1.5, "quantity": 2})
    return encode(event) | {name.encode(): value for name, value in changes.items()}


@pytest.fixture
def arrivals(redis):
    """Ten trades that arrived at 1000, 2000, ... ms, each 100 s after its time."""
    for i in range(10):
        event = Event.new(
            "market.trade",
            {"symbol": "A", "price": float(i), "quantity": 1},
            timestamp=datetime.fromtimestamp(100 + i, UTC),
        )
        redis.xadd(STREAM, encode(event), id=f"{200_000 + 1000 * i}-0")


def prices(url, **how):
    return load(STREAM, url=url, **how)["price"].to_list()


def test_a_frame_holds_exactly_what_was_published(redis, redis_url):
    events = mixed_events()
    entries = Publisher(redis).publish_many(events)
    frame = load(STREAM, url=redis_url, envelope=True)
    assert frame["entry_id"].to_list() == entries
    assert frame["event_id"].to_list() == [event.id for event in events]
    assert frame["event_time"].to_list() == [event.timestamp for event in events]
    assert frame["type"].to_list() == [event.type for event in events]
    for row, event in zip(frame.to_dicts(), events, strict=True):
        assert row["@version"] == 1
        assert row["@correlation_id"] == event.correlation_id
        assert row["@user_id"] == event.user_id
        assert json.loads(row["@metadata"]) == event.metadata
        for name, value in event.data.items():
            read = row[name]
            assert (json.loads(read) if isinstance(value, list) else read) == value
        absent = {name for name, value in row.items() if value is None}
        assert not absent & event.data.keys()
    assert frame.schema["records_collected"] == pl.Int64
    assert frame.schema["symbol"] == frame.schema["venue"] == pl.Categorical
    assert frame.schema["data_source"] == pl.Categorical
    assert frame.schema["collection_id"] == pl.String


def test_pandas_and_arrow_frames_equal_the_polars_one(redis, redis_url):
    Publisher(redis).publish_many(mixed_events())
    frame = load(STREAM, url=redis_url, envelope=True)
    pandas = load(STREAM, url=redis_url, envelope=True, as_="pandas")
    arrow = load(STREAM, url=redis_url, envelope=True, as_="arrow")
    assert_frame_equal(pl.from_pandas(pandas).cast(dict(frame.schema)), frame)
    assert_frame_equal(pl.from_arrow(arrow), frame)
    assert pandas["records_collected"].to_list()[1] == 2**62 + 1


@pytest.mark.parametrize("form", ["polars", "pandas", "arrow"])
def test_loaded_frames_become_the_events_that_were_read(redis, redis_url, form):
    Publisher(redis).publish_many(mixed_events())
    publish_trades(redis, 3 * PAGE // 2, quantity=np.ones(3 * PAGE // 2))
    read = read_range(redis, STREAM).columns
    frame = load(STREAM, url=redis_url, as_=form)
    assert rows_of(columns_from_frame(frame)) == rows_of(read)


def test_many_pages_make_one_frame_in_order(redis, redis_url):
    n = 2 * PAGE + 1
    publish_trades(
        redis, n, quantity=np.arange(n), side=["buy", None, "sell"] * (n // 3)
    )
    frame = load(STREAM, url=redis_url)
    assert frame["quantity"].to_list() == list(range(n))
    assert frame["side"].to_list() == ["buy", None, "sell"] * (n // 3)
    assert frame["entry_id"].n_unique() == frame["event_id"].n_unique() == n
    assert all(series.n_chunks() == 1 for series in frame)


def test_columns_of_a_type_that_comes_late_are_null_before_it(redis, redis_url):
    publish_trades(redis, PAGE + 1, quantity=np.ones(PAGE + 1))
    Publisher(redis).publish_many(mixed_events())
    frame = load(STREAM, url=redis_url)
    assert frame["keywords"].null_count() == PAGE + 3
    assert frame.columns[:4] == ["event_time", "type", "collection_id", "data_source"]


def test_bad_rows_come_beside_the_good_ones(redis, redis_url, caplog):
    publish_trades(redis, 2, quantity=[1, 2])
    bad = [
        redis.xadd(STREAM, spoiled(data=b"{")),
        redis.xadd(STREAM, spoiled(type=b"market.trad")),
        redis.xadd(STREAM, spoiled(user_id=b"\xff")),
        redis.xadd(STREAM, spoiled(data=b'{"symbol":"A","price":NaN,"quantity":1}')),
        redis.xadd(STREAM, spoiled(timestamp=b"2099-01-01T00:00:00Z")),
    ]
    publish_trades(redis, 1, quantity=[3])
    with caplog.at_level(logging.WARNING):
        frame, beside = load(STREAM, url=redis_url, with_bad=True)
    assert frame["quantity"].to_list() == [1, 2, 3]
    assert beside["entry_id"].to_list() == [entry.decode() for entry in bad]
    assert beside["stream"].to_list() == [STREAM] * 5
    assert beside["reason"].to_list() == [
        "malformed_json",
        "unknown_type",
        "not_utf8",
        "malformed_json",
        "future_timestamp",
    ]
    assert b"user_id=\xff" in beside["raw"][2]
    [record] = caplog.records
    assert record.getMessage() == (
        "market.events: 5 of 8 entries are no events (2 malformed_json, "
        "1 unknown_type, 1 not_utf8, 1 future_timestamp) and not in the frame; "
        "with_bad=True returns them beside it."
    )


def test_bad_rows_are_told_of_even_if_nobody_asked(redis, redis_url, caplog):
    redis.xadd(STREAM, spoiled(id=b"x"))
    assert len(load(STREAM, url=redis_url)) == 0
    assert "1 of 1 entries are no events (1 bad_id)" in caplog.text


def test_good_streams_are_loaded_without_a_word(redis, redis_url, caplog, capfd):
    publish_trades(redis, 10, quantity=np.ones(10))
    _, beside = load(STREAM, url=redis_url, with_bad=True, as_="pandas")
    assert list(beside) == [
        "stream", "entry_id", "reason", "detail", "raw", "raw_length", "sha256",
    ]  # fmt: skip
    assert (len(beside), caplog.text, capfd.readouterr()) == (0, "", ("", ""))


def test_several_streams_come_as_a_dict(redis, redis_url):
    publish_trades(redis, 2, quantity=[1, 2])
    frames = load([STREAM, "ai.events"], url=redis_url, as_="arrow")
    assert list(frames) == [STREAM, "ai.events"]
    assert [frame.num_rows for frame in frames.values()] == [2, 0]
    assert isinstance(frames[STREAM], pa.Table)


@pytest.mark.usefixtures("arrivals")
def test_start_and_end_select_by_arrival(redis_url):
    assert prices(redis_url, start="202000-0", end="204000-0") == [2, 3, 4]
    assert prices(redis_url, start="(202000-0", end="(204000") == [3]
    iso = {
        name: format_timestamp(ms) for name, ms in [("start", 202000), ("end", 204000)]
    }
    assert prices(redis_url, **iso) == [2, 3]
    moment = datetime.fromtimestamp(207, UTC)
    assert prices(redis_url, start=moment) == [7, 8, 9]
    assert prices(redis_url, start="-2s") == [7, 8, 9]
    assert prices(redis_url, end="-7s") == [0, 1]
    assert prices(redis_url, end="(0-0") == []


@pytest.mark.usefixtures("arrivals")
def test_relative_ends_count_from_the_newest_entry_of_all_streams(redis, redis_url):
    redis.xadd("ai.events", spoiled(), id="211000-0")
    frames = load([STREAM, "ai.events"], url=redis_url, start="-3s")
    assert frames[STREAM]["price"].to_list() == [8, 9]


@pytest.mark.usefixtures("arrivals")
def test_event_start_and_end_select_by_event_time(redis_url):
    span = {"event_start": "1970-01-01T00:01:42Z", "event_end": "1970-01-01T00:01:44Z"}
    assert prices(redis_url, **span) == [2, 3]
    assert prices(redis_url, event_start=span["event_start"], end="203000-0") == [2, 3]


def test_limit_gives_the_first_rows_that_are_wanted(redis, redis_url):
    publish_trades(redis, PAGE + 10, quantity=np.ones(PAGE + 10))
    Publisher(redis).publish_many(mixed_events())
    assert len(load(STREAM, url=redis_url, limit=7)) == 7
    assert len(load(STREAM, url=redis_url, limit=PAGE + 1)) == PAGE + 1
    late = load(STREAM, url=redis_url, limit=1, types="market.data.collected")
    assert late["type"].to_list() == ["market.data.collected"]


def test_types_narrow_rows_and_columns(redis, redis_url):
    Publisher(redis).publish_many(mixed_events())
    frame = load(STREAM, url=redis_url, types=["market.trade", "market.quote"])
    assert frame["type"].to_list() == ["market.trade"]
    assert frame.columns == [
        "event_time", "type", "symbol", "price", "quantity", "side", "venue",
        "bid", "ask", "bid_size", "ask_size", "event_id", "entry_id",
    ]  # fmt: skip
    assert frame.schema["ask_size"] == pl.Float64


def test_columns_narrow_the_payload_in_the_order_asked_for(redis, redis_url):
    Publisher(redis).publish_many(mixed_events())
    frame = load(STREAM, url=redis_url, columns=["venue", "price", "@user_id"])
    assert frame.columns == [
        "event_time", "type", "venue", "price", "event_id", "entry_id", "@user_id",
    ]  # fmt: skip
    assert frame["price"].to_list() == [0.1, None, None]
    assert frame["@user_id"].to_list() == [None, None, "u1"]


def test_the_frames_own_columns_may_be_among_those_asked_for(redis, redis_url):
    frame = load(STREAM, url=redis_url, columns=["event_time", "price"])
    assert frame.columns == ["event_time", "type", "price", "event_id", "entry_id"]


def test_no_columns_leave_the_frames_own(redis, redis_url):
    Publisher(redis).publish_many(mixed_events())
    frame = load(STREAM, url=redis_url, columns=[])
    assert frame.columns == ["event_time", "type", "event_id", "entry_id"]
    assert len(frame) == 3


@pytest.mark.parametrize("form", ["polars", "pandas", "arrow"])
def test_an_empty_stream_has_the_columns_of_its_types(redis_url, form):
    frame = load(STREAM, url=redis_url, as_=form, envelope=True)
    assert len(frame) == 0
    columns = frame.column_names if form == "arrow" else list(frame.columns)
    assert {"price", "bid", "volume", "keywords", "@version"} <= set(columns)
    frame = load(STREAM, url=redis_url, types="market.bar")
    assert frame.schema["interval_ms"] == pl.Int64


def test_an_empty_frame_has_the_types_of_a_full_one(redis, redis_url):
    empty = load(STREAM, url=redis_url, envelope=True)
    Publisher(redis).publish_many(mixed_events())
    full = load(STREAM, url=redis_url, envelope=True)
    assert dict(full.schema).items() <= dict(empty.schema).items()


def test_a_type_away_from_home_is_loaded_with_its_fields(redis, redis_url):
    alert = Event.new(
        "trend.alert.generated",
        {
            "rule": "r", "rule_version": 1, "key": "A", "severity": "info",
            "title": "t", "values": {"a": 1.0},
        },
        stream=STREAM,
    )  # fmt: skip
    Publisher(redis).publish(alert)
    [row] = load(STREAM, url=redis_url).to_dicts()
    assert (row["rule"], json.loads(row["values"])) == ("r", {"a": 1.0})


def test_a_users_own_stream_and_type_are_loaded(redis, redis_url):
    mine = registry.copy()

    @mine.register("ops.note", stream="ops.notes")
    class Note(BaseModel):
        type: str
        entry_id: int
        urgent: bool = False

    event = Event.new(
        "ops.note", {"type": "x", "entry_id": 5, "urgent": True}, registry=mine
    )
    Publisher(redis, registry=mine).publish(event)
    frame = load("ops.notes", url=redis_url, registry=mine)
    assert frame["data.type"].to_list() == ["x"]
    assert frame["data.entry_id"].to_list() == [5]
    assert frame["urgent"].to_list() == [True]
    narrow = load("ops.notes", url=redis_url, registry=mine, columns=["data.type"])
    assert narrow.columns == ["event_time", "type", "data.type", "event_id", "entry_id"]


def test_a_stream_without_types_of_its_own_is_loaded(redis, redis_url):
    redis.xadd("market.backup", spoiled(stream=b"market.backup"))
    assert prices_of("market.backup", redis_url) == [1.5]


def prices_of(stream, url):
    return load(stream, url=url, columns=["price"])["price"].to_list()


@pytest.mark.parametrize("url", [None, "sample"])
def test_an_unknown_stream_names_the_near_one(redis_url, url):
    with pytest.raises(
        UsageError, match=r"'market.event'.*Did you mean 'market.events'"
    ):
        load("market.event", url=url or redis_url)


@pytest.mark.parametrize(
    ("how", "error", "said"),
    [
        (
            {"types": "market.trad"},
            UnknownEventTypeError,
            "Did you mean 'market.trade'",
        ),
        ({"columns": ["prcie"]}, UsageError, "'prcie'. Did you mean 'price'"),
        (
            {"types": "market.bar", "columns": ["bid"]},
            UsageError,
            "No event type looked for on market.events has a field 'bid'",
        ),
        ({"columns": "price"}, UsageError, "columns is the text 'price'. Pass a list"),
        ({"as_": "panda"}, UsageError, "as_ is 'panda'. Did you mean 'pandas'"),
        ({"limit": 0}, UsageError, "limit is 0. Pass at least 1"),
        ({"start": "soon"}, UsageError, "start is 'soon' .str., which is no time"),
    ],
)
def test_what_cannot_be_loaded_is_said(how, error, said):
    with pytest.raises(error, match=said):
        load(STREAM, url="sample", **how)


def test_a_key_that_is_no_stream_is_said(redis, redis_url):
    redis.set("market.other", "x")
    with pytest.raises(UsageError, match="not a stream"):
        load("market.other", url=redis_url)


def test_a_server_that_is_not_there_is_said(tmp_path):
    with pytest.raises(ConnectionFailedError, match="Cannot use Redis at unix://"):
        load(STREAM, url=f"unix://{tmp_path}/none.sock")


def test_the_server_of_the_environment_is_the_default(redis, redis_url, monkeypatch):
    monkeypatch.setenv("CEP_REDIS_URL", redis_url)
    publish_trades(redis, 1, quantity=[1])
    assert len(cep.load(STREAM)) == 1


def test_the_sample_is_loaded_without_a_server(monkeypatch):
    monkeypatch.setenv("CEP_REDIS_URL", "redis://127.0.0.1:1/0")
    frames = load(sample.streams(), url="sample")
    for stream, frame in frames.items():
        plain = sample.frame(stream)
        assert_frame_equal(
            frame.select(plain.columns),
            plain,
            categorical_as_str=True,
            check_dtypes=False,
        )
        ids = columns_from_frame(frame)
        pairs = list(zip(ids.entry_ms.tolist(), ids.entry_seq.tolist(), strict=True))
        assert pairs == sorted(set(pairs))
        assert frame["event_id"].n_unique() == len(frame)
        assert ids.entry_ms.tolist() == np.maximum.accumulate(ids.time_ms).tolist()
    again = load(sample.streams(), url="sample")
    assert all(again[stream].equals(frames[stream]) for stream in frames)


def test_the_sample_is_narrowed_like_a_stream():
    whole = load(STREAM, url="sample", envelope=True)
    assert whole["@version"].unique().to_list() == [1]
    assert whole["@metadata"].unique().to_list() == ["{}"]
    assert whole["@user_id"].null_count() == len(whole)
    part = load(
        STREAM, url="sample", start="-10s", types="market.quote", columns=["bid"]
    )
    assert part.columns == ["event_time", "type", "bid", "event_id", "entry_id"]
    wanted = whole.filter(
        pl.col("type") == "market.quote",
        pl.col("entry_id").str.head(13).cast(pl.Int64)
        >= int(whole["entry_id"][-1][:13]) - 10_000,
    )
    assert part.equals(wanted.select(part.columns))
    first, last = part["entry_id"][0], part["entry_id"][-1]
    same = load(STREAM, url="sample", start=first, end=last, types="market.quote")
    assert same["entry_id"].to_list() == part["entry_id"].to_list()


@pytest.mark.slow
def test_replaying_the_sample_loads_as_the_sample_itself(redis, redis_url):
    from cep.bus.replay import Track, replay_tracks

    tracks = [Track(name, sample.frame(name)) for name in sample.streams()]
    replay_tracks(Publisher(redis), tracks)
    for stream in sample.streams():
        live = load(stream, url=redis_url).drop("event_id", "entry_id")
        bundled = load(stream, url="sample").drop("event_id", "entry_id")
        assert_frame_equal(live, bundled)
