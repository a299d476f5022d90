"""What a run over frames says of itself."""

import polars as pl
import pytest

import cep
from cep.errors import CepWarning, UsageError
from cep.rules import Limits, build_rule, emit, on, seq


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
