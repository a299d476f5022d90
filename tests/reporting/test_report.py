import csv
import io
import json

import numpy as np
import polars as pl
import pytest

import cep
from cep import Event, Publisher, sample
from cep.cli import main
from cep.errors import UsageError
from cep.frames.archive.write import Archiver
from cep.frames.csv import write_csv
from cep.reporting.relating import relate, study_table
from cep.reporting.tables import table_of

END = "2024-08-08T23:56:00Z"


@cep.rule("large", key="symbol", severity="warning", cooldown="5s")
def large():
    """Two large trades."""
    one = cep.on("market.trade", name="one").where(cep.e.quantity > 5)
    two = cep.on("market.trade", name="two").where(cep.e.quantity > 5)
    return cep.seq(one).then(two).within("20s"), cep.emit(title="{key} twice")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A report on the first minutes of the sample."""
    said = []
    path = tmp_path_factory.mktemp("report") / "new" / "page.html"
    made = cep.report(
        path, rules=[large], url="sample", end=END, max_lag="1s", note=said.append
    )
    return made, path.read_text(encoding="utf-8"), said


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_report_is_one_small_page_with_its_tables_beside_it(made):
    report, page, said = made
    assert report.path.stat().st_size < 6_000_000
    assert page.count("plotly.js v") == 1
    names = {"accounting", "rules", "streams", "types", "alerts"}
    names |= {"relations-prices", "relations-events"}
    assert report.tables.keys() == names
    assert set(report.path.parent.iterdir()) == {report.path, *report.tables.values()}
    assert all(path.name in page for path in report.tables.values())
    assert (
        said[0] == f"{len(report.found.frames['market.events']):,} events of 1 "
        "streams loaded"
    )
    assert str(report).startswith(f"{report.path} (")


def test_a_report_says_where_it_is_from_and_what_became_of_every_entry(made):
    report, page, _ = made
    expected = cep.run_rules(large, cep.load(["market.events"], url="sample", end=END))
    [row] = rows_of(report.tables["accounting"])
    counts = expected.accounting["market.events"]
    assert {name: int(row[name]) for name in counts if name != "read"} == {
        name: n for name, n in counts.items() if name != "read"
    }
    assert int(row["entries"]) == counts["read"]
    assert large.hash in page
    assert f"cep {cep.__version__}, Python" in page
    assert END in page
    assert sample.ALIGNMENT.partition("'")[0] in page
    assert "nkaz001" in page
    assert "What this report does not show" in page


def test_the_alerts_are_those_of_the_rules(made):
    report, page, _ = made
    expected = cep.run_rules(large, cep.load(["market.events"], url="sample", end=END))
    rows = rows_of(report.tables["alerts"])
    assert [row["event_id"] for row in rows] == expected.ids
    assert json.loads(rows[0]["lineage"]) == list(expected.events[0].lineage)
    assert "A match of large of" in page
    [rule] = rows_of(report.tables["rules"])
    assert int(rule["alerts"]) == len(expected.ids) > 0


def test_relations_are_adjusted_for_how_many_there_are(made):
    report, page, _ = made
    table = pl.read_csv(report.tables["relations-prices"]).drop_nulls("p_value")
    n = len(table)
    assert n > 5
    p = table["p_value"].sort()
    adjusted = [min(p[j] * n / (j + 1) for j in range(i, n)) for i in range(n)]
    assert table.sort("p_value")["q_value"].to_list() == pytest.approx(
        [min(1, q) for q in adjusted]
    )
    assert report.found.relating.questions >= n
    assert "Which price moves first" in page


def test_prices_around_alerts_are_studied_where_there_are_enough():
    rng = np.random.default_rng(1)
    ms = pl.Series(np.arange(0, 400_000, 50)).cast(pl.Datetime("ms", "UTC"))
    frame = pl.DataFrame(
        {
            "event_time": ms,
            "type": "market.trade",
            "symbol": "A",
            "venue": "x",
            "price": np.exp(rng.normal(size=len(ms)).cumsum() / 1000),
        }
    )
    alerts = pl.DataFrame({"event_time": ms.gather_every(300), "rule": "often"})
    few = alerts.head(3).with_columns(rule=pl.lit("seldom"))
    alerts = pl.concat([alerts, few]).with_columns(key=pl.lit("A/x"))
    found = relate({"market.events": frame}, alerts, max_lag="1s", seed=0)
    table = study_table(found.studies)
    assert table["rule"].to_list() == ["often"]
    assert table["q_after"].to_list() == table["p_after"].to_list()
    assert table["price"].to_list() == ["A x"]
    assert "seldom (3 on A x)" in found.skipped[0]


@pytest.mark.redis
def test_a_live_server_tells_of_bad_and_removed_entries(redis, redis_url, tmp_path):
    publisher = Publisher(redis_url)
    for price in range(5):
        publisher.publish(
            Event.new(
                "market.trade", {"symbol": "A", "price": price + 1.0, "quantity": 1.0}
            )
        )
    redis.xadd("market.events", {"id": "nonsense"})
    redis.xtrim("market.events", maxlen=4, approximate=False)
    made = cep.report(tmp_path / "a.html", streams="market.events", url=redis_url)
    [row] = rows_of(made.tables["accounting"])
    assert (row["entries"], row["not_events"], row["events"]) == ("4", "1", "3")
    assert row["removed_before"] == "2"
    [bad] = rows_of(made.tables["not-events"])
    assert bad["entries"] == "1"
    page = made.path.read_text(encoding="utf-8")
    assert "Entries that the server had removed" in page
    assert made.found.relating.questions == 0


def test_nothing_at_all_is_still_a_report(tmp_path):
    made = cep.report(
        tmp_path / "a.html", rules=large, url="sample", end="1970-01-02T00:00:00Z"
    )
    assert "No rule found anything" in made.path.read_text(encoding="utf-8")
    assert rows_of(made.tables["streams"])[0]["events"] == "0"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.html"], "There is nothing to report on."),
        (["a.txt", "--streams", "ai.events"], "'a.txt' is no HTML file"),
        (["a.html", "--streams", "ai.event", "--redis", "sample"], "'ai.events'?"),
    ],
)
def test_mistakes_are_said_in_one_line(arguments, said, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["report", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_the_same_page(tmp_path, capsys):
    file = tmp_path / "ai.html"
    words = ["report", str(file), "--streams", "ai.events", "--redis", "sample"]
    assert main([*words, "--title", "Requests"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith(f"{file} (")
    assert "1,303 events of 1 streams loaded" in shown.err
    assert "<h1>Requests</h1>" in file.read_text(encoding="utf-8")


def test_what_is_no_rule_is_refused(tmp_path):
    with pytest.raises(UsageError, match="Among the rules is 'x', which is none"):
        cep.report(tmp_path / "a.html", rules=["x"])


@pytest.mark.parametrize(
    "cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "＝1"]
)
def test_no_cell_or_heading_of_a_file_is_a_formula(cell, tmp_path):
    frame = pl.DataFrame({cell: [cell, "a=1"], "list": [[cell], ["b"]]})
    path = write_csv(frame, tmp_path / "a.csv")
    text = path.read_bytes().decode()
    head, first, second = csv.reader(io.StringIO(text, newline=""))
    assert head == ["'" + cell, "list"]
    assert first == ["'" + cell, json.dumps([cell], ensure_ascii=False)]
    assert second == ["a=1", '["b"]']


def test_long_tables_and_texts_are_cut_and_say_so():
    shown = table_of(pl.DataFrame({"a": ["x" * 1000] * 60}), rest="a.csv")
    assert shown.count("<tr>") == 51
    assert "10 more rows in a.csv." in shown
    assert "x" * 239 + "…" in shown
    assert "x" * 240 not in shown


@pytest.mark.redis
def test_an_archive_needs_no_server(redis, redis_url, tmp_path):
    publisher = Publisher(redis_url)
    for price in range(3):
        trade = {"symbol": "A", "price": price + 1.0, "quantity": 9.0}
        publisher.publish(Event.new("market.trade", trade))
    with Archiver(redis, tmp_path / "kept", ["market.events"]) as archiver:
        archiver.catch_up()
    redis.flushall()
    made = cep.report(
        tmp_path / "a.html",
        rules=large,
        url="redis://localhost:1",
        archive=tmp_path / "kept",
        live=False,
    )
    [row] = rows_of(made.tables["accounting"])
    assert row["events"] == "3"
    assert len(made.found.result.events) > 0
    assert f"archive {tmp_path / 'kept'}" in made.path.read_text(encoding="utf-8")
