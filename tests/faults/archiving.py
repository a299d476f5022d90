"""SIGKILL of a process that archives, while entries come in and streams are trimmed."""

import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from cep.bus.connection import connect_redis
from cep.bus.link import packed
from cep.bus.raw import iterate_entries
from cep.frames.archive.entries import iterate_pairs, to_table
from cep.frames.archive.layout import WRITING, parts_of, written
from cep.frames.archive.prune import carry_out, plan
from cep.frames.archive.restore import restore
from cep.frames.archive.verify import verify
from cep.frames.archive.write import Archiver
from cep.ops.crash_test import start

# Nothing of `tests` is imported, so that processes are forked from one that has all.
STREAM = "market.events"
START_MS = 1_700_000_000_000
FIELDS = [
    word
    for name in ("id", "stream", "type", "version", "timestamp", "data", "metadata")
    for word in (name.encode(), b"some value of " + name.encode())
]
_AT_ONCE = 500


@dataclass
class Outcome:
    """What came of it; ``problems`` is empty if archive and tail are the input."""

    kills: int = 0
    while_writing: int = 0  # kills that left a file half written
    pruned: int = 0
    files: int = 0
    archived: int = 0
    problems: list[str] = field(default_factory=list)


def entries(n, seed=0):
    """Entries as (id, words): good ones, and of all kinds of bad ones."""
    dice = random.Random(seed)
    found = []
    at = START_MS
    for number in range(n):
        at += dice.choice([0, 1, 5])
        words = list(FIELDS)
        words[1] = b"%026d" % number
        if dice.random() < 0.05:
            words = dice.choice(
                [
                    words[2:],
                    words[::-1],
                    [*words, b"trace", dice.randbytes(9)],
                    [b"", b""],
                ]
            )
        found.append((b"%d-%d" % (at, number), words))
    return found


def forever(url, root, rows):
    """What the process does that is killed."""
    with connect_redis(url) as client:
        options = {"every_seconds": 0.0, "rows_per_file": rows}
        with Archiver(client, Path(root), [STREAM], **options) as one:
            one.run()


def kill(url, root, n, times, seed=0):
    """Archive ``n`` entries in a process that is killed so often; compare."""
    dice, found = random.Random(seed), Outcome()
    given = entries(n, seed)
    each = n // (times + 1)
    rows = max(1, each // 8)
    log = root.parent / "archive.log"
    with connect_redis(url) as client:
        for number in range(times):
            process = start(log, forever, url, str(root), rows)
            some = given[number * each : (number + 1) * each]
            done = len(parts_of(root, STREAM))
            for at in range(0, len(some), _AT_ONCE):
                _write(client, some[at : at + _AT_ONCE])
            deadline = time.monotonic() + 60
            more = dice.randrange(1, 4)
            while len(parts_of(root, STREAM)) < done + more:
                assert time.monotonic() < deadline, "nothing is archived"
                time.sleep(0.001)
            time.sleep(dice.random() * 0.05)
            process.kill()
            process.join()
            found.kills += process.exitcode == -signal.SIGKILL
            found.while_writing += any((root / WRITING).glob("*.parquet"))
            if number % 3 == 2:
                found.pruned += carry_out(client, plan(client, root, STREAM))
        _write(client, given[times * each :])
        _compare(client, root, given, found)
    return found


def _compare(client, root, given, found):
    tail, kept = _tail(client, root), _archived(root)
    if [*kept, *tail] != given:
        found.problems.append(_first_difference([*kept, *tail], given))
    with Archiver(client, root, [STREAM]) as archiver:
        archiver.catch_up()
    for one in verify(root):
        found.problems += one.problems
        found.files, found.archived = one.files, one.rows
    client.delete(STREAM)
    restore(client, root, STREAM)
    back = [
        pair for page in iterate_entries(client, STREAM, "-") for pair in _flat(page)
    ]
    if back != given:
        found.problems.append("restored: " + _first_difference(back, given))


def _archived(root):
    return [
        (entry, [word for pair in pairs for word in pair])
        for part in parts_of(root, STREAM)
        for entry, pairs in iterate_pairs(part.table())
    ]


def _tail(client, root):
    parts = parts_of(root, STREAM)
    start = f"({written(parts[-1].last)}" if parts else "-"
    return [
        pair for page in iterate_entries(client, STREAM, start) for pair in _flat(page)
    ]


def _flat(page):
    for entry, pairs in iterate_pairs(to_table(page)):
        yield entry, [word for pair in pairs for word in pair]


def _first_difference(got, expected):
    for at, (one, other) in enumerate(zip(got, expected, strict=False)):
        if one != other:
            return f"entry {at} is {one[0]!r}, not {other[0]!r}"
    return f"{len(got):,} entries, not {len(expected):,}"


def _write(client, some):
    connection = client.connection_pool.get_connection()
    commands = [
        packed(b"XADD", STREAM.encode(), entry, *words) for entry, words in some
    ]
    connection.send_packed_command([b"".join(commands)], check_health=False)
    for _ in commands:
        connection.read_response()
    client.connection_pool.release(connection)
