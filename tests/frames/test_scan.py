"""`scan` beside `load` and polars' own filters, and what a server says was read."""

import logging
import math
from datetime import UTC, datetime, timedelta

import live
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from cep.bus.connection import connect_redis
from cep.bus.embedded import EmbeddedServer
from cep.errors import InvalidDurationError, UnknownEventTypeError
from cep.events import registry
from cep.frames import load, scan
from cep.frames.archive.prune import carry_out, plan
from cep.frames.archive.write import Archiver
from cep.frames.scan import arrival_bounds
from cep.frames.sources import PAGE

MARKET = live.MARKET
TIME = pl.col("event_time")
HOME = [one.name for one in registry.types_of(MARKET)]
AT = datetime.fromtimestamp(live.START_MS / 1000, UTC)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """The same entries live, archived, and partly both; and the frame of them."""
    root = tmp_path_factory.mktemp("scan") / "archive"
    with (
        EmbeddedServer(appendonly=False) as server,
        connect_redis(server.url) as client,
    ):
        url = server.url
        entries = [one for one in live.traffic(4, 1600) if one[0] == MARKET]
        live.write(client, entries[:700])
        with Archiver(client, root, [MARKET], rows_per_file=200) as archiver:
            archiver.catch_up()
        live.write(client, entries[700:])
        frame = load(MARKET, url=url, types=HOME, envelope=True)
        yield {"live": {"url": url}, "joined": {"url": url, "archive": root}}, frame


def moments():
    whole = st.integers(-3000, 9000).map(lambda ms: AT + timedelta(milliseconds=ms))
    return whole | whole.map(lambda at: at + timedelta(microseconds=500))


def conditions():
    compare = ["__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__"]
    times = st.builds(
        lambda how, at, swapped: (
            getattr(pl.lit(at), how)(TIME) if swapped else getattr(TIME, how)(at)
        ),
        st.sampled_from(compare),
        moments(),
        st.booleans(),
    )
    between = st.builds(
        lambda a, b, closed: TIME.is_between(min(a, b), max(a, b), closed=closed),
        moments(),
        moments(),
        st.sampled_from(["both", "left", "right", "none"]),
    )
    shifted = moments().map(lambda at: pl.lit(at).dt.offset_by("-1s") <= TIME)
    others = st.sampled_from(
        [
            pl.col("price") > 100,
            pl.col("symbol") == "ETH",
            pl.col("@version") == 1,
            pl.col("entry_id").str.ends_with("1"),
            pl.col("side").is_null(),
            TIME.dt.millisecond() < 500,
        ]
    )
    return st.recursive(
        times | between | shifted | others,
        lambda inner: (
            st.builds(lambda a, b: a & b, inner, inner)
            | st.builds(lambda a, b: a | b, inner, inner)
            | inner.map(lambda a: ~a)
        ),
        max_leaves=5,
    )


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_a_query_gives_what_it_gives_on_the_whole_frame(places, data):
    where, frame = places
    source = where[data.draw(st.sampled_from(sorted(where)))]
    lazy, eager = scan(MARKET, envelope=True, **source), frame.lazy()
    for step in data.draw(
        st.lists(st.sampled_from(["filter", "select", "head", "slice"]), max_size=3)
    ):
        if step == "filter":
            condition = data.draw(conditions())
            needs = set(condition.meta.root_names())
            if needs <= set(eager.collect_schema().names()):
                lazy, eager = lazy.filter(condition), eager.filter(condition)
        elif step == "select":
            names = eager.collect_schema().names()
            chosen = data.draw(
                st.lists(st.sampled_from(names), min_size=1, unique=True)
            )
            lazy, eager = lazy.select(chosen), eager.select(chosen)
        elif step == "head":
            n = data.draw(st.integers(0, 1500))
            lazy, eager = lazy.head(n), eager.head(n)
        else:
            offset, n = data.draw(st.integers(0, 1200)), data.draw(st.integers(0, 200))
            lazy, eager = lazy.slice(offset, n), eager.slice(offset, n)
    assert_frame_equal(lazy.collect(), eager.collect())


@settings(max_examples=100, deadline=None)
@given(conditions())
def test_bounds_lose_no_event(places, condition):
    _, frame = places
    taken = frame.filter(condition)
    first, last = arrival_bounds(condition, None)
    assert last == (2**64 - 1, 2**64 - 1)
    arrived = taken["entry_id"].str.split("-").list.first().cast(pl.Int64)
    assert (arrived >= first[0]).all()
    delays = arrived - taken["event_time"].dt.epoch("ms")
    first, last = arrival_bounds(condition, delays.max() or 0)
    assert (arrived.max() or 0) <= last[0]


def read_of(redis, query):
    """Return a query's result, and how many entries the server sent for it."""
    redis.config_resetstat()
    before = traffic(redis)
    found = query.collect()
    return found, traffic(redis) - before


def traffic(redis):
    info = redis.info("stats")
    return info["total_net_output_bytes"]


@pytest.fixture
def many(redis):
    """Trades of 100 s, one each 10 ms, and the bytes that the server sends for all."""
    n = 10_000
    live.write(
        redis,
        [
            (
                MARKET,
                f"{live.START_MS + 10 * i}-0",
                live.trade(i, live.START_MS + 10 * i),
            )
            for i in range(n)
        ],
    )
    return n


def test_a_condition_on_time_reads_that_part_alone(redis, redis_url, many):
    _, whole = read_of(redis, scan(MARKET, url=redis_url))
    late = AT + timedelta(seconds=90)
    found, sent = read_of(redis, scan(MARKET, url=redis_url).filter(late <= TIME))
    assert len(found) == many / 10
    # Five minutes before it are read as well: an event may be ahead of its arrival.
    assert sent == pytest.approx(whole, rel=0.1)
    bounded = scan(MARKET, url=redis_url, max_delay="1s")
    first = AT + timedelta(seconds=4) > TIME
    found, sent = read_of(redis, bounded.filter(first))
    assert len(found) == 400
    assert sent < 0.06 * whole
    found, sent = read_of(redis, scan(MARKET, url=redis_url).filter(first))
    assert len(found) == 400
    assert sent == pytest.approx(whole, rel=0.1)


def test_head_reads_so_many(redis, redis_url, many):
    _, whole = read_of(redis, scan(MARKET, url=redis_url))
    found, sent = read_of(redis, scan(MARKET, url=redis_url).head(100))
    assert len(found) == 100
    assert sent < 0.02 * whole
    n = 2 * PAGE + 7
    found, _ = read_of(redis, scan(MARKET, url=redis_url).head(n))
    assert len(found) == n < many


def test_rows_that_came_later_than_the_bound_are_told_of(redis, redis_url, caplog):
    rows = [
        (MARKET, f"{live.START_MS + 1000 * i}-0", live.trade(i, live.START_MS))
        for i in range(5)
    ]
    live.write(redis, rows)
    query = scan(MARKET, url=redis_url, max_delay="2s").filter(TIME >= AT)
    with caplog.at_level(logging.WARNING):
        assert len(query.collect()) == 5
    assert "2 of 5 events read came later" in caplog.text


def test_bad_rows_are_told_of(redis, redis_url, caplog):
    redis.xadd(MARKET, {"a": "b"})
    with caplog.at_level(logging.WARNING):
        assert scan(MARKET, url=redis_url).select("price").collect().is_empty()
    assert "1 of 1 entries are no events (1 missing_envelope_field)" in caplog.text


def test_types_choose_rows_and_columns(places):
    where, frame = places
    lazy = scan(MARKET, types="market.trade", **where["live"])
    expected = load(MARKET, types="market.trade", **where["live"])
    assert lazy.collect_schema() == expected.schema
    assert_frame_equal(lazy.collect(), expected)
    assert lazy.select(pl.len()).collect().item() == len(expected) == len(frame)


def test_events_away_from_home_have_the_frames_own_columns(redis, redis_url):
    asked = live.request(1, live.START_MS)
    live.write(
        redis,
        [
            (
                "own.stream",
                f"{live.START_MS}-0",
                live.Event.new(
                    "market.trade",
                    {"symbol": "A", "price": 1.0, "quantity": 1.0},
                    stream="own.stream",
                    timestamp=asked.timestamp,
                ),
            )
        ],
    )
    found = scan("own.stream", url=redis_url).collect()
    assert found["price"].to_list() == [1.0]
    assert found.width > 50


def test_several_streams_come_as_a_dict(places):
    where, frame = places
    found = scan([MARKET, "ai.events"], **where["live"])
    assert list(found) == [MARKET, "ai.events"]
    assert found[MARKET].select(pl.len()).collect().item() == len(frame)
    assert found["ai.events"].collect().is_empty()


def test_what_is_wrong_is_said_when_it_can_be_known(redis_url):
    with pytest.raises(UnknownEventTypeError):
        scan(MARKET, types="market.trad")
    with pytest.raises(InvalidDurationError):
        scan(MARKET, archive="a", max_delay=5)  # type: ignore[arg-type]
    query = scan("market.event", url=redis_url)
    with pytest.raises(Exception, match=r"Did you mean 'market.events'"):
        query.collect()


def test_while_the_archive_is_pruned_nothing_is_lost(redis, redis_url, tmp_path):
    live.write(redis, [one for one in live.traffic(6, 600) if one[0] == MARKET])
    before = scan(MARKET, url=redis_url).collect()
    with Archiver(redis, tmp_path, [MARKET]) as archiver:
        archiver.catch_up()
    carry_out(redis, plan(redis, tmp_path, MARKET))
    assert redis.xlen(MARKET) == 0
    assert_frame_equal(scan(MARKET, url=redis_url, archive=tmp_path).collect(), before)


def test_the_sample_is_scanned_without_a_server():
    found = scan("market.events", url="sample", types="market.quote")
    expected = load("market.events", url="sample", types="market.quote")
    assert_frame_equal(found.collect(), expected)
    assert math.isclose(
        found.select(pl.col("bid").sum()).collect().item(), expected["bid"].sum()
    )
