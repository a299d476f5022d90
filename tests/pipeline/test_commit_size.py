"""A flood of what is given up on is cut into commits of a bounded size."""

import live
import pytest

from cep.pipeline.intake import Intake
from cep.pipeline.store import Store

pytestmark = pytest.mark.redis

T, N = live.START_MS, 600
MOST = 100_000  # bytes
ROW = 6_000  # at most: the first 4 kB, and what is said about them


@pytest.fixture
def sizes(limits, monkeypatch):
    """Return how many bytes of entries each commit held, as they are made."""
    limits(COMMIT_BYTES=MOST)
    found, commit = [], Store.commit

    def measured(self, blocks, *rest):
        found.append(sum(len(block.data) for block in blocks))
        return commit(self, blocks, *rest)

    monkeypatch.setattr(Store, "commit", measured)
    return found


def bad(redis, n):
    """Write entries that are no events, with a good one after each tenth."""
    entries = []
    for i in range(n):
        entries.append((live.MARKET, f"{T + i}-0", {"a": "x" * 5_000}))
        if i % 10 == 0:
            entries.append((live.MARKET, f"{T + i}-1", live.trade(i, T + i)))
    return live.write(redis, entries)


def test_entries_that_are_no_events(redis, redis_url, sizes):
    ids = bad(redis, N)
    summary = live.drained(redis, redis_url)
    assert max(sizes) < MOST + ROW
    assert sum(sizes) > N * 4_096
    total = summary.total
    assert (total.read, total.quarantined, total.processed) == (N + 60, N, 60)
    rows = [row["entry_id"] for row in live.dead_letters(redis)]
    assert rows == [x.decode() for x in ids if x.endswith(b"-0")]
    live.counts(redis)


def test_events_that_are_late(redis, redis_url, sizes, limits):
    """They are known when they are in: the second read has been asked for then."""
    limits(READ_COUNT=150)
    made = [live.trade(i, T + (i or 10**4)) for i in range(N)]
    live.write(redis, [(live.MARKET, f"{T + i}-0", x) for i, x in enumerate(made)])
    assert live.drained(redis, redis_url).total.late == N - 1
    assert sum(size > MOST + ROW for size in sizes) <= 2
    assert len(live.dead_letters(redis)) == N - 1


def test_a_page_that_is_not_cut_would_be_seen(redis, redis_url, sizes, monkeypatch):
    monkeypatch.setattr(Intake, "_within_commit", lambda _, page: page)
    bad(redis, N)
    live.drained(redis, redis_url)
    assert max(sizes) > 10 * MOST
