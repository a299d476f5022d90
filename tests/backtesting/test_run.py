"""What a run over frames says of itself."""

import polars as pl
import pytest

import cep
from cep.errors import CepWarning, UsageError
from cep.rules import Limits, build_rule, e, emit, on, seq


def test_the_printed_result_tells_what_limits_cost():
    a = on("market.trade", name="a")
    pattern = seq(a).then(on("market.trade", name="b").where(cep.e.price > 9))
    frame = pl.DataFrame(
        {
            "type": ["market.trade"] * 8,
            "event_time": pl.Series(range(8)).cast(pl.Datetime("ms", "UTC")),
            "symbol": ["X"] * 8,
            "price": [1.0] * 8,
            "quantity": [1.0] * 8,
        }
    )
    for policy, said in (
        ("drop_oldest", "5 partial matches dropped at its limit"),
        ("trip", "then stopped (limit)"),
    ):
        limits = Limits(partials_per_key=3, policy=policy)
        rule = build_rule("r", pattern, [emit()], limits=limits)
        assert said in str(cep.run_rules(rule, frame))


def trades(n, **columns):
    return pl.DataFrame(
        {
            "type": ["market.trade"] * n,
            "event_time": pl.Series(range(0, 10 * n, 10)).cast(
                pl.Datetime("ms", "UTC")
            ),
            "symbol": ["X"] * n,
            "price": [1.0] * n,
            "quantity": [1.0] * n,
        }
        | columns
    )


def test_rows_lost_to_the_order_of_a_frame_are_warned_of():
    rule = build_rule("r", on("market.trade"), [emit()])
    frame = trades(300).reverse()
    with pytest.warns(CepWarning, match="market.events: 199 of 300 rows are late") as w:
        assert len(cep.run_rules(rule, frame).events) == 101
    assert 'Sort it: frame.sort("event_time")' in str(w[0].message)
    # Where the frame says how rows arrived, that is how late they are.
    arrived = pl.Series([f"{i}-0" for i in range(300)])
    cep.run_rules(rule, frame.with_columns(entry_id=arrived))


def test_a_frame_that_does_not_say_its_stream_is_refused_with_what_to_write():
    rule = build_rule("r", on("market.trade"), [emit()])
    with pytest.raises(UsageError) as caught:
        cep.run_rules(rule, trades(0))
    assert 'to run_rules {"market.events": frame}' in str(caught.value)
    with pytest.raises(UsageError) as caught:
        cep.run_rules(rule, trades(2, type=["market.trade", "user.login"]))
    wanted = "{'market.events': frame, 'user.events': frame}"
    assert f"Pass a frame for each, as run_rules takes them: {wanted}" in str(
        caught.value
    )


def test_the_order_of_the_result_does_not_depend_on_how_the_input_is_cut():
    a = on("market.trade", name="a").where(e.price == 1)
    b = on("market.trade", name="b").where(e.price == 2)
    pattern = seq(a).not_then(b).within("2s")
    rule = build_rule("r", pattern, [emit(n=1), emit(n=2)], key="symbol")
    at = pl.Series([12_004, 12_004, 22_606, 24_606]).cast(pl.Datetime("ms", "UTC"))
    frame = trades(4, event_time=at, symbol=["B", "A", "A", "B"], price=[1.0, 1, 0, 3])
    whole = cep.run_rules(rule, frame)
    assert [(x.key, x.data["values"]["n"]) for x in whole.events] == [
        ("B", 1),
        ("B", 2),
        ("A", 1),
        ("A", 2),
    ]
    for rows in (1, 2, 3):
        assert cep.run_rules(rule, frame, batch_rows=rows).ids == whole.ids


def test_a_stream_that_there_is_not_is_refused():
    rule = build_rule("r", on("market.trade"), [emit()])
    with pytest.raises(UsageError, match=r"no stream 'market.event'.*'market.events'"):
        cep.run_rules(rule, {"market.event": trades(2)})
    with pytest.raises(UsageError, match=r"no stream 'foo'.*Streams: ai.events, "):
        cep.run_rules(rule, {"foo": trades(2)})
    assert len(cep.run_rules(rule, {"market.events": trades(2)}).events) == 2


@pytest.mark.parametrize("name", ["batch_rows", "most"])
@pytest.mark.parametrize("number", [0, -3, "x", 2.0, True])
def test_a_number_of_rows_that_is_none_is_refused(name, number):
    rule = build_rule("r", on("market.trade"), [emit()])
    with pytest.raises(UsageError, match=rf"{name} is .*{number}.*whole number from 1"):
        cep.run_rules(rule, trades(2), **{name: number})


@pytest.mark.parametrize("rules", [None, 5, [], "price", [None]])
def test_what_is_no_rule_is_refused(rules):
    with pytest.raises(UsageError, match="run_rules takes rules, got"):
        cep.run_rules(rules, trades(2))
