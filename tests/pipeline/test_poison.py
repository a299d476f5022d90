"""An event that kills the process is found and put aside; nothing else is."""

import hashlib

import live
import msgspec
import pytest

from cep import e, emit, on, py, rule
from cep.bus.keys import meta_key
from cep.engine.operator import Operator
from cep.errors import ConnectionFailedError
from cep.events.codec import encode
from cep.pipeline import intake, poison, stream
from cep.pipeline.poison import Attempts, Care
from cep.pipeline.store import Store

pytestmark = pytest.mark.redis

T = live.START_MS
STREAMS = [stream(live.MARKET, max_out_of_orderness="20ms"), stream(live.AI)]


class Death(BaseException):
    """The end of the process, as far as a test in it can see."""


def deadly(price):
    if price == 13:
        raise Death
    return True


@rule("deadly", key="symbol")
def dies():
    fine = py(deadly, reads=[e.price])
    return on("market.trade").where(fine), emit(price=e.price)


PIPELINE = live.pipeline(rules=[dies], streams=STREAMS)


def write(redis, n=60, bad=(31,)):
    """Write events of two streams, some of them deadly; return the entries."""
    entries = []
    for i in range(n):
        price = 13.0 if i in bad else 100.0 + i
        what = (
            live.request(i, T + i) if i % 5 == 4 else live.trade(i, T + i, price=price)
        )
        entries.append((live.AI if i % 5 == 4 else live.MARKET, f"{T + i}-0", what))
    live.write(redis, entries)
    return entries


def run_until_it_ends(url, most=30, **options):
    """Start again after each death; return how many there were, and notes."""
    notes = []
    for deaths in range(most):
        try:
            live.run(url, PIPELINE, note=notes.append, **options)
        except Death:
            continue
        return deaths, notes
    raise AssertionError("it dies for ever")


@pytest.mark.parametrize("read_count", [7, 1000])
def test_the_one_event_is_put_aside_and_all_others_are_processed(
    read_count, redis, redis_url, limits
):
    limits(READ_COUNT=read_count, COMMIT_SECONDS=600)
    entries = write(redis)
    live.declare_end(redis)
    deaths, notes = run_until_it_ends(redis_url)
    assert deaths == poison.DEATHS + 1 + poison.ALONE
    [row] = live.dead_letters(redis)
    _, entry_id, what = entries[31]
    raw = b"\n".join(k + b"=" + v for k, v in encode(what).items())
    assert (row["kind"], row["reason"]) == ("quarantine", "poison")
    assert (row["stream"], row["entry_id"]) == (live.MARKET, entry_id)
    assert (row["raw"], row["sha256"]) == (raw, hashlib.sha256(raw).hexdigest())
    prices = sorted(
        msgspec.json.decode(fields[b"data"])["values"]["price"]
        for _, fields in redis.xrange(live.OUTPUT)
    )
    assert prices == [100.0 + i for i in range(60) if i % 5 != 4 and i != 31]
    counts = live.counts(redis)
    assert counts[live.MARKET]["quarantined"] == 1
    assert sum(one["processed"] for one in counts.values()) == 59
    assert any(
        "has died 3 times at the same place: going on by 200" in n for n in notes
    )
    assert any("going on by one event at a time" in n for n in notes)
    assert any(f"entry {entry_id} of market.events has killed" in n for n in notes)


def test_two_such_events_are_found_one_after_the_other(redis, redis_url):
    write(redis, bad=(10, 11))
    live.declare_end(redis)
    run_until_it_ends(redis_url)
    ids = [row["entry_id"] for row in live.dead_letters(redis)]
    assert ids == [f"{T + 10}-0", f"{T + 11}-0"]
    assert sum(one["processed"] for one in live.counts(redis).values()) == 58


def test_an_entry_that_kills_when_it_is_read_is_found(redis, redis_url, monkeypatch):
    entries = write(redis, bad=())
    victim = entries[31][1]

    def killing(self, columns, number):
        ids = intake._entry_ids(columns)
        if columns.stream == live.MARKET and victim in ids:
            raise Death
        return ingest(self, columns, number)

    ingest = Operator.ingest
    monkeypatch.setattr(Operator, "ingest", killing)
    live.declare_end(redis)
    run_until_it_ends(redis_url)
    [row] = live.dead_letters(redis)
    assert (row["reason"], row["entry_id"]) == ("poison", victim)
    counts = live.counts(redis)
    assert sum(one["read"] for one in counts.values()) == 60
    assert len(redis.xrange(live.OUTPUT)) == 47


def test_deaths_with_commits_between_them_put_nothing_aside(
    redis, redis_url, monkeypatch
):
    """The control: killed again and again, but never at the same place."""
    write(redis, bad=())
    commit, commits = Store.commit, []

    def dies_after(self, *args):
        commit(self, *args)
        commits.append(1)
        if len(commits) % 2:
            raise Death

    monkeypatch.setattr(Store, "commit", dies_after)
    for i in range(20):
        live.write(
            redis, [(live.MARKET, f"{T + 100 + i}-0", live.trade(99 + i, T + i))]
        )
        with pytest.raises(Death):
            live.run(redis_url, PIPELINE)
        commits.clear()
    attempts = msgspec.json.decode(redis.hget(meta_key("p"), "attempts"), type=Attempts)
    assert attempts.rows == 0
    assert all(row["reason"] == "late" for row in live.dead_letters(redis))


def test_an_end_in_order_is_no_death(redis, redis_url):
    write(redis, bad=())
    for _ in range(8):
        live.once(redis_url, PIPELINE)
    raw = redis.hget(meta_key("p"), "attempts")
    assert msgspec.json.decode(raw, type=Attempts) == Attempts()


def test_a_lost_server_is_no_death(redis, redis_url, monkeypatch):
    write(redis, bad=())
    commit, lost = Store.commit, []

    def often_lost(self, *args):
        if len(lost) < 8:
            lost.append(1)
            raise ConnectionFailedError("redis://x", "lost", "")
        commit(self, *args)

    monkeypatch.setattr(Store, "commit", often_lost)
    live.drained(redis, redis_url, PIPELINE)
    assert len(lost) == 8
    raw = redis.hget(meta_key("p"), "attempts")
    assert msgspec.json.decode(raw, type=Attempts) == Attempts()
    assert live.dead_letters(redis) == []


def test_care_suspects_only_what_it_died_at_twice_in_a_row():
    written = []
    attempts = Attempts(deaths=4, rows=1, left=50)

    def start(*, died):
        return Care(attempts, written.append, died=died, streams=1)

    start(died=True).attempt("s", "1-0", was_read=True)
    start(died=True).attempt("s", "2-0", was_read=True)
    assert start(died=True).poison is None
    assert start(died=True).poison is None  # died while trying nothing
    start(died=True).attempt("s", "2-0", was_read=True)
    assert start(died=True).poison == ("s", "2-0", True)
    assert written[-1].suspect == ("s", "2-0", True)


def test_care_ends_after_its_zone():
    care = Care(Attempts(deaths=2), lambda _: None, died=True, streams=2)
    assert care.rows == poison.FEW
    care.count(poison.ZONE - 1)
    assert care.to_commit().rows == poison.FEW
    care.count(1)
    assert care.to_commit() == Attempts()


MODULE = """
import os
from cep import Pipeline, e, emit, on, py, rule, stream

def deadly(price):
    if price == 13:
        os._exit(9)
    return True

@rule("deadly", key="symbol")
def dies():
    return on("market.trade").where(py(deadly, reads=[e.price])), emit(price=e.price)

pipeline = Pipeline("p", [dies], [stream("market.events"), stream("ai.events")])
"""


@pytest.mark.slow
def test_a_process_that_is_gone_at_once_has_died(redis, redis_url, tmp_path):
    write(redis)
    live.declare_end(redis)
    (tmp_path / "deadly.py").write_text(MODULE)
    codes = []
    while not codes or (codes[-1] and len(codes) < 12):
        with live.Process(tmp_path / "deadly.py", redis_url, "--quiet") as process:
            codes.append(process.ended()[0])
    assert codes == [9] * (poison.DEATHS + 1 + poison.ALONE) + [0]
    [row] = live.dead_letters(redis)
    assert (row["reason"], row["entry_id"]) == ("poison", f"{T + 31}-0")
    assert sum(one["processed"] for one in live.counts(redis).values()) == 59
