"""Sums over very many events, against exact recomputation."""

import math
from fractions import Fraction

import numpy as np
import pytest

from cep.engine.operator import Operator
from cep.engine.running_windows import RunningWindows
from cep.events.columns import Column
from cep.rules import avg, build_rule, corr, e, emit, on, slope, std, sum, var, wavg
from tests import streams

PART = 500_000


def exact(x, y, ms):
    """Mean, deviation and the rest of a few values, without rounding before the end."""
    xs, ys, ts = ([Fraction(v) for v in z] for z in (x, y, ms.tolist()))
    n = len(xs)
    mx, my, mt = (Fraction(z) / n for z in map(_total, (xs, ys, ts)))

    def moment(a, b, ma, mb):
        return _total((p - ma) * (q - mb) for p, q in zip(a, b, strict=True)) / n

    var_x, var_y = moment(xs, xs, mx, mx), moment(ys, ys, my, my)
    return {
        "sum": math.fsum(x),
        "avg": math.fsum(x) / n,
        "var": float(var_x),
        "std": math.sqrt(var_x),
        "slope": float(1000 * moment(ts, xs, mt, mx) / moment(ts, ts, mt, mt)),
        "corr": float(moment(xs, ys, mx, my)) / math.sqrt(var_x) / math.sqrt(var_y),
        "wavg": float(_total(a * b for a, b in zip(xs, ys, strict=True)) / _total(ys)),
    }


def _total(values):
    total = Fraction(0)
    for value in values:
        total += value
    return total


@pytest.mark.parametrize("over", [{"length": "3ms"}, {"length": "40ms"}, {"events": 7}])
def test_sums_alone_are_the_same_to_the_last_bit(over):
    """A group that keeps more than sums takes rows in and lets them go one by one."""

    def told(more):
        made = {
            f"{name}_{field}": function(getattr(e, field))
            for field in ("x", "y")
            for name, function in {"sum": sum, "avg": avg, "std": std}.items()
        } | more
        values = {name: value.over(**over, by=["key"]) for name, value in made.items()}
        operator = Operator([build_rule("r", on("test.tick"), [emit(**values)])])
        (running,) = operator._windows
        assert bool(running.group.pairs) == bool(more)
        batches = streams.cut_batches(
            streams.ordered(operator, rows), streams.every(len(rows), 97)
        )
        found = [x for b in batches for x in operator.step(b, int(b.time[-1])).events]
        return [{k: x.data["values"][k] for k in made if k not in more} for x in found]

    rng = np.random.default_rng(5)
    xs, times = 64_000 + rng.normal(0, 0.5, 3000), np.cumsum(rng.integers(0, 2, 3000))
    xs[rng.random(3000) < 0.01] = 1e30
    rows = [
        {"t": int(t), "key": "abc"[i % 3], "x": float(x), "y": None if i % 5 else 1.5}
        for i, (t, x) in enumerate(zip(times, xs, strict=True))
    ]
    assert told({}) == told({"corr": corr(e.x, e.y)})


@pytest.mark.slow
@pytest.mark.parametrize("walk", [False, True], ids=["still", "walking"])
def test_ten_million_events_at_price_64000_keep_nine_digits(walk):
    """Now and then a price is absurd; it must leave no trace when it has left."""
    over = {"length": "100ms", "by": []}
    values = {
        "sum": sum(e.x).over(**over),
        "avg": avg(e.x).over(**over),
        "var": var(e.x).over(**over),
        "std": std(e.x).over(**over),
        "slope": slope(e.x).over(**over),
        "corr": corr(e.x, e.y).over(**over),
        "wavg": wavg(e.x, e.y).over(**over),
    }
    operator = Operator([build_rule("r", on("test.tick"), [emit(**values)])])
    (running,) = operator._windows
    assert isinstance(running, RunningWindows)
    rng = np.random.default_rng(0)
    one = streams.columns([{"t": 0, "x": 0.0, "y": 0.0}])
    level, time, worst = 64_000.0, 0, 0.0
    for part in range(20):
        x = 0.5 * rng.standard_normal(PART)
        if walk:
            x = np.cumsum(0.01 * rng.standard_normal(PART)) + x
        x += level
        y = rng.lognormal(0, 1, PART)
        if part % 4 == 1:
            x[PART // 3] = 10.0 ** rng.integers(6, 139)
            y[PART // 4] = 1e100
        times = time + np.cumsum(rng.integers(0, 2, PART))
        time = int(times[-1])
        columns = one.take(np.zeros(PART, np.int64))
        columns.time_ms = streams.T0 + times
        columns.fields["x"], columns.fields["y"] = (
            Column("float", x),
            Column("float", y),
        )
        batch = operator.ingest(columns, 0)
        operator.fill(batch)
        told = {
            name: batch.cols[column]
            for name, (_, _, column) in zip(
                values, running.group.aggregates, strict=True
            )
        }
        for i in (PART // 3 + 400, PART // 2, PART - 1):
            begin = np.searchsorted(times, times[i] - 100, side="right")
            window = slice(begin, i + 1)
            want = exact(x[window], y[window], times[window])
            for name, value in want.items():
                small = 1.0 if name in ("corr", "slope") else 0.0
                error = abs(told[name][i] - value) / max(abs(value), small)
                worst = max(worst, error)
                assert error < 1e-9, (part, i, name)
        if walk:
            level = x[-1] if x[-1] < 1e5 else level
    assert worst > 0.0
