"""A worked example: finding bursts of tweets, against labels made by hand.

`history` are tweets that name one of five companies, counted every five minutes over
two months; `labels` the 15 windows in which people saw something unusual; `surge` makes
a rule that looks for it.

>>> import cep
>>> from cep.sample import mentions
>>> bt = cep.backtest(mentions.surge(), mentions.history(), mentions.labels())
>>> print(bt.scores["mentions-surge"])  # doctest: +ELLIPSIS
mentions-surge: ...

The rule's defaults were chosen with all labels in view. What choosing is worth on data
that come later is what `cep.backtesting.sweep` and its ``walk_forward`` say.

Source: A. Lavin, S. Ahmad, "Evaluating Real-time Anomaly Detection Algorithms: the
Numenta Anomaly Benchmark", ICMLA 2015; see `cep.sample.provenance`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cep.clock import duration_ns
from cep.events.payload import Integer, Name, Payload
from cep.events.registry import register
from cep.rules import avg, e, emit, first, on, rule, std
from cep.sample import frame

if TYPE_CHECKING:
    import polars as pl

    from cep.rules import Rule

STREAM: Final = "social.events"
TYPE: Final = "social.mentions.counted"


@register(TYPE, stream=STREAM)
class MentionsCounted(Payload):
    """So many tweets named a company within five minutes."""

    symbol: Name
    mentions: Integer


def history() -> pl.DataFrame:
    """Return the counts as events, as `cep.backtest` takes them."""
    import polars as pl

    counts = frame("social.mentions").with_columns(type=pl.lit(TYPE))
    return counts.select("event_time", "type", "symbol", "mentions")


def labels() -> pl.DataFrame:
    """Return the windows as `cep.backtest` takes them, ``key`` being the symbol."""
    return frame("social.labels").select(
        key="symbol", start="window_start", end="window_end", event_time="label_time"
    )


def surge(
    sigmas: float = 6, window: str = "7d", now: str = "30m", cooldown: str = "1d"
) -> Rule:
    """Return a rule for counts far above their own recent past.

    Parameters
    ----------
    sigmas
        By how many standard deviations of the window the counts exceed its mean.
    window
        How far the past reaches; a company is silent until so much of it was seen.
    now
        Over how long the counts are averaged that are held against it.
    cooldown
        How long a company is silent after an alert.
    """
    mean, deviation = avg(e.mentions).over(window), std(e.mentions).over(window)
    present = avg(e.mentions).over(now)
    past_ms = e.event_time - first(e.event_time).over(window)
    seen = past_ms > 0.9 * duration_ns(window) / 1e6

    @rule("mentions-surge", key="symbol", severity="warning", cooldown=cooldown)
    def mentions_surge() -> Any:
        """Far more tweets than the company usually has."""
        return on(TYPE).where(seen & (present > mean + sigmas * deviation)), emit(
            title="{symbol}: {present:.0f} tweets in five minutes, usually {usual:.0f}",
            symbol=e.symbol,
            present=present,
            usual=mean,
        )

    return mentions_surge
