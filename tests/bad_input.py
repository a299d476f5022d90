"""Every kind of bad input: an entry that is almost a trade, and what becomes of it.

`KINDS` maps a name to the reason of the quarantine row and to what is changed in
the fields of a good entry; None removes a field, a function gets the event time
in milliseconds. Those of reason None are odd but
good: they are processed like any other event.
"""

import live

from cep.events.codec import encode
from cep.events.timestamps import format_timestamp

HUGE = 262_144  # bytes of an entry, at most


def _data(text):
    return {"data": text}


def _nested(levels, inside=b"1"):
    """A payload with an unknown field; the whole has that many levels."""
    levels -= 1
    deep = b"[" * levels + inside + b"]" * levels
    return _data(b'{"symbol":"X","price":1,"quantity":1,"deep":' + deep + b"}")


def _nine_digits(time_ms):
    return format_timestamp(time_ms).replace("Z", "999999Z").encode()


def _another_zone(time_ms):
    return format_timestamp(time_ms + 3_600_000).replace("Z", "+01:00").encode()


GOOD_DATA = b'{"symbol":"X","price":1.5,"quantity":1}'

KINDS = {
    # size and nesting
    "larger than the cap": ("too_large", {"user_id": b"x" * HUGE}),
    "payload beyond the cap": ("too_large", _data(b"[" * (HUGE + 1))),
    "open brackets without end": ("too_large", _data(b"[" * 1000)),
    "33 levels": ("too_large", _nested(33)),
    "32 levels": (None, _nested(32)),
    "33 levels of metadata": (
        "too_large",
        {"metadata": b'{"a":' * 33 + b"1" + b"}" * 33},
    ),
    # text
    "no UTF-8 in the payload": ("not_utf8", _data(b'{"symbol":"\xff","price":1}')),
    "no UTF-8 in a name": ("not_utf8", {"extra": b"\xc3\x28"}),
    "surrogates in UTF-8": ("not_utf8", _data(b'{"symbol":"\xed\xa0\x80"}')),
    "byte order mark": ("malformed_json", _data(b"\xef\xbb\xbf" + GOOD_DATA)),
    "escaped lone surrogate": (
        "malformed_json",
        _data(b'{"symbol":"\\ud800","price":1,"quantity":1}'),
    ),
    # JSON
    "empty payload": ("malformed_json", _data(b"")),
    "cut off": ("malformed_json", _data(b'{"symbol":"X","price":1')),
    "trailing text": ("malformed_json", _data(GOOD_DATA + b" x")),
    "two objects": ("malformed_json", _data(GOOD_DATA + GOOD_DATA)),
    "NaN": ("malformed_json", _data(b'{"symbol":"X","price":NaN,"quantity":1}')),
    "Infinity": (
        "malformed_json",
        _data(b'{"symbol":"X","price":Infinity,"quantity":1}'),
    ),
    "minus Infinity": (
        "malformed_json",
        _data(b'{"symbol":"X","price":-Infinity,"quantity":1}'),
    ),
    "beyond the largest double": (
        "malformed_json",
        _data(b'{"symbol":"X","price":1e999,"quantity":1}'),
    ),
    "null": ("not_an_object", _data(b"null")),
    "array": ("not_an_object", _data(b"[1,2]")),
    "number": ("not_an_object", _data(b"1")),
    "metadata is an array": ("not_an_object", {"metadata": b"[]"}),
    "metadata cut off": ("malformed_json", {"metadata": b"{"}),
    # fields
    "field twice": (
        "duplicate_key",
        _data(b'{"symbol":"X","price":1,"quantity":1,"price":2}'),
    ),
    "field twice, once escaped": (
        "duplicate_key",
        _data(b'{"symbol":"X","price":1,"quantity":1,"pric\\u0065":2}'),
    ),
    "field missing": ("missing_field", _data(b'{"symbol":"X","price":1}')),
    "no field": ("missing_field", _data(b"{}")),
    "text for a number": (
        "wrong_type",
        _data(b'{"symbol":"X","price":"1","quantity":1}'),
    ),
    "null for a number": (
        "wrong_type",
        _data(b'{"symbol":"X","price":null,"quantity":1}'),
    ),
    "integer beyond int64": (
        "wrong_type",
        {
            "type": b"market.bar",
            "data": b'{"symbol":"X","open":1,"high":1,"low":1,"close":1,"volume":1,'
            b'"interval_ms":9223372036854775808}',
        },
    ),
    "number beyond int64": (
        None,
        _data(b'{"symbol":"X","price":9223372036854775808,"quantity":1}'),
    ),
    # envelope
    "another service's hello": (
        "missing_envelope_field",
        dict.fromkeys(["id", "type", "timestamp", "data"]),
    ),
    "no id": ("missing_envelope_field", {"id": None}),
    "id too short": ("bad_id", {"id": b"01J0000000000000000000000"}),
    "id of another alphabet": ("bad_id", {"id": b"01J0000000000000000000000I"}),
    "id in lower case": ("bad_id", {"id": b"01j00000000000000000000000"}),
    "id beyond 128 bits": ("bad_id", {"id": b"81J00000000000000000000000"}),
    "id is a uuid": ("bad_id", {"id": b"7f3b7e0a-58a4-4d4a-9d3e-0c8b6f0a2b11"}),
    "empty id": ("bad_id", {"id": b""}),
    "nine digits": (None, {"timestamp": _nine_digits}),
    "another zone": (None, {"timestamp": _another_zone}),
    "no zone": ("bad_timestamp", {"timestamp": b"2023-11-14T22:13:20.000"}),
    "zone without colon": ("bad_timestamp", {"timestamp": b"2023-11-14T22:13:20+0000"}),
    "ten digits": (
        "bad_timestamp",
        {"timestamp": b"2023-11-14T22:13:20.0000000000Z"},
    ),
    "year 1": ("bad_timestamp", {"timestamp": b"0001-01-01T00:00:00.000Z"}),
    "year 275760": ("bad_timestamp", {"timestamp": b"+275760-09-13T00:00:00.000Z"}),
    "no such day": ("bad_timestamp", {"timestamp": b"2024-02-30T00:00:00.000Z"}),
    "leap second": ("bad_timestamp", {"timestamp": b"2016-12-31T23:59:60.000Z"}),
    "in words": ("bad_timestamp", {"timestamp": b"yesterday"}),
    "epoch seconds": ("bad_timestamp", {"timestamp": b"1700000000"}),
    "in the future": ("future_timestamp", {"timestamp": b"2099-01-01T00:00:00.000Z"}),
    "version as float": ("bad_version", {"version": b"1.0"}),
    "version 0": ("bad_version", {"version": b"0"}),
    "huge version": ("bad_version", {"version": b"9" * 30}),
    "unknown version": ("unknown_version", {"version": b"7"}),
    "unknown type": ("unknown_type", {"type": b"market.trad"}),
    "empty type": ("unknown_type", {"type": b""}),
    "stream is not its key": ("stream_mismatch", {"stream": b"ai.events"}),
}


def entry(number, time_ms, changes):
    """The fields of an entry of that kind."""
    fields = encode(live.trade(f"bad{number}", time_ms, "X"))
    for name, value in changes.items():
        if value is None:
            del fields[name.encode()]
        else:
            fields[name.encode()] = value(time_ms) if callable(value) else value
    return fields
