"""A monitor of growing streams, on a real server and a clock that tests turn."""

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from cep.bus.publisher import Publisher
from cep.clock import TestClock
from cep.errors import UsageError
from cep.events import Event
from cep.events.timestamps import from_ms
from cep.reporting import Monitor
from cep.reporting import monitor as module

pytestmark = pytest.mark.redis

STREAM = "market.events"
START = 1_700_000_000_000
SPOT = {"symbol": "BTCUSDT", "venue": "spot"}


def publish(redis, prices, first=START, step=100, **fields):
    prices = np.asarray(prices, float)
    Publisher(redis).publish_columns(
        STREAM,
        "market.trade",
        {
            "symbol": ["BTCUSDT"] * len(prices),
            "venue": [fields.get("venue", "spot")] * len(prices),
            "price": prices,
            "quantity": np.ones(len(prices)),
        },
        event_time=first + step * np.arange(len(prices)),
    )


def alert(redis, key, time_ms, title="up"):
    Publisher(redis).publish(
        Event.new(
            "trend.alert.generated",
            {
                "rule": "spike",
                "rule_version": 1,
                "key": key,
                "severity": "warning",
                "title": title,
                "values": {},
            },
            timestamp=from_ms(time_ms),
        )
    )


def watching(redis_url, **options):
    made = Monitor(url=redis_url, where=SPOT, clock=TestClock(), **options)
    made.look()
    return made


def test_candles_are_those_of_the_events_that_came_since_it_began(redis, redis_url):
    publish(redis, [1, 2, 3])
    monitor = watching(redis_url)
    assert monitor.candles().is_empty()
    publish(redis, [5, 9, 4, 6], step=400)
    publish(redis, [100, 100], venue="usdm")
    assert str(monitor.look()) == "6 events; 0 alerts; up to date; 2 looks, 0 dropped."
    publish(redis, [7], first=START + 1999)
    monitor.look()
    expected = pl.DataFrame(
        {
            "open": [5.0, 6.0],
            "high": [9.0, 7.0],
            "low": [4.0, 6.0],
            "close": [4.0, 7.0],
            "events": [3, 2],
        },
        schema_overrides={"events": pl.UInt32},
    )
    assert_frame_equal(monitor.candles().drop("time"), expected)
    times = monitor.candles()["time"].dt.epoch("ms").to_list()
    assert times == [START, START + 1000]


def test_all_events_are_taken_whoever_else_writes_to_the_stream(redis, redis_url):
    monitor = watching(redis_url)
    taken = 0
    for round_ in range(5):
        publish(redis, np.arange(1, 40), first=START + round_)
        redis.xadd(STREAM, {"no": "event"})
        monitor.look()
        taken += 39
        assert monitor.status.events == taken
    monitor.look()
    assert (monitor.status.events, monitor.status.bad) == (taken, 5)


def test_a_start_in_the_past_and_a_look_that_cannot_take_it_all(
    redis, redis_url, monkeypatch
):
    monkeypatch.setattr(module, "ROWS_A_LOOK", 40)
    publish(redis, np.arange(1, 101))
    first = redis.xrange(STREAM, count=1)[0][0].decode()
    # Far enough apart that the way behind can be seen in milliseconds.
    redis.xadd(STREAM, {"no": "event"}, id=f"{int(first.split('-')[0]) + 60_000}-0")
    monitor = watching(redis_url, start=first)
    assert monitor.status.events == 40
    assert monitor.status.behind_ms > 50_000
    assert "behind" in str(monitor.status)
    monitor.look()
    monitor.look()
    assert (monitor.status.events, monitor.status.behind_ms) == (100, 0)


def test_what_it_holds_is_bounded_in_time_and_number(redis, redis_url, monkeypatch):
    monitor = watching(redis_url, span="10s")
    publish(redis, np.arange(1, 301))  # 30 s
    monitor.look()
    assert monitor.candles()["events"].sum() == 100
    monkeypatch.setattr(module, "MOST_ROWS", 30)
    publish(redis, [1], first=START + 29_901)
    monitor.look()
    assert monitor.candles()["events"].sum() == 30
    assert monitor.status.forgotten == 71
    assert "71 rows too many" in str(monitor.status)


def test_looks_are_a_fixed_time_apart_and_those_that_are_missed_are_counted(redis_url):
    clock = TestClock()
    monitor = Monitor(url=redis_url, clock=clock, refresh="500ms")
    at = []
    for status in monitor.looks(seconds=5):
        at.append(clock.monotonic_ns() / 1e9)
        if status.looks == 3:
            clock.advance("1200ms")  # the picture took so long
    assert at == [0, 0.5, 1, 2.5, 3, 3.5, 4, 4.5, 5]
    assert monitor.status.dropped == 2


def test_alerts_are_drawn_where_they_belong(redis, redis_url):
    monitor = watching(redis_url)
    publish(redis, [5, 6, 7, 8], step=1000)
    alert(redis, "BTCUSDT/spot", START + 1500)
    alert(redis, "BTCUSDT/usdm", START + 1500)
    monitor.look()
    assert monitor.status.alerts == 2
    assert len(monitor.alert_table()) == 2
    candles, marks = monitor.plot().data
    assert list(candles.close) == [5, 6, 7, 8]
    assert list(marks.y) == [6]
    assert marks.name == "spike (1)"


def test_foreign_text_stays_text(redis, redis_url):
    monitor = watching(redis_url)
    publish(redis, [5])
    alert(redis, "BTCUSDT/spot", START, title="<script>1</script>")
    monitor.look()
    html = monitor.table_html()
    assert "<script" not in html
    assert "&lt;script&gt;1" in html
    assert "<script" not in monitor.plot().data[1].customdata[0][2]


def test_a_server_that_is_away_is_told_and_asked_again(redis, redis_url):
    monitor = watching(redis_url)
    monitor.url = "redis://127.0.0.1:1"
    assert "127.0.0.1:1" in str(monitor.look())
    monitor.url = redis_url
    publish(redis, [5])
    assert str(monitor.look()).startswith("1 events")


def test_mistakes_are_told():
    with pytest.raises(UsageError, match="less than two candles"):
        Monitor(candle="1m", span="90s")
    with pytest.raises(UsageError, match="no notebook"):
        Monitor().watch("1s")
