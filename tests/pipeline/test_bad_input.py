"""Bad input among good: a row for each, and nothing else changes."""

import hashlib
import random
from collections import Counter

import bad_input
import live
import pytest

from cep.bus import ColumnarReader
from cep.events.codec import encode
from cep.events.timestamps import format_timestamp

pytestmark = pytest.mark.redis

RULES = (live.run_up, live.request_then_trade, live.quiet, live.large)
LARGE_COPIES = 100  # of entries that are large themselves: more fill the memory
CHUNK = 5_000


def mixed(seed, good, copies):
    """Good traffic with copies of each kind of bad input strewn in.

    Returns the entries and, for each that must be given up on, its reason by
    entry id.
    """
    random_ = random.Random(seed)
    odd = [
        (reason, changes)
        for reason, changes in bad_input.KINDS.values()
        for _ in range(copies if _size(changes) < 10_000 else min(copies, LARGE_COPIES))
    ]
    random_.shuffle(odd)
    entries, expected, at = [], {}, 0
    for i in range(good):
        arrival = live.START_MS + 5 * i
        time_ms = arrival - random_.randrange(0, 200, 10)
        if random_.random() < 0.01:
            time_ms -= 1500
        stream, name, data = MADE[random_.randrange(len(MADE))]
        entries.append(
            (stream, f"{arrival}-0", fields_of(i, stream, name, data, time_ms))
        )
        for seq in range((i + 1) * len(odd) // good - at):
            reason, changes = odd[at]
            fields = bad_input.entry(at, time_ms, changes)
            at += 1
            entry_id = f"{arrival + 1}-{seq}"
            entries.append((live.MARKET, entry_id, fields))
            if reason is not None:
                expected[entry_id] = reason, fields
    assert at == len(odd)
    return entries, expected


def fields_of(number, stream, name, data, time_ms):
    """The fields of an event, ten times as fast as by way of an `Event`."""
    return {
        b"id": b"01HF7YAT0%017d" % number,
        b"stream": stream.encode(),
        b"type": name,
        b"version": b"1",
        b"timestamp": format_timestamp(time_ms).encode(),
        b"correlation_id": b"",
        b"user_id": b"",
        b"data": data,
        b"metadata": b"{}",
    }


def _trade(symbol, price, quantity):
    data = b'{"symbol":"%s","price":%d,"quantity":%d}' % (symbol, price, quantity)
    return live.MARKET, b"market.trade", data


def _quantities(price):
    return (1, 45) if price % 20 == 0 else (1, 32) if price % 20 == 1 else (1, 2)


def _request(tokens):
    data = encode(live.request(1, live.START_MS, tokens))[b"data"]
    return live.AI, b"ai.inference.requested", data


MADE = [
    *(
        _trade(s, p, q)
        for s in (b"A", b"B")
        for p in range(90, 130)
        for q in _quantities(p)
    ),
    *(_request(tokens) for tokens in (10, 10, 10, 60)),
]


def _size(changes):
    return sum(len(v) for v in changes.values() if isinstance(v, bytes))


def write(redis, entries):
    for at in range(0, len(entries), CHUNK):
        live.write(redis, entries[at : at + CHUNK])


@pytest.mark.parametrize(
    ("good", "copies"),
    [(5_000, 50), pytest.param(100_000, 1_000, marks=pytest.mark.slow)],
)
def test_every_kind_many_times_among_good_events(good, copies, redis, redis_url):
    compare(redis, redis_url, good, copies)


def compare(redis, redis_url, good, copies):
    """Run good events alone, then with bad ones among them, and compare."""
    entries, expected = mixed(1, good, copies)
    fine = [e for e in entries if e[1] not in expected or e[0] != live.MARKET]
    write(redis, fine)
    control, control_counts = live.undisturbed(redis, redis_url, rules=RULES)
    assert len(control.ids) > good / 50
    assert {dict(row)["kind"] for row in control.letters} == {"'late'"}
    redis.delete(live.MARKET, live.AI)
    write(redis, entries)
    summary = live.drained(redis, redis_url, live.pipeline(rules=RULES))
    found = live.came(redis)
    assert found.ids == control.ids
    assert found.entries == control.entries
    rows = [r for r in live.dead_letters(redis) if r["kind"] == "quarantine"]
    assert Counter(r["reason"] for r in rows) == Counter(
        r for r, _ in expected.values()
    )
    for row in rows:
        reason, fields = expected.pop(row["entry_id"])
        raw = b"\n".join(name + b"=" + value for name, value in fields.items())
        assert (row["reason"], row["raw"]) == (reason, raw[:4096])
        assert row["raw_length"] == str(len(raw))
        assert row["sha256"] == hashlib.sha256(raw).hexdigest()
    assert not expected
    counts = live.counts(redis)
    for stream, was in control_counts.items():
        more = len(rows) if stream == live.MARKET else 0
        assert counts[stream] == {
            **was,
            "read": was["read"] + more,
            "quarantined": more,
        }
    assert summary.ended


def test_the_comparison_notices_a_future_that_moves_the_watermark(
    redis, redis_url, monkeypatch
):
    defaults = ColumnarReader.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "future_tolerance_ms", None)
    with pytest.raises(AssertionError):
        compare(redis, redis_url, 1_000, 2)
