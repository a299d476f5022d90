"""What pipelines still need of a stream, beside what they read after a restart."""

import live
import pytest

from cep.bus.keys import meta_key
from cep.errors import StateVersionError
from cep.pipeline import Runner, stream
from cep.pipeline.needs import needed


def test_what_waits_for_another_stream_is_still_needed(redis, redis_url):
    streams = (
        stream(live.MARKET, max_out_of_orderness="250ms", idle=None),
        stream(live.AI, max_out_of_orderness="250ms", idle=None),
    )
    entries = live.traffic(2, 400)
    last_ai = max(i for i, one in enumerate(entries) if one[0] == live.AI and i < 100)
    live.write(
        redis,
        [one for i, one in enumerate(entries) if one[0] != live.AI or i <= last_ai],
    )
    runner = Runner(live.pipeline(streams=streams), redis_url)
    runner.report = lambda summary: runner.stop()
    runner.run()
    needs = needed(redis)["p"]
    market = [e for e, _ in redis.xrange(live.MARKET)]
    first = next(
        i
        for i, e in enumerate(market)
        if tuple(map(int, e.split(b"-"))) >= needs[live.MARKET]
    )
    assert 0 < first < len(market) - 100
    # Without what goes before, a restart does what an undisturbed run does.
    redis.xtrim(live.MARKET, minid=market[first], approximate=False)
    live.write(
        redis,
        [one for i, one in enumerate(entries) if one[0] == live.AI and i > last_ai],
    )
    Runner(live.pipeline(streams=streams), redis_url, drain=True).run()
    trimmed = live.came(redis)
    redis.flushall()
    live.write(redis, entries)
    Runner(live.pipeline(streams=streams), redis_url, drain=True).run()
    assert trimmed.ids == live.came(redis).ids
    after = needed(redis)["p"][live.MARKET]
    ms, seq = map(int, redis.xrevrange(live.MARKET, count=1)[0][0].split(b"-"))
    assert after == (ms, seq + 1)


def test_a_pipeline_that_cannot_be_read_is_not_passed_over(redis):
    redis.hset(meta_key("odd"), "positions", '{"market.events": "x"}')
    with pytest.raises(StateVersionError, match="pipeline 'odd'"):
        needed(redis)
