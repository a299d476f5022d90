"""Whether cost stays where it is: with window length, number of keys, of rules."""

from __future__ import annotations

import builtins
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cep import avg, count, e, emit, m, max, min, on, rule, seq, std
from cep.engine.operator import Operator
from cep.events.columns import Column, EventColumns
from tests.benchmarks.measure import best, child, resident
from tests.benchmarks.streams import STREAM, T0, TYPES, make_stream
from tests.benchmarks.workload_costs import BATCH
from tests.benchmarks.workloads import finish, step

if TYPE_CHECKING:
    from cep.rules import Rule

LENGTHS = ("1s", "10s", "1m", "10m", "1h")
KEYS = (1, 100, 10_000, 100_000, 1_000_000)
RULES = (1, 2, 5, 10, 20, 50)
BYTES_PER_KEY = 1024


def _cost(rules: list[Rule], columns: EventColumns, repeat: int) -> float:
    """Return the cost per event in us."""
    begins = range(0, len(columns), BATCH)
    batches = [columns.slice(a, a + BATCH) for a in begins]

    def run(operator: Operator) -> list[object]:
        return [*(step(operator, b) for b in batches), finish(operator, columns)]

    return best(run, repeat, lambda: Operator(rules)) / len(columns) * 1e6


def window_lengths(ticks: int, repeat: int) -> dict[str, float]:
    """Return the cost per event in us of five aggregates, by length of their window.

    The stream lasts two hours and has ten symbols.
    """
    stream = make_stream(ticks, 0, symbols=10)
    stretched = T0 + (stream.time_ms - T0) * (7_200_000 // ticks)
    columns = replace(stream, time_ms=stretched).columns()
    return {
        length: _cost([_five_aggregates(length)], columns, repeat) for length in LENGTHS
    }


def _five_aggregates(length: str) -> Rule:
    @rule("five", key="sym")
    def five():
        price = e.price
        middle, spread = avg(price).over(length), std(price).over(length)
        high = (price >= max(price).over(length)) & (count().over(length) > 3)
        low = (price <= min(price).over(length)) & (price < middle - 9 * spread)
        return on("bench.tick").where(high & low), emit()

    return five


def numbers_of_rules(ticks: int, repeat: int) -> dict[str, dict[int, float]]:
    """Return the cost per event in us, by number of rules.

    ``shared`` rules look at the same windows with a threshold of their own, ``own``
    ones each at windows of their own length.
    """
    columns = make_stream(ticks, 0).columns()
    return {
        "shared": {
            n: _cost([_outlier(i, 60) for i in range(n)], columns, repeat)
            for n in RULES
        },
        "own": {
            n: _cost([_outlier(i, 60 + i) for i in range(n)], columns, repeat)
            for n in RULES
        },
    }


def _outlier(number: int, seconds: int) -> Rule:
    @rule(f"outlier-{number}", key="sym")
    def outlier():
        length = f"{seconds}s"
        mean, spread = avg(e.price).over(length), std(e.price).over(length)
        far = abs(e.price - mean) > (3 + number / 10) * spread
        return on("bench.tick").where((count().over(length) >= 100) & far), emit()

    return outlier


def numbers_of_keys(events: int, most: int) -> dict[int, dict[str, float]]:
    """Return costs and memory by number of keys, each in a process of its own."""
    code = "import sys; from tests.benchmarks.flatness import keys; keys(sys.argv)"
    return {n: child(code, str(n), str(events))[1] for n in KEYS if n <= most}


def keys(words: list[str]) -> None:
    """Print what one number of keys costs, for a rule with a window and a pattern.

    First each key once, in any order, which begins a partial match of it; then
    events of keys at random, which complete none.
    """
    n, events = int(words[1]), int(words[2])
    rng = np.random.default_rng(1)
    codes = np.concatenate([rng.permutation(n), rng.integers(0, n, events)])
    price = 100 + rng.normal(size=n + events)
    columns = ticks_of(codes, [f"S{i}" for i in range(n)], price)
    columns.fields["qty"] = Column("float", np.repeat([9.0, 1.0], [n, events]))

    @rule("keys", key="sym")
    def found():
        begin = on("bench.tick", name="begin").where(e.qty > 5)
        mean = avg(e.price).over("60s")
        jump = on("bench.tick", name="jump").where(
            (e.price > 2 * mean) & (e.price > m.begin.price)
        )
        return seq(begin).then(jump).within("2h"), emit()

    warm = Operator([found])
    warm.step(warm.ingest(columns.slice(0, 1), 0), 0)
    before, operator = resident(), Operator([found])

    def run(begin: int, end: int) -> tuple[float, float]:
        cuts = range(begin, end, BATCH)
        parts = [columns.slice(a, builtins.min(a + BATCH, end)) for a in cuts]
        take_in = best(lambda _: [operator.ingest(x, 0) for x in parts], 1)
        seconds = best(lambda _: [step(operator, x) for x in parts], 1)
        return seconds / (end - begin) * 1e6, take_in / (end - begin) * 1e6

    first, _ = run(0, n)
    later, take_in = run(n, n + events)
    assert operator.counts()["keys"].live_partials == n
    row = {
        "first_us": first,
        "us": later,
        "ingest_us": take_in,
        "rss_per_key": (resident() - before) / n,
    }
    if n <= 100_000:
        fields = operator.snapshot()
        size = sum(len(name) + len(blob) for name, blob in fields.items())
        row["state_per_key"] = size / n
    print(json.dumps(row))


def ticks_of(codes, symbols: list[str], price) -> EventColumns:
    """Return ticks a millisecond apart."""
    n = len(codes)
    numbers = np.arange(n, dtype=np.int64)
    words = numbers.astype(np.uint64)
    payload = {
        "sym": Column("str", codes.astype(np.int32), None, symbols),
        "price": Column("float", np.asarray(price, np.float64)),
        "qty": Column("float", np.ones(n)),
        "seq": Column("int", numbers),
    }
    none = np.zeros(n, np.int64)
    return EventColumns(
        STREAM,
        numbers,
        none,
        T0 + numbers,
        none.astype(np.uint64),
        words,
        none.astype(np.int32),
        TYPES,
        payload,
    )
