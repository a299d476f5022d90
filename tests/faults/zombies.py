"""Two processes that both believe that a pipeline is theirs."""

import os
import signal
import time


def duel(trial, rounds, seconds):
    """Let a stopped process be followed by another one, and wake it up again.

    Each round stops the process that runs the pipeline, starts the next one with
    ``--takeover``, and wakes the first. Returns the losers' exit codes, and the
    last winner, which is still running.
    """
    current = trial.begin()
    codes = []
    try:
        for _ in range(rounds):
            seq = trial.seq
            trial.feed.let(trial.feed.written + 5 * trial.feed.at_once)
            trial.wait_for_commit(current, seq)
            os.kill(current.pid, signal.SIGSTOP)
            zombie, seq = current, trial.seq
            current = trial.begin(None, "--takeover")
            trial.feed.let(trial.feed.written + 5 * trial.feed.at_once)
            trial.wait_for_commit(current, seq)
            time.sleep(seconds)  # the fault itself: stopped for so long
            os.kill(zombie.pid, signal.SIGCONT)
            trial.feed.let(trial.feed.written + 5 * trial.feed.at_once)
            zombie.join(60)
            codes.append(zombie.exitcode)
            zombie.kill()
    except BaseException:
        current.kill()
        raise
    return codes, current
