"""A backtest tells what rules found, what was kept back, and how right they are."""

import csv

import numpy as np
import polars as pl
import pytest

import cep
from cep.errors import CepWarning, UsageError
from cep.rules import build_rule, e, emit, m, on, seq
from cep.sample import mentions


def trades(prices, **columns):
    n = len(prices)
    times = pl.Series(range(0, 1000 * n, 1000)).cast(pl.Datetime("ms", "UTC"))
    return pl.DataFrame(
        {
            "type": ["market.trade"] * n,
            "event_time": times,
            "symbol": ["X"] * n,
            "price": [float(p) for p in prices],
            "quantity": [1.0] * n,
        }
        | columns
    )


@pytest.fixture(scope="module")
def surges():
    return cep.backtest(
        mentions.surge(), mentions.history(), mentions.labels(), draws=199
    )


def test_it_finds_what_run_rules_finds(surges):
    assert surges.ids == cep.run_rules(mentions.surge(), mentions.history()).ids


def test_a_comparison_sees_a_loss_a_phantom_and_a_double(surges, capsys):
    ids = list(surges.ids)
    assert surges.compare(pl.DataFrame({"event_id": ids[::-1]}))
    assert surges.compare([x.encode() for x in ids])
    said = capsys.readouterr().out.splitlines()
    assert said == [f"equal: both derived the same {len(ids)} events"] * 2
    lost = surges.compare(ids[1:])
    assert (lost.only_here, bool(lost)) == ([ids[0]], False)
    event = surges.events[0]
    assert f"of rule 'mentions-surge', key {event.key!r}, from {event.lineage[0]}" in (
        capsys.readouterr().out
    )
    phantom = ids[0][:-1] + ("0" if ids[0][-1] != "0" else "1")
    found = surges.compare([*ids, phantom])
    assert (found.only_there, found.common) == ([phantom], len(ids))
    assert "the first is only in the other" in str(found)
    assert surges.compare([*ids, ids[3]]).twice == [ids[3]]
    for given in ("abc", 7, ["abc"], pl.DataFrame({"id": ids})):
        with pytest.raises(UsageError):
            surges.compare(given)


def test_suppressed_and_timed_out_matches_are_those_that_the_engine_counts():
    up = on("market.trade", name="up").where(e.price > 5)
    down = on("market.trade", name="down").where(e.price < 2)
    rules = [
        build_rule("high", up, [emit(price=e.price)], key="symbol", cooldown="3s"),
        build_rule("fall", seq(up).then(down).within("3s"), [emit(was=m.up.price)]),
    ]
    frame = trades([9, 3, 1, 8, 7, 3, 3, 3, 6, 1, 3, 3, 3, 3])
    bt = cep.backtest(rules, frame)
    # 8 comes 3 s after 9, which is late enough; 7 a second later is not.
    assert bt.counts["high"].suppressed == 1
    assert [x.second for x in bt.suppressed["event_time"]] == [4]
    assert bt.suppressed["rule"].to_list() == ["high"]
    assert not set(bt.suppressed["event_id"]) & set(bt.ids)
    # Nothing below 2 came within 3 s of 8 and of 7.
    assert bt.counts["fall"].timeouts == 2
    assert [x.second for x in bt.timeouts["event_time"]] == [6, 7]


def test_contributing_events_are_the_rows_of_the_data():
    up = on("market.trade", name="up").where(e.price > 5)
    down = on("market.trade", name="down").where(e.price < 2)
    rule = build_rule("fall", seq(up).then(down).within("3s"), [emit()])
    frame = trades([9, 3, 1, 3, 6, 1])
    bt = cep.backtest(rule, frame)
    table = bt.contributing()
    assert table["event_id"].to_list() == [bt.ids[0]] * 2 + [bt.ids[1]] * 2
    assert table["step"].to_list() == ["up", "down"] * 2
    assert table["price"].to_list() == [9, 1, 6, 1]
    assert [x.second for x in table["event_time"]] == [0, 2, 4, 5]
    assert table["place"].to_list() == [0, 1] * 2
    assert set(table["stream"]) == {"market.events"}


def test_a_match_with_two_outputs_is_one_alert():
    rule = build_rule("two", on("market.trade").where(e.price > 5), [emit(), emit(n=2)])
    frame = trades([1, 9, 1])
    at = frame["event_time"][1]
    bt = cep.backtest(rule, frame, [at], tolerance="100ms", draws=99)
    assert len(bt.events) == 2
    assert (bt.scores["two"].alerts, bt.scores["two"].precision.value) == (1, 1)
    assert bt.to_polars()["right"].to_list() == [True, True]


def test_labels_of_one_rule_or_key_count_for_that_one():
    high = build_rule(
        "high", on("market.trade").where(e.price > 5), [emit()], key="symbol"
    )
    low = build_rule(
        "low", on("market.trade").where(e.price < 2), [emit()], key="symbol"
    )
    frame = trades([9, 1, 9, 3], symbol=["X", "X", "Y", "Y"])
    times = frame["event_time"]
    labels = pl.DataFrame(
        {
            "event_time": times[[0, 1, 2]],
            "rule": ["high", None, None],
            "key": ["X", "X", "X"],
        }
    )
    bt = cep.backtest([high, low], frame, labels, tolerance="10ms", draws=99)
    table = bt.score_table()
    assert table["labels"].to_list() == [3, 2]
    assert table["found"].to_list() == [1, 1]
    assert table["true_alerts"].to_list() == [1, 1]
    assert table["alerts"].to_list() == [2, 1]
    # Two keys of which labels name one: always on for both.
    assert bt.labelled()["first_alert"].null_count() == 3
    with pytest.raises(UsageError, match=r"for the rule 'other' .* which is not run"):
        cep.backtest(
            high, frame, labels.with_columns(rule=pl.lit("other")), tolerance="1s"
        )


def test_the_mentions_are_found_better_than_by_chance(surges):
    one = surges.scores["mentions-surge"]
    assert (one.labels, one.outside) == (15, 0)
    assert one.f1.value > 0.5 > 0.2 > one.always_on.f1 > one.random.f1
    assert one.p_value == 1 / 200
    assert one.always_on.precision == pytest.approx(0.1, abs=0.02)
    labelled = surges.labelled()
    assert labelled["first_alert"].null_count() == one.labels - one.found
    assert (
        labelled["lead"].drop_nulls()
        == (labelled["moment"] - labelled["first_alert"]).drop_nulls()
    ).all()


def test_it_prints_tables_and_files(surges, tmp_path):
    said = str(surges)
    assert said.startswith("79,310 events from 2015-02-26T21:42:53.000Z to 2015-04-23")
    assert "precision 0.62 [" in said
    assert "as many random alerts: precision" in said
    path = surges.to_csv(tmp_path / "alerts.csv")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["event_id"] for row in rows] == surges.ids
    assert sum(row["right"] == "true" for row in rows) == (
        surges.scores["mentions-surge"].true_alerts
    )


def test_the_sheet_draws_all_alerts_labels_and_scores(surges):
    figure = surges.plot()
    names = {trace.name: trace for trace in figure.data}
    one = surges.scores["mentions-surge"]
    wrong = one.alerts - one.true_alerts
    assert len(names[f"alert in a label ({one.true_alerts})"].x) == one.true_alerts
    assert len(names[f"alert in none ({wrong})"].x) == wrong
    assert len(names[f"label with an alert ({one.found})"].x) == 3 * one.found
    own = names["the rule"]
    assert sorted(own.x) == sorted(x.value for x in (one.precision, one.recall, one.f1))
    assert (
        sum(names["lead of mentions-surge"].x > 0)
        == (surges.labelled()["lead"].dt.total_milliseconds() > 0).sum()
    )
    assert "20 blocks of time" in figure.layout.title.subtitle.text


def test_foreign_text_is_no_markup_in_the_sheet():
    rule = build_rule(
        "r", on("market.trade"), [emit(title="{symbol}", symbol=e.symbol)], key="symbol"
    )
    figure = cep.backtest(rule, trades([1], symbol=["<a href='x'>y</a>"])).plot()
    assert "<a" not in figure.to_json()


def test_without_labels_there_is_no_score():
    rule = build_rule("r", on("market.trade"), [emit()])
    bt = cep.backtest(rule, trades([1, 2]))
    assert bt.scores == {}
    assert len(bt.plot().data) == 1
    with pytest.raises(UsageError, match="no score without labels"):
        bt.score_table()


def test_arrival_order_and_lateness_are_those_of_the_entries():
    rule = build_rule("r", on("market.trade").where(e.price > 5), [emit()])
    frame = trades([9, 1, 9]).with_columns(entry_id=pl.Series(["9-0", "10-0", "1-0"]))
    bt = cep.backtest(rule, frame)
    assert bt.accounting["market.events"]["late"] == 1
    assert [x.time_ns // 10**9 for x in bt.events] == [2]
    with pytest.warns(CepWarning, match="1 of 3 rows are late"):
        cep.backtest(
            rule,
            trades([9, 1, 9]).sort("event_time", descending=True),
            max_out_of_orderness="1s",
        )


def test_nothing_to_run_over_is_told():
    rule = build_rule("r", on("market.trade"), [emit()])
    bt = cep.backtest(rule, {"market.events": trades([])})
    assert (bt.ids, bt.start_ns, bt.end_ns) == ([], 0, 0)
    assert np.isnan(
        cep.backtest(
            rule, {"market.events": trades([])}, mentions.labels().drop("key"), draws=99
        )
        .scores["r"]
        .recall.value
    )
    with pytest.raises(UsageError, match="backtest takes rules, got"):
        cep.backtest([], trades([1]))
