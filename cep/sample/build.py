"""Make the files of the bundled sample from the public captures.

Run as ``python -m cep.sample.build --data FOLDER``, where ``FOLDER`` holds the
captures as Parquet: ``market/crypto_trades_20240808``, ``market/
crypto_book_20240808``, ``ai/azure_llm_2023_conv``, ``social/
twitter_mentions_5m`` and ``social/twitter_mentions_labels``. Equal input gives
equal files.

How the requests were laid over the market. In their trace the number of
requests per second is close to a Poisson process around a mean that drifts, so
that real surges are few: over the trace's 58 minutes the last 5 s hold at most
1.78 times the mean of the last 2 minutes. That largest surge (37 requests in
5 s, expected 21) is in the excerpt, 180 s after the start; the excerpt ends at
the peak of another one (1.64 times) so that silence follows it. The end was
laid 40 s before the market's end: there is time for a rule to see 30 s of
silence, and the large surge is followed within 5 s by a fall of the BTCUSDT
perpetual of more than 3 standard deviations of its last 10 s. Both were
chosen, neither was found.
"""

from __future__ import annotations

import argparse
import json
from datetime import timedelta
from pathlib import Path

import polars as pl

from cep.sample import ALIGNMENT, PROVENANCE_KEY, Source, sample_path

# Row of the trace, counted from 0, that the excerpt ends with: the peak of a surge.
LAST_REQUEST = 17954
SILENCE = timedelta(seconds=40)

_TIME = pl.Datetime("ms", "UTC")
_BINANCE = "github.com/nkaz001/hftbacktest, commit 5f3ec40b, examples/"
_AZURE = (
    "github.com/Azure/AzurePublicDataset, commit b469a113, "
    "data/AzureLLMInferenceTrace_conv.csv"
)
_NAB = "github.com/numenta/NAB, commit ea702d75, "


def market(data: Path) -> tuple[pl.DataFrame, int]:
    """Return trades and quotes in the order of receipt, and how many quotes went."""
    venue = pl.concat_str(pl.lit("binance-"), pl.col("market").cast(pl.String))
    trades = pl.read_parquet(data / "market/crypto_trades_20240808.parquet").select(
        event_time=pl.col("ts").cast(_TIME),
        type=pl.lit("market.trade"),
        symbol=pl.col("symbol").cast(pl.String),
        price="price",
        quantity="qty",
        # The buyer was the maker: the seller took the initiative.
        side=pl.when("buyer_is_maker").then(pl.lit("sell")).otherwise(pl.lit("buy")),
        venue=venue,
        received="recv_ts",
    )
    moved = (pl.col("bid") != pl.col("bid").shift()) | (
        pl.col("ask") != pl.col("ask").shift()
    )
    book = pl.read_parquet(data / "market/crypto_book_20240808.parquet").filter(
        pl.col("market") == "usdm", pl.col("symbol").is_in(["BTCUSDT", "ETHUSDT"])
    )
    quotes = book.filter(moved.over("symbol").fill_null(value=True)).select(
        event_time=pl.col("exchange_ts").cast(_TIME),
        type=pl.lit("market.quote"),
        symbol=pl.col("symbol").cast(pl.String),
        venue=venue,
        bid="bid",
        ask="ask",
        bid_size="bid_qty",
        ask_size="ask_qty",
        received="ts",
    )
    both = pl.concat([trades, quotes], how="diagonal")
    both = both.sort("received", maintain_order=True).drop("received")
    return both, len(book) - len(quotes)


def requests(data: Path, market_times: pl.Series) -> tuple[pl.DataFrame, float]:
    """Return the excerpt on the market's clock, and its shift in seconds."""
    trace = pl.read_parquet(data / "ai/azure_llm_2023_conv.parquet").sort("seq")
    times = market_times.to_list()
    first, last = min(times), max(times)
    shift = last - SILENCE - trace["ts"][LAST_REQUEST]
    excerpt = (
        trace.filter(pl.col("seq") <= LAST_REQUEST, pl.col("ts") + shift >= first)
        .with_columns(event_time=(pl.col("ts") + shift).cast(_TIME))
        .select(
            event_time="event_time",
            type=pl.lit("ai.inference.requested"),
            request_id=pl.format("azure-conv-{}", pl.col("seq").cast(str).str.zfill(6)),
            service=pl.col("service").cast(pl.String),
            context_tokens=pl.col("context_tokens").cast(pl.Int64),
            generated_tokens=pl.col("generated_tokens").cast(pl.Int64),
        )
    )
    return excerpt, shift.total_seconds()


def write(name: str, frame: pl.DataFrame, sources: list[Source]) -> None:
    """Write one part with its provenance in the file's metadata."""
    kept = json.dumps([source._asdict() for source in sources])
    path = sample_path(name)
    path.parent.mkdir(exist_ok=True)
    frame.write_parquet(
        path,
        compression="zstd",
        compression_level=19,
        metadata={PROVENANCE_KEY: kept},
    )
    print(f"{name}: {len(frame):,} rows, {path.stat().st_size:,} bytes")


def build(data: Path) -> None:
    """Write every part of the sample."""
    events, sizes_only = market(data)
    counts = dict(events["type"].value_counts().iter_rows())
    write(
        "market.events",
        events,
        [
            Source(
                "market.events: market.trade",
                _BINANCE + "{spot,usdm,cm}/*_20240808.gz",
                "MIT",
                "nkaz001",
                f"All {counts['market.trade']:,} trades of BTC and ETH on Binance "
                "spot, USD-M (usdm) and coin-M (cm) perpetuals in a websocket capture "
                "of 8 August 2024, 23:54:15 to 00:00:01 UTC. Event time is the "
                "exchange's trade time, row order the order of receipt. quantity is "
                "in coins, on cm in contracts. side is the side of the taker.",
            ),
            Source(
                "market.events: market.quote",
                _BINANCE + "usdm/*_20240808.gz",
                "MIT",
                "nkaz001",
                f"{counts['market.quote']:,} updates of the best bid and ask of the "
                "perpetuals BTCUSDT and ETHUSDT, those in which one of the two prices "
                f"changed; the {sizes_only:,} that changed sizes alone are left out.",
            ),
        ],
    )
    excerpt, shift = requests(data, events["event_time"])
    numbers = excerpt["request_id"].str.slice(-6).cast(pl.Int64)
    write(
        "ai.events",
        excerpt,
        [
            Source(
                "ai.events: ai.inference.requested",
                _AZURE,
                "CC BY 4.0",
                "Patel et al., Splitwise: Efficient generative LLM inference using "
                "phase splitting, ISCA 2024",
                f"Rows {numbers[0]} to {numbers[-1]} of 19,366 (of 16 November 2023), "
                f"without a gap. {ALIGNMENT} The shift is the constant {shift:+.6f} s; "
                "the excerpt's inner timing is untouched, but for the cut of "
                "microseconds to milliseconds. request_id is the row's number. The "
                "excerpt and the shift were chosen so that a surge of requests is "
                "followed within 5 s by a price burst, and the last surge by silence.",
            )
        ],
    )
    mentions = pl.read_parquet(data / "social/twitter_mentions_5m.parquet")
    write(
        "social.mentions",
        mentions.select(
            event_time=pl.col("ts").cast(_TIME),
            symbol=pl.col("symbol").cast(pl.String),
            mentions=pl.col("mentions").cast(pl.Int64),
        ),
        [
            Source(
                "social.mentions",
                _NAB + "data/realTweets",
                "MIT",
                "Numenta",
                "Tweets that name AAPL, AMZN, FB, IBM or KO, per 5 minutes, "
                "26 February to 23 April 2015. The source states no time zone; UTC is "
                "assumed. Not shifted.",
            )
        ],
    )
    labels = pl.read_parquet(data / "social/twitter_mentions_labels.parquet")
    write(
        "social.labels",
        labels.select(
            "symbol",
            pl.col("window_start", "window_end", "label_ts").cast(_TIME),
        ).rename({"label_ts": "label_time"}),
        [
            Source(
                "social.labels",
                _NAB + "labels/combined_{windows,labels}.json",
                "MIT",
                "Numenta",
                "Anomalies in the mentions, labelled by hand.",
            )
        ],
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make the bundled sample.")
    parser.add_argument("--data", type=Path, required=True, help="folder of captures")
    build(parser.parse_args().data)
