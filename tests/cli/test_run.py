import json
import os
import signal
import subprocess
import sys
import threading

import live
import pytest
from flaky import FlakyLink

from cep.bus import ColumnarReader
from cep.bus.keys import meta_key, ticks_key
from cep.cli import main
from cep.pipeline import limits
from cep.pipeline.store import Store

T = live.START_MS

MODULE = '''
from cep import Pipeline, e, emit, on, rule, stream

@rule("every")
def every():
    """Any trade."""
    return on("market.trade"), emit(price=e.price)

pipeline = Pipeline(
    "p", [every], [stream("market.events", max_out_of_orderness="250ms", idle=None)]
)
'''


@pytest.fixture(autouse=True)
def _quick_reads(monkeypatch):
    monkeypatch.setattr(limits, "BLOCK_MS", 1)


@pytest.fixture(autouse=True)
def _signals():
    """The command sets handlers for its process, here that of the tests."""
    kept = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.fixture
def module(tmp_path):
    path = tmp_path / "my_rules.py"
    path.write_text(MODULE)
    return str(path)


def trades(redis, *times_ms):
    entries = [
        (live.MARKET, f"{T + i}-0", live.trade(i, T + ms, price=float(i)))
        for i, ms in enumerate(times_ms)
    ]
    live.write(redis, entries)


def one_line(capsys):
    shown = capsys.readouterr()
    assert shown.out == ""
    # Besides what is read, and, where nothing was compiled yet, that.
    others = ("Compiling", "[")
    lines = [x for x in shown.err.splitlines(True) if not x.startswith(others)]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


# Ends -------------------------------------------------------------------------


@pytest.mark.redis
def test_drain_ends_with_a_summary_that_accounts_for_every_entry(
    module, redis, redis_url, capsys
):
    trades(redis, 0, 400, 100, 500)
    redis.xadd(live.MARKET, {"a": "b"}, f"{T + 9}-0")
    assert main(["run", module, "--redis", redis_url, "--drain"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("pipeline p, ")
    assert "  all: read 5 = processed 3 + late 1 + quarantined 1 + dup" in shown.out
    assert "  every       3 derived, 0 suppressed by cooldown, 3 matches" in shown.out
    *compiling, start = shown.err.splitlines()
    assert start.endswith(f"] pipeline p reads market.events at {redis_url}")
    # On a machine where nothing was compiled yet it says so.
    assert all(line.startswith("Compiling kernels") for line in compiling)


@pytest.mark.redis
def test_json_is_one_object_on_stdout(module, redis, redis_url, capsys):
    trades(redis, 0, 400)
    assert main(["run", module, "--redis", redis_url, "--drain", "--json"]) == 0
    shown = capsys.readouterr()
    summary = json.loads(shown.out)
    assert shown.out.count("\n") == 1
    counts = {
        "read": 2, "processed": 2, "late": 0, "quarantined": 0,
        "duplicate": 0, "buffered": 0, "gaps": 0,
    }  # fmt: skip
    assert summary["accounting"] == counts
    assert summary["streams"] == {"market.events": counts}
    assert summary["rules"]["every"]["emitted"] == 2
    assert summary["ended"] is True
    assert {"pipeline", "commits", "seconds"} < summary.keys()


@pytest.mark.redis
def test_a_drained_pipeline_says_so_in_one_line_when_it_is_started_again(
    module, redis, redis_url, capsys
):
    trades(redis, 0)
    main(["run", module, "--redis", redis_url, "--drain"])
    before = redis.hgetall(meta_key("p"))[b"seq"]
    capsys.readouterr()
    for more in ([], ["--drain"]):
        assert main(["run", module, "--redis", redis_url, *more]) == 2
        line = one_line(capsys)
        assert (
            "pipeline 'p' was declared to have ended; all of it was processed" in line
        )
        assert "Give the pipeline another name" in line
    assert redis.hgetall(meta_key("p"))[b"seq"] == before


@pytest.mark.redis
def test_a_drain_that_could_not_start_declares_no_end(module, redis, redis_url, capsys):
    redis.set(meta_key("p"), "text")
    assert main(["run", module, "--redis", redis_url, "--drain"]) == 2
    assert "The key cep:{p}:meta is a string, not a hash" in one_line(capsys)
    assert not redis.exists(ticks_key("p"))


def when(condition, what):
    """Do something in another thread once a condition holds."""

    def wait():
        live.wait_until(condition)
        what()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


@pytest.mark.redis
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_after_a_commit(number, module, redis, redis_url, capsys):
    trades(redis, 0, 400, 410)
    when(lambda: live.commits(redis) > 0, lambda: os.kill(os.getpid(), number))
    assert main(["run", module, "--redis", redis_url]) == 0
    shown = capsys.readouterr()
    assert (
        "all: read 3 = processed 1 + late 0 + quarantined 0 + duplicate 0 + buffered 2"
    ) in shown.out
    assert live.counts(redis)["market.events"]["buffered"] == 2
    assert main(["run", module, "--redis", redis_url, "--drain"]) == 0
    assert "all: read 3 = processed 3" in capsys.readouterr().out


@pytest.mark.redis
@pytest.mark.slow
def test_a_signal_ends_the_process_after_a_commit(module, redis, redis_url):
    trades(redis, 0, 400, 410)
    with live.Process(module, redis_url) as process:
        live.wait_until(lambda: live.commits(redis) > 0)
        process.send(signal.SIGTERM)
        code, out, err = process.ended()
    assert (code, "Traceback" in err) == (0, False)
    assert "all: read 3 = processed 1" in out


@pytest.mark.redis
def test_a_second_interrupt_does_not_wait(module, redis_url, monkeypatch):
    def hangs(self, block_ms, **options):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError

    monkeypatch.setattr(ColumnarReader, "read", hangs)
    assert main(["run", module, "--redis", redis_url]) == 130


@pytest.mark.redis
def test_a_process_whose_place_was_taken_ends_with_code_3(
    module, redis, redis_url, capsys
):
    trades(redis, 0)
    other = Store(redis, "p")

    def take_over():
        other.take_over(force=True)
        redis.xadd(live.MARKET, {"a": "b"})

    when(lambda: live.commits(redis) > 0, take_over)
    assert main(["run", module, "--redis", redis_url]) == 3
    line = one_line(capsys)
    assert "Pipeline 'p' now belongs to another process" in line
    assert other.owner in line


@pytest.mark.redis
def test_a_server_that_is_lost_for_a_while_is_waited_for(
    module, redis, redis_url, capsys
):
    trades(redis, 0, 400)
    with FlakyLink(redis_url, [10_000, 10_000, 10]) as link:
        assert main(["run", module, "--redis", link.url, "--drain"]) == 0
    shown = capsys.readouterr()
    assert "all: read 2 = processed 2" in shown.out
    assert "Starting from the last commit in 0.1 s." in shown.err


# Mistakes ---------------------------------------------------------------------


def test_no_server_is_one_line_without_credentials(module, capsys):
    url = "redis://ada:hunter2@127.0.0.1:1/0"
    for more in ([], ["--drain"]):
        assert main(["run", module, "--redis", url, *more]) == 1
        line = one_line(capsys)
        assert "redis://ada:***@127.0.0.1:1/0" in line
        assert "Start a server there, or set CEP_REDIS_URL" in line
        assert "hunter2" not in line


@pytest.mark.redis
def test_a_wrong_password_is_one_line_without_credentials(
    module, redis, redis_url, capsys
):
    url = redis_url.replace("redis://", "redis://ada:hunter2@")
    assert main(["run", module, "--redis", url]) == 6
    line = one_line(capsys)
    assert "Check the user and password" in line
    assert "hunter2" not in line


@pytest.mark.parametrize("url", ["http://x", "redis://:hunter2@host/0?hunter2=1"])
def test_a_url_that_is_none_is_a_mistake(url, module, capsys):
    assert main(["run", module, "--redis", url]) == 2
    assert "hunter2@" not in one_line(capsys)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import json\n\n\nx = 1 / 0\n", ":4: ZeroDivisionError: division by zero."),
        ("def f(:\n  pass\n", ":1: SyntaxError: "),
        ("\nimport no_such_module\n", ":2: ModuleNotFoundError: No module named"),
        ("import json\njson.loads('{')\n", ":2: JSONDecodeError: "),
        ("x = 1\n", " defines no rules. Decorate a function with @rule(...)."),
        (MODULE.replace(".price", ".prcie"), "no field 'prcie'. Did you mean 'price'"),
        (MODULE.replace(".trade", ".trad"), "Did you mean 'market.trade'"),
        (MODULE.replace("250ms", "250"), "a bare number says no unit"),
        (MODULE + "second = Pipeline('q', [every])\n", "defines 2 pipelines. Keep one"),
        (MODULE.replace("[every],", "[],"), "Pipeline 'p' has no rules"),
        (MODULE.replace("[every],", "[1],"), "Pipeline 'p' has no rules, or something"),
        (MODULE.replace('"p"', '"{p}"'), "'{p}' cannot name a pipeline"),
        (MODULE.replace("[every],", "[every, every],"), "has two rules named 'every'"),
        ("import sys\nsys.exit(7)\n", ":2: SystemExit: 7."),
    ],
)  # fmt: skip
def test_a_mistake_in_the_module_is_one_line_that_says_where(
    text, expected, tmp_path, capsys
):
    path = tmp_path / "my_rules.py"
    path.write_text(text)
    assert main(["run", str(path), "--redis", "redis://127.0.0.1:1"]) == 2
    line = one_line(capsys)
    assert expected in line
    if expected.startswith((":", " defines")):
        assert f"{path}{expected}" in line


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("my_ruels.py", "There is no file"),
        ("", "There is no file"),
        ("notes.txt", "is not a Python file. Give a .py file."),
    ],
)
def test_a_module_that_is_no_python_file_is_a_mistake(
    name, expected, module, tmp_path, capsys
):
    (tmp_path / "notes.txt").write_text("x = 1")
    assert main(["run", str(tmp_path / name), "--redis", "redis://127.0.0.1:1"]) == 2
    assert expected in one_line(capsys)


def test_a_path_that_is_almost_one_tells_the_near_one(module, tmp_path, capsys):
    assert main(["run", str(tmp_path / "my_ruels.py")]) == 2
    assert "Did you mean 'my_rules.py'?" in one_line(capsys)


def test_rules_without_a_pipeline_run_on_their_home_streams(tmp_path):
    from cep.pipeline import load_pipeline

    path = tmp_path / "some_rules.py"
    path.write_text(MODULE.partition("pipeline =")[0])
    found = load_pipeline(path)
    assert found.name == "some-rules"
    assert [stream.name for stream in found.streams] == ["market.events"]
    assert [rule.name for rule in found.rules] == ["every"]


@pytest.mark.redis
def test_an_unknown_option_is_a_mistake(module, capsys):
    assert main(["run", module, "--drian"]) == 2
    assert "--drian" in one_line(capsys)


@pytest.mark.slow
def test_help_loads_neither_kernels_nor_redis():
    code = (
        "import sys\nfrom cep.cli import main\nmain(['run', '--help'])\n"
        "heavy = {'numba', 'redis', 'numpy', 'polars'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
