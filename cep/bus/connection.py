"""Connections to Redis: where to, how long to wait, and what goes wrong.

Choices that the rest of `cep.bus` relies on:

* **Protocol 2.** redis-py 8 speaks RESP3 unless told otherwise and then bends
  some replies back (``legacy_responses``); RESP2 has one shape per reply, which
  the columnar reader scans itself.
* **Bytes.** With ``decode_responses`` one byte that is not UTF-8 loses a whole
  reply, the good neighbours included.
* **No retry.** redis-py 8 repeats a command ten times by default; an ``XADD``
  whose reply was lost would then be written twice.
* **A timeout on every read**, longer than the longest ``BLOCK``: redis-py's
  default of 5 s cuts long blocks, none at all waits for ever on a dead peer.

A password never shows: not in a ``repr``, a log line, an error or its cause.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import redis
from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    RedisError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry
from redis.sentinel import (
    MasterNotFoundError,
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)

from cep.errors import (
    AccessDeniedError,
    CepError,
    ConnectionFailedError,
    UsageError,
    near_miss,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_URL = "redis://127.0.0.1:6379/0"
HIDDEN = "***"
SENTINEL_PORT = 26379
SENTINEL_SECONDS = 1.0  # for a sentinel to answer, before the next one is asked
PROBE_SECONDS = 5.0

# What a URL may set after "?". All else would undo the choices above, or
# reach redis-py's constructors unchecked.
_URL_OPTIONS = frozenset(
    {
        "client_name",
        "db",
        "password",
        "socket_connect_timeout",
        "socket_keepalive",
        "socket_timeout",
        "ssl_ca_certs",
        "ssl_ca_path",
        "ssl_cert_reqs",
        "ssl_certfile",
        "ssl_check_hostname",
        "ssl_ciphers",
        "ssl_keyfile",
        "ssl_min_version",
        "ssl_password",
        "username",
    }
)
_SECRET_OPTION = re.compile(r"(?i)([?&;][^=&;]*(?:pass|secret|token)[^=&;]*=)[^&;]*")


class Settings(BaseSettings):
    """What the environment says: ``CEP_REDIS_URL``, ``CEP_REDIS_CA_CERTS``.

    >>> Settings(redis_url="redis://:hunter2@db/0").redis_url
    SecretStr('**********')
    """

    model_config = SettingsConfigDict(env_prefix="CEP_", extra="ignore")

    redis_url: SecretStr = SecretStr(DEFAULT_URL)
    redis_ca_certs: str | None = None


def masked(url: str) -> str:
    """Return ``url`` fit to be shown, whatever mistakes are in it.

    >>> masked("redis://ada:hunter2@db:6379/0")
    'redis://ada:***@db:6379/0'
    >>> masked("redis://:p/a@s?s@db/0?ssl_password=x&db=1")
    'redis://***@db/0?ssl_password=***&db=1'
    >>> masked("unix:///run/redis.sock?db=2")
    'unix:///run/redis.sock?db=2'
    """
    url = _SECRET_OPTION.sub(rf"\g<1>{HIDDEN}", url)
    # The last "@", for a password with an unescaped "/", "?" or "@" in it
    # must not show either.
    login, at, rest = url.rpartition("@")
    if not at:
        return url
    scheme, separator, login = login.rpartition("://")
    user, colon, _ = login.partition(":")
    shown = f"{user}:{HIDDEN}" if user and colon else HIDDEN
    return f"{scheme}{separator}{shown}@{rest}"


def connect_redis(
    url: str | None = None,
    *,
    socket_timeout: float = 10.0,
    connect_timeout: float = 5.0,
    longest_block_ms: int = 0,
    client_name: str = "cep",
    settings: Settings | None = None,
) -> redis.Redis:
    """Return a client for ``url``; nothing is sent before its first command.

    Parameters
    ----------
    url
        ``redis://[user:password@]host:port/db``, ``rediss://`` for TLS,
        ``unix://[user:password@]/path.sock?db=0``, or, to be led to the primary
        of a service by sentinels (which ask for no password themselves),
        ``redis+sentinel://[user:password@]host:port,host:port/service/db``,
        likewise ``rediss+sentinel://``. None takes the settings'.
    socket_timeout
        Seconds to wait for a reply, on top of ``longest_block_ms``.
    connect_timeout
        Seconds to wait for a connection.
    longest_block_ms
        The longest ``BLOCK`` this client will ask for.
    client_name
        How the server lists this connection.
    settings
        Instead of those of the environment.

    Raises
    ------
    UsageError
        If the URL cannot be understood or sets an option it may not.
    """
    settings = settings or Settings()
    if url is None:
        url = settings.redis_url.get_secret_value()
    options: dict[str, Any] = {
        "socket_timeout": socket_timeout,
        "socket_connect_timeout": connect_timeout,
        "client_name": client_name,
    }
    options |= _options_of(url)
    options["socket_timeout"] += longest_block_ms / 1000
    sentinels: list[tuple[str, int]] = options.pop("sentinels", [])
    kind = options.pop("connection_class", redis.Connection)
    if issubclass(kind, redis.SSLConnection):
        if settings.redis_ca_certs is not None:
            options.setdefault("ssl_ca_certs", settings.redis_ca_certs)
    elif misplaced := sorted(name for name in options if name.startswith("ssl_")):
        raise UsageError(
            f"{misplaced[0]} in {masked(url)} has no effect without TLS.",
            "Begin the URL with rediss://.",
        )
    options |= {
        "protocol": 2,
        "decode_responses": False,
        "retry": Retry(NoBackoff(), 0),
    }
    if sentinels:
        return redis.Redis.from_pool(_sentinel_pool(sentinels, kind, options))
    return redis.Redis.from_pool(redis.ConnectionPool(connection_class=kind, **options))


def _sentinel_pool(
    sentinels: list[tuple[str, int]], kind: type, options: dict[str, Any]
) -> SentinelConnectionPool:
    """Return connections to what the sentinels take for the primary."""
    tls = issubclass(kind, redis.SSLConnection)
    manager = Sentinel(  # type: ignore[no-untyped-call]
        sentinels,
        sentinel_kwargs={
            "socket_timeout": SENTINEL_SECONDS,
            "socket_connect_timeout": SENTINEL_SECONDS,
            "retry": Retry(NoBackoff(), 0),
        },
    )
    of_primary = {k: v for k, v in options.items() if k not in ("host", "port")}
    return SentinelConnectionPool(  # type: ignore[no-untyped-call]
        of_primary.pop("service"),
        manager,
        connection_class=(
            SentinelManagedSSLConnection if tls else SentinelManagedConnection
        ),
        **of_primary,
    )


def address_of(client: redis.Redis) -> str:
    """Return the URL of a client, masked."""
    options = client.get_connection_kwargs()
    login = quote(options.get("username") or "")
    if options.get("password"):
        login = f"{login}:{HIDDEN}@" if login else f"{HIDDEN}@"
    elif login:
        login += "@"
    if path := options.get("path"):
        return f"unix://{login}{path}?db={options.get('db', 0)}"
    pool = client.connection_pool
    tls = issubclass(pool.connection_class, redis.SSLConnection)
    if isinstance(pool, SentinelConnectionPool):
        nodes = [one.get_connection_kwargs() for one in pool.sentinel_manager.sentinels]
        hosts = ",".join(f"{node['host']}:{node['port']}" for node in nodes)
        place = f"{pool.service_name}/{options.get('db', 0)}"
        return f"redis{'s' * tls}+sentinel://{login}{hosts}/{place}"
    host, port = options.get("host", "localhost"), options.get("port", 6379)
    return f"redis{'s' * tls}://{login}{host}:{port}/{options.get('db', 0)}"


@contextlib.contextmanager
def clear_errors(url: str | redis.Redis | None = None) -> Iterator[None]:
    """Turn what redis-py raises into `ConnectionFailedError` or `UsageError`.

    ``url`` is what to name in the message, masked here; of a client its
    address. The original error is not chained: its text or its frames' locals
    could show a password.
    """
    try:
        yield
    except RedisError as error:
        raise cleared(error, url) from None


def cleared(error: Exception, url: str | redis.Redis | None = None) -> CepError:
    """Return the error of this package for one of redis-py's or a socket's."""
    secrets: list[str] = []
    if isinstance(url, redis.Redis):
        secrets.append(url.get_connection_kwargs().get("password") or "")
        where = address_of(url)
    else:
        url = url or Settings().redis_url.get_secret_value()
        where = masked(url)
        with contextlib.suppress(UsageError):
            secrets.append(_options_of(url).get("password") or "")
    text = " ".join(str(error).split()) or type(error).__name__
    for secret in filter(None, secrets):
        text = text.replace(secret, HIDDEN)
    if isinstance(error, AuthenticationError):
        if "called without any password" in text:
            return AccessDeniedError(
                where,
                "this server has no password for the default user",
                "Take the password out of the URL, or name the user it belongs to.",
            )
        word = "NOAUTH" if "required" in text.lower() else "WRONGPASS"
        return AccessDeniedError(where, text, _REMEDIES[word])
    if isinstance(error, AskError):  # MovedError is one; both drop their code
        return ConnectionFailedError(where, f"MOVED {text}", _REMEDIES["MOVED"])
    if isinstance(error, MasterNotFoundError):
        return ConnectionFailedError(
            where,
            "no sentinel named a primary that is up",
            "See whether the sentinels run and know that service.",
        )
    if isinstance(error, BusyLoadingError):
        return ConnectionFailedError(where, text, _REMEDIES["LOADING"])
    if isinstance(error, RedisTimeoutError | TimeoutError):
        remedy = "See whether the server is alive and the network lets us through."
        if where.startswith("rediss://"):
            # A server without TLS waits for the rest of what it takes for a command.
            remedy += " If it speaks no TLS, begin the URL with redis://."
        return ConnectionFailedError(where, text, remedy)
    if isinstance(error, RedisConnectionError | OSError):
        return _link_error(where, text)
    return error_of_reply(f"{getattr(error, 'status_code', None) or ''} {text}", where)


def error_of_reply(text: str, where: str) -> CepError:
    """Return the error for an error reply such as ``NOAUTH ...``.

    ``where`` is shown as it is. Replies about the state of the server or our
    rights there are a `ConnectionFailedError`, about the command a `UsageError`.
    """
    text = " ".join(text.split())
    for word, remedy in _REMEDIES.items():
        if word in text.partition(" ")[0] or f"{word} " in text:
            if word == "WRONGTYPE":
                return UsageError(f"{where}: {text}.", remedy)
            kind = AccessDeniedError if word in _DENIED else ConnectionFailedError
            return kind(where, text, remedy)
    for phrase, remedy in _PHRASES.items():
        if phrase in text.lower():
            denied = remedy in (_REMEDIES["NOPERM"], _REMEDIES["NOAUTH"])
            kind = AccessDeniedError if denied else ConnectionFailedError
            return kind(where, text, remedy)
    return UsageError(
        f"{where} refused a command: {text}.", "See what the server says."
    )


_REMEDIES = {
    "NOAUTH": "Put the user and password into the URL: redis://user:password@host.",
    "WRONGPASS": "Check the user and password in the URL or in CEP_REDIS_URL.",
    "NOPERM": "Give this user the right to that command and key (ACL SETUSER).",
    "LOADING": "The server is reading its data from disk; try again shortly.",
    "READONLY": "This is a replica; connect to its primary.",
    "UNBLOCKED": "This server has become a replica; connect to its new primary.",
    "OOM": "The server is full; raise its maxmemory or trim streams.",
    "MISCONF": "The server cannot write to its disk; see its log.",
    "BUSY": "A script blocks the server; wait for it or use SCRIPT KILL.",
    "MOVED": "This is a node of a cluster; connect to a server that is none.",
    "CROSSSLOT": "This is a node of a cluster; connect to a server that is none.",
    "CLUSTERDOWN": "Wait for the cluster to recover.",
    "MASTERDOWN": "This is a replica without its primary; connect to the primary.",
    "NOREPLICAS": "Too few replicas are connected for writes; see the server's log.",
    "WRONGTYPE": "That key is not a stream; choose another name, or delete it.",
}
_DENIED = ("NOAUTH", "WRONGPASS", "NOPERM")
# The same, where redis-py keeps the text but drops the code.
_PHRASES = {
    "no permissions": _REMEDIES["NOPERM"],
    "can't run this command": _REMEDIES["NOPERM"],  # in a script, Redis 7.0
    "can't access at least one of the keys": _REMEDIES["NOPERM"],
    "read only replica": _REMEDIES["READONLY"],
    "not able to persist on disk": _REMEDIES["MISCONF"],
    "maxmemory": _REMEDIES["OOM"],
    "authentication required": _REMEDIES["NOAUTH"],
}


def _link_error(where: str, text: str) -> ConnectionFailedError:
    said = text.lower()
    if "wrong_version_number" in said or "record layer failure" in said:
        return _no_tls(where)
    if "certificate" in said:
        return AccessDeniedError(
            where,
            text,
            "Check the certificate; name its authority with CEP_REDIS_CA_CERTS "
            "or ?ssl_ca_certs=FILE.",
        )
    return ConnectionFailedError(where, text, _remedy_for_link(said))


def check_reachable(client: redis.Redis) -> None:
    """Raise an error of this package if the server does not answer us.

    One that hangs up or says nothing is asked whether it speaks TLS.
    """
    try:
        with clear_errors(client):
            client.ping()
    except AccessDeniedError:
        raise
    except ConnectionFailedError as error:
        where, kind = error.url_masked, client.connection_pool.connection_class
        options = client.get_connection_kwargs()
        address = options.get("host") or "localhost", options.get("port", 6379)
        if kind is redis.Connection and _speaks_tls(address):
            raise AccessDeniedError(
                where, "the server wants TLS", "Begin the URL with rediss://."
            ) from None
        if issubclass(kind, redis.SSLConnection) and _speaks_plainly(address):
            raise _no_tls(where) from None
        raise


def _no_tls(where: str) -> AccessDeniedError:
    return AccessDeniedError(
        where, "the server speaks no TLS", "Begin the URL with redis://."
    )


def _speaks_plainly(address: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(address, PROBE_SECONDS) as link:
            link.sendall(b"PING\r\n")
            return link.recv(1) in (b"+", b"-")
    except OSError:
        return False


def _speaks_tls(address: tuple[str, int]) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with contextlib.suppress(OSError):
        link = socket.create_connection(address, PROBE_SECONDS)
        try:
            with link, context.wrap_socket(link):
                return True
        except ssl.SSLError as error:
            # A server that asks for our certificate speaks it, too.
            return "certificate" in str(error).lower()
    return False


def _remedy_for_link(said: str) -> str:
    if "ssl" in said:
        return "See whether that server speaks TLS, and its log."
    if "refused" in said or "no such file" in said:
        return "Start a server there, or set CEP_REDIS_URL to where one runs."
    if "not known" in said or "resolution" in said or "no address" in said:
        return "Check the host name in the URL."
    if "reset" in said or "closed" in said:
        return "The server hung up; see its log, and whether it wants rediss://."
    return "See whether the server is alive and the network lets us through."


def _options_of(url: str) -> dict[str, Any]:
    """Parse a URL; errors quote it masked and carry no cause.

    Of a URL of sentinels there are ``sentinels`` and ``service``, too.
    """
    problem = None
    options: dict[str, Any] = {}
    try:
        plain, found = _without_sentinels(url)
        options = parse_url(plain)  # type: ignore[no-untyped-call]
    except ValueError:
        # The text of these can hold parts of a password.
        problem = f"Cannot understand the Redis URL {masked(url)}."
    if problem:
        raise UsageError(
            problem,
            "Write redis://[user:password@]host:port/db, rediss://... for TLS, "
            "unix:///path.sock, or redis+sentinel://host:port,host:port/service/db; "
            'write "/", "?", "#", "@" and "%" in a password as '
            "%2F, %3F, %23, %40 and %25.",
        )
    taken = {"connection_class", "host", "port", "path"}
    for name in sorted(options.keys() - taken - _URL_OPTIONS):
        near = near_miss(name, _URL_OPTIONS)
        raise UsageError(
            f"The Redis URL {masked(url)} sets {name}, which is not for it to set.",
            f"Did you mean {near[0]}?" if near else "Remove it.",
        )
    return options | found


def _without_sentinels(url: str) -> tuple[str, dict[str, Any]]:
    """Return a URL of one server, and sentinels and service that were in it."""
    scheme, _, rest = url.partition("://")
    if not scheme.endswith("+sentinel"):
        return url, {}
    rest, question, query = rest.partition("?")
    login, at, rest = rest.rpartition("@")
    hosts, _, path = rest.partition("/")
    service, _, db = path.partition("/")
    sentinels = []
    for one in hosts.split(","):
        host, _, port = one.partition(":")
        sentinels.append((host, int(port or SENTINEL_PORT)))
    if not service or not all(host for host, _ in sentinels):
        msg = "a sentinel or the service is missing"
        raise ValueError(msg)
    scheme = scheme.removesuffix("+sentinel")
    plain = f"{scheme}://{login}{at}primary/{db or 0}{question}{query}"
    return plain, {"sentinels": sentinels, "service": service}
