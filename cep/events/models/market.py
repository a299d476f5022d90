"""Payloads on ``market.events``: collected data, trends, and market data proper."""

from __future__ import annotations

from typing import Literal, TypeAlias

from cep.events.payload import Integer, JsonObject, Name, Number, Payload, Text
from cep.events.registry import register

STREAM = "market.events"

DataSource: TypeAlias = Literal["reddit", "google_trends", "rss_feeds"]


@register("market.data.collection.started", stream=STREAM)
class MarketDataCollectionStarted(Payload):
    """A collection of market data began."""

    collection_id: Name
    data_source: DataSource
    keywords: list[Text]
    user_ids: list[Name]


@register("market.data.collected", stream=STREAM)
class MarketDataCollected(Payload):
    """A collection of market data ended with so many records."""

    collection_id: Name
    data_source: DataSource
    data_type: Literal["engagement", "trend", "competitor_activity"]
    records_collected: Integer
    collection_time_ms: Number
    data_quality_score: Number


@register("market.trend.detected", stream=STREAM)
class MarketTrendDetected(Payload):
    """A trend was found, and whom it affects."""

    trend_id: Name
    trend_type: Literal["rising", "declining", "stable"]
    keywords: list[Text]
    confidence_score: Number
    affected_users: list[Name]
    trend_data: JsonObject


@register("market.trade", stream=STREAM)
class MarketTrade(Payload):
    """One trade of a symbol."""

    symbol: Name
    price: Number
    quantity: Number
    side: Text | None = None
    venue: Text | None = None


@register("market.quote", stream=STREAM)
class MarketQuote(Payload):
    """The best bid and ask of a symbol, with their sizes."""

    symbol: Name
    bid: Number
    ask: Number
    bid_size: Number | None = None
    ask_size: Number | None = None
    venue: Text | None = None


@register("market.bar", stream=STREAM)
class MarketBar(Payload):
    """Prices and volume of a symbol over an interval of ``interval_ms``."""

    symbol: Name
    open: Number
    high: Number
    low: Number
    close: Number
    volume: Number
    interval_ms: Integer
    venue: Text | None = None
