"""Compiles the engine's kernels before they are needed.

Compiling takes some thirty seconds of CPU, once per machine. Whoever starts a
long run calls `warm_up` first, so that the wait has a name. The kernels of
windows and those of matching are about as much work each, so that two processes
can share it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from cep.engine.operator import Operator
    from cep.events.columns import EventColumns
    from cep.rules import Rule

END_OF_TIME = np.iinfo(np.int64).max


def is_warm() -> bool:
    """Whether the largest kernels are in numba's cache on disk.

    A hint for what to tell the user, not a promise: another version of numba
    or another processor compiles again.
    """
    from cep.engine.kernels import nfa, windows

    kernels: list[Any] = [nfa.feed, windows.feed]
    try:
        return all(bool(k._cache._cache_file._load_index()) for k in kernels)
    except (AttributeError, OSError):
        return False


def warm_up() -> None:
    """Compile every kernel."""
    warm_up_windows()
    warm_up_matching()


def warm_up_windows() -> None:
    """Compile what windows need, by two made-up trades."""
    from cep.engine.operator import Operator
    from cep.rules import build_rule, e, emit, max, on, prev

    high = max(e.price).where(e.price > 0).over("1s")
    trade = on("market.trade", name="trade")
    trade = trade.where((e.price > high) | (e.price < prev(e.price)))
    rule = build_rule("warm-up", trade, [emit()], key="symbol")
    _restart(_run(rule, windows_only=True))
    _order()
    window = on("market.trade").tumbling("1s")
    rule = build_rule("warm-up", window, [emit()], key="symbol")
    operator = Operator([rule])
    batch = operator.ingest(_trades(), 0)
    for _ in operator.closes.told(batch, operator.fill(batch), 0):
        pass
    Operator([rule]).restore(operator.snapshot())


def warm_up_matching() -> None:
    """Compile what patterns need, by two made-up trades."""
    from cep.rules import build_rule, e, emit, on, seq

    trade = on("market.trade", name="trade").where(e.price > 0)
    none = on("market.trade", name="none").where(e.price < 0)
    pattern = seq(trade).not_then(none).within("1s")
    _restart(_run(build_rule("warm-up", pattern, [emit()], key="symbol")))


def _run(rule: Rule, *, windows_only: bool = False) -> Operator:
    from cep.engine.operator import Operator

    operator = Operator([rule])
    batch = operator.ingest(_trades(), 0)
    if windows_only:
        operator.fill(batch)
    else:
        operator.step(batch, 0)
    return operator


def _restart(operator: Operator) -> None:
    """Compile what restoring needs, and what giving up a key needs."""
    from cep.engine.operator import Operator

    other = Operator(operator.plan.rules)
    other.restore(operator.snapshot())
    other.step(other.ingest(_trades().slice(0, 0), 0), END_OF_TIME)
    other.sweep(END_OF_TIME)


def _order() -> None:
    """Compile what finding duplicates needs."""
    from cep.engine.operator import Operator
    from cep.engine.ordering import InputStream, Ordering
    from cep.rules import build_rule, emit, on

    operator = Operator([build_rule("warm-up", on("market.trade"), [emit()])])
    ordering = Ordering([InputStream("market.events")], operator.plan.column_count)
    ordering.add(operator.ingest(_trades(), 0))


def _trades() -> EventColumns:
    from cep.events.columns import Column, EventColumns

    n = 2
    numbers = np.arange(n, dtype=np.int64)
    words = numbers.astype(np.uint64)
    return EventColumns(
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
