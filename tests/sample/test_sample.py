import math
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from cep import sample
from cep.errors import UsageError
from cep.events import check_payload, registry

ROOT = Path(__file__).parents[2]
PARTS = ["market.events", "ai.events", "social.mentions", "social.labels"]


def surges(ratio):
    """Times of requests at which 5 s held ``ratio`` times the last 2 minutes' mean."""
    counts = (
        sample.frame("ai.events")
        .select("event_time", one=pl.lit(1))
        .with_columns(
            short=pl.col("one").rolling_sum_by("event_time", "5s"),
            long=pl.col("one").rolling_sum_by("event_time", "2m"),
        )
    )
    warm = counts["event_time"][0] + timedelta(minutes=2)
    return counts.filter(
        pl.col("event_time") > warm, pl.col("short") / 5 > ratio * pl.col("long") / 120
    )["event_time"]


def bursts(symbol, venue, sigmas):
    """Times of trades ``sigmas`` from the mean of their own last 10 s."""
    return (
        sample.frame("market.events")
        .filter(
            pl.col("type") == "market.trade",
            pl.col("symbol") == symbol,
            pl.col("venue") == venue,
        )
        .sort("event_time", maintain_order=True)
        .with_columns(
            mean=pl.col("price").rolling_mean_by("event_time", "10s"),
            std=pl.col("price").rolling_std_by("event_time", "10s"),
            trades=pl.col("price").is_not_null().rolling_sum_by("event_time", "10s"),
        )
        .filter(
            pl.col("trades") >= 20,
            (pl.col("price") - pl.col("mean")).abs() > sigmas * pl.col("std"),
        )["event_time"]
    )


def test_all_parts_are_under_4_mb():
    sizes = [sample.sample_path(name).stat().st_size for name in PARTS]
    assert sum(sizes) < 4_000_000


def test_every_trade_of_the_capture_is_there():
    rows = sample.frame("market.events").group_by("type").len()
    assert dict(rows.iter_rows()) == {"market.trade": 55_270, "market.quote": 4_408}


@pytest.mark.parametrize("stream", sample.streams())
def test_every_row_is_a_valid_payload_of_its_type(stream):
    rows = sample.frame(stream)
    for (event_type,), part in rows.group_by("type"):
        known = registry.get(event_type)
        assert known.stream == stream
        names = [field.name for field in known.fields]
        extra = [name for name in part.columns[2:] if name not in names]
        assert all(part[name].null_count() == len(part) for name in extra)
        kept = part.select(name for name in names if name in part.columns)
        wrong = {
            str(problem)
            for payload in kept.iter_rows(named=True)
            for problem in check_payload(known.fields, payload, closed_choices=True)
        }
        assert wrong == set()
        floats = part.select(pl.selectors.float()).drop_nulls()
        assert all(math.isfinite(value) for value in floats.sum().row(0))


def test_market_keeps_the_disorder_of_receipt_below_a_quarter_second():
    times = sample.frame("market.events")["event_time"]
    behind = (times.cum_max() - times).dt.total_milliseconds()
    assert (behind > 0).sum() > 2_000
    assert behind.max() < 250


def test_requests_are_one_contiguous_excerpt():
    requests = sample.frame("ai.events")
    numbers = requests["request_id"].str.strip_prefix("azure-conv-").cast(pl.Int64)
    assert (numbers.diff().drop_nulls() == 1).all()
    assert requests["event_time"].is_sorted()


def test_requests_lie_within_the_market_and_end_40_s_before_it():
    market = sample.frame("market.events")["event_time"]
    requests = sample.frame("ai.events")["event_time"]
    assert market.min() <= requests[0]
    assert market.max() - requests[-1] == timedelta(seconds=40)


def test_the_last_request_is_in_a_surge():
    assert surges(1.6)[-1] == sample.frame("ai.events")["event_time"][-1]


def test_a_surge_is_followed_within_5_s_by_a_price_burst_and_few_are():
    pairs = [
        (surge, burst)
        for surge in surges(1.5)
        for burst in bursts("BTCUSDT", "binance-usdm", 3)
        if timedelta(0) < burst - surge <= timedelta(seconds=5)
    ]
    assert 1 <= len({surge for surge, _ in pairs}) < 50


def test_provenance_names_licence_and_attribution_that_notice_has_too():
    notice = (ROOT / "NOTICE").read_text()
    sources = sample.provenance()
    assert {source.name.partition(":")[0] for source in sources} == set(PARTS)
    for source in sources:
        assert source.licence in {"MIT", "CC BY 4.0"}
        assert source.attribution.split()[0] in notice
        repository, commit = source.source.split(", ")[:2]
        assert repository in notice
        assert commit in notice


def test_provenance_says_that_the_clocks_were_laid_together():
    [requests] = [s for s in sample.provenance() if s.name.startswith("ai.events")]
    assert sample.ALIGNMENT in requests.note
    assert "constant +22999870.828306 s" in requests.note


def test_an_unknown_part_is_told_the_near_one():
    with pytest.raises(UsageError, match=r"no 'market.event'\. Did you mean 'market"):
        sample.sample_path("market.event")


def test_an_unknown_pipeline_is_a_usage_error():
    with pytest.raises(UsageError, match="No pipeline 'markt_ai'"):
        sample.pipeline_path("markt_ai")
