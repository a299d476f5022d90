"""Does the faults at full size and prints what came of them, one line each."""

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass

from cep.ops.crash_test import Verdict, crash_test
from tests.faults import work


@dataclass(frozen=True)
class Row:
    """One kind of fault: how often it was done, what it cost."""

    fault: str
    count: int
    verdict: Verdict
    note: str = ""


def options(words):
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description="Does to `cep run` what happens to servers, links and processes.",
        epilog="example: python -m tests.faults --kills 500",
    )
    parser.add_argument("--kills", type=int, default=0, help="how many SIGKILLs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    return parser.parse_args(words)


def kills(count, seed):
    """SIGKILL at random moments while events come in."""
    began = time.monotonic()

    def told(number):
        if sys.stderr.isatty() or number % 50 == 0:
            print(f"\r{number} kills", end="", file=sys.stderr, flush=True)

    entries = work.entries((count + 1) * 200, seed)
    result = crash_test(
        work.MODULE, entries, count, seed=seed, target=work.cep_run, told=told
    )
    print(file=sys.stderr)
    proved = sum(kill.proved for kill in result.kills)
    note = (
        f"{proved} proved by exit -9 and seq, {len(entries):,} entries, "
        f"{result.expected.outputs.total():,} outputs, "
        f"{result.expected.letters.total():,} dead letters, "
        f"{time.monotonic() - began:.0f} s"
    )
    yield Row("SIGKILL", count, result.verdict, note)


def main(words):
    """Do what is asked for; 1 if anything was lost, twice or made up."""
    asked = options(words)
    rows = []
    if asked.kills:
        rows += kills(asked.kills, asked.seed)
    if asked.json:
        print(json.dumps({"seed": asked.seed, "rows": [asdict(row) for row in rows]}))
    else:
        print(table(rows))
    return 0 if all(row.verdict.clean for row in rows) else 1


def table(rows):
    """Return rows as lines of text."""
    width = max((len(row.fault) for row in rows), default=0)
    lines = [f"{'fault':{width}}  count  lost  duplicated  phantom"]
    lines += [
        f"{row.fault:{width}}  {row.count:5}  {row.verdict.lost:4}"
        f"  {row.verdict.duplicated:10}  {row.verdict.phantom:7}  {row.note}".rstrip()
        for row in rows
    ]
    return "\n".join(lines)
