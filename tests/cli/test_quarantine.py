"""What a pipeline has given up on: shown, tried again, written to files, removed."""

import base64
import json

import live
import polars as pl
import pytest

from cep import e, emit, on, py, rule
from cep.bus.keys import dlq_key
from cep.cli import main
from cep.events.codec import encode
from cep.pipeline import stream
from cep.pipeline.quarantine import Quarantine, fields_of, printable, raw_of

pytestmark = pytest.mark.redis

T = live.START_MS
STREAMS = [stream(live.MARKET, max_out_of_orderness="250ms")]


@rule("picky")
def picky():
    def fails(price):
        return 1 / (price - 13)

    good = py(fails, reads=[e.price]) > -1
    return on("market.trade").where(good), emit(price=e.price)


def entry(number, time_ms=T, price=1.0, **changes):
    fields = encode(live.trade(number, time_ms, price=price))
    return fields | {name.encode(): value for name, value in changes.items()}


@pytest.fixture
def rows(redis, redis_url):
    """A pipeline `p` with a row of most kinds; returns them as it lists them."""
    entries = [
        entry(1, T + 900),
        entry(2, T),  # late
        entry(1, T + 900),  # duplicate
        entry(3, T + 900, 13.0),  # the rule fails
        entry(4, T + 901, type=b"market.trad"),
        entry(5, T + 902, data=b'{"symbol":"\x1b[2J"'),
        entry(6, T + 903, user_id=b"x" * 5000, version=b"9"),
        entry(7, T + 904),
    ]
    live.write(
        redis, [(live.MARKET, f"{T + i}-0", one) for i, one in enumerate(entries)]
    )
    live.once(redis_url, live.pipeline(rules=[picky], streams=STREAMS))
    live.write(redis, [(live.MARKET, f"{T + 50}-0", entry(8, T + 1500))])
    live.once(redis_url, live.pipeline(rules=[picky], streams=STREAMS))
    return {(row.kind, row.reason): row for row in Quarantine(redis, "p").rows()}


def run(capsys, *words, url=None, code=0):
    """Run a command; return what it printed to stdout and stderr."""
    command = ["quarantine", *words]
    assert main(command if url is None else [*command, "--redis", url]) == code
    shown = capsys.readouterr()
    return shown.out, shown.err


def test_list_counts_by_what_and_where_and_shows_the_latest(rows, redis_url, capsys):
    assert set(rows) == {
        ("late", "late"),
        ("duplicate", "duplicate"),
        ("rule", "rule_error"),
        ("quarantine", "unknown_type"),
        ("quarantine", "malformed_json"),
        ("quarantine", "unknown_version"),
    }
    out, _ = run(capsys, "list", "p", url=redis_url)
    assert out.startswith("pipeline p: 6 rows\n")
    assert "quarantine unknown_type" in out
    assert "rule rule_error                   market.events  picky\n" in out
    assert "\x1b" not in out
    out, _ = run(
        capsys, "list", "p", "--kind", "quarantine", "--rows", "0", url=redis_url
    )
    assert out.startswith("pipeline p: 3 rows\n")
    assert len(out.splitlines()) == 4


def test_list_as_json(rows, redis_url, capsys):
    out, _ = run(capsys, "list", "p", "--json", "--rule", "picky", url=redis_url)
    found = json.loads(out)
    assert (found["pipeline"], found["rows"]) == ("p", 1)
    assert found["counts"] == [
        {
            "kind": "rule",
            "reason": "rule_error",
            "stream": live.MARKET,
            "rule": "picky",
            "rows": 1,
            "lost": 0,
        }
    ]
    [latest] = found["latest"]
    assert latest["entry_id"] == f"{T + 3}-0"
    assert base64.b64decode(latest["raw"]) == raw_of(entry(3, T + 900, 13.0).items())


def test_show_prints_everything_safely(rows, redis_url, capsys):
    row = rows["quarantine", "malformed_json"]
    out, _ = run(capsys, "show", "p", row.id, url=redis_url)
    assert "\x1b" not in out
    assert r'  data={"symbol":"\x1b[2J"' in out
    assert f"entry_id    {T + 5}-0\n" in out
    assert f"sha256      {row.sha256}\n" in out
    assert "all of them:" in out
    cut = rows["quarantine", "unknown_version"]
    out, _ = run(capsys, "show", "p", cut.id, url=redis_url)
    assert "the first 4,096 of them:" in out
    found = json.loads(run(capsys, "show", "p", cut.id, "--json", url=redis_url)[0])
    assert found["raw_length"] == cut.raw_length > 5000


def mended(redis, row, **changes):
    """Let a row be about the same entry, but good, and gone from its stream."""
    fields = entry(4, T + 2000, **changes)
    raw = raw_of(fields.items())
    redis.xdel(live.MARKET, row.entry_id)
    key = dlq_key("p")
    [(_, old)] = redis.xrange(key, row.id, row.id)
    return redis.xadd(
        key, old | {b"raw": raw, b"raw_length": len(raw), b"sha256": "0"}
    ).decode()


def test_retry_publishes_once_what_is_good_now(rows, redis, redis_url, capsys):
    row_id = mended(redis, rows["quarantine", "unknown_type"])
    before = redis.xlen(live.MARKET)
    out, err = run(capsys, "retry", "p", row_id, url=redis_url)
    assert out.splitlines()[-1] == "1 published, 0 not"
    assert err == ""
    [(entry_id, fields)] = redis.xrevrange(live.MARKET, count=1)
    assert fields == entry(4, T + 2000)
    assert entry_id.decode() in out
    out, err = run(capsys, "retry", "p", row_id, url=redis_url, code=1)
    assert out == "0 published, 1 not\n"
    assert f"was published already, as {entry_id.decode()}" in err
    assert redis.xlen(live.MARKET) == before + 1


def test_retry_takes_the_entry_from_its_stream_where_it_is_longer_than_the_row(
    rows, redis, redis_url, capsys
):
    row = rows["quarantine", "unknown_version"]
    _, err = run(capsys, "retry", "p", row.id, "--now", url=redis_url, code=1)
    assert "it is still no event of ours (unknown_version" in err
    redis.xdel(live.MARKET, row.entry_id)
    _, err = run(capsys, "retry", "p", row.id, "--now", url=redis_url, code=1)
    assert "is gone from market.events, and only 4,096 of its 5," in err


def test_retry_of_a_late_event_needs_the_present(rows, redis, redis_url, capsys):
    row = rows["late", "late"]
    before = redis.xlen(live.MARKET)
    _, err = run(capsys, "retry", "p", row.id, url=redis_url, code=1)
    assert "it would be late; --now gives it the present" in err
    assert redis.xlen(live.MARKET) == before
    run(capsys, "retry", "p", row.id, "--now", url=redis_url)
    [(_, fields)] = redis.xrevrange(live.MARKET, count=1)
    assert fields[b"id"] == entry(2)[b"id"]
    assert fields[b"timestamp"] > b"2026"
    live.drained(redis, redis_url, live.pipeline(rules=[picky], streams=STREAMS))
    counts = live.counts(redis)[live.MARKET]
    assert (counts["late"], counts["duplicate"]) == (1, 1)


def test_retry_refuses_what_was_processed(rows, redis, redis_url, capsys):
    before = redis.xlen(live.MARKET)
    out, err = run(capsys, "retry", "p", "--kind", "rule", url=redis_url, code=1)
    assert "all other rules have processed the event" in err
    out, err = run(capsys, "retry", "p", "--kind", "duplicate", url=redis_url, code=1)
    assert "the event it is a copy of was processed" in err
    assert out == "0 published, 1 not\n"
    assert redis.xlen(live.MARKET) == before


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_export_writes_every_row(ending, rows, redis_url, tmp_path, capsys):
    path = tmp_path / f"rows.{ending}"
    out, _ = run(capsys, "export", "p", str(path), url=redis_url)
    assert out == f"6 rows in {path}\n"
    if ending == "jsonl":
        found = [json.loads(line) for line in path.read_text().splitlines()]
        raw = {row["id"]: base64.b64decode(row["raw"]) for row in found}
    else:
        found = pl.read_parquet(path).to_dicts()
        raw = {row["id"]: row["raw"] for row in found}
    assert raw == {row.id: row.raw for row in rows.values()}
    assert [row["reason"] for row in found].count("late") == 1
    _, err = run(capsys, "export", "p", str(path), url=redis_url, code=2)
    assert "--force writes over it" in err


def test_purge_removes_what_was_named_and_no_more(rows, redis, redis_url, capsys):
    _, err = run(capsys, "purge", "p", url=redis_url, code=2)
    assert err.startswith("error: Which rows?")
    _, err = run(capsys, "purge", "p", "--kind", "late", url=redis_url, code=2)
    assert "1 rows would be removed for good. Add --yes" in err
    assert redis.xlen(dlq_key("p")) == 6
    out, _ = run(
        capsys, "purge", "p", "--all", "--older-than", "1h", "--yes", url=redis_url
    )
    assert out == "0 rows removed\n"
    out, _ = run(capsys, "purge", "p", "--kind", "late", "--yes", url=redis_url)
    assert out == "1 rows removed\n"
    left = rows["rule", "rule_error"].id
    run(capsys, "purge", "p", left, "--yes", url=redis_url)
    assert redis.xlen(dlq_key("p")) == 4
    run(capsys, "purge", "p", "--all", "--older-than", "0s", "--yes", url=redis_url)
    run(capsys, "purge", "p", "--all", "--yes", url=redis_url)
    assert redis.xlen(dlq_key("p")) == 0


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["list", "q"], "There is no pipeline 'q' on this server."),
        (["show", "p", "1-1"], "Pipeline 'p' has no row '1-1'."),
        (["show", "p", "what"], "Pipeline 'p' has no row 'what'."),
        (["export", "p", "rows.csv"], "is neither a .parquet nor a .jsonl file"),
        (["list", "p", "--older-than", "7"], "'7' is not a duration"),
        (["lst", "p"], "No such command 'lst'"),
        ([], "Missing command"),
    ],
)
def test_a_mistake_is_one_line(words, line, redis, redis_url, capsys):
    redis.xadd(dlq_key("p"), {"kind": "late"})
    url = redis_url if words and words[0] != "lst" else None
    out, err = run(capsys, *words, url=url, code=2)
    assert out == ""
    assert err.startswith("error: ")
    assert line in err
    assert err.count("\n") == 1


def test_rows_of_hostile_content_are_shown(redis, redis_url, capsys):
    fields = {
        "kind": "\x1b]0;x\x07",
        "stream": b"\xff",
        "raw_length": "-1",
        "raw": "\r",
    }
    row_id = redis.xadd(dlq_key("p"), fields).decode()
    for words in (["list", "p"], ["show", "p", row_id], ["list", "p", "--json"]):
        out, _ = run(capsys, *words, url=redis_url)
        assert not {"\x1b", "\x07", "\r"} & set(out)
    run(capsys, "retry", "p", row_id, url=redis_url, code=1)


def test_near_names_of_pipelines_are_offered(redis, redis_url, capsys):
    redis.xadd(dlq_key("market-ai"), {"kind": "late"})
    _, err = run(capsys, "list", "market-ia", url=redis_url, code=2)
    assert "Did you mean 'market-ai'?" in err


def test_fields_are_taken_from_bytes_only_beyond_doubt():
    fields = list(entry(1).items())
    assert fields_of(raw_of(fields)) == fields
    assert fields_of(raw_of([*fields, (b"extra", b"1")])) == []
    assert fields_of(raw_of(fields[1:])) == []
    assert fields_of(raw_of([*fields, fields[0]])) == []
    twice = [(b"id", b"1\nid=2"), *fields[1:]]
    assert fields_of(raw_of(twice)) == []
    assert printable("a\u202eb\n") == "a\\u202eb\\n"
