import numpy as np
import pandas as pd
import polars as pl
import pytest

from cep.analysis import traces
from cep.errors import UsageError

MS = 1_000_000


def frame(rows, names=("correlation_id", "type", "at_ms")):
    table = pl.DataFrame(rows, schema=list(names), orient="row")
    return table.with_columns(
        event_time=(pl.col("at_ms") * MS).cast(pl.Datetime("ns", "UTC"))
    )


REQUESTS = [
    ("a", "asked", 0),
    ("a", "started", 40),
    ("a", "answered", 100),
    ("b", "asked", 10),
    ("b", "started", 30),
    ("b", "started", 35),
    ("b", "answered", 400),
    (None, "asked", 5),
    ("", "asked", 5),
    ("c", "asked", None),
]


def test_hops_go_from_each_event_to_the_next_of_its_trace():
    shuffled = frame(REQUESTS).sample(fraction=1, shuffle=True, seed=3)
    got = traces(shuffled)
    hops = {
        (a, b): (n, p50.total_seconds() * 1000)
        for a, b, n, p50 in got.hops.select(
            "parent_step", "step", "count", "p50"
        ).iter_rows()
    }
    assert hops == {
        ("asked", "started"): (2, 30),
        ("started", "answered"): (2, 212.5),
        ("started", "started"): (1, 5),
    }
    assert got.untraced == 3
    assert got.requests["took"].dt.total_milliseconds().to_list() == [100, 390]
    assert got.requests["events"].to_list() == [3, 4]
    assert "2 traces of 7 events, 3 kinds of hops" in str(got)


def test_children_follow_their_parents_and_not_the_event_before():
    rows = [
        ("a", "gateway", 0, "1", None),
        ("a", "orders", 5, "2", "1"),
        ("a", "prices", 7, "3", "1"),
        ("a", "stock", 9, "4", "2"),
        ("a", "stock", 9, "4", "2"),
        ("a", "lost", 11, "5", "gone"),
        ("b", "orders", 6, "1", "2"),
    ]
    got = traces(
        frame(rows, ("correlation_id", "type", "at_ms", "id", "cause")),
        span="id",
        parent="cause",
    )
    hops = {
        (a, b): d
        for a, b, d in got.hops.select("parent_step", "step", "longest").iter_rows()
    }
    assert {k: d.total_seconds() * 1000 for k, d in hops.items()} == {
        ("gateway", "orders"): 5,
        ("gateway", "prices"): 7,
        ("orders", "stock"): 4,
    }
    # A span id of one trace is none of another's.
    assert (got.repeated, got.orphans) == (1, 2)


@pytest.mark.parametrize("seed", range(3))
def test_latencies_are_those_of_pandas(seed):
    rng = np.random.default_rng(seed)
    table = frame(
        [
            (f"t{rng.integers(0, 30)}", rng.choice(["a", "b", "c"]), int(t))
            for t in rng.choice(10_000, 300, replace=False)
        ]
    )
    own = table.to_pandas().sort_values(["correlation_id", "at_ms"])
    grouped = own.groupby("correlation_id")
    own["before"] = grouped["type"].shift()
    own["latency"] = grouped["at_ms"].diff()
    expected = (
        own.dropna().groupby(["before", "type"])["latency"].quantile([0.5, 0.95, 0.99])
    )
    for row in traces(table).hops.iter_rows(named=True):
        for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
            wanted = expected[row["parent_step"], row["step"], q]
            assert row[name] / pd.Timedelta("1ms") == pytest.approx(wanted, abs=1e-3)


def test_traces_draw_and_become_a_file(tmp_path):
    got = traces(frame(REQUESTS))
    figure = got.plot()
    assert list(figure.data[0].x) == [30, 212.5, 5]
    assert "started → answered" in figure.data[0].y
    one = got.timeline("b")
    assert list(one.data[1].x) == [0, 20, 25, 390]
    rows = got.to_csv(tmp_path / "hops.csv").read_text().splitlines()
    assert rows[0] == "parent_step,step,count,traces,p50,p95,p99,longest"
    assert rows[1].startswith("asked,started,2,2,0.03,")


def test_what_cannot_be_traced_is_refused():
    rows = frame(REQUESTS)
    with pytest.raises(UsageError, match="Name both columns, or none"):
        traces(rows, span="type")
    with pytest.raises(UsageError, match="no column 'trace_id'"):
        traces(rows, trace="trace_id")
    with pytest.raises(UsageError, match=r"no trace 'zz' \(str\)"):
        traces(rows).timeline("zz")


def test_nothing_at_all_is_no_error():
    got = traces(frame(REQUESTS[-3:]))
    assert "0 traces of 0 events" in str(got)
    assert got.to_polars().is_empty()
    assert got.plot().data
