"""One rule means one thing: live and over frames, the derived events are the same."""

import live
import msgspec
import pytest

import cep
from cep.bus.publisher import Publisher
from cep.bus.replay import Track, replay_tracks
from cep.events.codec import decode
from cep.frames import load
from cep.pipeline import load_pipeline

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
    for name, counts in summary.streams.items():
        told = result.accounting[name]
        assert told["processed"] == counts.processed
        assert told["late"] == counts.late
    for name, counts in result.counts.items():
        assert counts.emitted == summary.outputs[name]["emitted"]
        assert counts.suppressed == summary.outputs[name]["suppressed"]


@pytest.mark.parametrize("seed", range(3))
def test_disorder_and_bad_entries_give_the_same_events_live_and_over_frames(
    seed, redis, redis_url
):
    live.write(redis, live.traffic(seed))
    summary = live.drained(redis, redis_url)
    frames, bad = load([live.MARKET, live.AI], url=redis_url, with_bad=True)
    found = published(redis)
    assert len(found) > 200
    for batch_rows in (None, 7, 100):
        result = cep.run_rules(live.pipeline(), frames, batch_rows=batch_rows)
        assert derived(result) == found
    assert (
        sum(told["late"] for told in result.accounting.values()) == summary.total.late
    )
    letters = live.dead_letters(redis)
    assert sorted(bad["entry_id"]) == sorted(
        row["entry_id"] for row in letters if row["kind"] == "quarantine"
    )
