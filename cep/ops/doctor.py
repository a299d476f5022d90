"""Whether a server is fit for pipelines, and whether those on it do well.

Each check looks at one thing and says what it found: ok, warn (works today) or
bad (loses data, or does not work), and for the latter two what to do. Nothing
is written. What a managed server does not let us see is said, not guessed.

==============  =============================================================
`connection`    the server answers, how fast
`server`        which one, in which version; the commands that are needed
`durability`    what a crash of the server costs, and whether disks keep up
`memory`        limit, use, and whether keys may be evicted
`clock`         the server's clock against ours, and streams ahead of it
`streams`       how long a reader may be down before entries are trimmed
`groups`        consumer groups that nobody reads for
`pipelines`     who runs each one, its lag, its dead letters
==============  =============================================================
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import redis as redis_py

from cep.bus.connection import address_of, clear_errors, cleared
from cep.bus.keys import dlq_key, meta_key, state_key
from cep.errors import CepError
from cep.pipeline.limits import LEASE_SECONDS
from cep.pipeline.owner import Holder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Level = Literal["ok", "warn", "bad"]

OLDEST = (7, 0)
SLOW_PING_MS = 5.0
FULL, VERY_FULL = 0.8, 0.95  # of the memory limit
DOWN_WARN_MS, DOWN_BAD_MS = 600_000, 60_000  # that a reader may be down
SKEW_WARN_MS, SKEW_BAD_MS = 1_000, 60_000
MANY_GROUPS, MANY_PENDING = 20, 10_000
FORGOTTEN_MS = 3_600_000  # that no consumer of a group was heard of
MOST_COUNTED = 10_000  # entries behind, where they must be fetched to be counted
MANY_LETTERS = 0.05  # of all entries read
# All that the package sends to a server in the course of a pipeline.
NEEDED = (
    "evalsha", "script", "hget", "hgetall", "hscan", "hset", "hdel", "type", "time",
    "xadd", "xdel", "xrange", "xread", "xrevrange", "xinfo", "xgroup",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; ``remedy`` is "" if nothing needs to be done."""

    check: str
    level: Level
    found: str
    remedy: str = ""


def examine(client: redis_py.Redis, streams: Sequence[str] = ()) -> list[Finding]:
    """Look at a server.

    Parameters
    ----------
    client
        A client of `connect_redis`.
    streams
        Input streams to look at; those of the pipelines found are added.

    Returns
    -------
    The findings in the order of the checks; a single bad one if there is no
    connection. A check that the server does not allow is a warning.
    """
    try:
        findings = [connection(client)]
    except CepError as error:
        cause, remedy = (
            getattr(error, "cause", str(error)),
            getattr(error, "remedy", ""),
        )
        return [Finding("connection", "bad", f"{address_of(client)}: {cause}", remedy)]
    server_view = _Server(client)
    names = list(dict.fromkeys([*streams, *server_view.input_streams()]))
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "server": lambda: server(server_view),
        "durability": lambda: durability(server_view),
        "memory": lambda: memory(server_view),
        "clock": lambda: clock(server_view, names),
        "streams": lambda: stream_caps(server_view, names),
        "groups": lambda: groups(server_view, names),
        "pipelines": lambda: pipelines(server_view),
    }
    for name, check in checks.items():
        try:
            findings += check()
        except redis_py.RedisError as error:
            told = cleared(error, client)
            remedy = getattr(told, "remedy", "")
            cause = getattr(told, "cause", str(told))
            findings.append(Finding(name, "warn", f"cannot look: {cause}", remedy))
    return findings


class _Server:
    """What several checks ask for, asked once."""

    def __init__(self, client: redis_py.Redis) -> None:
        self.client = client
        with clear_errors(client):
            self.info: dict[str, Any] = _any(client.info())
        self.metas: dict[str, dict[str, str]] = {}
        for key in _any(client.scan_iter(match="cep:{*}:meta", count=1000)):
            name = key.decode("utf-8", "replace")[len("cep:{") : -len("}:meta")]
            raw = _any(client.hgetall(meta_key(name)))
            self.metas[name] = {
                field.decode(): value.decode("utf-8", "replace")
                for field, value in raw.items()
            }
        seconds, micros = _any(client.time())
        self.now_ms = seconds * 1000 + micros // 1000

    def config(self, name: str) -> str | None:
        """Return a setting, None where the server does not tell."""
        try:
            found = _any(self.client.config_get(name))
        except redis_py.RedisError:
            return None
        value = found.get(name, found.get(name.encode()))
        return value.decode() if isinstance(value, bytes) else value

    def input_streams(self) -> list[str]:
        """Return the streams that the pipelines found read."""
        return sorted({s for meta in self.metas.values() for s in _positions(meta)})

    def stream(self, name: str) -> dict[str, Any] | None:
        """Return what XINFO STREAM tells, None if there is no such stream."""
        if _any(self.client.type(name)) != b"stream":
            return None
        return dict(_any(self.client.xinfo_stream(name)))


# The checks -----------------------------------------------------------------


def connection(client: redis_py.Redis) -> Finding:
    """See whether the server answers, and how fast: the least of five pings."""
    best = float("inf")
    with clear_errors(client):
        for _ in range(5):
            began = time.perf_counter()
            client.ping()
            best = min(best, 1000 * (time.perf_counter() - began))
    found = f"{address_of(client)} answers in {best:.1f} ms"
    if best > SLOW_PING_MS:
        remedy = "Run the pipeline nearer to the server: each commit waits so long."
        return Finding("connection", "warn", found, remedy)
    return Finding("connection", "ok", found)


def server(view: _Server) -> Iterator[Finding]:
    """See whether it is a version that we know, with all commands."""
    info = view.info
    kind = "Valkey" if "valkey_version" in info else "Redis"
    version = str(info.get("valkey_version") or info.get("redis_version", "?"))
    told = tuple(int(p) for p in version.split(".")[:2] if p.isdigit())
    mode = str(info.get("server_mode") or info.get("redis_mode") or "mode unknown")
    found = f"{kind} {version}, {mode}"
    if told < OLDEST:
        yield Finding("server", "bad", found, "Use Redis 7.0 or newer, or Valkey.")
    elif mode == "cluster":
        remedy = (
            "A commit writes several keys at once: use a server that is no cluster."
        )
        yield Finding("server", "bad", found, remedy)
    else:
        yield Finding("server", "ok", found)
    known = {name.decode().lower() for name in _any(view.client.command_list())}
    if missing := sorted(set(NEEDED) - known):
        yield Finding(
            "server",
            "bad",
            f"it lacks {', '.join(missing)}",
            "Ask whoever runs it to allow these commands (rename-command, ACL).",
        )
    if info.get("role") != "master":
        yield Finding(
            "server", "bad", "it is a replica", "Connect to its primary instead."
        )


def durability(view: _Server) -> Iterator[Finding]:
    """Name the durability in force: safe, fast, snapshots or none."""
    info = view.info
    fsync = view.config("appendfsync")
    save = view.config("save")
    if info.get("aof_enabled"):
        if fsync == "always":
            yield Finding("durability", "ok", "safe: on disk before each reply")
        elif fsync == "no":
            yield Finding(
                "durability",
                "warn",
                "appendfsync is no: a crash of the machine costs half a minute",
                "CONFIG SET appendfsync everysec.",
            )
        else:
            found = "fast: a crash of the machine costs up to two seconds"
            yield Finding("durability", "ok", found)
        if info.get("aof_last_write_status", "ok") != "ok":
            yield Finding(
                "durability",
                "bad",
                "the last write to the append-only file failed",
                "See the server's log, and whether its disk is full.",
            )
    elif save is None or save:
        yield Finding(
            "durability",
            "warn",
            "snapshots only: a crash costs all since the last one"
            if save
            else "no append-only file; whether there are snapshots is not told",
            "CONFIG SET appendonly yes.",
        )
    else:
        yield Finding(
            "durability",
            "bad",
            "none: a restart of the server loses everything",
            "CONFIG SET appendonly yes.",
        )
    if str(info.get("rdb_last_bgsave_status", "ok")) != "ok":
        yield Finding(
            "durability",
            "bad" if view.config("stop-writes-on-bgsave-error") != "no" else "warn",
            "the last snapshot failed",
            "See the server's log, and whether its disk is full.",
        )
    replicas = int(info.get("connected_slaves", 0))
    if replicas:
        least = view.config("min-replicas-to-write") or "0"
        found = f"{replicas} replicas, writes need {least} of them"
        if least == "0":
            remedy = (
                "CONFIG SET min-replicas-to-write 1, or a failover may lose writes."
            )
            yield Finding("durability", "warn", found, remedy)
        else:
            yield Finding("durability", "ok", found)


def memory(view: _Server) -> Iterator[Finding]:
    """See how much room is left, and that nothing of ours can be evicted."""
    info = view.info
    used, limit = int(info["used_memory"]), int(info.get("maxmemory", 0))
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if limit and policy.startswith("allkeys"):
        yield Finding(
            "memory",
            "bad",
            f"maxmemory-policy is {policy}: streams and state may be evicted",
            "CONFIG SET maxmemory-policy noeviction.",
        )
    if not limit:
        total = int(info.get("total_system_memory", 0))
        yield Finding(
            "memory",
            "warn",
            f"{_size(used)} used, no limit"
            + (f" (the machine has {_size(total)})" if total else ""),
            "CONFIG SET maxmemory to what the machine can spare; without it the "
            "kernel ends the server when memory runs out.",
        )
        return
    found = f"{_size(used)} used of {_size(limit)}, {policy}"
    if used < FULL * limit:
        yield Finding("memory", "ok", found)
    else:
        level: Level = "bad" if used > VERY_FULL * limit else "warn"
        yield Finding("memory", level, found, "Trim streams, or raise maxmemory.")


def clock(view: _Server, streams: Sequence[str]) -> Iterator[Finding]:
    """Compare the server's clock with ours, and with ids that it has given."""
    before = time.time()
    seconds, micros = _any(view.client.time())
    ours = (before + time.time()) / 2
    skew_ms = round(1000 * (seconds + micros / 1e6 - ours))
    found = f"the server's clock is {abs(skew_ms)} ms {_side(skew_ms)} ours"
    if abs(skew_ms) < SKEW_WARN_MS:
        yield Finding("clock", "ok", found)
    else:
        level: Level = "warn" if abs(skew_ms) < SKEW_BAD_MS else "bad"
        yield Finding("clock", level, found, "Set both by NTP.")
    for name in streams:
        info = view.stream(name)
        ahead = _ms(info["last-generated-id"]) - view.now_ms if info else 0
        if ahead > SKEW_WARN_MS:
            yield Finding(
                "clock",
                "warn",
                f"the last id of {name} is {_span(ahead)} ahead of the server's clock",
                "Its clock was set back, or someone writes ids of their own; until "
                "the clock gets there all arrivals seem to be at that moment.",
            )


def stream_caps(view: _Server, streams: Sequence[str]) -> Iterator[Finding]:
    """Tell how long each stream's reader may be down before it loses entries."""
    for name in streams:
        info = view.stream(name)
        if info is None:
            yield Finding("streams", "ok", f"{name} is not there yet")
            continue
        length, first, last = info["length"], info["first-entry"], info["last-entry"]
        trimmed = info["entries-added"] - length
        if not first or not trimmed:
            found = f"{name} holds all of its {length:,} entries"
            yield Finding("streams", "ok", found)
            continue
        span = _ms(last[0]) - _ms(first[0])
        found = f"{name} keeps {length:,} entries, the last {_span(span)}"
        for pipeline, meta in view.metas.items():
            read = _positions(meta).get(name)
            if read is not None and _id(read) < _id(first[0]):
                yield Finding(
                    "streams",
                    "warn",
                    f"{name} was trimmed to {first[0].decode()}, pipeline {pipeline} "
                    f"has read to {read}",
                    "Start the pipeline: it counts what it has lost, if anything. "
                    "Then keep more of the stream (a larger MAXLEN).",
                )
        if span >= DOWN_WARN_MS:
            yield Finding("streams", "ok", found)
        else:
            level: Level = "warn" if span >= DOWN_BAD_MS else "bad"
            remedy = (
                "A reader that is down for longer loses entries: raise the MAXLEN "
                f"of its writers to at least {_enough(length, span):,}."
            )
            yield Finding("streams", level, found, remedy)


def groups(view: _Server, streams: Sequence[str]) -> Iterator[Finding]:
    """Find consumer groups that nobody reads for and that cost memory."""
    seen = 0
    for name in streams:
        if view.stream(name) is None:
            continue
        found: Sequence[dict[str, Any]] = _any(view.client.xinfo_groups(name))
        seen += len(found)
        if len(found) > MANY_GROUPS:
            yield Finding(
                "groups",
                "warn",
                f"{name} has {len(found)} consumer groups",
                "Remove those of readers that are gone: XGROUP DESTROY.",
            )
        for group in found:
            pending = group["pending"]
            if not pending:
                continue
            who = group["name"].decode("utf-8", "replace")
            told = _any(view.client.xinfo_consumers(name, group["name"]))
            silent = min((c["idle"] for c in told), default=FORGOTTEN_MS)
            if pending > MANY_PENDING or silent >= FORGOTTEN_MS:
                yield Finding(
                    "groups",
                    "warn",
                    f"{name}: group {who} has {pending:,} entries delivered and not "
                    f"acknowledged, its consumers were last heard {_span(silent)} ago",
                    "Start its consumers, or remove it: XGROUP DESTROY.",
                )
    yield Finding("groups", "ok", f"{seen} consumer groups on {len(streams)} streams")


def pipelines(view: _Server) -> Iterator[Finding]:
    """Tell who runs each pipeline, how far behind it is, and what it gave up on."""
    if not view.metas:
        yield Finding("pipelines", "ok", "none has run here yet")
    for name, meta in view.metas.items():
        yield _owner(view, name, meta)
        counts: dict[str, dict[str, int]] = json.loads(meta.get("counts") or "{}")
        read = sum(one["read"] for one in counts.values())
        lag = {
            stream: _lag(view, stream, position, counts.get(stream, {}))
            for stream, position in _positions(meta).items()
        }
        behind = ", ".join(f"{stream} {n:,}" for stream, n in lag.items() if n)
        keys = int(_any(view.client.hlen(state_key(name))))
        found = f"{name}: read {read:,}, {behind or 'nothing'} behind, {keys:,} states"
        yield Finding("pipelines", "ok", found)
        letters = int(_any(view.client.xlen(dlq_key(name))))
        if letters > MANY_LETTERS * read:
            yield Finding(
                "pipelines",
                "warn",
                f"{name}: {letters:,} dead letters for {read:,} entries read",
                f"See why: cep quarantine list {name}",
            )
        elif letters:
            yield Finding("pipelines", "ok", f"{name}: {letters:,} dead letters")
        if trimmed := int(meta.get("trimmed") or 0):
            yield Finding(
                "pipelines",
                "warn",
                f"{name}: {trimmed:,} dead letters had to go for newer ones",
                "Export them in time (cep quarantine export) and purge them, or raise "
                "max_dead_letters of the pipeline.",
            )
        lost = sum(one.get("gaps", 0) for one in counts.values())
        if lost:
            yield Finding(
                "pipelines",
                "warn",
                f"{name}: {lost:,} entries were trimmed before they were read",
                "Keep more of its streams (a larger MAXLEN), or run it all the time.",
            )


def _owner(view: _Server, name: str, meta: dict[str, str]) -> Finding:
    holder = Holder.decoded(meta.get("holder", "").encode())
    alive = int(meta.get("alive") or 0)
    who = f"process {holder.pid} on {holder.host}"
    if meta.get("ended") == "1":
        return Finding("pipelines", "ok", f"{name}: its input has ended")
    if not alive:
        return Finding("pipelines", "ok", f"{name}: not running; it was stopped")
    silent = view.now_ms - alive
    if silent < 1000 * LEASE_SECONDS and not holder.has_ended():
        return Finding("pipelines", "ok", f"{name}: run by {who}")
    return Finding(
        "pipelines",
        "bad",
        f"{name}: {who} was last heard {_span(silent)} ago",
        "It died or hangs: start it again with `cep run`, under a supervisor.",
    )


def _lag(view: _Server, stream: str, position: str, counts: dict[str, int]) -> int:
    """Return how many entries of a stream come after a position."""
    info = view.stream(stream)
    if info is None or not info["last-entry"]:
        return 0
    if _id(info["last-entry"][0]) <= _id(position):
        return 0
    if info["entries-added"] == info["length"]:
        return max(0, int(info["length"]) - counts.get("read", 0))
    # Of a trimmed stream no number tells how many precede an id.
    after: list[Any] = _any(
        view.client.xrange(stream, f"({position}", "+", count=MOST_COUNTED)
    )
    return len(after)


# Words ----------------------------------------------------------------------


def _any(answer: Any) -> Any:
    """Return a reply whose shape redis-py's types leave open."""
    return answer


def _positions(meta: dict[str, str]) -> dict[str, str]:
    try:
        found = json.loads(meta.get("positions") or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _id(entry_id: bytes | str) -> tuple[int, int]:
    text = entry_id.decode() if isinstance(entry_id, bytes) else entry_id
    ms, _, seq = text.partition("-")
    return int(ms), int(seq or 0)


def _ms(entry_id: bytes | str) -> int:
    return _id(entry_id)[0]


def _side(difference: int) -> str:
    return "ahead of" if difference > 0 else "behind"


def _enough(length: int, span_ms: int) -> int:
    """Return how many entries last for `DOWN_WARN_MS`, in round numbers."""
    needed = length * DOWN_WARN_MS // max(span_ms, 1) + 1
    step: int = 10 ** max(0, len(str(needed)) - 2)
    return -(-needed // step) * step


def _span(ms: int) -> str:
    """Return a duration as people say it.

    >>> [_span(ms) for ms in (900, 45_000, 600_000, 7_200_000, 172_800_000)]
    ['900 ms', '45 s', '10 min', '2.0 h', '2.0 days']
    """
    if ms < 1_000:
        return f"{ms} ms"
    if ms < 120_000:
        return f"{ms / 1000:.0f} s"
    if ms < 7_200_000:
        return f"{ms / 60_000:.0f} min"
    if ms < 172_800_000:
        return f"{ms / 3_600_000:.1f} h"
    return f"{ms / 86_400_000:.1f} days"


def _size(n: int) -> str:
    """Return a number of bytes as people say it.

    >>> _size(1_500_000), _size(3 << 30)
    ('1.4 MB', '3.0 GB')
    """
    for unit, size in (("GB", 1 << 30), ("MB", 1 << 20), ("kB", 1 << 10)):
        if n >= size:
            return f"{n / size:.1f} {unit}"
    return f"{n} bytes"
