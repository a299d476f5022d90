import hashlib
import json
import socket
import threading

import numpy as np
import pytest

from cep.bus.connection import connect_redis
from cep.bus.embedded import EmbeddedServer
from cep.bus.publisher import Publisher
from cep.bus.reader import (
    ColumnarReader,
    decode_entries,
    iterate_range,
    read_ids,
    read_range,
)
from cep.errors import ConnectionFailedError, UnknownEventTypeError, UsageError
from cep.events.codec import encode
from cep.events.envelope import Event
from cep.events.ids import words_to_ulid
from cep.events.reasons import Reason

STREAM = "market.events"
START = 1_700_000_000_000


def publish_trades(redis, n, *, stream=STREAM, first=0, **more):
    number = np.arange(first, first + n)
    Publisher(redis).publish_columns(
        stream,
        "market.trade",
        {
            "symbol": [f"S{i % 5}" for i in number],
            "price": number / 4,
            "quantity": number,
            **more,
        },
        event_time=START + number,
    )


def trade(**changes):
    """An entry of nine fields, some replaced by bytes or left out with None."""
    event = Event.new("market.trade", {"symbol": "Ω", "price": 1.5, "quantity": 2})
    fields = encode(event)
    for name, value in changes.items():
        if value is None:
            del fields[name.encode()]
        else:
            fields[name.encode()] = value
    return fields


def test_pages_hold_typed_columns_of_what_was_published(redis):
    publish_trades(redis, 5, side=["buy", None, "sell", None, "buy"])
    [page] = ColumnarReader(redis, [STREAM]).read()
    columns = page.columns
    assert page.stream == STREAM
    assert page.entries_read == len(columns) == 5
    assert page.bad == []
    assert page.rows.tolist() == [0, 1, 2, 3, 4]
    assert columns.types == ["market.trade"]
    assert columns.type_code.tolist() == [0] * 5
    assert columns.time_ms.tolist() == [START + i for i in range(5)]
    assert columns.fields["price"].to_list() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert columns.fields["price"].valid is None
    assert columns.fields["symbol"].texts == ["S0", "S1", "S2", "S3", "S4"]
    assert columns.fields["side"].to_list() == ["buy", None, "sell", None, "buy"]
    entries = redis.xrange(STREAM)
    assert page.first_id == entries[0][0]
    assert page.last_id == entries[-1][0]
    assert [
        b"%d-%d" % pair
        for pair in zip(columns.entry_ms, columns.entry_seq, strict=True)
    ] == [entry for entry, _ in entries]
    assert [
        words_to_ulid(*pair).encode()
        for pair in zip(columns.id_hi, columns.id_lo, strict=True)
    ] == [fields[b"id"] for _, fields in entries]


def test_many_entries_come_in_order_and_once(redis):
    publish_trades(redis, 50_000)
    reader = ColumnarReader(redis, [STREAM], count=1777)
    seen = []
    while not reader.exhausted[STREAM]:
        for page in reader.read():
            seen += page.columns.fields["quantity"].values.tolist()
    assert seen == list(range(50_000))
    assert reader.read() == []


def test_columns_asked_for_are_there_in_each_page(redis):
    redis.xadd(STREAM, trade())
    reader = ColumnarReader(
        redis,
        [STREAM],
        fields={"market.trade": ["price", "@user_id"], "market.bar": ["volume"]},
    )
    [page] = reader.read()
    assert list(page.columns.fields) == ["price", "volume", "@user_id"]
    assert page.columns.fields["volume"].to_list() == [None]
    assert page.columns.fields["@user_id"].to_list() == [None]


def test_envelope_fields_on_request(redis):
    event = Event.new(
        "market.trade",
        {"symbol": "a", "price": 1, "quantity": 1},
        correlation_id="c1",
        metadata={"k": [1, 2]},
    )
    Publisher(redis).publish(event)
    page = read_range(
        redis,
        STREAM,
        envelope=["@metadata", "@version", "@correlation_id", "@user_id"],
    )
    values = {name: one.to_list() for name, one in page.columns.fields.items()}
    assert values["@version"] == [1]
    assert values["@correlation_id"] == ["c1"]
    assert values["@user_id"] == [None]
    assert values["@metadata"] == ['{"k":[1,2]}']


def test_nested_values_come_as_their_json_text(redis):
    data = b'{"collection_id":"a","data_source":"x","keywords": ["k" , "l"],'
    data += b'"user_ids":[]}'
    redis.xadd(STREAM, trade(type=b"market.data.collection.started", data=data))
    page = read_range(redis, STREAM)
    assert page.bad == []
    column = page.columns.fields["keywords"]
    assert (column.kind, column.to_list()) == ("json", ['["k" , "l"]'])
    assert page.columns.fields["data_source"].to_list() == ["x"]


def test_asking_for_what_there_is_not_names_the_near_one(redis):
    with pytest.raises(UsageError, match="Did you mean 'price'"):
        ColumnarReader(redis, [STREAM], fields={"market.trade": ["prcie"]})
    with pytest.raises(UnknownEventTypeError, match=r"market\.trade"):
        ColumnarReader(redis, [STREAM], fields={"market.trad": ["price"]})
    with pytest.raises(UsageError, match="@user_id"):
        ColumnarReader(redis, [STREAM], envelope=["@user"])
    with pytest.raises(UsageError, match="twice"):
        ColumnarReader(redis, [STREAM, STREAM])
    with pytest.raises(UsageError, match="list"):
        ColumnarReader(redis, STREAM)
    with pytest.raises(UsageError, match="entry id"):
        ColumnarReader(redis, [STREAM], start={STREAM: b"yesterday"})
    with pytest.raises(UsageError, match="not among"):
        ColumnarReader(redis, [STREAM], start={"other": b"0-0"})


BAD = {
    "two not utf-8": (trade(user_id=b"\xff"), Reason.NOT_UTF8),
    "no id": (trade(id=None), Reason.MISSING_ENVELOPE_FIELD),
    "bad id": (trade(id=b"01ARZ3NDEKTSV4RRFFQ69G5FAU"), Reason.BAD_ID),
    "bad time": (trade(timestamp=b"yesterday"), Reason.BAD_TIMESTAMP),
    "2099": (trade(timestamp=b"2099-01-01T00:00:00.000Z"), Reason.FUTURE_TIMESTAMP),
    "version": (trade(version=b"01"), Reason.BAD_VERSION),
    "version 7": (trade(version=b"7"), Reason.UNKNOWN_VERSION),
    "stream": (trade(stream=b"ai.events"), Reason.STREAM_MISMATCH),
    "type": (trade(type=b"market.trad"), Reason.UNKNOWN_TYPE),
    "json": (trade(data=b'{"symbol":"a"'), Reason.MALFORMED_JSON),
    "nan": (
        trade(data=b'{"symbol":"a","price":NaN,"quantity":1}'),
        Reason.MALFORMED_JSON,
    ),
    "list": (trade(data=b"[1]"), Reason.NOT_AN_OBJECT),
    "metadata": (trade(metadata=b""), Reason.MALFORMED_JSON),
    "missing": (trade(data=b'{"symbol":"a","price":1}'), Reason.MISSING_FIELD),
    "text": (
        trade(data=b'{"symbol":"a","price":"1","quantity":1}'),
        Reason.WRONG_TYPE,
    ),
    "null": (
        trade(data=b'{"symbol":null,"price":1,"quantity":1}'),
        Reason.WRONG_TYPE,
    ),
    "empty": (
        trade(data=b'{"symbol":"","price":1,"quantity":1}'),
        Reason.WRONG_TYPE,
    ),
    "deep": (
        trade(
            data=b'{"symbol":"a","price":1,"quantity":1,"x":%s}'
            % (b"[" * 40 + b"]" * 40)
        ),
        Reason.TOO_LARGE,
    ),
    "large": (trade(user_id=b"x" * 300_000), Reason.TOO_LARGE),
    "nothing of ours": ({b"a": b"b"}, Reason.MISSING_ENVELOPE_FIELD),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_entry_is_told_apart_from_its_good_neighbours(redis, case):
    fields, reason = BAD[case]
    ids = [redis.xadd(STREAM, one) for one in (trade(), fields, trade(), fields)]
    [page] = ColumnarReader(redis, [STREAM]).read()
    assert len(page.columns) == 2
    assert page.rows.tolist() == [0, 2]
    assert page.bad_rows.tolist() == [1, 3]
    assert [bad.reason for bad in page.bad] == [reason] * 2
    assert page.entries_read == len(page.columns) + len(page.bad)
    bad = page.bad[0]
    raw = b"\n".join(name + b"=" + value for name, value in fields.items())
    assert bad.stream == STREAM
    assert bad.entry_id == ids[1].decode()
    assert bad.raw == raw[:4096]
    assert bad.raw_length == len(raw)
    assert bad.sha256 == hashlib.sha256(raw).hexdigest()
    assert bad.detail
    assert page.columns.fields["symbol"].to_list() == ["Ω", "Ω"]


def test_future_tolerance_can_be_set_or_lifted(redis):
    redis.xadd(STREAM, trade(timestamp=b"2099-01-01T00:00:00.000Z"))
    assert read_range(redis, STREAM).bad[0].reason == Reason.FUTURE_TIMESTAMP
    assert read_range(redis, STREAM, future_tolerance_ms=None).bad == []
    redis.delete(STREAM)
    redis.xadd(STREAM, trade(timestamp=b"1970-01-01T00:00:00.501Z"), id="500-1")
    assert read_range(redis, STREAM, future_tolerance_ms=1).bad == []
    assert len(read_range(redis, STREAM, future_tolerance_ms=0).bad) == 1


def test_field_that_occurs_twice_counts_last(redis):
    words = [word for pair in trade(user_id=b"first").items() for word in pair]
    redis.execute_command("XADD", STREAM, "*", *words, "user_id", "last", "more", "x")
    page = read_range(redis, STREAM, envelope=["@user_id"])
    assert page.columns.fields["@user_id"].to_list() == ["last"]


def test_entry_id_beyond_63_bits_is_a_bad_row(redis):
    redis.xadd(STREAM, trade(), id=f"5-{2**64 - 1}")
    redis.xadd(STREAM, trade(), id=f"{2**63}-0")
    page = read_range(redis, STREAM)
    assert [bad.reason for bad in page.bad] == [Reason.BAD_ID] * 2
    assert page.last_id == b"%d-0" % 2**63


def test_each_stream_gets_its_page_however_full_the_others_are(redis):
    publish_trades(redis, 3000)
    publish_trades(redis, 3, stream="other.events")
    reader = ColumnarReader(redis, [STREAM, "other.events", "empty.events"], count=1000)
    pages = {page.stream: page for page in reader.read()}
    assert {stream: page.entries_read for stream, page in pages.items()} == {
        STREAM: 1000,
        "other.events": 3,
    }
    assert reader.exhausted == {
        STREAM: False,
        "other.events": True,
        "empty.events": True,
    }


def test_paused_streams_are_not_asked_for_until_they_are_again(redis):
    for stream in (STREAM, "other.events"):
        publish_trades(redis, 40, stream=stream)
    reader = ColumnarReader(redis, [STREAM, "other.events"], count=10)
    reader.paused = {STREAM}
    assert [page.stream for page in reader.read()] == ["other.events"]
    assert [page.stream for page in reader.read()] == ["other.events"]
    assert reader.positions[STREAM] == b"0-0"
    assert not reader.exhausted[STREAM]
    reader.paused = set()
    reader.read()  # was asked for before
    pages = [page for _ in range(4) for page in reader.read()]
    assert sum(page.entries_read for page in pages if page.stream == STREAM) == 40
    reader.paused = {STREAM, "other.events"}
    publish_trades(redis, 5)
    assert [page.entries_read for page in reader.read()] == [5]


def test_a_stream_read_to_its_end_beside_a_paused_one_is_asked_for_once(redis):
    publish_trades(redis, 10)
    publish_trades(redis, 5, stream="other.events")
    reader = ColumnarReader(redis, [STREAM, "other.events"], count=10)
    reader.paused = {"other.events"}
    read = [page.entries_read for _ in range(4) for page in reader.read()]
    assert read == [10]
    reader.paused = set()
    pages = [page for _ in range(2) for page in reader.read()]
    assert [(page.stream, page.entries_read) for page in pages] == [("other.events", 5)]


def test_positions_resume_where_another_reader_stopped(redis):
    publish_trades(redis, 100)
    first = ColumnarReader(redis, [STREAM], count=30)
    first.read()
    second = ColumnarReader(redis, [STREAM], start=first.positions)
    [page] = second.read()
    assert page.columns.fields["quantity"].values.tolist() == list(range(30, 100))
    second.reset({STREAM: first.positions[STREAM].decode()})
    assert second.read()[0].entries_read == 70
    second.reset({})
    assert second.read()[0].entries_read == 100


def test_dollar_reads_only_what_comes_later(redis):
    publish_trades(redis, 10)
    reader = ColumnarReader(
        redis, [STREAM, "new.events"], start={STREAM: "$", "new.events": "$"}
    )
    assert reader.read() == []
    publish_trades(redis, 2, first=10)
    publish_trades(redis, 1, stream="new.events")
    pages = {page.stream: page.entries_read for page in reader.read()}
    assert pages == {STREAM: 2, "new.events": 1}


def test_blocked_read_returns_when_an_event_comes(redis, redis_url):
    ready = threading.Event()

    def write():
        ready.wait()
        with connect_redis(redis_url) as client:
            publish_trades(client, 1)

    writer = threading.Thread(target=write)
    writer.start()
    reader = ColumnarReader(redis, [STREAM])
    assert reader.read(block_ms=50) == []
    ready.set()
    [page] = reader.read(block_ms=10_000)
    writer.join()
    assert page.entries_read == 1
    reader.close()


def test_block_longer_than_the_socket_timeout_is_no_error(redis_url):
    with connect_redis(redis_url, socket_timeout=0.2) as client:
        reader = ColumnarReader(client, [STREAM])
        assert reader.read(block_ms=600) == []
        reader.close()


@pytest.mark.parametrize("pages_before", range(4))
def test_lost_connection_loses_and_repeats_nothing(redis, redis_url, pages_before):
    """What was asked for in advance may arrive, be lost, or be asked for again."""
    publish_trades(redis, 50)
    seen, errors = [], 0
    with ColumnarReader(redis_url, [STREAM], count=4) as reader:
        while not reader.exhausted[STREAM]:
            if len(seen) == 4 * pages_before:
                redis.client_kill_filter(_type="normal", skipme=True)
            before = dict(reader.positions)
            try:
                [page] = reader.read()
            except ConnectionFailedError:
                errors += 1
                assert reader.positions == before
                assert errors < 3
            else:
                seen += page.columns.fields["quantity"].values.tolist()
    assert seen == list(range(50))


def test_connection_lost_while_blocked_is_an_error(redis, redis_url):
    reader = ColumnarReader(redis_url, [STREAM])

    def cut():
        while not redis.info("clients")["blocked_clients"]:
            pass
        redis.client_kill_filter(_type="normal", skipme=True)

    cutter = threading.Thread(target=cut)
    cutter.start()
    with pytest.raises(ConnectionFailedError):
        reader.read(block_ms=10_000)
    cutter.join()


def test_reader_set_back_forgets_what_it_asked_for_in_advance(redis):
    publish_trades(redis, 50)
    with ColumnarReader(redis, [STREAM], count=10) as reader:
        for _ in range(3):
            reader.read()
        reader.reset({})
        [page] = reader.read()
    assert page.columns.fields["quantity"].values.tolist() == list(range(10))
    assert redis.ping() is True


def test_closed_or_forgotten_reader_leaves_its_client_usable(redis):
    publish_trades(redis, 50)
    for _ in range(5):
        ColumnarReader(redis, [STREAM], count=10).read()
        reader = ColumnarReader(redis, [STREAM], count=10)
        reader.read()
        reader.close()
        assert redis.xlen(STREAM) == 50
    assert len(redis.connection_pool._in_use_connections) == 0


def test_replies_too_large_to_hold_are_read_in_smaller_pages(redis, monkeypatch):
    monkeypatch.setattr("cep.bus.replies.MAX_REPLY_BYTES", 2_000_000)
    publish_trades(redis, 40, venue=["v" * 100_000] * 40)
    publish_trades(redis, 3, stream="other.events")
    with ColumnarReader(redis, [STREAM, "other.events"]) as reader:
        seen = {STREAM: [], "other.events": []}
        while not all(reader.exhausted.values()):
            for page in reader.read():
                numbers = page.columns.fields["quantity"].values.tolist()
                seen[page.stream] += numbers
    assert seen == {STREAM: list(range(40)), "other.events": list(range(3))}
    with pytest.raises(UsageError, match="smaller count"):
        read_range(redis, STREAM)
    pages = list(iterate_range(redis, STREAM))
    assert sum(page.entries_read for page in pages) == 40
    ids = [entry for entry, _ in redis.xrange(STREAM)]
    page = read_ids(redis, STREAM, reversed(ids))
    assert page.columns.fields["quantity"].values.tolist() == list(range(39, -1, -1))
    assert (page.first_id, page.last_id) == (ids[-1], ids[0])


def test_entry_too_large_to_hold_is_a_bad_row_and_is_passed(redis, monkeypatch):
    monkeypatch.setattr("cep.bus.replies.MAX_REPLY_BYTES", 500_000)
    publish_trades(redis, 3)
    large = redis.xadd(STREAM, {"a": "b", "c": b"\xff" * 3_000_000})
    publish_trades(redis, 3, first=3)
    publish_trades(redis, 2, stream="other.events")
    bad, seen, read = [], [], 0
    with ColumnarReader(redis, ["other.events", STREAM]) as reader:
        while not all(reader.exhausted.values()):
            for page in reader.read():
                bad += page.bad
                read += page.entries_read
                if "quantity" in page.columns.fields and page.stream == STREAM:
                    seen += page.columns.fields["quantity"].values.tolist()
    assert seen == list(range(6))
    assert read == 9
    [row] = bad
    assert (row.reason, row.entry_id) == (Reason.TOO_LARGE, large.decode())
    assert row.raw == (b"a=b\nc=" + b"\xff" * 5000)[:4096]
    [row] = [bad for page in iterate_range(redis, STREAM) for bad in page.bad]
    assert row.entry_id == large.decode()
    assert [bad.entry_id for bad in read_ids(redis, STREAM, [large]).bad] == [
        large.decode()
    ]


def test_many_ids_and_joined_pages_number_their_rows(redis):
    publish_trades(redis, 700)
    redis.xadd(STREAM, {"a": "b"})
    ids = [entry for entry, _ in redis.xrange(STREAM)]
    page = read_ids(redis, STREAM, [*ids, ids[-1], b"1-1", ids[0]])
    assert page.entries_read == 703
    assert page.bad_rows.tolist() == [700, 701]
    assert page.rows.tolist() == [*range(700), 702]


class Impostor:
    """Answers one connection's handshake, then each request with given bytes."""

    def __init__(self, answer):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self.socket.getsockname()[1]}/0"
        self.answer = answer
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        link, _ = self.socket.accept()
        with link:
            while request := link.recv(65536):
                if b"XR" in request:
                    link.sendall(self.answer)
                else:
                    link.sendall(b"+OK\r\n" * request.count(b"CLIENT"))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.socket.close()


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (b"-NOAUTH Authentication required.\r\n", ConnectionFailedError, "password"),
        (b"-LOADING is loading\r\n", ConnectionFailedError, "disk"),
        (b"-NOPERM no permissions\r\n", ConnectionFailedError, "ACL SETUSER"),
        (b"-READONLY no\r\n", ConnectionFailedError, "primary"),
        (b"-OOM command not allowed\r\n", ConnectionFailedError, "maxmemory"),
        (b"-WRONGTYPE Operation\r\n", UsageError, "not a stream"),
        (b"-ERR unknown command\r\n", UsageError, "unknown command"),
        (b"+OK\r\n", ConnectionFailedError, "RESP2"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", ConnectionFailedError, "RESP2"),
        (b"*-1\r\n*-1\r\n", ConnectionFailedError, "more than one reply"),
        (b"*1\r\n*3\r\n$1\r\na\r\n*0\r\n", ConnectionFailedError, "RESP2"),
    ],
)
def test_odd_answers_are_clear_errors_and_the_connection_is_closed(answer, error, said):
    with Impostor(answer) as impostor, connect_redis(impostor.url) as client:
        reader = ColumnarReader(client, [STREAM])
        with pytest.raises(error, match=said):
            reader.read()
        assert not reader._replies._link.is_open
        impostor.thread.join(5)
        assert not impostor.thread.is_alive()


def test_server_replies_become_errors_and_the_reader_goes_on(redis, tmp_path):
    redis.set(STREAM, "text")
    reader = ColumnarReader(redis, [STREAM])
    with pytest.raises(UsageError, match="not a stream"):
        reader.read()
    redis.delete(STREAM)
    publish_trades(redis, 1)
    assert reader.read()[0].entries_read == 1
    with EmbeddedServer(tmp_path, password="s3cret") as locked:
        url = locked.url.replace(":s3cret@", "")
        with pytest.raises(ConnectionFailedError, match="password") as caught:
            ColumnarReader(url, [STREAM]).read()
        assert "s3cret" not in str(caught.value)


def test_unix_socket_and_password_read_the_same(tmp_path):
    with EmbeddedServer(tmp_path, unix_socket=True, password="s3/cr@t") as server:
        with connect_redis(server.url) as client:
            publish_trades(client, 3)
        reader = ColumnarReader(server.url, [STREAM])
        assert reader.read()[0].entries_read == 3
        assert "s3/cr" not in repr(reader.redis)
        reader.close()


def test_range_takes_bounds_and_count(redis):
    publish_trades(redis, 20)
    ids = [entry for entry, _ in redis.xrange(STREAM)]
    page = read_range(redis, STREAM, ids[3], b"(" + ids[9])
    assert page.columns.fields["quantity"].values.tolist() == list(range(3, 9))
    assert read_range(redis, STREAM, count=4).entries_read == 4
    empty = read_range(redis, "no.events")
    assert (empty.entries_read, empty.first_id, len(empty.columns)) == (0, b"", 0)
    assert read_range(redis, STREAM).entries_read == 20


def test_range_page_by_page_is_the_whole_range(redis):
    publish_trades(redis, 100)
    pages = list(iterate_range(redis, STREAM, count=30))
    assert [page.entries_read for page in pages] == [30, 30, 30, 10]
    assert list(iterate_range(redis, "no.events")) == []


def test_entries_by_id_come_in_the_order_asked_for(redis):
    publish_trades(redis, 20)
    ids = [entry for entry, _ in redis.xrange(STREAM)]
    page = read_ids(redis, STREAM, [ids[7], b"1-1", ids[2].decode(), ids[7]])
    assert page.columns.fields["quantity"].values.tolist() == [7, 2, 7]
    assert read_ids(redis, STREAM, []).entries_read == 0


def test_entries_of_redis_py_decode_the_same(redis):
    publish_trades(redis, 20)
    redis.xadd(STREAM, {"a": "b"})
    page = decode_entries(STREAM, redis.xrange(STREAM))
    same = read_range(redis, STREAM)
    assert (
        page.columns.fields["price"].to_list() == same.columns.fields["price"].to_list()
    )
    assert page.bad == same.bad
    text = [(entry.decode(), fields) for entry, fields in redis.xrange(STREAM)]
    assert decode_entries(STREAM, text).rows.tolist() == same.rows.tolist()


def test_other_services_json_reads_back(redis):
    """Blanks, escapes, odd numbers, other orders of fields, other zones."""
    data = json.dumps(
        {"quantity": 1e2, "own": {"deep": [1]}, "price": 3, "symbol": 'é\n"\u2028'},
        indent=1,
    ).encode()
    fields = trade(data=data, timestamp=b"2023-11-14T23:13:20.1239+01:00")
    redis.xadd(STREAM, dict(reversed(fields.items())))
    page = read_range(redis, STREAM)
    assert page.bad == []
    columns = page.columns
    assert columns.time_ms.tolist() == [START + 123]
    assert columns.fields["price"].to_list() == [3.0]
    assert columns.fields["quantity"].to_list() == [100.0]
    assert columns.fields["symbol"].to_list() == ['é\n"\u2028']
