from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

import cep
from cep import sample
from cep.errors import UsageError
from cep.frames.convert import to_arrow, to_pandas
from cep.reporting import event_rates, match_timeline, price_with_alerts
from cep.style import ALERTS, SHAPES

START = datetime(2026, 1, 5, 9, tzinfo=UTC)


def make_prices(levels, n=50):
    """Prices once a second for each (symbol, venue), around its level."""
    return pl.concat(
        pl.DataFrame(
            {
                "event_time": [START + timedelta(seconds=i) for i in range(n)],
                "symbol": symbol,
                "venue": venue,
                "price": [level + i % 7 for i in range(n)],
            }
        )
        for (symbol, venue), level in levels.items()
    ).cast({"event_time": pl.Datetime("ms", "UTC"), "price": pl.Float64})


def make_alerts(*rows):
    names = ["event_time", "rule", "severity", "key", "title"]
    return pl.DataFrame(rows, schema=names, orient="row").cast(
        {"event_time": pl.Datetime("ms", "UTC")}
    )


def at(seconds):
    return START + timedelta(seconds=seconds)


def naive(seconds):
    return np.datetime64(at(seconds).replace(tzinfo=None), "ms")


def lines_of(figure):
    return [trace for trace in figure.data if trace.legendgroup.startswith("line")]


def markers_of(figure):
    return {trace.name: trace for trace in figure.data if trace.mode == "markers"}


def said_by(figure):
    return figure.layout.title.subtitle.text


def panel_names(figure):
    return [note.text for note in figure.layout.annotations]


BTC = {("BTC", "spot"): 60_000, ("BTC", "usdm"): 60_010, ("ETH", "spot"): 2600}


def test_a_line_for_each_symbol_and_venue_and_a_panel_for_each_price_level():
    figure = price_with_alerts(make_prices(BTC), unit="USDT")
    assert [trace.name for trace in lines_of(figure)] == [
        "BTC spot",
        "BTC usdm",
        "ETH spot",
    ]
    assert [trace.yaxis for trace in lines_of(figure)] == ["y", "y", "y2"]
    assert panel_names(figure) == ["BTC: price, USDT", "ETH: price, USDT"]
    assert said_by(figure) == "150 prices."
    first = lines_of(figure)[0]
    assert first.x[1] == naive(1)
    assert first.y.tolist() == [60_000 + i % 7 for i in range(50)]
    assert figure.layout.xaxis2.title.text == "Event time (UTC)"


@pytest.mark.parametrize("form", [to_pandas, to_arrow, pl.DataFrame.lazy])
def test_frames_of_any_library_are_drawn_alike(form):
    prices = make_prices(BTC)
    alerts = make_alerts((at(3), "r", "info", "BTC", "t"))
    figure = price_with_alerts(form(prices), form(alerts), load=form(prices))
    same = price_with_alerts(prices, alerts, load=prices)
    assert figure.to_json() == same.to_json()


def test_long_lines_keep_their_extremes_and_say_how_they_are_drawn():
    n = 20_000
    prices = make_prices({("A", "x"): 100}, n)
    spike = pl.when(pl.int_range(n) == 12_345).then(500.0).otherwise("price")
    figure = price_with_alerts(prices.with_columns(price=spike), pixels=500)
    [line] = lines_of(figure)
    assert len(line.x) <= 2 * 500 + 2
    assert max(line.y) == 500.0
    assert said_by(figure) == (
        "20,000 prices; long lines are drawn as the lowest and highest value of each "
        "40 s."
    )


def test_stretches_of_many_minutes_are_said_in_minutes():
    days = make_prices({("A", "x"): 100}, 20_000).with_columns(
        pl.col("event_time") + pl.int_range(20_000) * pl.duration(minutes=1)
    )
    assert said_by(price_with_alerts(days, pixels=500)).endswith("of each 40.7 min.")


def test_short_lines_are_drawn_point_by_point():
    figure = price_with_alerts(make_prices({("A", "x"): 100}, 900), pixels=500)
    assert len(lines_of(figure)[0].x) == 900
    assert "lowest" not in said_by(figure)


def test_rows_without_price_symbol_or_time_are_passed_over():
    prices = make_prices({("A", "x"): 100}, 4).with_columns(
        price=pl.Series([1.0, None, float("nan"), 2.0])
    )
    figure = price_with_alerts(prices)
    assert lines_of(figure)[0].y.tolist() == [1.0, 2.0]


def test_rows_are_drawn_by_event_time_whatever_their_order():
    prices = make_prices({("A", "x"): 100}).sample(fraction=1, shuffle=True, seed=1)
    [line] = lines_of(price_with_alerts(prices))
    assert line.x.tolist() == sorted(line.x.tolist())


def test_only_the_eight_busiest_markets_are_drawn_and_the_rest_counted():
    prices = make_prices({(f"S{i}", "x"): 100 for i in range(10)})
    figure = price_with_alerts(prices)
    assert len(lines_of(figure)) == 8
    assert "2 lines with fewer prices are not drawn" in said_by(figure)


def test_alerts_are_marked_on_the_line_their_key_names():
    alerts = make_alerts(
        (at(10.5), "burst", "warning", "BTC/usdm", "up"),
        (at(3), "burst", "warning", "ETH/spot", "down"),
        (at(4), "lead", "info", "BTC", "both"),
    )
    figure = price_with_alerts(make_prices(BTC), alerts)
    points = {
        (trace.name, trace.yaxis): (trace.x[0], trace.y[0])
        for trace in figure.data
        if trace.mode == "markers"
    }
    assert points == {
        ("burst (2)", "y"): (naive(10.5), 60_010 + 3),
        ("burst (2)", "y2"): (naive(3), 2603),
        ("lead (1)", "y"): (naive(4), 60_004),
    }
    assert said_by(figure).endswith("3 alerts.")
    marked = [trace for trace in figure.data if trace.mode == "markers"]
    assert [trace.showlegend for trace in marked] == [True, False, True]
    assert list(marked[0].customdata[0]) == ["burst", "warning", "BTC/usdm", "up", ""]


def test_contributing_events_are_told_on_hover():
    prices = make_prices(BTC, 10).with_row_index("event_id")
    prices = prices.with_columns(pl.format("id {}", "event_id").alias("event_id"))
    lineage = [f"id {i}" for i in (1, 2, 3, 4, 5, 6)]
    alerts = make_alerts((at(9), "r", "info", "BTC", "t")).with_columns(
        lineage=pl.lit(lineage)
    )
    [marker] = markers_of(price_with_alerts(prices, alerts)).values()
    assert marker.customdata[0][4] == (
        "<br>of 6 events:<br>09:00:01.000 BTC spot 60,001<br>"
        "09:00:02.000 BTC spot 60,002<br>09:00:03.000 BTC spot 60,003<br>"
        "09:00:04.000 BTC spot 60,004<br>and 2 more"
    )
    assert "%{customdata[4]}" in marker.hovertemplate


def test_any_value_is_drawn_a_line_for_each_of_what_it_is_told_apart_by():
    load = pl.DataFrame(
        {
            "event_time": [at(0), at(1), at(2)],
            "service": ["a", "b", "a"],
            "memory": [1, 2, 3],
        }
    )
    figure = price_with_alerts(load, value="memory", by=["service"], unit="MB")
    assert {trace.name: trace.y.tolist() for trace in lines_of(figure)} == {
        "a": [1.0, 3.0],
        "b": [2.0],
    }
    assert panel_names(figure) == ["a, b: memory, MB"]
    assert said_by(figure) == "3 values."
    with pytest.raises(UsageError, match="by has 0 columns"):
        price_with_alerts(load, value="memory", by=[])


@dataclass
class Match:
    rule: str
    key: str
    time_ns: int
    lineage: list[str]
    steps: list[str]


def test_a_match_is_drawn_with_a_lane_for_each_step_on_its_stream():
    def rows(stream, *seconds):
        return pl.DataFrame(
            {
                "event_time": [at(s) for s in seconds],
                "type": f"{stream}.type",
                "event_id": [f"{stream} {s}" for s in seconds],
                "price": [10.0 * s for s in seconds],
            }
        )

    frames = {"market": rows("market", 1, 2, 3, 8), "ai": rows("ai", 4, 5)}
    ns = int(at(35).timestamp()) * 10**9
    lineage = ["market 1", "market 2", "ai 4", "lost"]
    match = Match("r", "BTC", ns, lineage, ["up", "up", "asked", "asked"])
    figure = match_timeline(match, frames)
    events, end = figure.data
    assert events.x.tolist() == [naive(1), naive(2), naive(4)]
    assert list(events.y) == [0, 0, 1]
    assert "<br>price: 20.0" in events.customdata[1]
    assert end.x[0] == naive(35)
    assert figure.layout.yaxis.ticktext == (
        "<b>up</b> × 2<br>market",
        "<b>asked</b><br>ai",
        "match complete",
    )
    assert figure.layout.title.text == "A match of r of BTC"
    assert said_by(figure) == (
        "4 events over 34.000 s; complete at 2026-01-05 09:00:35.000 UTC; "
        "1 of them are in no frame given."
    )


def test_an_alert_before_the_first_price_stands_at_that_price():
    alerts = make_alerts((at(-5), "r", "info", "ETH", "t"))
    figure = price_with_alerts(make_prices(BTC), alerts)
    assert markers_of(figure)["r (1)"].y[0] == 2600


def test_alerts_of_no_market_are_marked_on_the_load_and_through_all_panels():
    load = make_prices({("-", "-"): 1}, 20)
    alerts = make_alerts((at(7.2), "surge", "warning", "", "many"))
    figure = price_with_alerts(
        make_prices(BTC), alerts, load=load, load_name="Requests"
    )
    marker = markers_of(figure)["surge (1)"]
    assert (marker.yaxis, marker.y[0]) == ("y3", 1.0)
    assert list(marker.customdata[0])[2] == "all keys"
    [line] = figure.layout.shapes
    assert (line.yref, line.x0) == ("paper", str(naive(7.2)))
    assert panel_names(figure)[2] == "Requests per second"
    assert "Requests counted in stretches of 1 s" in said_by(figure)


def test_each_rule_has_a_shape_and_colour_of_its_own():
    alerts = make_alerts(*((at(i), f"rule {i}", "info", "BTC", "") for i in range(7)))
    markers = markers_of(price_with_alerts(make_prices(BTC), alerts)).values()
    assert len({trace.marker.symbol for trace in markers}) == 7 <= len(SHAPES)
    assert len({trace.marker.color for trace in markers}) == 7 <= len(ALERTS)


def test_a_flood_of_alerts_is_thinned_and_says_so():
    alerts = make_alerts(*((at(i % 50), "r", "info", "BTC", "") for i in range(4100)))
    figure = price_with_alerts(make_prices(BTC), alerts)
    assert len(markers_of(figure)["r (4,100)"].x) == 1367
    assert "4,100 alerts; 1,367 of them are drawn, evenly chosen" in said_by(figure)


def test_load_counts_events_per_second():
    load = pl.DataFrame({"event_time": [at(s) for s in (0, 0.2, 0.9, 1, 3.5)]})
    figure = price_with_alerts(make_prices(BTC, 4), load=load)
    [rates] = [trace for trace in figure.data if trace.fill == "tozeroy"]
    assert rates.y.tolist() == [3, 1, 0, 1]
    assert rates.x[0] == naive(0)


def test_long_spans_are_counted_in_wider_stretches():
    load = pl.DataFrame({"event_time": [at(s) for s in range(0, 86_400, 60)]})
    figure = event_rates({"ai.events": load})
    [rates] = figure.data
    assert len(rates.y) <= 600
    assert rates.y.tolist() == pytest.approx([1 / 60] * len(rates.y))
    assert said_by(figure) == ("ai.events 1,440 events; counted in stretches of 300 s.")


def test_rates_have_a_panel_for_each_stream():
    figure = event_rates(
        cep.load(sample.streams(), url="sample"), note=sample.ALIGNMENT
    )
    assert panel_names(figure) == [
        "market.events: events per second",
        "ai.events: events per second",
    ]
    market, requests = figure.data
    assert market.y.sum() == 59_678
    assert requests.y.sum() == 1303
    assert "<b>AI requests are from another year, shifted" in said_by(figure)


def test_nothing_at_all_is_still_a_figure():
    figure = price_with_alerts(make_prices(BTC).head(0))
    assert said_by(figure) == "no prices."
    figure = price_with_alerts(make_prices(BTC).head(0), make_alerts())
    assert said_by(figure) == "no prices; 0 alerts."
    alerts = make_alerts((at(1), "r", "info", "BTC", ""))
    figure = price_with_alerts(make_prices(BTC).head(0), alerts)
    assert said_by(figure) == "no prices; 1 alert."


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: price_with_alerts(make_prices(BTC).rename({"price": "prices"})),
            "The frame of prices has no column 'price'. Did you mean 'prices'",
        ),
        (
            lambda: price_with_alerts(make_prices(BTC), make_prices(BTC)),
            "The frame of alerts has no column 'rule'",
        ),
        (
            lambda: event_rates({"s": pl.DataFrame({"event_time": ["now"]})}),
            "event_time of s is of type String",
        ),
        (lambda: event_rates({}), "There is no frame to draw"),
    ],
)
def test_frames_that_cannot_be_drawn_are_refused(call, said):
    with pytest.raises(UsageError, match=said):
        call()
