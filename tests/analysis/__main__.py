"""Null and power trials of the analyses: ``python -m tests.analysis --pairs 200``."""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl

from cep.analysis import Series, lead_lag, q_values
from tests.analysis import trials


def main() -> None:
    """Run what is asked for and print its tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.analysis")
    parser.add_argument("--pairs", type=int, default=0, help="unrelated bursty pairs")
    parser.add_argument("--runs", type=int, default=0, help="runs of each lead")
    parser.add_argument("--hour", type=Path, help="folder of the two real streams")
    parser.add_argument("--shifts", type=int, default=0, help="turned real hours")
    parser.add_argument("--ticks", type=int, default=0, help="time the tick estimator")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    pl.Config.set_tbl_rows(200)
    sys.stdout.reconfigure(line_buffering=True)
    if asked.pairs:
        show_null("independent pairs", trials.null(asked.pairs, seed=asked.seed))
    if asked.hour:
        table, turned = trials.hour(asked.hour, asked.shifts)
        print(table.sort("p"))
        show_null("real hours turned against each other", turned)
    for lead_ns in trials.LEADS_NS if asked.runs else ():
        tally = trials.power(asked.runs, lead_ns, seed=asked.seed)
        print(f"\nlead of {lead_ns / 1e9:g} s, found with its sign and lag")
        for name, found in tally.said.items():
            print(f"  {name:22} {np.mean(found):7.1%} of {len(found)}")
    if asked.ticks:
        show_speed(asked.ticks)


def show_null(title: str, tally: trials.Tally) -> None:
    """Print how often each method reports a relation."""
    print(f"\n{title}: reported as related at p < 0.05, at q < 0.05; mean p")
    for name, p in tally.said.items():
        by_p, by_q = np.mean(np.array(p) < 0.05), np.mean(q_values(p) < 0.05)
        print(f"  {name:22} {by_p:6.1%} {by_q:6.1%} {np.mean(p):6.2f}  of {len(p)}")


def show_speed(ticks: int) -> None:
    """Print the time of 201 lags of two series of ``ticks`` each."""
    rng = np.random.default_rng(0)
    x, y = (
        Series(
            name,
            np.cumsum(rng.integers(1, 20, ticks)) * trials.MS,
            np.cumsum(rng.normal(0, 1e-4, ticks)),
        )
        for name in "xy"
    )
    lead_lag(x.between(0, x.time_ns[9999]), y, max_lag="1s", step="10ms")
    cpu, wall = time.process_time(), time.perf_counter()
    lead_lag(x, y, max_lag="1s", step="10ms")
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(f"\n{ticks:,} ticks each, 201 lags: {cpu:.1f} s CPU, {wall:.1f} s")


if __name__ == "__main__":
    main()
