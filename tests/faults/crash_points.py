"""Places at which a process dies, put there from outside.

A `Point` names a method; the process kills itself before it is called, after it
has returned, or when it has sent something and not read the reply. Nothing of
this is in the code that is tested.
"""

import functools
import os
import random
import signal
import time
from dataclasses import dataclass

from redis.connection import AbstractConnection

from cep.bus.reader import ColumnarReader
from cep.engine.operator import Operator
from cep.engine.running_rule import RunningRule
from cep.pipeline import intake, limits
from cep.pipeline.intake import Intake
from cep.pipeline.owner import Ownership
from cep.pipeline.store import Store
from tests.faults import work


@dataclass(frozen=True)
class Point:
    """Where to die: ``moment`` is before, after or sent; ``up_to`` how late.

    ``begun`` says that the pipeline should have run before, ``idle`` that it
    gets there when all was read.
    """

    owner: object
    method: str
    moment: str
    up_to: int = 1
    begun: bool = True
    idle: bool = False


POINTS = {
    "in the takeover, before its reply": Point(Ownership, "take", "sent", 3),
    "after the takeover": Point(Ownership, "take", "after"),
    "in restoring": Point(Operator, "restore", "before"),
    "after restoring": Point(Operator, "restore", "after"),
    "reading again what was buffered": Point(Intake, "_put_back", "before", 2),
    "between restore and first read": Point(Intake, "read_again", "after"),
    "before a read": Point(ColumnarReader, "read", "before", 3),
    "after a read": Point(ColumnarReader, "read", "after", 3),
    "building a dead letter": Point(intake, "dead_letter", "after", 3),
    "in a rule": Point(RunningRule, "take_matches", "after", 9),
    "in the first commit": Point(Store, "commit", "sent", begun=False),
    "before a commit is sent": Point(Store, "commit", "before", 3),
    "before the reply to a commit": Point(Store, "commit", "sent", 3),
    "after the reply to a commit": Point(Store, "commit", "after", 3),
    "writing a tick": Point(Store, "tick", "sent", idle=True),
}


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point, nth):
    """Let this process die when it comes to ``point`` for the ``nth`` time."""
    method = getattr(point.owner, point.method)
    left = nth
    inside = False

    def passed():
        nonlocal left
        left -= 1
        if not left:
            die()

    @functools.wraps(method)
    def deadly(*given, **named):
        nonlocal inside
        if point.moment == "before":
            passed()
        inside = True
        result = method(*given, **named)
        inside = False
        if point.moment == "after":
            passed()
        return result

    def send(self, *given, **named):
        sending(self, *given, **named)
        if inside and point.moment == "sent":
            passed()

    sending = AbstractConnection.send_packed_command
    AbstractConnection.send_packed_command = send
    setattr(point.owner, point.method, deadly)


def run_to(module, url, name, nth):
    """``cep run``, until it dies at the point of that name."""
    limits.TICK_SECONDS = 0.01
    arm(POINTS[name], nth)
    return work.cep_run(module, url)


def run_to_in_two(module, url, name, nth):
    """The same with a planted bug: outputs are not in the commit."""
    work.commit_in_two()
    return run_to(module, url, name, nth)


def crash(trial, name, times, seed, target=run_to):
    """Let a trial's pipeline die at a point so many times; return exit codes."""
    point, dice = POINTS[name], random.Random(seed)
    if point.idle:
        trial.feed.let(len(trial.feed.entries))
    elif point.begun:
        trial.kill(len(trial.feed.entries) // 4, dice)
    codes = []
    for _ in range(times):
        nth = dice.randint(1, point.up_to)
        process = trial.begin(None, name, nth, target=target)
        deadline = time.monotonic() + 60
        while process.exitcode is None and time.monotonic() < deadline:
            if not point.idle:
                trial.feed.let(trial.feed.written + trial.feed.at_once)
            _wait_for_commit(trial, process, 0.5)
        process.kill()
        codes.append(process.exitcode)
    return codes


def _wait_for_commit(trial, process, seconds):
    seq, until = trial.seq, time.monotonic() + seconds
    while trial.seq == seq and process.exitcode is None and time.monotonic() < until:
        process.join(0.005)
