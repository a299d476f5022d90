import logging
import traceback

import pytest
import redis as redis_py

from cep.bus.connection import (
    Settings,
    address_of,
    clear_errors,
    connect_redis,
    error_of_reply,
    masked,
)
from cep.bus.embedded import EmbeddedServer
from cep.errors import AccessDeniedError, CepError, ConnectionFailedError, UsageError

CANARY = "c4nary"
QUOTED = "c4nary%2Fb%40d"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:1/0", "redis://h:1/0"),
        ("redis://:c4nary@h:1/0", "redis://***@h:1/0"),
        ("redis://ada:c4nary@h", "redis://ada:***@h"),
        ("redis://c4nary@h", "redis://***@h"),
        ("redis://ada:c4/na?ry#c4nary@h:1", "redis://ada:***@h:1"),
        ("redis://ada:c4@c4nary@h:1", "redis://ada:***@h:1"),
        ("unix:///s.sock?password=c4n%40ary&db=1", "unix:///s.sock?password=***&db=1"),
        ("rediss://h?ssl_password=c4@nary", "rediss://h?ssl_password=***"),
        ("redis//:c4nary@h", "redis//:***@h"),
        (":c4nary@h", "***@h"),
        ("", ""),
    ],
)
def test_masked_url_hides_what_could_be_a_password(url, shown):
    assert masked(url) == shown


def everything_shown(error):
    """What a log or a terminal could print of an error."""
    logging.getLogger("test").error("failed", exc_info=error)
    return "\n".join(
        [
            str(error),
            repr(error),
            *traceback.format_exception(error),
            *map(str, error.args),
        ]
    )


def use(url):
    client = connect_redis(url)
    assert CANARY not in repr(client)
    assert CANARY not in address_of(client)
    with clear_errors(client):
        client.ping()


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{CANARY}@127.0.0.1:1/0",
        f"redis://ada:{QUOTED}@127.0.0.1:1/0",
        f"redis://:{CANARY}/x@127.0.0.1:1",
        f"redis://:a:{CANARY}@[::bad:1",
        f"redis://ada:{CANARY}@127.0.0.1:port",
        f"unix://:{CANARY}@/nowhere.sock",
        f"unix:///nowhere.sock?password={CANARY}",
        f"rediss://:{CANARY}@127.0.0.1:1",
        f"redis://:{CANARY}@127.0.0.1:1?db=nine",
        f"redis://:{CANARY}@127.0.0.1:1?decode_responses=true",
        f"http://:{CANARY}@127.0.0.1",
        f"redis://:{CANARY}@no-such-host.invalid",
    ],
)
def test_no_error_shows_the_password(url, caplog):
    with pytest.raises(CepError) as caught, clear_errors(url):
        use(url)
    assert CANARY not in everything_shown(caught.value)
    assert CANARY not in caplog.text
    assert str(caught.value).endswith(".")


def test_wrong_password_is_an_error_without_either_password(tmp_path):
    with EmbeddedServer(tmp_path, password="r1ght-c4nary") as server:
        for url in (
            server.url.replace("r1ght", "wr0ng"),
            server.url.replace(":r1ght-c4nary@", ""),
        ):
            client = connect_redis(url)
            with pytest.raises(ConnectionFailedError) as caught, clear_errors(client):
                client.ping()
            assert CANARY not in everything_shown(caught.value)
            assert "password" in caught.value.remedy
            client.close()


def test_client_neither_retries_nor_decodes_and_speaks_resp2(redis):
    options = redis.get_connection_kwargs()
    assert options["retry"].get_retries() == 0
    assert options["protocol"] == 2
    redis.set("key", b"\xff")
    assert redis.get("key") == b"\xff"
    assert "resp=2" in str(redis.execute_command("CLIENT", "INFO"))


def test_lost_reply_does_not_repeat_the_write(server, redis):
    """A script longer than the timeout writes once, though no reply came."""
    with connect_redis(server.url, socket_timeout=0.1) as hasty:
        slow = "redis.call('XADD', 's', '*', 'a', '1') local i = 0 "
        slow += "while i < 3e7 do i = i + 1 end return 1"
        with pytest.raises(ConnectionFailedError), clear_errors(hasty):
            hasty.eval(slow, 0)
    assert redis.xlen("s") == 1


def test_longest_block_adds_to_the_timeout(redis_url):
    with connect_redis(redis_url, socket_timeout=0.05, longest_block_ms=2000) as client:
        assert client.xread({"s": "$"}, block=150) in ([], None)


def test_environment_names_the_server(monkeypatch, redis_url):
    monkeypatch.setenv("CEP_REDIS_URL", redis_url)
    with connect_redis() as client:
        assert client.ping()
    assert redis_url not in repr(Settings())


def test_tls_options_come_from_url_and_environment(monkeypatch):
    monkeypatch.setenv("CEP_REDIS_CA_CERTS", "/etc/ca.pem")
    options = connect_redis("rediss://h:1").get_connection_kwargs()
    assert options["ssl_ca_certs"] == "/etc/ca.pem"
    url = "rediss://h:1?ssl_ca_certs=/mine.pem"
    assert connect_redis(url).get_connection_kwargs()["ssl_ca_certs"] == "/mine.pem"
    with pytest.raises(UsageError, match="Begin the URL with rediss://"):
        connect_redis("redis://h:1?ssl_ca_certs=/mine.pem")


def test_slip_in_a_url_option_names_the_near_one():
    with pytest.raises(UsageError, match="Did you mean socket_timeout"):
        connect_redis("redis://h:1?socket_timeuot=3")


def test_server_replies_become_errors_with_a_remedy(redis, server):
    redis.set("text", "x")
    with pytest.raises(UsageError, match="not a stream"), clear_errors(redis):
        redis.xadd("text", {"a": "1"})
    redis.acl_setuser("weak", enabled=True, passwords=["+w3ak"], commands=["+ping"])
    weak = connect_redis(server.url.replace("redis://", "redis://weak:w3ak@"))
    with pytest.raises(ConnectionFailedError, match="ACL SETUSER"), clear_errors(weak):
        weak.get("text")
    weak.close()
    redis.acl_deluser("weak")
    redis.config_set("maxmemory", 1)
    try:
        full = pytest.raises(ConnectionFailedError, match="maxmemory")
        with full, clear_errors(redis):
            redis.xadd("s", {"a": "1"})
    finally:
        redis.config_set("maxmemory", 0)
    with pytest.raises(UsageError, match="unknown command"), clear_errors(redis):
        redis.execute_command("NOSUCH")


@pytest.mark.parametrize(
    "text",
    [
        "NOPERM User u has no permissions to run the 'xadd' command",
        "ERR The user executing the script can't run this command or subcommand",
        "ERR The user executing the script can't access at least one of the keys",
    ],
)
def test_a_missing_right_is_told_whatever_the_server_calls_it(text):
    error = error_of_reply(text, "here")
    assert isinstance(error, AccessDeniedError)
    assert "ACL SETUSER" in str(error)


def test_errors_of_other_kinds_pass_through():
    with pytest.raises(ZeroDivisionError), clear_errors("redis://h"):
        1 / 0  # noqa: B018


def test_import_of_embedded_does_not_load_the_reader():
    import subprocess
    import sys

    script = (
        "import sys, cep.bus; cep.bus.EmbeddedServer\n"
        "assert not {'numba', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_redis_py_would_retry_by_default():
    """The reason for passing our own: if this changes, the module docstring may go."""
    default = redis_py.Redis().get_retry()
    assert default.get_retries() > 0


def test_sentinels_and_service_are_read_from_the_url():
    url = f"redis+sentinel://ada:{QUOTED}@a:1,b/svc/2?socket_timeout=3"
    client = connect_redis(url)
    shown = "redis+sentinel://ada:***@a:1,b:26379/svc/2"
    assert (
        address_of(client)
        == shown
        == masked(url).partition("?")[0].replace(",b/", ",b:26379/")
    )
    options = client.get_connection_kwargs()
    assert (options["db"], options["socket_timeout"]) == (2, 3.0)
    assert options["password"] == f"{CANARY}/b@d"


@pytest.mark.parametrize("place", ["", "/", "a:x/svc", ",b/svc"])
def test_a_url_of_sentinels_without_a_service_or_host_is_refused(place):
    with pytest.raises(UsageError, match="host:port/service") as caught:
        connect_redis(f"redis+sentinel://:{CANARY}@{place}")
    assert CANARY not in everything_shown(caught.value)


def test_sentinels_that_are_not_there_are_told():
    with pytest.raises(ConnectionFailedError, match="know that service") as caught:
        use(f"redis+sentinel://:{CANARY}@127.0.0.1:1/svc")
    assert CANARY not in everything_shown(caught.value)
