"""Run a benchmark by name: ``python -m tests.benchmarks engine --quick``."""

from __future__ import annotations

import os
import sys
from importlib import import_module

BENCHMARKS = {
    "engine": "rules over columns in memory, beside loops by hand and polars",
    "live": "a server's streams to columns and outputs, beside the server's own speed",
    "history": "streams to frames, beside dictionaries of redis-py",
    "imports": "CPU time of `import cep` and `cep --help`",
}


def main() -> int:
    """Run the named benchmark with the rest of the command line."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in BENCHMARKS:
        print("usage: python -m tests.benchmarks NAME [--help | options]\n")
        for known, what in BENCHMARKS.items():
            print(f"  {known:8}  {what}")
        return 0 if name in ("-h", "--help") else 2
    # Peers are measured on one core, as we are; polars reads this when imported.
    os.environ["POLARS_MAX_THREADS"] = "1"
    result: int = import_module(f"tests.benchmarks.{name}").main(sys.argv[2:])
    return result


if __name__ == "__main__":
    sys.exit(main())
