"""What goes in and what becomes of it: every entry ends somewhere, once."""

import hashlib

import live
import msgspec
import pytest

from cep import count, e, emit, m, on, rule, seq
from cep.bus.keys import dlq_key, meta_key, state_key, ticks_key
from cep.engine import operator
from cep.engine.ordering import Ordering
from cep.errors import ConnectionFailedError, UsageError
from cep.events.codec import encode
from cep.pipeline import stream
from cep.pipeline.intake import Intake
from cep.pipeline.store import Store

pytestmark = pytest.mark.redis

T = live.START_MS


@rule("every")
def every():
    return on("market.trade"), emit(price=e.price)


EVERY = live.pipeline(
    rules=[every], streams=[stream(live.MARKET, max_out_of_orderness="250ms")]
)


def prices(redis):
    """The prices that `every` has put out, in order."""
    found = live.came(redis).entries.values()
    return sorted(
        msgspec.json.decode(dict(fields)[b"data"])["values"]["price"]
        for fields in found
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "cuts",
    [
        {"READ_COUNT": 1, "STEP_ROWS": 1},
        {"READ_COUNT": 1, "COMMIT_SECONDS": 0},
        {"READ_COUNT": 7, "STEP_ROWS": 7, "COMMIT_BYTES": 1},
        {"READ_COUNT": 7, "STEP_ROWS": 1000, "COMMIT_SECONDS": 0},
        {"READ_COUNT": 1000, "STEP_ROWS": 1},
        {"READ_COUNT": 3, "ROWS_AHEAD": 1},
        {"READ_COUNT": 1000, "STEP_ROWS": 7, "COMMIT_SECONDS": 0},
    ],
    ids=str,
)
def test_cuts_of_reads_steps_and_commits_change_nothing(cuts, redis, redis_url, limits):
    live.write(redis, live.traffic(seed=3, n=300))
    expected, counts = live.undisturbed(redis, redis_url)
    assert len(expected.ids) > 100
    limits(**cuts)
    live.drained(redis, redis_url)
    assert live.came(redis) == expected
    assert live.counts(redis) == counts


def good(price, time_ms=T, **changes):
    """The entry of a trade, some fields replaced, or left out with None."""
    fields = encode(live.trade(price, time_ms, price=float(price)))
    for name, value in changes.items():
        if value is None:
            del fields[name.encode()]
        else:
            fields[name.encode()] = value
    return fields


def with_data(text):
    return good(0, data=text)


BAD = [
    ("malformed_json", with_data(b'{"symbol":"BTC","price":1')),
    ("malformed_json", with_data(b'{"symbol":"BTC","price":NaN,"quantity":1}')),
    ("malformed_json", with_data(b"")),
    ("too_large", with_data(b"[" * 100_000)),
    ("malformed_json", with_data(b'{"symbol":"\\ud800","price":1,"quantity":1}')),
    ("malformed_json", good(0, metadata=b"{]")),
    ("not_an_object", with_data(b"[1,2]")),
    ("not_an_object", with_data(b"null")),
    ("missing_field", with_data(b'{"symbol":"BTC","price":1}')),
    ("missing_field", with_data(b"{}")),
    ("wrong_type", with_data(b'{"symbol":"BTC","price":"1","quantity":1}')),
    ("wrong_type", with_data(b'{"symbol":7,"price":1,"quantity":1}')),
    ("wrong_type", with_data(b'{"symbol":"BTC","price":null,"quantity":1}')),
    ("wrong_type", with_data(b'{"symbol":"BTC","price":true,"quantity":1}')),
    ("malformed_json", with_data(b'{"symbol":"BTC","price":1e999,"quantity":1}')),
    ("not_utf8", with_data(b'{"symbol":"\xff","price":1,"quantity":1}')),
    ("not_utf8", good(0, type=b"\xc3\x28")),
    ("not_utf8", good(0) | {b"\xfe": b""}),
    ("missing_envelope_field", {b"hello": b"world"}),
    *(("missing_envelope_field", good(0, **{name: None})) for name in ("id", "data")),
    ("bad_id", good(0, id=b"01J0000000000000000000000")),
    ("bad_id", good(0, id=b"81J00000000000000000000000")),
    ("bad_id", good(0, id=b"01j00000000000000000000000")),
    ("bad_timestamp", good(0, timestamp=b"yesterday")),
    ("bad_timestamp", good(0, timestamp=b"2024-13-01T00:00:00.000Z")),
    ("future_timestamp", good(0, timestamp=b"2099-01-01T00:00:00.000Z")),
    ("bad_version", good(0, version=b"1.0")),
    ("unknown_version", good(0, version=b"7")),
    ("unknown_type", good(0, type=b"market.trad")),
    ("stream_mismatch", good(0, stream=b"ai.events")),
    ("too_large", good(0, user_id=b"x" * 300_000)),
]


@pytest.mark.parametrize("read_count", [1, 1000])
def test_bad_entries_become_dead_letters_and_good_neighbours_are_processed(
    read_count, redis, redis_url, limits
):
    limits(READ_COUNT=read_count)
    entries = []
    for i, (_, fields) in enumerate(BAD):
        entries += [good(i + 1, T + i), fields]
    entries.append(good(len(BAD) + 1, T + len(BAD)))
    ids = live.write(
        redis, [(live.MARKET, f"{T + i}-1", f) for i, f in enumerate(entries)]
    )
    summary = live.drained(redis, redis_url, EVERY)
    assert prices(redis) == [float(i + 1) for i in range(len(BAD) + 1)]
    rows = live.dead_letters(redis)
    assert [row["reason"] for row in rows] == [reason for reason, _ in BAD]
    for row, entry_id, (_, fields) in zip(rows, ids[1::2], BAD, strict=True):
        raw = b"\n".join(name + b"=" + value for name, value in fields.items())
        assert row.pop("detail")
        assert row == {
            "kind": "quarantine",
            "reason": row["reason"],
            "stream": live.MARKET,
            "entry_id": entry_id.decode(),
            "rule": "",
            "raw": raw[:4096],
            "raw_length": str(len(raw)),
            "sha256": hashlib.sha256(raw).hexdigest(),
        }
    counts = live.counts(redis)[live.MARKET]
    assert counts["quarantined"] == len(BAD)
    assert counts["processed"] == len(BAD) + 1
    assert summary.total.late == 0


def test_an_event_of_2099_moves_no_watermark(redis, redis_url):
    future = good(0, timestamp=b"2099-01-01T00:00:00.000Z")
    entries = [good(1), future, good(2, T + 10), future, good(3, T + 20)]
    live.write(redis, [(live.MARKET, f"{T + i}-1", f) for i, f in enumerate(entries)])
    live.drained(redis, redis_url, EVERY)
    assert prices(redis) == [1.0, 2.0, 3.0]
    assert live.counts(redis)[live.MARKET]["late"] == 0


def test_an_event_at_the_edge_of_the_tolerance_counts(redis, redis_url):
    minutes = 5 * 60_000
    entries = [good(1, T + minutes), good(2, T + minutes + 2)]
    live.write(redis, [(live.MARKET, f"{T + i}-1", f) for i, f in enumerate(entries)])
    live.drained(redis, redis_url, EVERY)
    assert prices(redis) == [1.0]
    assert [row["reason"] for row in live.dead_letters(redis)] == ["future_timestamp"]


@pytest.mark.parametrize("read_count", [1, 3, 1000])
def test_late_events_become_dead_letters_with_their_bytes(
    read_count, redis, redis_url, limits
):
    limits(READ_COUNT=read_count)
    times = [T, T + 500, T + 249, T + 250, T + 500, T + 800, T + 549]
    entries = [good(i, time_ms) for i, time_ms in enumerate(times)]
    ids = live.write(
        redis, [(live.MARKET, f"{T + i}-1", f) for i, f in enumerate(entries)]
    )
    live.drained(redis, redis_url, EVERY)
    assert prices(redis) == [0.0, 1.0, 3.0, 4.0, 5.0]
    rows = live.dead_letters(redis)
    assert [row["kind"] for row in rows] == ["late", "late"]
    assert [row["entry_id"].encode() for row in rows] == [ids[2], ids[6]]
    for row, fields in zip(rows, (entries[2], entries[6]), strict=True):
        raw = b"\n".join(name + b"=" + value for name, value in fields.items())
        assert row["raw"] == raw
        assert row["sha256"] == hashlib.sha256(raw).hexdigest()
        assert "below the stream's watermark" in row["detail"]
    assert "2023-11-14T22:13:20.249Z" in rows[0]["detail"]
    assert live.counts(redis)[live.MARKET]["late"] == 2


def test_a_late_event_that_is_gone_still_has_its_row(redis, redis_url, monkeypatch):
    ids = live.write(
        redis,
        [(live.MARKET, f"{T}-1", good(1, T + 900)), (live.MARKET, f"{T}-2", good(2))],
    )
    take = Intake._take

    def trimmed_meanwhile(self, pages):
        redis.xdel(live.MARKET, ids[1])
        take(self, pages)

    monkeypatch.setattr(Intake, "_take", trimmed_meanwhile)
    live.drained(redis, redis_url, EVERY)
    [row] = live.dead_letters(redis)
    assert (row["kind"], row["entry_id"], row["raw"]) == ("late", ids[1].decode(), b"")
    assert row["raw_length"] == "0"


# Streams and keys -------------------------------------------------------------


@pytest.mark.parametrize("live_requests", [False, True])
def test_a_stream_far_ahead_in_time_waits_for_the_others(
    live_requests, redis, redis_url, limits, monkeypatch
):
    """Four trades to a request: read alike, requests would pile up.

    So they would if the trades are behind, and each read finds the newest requests.
    """
    trades = [
        (live.MARKET, f"{T + i}-0", live.trade(i, T + i, price=i)) for i in range(1600)
    ]
    requests = [
        (live.AI, f"{T + i}-0", live.request(i, T + i)) for i in range(0, 1600, 4)
    ]
    limits(READ_COUNT=10, ROWS_AHEAD=20)
    waiting = []
    release, read = Ordering.release, Intake.read

    def reading(self):
        some = 5 if live_requests else len(requests)
        live.write(redis, requests[:some])
        del requests[:some]
        return read(self)

    monkeypatch.setattr(Intake, "read", reading)
    monkeypatch.setattr(
        Ordering,
        "release",
        lambda self, limit: waiting.append(len(self)) or release(self, limit),
    )
    streams = [
        stream(name, max_out_of_orderness="0ms") for name in (live.MARKET, live.AI)
    ]
    live.write(redis, trades)
    summary = live.drained(redis, redis_url, live.pipeline("p", [every], streams))
    assert summary.total.processed == 2000
    assert prices(redis) == [float(i) for i in range(1600)]
    assert max(waiting) < 70


def test_streams_that_do_not_exist_yet_may_come_later(redis, redis_url):
    live.once(redis_url, EVERY)
    assert not redis.exists(live.MARKET)
    live.write(redis, [(live.MARKET, f"{T}-1", good(1))])
    live.drained(redis, redis_url, EVERY)
    assert prices(redis) == [1.0]


def test_an_input_of_another_type_is_one_clear_error(redis, redis_url):
    redis.set(live.MARKET, "text")
    with pytest.raises(UsageError, match="is not a stream"):
        live.once(redis_url, EVERY)


@pytest.mark.parametrize("key", [live.OUTPUT, "dlq:{p}"])
def test_an_output_of_another_type_is_one_clear_error_and_loses_nothing(
    key, redis, redis_url
):
    live.write(
        redis, [(live.MARKET, f"{T}-1", good(1)), (live.MARKET, f"{T}-2", {"a": "b"})]
    )
    redis.set(key, "text")
    with pytest.raises(UsageError, match=f"The key {key} is"):
        live.drained(redis, redis_url, EVERY)
    redis.delete(key)
    live.drained(redis, redis_url, EVERY)
    assert prices(redis) == [1.0]
    assert len(live.dead_letters(redis)) == 1


def test_a_stream_deleted_while_it_is_read_stops_nothing(redis, redis_url, limits):
    limits(LAG_SECONDS=-1)  # the lag is shown after each commit
    live.write(
        redis,
        [(live.MARKET, f"{T}-1", good(1)), (live.MARKET, f"{T}-2", good(2, T + 900))],
    )
    live.once(redis_url, EVERY)
    redis.delete(live.MARKET)
    live.write(redis, [(live.MARKET, f"{T + 9}-1", good(3, T + 950))])
    live.drained(redis, redis_url, EVERY)
    assert prices(redis) == [1.0, 3.0]
    assert [row["kind"] for row in live.dead_letters(redis)] == ["gap"] * 2


def test_a_lag_that_cannot_be_shown_loses_no_commit(
    redis, redis_url, limits, monkeypatch
):
    """It comes after the commit, and the server may be lost in between."""
    limits(LAG_SECONDS=-1)
    live.write(redis, [(live.MARKET, f"{T + i}-1", good(i)) for i in range(5)])
    monkeypatch.setattr(Store, "show_lag", fails := Failing(Store.show_lag))
    live.drained(redis, redis_url, EVERY)
    assert fails.called
    assert prices(redis) == [0.0, 1.0, 2.0, 3.0, 4.0]


class Failing:
    """A method whose first call finds the connection lost."""

    def __init__(self, method):
        self.method, self.called = method, False

    def __get__(self, store, _):
        def call(*args):
            if not self.called:
                self.called = True
                raise ConnectionFailedError("redis://x", "lost", "")
            return self.method(store, *args)

        return call


@pytest.mark.slow
def test_state_of_keys_with_nothing_to_remember_is_removed(
    redis, redis_url, limits, monkeypatch
):
    limits(STEP_ROWS=20)
    monkeypatch.setattr(operator, "SWEEP_AT", 30)

    @rule("pair", key="symbol")
    def pair():
        here = on("market.trade", name="here").where(count().over("50ms") >= 1)
        return seq(here).then(on("market.trade", name="there")).within("50ms"), (
            emit(price=m.here.price)
        )

    what = live.pipeline(rules=[pair], streams=EVERY.streams)
    entries = [
        (live.MARKET, f"{T + i}-1", live.trade(i, T + 10 * i, f"S{i // 2}"))
        for i in range(400)
    ]
    for at in range(0, 400, 100):
        live.write(redis, entries[at : at + 100])
        live.once(redis_url, what)
        assert len(live.state_fields(redis)) < 150
    live.drained(redis, redis_url, what)
    swept = live.came(redis)
    assert len(swept.ids) == 200
    redis.delete(live.OUTPUT)
    monkeypatch.setattr(operator, "SWEEP_AT", 10_000)
    limits(STEP_ROWS=1000)
    kept, _ = live.undisturbed(redis, redis_url, rules=[pair], streams=what.streams)
    assert kept == swept


def test_nothing_is_left_behind_but_the_pipelines_own_keys(redis, redis_url):
    live.write(redis, live.traffic(n=60))
    live.drained(redis, redis_url)
    inputs, outputs = {live.MARKET, live.AI}, {live.OUTPUT, "system.events"}
    own = {meta_key("p"), state_key("p"), ticks_key("p"), dlq_key("p")}
    assert {key.decode() for key in redis.scan_iter()} <= inputs | outputs | own


def test_a_stream_that_many_events_wait_for_is_named_once(redis, redis_url, limits):
    limits(ROWS_TOLD=3, REPORT_SECONDS=0, READ_COUNT=2)
    streams = [*EVERY.streams, stream("silent.events", idle=None)]
    what = live.pipeline(rules=[every], streams=streams)
    notes = []
    for n in (2, 4):
        ids = range(n - 2, n)
        live.write(redis, [(live.MARKET, f"{T + i}-1", good(i, T + i)) for i in ids])
        live.once(redis_url, what, note=notes.append)
        assert len(notes) == (n == 4)
    assert notes[0].startswith("4 events wait for silent.events, which is silent")


def test_the_summary_tells_what_windows_hold(redis, redis_url):
    @rule("counted", key="symbol")
    def counted():
        return on("market.trade"), emit(n=count().over("60s"))

    live.write(redis, [(live.MARKET, f"{T}-{i}", good(i, T + i)) for i in range(3)])
    what = live.pipeline(rules=[counted], streams=EVERY.streams)
    [held] = live.drained(redis, redis_url, what).windows.values()
    assert held == {"rows": 3, "dropped": 0, "forgotten": 0}
