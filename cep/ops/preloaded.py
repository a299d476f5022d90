"""Importing this loads all that a pipeline needs and has run it once.

For the process from which others are forked: they begin at once, and spend
their short lives on what they are for.
"""

from __future__ import annotations

from typing import Any

import cep.pipeline.runtime  # noqa: F401
from cep.bus import decode_entries
from cep.bus import warmup as reader
from cep.engine import warmup as engine
from cep.engine.operator import Operator
from cep.engine.ordering import Ordering
from cep.events.codec import encode
from cep.events.envelope import Event
from cep.events.timestamps import from_ms
from cep.pipeline.definition import stream
from cep.pipeline.entries import output_fields
from cep.rules import avg, build_rule, count, e, emit, last, m, on, seq

STREAM = "market.events"


def rehearse() -> int:
    """Run some rules over made-up trades, from entries to entries; count these.

    >>> rehearse()
    38
    """
    trade = on("market.trade", name="trade").where(e.price > avg(e.price).over("1s"))
    up: Any = on("market.trade", name="up")
    up = up.where((count(m.up) == 0) | (e.price > last(m.up).price))
    ups = seq(up.at_least(2).greedy())
    fall = on("market.trade", name="fall").where(e.price <= last(m.up).price)
    free = on("market.trade", name="free").where(e.price < 0)
    rules = [
        build_rule("high", trade, [emit(price=e.price)], key="symbol"),
        build_rule("run", ups.next(fall), [emit(n=count(m.up))]),
        build_rule("none", seq(trade).not_then(free).within("1s"), [emit()]),
    ]
    operator = Operator(rules)
    ordering = Ordering([stream(STREAM, idle=None)], operator.plan.column_count)
    entries = []
    for n in range(20):
        data = {"symbol": "X", "price": float(n % 7), "quantity": 1.0}
        made = Event.new("market.trade", data, timestamp=from_ms(100 * n))
        entries.append((f"{100 * n}-0", encode(made)))
    page = decode_entries(STREAM, entries)
    ordering.add(operator.ingest(page.columns, 0))
    ordering.end()
    found = operator.step(*ordering.release(1000)).events
    other = Operator(rules)
    other.restore(operator.snapshot())
    operator.delta()
    return len([output_fields(one) for one in found])


reader.warm_up()
engine.warm_up()
rehearse()
