from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from pydantic import BaseModel, Field

from cep.bus.connection import connect_redis
from cep.bus.publisher import Publisher
from cep.errors import (
    ConnectionFailedError,
    InvalidPayloadError,
    UnknownEventTypeError,
    UsageError,
)
from cep.events.codec import FIELDS, decode
from cep.events.envelope import Event
from cep.events.registry import Registry, registry

STREAM = "market.events"
START = 1_700_000_000_000


def events_in(redis, stream=STREAM, registry=registry):
    entries = redis.execute_command("XRANGE", stream, "-", "+")
    return [
        decode(fields, stream_key=stream, entry_id=entry, registry=registry)
        for entry, fields in entries
    ]


def trades(**changes):
    return {
        "symbol": ["BTC", "ETH", "BTC"],
        "price": [1.5, 2.0, 3.25],
        "quantity": np.array([1, 2, 3]),
    } | changes


def times(n=3):
    return np.arange(n) + START


def test_one_event_reads_back_equal(redis):
    event = Event.new(
        "market.trade",
        {"symbol": "Ω", "price": 1.5, "quantity": 2, "own": [1, {"a": None}]},
        correlation_id="c",
        metadata={"why": "test"},
    )
    entry = Publisher(redis).publish(event)
    assert redis.execute_command("XRANGE", STREAM, entry, entry)
    assert events_in(redis) == [event]


def test_many_events_keep_their_order_over_chunks(redis):
    events = [
        Event.new("market.trade", {"symbol": str(i), "price": 1, "quantity": 1})
        for i in range(2500)
    ]
    entries = Publisher(redis).publish_many(events)
    assert [entry for entry, _ in redis.xrange(STREAM)] == [e.encode() for e in entries]
    assert events_in(redis) == events
    assert Publisher(redis).publish_many([]) == []


def test_unknown_type_and_bad_payload_write_nothing(redis):
    good = Event.new("market.trade", {"symbol": "a", "price": 1, "quantity": 1})
    bad = good.model_copy(update={"data": {"symbol": "a", "price": "x", "quantity": 1}})
    with pytest.raises(InvalidPayloadError, match=r"data\.price is 'x'"):
        Publisher(redis).publish_many([good, bad])
    with pytest.raises(UnknownEventTypeError):
        Publisher(redis).publish_columns("s", "market.trad", {}, event_time=[])
    assert redis.dbsize() == 0


def test_columns_become_events_of_nine_fields(redis):
    written = Publisher(redis).publish_columns(
        STREAM,
        "market.trade",
        trades(side=["buy", None, "sell"], extra=[[1], {"a": 2}, None]),
        event_time=times(),
        correlation_id=["x", None, ""],
        user_id="Ω%d",
        metadata={"a%": 1},
    )
    assert written == 3
    for _, fields in redis.xrange(STREAM):
        assert tuple(name.decode() for name in fields) == FIELDS
    events = events_in(redis)
    assert [event.data for event in events] == [
        {"symbol": "BTC", "price": 1.5, "quantity": 1, "side": "buy", "extra": [1]},
        {"symbol": "ETH", "price": 2.0, "quantity": 2, "extra": {"a": 2}},
        {"symbol": "BTC", "price": 3.25, "quantity": 3, "side": "sell"},
    ]
    assert [event.time_ms for event in events] == times().tolist()
    assert [event.correlation_id for event in events] == ["x", None, None]
    assert {event.user_id for event in events} == {"Ω%d"}
    assert {str(event.metadata) for event in events} == {"{'a%': 1}"}


@pytest.mark.parametrize("library", ["polars", "pandas", "arrow", "numpy"])
def test_columns_of_every_library_give_the_same_events(redis, library):
    data = trades(side=["buy", None, "sell"])
    moments = [datetime.fromtimestamp(ms / 1000, UTC) for ms in times().tolist()]
    columns, event_time = data, times()
    if library == "polars":
        columns = pl.DataFrame(data)
        event_time = pl.Series(moments)
    elif library == "pandas":
        columns = pd.DataFrame(data)
        event_time = pd.Series(moments).dt.tz_convert("Asia/Tokyo")
    elif library == "arrow":
        columns = {name: pa.array(values) for name, values in data.items()}
        event_time = moments
    else:
        columns = {name: np.array(values) for name, values in data.items()}
        event_time = times().astype("datetime64[ms]")
    Publisher(redis).publish_columns(
        STREAM, "market.trade", columns, event_time=event_time
    )
    events = events_in(redis)
    assert [event.data.get("side") for event in events] == data["side"]
    assert [event.data["price"] for event in events] == data["price"]
    assert [event.time_ms for event in events] == times().tolist()


def test_numeric_nulls_leave_the_field_out(redis):
    base = {"symbol": ["a", "b"], "bid": [1.0, 2.0], "ask": [1.0, 2.0]}
    for size in (
        [0.5, None],
        pl.Series([0.5, None]),
        pd.Series([0.5, None]),
        pa.array([0.5, None]),
    ):
        redis.delete(STREAM)
        Publisher(redis).publish_columns(
            STREAM, "market.quote", base | {"bid_size": size}, event_time=times(2)
        )
        first, second = events_in(redis)
        assert first.data["bid_size"] == 0.5
        assert "bid_size" not in second.data


def test_floats_are_written_so_that_they_read_back_exactly(redis):
    rng = np.random.default_rng(7)
    prices = np.concatenate(
        [
            rng.normal(size=500),
            10.0 ** rng.integers(-300, 300, 500),
            [5e-324, 1.7976931348623157e308, -0.0, 2.0**53 + 1, 0.1 + 0.2],
        ]
    )
    n = len(prices)
    Publisher(redis).publish_columns(
        STREAM,
        "market.trade",
        {
            "symbol": ["a"] * n,
            "price": prices,
            "quantity": np.float32(prices[:1]).repeat(n),
        },
        event_time=np.full(n, START),
    )
    events = events_in(redis)
    assert [event.data["price"] for event in events] == prices.tolist()


WRONG = [
    ({"price": np.array([1.0, np.nan, 2.0])}, "data.price[1] is nan (float)"),
    ({"price": [1.0, 2.0, float("inf")]}, "data.price[2] is inf (float)"),
    ({"price": [1.0, "2", 3.0]}, "data.price[1] is '2' (str)"),
    ({"price": [1.0, True, 3.0]}, "data.price[1] is True (bool)"),
    ({"price": np.array([True] * 3)}, "data.price[0] is True (bool)"),
    ({"price": [1.0, 10**400, 3.0]}, "data.price[1] is 1000"),
    ({"price": [1.0, None, 3.0]}, "data.price[1] is null, allowed: a finite number."),
    ({"symbol": ["a", "", "b"]}, "data.symbol[1] is '' (str)"),
    ({"symbol": ["a", "\ud800", "b"]}, "text without lone surrogates"),
    ({"symbol": np.arange(3)}, "data.symbol[0] is 0 (int)"),
    ({"symbol": [b"a", "b", "c"]}, "data.symbol[0] is b'a' (bytes)"),
    ({"extra": [1.0, np.nan, 2.0]}, "data.extra[1] is nan (float)"),
    ({"extra": [{"a": {1}}, 1, 2]}, "data.extra[0].a is {1} (set)"),
]


@pytest.mark.parametrize(("changes", "said"), WRONG)
def test_wrong_value_is_named_by_type_place_and_what_is_allowed(redis, changes, said):
    with pytest.raises(InvalidPayloadError) as caught:
        Publisher(redis).publish_columns(
            STREAM, "market.trade", trades(**changes), event_time=times()
        )
    assert said in str(caught.value)
    assert "market.trade" in str(caught.value)
    assert "Nothing was written" in str(caught.value)
    assert redis.dbsize() == 0


def test_choices_are_closed_and_integers_whole_for_publishing(redis):
    columns = {
        "collection_id": ["a", "b"],
        "data_source": ["reddit", "redit"],
        "data_type": ["trend", "trend"],
        "records_collected": np.array([5.0, 5.5]),
        "collection_time_ms": [1, 2],
        "data_quality_score": [1, 2],
    }
    with pytest.raises(InvalidPayloadError) as caught:
        Publisher(redis).publish_columns(
            STREAM, "market.data.collected", columns, event_time=times(2)
        )
    paths = [problem.path for problem in caught.value.problems]
    assert paths == ["data.data_source[1]", "data.records_collected[1]"]
    columns["data_source"][1] = "reddit"
    columns["records_collected"] = [2.0, np.int64(7)]
    Publisher(redis).publish_columns(
        STREAM, "market.data.collected", columns, event_time=times(2)
    )
    assert [e.data["records_collected"] for e in events_in(redis)] == [2, 7]


def test_missing_column_names_its_near_miss(redis):
    columns = trades()
    columns["prcie"] = columns.pop("price")
    with pytest.raises(InvalidPayloadError, match="'prcie' a slip"):
        Publisher(redis).publish_columns(
            STREAM, "market.trade", columns, event_time=times()
        )


@pytest.mark.parametrize(
    "event_time",
    [
        [START, START, -1],
        [START, START, None],
        [START, START, datetime(2024, 1, 1)],  # noqa: DTZ001
        np.array([START, START, 10**15]),
        np.array(["2024-01-01", "2024-01-01", "NaT"], "datetime64[ms]"),
        np.array(["2024-01-01", "2024-01-01", "1969-12-31"], "datetime64[us]"),
        [START, START, "2024-01-01"],
        np.array([START, START, np.nan]),
    ],
)
def test_event_time_outside_what_is_allowed_is_an_error(redis, event_time):
    with pytest.raises(InvalidPayloadError, match=r"timestamp\[2\]"):
        Publisher(redis).publish_columns(
            STREAM, "market.trade", trades(), event_time=event_time
        )
    assert redis.dbsize() == 0


def test_aware_datetimes_of_any_zone_are_taken_to_the_millisecond(redis):
    zone = timezone(timedelta(hours=5, minutes=30))
    moment = datetime(2024, 1, 1, 5, 30, 0, 1999, tzinfo=zone)
    Publisher(redis).publish_columns(
        STREAM, "market.trade", trades(), event_time=[moment] * 3
    )
    assert {e.timestamp for e in events_in(redis)} == {
        datetime(2024, 1, 1, 0, 0, 0, 1000, tzinfo=UTC)
    }


def test_lengths_that_differ_are_told(redis):
    publisher = Publisher(redis)
    with pytest.raises(UsageError, match="symbol: 3, price: 2"):
        publisher.publish_columns(
            STREAM, "market.trade", trades(price=[1, 2]), event_time=times()
        )
    with pytest.raises(UsageError, match="2 event times for 3 events"):
        publisher.publish_columns(STREAM, "market.trade", trades(), event_time=times(2))
    with pytest.raises(UsageError, match="1 ids for 3 events"):
        publisher.publish_columns(
            STREAM, "market.trade", trades(), event_time=times(), ids=["x"]
        )
    assert (
        publisher.publish_columns(
            STREAM,
            "market.trade",
            {"symbol": [], "price": [], "quantity": []},
            event_time=[],
        )
        == 0
    )
    assert redis.dbsize() == 0


def test_made_ids_sort_by_event_time_and_then_by_order(redis):
    n = 1500
    time_ms = START + np.arange(n) // 500
    Publisher(redis).publish_columns(
        STREAM,
        "market.trade",
        {"symbol": ["a"] * n, "price": np.arange(n), "quantity": np.ones(n)},
        event_time=time_ms,
    )
    ids = [event.id for event in events_in(redis)]
    assert ids == sorted(set(ids))
    assert Event(id=ids[0], stream="s", type="t", timestamp=datetime.now(UTC), data={})


def test_given_ids_are_kept_or_refused(redis):
    ids = [
        Event.new("market.trade", e).id
        for e in [{"symbol": "a", "price": 1, "quantity": 1}] * 3
    ]
    publisher = Publisher(redis)
    publisher.publish_columns(
        STREAM, "market.trade", trades(), event_time=times(), ids=ids
    )
    assert [event.id for event in events_in(redis)] == ids
    with pytest.raises(InvalidPayloadError, match=r"id\[1\]"):
        publisher.publish_columns(
            STREAM,
            "market.trade",
            trades(),
            event_time=times(),
            ids=[ids[0], ids[1].lower(), ids[2]],
        )


def test_entry_too_large_to_be_read_is_refused(redis):
    with pytest.raises(InvalidPayloadError, match=r"the entry \[1\] is 3"):
        Publisher(redis).publish_columns(
            STREAM,
            "market.trade",
            trades(symbol=["a", "\u0001" * 50_000, "c"]),
            event_time=times(),
        )
    assert redis.dbsize() == 0


def test_own_model_is_asked_for_each_row(redis):
    mine = Registry()

    @mine.register("own.type", stream="own.events")
    class Own(BaseModel):
        share: float = Field(gt=0, lt=1)
        when: datetime | None = None

    publisher = Publisher(redis, registry=mine)
    with pytest.raises(InvalidPayloadError) as caught:
        publisher.publish_columns(
            "own.events", "own.type", {"share": [0.5, 2.0]}, event_time=times(2)
        )
    assert caught.value.problems[0].path == "data.share[1]"
    moment = datetime(2024, 1, 1, tzinfo=UTC)
    publisher.publish_columns(
        "own.events",
        "own.type",
        {"share": np.array([0.5, 0.25]), "when": [moment, None]},
        event_time=times(2),
    )
    events = events_in(redis, "own.events", mine)
    assert [event.data["share"] for event in events] == [0.5, 0.25]
    assert [event.data.get("when") for event in events] == [
        "2024-01-01T00:00:00Z",
        None,
    ]


def test_progress_rises_to_all(redis):
    n, calls = 2500, []
    Publisher(redis).publish_columns(
        STREAM,
        "market.trade",
        {"symbol": ["a"] * n, "price": np.ones(n), "quantity": np.ones(n)},
        event_time=np.full(n, START),
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(1000, n), (2000, n), (2500, n)]


def test_maxlen_trims_what_is_old(redis):
    n = 5000
    Publisher(redis, maxlen=100).publish_columns(
        STREAM,
        "market.trade",
        {"symbol": ["a"] * n, "price": np.ones(n), "quantity": np.ones(n)},
        event_time=np.full(n, START),
    )
    assert 100 <= redis.xlen(STREAM) < 1000
    with pytest.raises(UsageError):
        Publisher(redis, maxlen=0)


def test_key_that_is_no_stream_is_told_and_the_client_still_works(redis):
    redis.set(STREAM, "text")
    n = 2500
    with pytest.raises(UsageError, match="not a stream"):
        Publisher(redis).publish_columns(
            STREAM,
            "market.trade",
            {"symbol": ["a"] * n, "price": np.ones(n), "quantity": np.ones(n)},
            event_time=np.full(n, START),
        )
    assert redis.get(STREAM) == b"text"


def test_lost_connection_says_how_much_was_confirmed(server, redis):
    n = 3000

    def cut(done, total):
        redis.client_kill_filter(_type="normal", skipme=True)

    with connect_redis(server.url) as client:
        with pytest.raises(ConnectionFailedError) as caught:
            Publisher(client).publish_columns(
                STREAM,
                "market.trade",
                {"symbol": ["a"] * n, "price": np.ones(n), "quantity": np.ones(n)},
                event_time=np.full(n, START),
                progress=cut,
            )
        confirmed = int(str(caught.value).partition("(")[2].split()[0])
        assert f"{confirmed} of 3000 events were confirmed" in str(caught.value)
        assert 1000 <= confirmed <= redis.xlen(STREAM) <= n
        assert client.ping()


def test_stopping_in_the_middle_leaves_the_client_usable(redis):
    def stop(done, total):
        raise KeyboardInterrupt

    n = 3000
    with pytest.raises(KeyboardInterrupt):
        Publisher(redis).publish_columns(
            STREAM,
            "market.trade",
            {"symbol": ["a"] * n, "price": np.ones(n), "quantity": np.ones(n)},
            event_time=np.full(n, START),
            progress=stop,
        )
    assert redis.ping() is True


def test_types_are_interleaved_in_the_given_order(redis):
    trades = {"symbol": ["A", "B", "C"], "price": [1, 2, 3], "quantity": [1, 1, 1]}
    quotes = {"symbol": ["D", "E"], "bid": [1, 2], "ask": [3, 4]}
    batches = [
        ("market.trade", trades, [10, 20, 30]),
        ("market.quote", quotes, [15, 25]),
    ]
    written = Publisher(redis).publish_mixed("market.events", batches, [0, 1, 1, 0, 0])
    events = events_in(redis)
    assert written == 5
    assert [event.data["symbol"] for event in events] == ["A", "D", "E", "B", "C"]
    kinds = [event.type.removeprefix("market.") for event in events]
    assert kinds == ["trade", "quote", "quote", "trade", "trade"]


@pytest.mark.parametrize("order", [[0], [0, 0, 0], [0, 1], []])
def test_an_order_that_does_not_fit_its_batches_writes_nothing(redis, order):
    columns = {"symbol": ["A", "B"], "price": [1, 2], "quantity": [1, 1]}
    with pytest.raises(UsageError, match="does not name each batch once per row"):
        Publisher(redis).publish_mixed("s", [("market.trade", columns, [1, 2])], order)
    assert not redis.exists("s")
