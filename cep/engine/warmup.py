"""Compiles the engine's kernels before they are needed.

Compiling takes some twenty seconds of CPU, once per machine. Whoever starts a
long run calls `warm_up` first, so that the wait has a name.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def is_warm() -> bool:
    """Whether the largest kernel is in numba's cache on disk.

    A hint for what to tell the user, not a promise: another version of numba
    or another processor compiles again.
    """
    from cep.engine.kernels import nfa

    compiled: Any = nfa.feed
    try:
        return bool(compiled._cache._cache_file._load_index())
    except (AttributeError, OSError):
        return False


def warm_up() -> None:
    """Compile every kernel by running one rule over two made-up trades."""
    from cep.engine.operator import Operator
    from cep.events.columns import Column, EventColumns
    from cep.rules import build_rule, e, emit, max, on, prev, seq

    trade = on("market.trade", name="trade").where(e.price > 0)
    high = max(e.price).where(e.price > 0).over("1s")
    none = on("market.trade", name="none")
    none = none.where((e.price < 0) | (e.price > high) | (e.price < prev(e.price)))
    rule = build_rule(
        "warm-up",
        seq(trade).not_then(none).within("1s"),
        [emit()],
        key="symbol",
    )
    n = 2
    numbers = np.arange(n, dtype=np.int64)
    words = numbers.astype(np.uint64)
    columns = EventColumns(
        "market.events",
        numbers,
        numbers,
        numbers,
        words,
        words,
        np.zeros(n, np.int32),
        ["market.trade"],
        {
            "price": Column("float", np.ones(n)),
            "symbol": Column("str", np.zeros(n, np.int32), None, ["X"]),
        },
    )
    operator = Operator([rule])
    operator.step(operator.ingest(columns, 0), 0)
    # Compiles what restoring needs, and what giving up a key needs.
    other = Operator([rule])
    other.restore(operator.snapshot())
    other.step(other.ingest(columns.slice(0, 0), 0), np.iinfo(np.int64).max)
    other.sweep(np.iinfo(np.int64).max)
