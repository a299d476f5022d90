"""The server loses the last things it acknowledged, and says nothing.

What comes of it is what an undisturbed pipeline makes of the entries that are
left, and the loss is reported.
"""

import os
import random
import signal
import threading
from urllib.parse import urlsplit

import live
import pytest

from cep.bus.connection import connect_redis
from cep.bus.embedded import EmbeddedServer
from cep.bus.keys import dlq_key
from cep.clock import TestClock
from cep.pipeline import Runner
from cep.pipeline.session import Session

pytestmark = pytest.mark.redis


def rollback_rows(redis):
    return [row for row in live.dead_letters(redis) if row["kind"] == "rollback"]


def without_rollbacks(redis):
    for entry_id, fields in redis.xrange(dlq_key("p")):
        if fields[b"kind"] == b"rollback":
            redis.xdel(dlq_key("p"), entry_id)


def cut(folder, size):
    """Take the last bytes off the append-only file, as a lost disk cache does."""
    [path] = (folder / "appendonlydir").glob("*.incr.aof")
    length = path.stat().st_size
    assert size < length
    os.truncate(path, length - size)


class Fed:
    """A server, a pipeline that runs there, and entries for it part by part."""

    def __init__(self, folder, seed):
        self.folder = folder
        self.server = EmbeddedServer(folder).start()
        self.port = urlsplit(self.server.url).port
        self.entries = live.traffic(seed, n=900)
        self.notes, self.ends = [], []
        self.redis = connect_redis(self.server.url)
        self.start()

    def start(self):
        self.runner = Runner(
            live.pipeline(),
            self.server.url,
            note=self.notes.append,
            clock=TestClock(),
        )

        def run():
            self.ends.append(self.runner.run())

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def feed(self, n):
        """Write so many entries and see them committed."""
        part, self.entries = self.entries[:n], self.entries[n:]
        live.write(self.redis, part)
        live.wait_until(self.all_is_read, 30)

    def all_is_read(self):
        counts = live.counts(self.redis)
        return counts.keys() == {live.MARKET, live.AI} and all(
            one["read"] == self.redis.xinfo_stream(key)["entries-added"]
            for key, one in counts.items()
        )

    def lose(self, size):
        """Kill the server, let it lose bytes, start it again."""
        pid = int((self.folder / "server.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        live.wait_until(lambda: self.server._running.process.poll() is not None)
        self.server.stop()
        cut(self.folder, size)
        self.server = EmbeddedServer(self.folder, port=self.port).start()
        self.redis = connect_redis(self.server.url)

    def end(self):
        live.declare_end(self.redis)
        self.thread.join(120)
        assert not self.thread.is_alive()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_commits_that_the_server_lost_are_reported_and_done_again(
    seed, tmp_path, limits
):
    limits(COMMIT_SECONDS=0)
    fed = Fed(tmp_path, seed)
    for _ in range(6):
        fed.feed(50)
    known = live.commits(fed.redis)
    size = random.Random(seed).randrange(30_000, 120_000)
    fed.lose(size)
    live.wait_until(lambda: rollback_rows(fed.redis), 30)
    for _ in range(3):
        fed.feed(50)
    fed.end()
    [row] = rollback_rows(fed.redis)
    lost = int(row["missing"])
    assert f"lost {lost} commits: it holds commit {known - lost}, " in row["detail"]
    assert sum("rollback: the server has lost" in note for note in fed.notes) == 1
    without_rollbacks(fed.redis)
    found, counts = live.came(fed.redis), live.counts(fed.redis)
    assert found.twice == []
    fed.redis.delete(live.OUTPUT, "system.events")
    expected, undisturbed = live.undisturbed(fed.redis, fed.server.url)
    assert (found, counts) == (expected, undisturbed)
    fed.server.stop()


@pytest.mark.slow
def test_a_server_killed_without_loss_reports_none(tmp_path, limits):
    limits(COMMIT_SECONDS=0)
    fed = Fed(tmp_path, 0)
    fed.feed(200)
    fed.lose(0)
    fed.feed(100)
    fed.end()
    assert not rollback_rows(fed.redis)
    assert not any("rollback" in note for note in fed.notes)
    fed.server.stop()


def test_a_server_that_lost_everything_is_gone_on_with(redis, redis_url, limits):
    limits(HEARTBEAT_SECONDS=0)
    notes, ends = [], []
    live.write(redis, live.traffic(n=30))
    runner = Runner(live.pipeline(), redis_url, note=notes.append, clock=TestClock())
    threading.Thread(target=lambda: ends.append(runner.run()), daemon=True).start()
    live.wait_until(lambda: live.commits(redis) > 0)
    redis.flushall()
    live.wait_until(lambda: live.commits(redis) > 0)
    live.write(redis, live.traffic(n=40))
    live.declare_end(redis)
    live.wait_until(lambda: ends, 30)
    assert ends[0].total.read == 40
    assert len(rollback_rows(redis)) == 1
    assert any("lost" in note for note in notes)


def test_a_rollback_that_is_not_looked_for_goes_unnoticed(
    redis, redis_url, limits, monkeypatch
):
    """The planted bug for the tests above."""
    monkeypatch.setattr(Session, "_note_rollback", lambda self, stored: None)
    with pytest.raises(AssertionError):
        test_a_server_that_lost_everything_is_gone_on_with(redis, redis_url, limits)
