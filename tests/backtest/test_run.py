"""What a run over frames says of itself."""

import polars as pl

import cep
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
