from collections import Counter

import numpy as np
import polars as pl
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from cep.analysis import (
    EventTimes,
    co_occurrence,
    event_coincidence,
    follows,
    frequent_sequences,
)
from cep.errors import UsageError
from tests.analysis.planted import SECOND, bursty, followed


def frame_of(streams):
    return pl.concat(
        pl.DataFrame({"event_time": s.time_ns, "type": s.name}) for s in streams
    ).with_columns(pl.col("event_time").cast(pl.Datetime("ns", "UTC")))


@pytest.fixture(scope="module")
def four_types():
    rng = np.random.default_rng(1)
    a, b, c = (bursty(rng, 900, name) for name in ("alert", "buy", "chat"))
    d = followed(rng, a, SECOND // 2, 0.25, noise=bursty(rng, 900), name="dip")
    rare = EventTimes("rare", np.arange(5) * SECOND)
    return [a, b, c, d, rare]


def test_what_follows_is_found_among_all_pairs_and_nothing_else(four_types):
    got = follows(frame_of(four_types), within="1s", draws=499)
    table = got.to_polars()
    assert len(table) == 12
    related = table.filter(pl.col("q_value") < 0.05)
    assert related.select("first", "second").rows() == [("alert", "dip")]
    assert related["lift"].item() > 1.1
    assert got.left_out == ("rare",)
    assert "1 of 12 pairs" in str(got)
    assert "too few events: rare" in str(got)
    expected = multipletests(table["p_value"], method="fdr_bh")[1]
    np.testing.assert_allclose(table["q_value"], expected)


def test_each_row_is_the_trigger_rate_of_the_two_types(four_types):
    a, b = four_types[:2]
    table = follows(frame_of([a, b]), within="1s", draws=99).to_polars()
    row = table.filter(pl.col("first") == "alert").row(0, named=True)
    rate = event_coincidence(a, b, window="1s", draws=99).trigger
    assert (row["count"], row["of"]) == (rate.count, rate.of)
    assert (row["lift"], row["p_value"]) == (rate.lift, rate.p_value)


def baskets(seed, n=300):
    rng = np.random.default_rng(seed)
    rows = []
    for group in range(n):
        has = {"a": rng.random() < 0.5, "c": rng.random() < 0.3}
        has["b"] = rng.random() < (0.7 if has["a"] else 0.3)
        rows += [(f"g{group}", name) for name, yes in has.items() if yes]
        rows.append((f"g{group}", "opened"))
    rows += [(None, "a"), ("", "b")]
    return pl.DataFrame(rows, schema=["correlation_id", "type"], orient="row")


def test_types_in_one_group_have_the_lift_and_p_value_of_a_table_by_hand():
    frame = baskets(0)
    got = co_occurrence(frame).to_polars()
    groups = frame.drop_nulls().filter(pl.col("correlation_id") != "")
    n = groups["correlation_id"].n_unique()
    held = {
        name: set(groups.filter(pl.col("type") == name)["correlation_id"])
        for name in ("a", "b", "c", "opened")
    }
    everyone = set(groups["correlation_id"])
    for row in got.iter_rows(named=True):
        x, y = held[row["first"]], held[row["second"]]
        table = [[len(x & y), len(x - y)], [len(y - x), len(everyone - x - y)]]
        assert row["count"] == table[0][0]
        assert row["lift"] == pytest.approx(
            (len(x & y) / n) / (len(x) / n * len(y) / n)
        )
        assert row["p_value"] == pytest.approx(stats.fisher_exact(table).pvalue)
    assert got.row(0)[:2] == ("a", "b")
    assert got["q_value"][0] < 0.001 < 0.05 < got["q_value"][1]


def visits(seed, n=200):
    """Groups that go a, b, c in that order half of the time, else in any."""
    rng = np.random.default_rng(seed)
    rows = []
    for group in range(n):
        steps = list(rng.permutation(["a", "b", "c", "d"]))
        if rng.random() < 0.5:
            steps = ["a", "b", "c", "d"][: rng.integers(3, 5)]
        rows += [(f"g{group:03}", step, k) for k, step in enumerate(steps)]
    frame = pl.DataFrame(rows, schema=["correlation_id", "type", "at"], orient="row")
    return frame.with_columns(event_time=pl.col("at").cast(pl.Datetime("ms", "UTC")))


def test_sequences_are_counted_as_by_hand():
    frame = visits(0)
    got = frequent_sequences(frame, length=3, min_support=0.1, draws=99)
    counts, support = Counter(), Counter()
    for _, part in frame.group_by("correlation_id"):
        steps = part.sort("at")["type"].to_list()
        found = [
            tuple(steps[i : i + n]) for n in (2, 3) for i in range(len(steps) - n + 1)
        ]
        counts.update(found)
        support.update(set(found))
    expected = {k: (counts[k], v) for k, v in support.items() if v >= 20}
    table = got.to_polars()
    assert {
        tuple(row["sequence"].split(" > ")): (row["count"], row["groups"])
        for row in table.iter_rows(named=True)
    } == expected
    assert table["sequence"][0] == "a > b"
    first = table.row(0, named=True)
    assert first["p_value"] == 0.01
    # Of four types in random order, a stands right before b in a quarter.
    assert first["expected"] == pytest.approx(200 * 0.27, rel=0.1)


def test_orders_at_random_show_no_sequence():
    rng = np.random.default_rng(0)
    rows = [
        (f"g{g}", str(step), k)
        for g in range(300)
        for k, step in enumerate(rng.choice(list("abcd"), 6, p=[0.6, 0.2, 0.1, 0.1]))
    ]
    frame = pl.DataFrame(rows, schema=["correlation_id", "type", "at"], orient="row")
    frame = frame.with_columns(event_time=pl.col("at").cast(pl.Datetime("ms", "UTC")))
    got = frequent_sequences(frame, length=3, min_support=0.02)
    assert len(got.table) > 10
    assert got.table["q_value"].min() > 0.05


def test_tables_draw_and_become_files(tmp_path, four_types):
    for got in (
        follows(frame_of(four_types), within="1s", draws=19),
        co_occurrence(baskets(0)),
        frequent_sequences(visits(0), draws=19),
    ):
        assert got.plot().data
        lines = got.to_csv(tmp_path / "t.csv").read_text().splitlines()
        assert len(lines) == len(got.to_polars()) + 1
        assert "<pre>" in got._repr_html_()


def test_what_cannot_be_mined_is_refused():
    with pytest.raises(UsageError, match="1 types are there 20 times or more"):
        follows(frame_of([EventTimes("a", np.arange(50) * SECOND)]))
    with pytest.raises(UsageError, match="no column 'session'"):
        co_occurrence(baskets(0), by="session")
    with pytest.raises(UsageError, match="A length of 1 is none"):
        frequent_sequences(visits(0), length=1)
    with pytest.raises(UsageError, match="No row has a correlation_id"):
        frequent_sequences(visits(0).with_columns(correlation_id=pl.lit(None)))
