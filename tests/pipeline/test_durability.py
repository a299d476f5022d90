"""What is asked of a server, what it has, and what a replica has of it."""

import live
import pytest

from cep import Pipeline, e, emit, on, rule
from cep.bus.connection import connect_redis
from cep.bus.embedded import EmbeddedServer
from cep.errors import UsageError
from cep.pipeline import durability, stream
from cep.pipeline.durability import Replicas, weakness

pytestmark = pytest.mark.redis

T = live.START_MS


@rule("every")
def every():
    return on("market.trade"), emit(price=e.price)


STREAMS = [stream(live.MARKET, max_out_of_orderness="0ms")]


@pytest.fixture
def configured(redis):
    """Set the server's options for one test."""
    before = redis.config_get("append*")

    def configure(**options):
        for name, value in options.items():
            redis.config_set(name, value)

    yield configure
    for name in ("appendonly", "appendfsync"):
        redis.config_set(name, before[name])


@pytest.mark.parametrize(
    ("options", "level", "lacking"),
    [
        ({"appendfsync": "everysec"}, "fast", ""),
        ({"appendfsync": "always"}, "fast", ""),
        ({"appendfsync": "always"}, "safe", ""),
        ({"appendfsync": "everysec"}, "safe", "later (appendfsync everysec)"),
        ({"appendfsync": "no"}, "fast", "to the system (appendfsync no)"),
        ({"appendonly": "no"}, "fast", "no append-only file (appendonly no)"),
        ({"appendfsync": "everysec"}, "ha", "it has no replica"),
    ],
)
def test_what_a_server_lacks_is_told(options, level, lacking, configured, redis):
    configured(**options)
    found = weakness(redis, level)
    assert (lacking in found) if lacking else (found == "")


def test_a_server_that_does_not_tell_is_unknown(redis, redis_url):
    redis.acl_setuser(
        "u", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-config"]
    )
    notes = []
    what = Pipeline("p", [every], STREAMS, durability="safe")
    live.once(redis_url.replace("://", "://u:x@"), what, note=notes.append)
    redis.acl_deluser("u")
    assert len(notes) == 1
    assert "safe was asked for, but the server does not tell" in notes[0]


def test_it_is_told_once_at_the_start_and_the_option_comes_first(
    redis, redis_url, configured
):
    configured(appendfsync="everysec")
    what = Pipeline("p", [every], STREAMS, durability="safe")
    for options, told in (({}, 1), ({"durability": "fast"}, 0)):
        notes = []
        live.once(redis_url, what, note=notes.append, **options)
        assert len(notes) == told


def test_what_is_no_level_is_refused():
    with pytest.raises(UsageError, match=r"'best'\. Pass one of fast, safe"):
        Pipeline("p", [every], STREAMS, durability="best")


def test_without_a_replica_it_goes_on_and_says_so(redis, redis_url, monkeypatch):
    monkeypatch.setattr(durability, "WAIT_MS", 1)
    live.write(redis, [(live.MARKET, f"{T}-0", live.trade(0, T))])
    notes = []
    what = Pipeline("p", [every], STREAMS, durability="ha")
    summary = live.drained(redis, redis_url, what, note=notes.append)
    assert summary.total.processed == 1
    assert sum("no replica had commit" in note for note in notes) == 1


@pytest.mark.slow
def test_a_commit_is_at_the_replica_when_it_is_done(tmp_path):
    with (
        EmbeddedServer(tmp_path / "a") as primary,
        EmbeddedServer(tmp_path / "b") as copy,
        connect_redis(primary.url) as redis,
        connect_redis(copy.url) as replica,
    ):
        port = primary.url.rpartition(":")[2].partition("/")[0]
        replica.replicaof("127.0.0.1", port)
        live.wait_until(lambda: weakness(redis, "ha") == "", 30)
        waiting = Replicas(redis)
        for i in range(20):
            redis.set("k", i)
            assert waiting.wait()
            assert replica.get("k") == str(i).encode()
        assert waiting.short == 0
        replica.replicaof("NO", "ONE")
        redis.set("k", "x")
        live.wait_until(lambda: not waiting.wait(), 30)
        assert waiting.short == 1
