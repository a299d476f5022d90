"""The rules of pipelines/market_ai.py, tested as one would test one's own."""

import pytest

from cep.testing import advance, events, given
from pipelines.market_ai import (
    ai_load_surge,
    ai_silence,
    ai_surge_then_burst,
    perpetual_leads_spot,
    pipeline,
    rising_run,
    volatility_burst,
    volume_after_jump,
)


def trades(price, every="100ms", **fields):
    fields = {"symbol": "BTC", "venue": "binance-spot"} | fields
    return events("market.trade", price=price, every=every, **fields)


def requests(n, every):
    ids = [f"r{i}" for i in range(n)]
    return events("ai.inference.requested", request_id=ids, every=every)


CALM = trades([100.0, 100.1] * 20)
SURGE = [requests(125, "1s"), requests(10, "100ms")]


def test_volatility_burst_fires_on_a_jump_beyond_four_sigma():
    outcome = given(CALM, trades([101.0])).when(volatility_burst)
    outcome.expect(1)
    outcome.expect(1, at="4s", key="BTC/binance-spot", price=101.0)


@pytest.mark.parametrize(
    ("before", "jump", "because"),
    [
        (trades([100.0, 100.1] * 14), trades([101.0]), "only 29 trades were seen"),
        (CALM, trades([101.0], venue="other"), "the other venue has no past"),
        (CALM, trades([100.2]), "it is only 3 sigma off"),
        (trades([100.0] * 40), trades([100.004]), "a tick is no burst"),
        ([CALM, advance("11s")], trades([101.0]), "the past has left the window"),
    ],
)
def test_volatility_burst_is_silent(before, jump, because):
    given(before, jump).when(volatility_burst).expect_none(because=because)


def test_volatility_burst_fires_again_only_after_its_cooldown():
    jumps = [CALM, trades([101.0]), CALM, trades([103.0])]
    given(jumps).when(volatility_burst).expect(1)
    given(jumps, advance("25s"), CALM, trades([101.0])).when(volatility_burst).expect(2)


def perpetual(price, **fields):
    return trades(price, venue="binance-usdm", **fields)


LEVEL = [trades([100.0] * 5), perpetual([100.0] * 5)]


def test_perpetual_leads_spot_within_a_second():
    outcome = given(LEVEL, perpetual([100.1]), trades([100.1], every="400ms"))
    outcome.when(perpetual_leads_spot).expect(
        1,
        type="market.trend.detected",
        trend_type="rising",
        lag_ms=400,
        spot_price=100.1,
    )


def test_perpetual_does_not_lead_a_spot_that_is_late_first_or_still():
    for follow, because in (
        (trades([100.1], every="1s"), "one second is too late"),
        (trades([100.0], every="400ms"), "the spot did not move"),
        (trades([100.1], every="400ms", symbol="ETH"), "that is another market"),
    ):
        found = given(LEVEL, perpetual([100.1]), follow).when(perpetual_leads_spot)
        found.expect_none(because=because)
    first = given(LEVEL, trades([100.1]), perpetual([100.1])).when(perpetual_leads_spot)
    first.expect_none(because="the spot came first")


def test_rising_run_needs_eight_rises_and_a_fall():
    rises = [100 + i / 100 for i in range(9)]
    given(trades([*rises, 100.0])).when(rising_run).expect(
        1, trades=9, from_price=100.0, to_price=100.08
    )
    given(trades([*rises[:7], 100.0])).when(rising_run).expect_none(
        because="seven rises"
    )
    given(trades(rises)).when(rising_run).expect_none(because="it has not fallen yet")
    flat = [100 + i / 1000 for i in range(9)]
    given(trades([*flat, 100.0])).when(rising_run).expect_none(because="only 0.008 %")


def test_volume_after_jump_is_a_trade_ten_times_as_large_within_two_seconds():
    jump = trades([101.0])
    given(CALM, jump, trades([101.0], quantity=20.0, every="1s")).when(
        volume_after_jump
    ).expect(1, jump_price=101.0, quantity=20.0)
    for after, because in (
        (trades([101.0], quantity=20.0, every="2s"), "two seconds are too late"),
        (trades([101.0], quantity=9.9, every="1s"), "nine times is too little"),
    ):
        given(CALM, jump, after).when(volume_after_jump).expect_none(because=because)
    given(CALM, trades([100.1], quantity=20.0)).when(volume_after_jump).expect_none(
        because="there was no jump"
    )


def test_ai_load_surge_after_two_minutes_of_a_lower_rate():
    given(SURGE).when(ai_load_surge).expect(1, severity="warning")
    given(requests(60, "1s"), requests(10, "100ms")).when(ai_load_surge).expect_none(
        because="two minutes were not seen yet"
    )
    given(requests(140, "1s")).when(ai_load_surge).expect_none(because="an even rate")


def test_ai_surge_then_burst_on_some_market_within_five_seconds():
    calm = trades([100.0, 100.1] * 20, at="120s")
    surge = [requests(125, "1s"), calm, requests(10, "100ms")]
    jump = trades([101.0], every="1s")
    given(surge, jump).when(ai_surge_then_burst).expect(
        1, severity="critical", symbol="BTC", venue="binance-spot"
    )
    late = trades([101.0], every="6s")
    given(surge, late).when(ai_surge_then_burst).expect_none(because="6 s are too late")
    given(requests(125, "1s"), calm, jump).when(ai_surge_then_burst).expect_none(
        because="there was no surge"
    )


def test_ai_silence_is_thirty_seconds_without_a_request_after_a_surge():
    given(SURGE, advance("30s")).when(ai_silence).expect(1, severity="critical")
    given(SURGE, advance("29s")).when(ai_silence).expect_none(because="not yet")
    given(SURGE, requests(1, "29s"), advance("60s")).when(ai_silence).expect_none(
        because="a request came"
    )
    given(requests(125, "1s"), advance("60s")).when(ai_silence).expect_none(
        because="there was no surge"
    )


def test_the_whole_pipeline_tells_each_thing_once():
    outcome = given(CALM, trades([101.0]), advance("60s")).when(pipeline)
    outcome.expect(1).expect(1, rule="volatility-burst")
