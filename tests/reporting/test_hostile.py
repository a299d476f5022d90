"""Whatever events hold, pages and notebooks run nothing and fetch nothing."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from itertools import islice
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from browser import open_page
from hostile import FAR, HOSTILE, RUN

import cep
from cep import Event
from cep.analysis import lead_lag, series
from cep.reporting import event_rates, match_timeline, price_with_alerts
from cep.style import CONFIG

START = datetime(2026, 1, 5, 9, tzinfo=UTC)


class Elements(HTMLParser):
    """Every element of a page with its attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def check_nothing_happened(opened):
    assert opened.asked == []
    [root, *others] = Elements(opened.dom).found
    assert root[0] == "html"
    assert "data-pwned" not in root[1]
    for tag, attributes in others:
        assert tag not in {"iframe", "object", "embed", "base", "form", "img", "link"}
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("href", "xlink:href", "src", "action", "srcdoc"):
            value = attributes.get(name) or ""
            assert value.startswith(("#", "data:")) or not value, (tag, value)


def test_a_page_that_runs_and_fetches_is_noticed(tmp_path):
    page = tmp_path / "page.html"
    page.write_text(f"<html><body>{HOSTILE[0]}{HOSTILE[4]}</body></html>")
    opened = open_page(page, tmp_path)
    assert "data-pwned" in Elements(opened.dom).found[0][1]
    assert f"{FAR}/a.png" in opened.asked


def entry(number, stream, event_type, data, text):
    """The fields of an event with a hostile text wherever one may stand."""
    moment = START + timedelta(seconds=number)
    event_id = Event.new("market.trade", {"symbol": "A", "price": 1.0, "quantity": 1.0})
    return {
        "id": event_id.id,
        "stream": stream,
        "type": event_type,
        "version": "1",
        "timestamp": moment.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "correlation_id": text,
        "user_id": text,
        "data": json.dumps({**data, text: text}),
        "metadata": json.dumps({text: text}),
        text: text,
    }


@cep.rule("trade-then-answer", severity="warning")
def trade_then_answer():
    trade = cep.on("market.trade", name="trade")
    answer = cep.on("ai.content.generation.completed", name="answer")
    texts = {"symbol": cep.m.trade.symbol, "said": cep.e.generated_content}
    return cep.seq(trade).then(answer), cep.emit(title="{symbol} {said}", **texts)


@cep.rule("trade", key=["symbol", "venue"], severity="info")
def trade():
    return cep.on("market.trade"), cep.emit(title="{symbol}", symbol=cep.e.symbol)


@pytest.fixture(scope="module")
def reported(server, tmp_path_factory):
    """A report on a server full of hostile events, in a file of hostile name."""
    from cep import connect_redis

    with connect_redis(server.url) as redis:
        redis.flushall()
        for number, text in enumerate(HOSTILE):
            deal = {"symbol": text, "venue": text, "price": 2.0, "quantity": 1.0}
            answer = {
                "request_id": text,
                "content_draft_id": text,
                "generated_content": text,
                "ai_provider": text,
                "model_used": text,
                "tokens_used": 1,
                "generation_time_ms": 1,
                "cost_usd": 0.1,
            }
            for stream, event_type, data in (
                ("market.events", "market.trade", deal),
                ("ai.events", "ai.content.generation.completed", answer),
                ("ai.events", text, {text: text}),
                (HOSTILE[number % 5], "market.trade", deal),
            ):
                redis.xadd(stream, entry(number, stream, event_type, data, text))
        folder = tmp_path_factory.mktemp("hostile")
        pipeline = cep.Pipeline("hostile", [trade_then_answer, trade])
        made = cep.report(
            folder / "<img src=x onerror=alert(1)> =1+1.html",
            streams=["market.events", "ai.events", *HOSTILE[:5]],
            rules=pipeline,
            url=server.url,
            title=" ".join(HOSTILE[:38]),
        )
        redis.flushall()
    return made


def test_a_report_of_hostile_events_runs_and_fetches_nothing(reported, tmp_path):
    assert reported.found.result.counts["trade"].emitted == 40
    assert reported.found.result.counts["trade-then-answer"].emitted > 0
    assert reported.path.stat().st_size < 6_000_000
    opened = open_page(reported.path, tmp_path)
    check_nothing_happened(opened)
    # Its own script ran: each figure is drawn.
    figures = opened.dom.count('role="img"')
    assert figures >= 3
    assert opened.dom.count('class="plot-container') == figures


def test_no_hostile_cell_of_a_table_is_a_formula(reported):
    for path in reported.tables.values():
        rows = csv.reader(io.StringIO(path.read_bytes().decode(), newline=""))
        for cell in (cell for row in rows for cell in row):
            number = cell.removeprefix("-").replace(".", "", 1).isdigit()
            assert number or not cell.startswith(("=", "+", "-", "@", "\t", "\r"))


def hostile_figures():
    """Figures with a hostile text in every name, title, column and value."""
    n = len(HOSTILE)
    text = pl.Series(HOSTILE)
    ids = [f"id {i}" for i in range(n)]
    frame = pl.DataFrame(
        {
            "event_time": [START + timedelta(seconds=i) for i in range(n)],
            "type": text,
            "event_id": ids,
            "symbol": text,
            "venue": text,
            "price": np.arange(n) + 1.0,
        }
    ).with_columns(**dict.fromkeys(HOSTILE, text))
    alerts = frame.select(
        "event_time",
        rule="symbol",
        key="venue",
        severity="symbol",
        title="symbol",
        lineage=pl.concat_list("event_id"),
    )
    one, *_ = HOSTILE
    yield price_with_alerts(frame, alerts, load=frame, title=one, unit=one, note=one)
    valued = frame.with_columns(**{one: pl.lit(1.0)})
    yield price_with_alerts(valued, value=one, by=[HOSTILE[1], HOSTILE[3]])
    yield event_rates({text: frame.head(3) for text in HOSTILE[:6]}, note=one)
    match = SimpleNamespace(
        rule=one, key=one, time_ns=int(START.timestamp()) * 10**9, lineage=ids,
        steps=HOSTILE,
    )  # fmt: skip
    yield match_timeline(match, {one: frame})
    yield from (result.plot() for result in hostile_results())


def hostile_results():
    rng = np.random.default_rng(1)
    times = [START + timedelta(milliseconds=100 * i) for i in range(1000)]
    walk = pl.DataFrame(
        {"event_time": times, "price": np.exp(rng.normal(size=1000).cumsum() / 100)}
    )
    for text in HOSTILE:
        x, y = (series(walk, name=text) for _ in range(2))
        yield lead_lag(x, y, max_lag="500ms", step="100ms", draws=9)


def test_figures_and_results_in_a_notebook_run_and_fetch_nothing(reported, tmp_path):
    """A notebook has no policy, and its figures are pointed at, so hovers show."""
    from plotly.offline import get_plotlyjs

    figures = list(islice(hostile_figures(), 6))
    shown = [result._repr_html_() for result in hostile_results()]
    places = "".join(f"<div id=f{i}></div>" for i in range(len(figures)))
    data = ",".join(figure.to_json() for figure in figures).replace("<", "\\u003c")
    page = tmp_path / "notebook.html"
    page.write_text(
        f"<html><body>{reported._repr_html_()}{''.join(shown)}{places}"
        f"<script>{get_plotlyjs()}</script>"
        f"<script>{_POINT}({json.dumps(CONFIG)}, [{data}]);</script>"
        "</body></html>",
        encoding="utf-8",
        errors="backslashreplace",
    )
    opened = open_page(page, tmp_path)
    check_nothing_happened(opened)
    root = Elements(opened.dom).found[0][1]
    assert int(root["data-hovers"]) > 40
    assert RUN in opened.dom


_POINT = """
(async (config, figures) => {
  let hovers = 0;
  for (const [i, figure] of figures.entries()) {
    const place = document.getElementById(`f${i}`);
    await Plotly.newPlot(place, figure.data, figure.layout, config);
    for (const [curveNumber, trace] of place._fullData.entries()) {
      const points = Math.min(trace.mode === "lines" ? 2 : 40, trace._length);
      for (let pointNumber = 0; pointNumber < points; pointNumber++) {
        const subplot = trace.xaxis + trace.yaxis;
        Plotly.Fx.hover(place, [{curveNumber, pointNumber}], [subplot]);
        hovers += place.querySelectorAll(".hovertext").length;
      }
    }
  }
  document.documentElement.dataset.hovers = hovers;
})"""
