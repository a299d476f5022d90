import datetime as dt
import json

import pytest
from events.strategies import json_values, payloads_of_types, texts
from hypothesis import example, given
from hypothesis import strategies as st

from cep.errors import InvalidPayloadError, UnknownEventTypeError, WireError
from cep.events import Event, decode, decode_row, encode
from cep.events.codec import FIELDS, FUTURE_TOLERANCE_MS, MAX_ENTRY_BYTES, entry_size
from cep.events.reasons import Reason
from cep.events.timestamps import END_MS, from_ms

ULID = "01M845P8R0ZZZZZZZZZZZZZZZZ"
NOON = dt.datetime(2026, 11, 23, 12, 0, 0, 125_000, tzinfo=dt.UTC)
NOON_MS = 1_795_435_200_125

ENTRY = {
    b"id": ULID.encode(),
    b"stream": b"market.events",
    b"type": b"market.trade",
    b"version": b"1",
    b"timestamp": b"2026-11-23T12:00:00.125Z",
    b"correlation_id": b"",
    b"user_id": b"",
    b"data": b'{"symbol":"BTCUSDT","price":64000.5,"quantity":2.0}',
    b"metadata": b"{}",
}


def read(fields, **more):
    return decode(fields, stream_key="market.events", entry_id=b"5-0", **more)


def refused(fields, **more):
    with pytest.raises(WireError) as caught:
        read(fields, **more)
    return caught.value


def entry(**changes):
    return ENTRY | {name.encode(): value for name, value in changes.items()}


def test_our_event_is_exactly_these_bytes():
    event = Event.new(
        "market.trade",
        {"symbol": "BTCUSDT", "price": 64000.5, "quantity": 2},
        id=ULID,
        timestamp=NOON,
    )
    assert list(encode(event).items()) == list(ENTRY.items())
    assert [name.decode() for name in encode(event)] == list(FIELDS)


def test_ids_and_metadata_are_written_where_there_are_any():
    event = Event.new(
        "market.trade",
        {"symbol": "é", "price": 1, "quantity": 1},
        correlation_id="c",
        user_id="ü",
        metadata={"lineage": ["a", 1]},
    )
    fields = encode(event)
    assert fields[b"correlation_id"] == b"c"
    assert fields[b"user_id"] == "ü".encode()
    assert fields[b"metadata"] == b'{"lineage":["a",1]}'
    assert '"symbol":"é"'.encode() in fields[b"data"]


@given(
    payloads_of_types,
    st.integers(0, END_MS - 1).map(from_ms),
    st.none() | texts.filter(bool),
    st.dictionaries(texts, json_values, max_size=3),
)
def test_what_is_written_reads_back_equal(known_and_payload, timestamp, user_id, meta):
    known, payload = known_and_payload
    event = Event.new(
        known.name, payload, timestamp=timestamp, user_id=user_id, metadata=meta
    )
    again = decode(encode(event), stream_key=known.stream, entry_id=b"5-0")
    assert again == event
    assert encode(again) == encode(event)


# As a Node service writes it: JSON.stringify after its own key order, numbers
# without ".0", escapes outside ASCII, an extra field for tracing, another zone.
NODE = [
    (b"metadata", b'{"source":"collector-3","attempt":1}'),
    (b"type", b"market.trend.detected"),
    (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    (
        b"data",
        (
            b'{"trend_data":{"score":0.93,"note":"caf\\u00e9 \\ud83d\\ude00","nested":'
            b'{"a":[1,null,true]}},"affected_users":["018f4c1e-7b1c-7e2a-9f00-1234567890'
            b'ab","01M845P8R0ZZZZZZZZZZZZZZZZ"],"confidence_score":1,"keywords":'
            b'["\\"quoted\\"","a\\/b"],"trend_type":"sideways","trend_id":"t-1",'
            b'"schemaHint":null}'
        ),
    ),
    (b"user_id", b"018f4c1e-7b1c-7e2a-9f00-1234567890ab"),
    (b"timestamp", b"2026-11-23T12:00:00.125Z"),
    (b"id", ULID.encode()),
    (b"correlation_id", b""),
    (b"version", b"1"),
    (b"stream", b"market.events"),
]


def test_event_of_a_node_service_reads_back():
    event = decode_row(NODE, "market.events")
    assert event.id == ULID
    assert event.timestamp == NOON
    assert event.correlation_id is None
    assert event.user_id == "018f4c1e-7b1c-7e2a-9f00-1234567890ab"
    assert event.metadata == {"source": "collector-3", "attempt": 1}
    assert event.data["trend_data"]["note"] == "café 😀"
    assert event.data["keywords"] == ['"quoted"', "a/b"]
    assert event.data["confidence_score"] == 1
    assert event.data["trend_type"] == "sideways"
    assert event.data["schemaHint"] is None
    assert set(event.extra) == {"traceparent"}


def test_anothers_event_is_written_again_with_its_meaning_unchanged():
    event = decode_row(NODE, "market.events")
    fields = encode(event, closed_choices=False)
    assert fields.keys() == dict(NODE).keys()
    assert decode(fields, stream_key="market.events") == event
    for name in (b"data", b"metadata"):
        assert json.loads(fields[name]) == json.loads(dict(NODE)[name])
    with pytest.raises(InvalidPayloadError, match="one of 'rising', 'declining'"):
        encode(event)


def test_what_another_service_may_read_is_json_of_its_own_library():
    event = Event.new(
        "market.trade", {"symbol": "é\u2028😀", "price": 1e300, "quantity": -0.0}
    )
    fields = {name.decode(): text.decode() for name, text in encode(event).items()}
    assert json.loads(fields["data"]) == event.data


@pytest.mark.parametrize(
    ("fields", "reason", "detail"),
    [
        (
            entry(extra=b"x" * MAX_ENTRY_BYTES),
            Reason.TOO_LARGE,
            "bytes, allowed: at most 262144",
        ),
        (entry(user_id=b"\xff"), Reason.NOT_UTF8, "field 'user_id' holds byte 0xff"),
        (entry(data=b'{"a":"\xc3"}'), Reason.NOT_UTF8, "field 'data' holds byte 0xc3"),
        (entry(extra=b"\xed\xa0\x80"), Reason.NOT_UTF8, "field 'extra' holds byte"),
        (ENTRY | {b"\xfe": b""}, Reason.NOT_UTF8, r"field '\\xfe' holds byte 0xfe"),
        ({}, Reason.MISSING_ENVELOPE_FIELD, "missing: id, stream, type, version"),
        (entry(id=b""), Reason.BAD_ID, "it has 0 characters"),
        (entry(id=ULID.lower().encode()), Reason.BAD_ID, "it has the character 'm'"),
        (entry(id=b"8" + b"0" * 25), Reason.BAD_ID, "more than 128 bits"),
        (entry(timestamp=b"yesterday"), Reason.BAD_TIMESTAMP, "is 'yesterday' (str)"),
        (entry(timestamp=b"2026-11-23T12:00:00"), Reason.BAD_TIMESTAMP, "with zone"),
        (entry(timestamp=b"2999-01-01T00:00:00Z"), Reason.BAD_TIMESTAMP, "to 2261"),
        (entry(version=b""), Reason.BAD_VERSION, "a decimal number from 1"),
        (entry(version=b"0"), Reason.BAD_VERSION, "is '0' (str)"),
        (entry(version=b"01"), Reason.BAD_VERSION, "is '01' (str)"),
        (entry(version=b"+1"), Reason.BAD_VERSION, "is '+1' (str)"),
        (entry(version=b"1.0"), Reason.BAD_VERSION, "is '1.0' (str)"),
        (entry(version=b"1\n"), Reason.BAD_VERSION, r"is '1\n' (str)"),
        (entry(version="١".encode()), Reason.BAD_VERSION, "is '١' (str)"),
        (entry(version=b"1" * 10), Reason.BAD_VERSION, "is '1111111111' (str)"),
        (entry(stream=b"ai.events"), Reason.STREAM_MISMATCH, "'market.events'"),
        (entry(type=b"market.trades"), Reason.UNKNOWN_TYPE, "is 'market.trades'"),
        (entry(type=b""), Reason.UNKNOWN_TYPE, "is '' (str)"),
        (entry(version=b"2"), Reason.UNKNOWN_VERSION, "has no version 2, allowed: 1"),
        (entry(data=b""), Reason.MALFORMED_JSON, "data is '' (str)"),
        (entry(data=b'{"price":NaN}'), Reason.MALFORMED_JSON, "NaN"),
        (entry(metadata=b""), Reason.MALFORMED_JSON, "metadata is '' (str)"),
        (entry(data=b"[]"), Reason.NOT_AN_OBJECT, "data is '[]' (str)"),
        (entry(metadata=b"null"), Reason.NOT_AN_OBJECT, "metadata is 'null' (str)"),
        (entry(metadata=b'{"a":' * 33), Reason.TOO_LARGE, "deeper than 32 levels"),
        (
            entry(data=b'{"price":1,"price":2}'),
            Reason.DUPLICATE_KEY,
            "has 'price' more",
        ),
        (entry(data=b'{"price":1,"pric\\u0065":2}'), Reason.DUPLICATE_KEY, "once"),
        (entry(data=b"{}"), Reason.MISSING_FIELD, "data.symbol is missing"),
        (
            entry(data=b'{"symbol":"a","price":"1","quantity":1}'),
            Reason.WRONG_TYPE,
            "data.price is '1' (str), allowed: a finite number",
        ),
        (
            entry(data=b'{"symbol":"a","price":null,"quantity":1}'),
            Reason.WRONG_TYPE,
            "data.price is null",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_entry_is_refused_with_its_reason(fields, reason, detail):
    error = refused(fields)
    assert error.reason == reason
    assert detail in error.detail
    assert len(error.detail) < 600
    assert (error.stream, error.entry_id) == ("market.events", "5-0")


@pytest.mark.parametrize("name", FIELDS)
def test_each_of_the_nine_fields_must_be_there(name):
    fields = dict(ENTRY)
    del fields[name.encode()]
    error = refused(fields)
    assert error.reason == Reason.MISSING_ENVELOPE_FIELD
    assert error.detail.startswith(f"missing: {name};")


def test_of_several_faults_the_first_in_the_documented_order_is_the_reason():
    faults = [
        ({"extra": b"x" * MAX_ENTRY_BYTES}, Reason.TOO_LARGE),
        ({"extra": b"\xff"}, Reason.NOT_UTF8),
        ({}, Reason.MISSING_ENVELOPE_FIELD),
        ({"id": b"x"}, Reason.BAD_ID),
        ({"timestamp": b"x"}, Reason.BAD_TIMESTAMP),
        ({"version": b"x"}, Reason.BAD_VERSION),
        ({"stream": b"x"}, Reason.STREAM_MISMATCH),
        ({"type": b"x"}, Reason.UNKNOWN_TYPE),
        ({"data": b"x"}, Reason.MALFORMED_JSON),
        ({"metadata": b"[]"}, Reason.NOT_AN_OBJECT),
        ({"data": b"{}"}, Reason.MISSING_FIELD),
    ]
    for first in range(len(faults)):
        fields = dict(ENTRY)
        for change, reason in reversed(faults[first:]):
            fields |= {name.encode(): value for name, value in change.items()}
            if reason is Reason.MISSING_ENVELOPE_FIELD:
                del fields[b"user_id"]
        assert refused(fields).reason == faults[first][1]


def test_reason_follows_the_models_order_not_the_payloads():
    both = b'{"quantity":1,"price":"x"}'
    assert refused(entry(data=both)).reason == Reason.MISSING_FIELD
    both = b'{"quantity":1,"symbol":5}'
    assert refused(entry(data=both)).reason == Reason.WRONG_TYPE


def test_many_problems_are_cut_to_three():
    detail = refused(
        entry(data=b'{"symbol":1,"price":"","quantity":"","side":1,"venue":1}')
    ).detail
    assert detail.endswith("; and 2 more")


def test_of_fields_that_occur_twice_the_last_counts():
    twice = [(b"type", b"nonsense"), (b"data", b"{}"), *ENTRY.items()]
    assert decode_row(twice, "market.events") == read(ENTRY)
    assert decode_row([*NODE, *NODE], "market.events").extra.keys() == {"traceparent"}


def test_size_counts_names_and_values_to_the_last_byte():
    room = MAX_ENTRY_BYTES - entry_size(ENTRY.items()) - len(b"extra")
    assert read(entry(extra=b"x" * room)).extra == {"extra": "x" * room}
    error = refused(entry(extra=b"x" * (room + 1)))
    assert error.reason == Reason.TOO_LARGE
    assert error.detail.startswith(f"the entry has {MAX_ENTRY_BYTES + 1} bytes")


def test_the_future_is_judged_by_arrival_and_only_if_asked():
    def at(arrived_ms, tolerance_ms=FUTURE_TOLERANCE_MS):
        return decode(
            ENTRY,
            stream_key="market.events",
            entry_id=f"{arrived_ms}-3",
            future_tolerance_ms=tolerance_ms,
        )

    edge = NOON_MS - FUTURE_TOLERANCE_MS
    assert at(edge) == read(ENTRY)
    assert at(0, None) == read(ENTRY)
    with pytest.raises(WireError) as caught:
        at(edge - 1)
    assert caught.value.reason == Reason.FUTURE_TIMESTAMP
    assert "300 s after its arrival" in caught.value.detail


def test_a_known_type_may_be_read_from_another_stream():
    fields = entry(stream=b"replay.events")
    assert decode(fields, stream_key="replay.events").stream == "replay.events"


def test_wrong_event_is_not_written():
    sneaky = read(ENTRY).model_copy(update={"data": {"symbol": "a", "price": "x"}})
    with pytest.raises(InvalidPayloadError) as caught:
        encode(sneaky)
    assert "data.price is 'x' (str)" in str(caught.value)
    assert "data.quantity is missing" in str(caught.value)


def test_event_of_an_unknown_type_is_not_written():
    with pytest.raises(UnknownEventTypeError):
        encode(read(ENTRY).model_copy(update={"type": "market.trades"}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"symbol": "a" * MAX_ENTRY_BYTES}}, "allowed: at most 262144 bytes"),
        ({"data": {"x": float("nan")}}, "data.x is nan (float)"),
        ({"metadata": {"x": {1}}}, "metadata.x is {1} (set)"),
        ({"extra": {"id": "x"}}, "extra.id is one of the nine fields"),
        ({"extra": {"x": "\ud800"}}, r"x is '\ud800' (str), allowed: text without"),
        ({"user_id": "\ud800"}, r"user_id is '\ud800' (str), allowed: text without"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(change, message):
    event = read(ENTRY)
    data = event.data | change.pop("data", {})
    with pytest.raises(InvalidPayloadError) as caught:
        encode(event.model_copy(update={"data": data, **change}))
    assert message in str(caught.value)


def read_or_error(fields):
    try:
        return read(fields)
    except WireError as error:
        return error


def mutated(draw_from, fields):
    """Return the fields with one of them cut, spliced or replaced."""
    name, at, piece, width = draw_from
    value = fields[name]
    at = at % (len(value) + 1)
    return fields | {name: value[:at] + piece + value[at + width :]}


pieces = st.binary(max_size=4) | st.sampled_from(
    [b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"null", b"1e999", b"\\ud800"]
)
cuts = st.tuples(
    st.sampled_from(sorted(ENTRY)), st.integers(0, 2**16), pieces, st.integers(0, 6)
)


@given(st.lists(cuts, max_size=3))
@example([])
def test_any_bytes_are_an_event_or_a_wire_error(changes):
    fields = dict(ENTRY)
    for change in changes:
        fields = mutated(change, fields)
    outcome = read_or_error(fields)
    if isinstance(outcome, WireError):
        assert outcome.reason in set(Reason)
    else:
        again = encode(outcome, closed_choices=False)
        assert decode(again, stream_key="market.events") == outcome


@given(st.lists(st.tuples(st.binary(max_size=12), st.binary(max_size=12)), max_size=4))
def test_any_fields_at_all_are_refused_without_another_error(fields):
    with pytest.raises(WireError):
        decode_row(fields, "market.events")
