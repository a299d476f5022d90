from datetime import UTC, datetime, timedelta

import msgspec
import polars as pl
import pytest

from cep.cli import main
from cep.events import registry


@pytest.fixture
def trades(tmp_path):
    """A file of three trades, the second later than the third."""
    start = datetime(2024, 8, 8, 12, tzinfo=UTC)
    path = tmp_path / "trades.parquet"
    pl.DataFrame(
        {
            "ts": [start, start + timedelta(seconds=2), start + timedelta(seconds=1)],
            "symbol": ["BTCUSDT"] * 3,
            "px": [1.0, 2.0, 3.0],
            "qty": [1.0, 1.0, 1.0],
        }
    ).write_parquet(path)
    return path


def command(path, url, *more):
    return [
        "replay", str(path), "--type", "market.trade", "--redis", url,
        "--map", "price=px,quantity=qty", *more,
    ]  # fmt: skip


def payloads(redis):
    return [msgspec.json.decode(e[b"data"]) for _, e in redis.xrange("market.events")]


@pytest.mark.redis
def test_publishes_a_file_with_mapping_and_constants(trades, redis, redis_url, capsys):
    assert main(command(trades, redis_url, "--set", "venue=a,b=c")) == 0
    assert payloads(redis)[0] == {
        "symbol": "BTCUSDT", "price": 1.0, "quantity": 1.0, "venue": "a,b=c",
    }  # fmt: skip
    shown = capsys.readouterr()
    assert "market.events: 3 events" in shown.out
    assert "1 of 3 rows for market.events are earlier" in shown.err
    assert "by 1 s at most" in shown.err


@pytest.mark.redis
def test_sort_publishes_by_event_time(trades, redis, redis_url):
    assert main(command(trades, redis_url, "--sort")) == 0
    assert [payload["price"] for payload in payloads(redis)] == [1.0, 3.0, 2.0]


@pytest.mark.redis
def test_shift_to_now_ends_now(trades, redis, redis_url):
    before = datetime.now(UTC)
    assert main(command(trades, redis_url, "--shift-to-now")) == 0
    times = [
        datetime.fromisoformat(entry[b"timestamp"].decode())
        for _, entry in redis.xrange("market.events")
    ]
    assert before - timedelta(milliseconds=1) <= max(times) <= datetime.now(UTC)
    assert max(times) - min(times) == timedelta(seconds=2)


@pytest.mark.redis
def test_the_sample_says_that_its_clocks_were_laid_together(redis, redis_url, capsys):
    assert main(["replay", "sample", "--redis", redis_url]) == 0
    shown = capsys.readouterr()
    assert "no causal relation" in shown.err
    assert shown.out.startswith(
        "market.events: 59,678 events\nai.events: 1,303 events\n60,981 events in"
    )
    assert redis.xlen("ai.events") == 1_303


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--map", "prcie=px"], "no field 'prcie'. Did you mean 'price'?"),
        (["--map", "price=pxx"], "no column 'pxx'. Did you mean 'px'?"),
        (["--time", "tss"], "no column 'tss'. Did you mean 'ts'?"),
        (["--type", "market.trad"], "Did you mean 'market.trade'"),
        (["--stream", "market.event"], "lives in 'market.events'"),
        (["--speed", "fast"], "--speed fast is no speed"),
        (["--speed", "-1"], "--speed -1 is no speed"),
        (["--set", "venue"], "--set venue is no constant"),
        (["--time-unit", "m"], "'m' is no unit of time"),
        (["--import", "no_such_module"], "--import no_such_module"),
        (["--map", "price=symbol,quantity=qty"], "data.price[0]"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(trades, more, line, capsys):
    assert main(command(trades, "redis://127.0.0.1:1", *more)) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ")
    assert line in shown.err
    assert shown.err.count("\n") == 1


def test_a_missing_file_and_a_missing_type_are_mistakes(tmp_path, capsys):
    assert main(["replay", str(tmp_path / "x.parquet"), "--type", "market.trade"]) == 2
    assert main(["replay", "x.parquet"]) == 2
    assert main(["replay", "sample", "--type", "market.trade"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert "There is no file" in lines[0]
    assert "Add --type" in lines[1]
    assert "The sample says itself what it is" in lines[2]


def test_no_server_is_exit_code_1_without_a_traceback(trades, capsys):
    assert main(command(trades, "redis://:secret@127.0.0.1:1")) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: Cannot use Redis at redis://")
    assert "secret" not in last


def test_types_of_an_imported_module_can_be_replayed(
    tmp_path, monkeypatch, redis, redis_url
):
    monkeypatch.setattr(registry, "_types", registry.copy()._types)
    (tmp_path / "my_lab_events.py").write_text(
        "import pydantic\n"
        "from cep.events import register\n"
        "@register('lab.sample.taken', stream='lab.events')\n"
        "class Taken(pydantic.BaseModel):\n"
        "    level: float\n"
    )
    (tmp_path / "levels.csv").write_text("time,level\n2024-08-08T12:00:00Z,1.5\n")
    monkeypatch.chdir(tmp_path)
    words = "replay levels.csv --type lab.sample.taken --import my_lab_events"
    assert main([*words.split(), "--redis", redis_url]) == 0
    [(_, entry)] = redis.xrange("lab.events")
    assert entry[b"data"] == b'{"level":1.5}'
    assert entry[b"timestamp"] == b"2024-08-08T12:00:00.000Z"
