"""How the benchmarks measure: CPU seconds, the least of several runs.

CPU time of the process rather than time on the clock, and the least rather than the
mean: what else runs on the machine adds to a run and never takes away.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import resource
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROOT = Path(__file__).parents[2]


def best(
    run: Callable[[Any], object], repeat: int, prepare: Callable[[], Any] = lambda: None
) -> float:
    """Return the least CPU seconds of ``run(prepare())``; preparing is not counted."""
    least = float("inf")
    for _ in range(repeat):
        given = prepare()
        gc.collect()
        gc.disable()
        begin = time.process_time()
        kept = run(given)
        least = min(least, time.process_time() - begin)
        gc.enable()
        del kept
    return least


def child(
    code: str, *words: str, environment: Mapping[str, str] | None = None
) -> tuple[float, Any]:
    """Run Python code in a process of its own.

    Returns its CPU seconds, user and system, and what it printed, read as JSON.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        check=True,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, json.loads(done.stdout or b"null")


def resident() -> int:
    """Return the bytes of memory that this process holds."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # not Linux: the most it ever held
        scale = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    return pages * resource.getpagesize()


def machine() -> dict[str, Any]:
    """Return what the numbers depend on: processor, cores, versions."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    libraries = ("numba", "numpy", "polars")
    return {
        "cpu": names[0] if names else model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in libraries},
    }
