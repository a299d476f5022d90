"""One rule means one thing: live and over frames, the derived events are the same."""

import random

import live
import msgspec
import pytest

import cep
from cep.bus.publisher import Publisher
from cep.bus.replay import Track, replay_tracks
from cep.events.codec import decode
from cep.frames import load
from cep.pipeline import load_pipeline, stream

pytestmark = [pytest.mark.redis, pytest.mark.slow]


def published(redis, outputs=(live.OUTPUT, "system.events")):
    """The derived events in Redis by id, as `DerivedEvent` tells of them."""
    events = [
        decode(fields, stream_key=key)
        for key in outputs
        for _, fields in redis.xrange(key)
    ]
    return {
        event.id: (event.type, event.stream, event.time_ms, event.data, event.metadata)
        for event in events
    }


def derived(result):
    """The same of a run over frames."""
    return {
        event.id: (
            event.type,
            event.stream,
            event.time_ns // 1_000_000,
            msgspec.json.decode(msgspec.json.encode(event.data)),
            event.metadata(),
        )
        for event in result.events
    }


def test_the_whole_sample_gives_the_same_events_live_and_over_frames(redis, redis_url):
    pipeline = load_pipeline(cep.sample.pipeline_path("market_ai"))
    tracks = [Track(name, cep.sample.frame(name)) for name in cep.sample.streams()]
    replay_tracks(Publisher(redis), tracks)
    summary = live.drained(redis, redis_url, pipeline)
    found = published(redis)
    assert len(found) == redis.xlen(live.OUTPUT) > 30
    frames = load(cep.sample.streams(), url=redis_url)
    result = cep.run_rules(pipeline, frames)
    assert derived(result) == found
    assert len(result.events) == len(found)
    backtest = cep.backtest(pipeline, frames)
    assert backtest.compare(load(live.OUTPUT, url=redis_url)).equal
    assert len(backtest.ids) == len(found)
    for name, counts in summary.streams.items():
        told = result.accounting[name]
        assert told["processed"] == counts.processed
        assert told["late"] == counts.late
    for name, counts in result.counts.items():
        assert counts.emitted == summary.outputs[name]["emitted"]
        assert counts.suppressed == summary.outputs[name]["suppressed"]


@pytest.mark.parametrize("seed", range(6))
def test_disorder_silence_and_restarts_give_the_same_events_live_and_over_frames(
    seed, redis, redis_url, limits
):
    random_ = random.Random(seed)
    live.write(redis, with_a_silence(live.traffic(seed, n=300), random_))
    idle = random_.choice([None, "100ms", "1s"])
    bound = random_.choice(["0ms", "50ms", "250ms"])
    what = live.pipeline(
        streams=[
            stream(name, max_out_of_orderness=bound, idle=idle)
            for name in (live.MARKET, live.AI)
        ]
    )
    limits(READ_COUNT=random_.choice([3, 40]), STEP_ROWS=random_.choice([5, 1000]))
    for _ in range(random_.randrange(10)):
        live.once(redis_url, what)
    summary = live.drained(redis, redis_url, what)
    found = published(redis)
    assert len(found) > 10
    frames, bad = load([live.MARKET, live.AI], url=redis_url, with_bad=True)
    for batch_rows in (None, 7, 100):
        result = cep.run_rules(what, frames, batch_rows=batch_rows)
        assert derived(result) == found
    told = result.accounting.values()
    assert sum(one["late"] for one in told) == summary.total.late
    assert sorted(bad["entry_id"]) == sorted(
        row["entry_id"]
        for row in live.dead_letters(redis)
        if row["kind"] == "quarantine"
    )


def with_a_silence(entries, random_):
    """Part the entries by a silence; of one stream in two it is the beginning."""
    first, silence = random_.randrange(100, 250), random_.choice([0, 500, 5000])
    dumb = random_.choice([live.AI, None])
    moved = []
    for i, (key, entry_id, what) in enumerate(entries):
        ms, _, seq = entry_id.partition("-")
        if i >= first:
            moved.append((key, f"{int(ms) + silence}-{seq}", what))
        elif key != dumb:
            moved.append((key, entry_id, what))
    return moved
