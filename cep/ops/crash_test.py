"""Kill a pipeline again and again; what came of it must not show that.

The same entries, ids included, go through a pipeline twice: undisturbed, in one
database of a server, and in another one killed by SIGKILL at random moments
while they are still being written. Then the two are compared as multisets: the
ids of derived events and the dead letters (late, quarantined, refused).

=============  ===============================================================
lost           in the undisturbed run, and missing in the other
duplicated     more often than in the undisturbed run
phantom        not in the undisturbed run at all
=============  ===============================================================

A kill counts only if it can be proved: the process ended by signal 9, after at
least one commit of its own, which shows in the commit number.

Streams are run without ``idle``: entries are copied with the ids that they
have, and a tick of today would make all of them late.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cep.bus.connection import connect_redis
from cep.bus.keys import dlq_key, meta_key
from cep.errors import CepError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from multiprocessing.process import BaseProcess
    from typing import Self

    import redis as redis_py

    from cep.pipeline import Pipeline

# stream, entry id, fields
Entry = tuple[str, str, "Mapping[bytes, bytes]"]

PAUSE_SECONDS = 0.001  # between two writes of a feed
WRITES_PER_KILL = 50
WRITTEN_AT_ONCE = 1000  # when there is no hurry
# How long a process lives, its start apart: so many commits, or so long, and then
# some more.
MOST_COMMITS = 4
LONGEST_LIFE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 0.03
PATIENCE_SECONDS = 120.0
PR_SET_PDEATHSIG = 1


class CrashTestError(CepError, RuntimeError):
    """The pipeline did something else than to run until it was killed."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem, remedy)
        self.problem, self.remedy = problem, remedy

    def __str__(self) -> str:
        return f"{self.problem} {self.remedy}".strip()


# What came of it ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Came:
    """What a pipeline has put out, its dead letters, and what it counted.

    An output is (stream, event id, payload), a dead letter (kind, reason,
    stream, entry id, detail).
    """

    outputs: Counter[tuple[str, ...]]
    letters: Counter[tuple[str, ...]]
    counts: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a run differs from the undisturbed one, in outputs and dead letters."""

    lost: int = 0
    duplicated: int = 0
    phantom: int = 0
    accounted: bool = True

    @property
    def clean(self) -> bool:
        """Whether it does not differ."""
        return self == Verdict()

    def __str__(self) -> str:
        text = f"{self.lost} lost, {self.duplicated} duplicated, {self.phantom} phantom"
        return text if self.accounted else f"{text}, counts differ"


def came_of(client: redis_py.Redis, name: str, outputs: Iterable[str]) -> Came:
    """Return what the streams ``outputs`` and the dead letters of a pipeline hold."""
    found: Any
    events: Counter[tuple[str, ...]] = Counter()
    for stream in outputs:
        found = client.xrange(stream)
        for _, fields in found:
            events[stream, *_texts(fields, b"id", b"data")] += 1
    found = client.xrange(dlq_key(name))
    letters = Counter(
        _texts(fields, b"kind", b"reason", b"stream", b"entry_id", b"detail")
        for _, fields in found
    )
    found = client.hget(meta_key(name), "counts")
    return Came(events, letters, json.loads(found or "{}"))


def _texts(fields: Mapping[bytes, bytes], *names: bytes) -> tuple[str, ...]:
    return tuple(fields.get(one, b"").decode("utf-8", "replace") for one in names)


def compare(found: Came, expected: Came) -> Verdict:
    """Return how ``found`` differs from ``expected``, as multisets.

    >>> once = Came(Counter({("s", "a"): 1, ("s", "b"): 1}), Counter())
    >>> other = Came(Counter({("s", "a"): 3, ("s", "c"): 1}), Counter())
    >>> str(compare(other, once))
    '1 lost, 2 duplicated, 1 phantom'
    """
    here, there = found.outputs + found.letters, expected.outputs + expected.letters
    more = here - there
    phantom = sum(n for what, n in more.items() if what not in there)
    return Verdict(
        (there - here).total(),
        more.total() - phantom,
        phantom,
        found.counts == expected.counts,
    )


def commits(client: redis_py.Redis, name: str) -> int:
    """Return the number of a pipeline's last commit; 0 before the first."""
    found: Any = client.hget(meta_key(name), "seq")
    return int(found or 0)


# Input ----------------------------------------------------------------------


def write(client: redis_py.Redis, entries: Sequence[Entry]) -> None:
    """Write entries with the ids that they have."""
    with client.pipeline(transaction=False) as pipe:
        for stream, entry_id, fields in entries:
            pipe.xadd(stream, cast("Any", fields), entry_id)
        pipe.execute()


class Feed:
    """Writes entries little by little in a thread, no further than it is let.

    Parameters
    ----------
    client
        For this feed alone.
    entries
        In the order in which to write them.
    at_once
        How many a write holds.
    """

    def __init__(
        self, client: redis_py.Redis, entries: Sequence[Entry], at_once: int
    ) -> None:
        self.client, self.entries, self.at_once = client, entries, max(1, at_once)
        self.written = self._limit = 0
        self._failure: BaseException | None = None
        self._stopped = False
        self._more = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def let(self, number: int) -> None:
        """Let it write up to entry ``number``, counted from 1."""
        with self._more:
            self._limit = min(len(self.entries), number)
            self._more.notify()

    def hold(self) -> None:
        """Let it write no more for now."""
        with self._more:
            self._limit = self.written

    def finish(self) -> None:
        """Return once everything is written; raises what kept it from that."""
        self.let(len(self.entries))
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """End without writing the rest."""
        with self._more:
            self._stopped = True
            self._more.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            while self.written < len(self.entries):
                with self._more:
                    self._more.wait_for(
                        lambda: self._stopped or self.written < self._limit
                    )
                    if self._stopped:
                        return
                    end = min(self._limit, self.written + self.at_once)
                write(self.client, self.entries[self.written : end])
                self.written = end
                time.sleep(PAUSE_SECONDS)
        except BaseException as error:  # handed to whoever waits for the end
            self._failure = error


# Processes ------------------------------------------------------------------


def start(log: Path, target: Callable[..., Any], *arguments: Any) -> BaseProcess:
    """Call ``target`` in a process forked from one that is imported and compiled.

    Its exit code is what ``target`` returns; what it prints goes to ``log``.
    It does not outlive us.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cep.ops.preloaded", target.__module__])
    process = context.Process(
        target=_be, args=(str(log), target, arguments), daemon=True
    )
    process.start()
    return process


def _be(log: str, target: Callable[..., Any], arguments: Sequence[Any]) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.close(out)
    sys.exit(target(*arguments))


def run_module(path: str, url: str) -> int:
    """Run the pipeline of a file until its input is declared to have ended."""
    from cep.pipeline import Runner

    Runner(_timeless(path), url, note=print).run()
    return 0


def _timeless(path: str) -> Pipeline:
    """Return the pipeline of a file, its time moved by events alone."""
    from cep.pipeline import Pipeline, load_pipeline

    found = load_pipeline(path)
    streams = [replace(stream, idle_ns=None) for stream in found.streams]
    return Pipeline(found.name, found.rules, streams)


# A trial --------------------------------------------------------------------


class Trial:
    """One input for one pipeline: undisturbed at first, then however you like.

    The undisturbed run is made in database 1 of the server, the other one is to
    be in database 0.

    Parameters
    ----------
    url
        An empty server, without a database.
    module
        The Python file with rules.
    entries
        The whole input, in the order of arrival.
    log
        Where the processes' output goes.
    target
        What runs ``(module, url)``, in a process; returns an exit code.
    at_once
        How many entries are written at once while the pipeline runs.
    """

    def __init__(
        self,
        url: str,
        module: str,
        entries: Sequence[Entry],
        log: Path,
        *,
        target: Callable[[str, str], Any] = run_module,
        at_once: int = 10,
    ) -> None:
        self.url, self.module, self.log, self.target = url, module, log, target
        pipeline = _timeless(module)
        self.name, self.outputs = pipeline.name, output_streams(pipeline)
        self.client = connect_redis(f"{url}/0")
        self._feeder = connect_redis(f"{url}/0")
        self.expected = self.undisturbed(entries)
        self.feed = Feed(self._feeder, entries, at_once)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.feed.stop()
        self.client.close()
        self._feeder.close()

    def undisturbed(self, entries: Sequence[Entry]) -> Came:
        """Return what comes of some entries, in database 1, when nothing happens."""
        url = f"{self.url}/1"
        with connect_redis(url) as client:
            client.flushdb()
            for at in range(0, len(entries), WRITTEN_AT_ONCE):
                write(client, entries[at : at + WRITTEN_AT_ONCE])
            self._given = came_of(client, self.name, self.outputs)
            self._drain(client, lambda: self.begin(url, target=run_module))
            return self._without_given(came_of(client, self.name, self.outputs))

    def _without_given(self, came: Came) -> Came:
        """Leave out what the input itself holds of an output stream."""
        return replace(came, outputs=came.outputs - self._given.outputs)

    @property
    def seq(self) -> int:
        """Number of the last commit."""
        return commits(self.client, self.name)

    def begin(
        self,
        url: str | None = None,
        *more: Any,
        target: Callable[..., Any] | None = None,
    ) -> BaseProcess:
        """Start the pipeline, on database 0 unless another URL is given."""
        url = url or f"{self.url}/0"
        return start(self.log, target or self.target, self.module, url, *more)

    def wait_for_commit(self, process: BaseProcess, after: int) -> None:
        """Return once there is a commit after number ``after``."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.seq <= after:
            if process.exitcode is not None:
                raise self.error(f"The pipeline ended, code {process.exitcode}.")
            if time.monotonic() > deadline:
                raise self.error(f"No commit for {PATIENCE_SECONDS:g} s.")
            time.sleep(PAUSE_SECONDS)

    def kill(self, number: int, dice: random.Random) -> Kill:
        """Start the pipeline and kill it at random, after its first commit.

        Entries are written meanwhile, up to entry ``number``, so that it is
        killed at work: there must be some left to write.
        """
        before = self.seq
        process = self.begin()
        try:
            self.feed.let(self.feed.written + self.feed.at_once)
            self.wait_for_commit(process, before)
            self.feed.let(number)
            # Any moment of what comes next: read, match, commit, wait.
            until = time.monotonic() + LONGEST_LIFE_SECONDS
            goal = before + dice.randint(1, MOST_COMMITS)
            while self.seq < goal and time.monotonic() < until:
                time.sleep(PAUSE_SECONDS)
            time.sleep(dice.uniform(0, LONGEST_PAUSE_SECONDS))
        finally:
            process.kill()
            process.join()
            self.feed.hold()
        return Kill(process.exitcode, before, self.seq)

    def finish(self, begin: Callable[[], BaseProcess] | None = None) -> Verdict:
        """Write the rest, run the pipeline to the end and compare."""
        self.feed.finish()
        self._drain(self.client, begin or self.begin)
        return self.verdict()

    def verdict(self) -> Verdict:
        """Compare what has come so far."""
        found = came_of(self.client, self.name, self.outputs)
        return compare(self._without_given(found), self.expected)

    def _drain(self, client: redis_py.Redis, begin: Callable[[], BaseProcess]) -> None:
        from cep.pipeline.store import Store

        Store(client, self.name).tick("end")
        process = begin()
        process.join()
        if process.exitcode:
            raise self.error(f"The pipeline ended, code {process.exitcode}.")

    def error(self, problem: str) -> CrashTestError:
        """Return an error with the last words of the pipeline."""
        said = self.log.read_text().split() if self.log.exists() else []
        return CrashTestError(problem, f"It said: {' '.join(said)[-2000:]}")


@dataclass(frozen=True, slots=True)
class Kill:
    """A proof: how the process ended, the commits before it and after it."""

    exit_code: int | None
    seq_before: int
    seq_after: int

    @property
    def proved(self) -> bool:
        """Whether it was a kill, after at least one commit of that process."""
        return self.exit_code == -signal.SIGKILL and self.seq_after > self.seq_before


@dataclass(frozen=True, slots=True)
class Result:
    """What a crash test found; ``expected`` is what the undisturbed run put out."""

    kills: list[Kill]
    verdict: Verdict
    entries: int
    expected: Came

    @property
    def passed(self) -> bool:
        """Whether nothing was lost, duplicated or made up, by kills that were."""
        return self.verdict.clean and all(kill.proved for kill in self.kills)


def crash_test(
    module: str,
    entries: Sequence[Entry],
    kills: int,
    *,
    seed: int = 0,
    target: Callable[[str, str], Any] = run_module,
    told: Callable[[int], None] = lambda _: None,
) -> Result:
    """Run a pipeline's file under kills on a server of its own.

    Parameters
    ----------
    module
        The Python file with rules.
    entries
        Its whole input, in the order of arrival, more than kills.
    kills
        How many; 0 shows that two undisturbed runs do not differ.
    target
        What runs ``(module, url)``.
    told
        Called with the number of kills so far.

    Raises
    ------
    CrashTestError
        If the pipeline ends by itself, or does nothing; with its last words.
    """
    from cep.bus.embedded import EmbeddedServer

    if len(entries) <= kills:
        raise CrashTestError(
            f"{len(entries)} entries are too few for {kills} kills.",
            "Kill less often, or publish more events to the pipeline's streams.",
        )
    dice, done = random.Random(seed), []
    at_once = len(entries) // (WRITES_PER_KILL * (kills + 1)) + 1
    with (
        tempfile.TemporaryDirectory(prefix="cep-crash-test-") as folder,
        EmbeddedServer(appendonly=False) as server,
        Trial(
            server.url.rpartition("/")[0],
            module,
            entries,
            Path(folder, "pipeline.log"),
            target=target,
            at_once=at_once,
        ) as trial,
    ):
        for number in range(1, kills + 1):
            done.append(trial.kill(number * len(entries) // (kills + 1), dice))
            told(number)
        return Result(done, trial.finish(), len(entries), trial.expected)


def output_streams(pipeline: Pipeline) -> list[str]:
    """Return the streams that a pipeline's rules write to, sorted."""
    from cep.engine.derive import DEFAULT_STREAM

    return sorted(
        {
            one.stream or DEFAULT_STREAM
            for rule in pipeline.rules
            for one in (*rule.emissions, *rule.timeouts)
        }
    )
