"""Event time in a live run: idle streams, ticks, the end; never the wall clock."""

import threading
import time

import live
import pytest

from cep import count, e, emit, m, on, rule, run_rules, seq
from cep.bus import ColumnarReader
from cep.bus.keys import ticks_key
from cep.bus.publisher import Publisher
from cep.events.envelope import Event
from cep.frames import load
from cep.pipeline import Runner, limits, stream
from cep.pipeline.store import Store

pytestmark = pytest.mark.redis

T = live.START_MS


@rule("every")
def every():
    either = on("market.trade", "ai.inference.requested", name="either")
    return either, emit(time=e.event_time)


def streams(bound="0ms", idle="1s"):
    return [
        stream(name, max_out_of_orderness=bound, idle=idle)
        for name in (live.MARKET, live.AI)
    ]


def market(arrival, time_ms=None):
    time_ms = arrival if time_ms is None else time_ms
    return live.MARKET, f"{T + arrival}-0", live.trade(arrival, T + time_ms)


def ai(arrival, time_ms=None):
    time_ms = arrival if time_ms is None else time_ms
    return live.AI, f"{T + arrival}-0", live.request(arrival, T + time_ms)


def one_by_one(redis, url, entries, what):
    """Run a pipeline anew after each entry, then to the end."""
    for entry in entries:
        live.write(redis, [entry])
        live.once(url, what)
    live.drained(redis, url, what)


ARRIVALS = {
    "a stream first heard after the others were idle for it": [
        market(0), market(500), market(3000), market(4500),
        ai(5000, 1000), ai(5100, 4800), market(6000), ai(6500, 4700), market(9000),
    ],
    "a stream first heard at once, with older events": [
        market(5000), ai(5001, 1000), market(5002), ai(5003, 900), ai(5004, 2000),
    ],
    "a stream silent for long, then with old events": [
        market(0), ai(1), market(4000), ai(4001, 10), ai(4002, 3200), market(4003),
    ],
    "both silent for long": [
        ai(0), market(1), market(9000, 2), ai(9001, 7000), ai(9002), market(9003, 8005),
    ],
    "the other one is first": [
        ai(0), ai(700), ai(5000), market(5000, 3000), market(5001, 4500), ai(9000),
    ],
}  # fmt: skip


@pytest.mark.parametrize("entries", ARRIVALS.values(), ids=ARRIVALS)
@pytest.mark.parametrize("bound", ["0ms", "250ms"])
def test_lateness_depends_on_entry_ids_not_on_when_they_were_read(
    entries, bound, redis, redis_url
):
    what = live.pipeline(rules=[every], streams=streams(bound))
    one_by_one(redis, redis_url, entries, what)
    bit_by_bit = live.came(redis)
    redis.delete(live.OUTPUT)
    at_once, counts = live.undisturbed(
        redis, redis_url, rules=[every], streams=what.streams
    )
    assert bit_by_bit == at_once
    assert live.counts(redis) == counts
    frames = load([live.MARKET, live.AI], url=redis_url)
    assert set(run_rules(what, frames).ids) == set(at_once.ids)


def test_a_tick_does_not_overtake_entries_that_were_not_read_yet(
    redis, redis_url, monkeypatch
):
    """An entry may arrive between a read that found nothing and a tick."""
    what = live.pipeline(rules=[every], streams=streams()[:1])
    live.write(redis, [market(0)])
    read_ticks = Store.read_ticks
    late = []

    def entry_then_tick(self, after):
        if not late:
            late.extend(live.write(redis, [market(500, 10)]))
            redis.xadd(ticks_key("p"), {"kind": "idle"}, f"{T + 9000}-0")
            redis.xadd(ticks_key("p"), {"kind": "end"}, f"{T + 9000}-1")
        return read_ticks(self, after)

    monkeypatch.setattr(Store, "read_ticks", entry_then_tick)
    summary = live.run(redis_url, what)
    assert late
    assert (summary.total.processed, summary.total.late) == (2, 0)


def test_the_end_does_not_wait_for_a_moment_of_silence(redis, redis_url, monkeypatch):
    """Somebody may go on publishing; what was there by then is the input."""
    what = live.pipeline(rules=[every], streams=streams()[:1])
    live.write(redis, [market(0)])
    live.declare_end(redis)
    read, arrivals = ColumnarReader.read, iter(range(1, 10_000))

    def never_silent(self, block_ms, **options):
        live.write(redis, [market(next(arrivals))])
        return read(self, block_ms, **options)

    monkeypatch.setattr(ColumnarReader, "read", never_silent)
    monkeypatch.setattr(limits, "TICK_SECONDS", 0.01)
    assert live.run(redis_url, what).ended


# With the time of the server, as live streams have it -------------------------


def publish(url, *symbols):
    """Publish a trade for each symbol, of this very moment."""
    for symbol in symbols:
        trade = {"symbol": symbol, "price": 1.0, "quantity": 1.0}
        Publisher(url).publish(Event.new("market.trade", trade))


def publish_request(url):
    data = live.request(0, 0).data
    Publisher(url).publish(Event.new("ai.inference.requested", data))


@pytest.fixture
def running(redis_url, limits):
    """Start a pipeline in a thread; it is stopped when the test ends."""
    limits(TICK_SECONDS=0.05)
    runners = []

    def start(what):
        reports = []
        runner = Runner(what, redis_url, report=reports.append)
        thread = threading.Thread(target=runner.run, daemon=True)
        runners.append((runner, thread))
        thread.start()
        return reports

    yield start
    for runner, thread in runners:
        runner.stop()
        thread.join(60)


@pytest.mark.parametrize("heard", [True, False])
def test_a_silent_stream_does_not_hold_outputs_back_for_longer_than_idle(
    heard, redis, redis_url, running
):
    if heard:
        publish_request(redis_url)
    publish(redis_url, "BTC", "ETH")
    running(live.pipeline(rules=[every], streams=streams(idle="200ms")))
    live.wait_until(lambda: redis.xlen(live.OUTPUT) == 2 + heard)
    assert live.counts(redis)[live.MARKET]["processed"] == 2
    assert redis.xlen(ticks_key("p")) >= 1


def test_an_absence_at_the_end_of_a_live_stream_needs_no_further_event(
    redis, redis_url, running
):
    @rule("alone", key="symbol")
    def alone():
        first = on("market.trade", name="first")
        again = on("market.trade", name="again")
        return seq(first).not_then(again).within("100ms"), emit(price=m.first.price)

    running(live.pipeline(rules=[alone], streams=streams(idle="200ms")[:1]))
    publish(redis_url, "BTC", "ETH")
    live.wait_until(lambda: redis.xlen(live.OUTPUT) == 2)
    # And then there is nothing left to wait for: time stands still again.
    live.wait_until(lambda: not waits(redis))


def test_a_window_at_the_end_of_a_live_stream_closes_without_a_further_event(
    redis, redis_url, running
):
    @rule("closes", key="symbol")
    def closes():
        return on("market.trade").tumbling("100ms"), emit(n=count())

    running(live.pipeline(rules=[closes], streams=streams(idle="200ms")[:1]))
    publish(redis_url, "BTC", "ETH")
    live.wait_until(lambda: redis.xlen(live.OUTPUT) == 2)
    live.wait_until(lambda: not waits(redis))


@pytest.mark.slow
def test_an_absence_is_waited_for_across_a_restart(redis, redis_url, limits):
    @rule("alone", key="symbol")
    def alone():
        first = on("market.trade", name="first")
        again = on("market.trade", name="again")
        return seq(first).not_then(again).within("2s"), emit(price=m.first.price)

    limits(TICK_SECONDS=0.05)
    what = live.pipeline(rules=[alone], streams=streams(idle="200ms")[:1])
    publish(redis_url, "BTC")

    def run_until(condition):
        runner = Runner(what, redis_url)
        thread = threading.Thread(target=runner.run, daemon=True)
        thread.start()
        live.wait_until(condition)
        runner.stop()
        thread.join(60)

    run_until(lambda: live.counts(redis).get(live.MARKET, {}).get("processed") == 1)
    assert live.state_fields(redis)
    run_until(lambda: redis.xlen(live.OUTPUT) == 1)


def waits(redis):
    """Whether a tick was written within the last moments."""
    [(last, _)] = redis.xrevrange(ticks_key("p"), count=1)
    return time.time() * 1000 - int(last.split(b"-")[0]) < 300


def test_without_idle_a_silent_stream_is_waited_for_and_named(
    redis, redis_url, running
):
    publish(redis_url, "BTC", "ETH")
    reports = running(live.pipeline(rules=[every], streams=streams(idle=None)))
    live.wait_until(lambda: reports)
    assert reports[-1].held_back_by == live.AI
    assert redis.xlen(live.OUTPUT) == 0
    publish_request(redis_url)
    publish(redis_url, "BTC")
    live.wait_until(lambda: redis.xlen(live.OUTPUT) == 2)
