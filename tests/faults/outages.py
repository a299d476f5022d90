"""Servers that are killed and come back, with all of their data or without some."""

import contextlib
import os
import signal
from collections import Counter
from dataclasses import replace
from urllib.parse import urlsplit

import live

from cep.bus.embedded import EmbeddedServer
from cep.ops.crash_test import Trial, came_of, compare
from tests.faults import work


class Outage:
    """A trial on a server that can be killed and started again."""

    def __init__(self, folder, entries, durability, at_once=10):
        self.folder = folder / "server"
        self._options = {"durability": durability}
        self._server = EmbeddedServer(self.folder, **self._options).start()
        self._port = urlsplit(self._server.url).port
        url = f"redis://127.0.0.1:{self._port}"
        log = folder / "pipeline.log"
        self.trial = Trial(
            url, work.MODULE, entries, log, target=work.cep_run, at_once=at_once
        )

    def close(self):
        self.trial.__exit__()
        self._server.stop()

    def write(self, number):
        """Let so many more entries be written, and wait for that."""
        feed = self.trial.feed
        feed.let(feed.written + number)
        goal = min(feed.written + number, len(feed.entries))
        live.wait_until(lambda: feed.written >= goal)

    def kill(self, between=lambda: None):
        """Kill the server and start it again; ``between`` is done while it is gone."""
        os.kill(self._server.pid, signal.SIGKILL)
        self._server.stop()
        between()
        self._server = EmbeddedServer(
            self.folder, port=self._port, **self._options
        ).start()

    @property
    def append_only_file(self):
        """The file that is being appended to."""
        files = (self.folder / "appendonlydir").glob("*.incr.aof")
        return max(files, key=lambda path: path.stat().st_mtime_ns)

    def cut(self, at):
        """Take what comes after byte ``at`` from the file."""
        os.truncate(self.append_only_file, at)


def surviving(trial):
    """Return the input that the server holds, in the order of arrival."""
    order = {entry[:2]: n for n, entry in enumerate(trial.feed.entries)}
    found = [
        (stream, entry_id.decode(), fields)
        for stream in (live.MARKET, live.AI)
        for entry_id, fields in trial.client.xrange(stream)
    ]
    return sorted(found, key=lambda entry: order[entry[:2]])


def verdict_over_survivors(trial, ignore=("rollback",)):
    """Compare with an undisturbed run over what survived.

    Dead letters of the kinds ``ignore`` are left out, and counted.
    """
    expected = trial.undisturbed(surviving(trial))
    found = came_of(trial.client, trial.name, trial.outputs)
    left_out = Counter({one: n for one, n in found.letters.items() if one[0] in ignore})
    found = replace(found, letters=found.letters - left_out)
    return compare(found, expected), left_out.total()


@contextlib.contextmanager
def outage(folder, entries, durability="safe"):
    """A trial on a server of its own."""
    one = Outage(folder, entries, durability)
    try:
        yield one
    finally:
        one.close()


def kill_server(folder, times, seed=0):
    """Kill a server that writes before it replies, again and again."""
    entries = work.entries((times + 2) * 150, seed)
    with outage(folder, entries) as one:
        process = one.trial.begin()
        try:
            for _ in range(times):
                seq = one.trial.seq
                one.write(100)
                one.trial.wait_for_commit(process, seq)
                one.kill()
            return one.trial.finish(lambda: process)
        finally:
            process.kill()
            process.join()


def cut_file(folder, dice, seed=0, tail_entries=300):
    """Let a server lose the end of its file; a pipeline goes on through that.

    Returns the verdict over what survived, the commits that were lost, and
    how many rollbacks were reported.
    """
    with outage(folder, work.entries(900, seed), "fast") as one:
        process = one.trial.begin()
        try:
            one.write(300)
            one.trial.wait_for_commit(process, 0)
            start = one.append_only_file.stat().st_size
            one.write(tail_entries)
            live.wait_until(lambda: _has_read(one))
            before = one.trial.seq
            end = one.append_only_file.stat().st_size
            os.kill(process.pid, signal.SIGSTOP)
            one.kill(lambda: one.cut(dice.randrange(start, end)))
            lost = before - one.trial.seq
            os.kill(process.pid, signal.SIGCONT)
            one.trial.finish(lambda: process)
            verdict, rollbacks = verdict_over_survivors(one.trial)
            return verdict, lost, rollbacks
        finally:
            process.kill()
            process.join()


def _has_read(one):
    counts = live.counts(one.trial.client, one.trial.name)
    return sum(c["read"] for c in counts.values()) == one.trial.feed.written
