"""What a pipeline writes to streams: outputs, and those that may not be written."""

import live
import msgspec
import pytest

from cep import avg, e, emit, m, on, py, rule, seq
from cep.events.columns import BadRow
from cep.pipeline import stream
from cep.pipeline.entries import (
    dead_letter,
    duplicate_letter,
    failure_letter,
    late_letter,
    vanished,
)

pytestmark = pytest.mark.redis

T = live.START_MS
STREAMS = [stream(live.MARKET, max_out_of_orderness="0ms")]


def run_over(redis, url, trades, *rules):
    """Run rules over trades; return the payloads put out, and the summary."""
    entries = [(live.MARKET, f"{T + i}-0", one) for i, one in enumerate(trades)]
    live.write(redis, entries)
    summary = live.drained(redis, url, live.pipeline(rules=rules, streams=STREAMS))
    found = [fields for _, fields in redis.xrange(live.OUTPUT)]
    return [msgspec.json.decode(fields[b"data"]) for fields in found], summary


def trades(*prices, symbol="BTC", **more):
    return [
        live.trade(i, T + i, symbol, float(p), **more) for i, p in enumerate(prices)
    ]


def test_an_output_is_an_event_with_its_lineage(redis, redis_url):
    @rule("pair", version=3, key="symbol", severity="warning")
    def pair():
        low = on("market.trade", name="low").where(e.price < 2)
        high = on("market.trade", name="high").where(e.price > 2)
        return seq(low).then(high), emit(title="{key}!", low=m.low.price)

    made = trades(1, 3)
    run_over(redis, redis_url, made, pair)
    [(_, fields)] = redis.xrange(live.OUTPUT)
    assert list(fields) == [
        b"id", b"stream", b"type", b"version", b"timestamp",
        b"correlation_id", b"user_id", b"data", b"metadata",
    ]  # fmt: skip
    assert fields[b"timestamp"] == b"2023-11-14T22:13:20.001Z"
    assert fields[b"stream"] == b"notification.events"
    assert (fields[b"correlation_id"], fields[b"user_id"]) == (b"", b"")
    assert msgspec.json.decode(fields[b"metadata"]) == {
        "rule": "pair",
        "rule_version": 3,
        "severity": "warning",
        "key": "BTC",
        "lineage": [one.id for one in made],
    }
    assert msgspec.json.decode(fields[b"data"]) == {
        "rule": "pair",
        "rule_version": 3,
        "key": "BTC",
        "severity": "warning",
        "title": "BTC!",
        "values": {"low": 1.0},
    }


def test_a_key_of_correlation_ids_goes_on_into_the_output(redis, redis_url):
    @rule("by-request", key="correlation_id")
    def by_request():
        return on("market.trade"), emit(price=e.price)

    made = trades(1, correlation_id="r-1") + trades(2)
    run_over(redis, redis_url, made, by_request)
    [(_, fields)] = redis.xrange(live.OUTPUT)
    assert fields[b"correlation_id"] == b"r-1"


def test_an_output_that_its_type_refuses_becomes_a_dead_letter(redis, redis_url):
    @rule("trend")
    def trend():
        unknown = avg(e.price).where(e.price < 0).over("1s")
        return on("market.trade"), emit(
            "market.trend.detected", trend_type="rising", confidence_score=unknown
        )

    @rule("good")
    def good():
        return on("market.trade"), emit(price=e.price)

    found, summary = run_over(redis, redis_url, trades(1, 2), trend, good)
    assert [one["values"]["price"] for one in found] == [1.0, 2.0]
    rows = live.dead_letters(redis)
    assert [(r["kind"], r["reason"]) for r in rows] == [("output", "rule_error")] * 2
    assert rows[0]["rule"] == "trend"
    assert rows[0]["detail"].startswith("event 01HF7YAT0")
    assert "data.confidence_score is null" in rows[0]["detail"]
    assert "trend_id" in rows[0]["raw"].decode()
    assert summary.total.processed == 2


def test_an_output_too_large_to_be_read_back_becomes_a_dead_letter(redis, redis_url):
    @rule("echo", key="symbol")
    def echo():
        return on("market.trade"), emit(symbol=e.symbol)

    huge = trades(1, symbol="x" * 200_000)
    found, _ = run_over(redis, redis_url, huge + trades(1, 2)[1:], echo)
    assert [one["values"]["symbol"] for one in found] == ["BTC"]
    [row] = live.dead_letters(redis)
    assert "at most 262144 bytes" in row["detail"]
    assert (len(row["raw"]), int(row["raw_length"]) > 400_000) == (4096, True)


@pytest.mark.parametrize(
    "symbol", ["k" * 30_000, "", 'a"b', "a|b|c", "a/b", "\x00\n", "😀é", "[]", "null"]
)
def test_keys_of_any_text_survive_a_restart(symbol, redis, redis_url):
    @rule("pair", key=["symbol", "venue"])
    def pair():
        low = on("market.trade", name="low").where(e.price < 2)
        high = on("market.trade", name="high").where(e.price > 2)
        return seq(low).then(high), emit(low=m.low.price, symbol=m.low.symbol)

    symbol = symbol or "-"
    data = {"symbol": symbol, "venue": symbol, "quantity": 1.0}
    events = [
        live.event(i, "market.trade", {**data, "price": price}, T + i)
        for i, price in enumerate((1.0, 3.0))
    ]
    what = live.pipeline(rules=[pair], streams=STREAMS)
    live.write(redis, [(live.MARKET, f"{T}-0", events[0])])
    # A second event of another key releases the first.
    live.write(redis, [(live.MARKET, f"{T + 1}-0", live.trade(9, T + 1, "other"))])
    live.once(redis_url, what)
    live.write(redis, [(live.MARKET, f"{T + 2}-0", events[1])])
    live.drained(redis, redis_url, what)
    [(_, fields)] = redis.xrange(live.OUTPUT)
    found = msgspec.json.decode(fields[b"data"])
    assert found["values"] == {"low": 1.0, "symbol": symbol}
    part = symbol.replace("\\", r"\\").replace("/", r"\/")
    assert found["key"] == f"{part}/{part}"


def test_rules_that_put_out_the_same_do_not_disturb_each_other(redis, redis_url):
    def make(name):
        @rule(name)
        def same():
            return on("market.trade"), emit(price=e.price), emit(price=e.price)

        return same

    run_over(redis, redis_url, trades(1, 2), make("one"), make("two"))
    found = live.came(redis)
    assert len(found.ids) == 8
    assert found.twice == []


def test_an_output_may_go_back_into_an_input(redis, redis_url):
    @rule("half")
    def half():
        big = on("market.trade").where(e.price > 1)
        return big, emit(
            "market.trade",
            stream=live.MARKET,
            symbol="half",
            price=e.price / 2,
            quantity=1,
        )

    what = live.pipeline(
        rules=[half], streams=[stream(live.MARKET, max_out_of_orderness="0ms")]
    )
    live.write(redis, [(live.MARKET, f"{T}-0", live.trade(0, T, price=8.0))])
    live.write(redis, [(live.MARKET, f"{T + 1}-0", live.trade(1, T + 1, price=1.0))])
    live.once(redis_url, what)
    live.once(redis_url, what)
    prices = [
        msgspec.json.decode(fields[b"data"])["price"]
        for _, fields in redis.xrange(live.MARKET)
    ]
    assert prices == [8.0, 1.0, 4.0]
    assert live.counts(redis)[live.MARKET]["read"] == 3


def half(price):
    return 0.5


def test_a_title_that_does_not_fit_its_values_stays_as_written(redis, redis_url):
    @rule("bad-title")
    def bad_title():
        return on("market.trade"), emit(
            title="{half:d} {price}", half=py(half, reads=[e.price]), price=e.price
        )

    found, _ = run_over(redis, redis_url, trades(1), bad_title)
    assert [one["title"] for one in found] == ["{half:d} {price}"]


def test_an_absent_value_reads_as_a_question_mark(redis, redis_url):
    @rule("venue")
    def venue():
        return on("market.trade"), emit(title="on {venue:>9}", venue=e.venue)

    found, _ = run_over(redis, redis_url, trades(1), venue)
    assert [(one["title"], one["values"]) for one in found] == [
        ("on ?", {"venue": None})
    ]


# Dead letters, word by word ---------------------------------------------------

ROW = BadRow.of("s", "1-2", "not_utf8", "byte 3", [(b"a", b"\xff\x00")])


def fields_of(words):
    return dict(zip(words[::2], words[1::2], strict=True))


def test_a_dead_letter_keeps_the_bytes_as_they_were():
    fields = fields_of(dead_letter("p", "quarantine", ROW))
    assert fields[b"raw"] == b"a=\xff\x00"
    assert fields[b"kind"] == b"quarantine"
    assert fields[b"pipeline"] == b"p"
    assert all(isinstance(word, bytes) for word in fields.values())


def test_letters_of_every_kind_have_the_same_fields():
    letters = [
        dead_letter("p", "quarantine", ROW),
        late_letter("p", ROW, T),
        duplicate_letter("p", ROW, "01J"),
        failure_letter("p", ROW, "r", "raised"),
        vanished("p", "s", "1-2", "1-2", 1),
    ]
    fields = [fields_of(words).keys() - {b"missing"} for words in letters]
    assert all(names == fields[0] for names in fields)
