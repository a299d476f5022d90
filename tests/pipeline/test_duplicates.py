"""Events that were written twice are processed once, wherever the process stopped."""

import hashlib
import random

import live
import pytest

import cep
from cep.events.codec import encode
from cep.frames import load
from cep.pipeline import stream

pytestmark = pytest.mark.redis

T = live.START_MS


def with_copies(seed, n=300):
    """Traffic in which some events come again, soon or late, once or more often.

    Returns the entries, and those of them that are copies.
    """
    random_ = random.Random(seed)
    entries, copies, sent = [], [], []
    for i, entry in enumerate(live.traffic(seed, n, bad=0)):
        entries.append(entry)
        sent.append(entry)
        if random_.random() < 0.2:
            key, _, what = random_.choice(sent[-random_.choice([1, 5, 100]) :])
            ms = entry[1].partition("-")[0]
            copies.append((key, f"{ms}-{7 + i % 2}", what))
            entries.append(copies[-1])
    return entries, copies


def late_in(letters):
    return sum(dict(row)["kind"] == "'late'" for row in letters)


@pytest.mark.parametrize("seed", range(3))
def test_copies_change_nothing_wherever_it_stops(seed, redis, redis_url, limits):
    entries, copies = with_copies(seed)
    live.write(redis, [entry for entry in entries if entry not in copies])
    expected, was = live.undisturbed(redis, redis_url)
    redis.delete(live.MARKET, live.AI)
    live.write(redis, entries)
    random_ = random.Random(seed)
    limits(READ_COUNT=random_.choice([3, 40]), STEP_ROWS=random_.choice([5, 1000]))
    for _ in range(random_.randrange(10)):
        live.once(redis_url)
    live.drained(redis, redis_url)
    found = live.came(redis)
    assert found.entries == expected.entries
    assert not found.twice
    counts, duplicates = live.counts(redis), 0
    for name, before in was.items():
        now = counts[name]
        assert now["processed"] == before["processed"]
        more = now["late"] - before["late"] + now["duplicate"]
        assert more == sum(key == name for key, *_ in copies)
        duplicates += now["duplicate"]
    assert duplicates > len(copies) / 3
    rows = [row for row in live.dead_letters(redis) if row["kind"] == "duplicate"]
    assert len(rows) == duplicates


def test_without_looking_for_them_copies_are_events_of_their_own(redis, redis_url):
    """The control: it is the comparison of ids that keeps them out."""
    entries, copies = with_copies(1)
    live.write(redis, [entry for entry in entries if entry not in copies])
    expected, _ = live.undisturbed(redis, redis_url)
    redis.delete(live.MARKET, live.AI)
    live.write(redis, entries)
    streams = [
        stream(name, max_out_of_orderness="250ms", idle=None, deduplicate=False)
        for name in (live.MARKET, live.AI)
    ]
    live.drained(redis, redis_url, live.pipeline(streams=streams))
    assert live.came(redis).entries != expected.entries
    assert all(one["duplicate"] == 0 for one in live.counts(redis).values())


def test_a_copy_gets_a_row_with_its_bytes(redis, redis_url):
    one, other = live.trade(1, T), live.trade(2, T + 1)
    live.write(
        redis,
        [
            (live.MARKET, f"{T}-0", one),
            (live.MARKET, f"{T}-1", other),
            (live.MARKET, f"{T + 5}-0", one),
        ],
    )
    summary = live.drained(redis, redis_url)
    [row] = live.dead_letters(redis)
    raw = b"\n".join(name + b"=" + value for name, value in encode(one).items())
    assert row == {
        "kind": "duplicate",
        "reason": "duplicate",
        "stream": live.MARKET,
        "entry_id": f"{T + 5}-0",
        "rule": "",
        "detail": f"an earlier entry of the stream has its id {one.id}",
        "raw": raw,
        "raw_length": str(len(raw)),
        "sha256": hashlib.sha256(raw).hexdigest(),
    }
    assert (summary.total.read, summary.total.processed) == (3, 2)
    assert "duplicate 1" in str(summary.total)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_copies_are_the_same_live_and_over_frames(seed, redis, redis_url, limits):
    random_ = random.Random(seed)
    entries, _ = with_copies(seed)
    live.write(redis, entries)
    idle, bound = random_.choice([None, "100ms"]), random_.choice(["50ms", "250ms"])
    what = live.pipeline(
        streams=[
            stream(name, max_out_of_orderness=bound, idle=idle)
            for name in (live.MARKET, live.AI)
        ]
    )
    limits(READ_COUNT=random_.choice([3, 40]))
    for _ in range(random_.randrange(5)):
        live.once(redis_url, what)
    summary = live.drained(redis, redis_url, what)
    frames = load([live.MARKET, live.AI], url=redis_url)
    for batch_rows in (None, 7, 100):
        result = cep.run_rules(what, frames, batch_rows=batch_rows)
        assert set(result.ids) == set(live.came(redis).ids)
        for name, counts in summary.streams.items():
            told = result.accounting[name]
            assert told["duplicate"] == counts.duplicate > 0
            assert told["late"] == counts.late
            assert told["processed"] == counts.processed
