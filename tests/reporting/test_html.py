import base64
import hashlib
import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser

import polars as pl
import pytest

import cep
from cep import sample
from cep.reporting import chart, price_with_alerts, write_html

EVIL = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"'><svg onload=alert(1)>",
    "<a href='javascript:alert(1)'>x</a>",
    "--><!-- ]]> </title></style> &lt;b&gt;",
    "\u2028\u2029\\u003cscript\\u003e %{x} ${x} {0}",
]
EXPECTED_TAGS = {
    "html", "head", "meta", "title", "style", "body", "main", "div", "noscript",
    "section", "h2", "dl", "dt", "dd", "br", "script", "figure", "figcaption", "p", "b",
}  # fmt: skip


class Page(HTMLParser):
    """The elements of a page, and the text inside each script."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.scripts, self.attributes = [], [], []
        self.texts = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.tags[-1:] == ["script"]:
            self.scripts.append(data)
        elif self.tags:
            self.texts[self.tags[-1]] = self.texts.get(self.tags[-1], "") + data


def texts_in(value):
    if isinstance(value, dict):
        for inner in value.values():
            yield from texts_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts_in(inner)
    elif isinstance(value, str):
        yield value


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The demo's chart of the sample, with hostile text wherever text goes."""
    start = datetime(2026, 1, 5, 9, tzinfo=UTC)
    frames = {
        "market.events": pl.DataFrame(
            {
                "event_time": [start] * 6,
                "symbol": EVIL,
                "venue": EVIL[::-1],
                "price": [1.0] * 6,
            }
        ),
        "ai.events": pl.DataFrame({"event_time": [start]}),
    }
    alerts = pl.DataFrame(
        {
            "event_time": [start] * 6,
            "rule": EVIL,
            "key": [*EVIL[1:], ""],
            "severity": EVIL,
            "title": EVIL,
        }
    )
    sources = [sample.Source(*EVIL[:5])]
    path = chart(
        frames,
        alerts,
        tmp_path_factory.mktemp("report") / "new" / "chart.html",
        title=EVIL[0],
        note=EVIL[1],
        provenance=sources,
    )
    return path.read_text(encoding="utf-8")


def test_hostile_text_adds_no_element_and_no_handler(page):
    parsed = Page(page)
    assert set(parsed.tags) <= EXPECTED_TAGS
    assert parsed.tags.count("script") == 3
    assert parsed.tags.count("title") == 1
    for _, attributes in parsed.attributes:
        assert not [name for name in attributes if name.startswith("on")]
        assert not attributes.keys() & {"src", "href"}
    assert parsed.texts["title"].startswith(EVIL[0])
    assert EVIL[1] in parsed.texts["dd"] + parsed.texts["dt"] + parsed.texts["br"]


def test_hostile_text_is_no_markup_for_plotly_either(page):
    figure = json.loads(Page(page).scripts[0])["figures"][0]
    assert "title" not in figure["layout"]
    shown = list(texts_in(figure["data"]))
    shown += texts_in(figure["layout"]["annotations"])
    ours = re.compile(r"</?(b|br|extra)>|<br />")
    assert any("alert(1)" in text for text in shown)
    for text in shown:
        assert "<" not in ours.sub("", text), text


def test_the_policy_lets_exactly_the_two_scripts_run(page):
    parsed = Page(page)
    policy = next(
        attributes["content"]
        for tag, attributes in parsed.attributes
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    allowed = re.findall(r"'sha256-([^']+)'", policy)
    _, *scripts = re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL)
    assert allowed == [
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        for script in scripts
    ]
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]
    assert "\r" not in page


@pytest.mark.slow
def test_the_chart_of_the_whole_sample_is_one_small_offline_file(tmp_path):
    frames = cep.load(sample.streams(), url="sample")
    alerts = pl.DataFrame(
        {"event_time": frames["ai.events"]["event_time"][:50], "rule": "r", "key": ""}
    )
    path = chart(
        frames,
        alerts,
        tmp_path / "chart.html",
        note=sample.ALIGNMENT,
        provenance=sample.provenance(),
    )
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_size < 6_000_000
    assert text.count("plotly.js v") == 1
    assert "no causal relation" in Page(text).texts["b"]
    assert "nkaz001" in text
    assert list(tmp_path.iterdir()) == [path]


def test_a_page_is_named_after_its_figure_and_replaces_an_older_one(tmp_path):
    prices = pl.DataFrame(
        {"event_time": [datetime(2026, 1, 5, tzinfo=UTC)], "symbol": "A", "price": 1.0}
    )
    figure = price_with_alerts(prices, title="A & B")
    path = tmp_path / "page.html"
    path.write_text("old")
    assert write_html(figure, str(path)) == path
    assert "<title>A &amp; B</title>" in path.read_text(encoding="utf-8")
    assert "<section>" not in path.read_text(encoding="utf-8")
