"""Entry ids of the future, which some producer chose, silence nobody."""

import live
import pytest

from cep import e, emit, on, rule
from cep.engine.ordering import Ordering
from cep.pipeline import stream

pytestmark = pytest.mark.redis

T, FUTURE = live.START_MS, 9_000_000_000_000


@rule("every")
def every():
    return on("market.trade"), emit(price=e.price)


STREAMS = [
    stream(name, max_out_of_orderness="100ms", idle="1s")
    for name in (live.MARKET, live.AI)
]
WHAT = live.pipeline(rules=[every], streams=STREAMS)


def come(redis, redis_url):
    """Write trades around a request and a trade of the future; return the summary."""
    for i in range(10):
        live.write(
            redis, [(live.MARKET, f"{T + 100 * i}-0", live.trade(i, T + 100 * i))]
        )
    live.write(redis, [(live.AI, f"{FUTURE}-0", live.request(0, T + 500))])
    live.once(redis_url, WHAT)
    later = [
        (live.MARKET, f"{T + 100 * i}-0", live.trade(i, T + 100 * i)) for i in (11, 12)
    ]
    later += [
        (live.MARKET, f"{FUTURE}-{i}", live.trade(i, T + 100 * i)) for i in (13, 14)
    ]
    later += [(live.AI, f"{FUTURE}-1", live.request(1, T + 1400))]
    later += [(live.MARKET, f"{FUTURE}-99", live.trade(99, FUTURE - 1000))]
    live.write(redis, later)
    notes = []
    summary = live.drained(redis, redis_url, WHAT, note=notes.append)
    live.counts(redis)
    return summary, notes


def test_what_comes_after_them_is_not_late(redis, redis_url):
    summary, notes = come(redis, redis_url)
    total = summary.total
    assert (total.read, total.processed, total.late) == (17, 16, 0)
    assert sum("far ahead of the server's clock" in note for note in notes) == 2
    [row] = live.dead_letters(redis)
    assert (row["kind"], row["reason"]) == ("quarantine", "future_timestamp")
    assert row["entry_id"] == f"{FUTURE}-99"


def test_a_clock_that_believed_them_would_be_seen(redis, redis_url, monkeypatch):
    """The planted bug: the arrival clock takes any id."""
    monkeypatch.setattr(Ordering, "_arrivals", lambda _, batch, __: batch.entry_ms)
    summary, _ = come(redis, redis_url)
    assert summary.total.late > 0
