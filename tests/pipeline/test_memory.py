"""Memory: what there is, what may be used, and the end before the system's."""

import live
import pytest

from cep import e, emit, m, on, rule, seq
from cep.cli import main
from cep.engine import interner
from cep.errors import MemoryLimitError, UsageError
from cep.pipeline import session, stream
from cep.pipeline.memory import default_limit, resident_bytes, size_bytes

T = live.START_MS


@rule("every")
def every():
    return on("market.trade"), emit(price=e.price)


EVERY = live.pipeline(
    rules=[every], streams=[stream(live.MARKET, max_out_of_orderness="0ms")]
)


def trades(redis, n):
    live.write(
        redis,
        [(live.MARKET, f"{T + i}-0", live.trade(i, T + i)) for i in range(n)],
    )


@pytest.mark.parametrize("text", ["5", "0MB", "MB", "-1MB", "1 MB", "1TB", "1e3MB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UsageError, match=r"is not a size\. Write a number and"):
        size_bytes(text)


def test_resident_memory_is_that_of_this_process():
    before = resident_bytes()
    held = bytearray(b"x" * 50_000_000)
    assert resident_bytes() - before > 40_000_000
    assert len(held) == 50_000_000


def test_the_smallest_limit_of_machine_and_groups_counts(tmp_path):
    machine = default_limit(tmp_path, tmp_path)
    assert machine > 10**8
    groups, proc = tmp_path / "groups", tmp_path / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "self/cgroup").write_text("0::/outer/inner\n")
    (groups / "outer/inner").mkdir(parents=True)
    (groups / "outer/inner/memory.max").write_text("max\n")
    assert default_limit(proc, groups) == machine
    (groups / "outer/memory.max").write_text("100000000\n")
    assert default_limit(proc, groups) == 80_000_000
    (groups / "memory").mkdir()
    (groups / "memory/memory.limit_in_bytes").write_text("9223372036854771712")
    assert default_limit(proc, groups) == 80_000_000
    (groups / "outer/inner/memory.max").write_text("50000000\n")
    assert default_limit(proc, groups) == 40_000_000


@pytest.mark.redis
def test_a_process_with_too_much_memory_commits_and_ends(
    redis, redis_url, limits, monkeypatch
):
    """Started again it goes on where it was: nothing is lost, nothing twice."""
    limits(MEMORY_SECONDS=0, READ_COUNT=10)
    trades(redis, 95)
    live.declare_end(redis)
    ends = 0
    monkeypatch.setattr(session, "resident_bytes", lambda: 2_000_000)
    while live.counts(redis).get(live.MARKET, {"read": 0})["read"] < 95:
        before = live.commits(redis)
        with pytest.raises(MemoryLimitError) as caught:
            live.run(redis_url, EVERY, max_rss=1_000_000)
        assert caught.value.limit_bytes == 1_000_000
        assert live.commits(redis) > before
        ends += 1
    assert ends == 10
    live.run(redis_url, EVERY, max_rss=3_000_000)
    assert len(live.came(redis).ids) == 95
    assert live.came(redis).twice == []


@pytest.mark.redis
def test_a_process_within_its_limit_runs_on(redis, redis_url, limits):
    limits(MEMORY_SECONDS=0)
    trades(redis, 10)
    assert live.drained(redis, redis_url, EVERY).total.processed == 10


@pytest.mark.redis
def test_the_command_ends_with_code_4(redis, redis_url, tmp_path, capsys, monkeypatch):
    module = tmp_path / "rules.py"
    module.write_text(
        "from cep import e, emit, on, rule\n"
        "@rule('every')\n"
        "def every():\n"
        "    return on('market.trade'), emit(price=e.price)\n"
    )
    monkeypatch.setattr("cep.pipeline.limits.MEMORY_SECONDS", 0)
    command = ["run", str(module), "--redis", redis_url, "--quiet"]
    assert main([*command, "--max-rss", "1MB"]) == 4
    assert "allowed: 1 MB. All it did is committed" in capsys.readouterr().err
    assert main([*command, "--max-rss", "much"]) == 2
    assert "'much' is not a size" in capsys.readouterr().err


@rule("slow-answer", key="request_id")
def slow_answer():
    asked = on("ai.inference.requested", name="asked")
    again = on("ai.inference.requested", name="again")
    return seq(asked).not_then(again).within("50ms"), emit(t=m.asked.context_tokens)


def held(redis, redis_url, monkeypatch, n=4_000):
    """Run over requests of which no two have an id in common.

    Returns the most strings and keys that were held, looked at after each read.
    """
    times = [(i, T + 10 * i) for i in range(n)]
    live.write(redis, [(live.AI, f"{t}-0", live.request(i, t)) for i, t in times])
    live.declare_end(redis)
    operators, most = [], {"texts": 0, "keys": 0}

    class Watched(session.Operator):
        def __init__(self, rules):
            super().__init__(rules)
            operators.append(self)

        def step(self, *args, **more):
            found = super().step(*args, **more)
            most.update(
                {name: max(n, getattr(self, name)()) for name, n in most.items()}
            )
            return found

    monkeypatch.setattr(session, "Operator", Watched)
    what = live.pipeline(rules=[slow_answer], streams=[stream(live.AI, idle=None)])
    assert live.run(redis_url, what).total.processed == n
    assert len(operators) == 1
    return most


@pytest.mark.redis
def test_strings_and_keys_that_come_once_are_let_go(
    redis, redis_url, limits, monkeypatch
):
    limits(READ_COUNT=100)
    monkeypatch.setattr(interner, "TEXTS", 500)
    monkeypatch.setattr("cep.engine.operator.SWEEP_AT", 300)
    most = held(redis, redis_url, monkeypatch)
    # What is swept or dropped at is passed by the entries of two reads at most.
    assert 300 < most["keys"] < 500 + 2 * 100
    assert 300 < most["texts"] < 2 * 500 + 2 * 100


@pytest.mark.redis
def test_strings_that_are_never_dropped_would_be_seen(
    redis, redis_url, limits, monkeypatch
):
    limits(READ_COUNT=100)
    monkeypatch.setattr(interner, "TEXTS", 10**9)
    monkeypatch.setattr("cep.engine.operator.SWEEP_AT", 300)
    assert held(redis, redis_url, monkeypatch)["texts"] > 3_500
