"""The kernels against the slow path: equal verdicts, reasons and values."""

import json
import os
import random
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import hiredis
import numba
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cep.bus.kernels import reply as scan
from cep.bus.kernels.decimal import to_double
from cep.bus.kernels.json_value import number_parts
from cep.bus.page import Entries
from cep.events.codec import encode
from cep.events.envelope import Event
from cep.events.registry import registry
from tests.events.strategies import any_payloads_of_types, payloads_of_types
from tests.random_entries import (
    DECODERS,
    Scan,
    assert_same,
    entry,
    mutated,
    reply_of,
    scanned,
    written,
)

patient = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
seeds = st.integers(0, 2**32)


@patient
@given(st.lists(any_payloads_of_types, max_size=6), seeds)
def test_payloads_of_any_form_and_fault(drawn, seed):
    rnd = random.Random(seed)
    assert_same(
        [
            entry(known, written(payload, rnd).encode("utf-8", "surrogatepass"))
            for known, payload in drawn
        ]
    )


@settings(patient, max_examples=300)
@given(st.lists(payloads_of_types, min_size=1, max_size=4), seeds)
def test_payloads_with_bytes_changed_at_random(drawn, seed):
    rnd = random.Random(seed)
    rows = []
    for known, payload in drawn:
        raw = written(payload, rnd).encode()
        rows += [entry(known, mutated(raw, rnd, rnd.randrange(4))) for _ in range(6)]
    assert_same(rows)


@settings(patient, max_examples=200)
@given(seeds)
def test_envelopes_with_bytes_changed_at_random(seed):
    rnd = random.Random(seed)
    known = registry.get("market.trade")
    payload = b'{"symbol":"a","price":1,"quantity":2}'
    rows = []
    for _ in range(30):
        metadata = rnd.choice([b"{}", b"{ }", b'{"a":[{"b":null}]}', b" {}", b"[]"])
        row = entry(known, payload, metadata=metadata, user_id=b"\xc3\xa9")
        which = rnd.randrange(len(row))
        name, value = row[which]
        if rnd.random() < 0.2:
            name = mutated(name, rnd, 1)
        row[which] = name, mutated(value, rnd, rnd.randrange(1, 3))
        if rnd.random() < 0.2:
            rnd.shuffle(row)
        if rnd.random() < 0.1:
            row.insert(rnd.randrange(9), rnd.choice(row))
        if rnd.random() < 0.1:
            del row[rnd.randrange(9)]
        rows.append(row)
    assert_same(rows)


@settings(patient, max_examples=100)
@given(
    st.lists(
        st.from_regex(
            r"(19|20|22)[0-9]{2}-[0-3][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9]"
            r"(\.[0-9]{0,10})?(Z|z|[+-][0-2][0-9]:[0-6][0-9])",
            fullmatch=True,
        ),
        max_size=20,
    )
)
def test_timestamps_of_any_form(texts):
    known = registry.get("market.trade")
    payload = b'{"symbol":"a","price":1,"quantity":2}'
    assert_same([entry(known, payload, timestamp=text.encode()) for text in texts])


def test_each_day_and_the_ends_of_the_range():
    known = registry.get("market.trade")
    payload = b'{"symbol":"a","price":1,"quantity":2}'
    days = [
        f"{year}-{month:02}-{day:02}T23:59:59.999{zone}".encode()
        for year in (1969, 1970, 2000, 2023, 2024, 2100, 2261, 2262)
        for month in range(14)
        for day in (0, 1, 28, 29, 30, 31, 32)
        for zone in ("Z", "-23:59", "+23:59")
    ]
    page = assert_same([entry(known, payload, timestamp=day) for day in days])
    assert page.columns.time_ms.min() >= 0


def test_plain_events_never_take_the_slow_path():
    """Else a fault in the kernels would only show as slowness."""
    rnd = random.Random(5)
    rows = []
    for known in registry.all():
        payload = {}
        for field in known.fields:
            payload[field.name] = {
                "float": rnd.random() * 10.0 ** rnd.randrange(-9, 9),
                "int": rnd.randrange(10**12),
                "bool": rnd.random() < 0.5,
                "str": field.choices[0] if field.choices else 'é "quoted"\n',
                "json": ["a", "b"] if field.shape == "array" else {"a": [1, {}]},
            }[field.kind]
        if known.name == "notification.send.requested":
            continue  # its message is the one nested payload with fields
        rows += [
            entry(known, json.dumps(payload, indent=rnd.choice([None, 1])).encode()),
            entry(known, json.dumps(payload, ensure_ascii=False).encode()),
            entry(known, json.dumps(payload).encode(), metadata=b'{"lineage":["x"]}'),
        ]
    page = assert_same(rows)
    assert page.bad == []
    entries = Entries.of((b"1900000000000-%d" % i, row) for i, row in enumerate(rows))
    assert DECODERS.settled_slowly(entries) == 0


def test_texts_that_differ_only_in_how_they_are_written_are_one():
    known = registry.get("market.trade")
    rows = [
        entry(known, b'{"symbol":%b,"price":1,"quantity":2}' % text)
        for text in (b'"A"', b'"\\u0041"', b'"B"', b'"\\u0042"', b'"\\u0041"', b'"A"')
    ]
    symbol = assert_same(rows).columns.fields["symbol"]
    assert symbol.texts == ["A", "B"]
    assert symbol.values.tolist() == [0, 0, 1, 1, 0, 0]


def test_texts_made_to_collide_stay_apart_and_cost_little():
    """Equal at both ends, so all have one hash: the bound on probes holds."""
    known = registry.get("market.trade")
    middle = [b"%06d" % i for i in range(1500)]
    rows = [
        entry(
            known,
            b'{"symbol":"%b","price":1,"quantity":2}' % (b"x" * 70 + m + b"x" * 70),
        )
        for m in [*middle, *reversed(middle)]
    ]
    symbol = assert_same(rows).columns.fields["symbol"]
    assert len(symbol.texts) == 1500
    assert symbol.values.tolist() == [*range(1500), *range(1499, -1, -1)]


@numba.njit
def double_in(raw):
    after, minus, mantissa, exponent, _ = number_parts(raw, 0, len(raw))
    if after != len(raw):
        return False, 0.0
    settled, value = to_double(mantissa, exponent)
    return settled, -value if minus else value


def as_double(text):
    """The kernels' value of a number, None if they leave it to the slow path."""
    settled, value = double_in(np.frombuffer(bytearray(text.encode()), np.uint8))
    return value if settled else None


def test_random_doubles_read_back_exactly_and_nearly_all_quickly():
    rng = np.random.default_rng(11)
    bits = rng.integers(0, 2**63, 4000, dtype=np.uint64)
    doubles = [x for x in bits.view(np.float64).tolist() if abs(x) < 1.7e308]
    doubles += (rng.normal(size=2000) * 10.0 ** rng.integers(-8, 8, 2000)).tolist()
    settled = 0
    for value in doubles:
        for form in ("{!r}", "{:.17g}", "{:.18e}", "{:.16e}"):
            text = form.format(value)
            got = as_double(text)
            if got is not None:
                settled += 1
                assert got == float(text), text
    assert settled > 0.9 * 4 * len(doubles)
    assert all(
        as_double(repr(x)) is not None for x in doubles if 1e-250 < abs(x) < 1e250
    )


def test_decimals_between_two_doubles_round_to_even():
    rng = np.random.default_rng(12)
    for _ in range(3000):
        low = float(rng.integers(2**52, 2**53)) * 2.0 ** int(rng.integers(-30, 10))
        high = np.nextafter(low, np.inf)
        middle = (Fraction(low) + Fraction(high)) / 2
        scale = 10 ** int(rng.integers(0, 6))
        digits = int(middle * scale)
        for mantissa in (digits, digits + 1):
            text = f"{mantissa}e-{len(str(scale)) - 1}"
            got = as_double(text)
            assert got is None or got == float(text), text


def test_mantissa_that_goes_round_to_zero_is_not_taken_for_zero():
    for text in (
        "92233720368547758080e-1",
        "18446744073709551616",
        "9.2233720368547758080",
    ):
        assert as_double(text) is None
    assert as_double("0.000000000000000000000000000001") == 1e-30
    assert as_double("9999999999999999999") == 1e19


@settings(patient, max_examples=500)
@given(st.integers(0, 10**19), st.integers(-330, 310), st.integers(0, 18))
def test_any_mantissa_and_exponent(mantissa, exponent, places):
    digits = str(mantissa)
    places = min(places, len(digits) - 1)
    text = digits[: len(digits) - places]
    if places:
        text += "." + digits[len(digits) - places :]
    text += f"e{exponent}"
    got = as_double(text)
    assert got is None or got == float(text), text


words = st.binary(max_size=20)
flat_fields = st.lists(st.tuples(words, words), max_size=4).map(
    lambda pairs: [word for pair in pairs for word in pair]
)
replies = st.lists(
    st.tuples(words, st.lists(st.tuples(words, flat_fields), max_size=4)), max_size=3
)


@patient
@given(replies, seeds)
def test_reply_cut_anywhere_scans_like_hiredis(streams, seed):
    rnd = random.Random(seed)
    raw = reply_of(streams)
    one = Scan()
    end = 0
    while end < len(raw):
        assert one.on(raw[:end]) == scan.MORE
        end += rnd.choice([1, 1, 7, 50])
    assert one.on(raw) == scan.DONE
    assert one.state[scan.POSITION] == len(raw)
    reader = hiredis.Reader()
    reader.feed(raw)
    expected = [
        [key, [(entry_id, flat) for entry_id, flat in entries]]
        for key, entries in reader.gets()
    ]
    assert one.found(raw) == expected


@settings(patient, max_examples=300)
@given(replies, seeds)
def test_reply_with_bytes_changed_is_never_read_outside(streams, seed):
    rnd = random.Random(seed)
    raw = mutated(reply_of(streams), rnd, rnd.randrange(1, 4))
    one = Scan(rnd.choice([scan.READ_REPLY, scan.RANGE_REPLY]))
    status = one.on(raw)
    assert status in (scan.DONE, scan.MORE, scan.ERROR_REPLY, scan.NOT_RESP)
    assert 0 <= one.state[scan.POSITION] <= len(raw)
    for table, used in ((one.entries, scan.ENTRIES), (one.fields, scan.FIELDS)):
        rows = table[: one.state[used]]
        assert (rows[:, :4] >= 0).all()
        assert (rows[:, 0] + rows[:, 1] <= len(raw)).all()


@settings(patient, max_examples=200)
@given(seeds)
def test_entries_alike_but_for_some_bytes_scan_like_hiredis(seed):
    """Shapes are met again, nearly met, and more of them than are kept."""
    rnd = random.Random(seed)
    names = [b"id", b"stream", b"type", b"version", b"data", b"metadata", b"x" * 9]
    entries = []
    for i in range(rnd.randrange(1, 60)):
        kind = rnd.randrange(rnd.choice([1, 2, 12]))
        flat = []
        for name in names[: 7 - kind % 3]:
            value = b"%d" % kind if name in (b"type", b"stream") else b"v" * (i % 11)
            flat += [name, value]
        if rnd.random() < 0.2:
            at = rnd.randrange(len(flat))
            flat[at] = mutated(flat[at], rnd, 1)
        if rnd.random() < 0.1:
            flat *= 3  # more fields than a shape holds
        entries.append((b"%d-%d" % (i, 10 ** rnd.randrange(9)), flat))
    raw = reply_of([(b"key", entries)])
    one = Scan(room=rnd.choice([1, 400]))
    assert one.on(raw[: rnd.randrange(len(raw))]) == scan.MORE
    assert one.on(raw) == scan.DONE
    assert one.found(raw) == [[b"key", entries]]


def test_plain_neighbours_are_of_one_shape_and_shapes_outlive_a_reply():
    known = registry.get("market.trade")
    payload = b'{"symbol":"a","price":1,"quantity":2}'
    rows = [entry(known, payload, user_id=b"u" * (i % 30)) for i in range(50)]
    assert scanned(rows).entries[:, 4].tolist() == [0] * 50
    other = [entry(known, payload, version=b"2")]
    assert scanned([*rows, *other, *rows]).entries[:, 4].tolist() == [
        *[0] * 50,
        1,
        *[0] * 50,
    ]


def test_null_empty_and_error_replies():
    for raw in (b"*-1\r\n", b"*0\r\n"):
        one = Scan()
        assert one.on(raw) == scan.DONE
        assert one.found(raw) == []
    assert Scan().on(b"-NOAUTH no\r") == scan.MORE
    assert Scan().on(b"-NOAUTH no\r\n") == scan.ERROR_REPLY
    assert Scan().on(b"+OK\r\n") == scan.NOT_RESP
    assert Scan().on(b"*99999999999999\r\n") == scan.NOT_RESP
    assert Scan().on(b"*1\r\n*2\r\n$-1\r\n") == scan.NOT_RESP


def test_oracle_and_kernel_agree_on_a_deep_payload():
    known = registry.get("market.trade")
    payload = b'{"symbol":"a","price":1,"quantity":2}'
    rows = []
    for depth in (1, 30, 31, 32, 33):
        for nest in (
            b"[" * depth + b"]" * depth,
            b'{"a":' * depth + b"1" + b"}" * depth,
        ):
            data = b'{"symbol":"a","price":1,"quantity":2,"x":%b}' % nest
            rows += [entry(known, data), entry(known, data[:-3])]
            rows.append(entry(known, payload, metadata=nest))
    reasons = {bad.reason for bad in assert_same(rows).bad}
    assert reasons == {"too_large", "malformed_json", "not_an_object"}


def test_our_own_events_take_the_kernel_path():
    event = Event.new(
        "market.trade",
        {"symbol": "a", "price": 0.1 + 0.2, "quantity": 3},
        metadata={"lineage": [1, "x"]},
    )
    entries = Entries.of([(b"1900000000000-0", list(encode(event).items()))])
    assert DECODERS.settled_slowly(entries) == 0
    assert DECODERS.quick.decode(entries).columns.fields["price"].to_list() == [
        0.1 + 0.2
    ]


PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")


@pytest.mark.slow
def test_kernels_keep_their_bounds(tmp_path):
    """The same tests with every access of every kernel checked."""
    done = subprocess.run(
        [*PYTEST, __file__, "-k", f"not {test_kernels_keep_their_bounds.__name__}"],
        env=os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
