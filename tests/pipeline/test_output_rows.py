"""Outputs written by columns are those that `output_fields` writes, byte for byte."""

import math

import live
import numpy as np
import pytest
from pydantic import BaseModel

from cep import count, e, emit, m, on, rule, seq
from cep.bus.page import Entries, PageDecoder
from cep.engine.operator import Operator
from cep.engine.ordering import END_OF_TIME
from cep.errors import InvalidPayloadError
from cep.events import register
from cep.events.codec import encode
from cep.events.registry import registry
from cep.pipeline.blocks import Block
from cep.pipeline.entries import output_fields
from cep.pipeline.output_rows import OutputRows

T = live.START_MS


@pytest.fixture
def own_type():
    class Own(BaseModel):
        price: float

    register("test.own", stream="notification.events")(Own)
    yield "test.own"
    registry._types.pop("test.own", None)


def outputs_of(rules, entries):
    """Run rules over (stream, entry id, event) in order of event time, in one step."""
    operator = Operator(rules)
    entries = sorted(entries, key=lambda one: one[2].time_ms)
    pairs = [
        (f"{T + i}-0".encode(), list(encode(one).items()))
        for i, (_, _, one) in enumerate(entries)
    ]
    fields = {t: {f for f in w if f[0] != "@"} for t, w in operator.reads.items()}
    envelope = {f for w in operator.reads.values() for f in w if f[0] == "@"}
    decoder = PageDecoder(live.MARKET, fields=fields, envelope=sorted(envelope))
    page = decoder.decode(Entries.of(pairs))
    assert not page.bad, page.bad
    return operator.step(operator.ingest(page.columns, 0), END_OF_TIME)


def trades(n=40, **changes):
    rng = np.random.default_rng(7)
    return [
        (live.MARKET, "", trade(i, price, **changes))
        for i, price in enumerate(rng.normal(100.0, 5.0, n).tolist())
    ]


def trade(i, price, **changes):
    given = {"symbol": "AB"[i % 2], "quantity": float(i % 7), "price": price}
    return live.trade(i, T + 10 * i, **{**given, **changes})


def assert_same(outputs, slow=0):
    rows = OutputRows()
    found = [
        one
        for row in rows.of(outputs)
        for one in (
            live.entries_of([row]) if isinstance(row, Block) else [written(row)]
        )
    ]
    assert found == [written(event) for event in outputs.events]
    assert found
    assert rows.slow == slow
    return found


def written(event):
    try:
        return event.stream, output_fields(event)
    except InvalidPayloadError as error:
        return event, str(error)


@pytest.mark.parametrize("seed", range(3))
def test_rules_of_all_kinds(seed):
    entries = [
        (live.MARKET, "", one.model_copy(update={"stream": live.MARKET}))
        for _, _, one in live.traffic(seed, bad=0.0)
    ]
    assert_same(outputs_of(live.RULES, entries))


def test_values_of_all_kinds_at_any_depth():
    @rule("kinds", key=("symbol", "quantity"), severity="critical")
    def kinds():
        return on("market.trade"), emit(
            price=e.price,
            whole=count().over("1s"),
            text=e.symbol,
            truth=e.price > 100.0,
            absent=e.side,
            nested={"a": [e.price, {"b": e.symbol}], "c": None, 'd "%b"': "%s é"},
            constant=1.5,
        )

    assert_same(outputs_of([kinds], trades()))


def test_texts_that_need_escapes_and_odd_numbers():
    @rule("odd", key="symbol")
    def odd():
        return on("market.trade"), emit(
            title='{key}: {price:.3f} "%d" é {quantity}',
            price=e.price,
            quantity=e.quantity,
        )

    prices = [0.1 + 0.2, 1e22, 1e-7, 5e-324, 1.7e308, -0.0, 123456789012345680.0, 7.0]
    made = [
        (live.MARKET, "", trade(i, price, symbol=f'é"\\\n{i}\x7f %b'))
        for i, price in enumerate(prices)
    ]
    assert_same(outputs_of([odd], made))


def test_a_known_type_is_filled_with_its_own_and_other_fields():
    @rule("trend", key="symbol")
    def trend():
        return on("market.trade"), emit(
            "market.trend.detected",
            title="{key} at {price:.2f}",
            trend_type="rising",
            confidence_score=e.price,
            price=e.price,
            extra=e.side,
        )

    assert_same(outputs_of([trend], trades()))


def test_time_outs_have_outputs_of_their_own():
    @rule("late", key="symbol", on_timeout=emit("trend.alert.generated", n=m.low.price))
    def late():
        low = on("market.trade", name="low").where(e.price < 100)
        high = on("market.trade", name="high").where(e.price > 103)
        return seq(low).then(high).within("50ms"), emit(low=m.low.price, high=e.price)

    outputs = outputs_of([late], trades())
    assert {event.timeout for event in outputs.events} == {True, False}
    assert_same(outputs)


def test_values_that_a_type_may_refuse_are_left_to_it():
    @rule("degraded", key="symbol")
    def degraded():
        return on("market.trade"), emit(
            "system.performance.degraded",
            stream="system.events",
            metric_name=e.side,
            current_value=e.price,
            threshold_value=35,
            affected_services=[],
            suggested_actions=[],
        )

    some = trades(6)
    named = [
        (
            live.MARKET,
            "",
            live.event(i, "market.trade", {**one.data, "side": side}, T + 10 * i),
        )
        for i, (side, (_, _, one)) in enumerate(
            zip(["buy", "", "x", "é"], some, strict=False)
        )
    ]
    found = assert_same(outputs_of([degraded], [*named, *some[4:]]), slow=3)
    assert sum(isinstance(stream, str) for stream, _ in found) == 4


def test_choices_and_own_models_are_asked_each_time(own_type):
    @rule("own")
    def own():
        return on("market.trade"), emit(own_type, price=e.price)

    assert_same(outputs_of([own], trades(5)), slow=5)


def test_infinite_and_huge_numbers_are_left_to_the_slow_way():
    @rule("huge")
    def huge():
        return on("market.trade"), emit(square=e.price * e.price, n=count().over("1s"))

    outputs = outputs_of([huge], [*trades(3), (live.MARKET, "", trade(3, 1e200))])
    slow = sum(
        math.isinf(event.data["values"]["square"] or 0) for event in outputs.events
    )
    assert_same(outputs, slow=slow)


def test_very_large_rows_are_left_to_the_slow_way():
    @rule("large", key="symbol")
    def large():
        return on("market.trade"), emit(symbol=e.symbol)

    made = [*trades(2), (live.MARKET, "", trade(2, 1.0, symbol="x" * 70_000))]
    assert_same(outputs_of([large], made), slow=1)
