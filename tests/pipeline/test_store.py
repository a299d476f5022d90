"""Owner, commit, lag and ticks: what is in Redis, whatever goes wrong there."""

import itertools

import pytest

from cep.bus.connection import connect_redis
from cep.bus.keys import dlq_key, meta_key, state_key, ticks_key
from cep.errors import (
    ConnectionFailedError,
    FencedError,
    StateVersionError,
    UsageError,
)
from cep.pipeline.blocks import Block
from cep.pipeline.store import Store

pytestmark = pytest.mark.redis

entry = Block.of_one
META = {"positions": {"a": "1-0"}, "counts": {}, "ended": "0"}


@pytest.fixture
def store(redis):
    store = Store(redis, "p")
    store.take_over()
    return store


def everything(redis):
    """All keys and their contents."""
    found = {}
    for key in redis.scan_iter():
        kind = redis.type(key)
        found[key] = redis.xrange(key) if kind == b"stream" else redis.hgetall(key)
    return found


def test_a_commit_writes_outputs_letters_state_and_positions(redis, store):
    entries = [
        entry("out", [b"a", b"1"]),
        entry(dlq_key("p"), [b"b", b"2"]),
        entry("out", [b"c", b""]),
    ]
    store.commit(entries, {"k": b"\x00\xff", "gone": None}, META)
    assert [fields for _, fields in redis.xrange("out")] == [{b"a": b"1"}, {b"c": b""}]
    assert [fields for _, fields in redis.xrange(dlq_key("p"))] == [{b"b": b"2"}]
    assert redis.hgetall(state_key("p")) == {b"k": b"\x00\xff", b"seq": b"1"}
    stored = Store(redis, "p").take_over(force=True)
    assert (stored.seq, stored.positions, stored.ended) == (1, {"a": "1-0"}, False)
    assert stored.state == {"k": b"\x00\xff"}


def test_fields_that_are_gone_are_removed(redis, store):
    store.commit([], {"a": b"1", "b": b"2"}, META)
    store.commit([], {"a": None, "b": b"3"}, META)
    assert redis.hgetall(state_key("p")) == {b"b": b"3", b"seq": b"2"}
    assert store.seq == 2


def test_a_commit_of_thousands_of_entries_and_fields_is_one(redis, store):
    entries = [entry(f"out{i % 7}", [b"n", b"%d" % i]) for i in range(20_000)]
    state = {f"field {i}": b"x" for i in range(20_000)}
    store.commit(entries, state, META)
    assert sum(redis.xlen(f"out{i}") for i in range(7)) == 20_000
    assert redis.hlen(state_key("p")) == 20_001


def test_whoever_took_over_last_commits_and_nobody_else(redis, store):
    other = Store(redis, "p")
    other.take_over(force=True)
    before = everything(redis)
    with pytest.raises(FencedError) as caught:
        store.commit([entry("out", [b"a", b"1"])], {"k": b"v"}, META)
    assert (caught.value.ours, caught.value.theirs) == (store.owner, other.owner)
    assert everything(redis) == before
    other.commit([entry("out", [b"a", b"1"])], {}, META)
    assert redis.xlen("out") == 1


def test_a_commit_upon_another_than_ours_is_refused(redis, store):
    redis.hset(meta_key("p"), "seq", 7)
    before = everything(redis)
    with pytest.raises(FencedError, match="commit 7, we were commit 0"):
        store.commit([entry("out", [b"a", b"1"])], {}, META)
    assert everything(redis) == before


def test_a_place_that_was_removed_is_not_written_again(redis, store):
    redis.flushall()
    with pytest.raises(ConnectionFailedError, match="it holds nothing of pipeline 'p'"):
        store.commit([entry("out", [b"a", b"1"])], {}, META)
    assert redis.keys() == []


@pytest.mark.parametrize(
    "key", ["out", dlq_key("p"), state_key("p")], ids=["output", "letters", "state"]
)
def test_nothing_is_written_if_a_key_is_of_another_type(key, redis, store):
    redis.delete(key)
    redis.set(key, "text")
    entries = [entry("first", [b"a", b"1"]), entry("out", [b"a", b"1"])]
    with pytest.raises(UsageError, match="is of another type") as caught:
        store.commit(entries, {"k": b"v"}, META)
    assert key in str(caught.value)
    redis.delete(key)
    assert list(everything(redis)) == [meta_key("p").encode()]


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (meta_key, "hash"),
        (state_key, "hash"),
        (dlq_key, "stream"),
        (ticks_key, "stream"),
    ],
)
def test_a_key_of_another_type_is_named_at_the_start(key, kind, redis):
    redis.set(key("p"), "text")
    with pytest.raises(UsageError, match=f"is a string, not a {kind}") as caught:
        Store(redis, "p").take_over()
    assert key("p") in str(caught.value)


def test_entries_go_again_if_a_later_one_is_refused(redis, store):
    """A script is not rolled back, and a stream may have run out of ids."""
    redis.xadd("full", {"a": "b"}, "18446744073709551615-18446744073709551615")
    entries = [
        entry("out", [b"a", b"1"]),
        entry("out", [b"a", b"2"]),
        entry("full", [b"a", b"3"]),
    ]
    for _ in range(2):
        with pytest.raises(UsageError, match="exhausted the last possible ID"):
            store.commit(entries, {"k": b"v"}, META)
    assert redis.xlen("out") == 0
    assert redis.xlen("full") == 1
    assert not redis.exists(state_key("p"))
    assert store.seq == 0
    store.commit(entries[:2], {"k": b"v"}, META)
    assert redis.xlen("out") == 2


@pytest.mark.parametrize("lacking", ["xadd", "hset", "hdel", "evalsha"])
def test_nothing_is_written_without_the_right_to_all_of_it(lacking, redis, redis_url):
    redis.acl_setuser("u", enabled=True, nopass=True, keys=["*"], commands=["+@all"])
    with connect_redis(redis_url.replace("://", "://u:x@")) as client:
        store = Store(client, "p")
        store.take_over()
        store.commit([entry("out", [b"a", b"1"])], {"k": b"v"}, META)
        before = everything(redis)
        redis.acl_setuser("u", commands=[f"-{lacking}"])
        with pytest.raises(ConnectionFailedError) as caught:
            store.commit([entry("out", [b"a", b"2"])], {"k": None}, META)
        assert "Give this user the right" in str(caught.value)
        assert everything(redis) == before
    redis.acl_deluser("u")


def test_nothing_is_written_on_a_server_that_is_full(redis, store):
    before = everything(redis)
    redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(ConnectionFailedError, match="raise its maxmemory"):
            store.commit([entry("out", [b"a", b"1"])], {"k": b"v"}, META)
    finally:
        redis.config_set("maxmemory", 0)
    assert everything(redis) == before


def test_a_script_that_the_server_forgot_is_sent_again(redis, store):
    store.commit([], {}, META)
    redis.script_flush()
    store.commit([entry("out", [b"a", b"1"])], {}, META)
    assert (store.seq, redis.xlen("out")) == (2, 1)


# What the server has lost -----------------------------------------------------


def test_a_commit_upon_an_older_one_than_ours_is_not_written(redis, store):
    for _ in range(3):
        store.commit([], {"k": b"v"}, META)
    redis.hset(meta_key("p"), "seq", 2)
    before = everything(redis)
    with pytest.raises(ConnectionFailedError, match="it holds commit 2, not 3, of pip"):
        store.commit([entry("out", [b"a", b"1"])], {}, META)
    assert everything(redis) == before


def test_a_heartbeat_notices_that_the_place_was_lost(redis, store, limits):
    limits(HEARTBEAT_SECONDS=0)
    redis.flushall()
    with pytest.raises(ConnectionFailedError, match="it holds nothing of pipeline 'p'"):
        store.beat()
    assert redis.keys() == []


@pytest.mark.parametrize("key", [meta_key("p"), state_key("p")])
def test_a_place_without_its_state_and_a_state_without_its_place_are_refused(
    key, redis, store
):
    store.commit([], {"k": b"v"}, META)
    redis.delete(key)
    with pytest.raises(StateVersionError, match="beside a place of commit"):
        Store(redis, "p").take_over(force=True)


def test_a_state_of_another_commit_than_the_place_is_refused(redis, store):
    store.commit([], {"k": b"v"}, META)
    older = redis.dump(state_key("p"))
    store.commit([], {"k": b"w"}, META)
    redis.restore(state_key("p"), 0, older, replace=True)
    with pytest.raises(StateVersionError, match="commit 1 beside a place of commit 2"):
        Store(redis, "p").take_over(force=True)


def test_a_state_stored_without_its_commit_is_taken(redis, store):
    store.commit([], {"k": b"v"}, META)
    redis.hdel(state_key("p"), "seq")
    assert Store(redis, "p").take_over(force=True).state == {"k": b"v"}


# Ownership --------------------------------------------------------------------


def test_a_process_that_comes_back_takes_over_from_itself_only(redis):
    known, first = set(), Store(redis, "p")
    before = Store(redis, "p")
    before.take_over()
    before.leave()
    first.take_over(known)
    assert known == {before.owner, first.owner}
    again = Store(redis, "p")
    again.take_over(known)
    # The server may have lost our last write: who was there before is no rival.
    redis.hset(meta_key("p"), "owner", before.owner)
    Store(redis, "p").take_over(known)
    redis.hdel(meta_key("p"), "owner")
    Store(redis, "p").take_over(known)
    rival = Store(redis, "p")
    rival.take_over(force=True)
    with pytest.raises(FencedError) as caught:
        Store(redis, "p").take_over(known)
    assert caught.value.theirs == rival.owner
    assert redis.hget(meta_key("p"), "owner").decode() == rival.owner


def test_every_store_is_another_owner(redis):
    owners = {Store(redis, "p").owner for _ in range(100)}
    assert len(owners) == 100


@pytest.mark.parametrize("name", ["", "a{b", "a\nb"])
def test_a_name_that_keys_cannot_hold_is_refused(name, redis):
    with pytest.raises(UsageError, match="cannot name a pipeline"):
        Store(redis, name)


# Lag and ticks ----------------------------------------------------------------


def test_lag_is_shown_by_a_group_named_after_the_pipeline(redis, store):
    ids = [redis.xadd("in", {"a": str(i)}) for i in range(5)]
    store.show_lag({"in": ids[1]}, {"in": 2})
    [group] = redis.xinfo_groups("in")
    assert (group["name"], group["lag"]) == (b"p", 3)
    store.show_lag({"in": ids[4]}, {"in": 5})
    [group] = redis.xinfo_groups("in")
    assert (group["last-delivered-id"], group["lag"]) == (ids[4], 0)
    assert redis.xpending("in", "p")["pending"] == 0


def test_no_wrong_lag_is_shown_of_a_stream_that_was_trimmed(redis, store):
    ids = [redis.xadd("in", {"a": str(i)}) for i in range(5)]
    redis.xtrim("in", maxlen=3, approximate=False)
    store.show_lag({"in": ids[2]}, {"in": 1})
    assert redis.xinfo_groups("in")[0]["lag"] in (None, 2)
    store.show_lag({"in": ids[4]}, {"in": 3})
    assert redis.xinfo_groups("in")[0]["lag"] == 0


def test_a_lag_that_cannot_be_shown_is_no_error(redis, store):
    redis.set("text", "no stream")
    ids = [redis.xadd("in", {"a": "b"})]
    positions = {"text": b"1-0", "gone": b"1-0", "in": ids[0]}
    store.show_lag(positions, dict.fromkeys(positions, 1))
    assert redis.xinfo_groups("in")[0]["last-delivered-id"] == ids[0]
    assert not redis.exists("gone")
    with connect_redis("redis://127.0.0.1:1") as nowhere:
        Store(nowhere, "p").show_lag({"in": b"1-0"}, {"in": 1})


def test_ticks_are_read_once_and_kept_few(redis, store):
    for _ in range(3):
        store.tick()
    store.tick("end")
    ticks = store.read_ticks("0-0")
    assert [fields[b"kind"] for _, fields in ticks] == [b"idle"] * 3 + [b"end"]
    assert store.read_ticks(ticks[-1][0]) == []
    assert [one for one, _ in store.read_ticks(ticks[1][0])] == [
        one for one, _ in itertools.islice(ticks, 2, None)
    ]
    for _ in range(2500):
        store.tick()
    assert redis.xlen(ticks_key("p")) < 1500
