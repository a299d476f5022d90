"""One process runs a pipeline: who may start, who is refused, who is fenced."""

import contextlib
import os
import signal
import subprocess
import sys

import live
import msgspec
import pytest

from cep.bus.keys import dlq_key, meta_key, state_key
from cep.cli import main
from cep.errors import AlreadyRunningError, FencedError
from cep.pipeline import Runner, owner
from cep.pipeline import limits as defaults
from cep.pipeline.owner import Holder, this_process
from cep.pipeline.store import Store

pytestmark = pytest.mark.redis

MODULE = """
import live
from live import *
pipeline = live.pipeline()
"""


@pytest.fixture
def module(tmp_path):
    path = tmp_path / "rules.py"
    path.write_text(MODULE)
    return path


@pytest.fixture
def running(redis):
    """A store whose owner is alive."""
    store = Store(redis, "p")
    store.take_over()
    return store


def held_by(redis, **changes):
    """Let the owner be another process."""
    here = msgspec.to_builtins(this_process())
    redis.hset(meta_key("p"), "holder", msgspec.json.encode({**here, **changes}))


def ended_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_starting_beside_an_owner_who_is_alive_is_refused(redis, running):
    running.commit([], {}, {"counts": {}})
    with pytest.raises(AlreadyRunningError) as caught:
        Store(redis, "p").take_over()
    text = str(caught.value)
    assert caught.value.theirs == running.owner
    here = this_process()
    assert f"host {here.host}, pid {here.pid}, since 20" in text
    assert "last commit 1 at 20" in text
    assert "start with --takeover" in text
    running.commit([], {}, {"counts": {}})


def test_takeover_takes_it_and_the_loser_learns_who_did(redis, running):
    other = Store(redis, "p")
    other.take_over(force=True)
    with pytest.raises(FencedError, match=f"pid {this_process().pid}, since") as caught:
        running.commit([], {}, {"counts": {}})
    assert caught.value.theirs == other.owner


def test_an_idle_loser_learns_it_from_its_heartbeat(redis, running, limits):
    limits(HEARTBEAT_SECONDS=0)
    running.beat()
    other = Store(redis, "p")
    other.take_over(force=True)
    before = redis.hgetall(meta_key("p"))
    with pytest.raises(FencedError) as caught:
        running.beat()
    assert caught.value.theirs == other.owner
    assert redis.hgetall(meta_key("p")) == before


def test_an_owner_who_ended_may_be_followed_at_once(redis, running):
    running.leave()
    Store(redis, "p").take_over()


def test_leaving_after_being_fenced_does_not_end_the_winner(redis, running):
    other = Store(redis, "p")
    other.take_over(force=True)
    running.leave()
    with pytest.raises(AlreadyRunningError):
        Store(redis, "p").take_over()


@pytest.mark.parametrize("began", ["same", "other"])
def test_a_process_of_this_machine_that_is_gone_may_be_followed_at_once(
    began, redis, running
):
    changes = {"pid": ended_pid()} if began == "same" else {"began": "1"}
    held_by(redis, **changes)
    Store(redis, "p").take_over()


def test_a_process_of_this_machine_that_is_there_is_refused(redis, running):
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE
    ) as process:
        held_by(redis, pid=process.pid, began=owner._began(process.pid))
        with pytest.raises(AlreadyRunningError, match=f"pid {process.pid}"):
            Store(redis, "p").take_over()
        process.kill()
        # Killed, and nobody has waited for it yet.
        live.wait_until(lambda: not owner._began(process.pid))
        Store(redis, "p").take_over()


def test_of_another_machine_a_heartbeat_that_moves_is_waited_for(redis, running):
    held_by(redis, host="elsewhere", machine="another")
    asked = []

    def wait(who):
        asked.append(who)
        if len(asked) == 3:
            redis.hincrby(meta_key("p"), "alive", 1)
        return len(asked) < 100

    with pytest.raises(AlreadyRunningError, match="host elsewhere"):
        Store(redis, "p").take_over(wait=wait)
    assert len(asked) == 3
    assert "host elsewhere" in asked[0]


@pytest.mark.parametrize("clock", ["behind", "ahead"])
def test_a_heartbeat_that_is_too_old_is_that_of_nobody(clock, redis, running):
    """Ahead it is where another server's clock was: its owner would have moved it."""
    held_by(redis, machine="another")
    by = 1000 * defaults.LEASE_SECONDS + 60_000
    redis.hincrby(meta_key("p"), "alive", int(by if clock == "ahead" else -by))
    Store(redis, "p").take_over()


def test_an_owner_of_another_machine_that_was_killed_is_followed_after_the_lease(
    redis, running, limits
):
    limits(LEASE_SECONDS=0.3)
    held_by(redis, machine="another")
    Store(redis, "p").take_over(wait=lambda _: True)


def test_waiting_for_an_owner_ends_when_the_runner_is_stopped(
    redis, redis_url, running
):
    held_by(redis, machine="another")
    notes = []
    runner = Runner(live.pipeline(), redis_url, note=notes.append)
    runner.stop()
    with pytest.raises(AlreadyRunningError):
        runner.run()
    assert len(notes) == 1
    assert "for up to 10 s" in notes[0]


@pytest.mark.parametrize("holder", [b"", b"\xff", b"{", b"[]", b'{"pid":"x"}'])
def test_a_holder_that_cannot_be_read_is_an_unknown_process(holder, redis, running):
    redis.hset(meta_key("p"), "holder", holder)
    with pytest.raises(AlreadyRunningError, match="process unknown"):
        Store(redis, "p").take_over()


def test_a_place_stored_without_a_heartbeat_may_be_taken(redis):
    redis.hset(meta_key("p"), mapping={"owner": "01A", "seq": 3})
    redis.hset(state_key("p"), "engine", b"")
    assert Store(redis, "p").take_over().seq == 3


def test_of_two_that_start_at_once_one_is_refused(redis):
    """Between the look and the taking another one takes it."""
    first, second = Store(redis, "p"), Store(redis, "p")
    call = first._ownership._call

    def late(*words):
        if words[0] == "take":
            second.take_over()
            first._ownership._call = call
        return call(*words)

    first._ownership._call = late
    with pytest.raises(AlreadyRunningError) as caught:
        first.take_over()
    assert caught.value.theirs == second.owner


def test_a_holder_is_told_from_a_later_process_of_its_number():
    here = this_process()
    assert not here.has_ended()
    assert Holder(here.host, here.machine, here.pid, "1").has_ended()
    assert not Holder(here.host, "", here.pid, "1").has_ended()
    assert not Holder(here.host, "another", here.pid, "1").has_ended()


# The command ------------------------------------------------------------------


def test_the_command_is_refused_with_code_3_and_one_line(
    redis, redis_url, running, module, capsys, monkeypatch
):
    monkeypatch.syspath_prepend("tests")
    assert main(["run", str(module), "--redis", redis_url]) == 3
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"pid {this_process().pid}" in shown.err
    assert shown.err.count("error:") == 1
    live.declare_end(redis)
    command = ["run", str(module), "--redis", redis_url, "--takeover", "--drain"]
    assert main(command) == 0


@pytest.mark.parametrize("fenced", [True, False], ids=["fenced", "planted bug"])
def test_a_commit_of_one_who_was_overtaken_writes_nothing(
    fenced, redis, redis_url, monkeypatch
):
    """Asleep between reading and commit while another process does all the work."""
    live.write(redis, live.traffic(n=200))
    expected, counts = live.undisturbed(redis, redis_url)
    commit, asleep = Store.commit, []

    def overtaken(self, *what):
        if not asleep:
            asleep.append(self)
            live.declare_end(redis)
            live.run(redis_url, takeover=True)
            if not fenced:
                self.owner = redis.hget(meta_key("p"), "owner").decode()
                self.seq = live.commits(redis)
        commit(self, *what)

    monkeypatch.setattr(Store, "commit", overtaken)
    if fenced:
        with pytest.raises(FencedError):
            live.run(redis_url)
        assert (live.came(redis), live.counts(redis)) == (expected, counts)
    else:
        live.run(redis_url)
        assert live.came(redis).twice


@pytest.mark.slow
def test_zombies_that_wake_put_out_nothing_and_name_the_winner(
    redis, redis_url, module, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    entries = live.traffic(seed=5, n=1200)
    live.write(redis, entries)
    expected, counts = live.undisturbed(redis, redis_url)
    redis.delete(live.MARKET, live.AI, dlq_key("control"))
    parts = [entries[i : i + 100] for i in range(0, len(entries), 100)]
    rounds = 5
    with contextlib.ExitStack() as stack:

        def start(*options):
            process = live.Process(module, redis_url, "--quiet", *options)
            return stack.enter_context(process)

        def feed_and_see_committed(part):
            before = live.commits(redis)
            live.write(redis, part)
            live.wait_until(lambda: live.commits(redis) > before)

        owner = start()
        feed_and_see_committed(parts.pop(0))
        for _ in range(rounds):
            live.write(redis, parts.pop(0))  # it may be anywhere when it is stopped
            owner.send(signal.SIGSTOP)
            winner = start("--takeover")
            feed_and_see_committed(parts.pop(0))
            owner.send(signal.SIGCONT)
            code, _, err = owner.ended()
            assert code == 3
            assert f"pid {winner.process.pid}," in err
            owner = winner
        for part in parts:
            live.write(redis, part)
        live.declare_end(redis)
        assert owner.ended()[0] == 0
    found = live.came(redis)
    assert found.twice == []
    assert (found, live.counts(redis)) == (expected, counts)
