"""What compiling costs, once per machine, and what a start costs after that."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from tests.benchmarks.measure import child

COMPILE_GOAL_S = 20.0
START_GOAL_S = 1.0

# Compiles everything, then runs all rules: which must find all compiled.
COMPILE = """
import json, os, time
from pathlib import Path
from cep.engine.warmup import warm_up
from tests.benchmarks.streams import make_stream
from tests.benchmarks.workloads import feed, rules

def compiled():
    return len(list(Path(os.environ["NUMBA_CACHE_DIR"]).rglob("*.nbc")))

warm_up()
seconds, kernels = time.process_time(), compiled()
from cep.engine.operator import Operator
columns = make_stream(2000, 200).columns()
for rule in rules().values():
    feed(Operator([rule]), columns, range(0, len(columns), 500))
print(json.dumps([seconds, kernels, compiled() - kernels]))
"""

# The first rule of the README, over a hundred trades.
START = """
import numpy as np
from cep import avg, count, e, emit, on, rule
from cep.engine.operator import Operator
from cep.events.columns import Column, EventColumns

@rule("price-spike", key="symbol")
def price_spike():
    mean = avg(e.price).over("60s")
    spike = (count().over("60s") >= 8) & (e.price > 1.02 * mean)
    return on("market.trade").where(spike), emit(price=e.price, mean=mean)

n = np.arange(100)
words = n.astype(np.uint64)
fields = {
    "price": Column("float", np.where(n == 50, 110.0, 100.0)),
    "symbol": Column("str", np.zeros(100, np.int32), None, ["X"]),
}
events = EventColumns("market.events", n, n, n, words, words,
                      np.zeros(100, np.int32), ["market.trade"], fields)
operator = Operator([price_spike])
assert len(operator.step(operator.ingest(events, 0), 10**9).events) == 1
print(1)
"""


def startup(repeat: int) -> dict[str, Any]:
    """Return CPU seconds: compiling in an empty cache, and starting with a full one."""
    with tempfile.TemporaryDirectory() as folder:
        # Bytecode is cached too, also where the environment says not to: whoever
        # installed the packages has done that for every start.
        cache = {
            "NUMBA_CACHE_DIR": f"{folder}/kernels",
            "PYTHONPYCACHEPREFIX": f"{folder}/bytecode",
            "PYTHONDONTWRITEBYTECODE": "",
        }
        _, (seconds, kernels, missed) = child(COMPILE, environment=cache)
        starts = [child(START, environment=cache)[0] for _ in range(repeat + 1)]
    return {
        "compile_s": seconds,
        "compile_goal_s": COMPILE_GOAL_S,
        "kernels": kernels,
        "compiled_later": missed,
        "start_s": min(starts[1:]),
        "start_goal_s": START_GOAL_S,
        "load": os.getloadavg()[0],
    }
