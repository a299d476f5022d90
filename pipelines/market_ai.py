"""Market and AI load together: the rules of the demo.

Seven rules over trades and quotes (`market.events`) and requests to an inference
service (`ai.events`). Run them live with ``cep run pipelines/market_ai.py``, over
history with ``cep.run_rules``; the derived events are the same.

In the bundled sample the two streams have no causal relation: the requests are
from another year, shifted onto the market's clock.
"""

from cep import avg, count, e, emit, first, last, m, on, rule, seq, std, sum
from cep.pipeline import Pipeline, stream


def busy_price(sigmas: float, trades: int):
    """A trade beyond ``sigmas`` deviations of its market's own last 10 seconds."""
    market = ["symbol", "venue"]
    mean = avg(e.price).over("10s", by=market)
    deviation = std(e.price).over("10s", by=market)
    enough = count().over("10s", by=market) >= trades
    distance = abs(e.price - mean)
    # The relative floor passes over quiet markets that only tick one step.
    return enough & (distance > sigmas * deviation) & (distance > 5e-5 * mean)


def busy_service(times: float):
    """Requests of the last 5 s far above the rate of the last 2 minutes.

    Not before two minutes (less a little) were seen: until then the rate over
    two minutes would be too low, and everything a surge.
    """
    now = count().over("5s", by=[]) / 5
    usual = count().over("2m", by=[]) / 120
    seen = e.event_time - first(e.event_time).over("2m", by=[])
    return (seen > 115_000) & (now > times * usual)


@rule("volatility-burst", key=["symbol", "venue"], severity="warning", cooldown="30s")
def volatility_burst():
    """A price jumps beyond 4 sigma of its own last 10 seconds."""
    mean = avg(e.price).over("10s")
    deviation = std(e.price).over("10s")
    jump = on("market.trade", name="jump").where(busy_price(4, 30))
    return jump, emit(
        title="{symbol} on {venue} at {price:,.2f}, {sigmas:+.1f} sigma",
        symbol=e.symbol,
        venue=e.venue,
        price=e.price,
        mean=mean,
        sigmas=(e.price - mean) / deviation,
    )


@rule("perpetual-leads-spot", key="symbol", severity="info", cooldown="10s")
def perpetual_leads_spot():
    """The futures price moves, and within a second the spot price follows it up."""
    perpetual = avg(e.price).where(e.venue == "binance-usdm").over("5s")
    spot = avg(e.price).where(e.venue == "binance-spot").over("5s")
    lead = on("market.trade", name="lead").where(
        (e.venue == "binance-usdm") & (e.price > 1.0003 * perpetual)
    )
    follow = on("market.trade", name="follow").where(
        (e.venue == "binance-spot") & (e.price > 1.0003 * spot)
    )
    return seq(lead).then(follow).within("1s"), emit(
        "market.trend.detected",
        title="{key}: spot followed the perpetual up within {lag_ms:,.0f} ms",
        trend_type="rising",
        confidence_score=0.5,  # required by the type; the rule has no score
        perpetual_price=m.lead.price,
        spot_price=e.price,
        lag_ms=e.event_time - m.lead.event_time,
    )


@rule(
    "rising-run",
    key=["symbol", "venue"],
    severity="info",
    cooldown="20s",
    after_match="past_last_event",
)
def rising_run():
    """Eight or more rising trades in a row, 0.02 % in all, then the first fall."""
    up = (
        on("market.trade", name="up")
        .where((count(m.up) == 0) | (e.price > last(m.up).price))
        .at_least(8)
        .consecutive()
        .greedy()
    )
    fall = on("market.trade", name="fall").where(e.price <= last(m.up).price)
    gain = last(m.up).price / first(m.up).price - 1
    return seq(up).next(fall).within("60s").where(gain >= 2e-4), emit(
        title="{trades} rising trades in {key}, {gain:.3%} in all",
        gain=gain,
        trades=count(m.up),
        from_price=first(m.up).price,
        to_price=last(m.up).price,
    )


@rule("volume-after-jump", key=["symbol", "venue"], severity="info", cooldown="30s")
def volume_after_jump():
    """After a price jump, a trade ten times as large within two seconds."""
    typical = avg(e.quantity).over("60s")
    jump = on("market.trade", name="jump").where(busy_price(3, 30))
    large = on("market.trade", name="large").where(
        (e.quantity > 10 * m.jump.quantity) & (e.quantity > 10 * typical)
    )
    return seq(jump).then(large).within("2s"), emit(
        title="{key}: {quantity:,.3f} traded after a jump to {jump_price:,.2f}",
        jump_price=m.jump.price,
        quantity=e.quantity,
        typical_quantity=typical,
    )


@rule("ai-load-surge", severity="warning", cooldown="30s")
def ai_load_surge():
    """Requests a second far above their own last two minutes."""
    surge = on("ai.inference.requested", name="surge").where(busy_service(1.5))
    return surge, emit(
        title="{per_second:.1f} requests/s, usually {usual:.1f}",
        per_second=count().over("5s") / 5,
        usual=count().over("2m") / 120,
        tokens_per_second=sum(e.context_tokens).over("5s") / 5,
    )


@rule("ai-surge-then-burst", severity="critical", cooldown="60s")
def ai_surge_then_burst():
    """An AI load surge, and within 5 s a price burst on some market."""
    surge = on("ai.inference.requested", name="surge").where(busy_service(1.5))
    burst = on("market.trade", name="burst").where(busy_price(4, 30))
    return seq(surge).then(burst).within("5s"), emit(
        title="AI load surge, then {symbol} on {venue} jumped {after_ms:,.0f} ms later",
        symbol=e.symbol,
        venue=e.venue,
        price=e.price,
        after_ms=e.event_time - m.surge.event_time,
    )


@rule("ai-silence", severity="critical", cooldown="60s")
def ai_silence():
    """No AI request at all for 30 s after a surge."""
    surge = on("ai.inference.requested", name="surge").where(busy_service(1.5))
    request = on("ai.inference.requested", name="request")
    return seq(surge).not_then(request).within("30s"), emit(
        title="no AI request for 30 s after a surge",
        last_request=m.surge.request_id,
    )


pipeline = Pipeline(
    "market-ai",
    [
        volatility_burst,
        perpetual_leads_spot,
        rising_run,
        volume_after_jump,
        ai_load_surge,
        ai_surge_then_burst,
        ai_silence,
    ],
    streams=[
        stream("market.events", max_out_of_orderness="250ms", idle="30s"),
        stream("ai.events", max_out_of_orderness="250ms", idle="30s"),
    ],
)
