"""What a link between a pipeline and its server can do to both."""

import contextlib
import time
from pathlib import Path

import live
from flaky import Proxy

IMPATIENT = "?socket_timeout=0.5"


class LinkTrial:
    """A trial whose pipeline reaches its server through a proxy.

    Attributes
    ----------
    reconnects
        Seconds from each healing to the next commit.
    idle_cpu
        Share of a core used while the link was down, each time.
    """

    def __init__(self, trial, proxy, options="", target=None):
        self.trial, self.proxy = trial, proxy
        self.process = trial.begin(proxy.url + options, target=target)
        self.reconnects, self.idle_cpu = [], []

    def go_on(self):
        """Write some more, and wait until that was committed; return seconds."""
        began = time.monotonic()
        self.trial.feed.let(self.trial.feed.written + self.trial.feed.at_once)
        self.trial.wait_for_commit(self.process, self.trial.seq)
        return time.monotonic() - began

    def drop_replies(self, times):
        """Drop the reply to a commit and to a read, in turn."""
        self._to_one_reply(times, self.proxy.drop)

    def delay_replies(self, times, seconds):
        """Delay such replies for longer than the client waits."""
        self._to_one_reply(times, self.proxy.delay(seconds))

    def _to_one_reply(self, times, do):
        for number in range(times):
            self.go_on()
            cuts = self.proxy.cuts
            self.proxy.next_reply(do, of=(b"EVALSHA", b"XREAD")[number % 2])
            self.go_on()
            live.wait_until(lambda cuts=cuts: self.proxy.cuts > cuts)

    def slice_replies(self, times):
        """Pass single bytes on."""
        self.go_on()
        self.proxy.reply = self.proxy.slice
        for _ in range(times):
            self.go_on()

    def reset_at_random(self, times, seed):
        """Reset links in the middle of replies until it happened so many times."""
        self.go_on()
        self.proxy.reply = self.proxy.reset_at_random(seed, often=0.05)
        while self.proxy.cuts < times:
            self.go_on()
        self.proxy.reply = None

    def go_dark(self, times, seconds):
        """Swallow everything for some time."""
        for _ in range(times):
            self.go_on()
            self.proxy.go_dark()
            self.trial.feed.let(self.trial.feed.written + self.trial.feed.at_once)
            cpu = cpu_seconds(self.process.pid)
            time.sleep(seconds)  # the fault itself: a link that is down so long
            self.idle_cpu.append((cpu_seconds(self.process.pid) - cpu) / seconds)
            began, seq = time.monotonic(), self.trial.seq
            self.proxy.heal()
            self.trial.wait_for_commit(self.process, seq)
            self.reconnects.append(time.monotonic() - began)

    def finish(self):
        """Write the rest and return the verdict."""
        return self.trial.finish(lambda: self.process)


@contextlib.contextmanager
def through_a_proxy(trial, options="", target=None):
    """Run a trial's pipeline behind a proxy."""
    with Proxy(f"{trial.url}/0") as proxy:
        one = LinkTrial(trial, proxy, options, target)
        try:
            yield one
        finally:
            one.process.kill()
            one.process.join()


def cpu_seconds(pid):
    """Return the CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
