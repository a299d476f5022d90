"""A pipeline under load for minutes, killed now and then, its memory watched."""

import random
import time
from pathlib import Path

import numpy as np

from cep.ops.crash_test import Trial
from tests.faults import work


def rss_mb(pid):
    """Return the memory that a process holds, in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def soak(url, folder, seconds, rate, kill_every, seed=0):
    """Feed a pipeline at ``rate`` events a second, and kill it now and then.

    Returns the verdict, the kills, and (seconds since its start, MB) of each
    process, looked at all along.
    """
    n, dice = int(seconds * rate), random.Random(seed)
    log = Path(folder) / "pipeline.log"
    entries = work.entries(n, seed)
    kills, memory = 0, []
    with Trial(
        url, work.MODULE, entries, log, target=work.cep_run, at_once=1000
    ) as trial:
        began, process = time.monotonic(), trial.begin()
        started = began
        due = began + kill_every * dice.uniform(0.7, 1.3)
        memory.append([])
        while trial.feed.written < n:
            now = time.monotonic()
            trial.feed.let(int((now - began) * rate))
            if now > due and trial.seq:
                process.kill()
                process.join()
                kills += process.exitcode == -9
                process, started = trial.begin(), time.monotonic()
                memory.append([])
                due = now + kill_every * dice.uniform(0.7, 1.3)
            memory[-1].append((now - started, rss_mb(process.pid)))
            time.sleep(0.05)  # between two looks
        return trial.finish(lambda: process), kills, memory


def slope_mb_per_minute(looks, warm_up=3.0):
    """Return by how much memory grows, after a process has warmed up.

    >>> slope_mb_per_minute([(t, 100 + t / 60) for t in range(60)])
    1.0
    """
    times, sizes = np.array([one for one in looks if one[0] >= warm_up]).T
    return round(float(np.polyfit(times, sizes, 1)[0]) * 60, 3)
