"""The backtest's question at a small size: it is asked, nothing is timed."""

import polars as pl
import pytest

from tests.benchmarks.history_backtest import measured, rows_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("days")
    n = 500
    ts = pl.Series(range(0, 100 * n, 100)).cast(pl.Datetime("ms", "UTC"))
    base = {"ts": ts, "symbol": ["A", "B"] * (n // 2)}
    price = [100.0 + i % 7 for i in range(n)]
    pl.DataFrame(
        {**base, "price": price, "size": [1 + i % 5 for i in range(n)]}
    ).write_parquet(root / "some_trades_1.parquet")
    sides = {"side": ["bid", "bid", "ask", "ask"] * (n // 4), "exchange": ["x"] * n}
    pl.DataFrame({**base, **sides, "price": price}).write_parquet(
        root / "some_quotes_1.parquet"
    )
    pl.DataFrame({"ts": ts}).write_parquet(root / "other.parquet")
    return root


def test_rows_are_trades_and_quotes_in_order_of_time_later_copies_included(folder):
    data, real = rows_of(folder, 2500)
    # One quote of each symbol comes before its other side is known, twice.
    assert (len(data), real) == (2500, 500 + 498)
    assert data["event_time"].is_sorted()
    quotes = data.filter(pl.col("type") == "market.quote")
    assert quotes["bid"].null_count() == quotes["ask"].null_count() == 0


def test_a_folder_without_files_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no trades and no quotes"):
        rows_of(tmp_path)


def test_the_backtest_is_measured(folder):
    table, ratios = measured(folder, rows=1500, repeat=1)
    (row,) = table.values()
    assert row["trades"] > 700
    assert ratios["backtest_cpu_s"] > 0
