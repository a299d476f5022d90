"""The process is killed while events come in, and started again."""

import random
import threading

import live
import pytest

import cep
from cep.bus.publisher import Publisher
from cep.bus.replay import Track, replay_tracks
from cep.pipeline import load_pipeline

pytestmark = [pytest.mark.redis, pytest.mark.slow]

NAME = "market-ai"
KILLS = 3


class Feed:
    """Publishes the bundled sample, never far ahead of what was read."""

    def __init__(self, redis, ahead=6_000):
        self.redis, self.ahead = redis, ahead
        self.published, self.stopped = 0, False
        self.thread = threading.Thread(target=self._publish, daemon=True)
        self.thread.start()

    def _publish(self):
        tracks = [Track(name, cep.sample.frame(name)) for name in cep.sample.streams()]
        replay_tracks(Publisher(self.redis), tracks, progress=self._wait)

    def _wait(self, published, _):
        self.published = published
        live.wait_until(
            lambda: self.stopped or self._read() > published - self.ahead, 240
        )

    def _read(self):
        return sum(one["read"] for one in live.counts(self.redis, NAME).values())


def test_killed_again_and_again_while_events_come_in(redis, redis_url):
    random_ = random.Random(1)
    module = cep.sample.pipeline_path("market_ai")
    feed = Feed(redis)
    came_of = []
    for _ in range(KILLS):
        with live.Process(module, redis_url, "--quiet") as process:
            goal = live.commits(redis, NAME) + random_.randint(1, 4)
            live.wait_until(lambda goal=goal: live.commits(redis, NAME) >= goal)
            process.kill()
        came_of.append(len(live.came(redis, NAME).ids))
    assert feed.published < 60_981  # kills fell into the middle
    feed.stopped = True
    feed.thread.join()
    pipeline = load_pipeline(module)
    live.drained(redis, redis_url, pipeline)
    found, counts = live.came(redis, NAME), live.counts(redis, NAME)
    assert 0 < max(came_of) < len(found.ids)
    assert counts["market.events"]["read"] == 59_678
    redis.delete(live.OUTPUT)
    expected, undisturbed = live.undisturbed(
        redis, redis_url, rules=pipeline.rules, streams=pipeline.streams
    )
    assert found.twice == []
    assert found == expected
    assert counts == undisturbed
