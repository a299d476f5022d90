"""`cep run --log json`: what goes on, one JSON object a line."""

import json
from datetime import datetime

import live
import pytest

from cep.bus.embedded import EmbeddedServer
from cep.cli import main
from cep.cli.log import Log, LogForm
from cep.pipeline import load_pipeline
from cep.pipeline.accounting import Counts
from cep.pipeline.summary import Summary

T = live.START_MS
CANARY = "hunter2-canary"
MODULE = '''
from cep import Pipeline, e, emit, on, py, rule, stream

def fails(price):
    raise ValueError(price)

@rule("broken")
def broken():
    """Fails on each trade."""
    return on("market.trade").where(py(fails, reads=[e.price])), emit(price=e.price)

pipeline = Pipeline(
    "p", [broken], [stream("market.events", max_out_of_orderness="0ms", idle=None)]
)
'''


@pytest.fixture
def module(tmp_path):
    path = tmp_path / "my_rules.py"
    path.write_text(MODULE)
    return str(path)


def lines(capsys):
    """What was written on stderr: each line an object of the six names."""
    shown = capsys.readouterr()
    found = [json.loads(line) for line in shown.err.splitlines()]
    for line in found:
        assert list(line) == [
            "time", "level", "event", "pipeline", "message", "fields",
        ]  # fmt: skip
        assert datetime.fromisoformat(line["time"]).utcoffset().total_seconds() == 0
    assert CANARY not in shown.err
    return [line for line in found if line["event"] != "compiling"]


@pytest.mark.redis
def test_a_run_is_told_from_start_to_end(module, tmp_path, capsys):
    with EmbeddedServer(tmp_path / "server", password=CANARY) as server:
        client = live.client(server.url)
        live.write(
            client,
            [
                (live.MARKET, f"{T + i}-0", live.trade(i, T + i, symbol=CANARY))
                for i in range(9)
            ],
        )
        command = ["run", module, "--redis", server.url, "--drain", "--log", "json"]
        assert main(command) == 0
        start, *others, end = lines(capsys)
        assert (start["event"], start["level"]) == ("start", "info")
        assert start["pipeline"] == "p"
        assert start["fields"]["streams"] == ["market.events"]
        assert start["fields"]["server"].startswith("redis://***@")
        [stopped] = [x for x in others if x["event"] == "rule_stopped"]
        assert stopped["level"] == "error"
        assert stopped["fields"] == {"rule": "broken", "cause": "errors"}
        assert end["event"] == "end"
        counts = {"read": 9, "processed": 9, "exit_code": 0, "input_ended": True}
        assert counts.items() <= end["fields"].items()
        # The same again: the end is an error now, with the code of the process.
        assert main(command) == 2
        *_, error = lines(capsys)
        assert (error["event"], error["level"]) == ("error", "error")
        assert error["fields"] == {"error": "UsageError", "exit_code": 2}
        assert "was declared to have ended" in error["message"]


@pytest.mark.redis
def test_a_gap_is_told_with_its_count(module, redis, redis_url, capsys):
    def trades(numbers):
        live.write(
            redis,
            [(live.MARKET, f"{T + i}-0", live.trade(i, T + i)) for i in numbers],
        )

    trades(range(3))
    live.once(redis_url, load_pipeline(module))
    trades(range(3, 9))
    redis.xtrim(live.MARKET, minid=f"{T + 5}-0", approximate=False)
    main(["run", module, "--redis", redis_url, "--drain", "--log", "json"])
    [gap] = [line for line in lines(capsys) if line["event"] == "gap"]
    assert gap["level"] == "error"
    fields = {"stream": "market.events", "after": f"{T + 2}-0", "missing": 2}
    assert gap["fields"] == fields
    assert gap["message"].startswith("market.events lost 2 entries after")


@pytest.mark.parametrize("url", ["redis://ada:" + CANARY + "@127.0.0.1:1", "http://x"])
def test_what_keeps_it_from_starting_is_a_line_too(url, module, capsys):
    code = main(["run", module, "--redis", url, "--log", "json"])
    [error] = lines(capsys)
    assert error["fields"]["exit_code"] == code
    assert code in (1, 2)


def test_a_status_comes_as_text_or_as_fields(capsys):
    summary = Summary(
        "p",
        {"s": Counts(read=7, processed=4, buffered=3)},
        {"r": {"emitted": 2}},
        commits=5,
        seconds=1.0,
        held_back_by="s",
    )
    Log(LogForm.text, every_seconds=0).status(summary)
    assert "4 processed, 3 buffered, waits for s, 2 derived" in capsys.readouterr().err
    Log(LogForm.json, every_seconds=0).status(summary)
    [status] = lines(capsys)
    expected = {"read": 7, "buffered": 3, "held_back_by": "s", "emitted": 2}
    assert expected.items() <= status["fields"].items()
    Log(LogForm.json, quiet=True, every_seconds=0).status(summary)
    assert not capsys.readouterr().err
