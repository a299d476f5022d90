"""CPU time of `import cep` and `cep --help`: median of 15 runs, user + system.

Run as ``python -m tests.benchmarks imports``. Goals: 0.25 s and 0.35 s.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUNS = 15


def cpu_seconds(command: list[str]) -> float:
    """Return the user and system seconds that one run of ``command`` took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(_: list[str]) -> int:
    for words in (["-c", "pass"], ["-c", "import cep"], ["-m", "cep", "--help"]):
        runs = [cpu_seconds([sys.executable, *words]) for _ in range(RUNS)]
        middle, worst = statistics.median(runs), max(runs)
        print(f"{middle:.3f} s (worst {worst:.3f}): python {' '.join(words)}")
    return 0
