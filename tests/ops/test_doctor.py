"""Each check finds what is wrong, and finds nothing where nothing is."""

import json
import time

import live
import pytest

from cep.bus.connection import connect_redis
from cep.bus.embedded import EmbeddedServer
from cep.bus.keys import meta_key
from cep.cli import main
from cep.ops import doctor
from cep.ops.doctor import examine

pytestmark = pytest.mark.redis


@pytest.fixture(scope="module")
def own_server():
    with EmbeddedServer(password="hunter2-canary") as one:
        yield one


SETTINGS = ("maxmemory", "maxmemory-policy", "appendonly", "appendfsync", "save")


@pytest.fixture
def redis(own_server):
    """A server whose settings a test may change."""
    with connect_redis(own_server.url) as client:
        client.flushall()
        before = {name: client.config_get(name)[name] for name in SETTINGS}
        client.config_set("maxmemory", "1gb")
        yield client
        for name, value in before.items():
            client.config_set(name, value)


def levels(findings, check):
    return {one.level for one in findings if one.check == check}


def found(findings, check, level):
    """Return the one finding of that kind, and see that it says what to do."""
    (one,) = (x for x in findings if x.check == check and x.level == level)
    assert one.remedy
    return one


def now_ms():
    return time.time_ns() // 1_000_000


def test_nothing_is_wrong_with_a_server_that_is_set_up_well(redis):
    live.write(redis, [(live.MARKET, f"{now_ms() - 9}-0", live.trade(1, now_ms()))])
    findings = examine(redis, [live.MARKET])
    assert {one.level for one in findings} == {"ok"}
    assert [one.check for one in findings] == [
        "connection",
        "server",
        "durability",
        "memory",
        "clock",
        "streams",
        "groups",
        "pipelines",
    ]
    assert not any(one.remedy for one in findings)


@pytest.mark.parametrize(
    ("settings", "level", "words"),
    [
        ({"appendfsync": "always"}, "ok", "safe"),
        ({"appendfsync": "everysec"}, "ok", "fast"),
        ({"appendfsync": "no"}, "warn", "half a minute"),
        ({"appendonly": "no", "save": "60 1"}, "warn", "snapshots only"),
        ({"appendonly": "no", "save": ""}, "bad", "loses everything"),
    ],
)
def test_durability_is_the_one_in_force(settings, level, words, redis):
    for name, value in settings.items():
        redis.config_set(name, value)
    (one,) = (x for x in examine(redis) if x.check == "durability")
    assert one.level == level
    assert words in one.found


def test_eviction_and_a_full_memory_are_bad(redis):
    redis.config_set("maxmemory-policy", "allkeys-lru")
    assert "allkeys-lru" in found(examine(redis), "memory", "bad").found
    redis.config_set("maxmemory-policy", "noeviction")
    assert levels(examine(redis), "memory") == {"ok"}
    used = redis.info("memory")["used_memory"]
    redis.config_set("maxmemory", int(used * 1.1))
    assert "noeviction" in found(examine(redis), "memory", "warn").found
    redis.config_set("maxmemory", used)
    assert "raise maxmemory" in found(examine(redis), "memory", "bad").remedy
    redis.config_set("maxmemory", 0)
    assert "no limit" in found(examine(redis), "memory", "warn").found


@pytest.mark.parametrize(
    ("span_ms", "level"), [(3_600_000, "ok"), (300_000, "warn"), (30_000, "bad")]
)
def test_how_long_a_reader_may_be_down_follows_from_ids(span_ms, level, redis):
    start = now_ms() - span_ms
    ids = [f"{start + i * span_ms // 99}-0" for i in range(-10, 100)]
    live.write(redis, [(live.MARKET, one, {"a": "b"}) for one in ids])
    assert levels(examine(redis, [live.MARKET]), "streams") == {"ok"}
    redis.xtrim(live.MARKET, maxlen=100, approximate=False)
    (one,) = (x for x in examine(redis, [live.MARKET]) if x.check == "streams")
    assert one.level == level
    if level == "warn":
        assert one.found == "market.events keeps 100 entries, the last 5 min"
        assert "at least 210." in one.remedy


def test_a_stream_trimmed_beyond_a_pipelines_position_is_told(redis):
    live.write(redis, live.traffic(n=50, bad=0))
    live.once(redis_url(redis))
    assert levels(examine(redis), "streams") == {"ok"}
    ids = [f"{live.START_MS + 10_000 + i}-0" for i in range(100)]
    live.write(redis, [(live.MARKET, one, {"a": "b"}) for one in ids])
    redis.xtrim(live.MARKET, maxlen=20, approximate=False)
    one = found(examine(redis), "streams", "warn")
    assert "pipeline p has read to" in one.found


def redis_url(client):
    options = client.get_connection_kwargs()
    return f"redis://:{options['password']}@127.0.0.1:{options['port']}/0"


def test_groups_that_leak_are_told(redis, monkeypatch):
    monkeypatch.setattr(doctor, "MANY_PENDING", 50)
    live.write(redis, [(live.MARKET, f"1-{i}", {"a": "b"}) for i in range(1, 101)])
    redis.xgroup_create(live.MARKET, "readers", "0")
    redis.xreadgroup("readers", "one", {live.MARKET: ">"}, count=50)
    assert levels(examine(redis, [live.MARKET]), "groups") == {"ok"}
    redis.xreadgroup("readers", "one", {live.MARKET: ">"}, count=1)
    one = found(examine(redis, [live.MARKET]), "groups", "warn")
    assert "group readers has 51 entries delivered" in one.found
    for i in range(doctor.MANY_GROUPS):
        redis.xgroup_create(live.MARKET, f"group{i}", "0")
    redis.xgroup_destroy(live.MARKET, "readers")
    assert levels(examine(redis, [live.MARKET]), "groups") == {"ok"}
    redis.xgroup_create(live.MARKET, "one-more", "0")
    one = found(examine(redis, [live.MARKET]), "groups", "warn")
    assert "has 21 consumer groups" in one.found


def test_clocks_that_differ_are_told(redis, monkeypatch):
    ahead = now_ms() + 3_600_000
    assert levels(examine(redis), "clock") == {"ok"}
    live.write(redis, [(live.MARKET, f"{ahead}-0", {"a": "b"})])
    one = found(examine(redis, [live.MARKET]), "clock", "warn")
    assert "the last id of market.events is 60 min ahead" in one.found
    real = time.time
    monkeypatch.setattr(doctor.time, "time", lambda: real() + 5)
    assert "behind ours" in found(examine(redis), "clock", "warn").found
    monkeypatch.setattr(doctor.time, "time", lambda: real() - 500)
    assert "ahead of ours" in found(examine(redis), "clock", "bad").found


def test_a_pipeline_that_died_lags_or_gives_up_much_is_told(redis):
    live.write(redis, live.traffic(n=200, bad=0, late=0))
    live.once(redis_url(redis))
    findings = examine(redis)
    assert levels(findings, "pipelines") == {"ok"}
    told = " | ".join(one.found for one in findings if one.check == "pipelines")
    assert "p: not running; it was stopped" in told
    assert "p: read 200, nothing behind" in told
    later = live.START_MS + 100_000
    entries = [(live.MARKET, f"{later + i}-0", {"a": "b"}) for i in range(50)]
    live.write(redis, entries)
    told = " | ".join(one.found for one in examine(redis))
    assert "market.events 50 behind" in told
    live.once(redis_url(redis))
    assert "50 dead letters for 250" in found(examine(redis), "pipelines", "warn").found
    redis.hset(meta_key("p"), "alive", now_ms() - 60_000)
    one = found(examine(redis), "pipelines", "bad")
    assert "was last heard 60 s ago" in one.found


def test_what_the_server_does_not_let_us_see_is_a_warning(redis):
    redis.execute_command(
        "ACL", "SETUSER", "guest", "on", ">pw", "~*", "+@all", "-config", "-command"
    )
    url = redis_url(redis).replace(":hunter2-canary@", "guest:pw@")
    with connect_redis(url) as guest:
        findings = examine(guest)
    assert "ACL SETUSER" in found(findings, "server", "warn").remedy
    assert not [one for one in findings if one.level == "bad"]
    redis.execute_command("ACL", "DELUSER", "guest")


# The command ------------------------------------------------------------------


def test_the_command_ends_with_1_if_something_is_bad(redis, capsys):
    url = redis_url(redis)
    assert main(["doctor", "--redis", url]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("ok    connection  redis://***@127.0.0.1:")
    assert shown.endswith("0 bad, 0 to look at, of 7 findings\n")
    redis.config_set("maxmemory-policy", "allkeys-lfu")
    assert main(["doctor", "--redis", url, "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert [one["check"] for one in findings if one["level"] == "bad"] == ["memory"]
    assert "-> CONFIG SET" in _shown(url, capsys)


def _shown(url, capsys):
    main(["doctor", "--redis", url])
    return capsys.readouterr().out


@pytest.mark.parametrize("login", ["", ":wrong-canary@"])
def test_no_connection_is_one_bad_finding_without_a_secret(login, redis, capsys):
    port = redis.get_connection_kwargs()["port"]
    url = f"redis://{login}127.0.0.1:{port}/0"
    assert main(["doctor", "--redis", url]) == 1
    shown = capsys.readouterr()
    assert shown.out.count("bad   connection") == 1
    assert "1 bad, 0 to look at, of 1 findings" in shown.out
    assert "canary" not in shown.out + shown.err


def test_a_crash_test_needs_rules(capsys):
    assert main(["doctor", "--crash-test", "3"]) == 2
    assert "Name their file" in capsys.readouterr().err


@pytest.mark.slow
def test_the_users_own_rules_run_on_copies_of_their_streams(redis, capsys, tmp_path):
    module = tmp_path / "my_rules.py"
    module.write_text(MODULE)
    live.write(redis, live.traffic(n=300))
    url, before = redis_url(redis), sorted(redis.keys("*"))
    words = ["doctor", str(module), "--redis", url, "--crash-test"]
    assert main([*words, "3", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["kills"] == result["proved"] == 3
    assert result["entries"] == redis.xlen(live.MARKET)
    assert result["outputs"] > 50
    assert result["dead_letters"] > 0
    assert (result["lost"], result["duplicated"], result["phantom"]) == (0, 0, 0)
    assert sorted(redis.keys("*")) == before
    assert main([*words, "30"]) == 2
    assert "30 kills need 600" in capsys.readouterr().err


MODULE = '''
from cep import e, emit, on, rule

@rule("large", key="symbol")
def large():
    """Many of one."""
    return on("market.trade").where(e.quantity > 10), emit(quantity=e.quantity)
'''
