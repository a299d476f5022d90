"""Whatever interrupts a pipeline, what it puts out is that of an undisturbed run.

Equal means: the same derived events, each once and byte for byte the same, and
the same dead letters. Every way of interrupting comes with a planted bug, or a
count of interruptions, that shows it would notice.
"""

import contextlib
import random
import threading
from urllib.parse import urlsplit

import live
import pytest
from flaky import FlakyLink

from cep.bus.connection import connect_redis
from cep.bus.embedded import EmbeddedServer
from cep.bus.keys import meta_key
from cep.clock import TestClock
from cep.errors import ConnectionFailedError, FencedError
from cep.pipeline import Runner
from cep.pipeline.accounting import AccountingError
from cep.pipeline.store import Store

pytestmark = pytest.mark.redis

COMMIT = Store.commit


class Crash(BaseException):
    """The process is gone: nothing between here and the test may catch it."""


def run_and_crash(redis, url, monkeypatch, commit):
    """Start a pipeline anew after each crash until its input has ended."""
    monkeypatch.setattr(Store, "commit", commit)
    live.declare_end(redis)
    crashes = 0
    while not live.has_ended(redis):
        try:
            live.run(url)
        except Crash:
            crashes += 1
            assert crashes < 1000
    return crashes


def crashing(seed, commit=COMMIT, often=0.5):
    """A commit before or after which the process dies, at random."""
    random_ = random.Random(seed)

    def commit_or_die(self, *what):
        if random_.random() < often / 2:
            raise Crash
        commit(self, *what)
        if random_.random() < often / 2:
            raise Crash

    return commit_or_die


@pytest.mark.slow
@pytest.mark.parametrize("step_rows", [50, 1000])
@pytest.mark.parametrize("seed", range(2))
def test_crashes_around_commits_change_nothing(
    seed, step_rows, redis, redis_url, monkeypatch, limits
):
    live.write(redis, live.traffic(seed))
    expected, counts = live.undisturbed(redis, redis_url)
    assert len(expected.ids) > 200
    assert len(expected.letters) > 10
    limits(READ_COUNT=20, STEP_ROWS=step_rows, COMMIT_SECONDS=0)
    assert run_and_crash(redis, redis_url, monkeypatch, crashing(seed)) > 5
    assert live.came(redis) == expected
    assert live.counts(redis) == counts


def test_crashes_between_commits_of_the_last_rows_lose_none(
    redis, redis_url, monkeypatch, limits
):
    """Rows held back are all released at the end, in several commits."""

    def die(self, *what):
        COMMIT(self, *what)
        raise Crash

    live.write(redis, live.traffic(n=40))
    expected, counts = live.undisturbed(redis, redis_url)
    limits(STEP_ROWS=5, COMMIT_SECONDS=0)
    assert run_and_crash(redis, redis_url, monkeypatch, die) > 5
    assert live.came(redis) == expected
    assert live.counts(redis) == counts


def outputs_apart_from_positions(self, entries, state, meta):
    for key, words in live.entries_of(entries):
        live.add(self.client, key, words)
    if self.client.incr("commits") % 3 == 0:
        raise Crash
    COMMIT(self, [], state, meta)


def positions_apart_from_outputs(self, entries, state, meta):
    COMMIT(self, [], state, meta)
    if self.client.incr("commits") % 3 == 0:
        raise Crash
    for key, words in live.entries_of(entries):
        live.add(self.client, key, words)


def without_state(self, entries, state, meta):
    COMMIT(self, entries, {}, meta)
    raise Crash


def without_buffered_entries(self, entries, state, meta):
    COMMIT(self, entries, state, {**meta, "held": {}})
    raise Crash


@pytest.mark.slow
@pytest.mark.parametrize(
    "planted",
    [
        outputs_apart_from_positions,
        positions_apart_from_outputs,
        without_state,
        without_buffered_entries,
    ],
)
def test_the_comparison_notices_a_planted_bug(
    planted, redis, redis_url, monkeypatch, limits
):
    live.write(redis, live.traffic())
    expected, _ = live.undisturbed(redis, redis_url)
    limits(READ_COUNT=20, COMMIT_SECONDS=0)  # commits by count, however fast it is
    with contextlib.suppress(AccountingError):  # it may notice by itself
        assert run_and_crash(redis, redis_url, monkeypatch, planted) > 0
    assert live.came(redis) != expected


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_links_that_break_anywhere_change_nothing(seed, redis, redis_url, limits):
    live.write(redis, live.traffic(seed, n=400))
    expected, counts = live.undisturbed(redis, redis_url)
    limits(READ_COUNT=20, COMMIT_SECONDS=0)
    random_ = random.Random(seed)
    budgets = (int(10 ** random_.uniform(1, 5)) for _ in range(60))
    live.declare_end(redis)
    notes = []
    with FlakyLink(redis_url, budgets) as link:
        while not live.has_ended(redis):
            # Cut off at the very start it gives up, and is started again.
            with contextlib.suppress(ConnectionFailedError):
                live.run(link.url, note=notes.append)
        assert link.cuts > 30
    assert live.came(redis) == expected
    assert live.counts(redis) == counts
    assert notes
    assert all("Starting from the last commit" in note for note in notes)


@pytest.mark.slow
def test_a_server_that_restarts_in_the_middle_changes_nothing(tmp_path, limits):
    limits(READ_COUNT=20, COMMIT_SECONDS=0)
    entries = live.traffic(n=600)
    half = len(entries) // 2
    options = {"durability": "safe", "password": "hunter2"}
    notes, server = [], EmbeddedServer(tmp_path, **options).start()
    url = server.url
    runner = Runner(live.pipeline(), url, note=notes.append, clock=TestClock())
    thread = threading.Thread(target=runner.run, daemon=True)
    with connect_redis(url) as redis:
        live.write(redis, entries[:half])
        thread.start()
        live.wait_until(lambda: live.commits(redis) > 3)
    server.stop()
    live.wait_until(lambda: notes)
    port = urlsplit(url).port
    with EmbeddedServer(tmp_path, port=port, **options), connect_redis(url) as redis:
        before = live.commits(redis)
        live.write(redis, entries[half:])
        live.wait_until(lambda: live.commits(redis) > before)
        live.declare_end(redis)
        thread.join(120)
        found = live.came(redis)
        redis.delete(live.OUTPUT, "system.events")
        assert found == live.undisturbed(redis, url)[0]
    assert any("Start a server there" in note for note in notes)
    assert not any("hunter2" in note for note in notes)


def started(url, notes, **options):
    """Start a runner in a thread; return it, and a list for how it ends."""
    runner, end = Runner(live.pipeline(), url, note=notes.append, **options), []

    def run():
        try:
            end.append(runner.run())
        except Exception as error:
            end.append(error)

    threading.Thread(target=run, daemon=True).start()
    return runner, end


def test_a_second_runner_takes_over_and_the_first_writes_nothing_more(redis, redis_url):
    entries = live.traffic(n=60, bad=0, late=0)
    live.write(redis, entries[:30])
    _, first = started(redis_url, [])
    live.wait_until(lambda: live.commits(redis) > 0)
    taken = Store(redis, "p")
    taken.take_over(force=True)
    stored = redis.hgetall(meta_key("p"))
    written = live.came(redis)
    live.write(redis, entries[30:])
    live.wait_until(lambda: first)
    assert isinstance(first[0], FencedError)
    assert first[0].theirs == taken.owner
    assert redis.hgetall(meta_key("p")) == stored
    assert live.came(redis) == written
    taken.leave()
    found = live.drained(redis, redis_url)
    assert found.total.processed == 60
    everything = live.came(redis)
    redis.delete(live.OUTPUT, "system.events")
    assert everything == live.undisturbed(redis, redis_url)[0]


def test_after_a_lost_connection_it_does_not_fence_who_took_over(redis, redis_url):
    """Else two processes under a supervisor would fence each other for ever."""
    live.write(redis, live.traffic(n=30))
    with FlakyLink(redis_url, []) as link:
        _, end = started(link.url, [], clock=TestClock())
        live.wait_until(lambda: live.commits(redis) > 0)
        other = Store(redis, "p")
        other.take_over(force=True)
        link.cut()
        live.wait_until(lambda: end)
    assert isinstance(end[0], FencedError)
    assert end[0].theirs == other.owner
    assert redis.hget(meta_key("p"), "owner").decode() == other.owner
