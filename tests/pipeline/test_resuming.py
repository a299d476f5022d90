"""A rule that has stopped goes on when someone asks for it, once."""

import live
import msgspec
import pytest

from cep import e, emit, m, on, py, rule, seq
from cep.bus.keys import meta_key
from cep.cli import main
from cep.errors import UsageError
from cep.pipeline import Runner, stream
from cep.pipeline.resuming import ask_to_resume
from cep.pipeline.store import Store

pytestmark = pytest.mark.redis

T = live.START_MS
STREAMS = [stream(live.MARKET, max_out_of_orderness="0ms", idle=None)]


def sane(price):
    if price == 13:
        msg = "thirteen"
        raise ValueError(msg)
    return True


@rule("pairs", key="symbol")
def pairs():
    low = on("market.trade", name="low").where((e.price < 10) & py(sane, [e.price]))
    high = on("market.trade", name="high").where(e.price > 20)
    return seq(low).then(high).within("1h"), emit(low=m.low.price, high=e.price)


@rule("every")
def every():
    return on("market.trade"), emit(price=e.price)


PAIRS = live.pipeline(rules=[pairs, every], streams=STREAMS)


def trades(redis, *prices, at=0):
    """Write trades a second apart from number ``at`` on; returns the next number."""
    for i, price in enumerate(prices, at):
        made = live.trade(i, T + 1000 * i, price=float(price))
        live.write(redis, [(live.MARKET, f"{T + 1000 * i}-0", made)])
    return at + len(prices)


def matched(redis):
    """What the pairs were."""
    datas = [
        msgspec.json.decode(fields[b"data"]) for _, fields in redis.xrange(live.OUTPUT)
    ]
    return [tuple(d["values"].values()) for d in datas if d["rule"] == "pairs"]


def stopped(redis, redis_url, notes=None):
    """Let it stop with a match begun and miss a trade; return the next number."""
    at = trades(redis, 1, *5 * [13], 25)
    note = (lambda _: None) if notes is None else notes.append
    live.once(redis_url, PAIRS, note=note)
    at = trades(redis, 26, at=at)
    live.once(redis_url, PAIRS)
    assert matched(redis) == []
    return at


def test_it_goes_on_without_what_it_had_begun(redis, redis_url):
    notes = []
    at = stopped(redis, redis_url, notes)
    assert any("until `cep resume p pairs`" in note for note in notes)
    ask_to_resume(redis, "p", "pairs")
    notes = []
    at = trades(redis, 30, 2, 31, at=at)
    summary = live.once(redis_url, PAIRS, note=notes.append)
    assert summary.outputs["pairs"]["tripped"] == 0
    assert notes == ["rule pairs goes on, without matches it had begun"]
    trades(redis, 32, 33, at=at)
    live.drained(redis, redis_url, PAIRS)
    assert matched(redis) == [(2.0, 31.0)]
    assert len(live.came(redis).ids) == at + 2 + 1


def test_a_pipeline_that_runs_takes_it_up(redis, redis_url, limits):
    limits(REPORT_SECONDS=0)
    at = trades(redis, *5 * [13], 99)
    runner, seen = None, []

    def report(summary):
        tripped = summary.outputs["pairs"]["tripped"]
        if not seen and tripped and live.commits(redis):
            if redis.hget(meta_key("p"), "outputs"):
                ask_to_resume(redis, "p", "pairs")
                seen.append("asked")
        elif seen == ["asked"] and not tripped:
            trades(redis, 3, 33, 34, at=at)
            live.declare_end(redis)
            seen.append("written")

    runner = Runner(PAIRS, redis_url, report=report)
    runner.run()
    assert seen == ["asked", "written"]
    assert matched(redis) == [(3.0, 33.0)]


def test_a_request_is_followed_once_wherever_the_process_dies(
    redis, redis_url, monkeypatch
):
    at = stopped(redis, redis_url)
    ask_to_resume(redis, "p", "pairs")
    commit = Store.commit

    def died(*_):
        raise SystemExit

    monkeypatch.setattr(Store, "commit", died)
    with pytest.raises(SystemExit):
        live.once(redis_url, PAIRS)
    monkeypatch.setattr(Store, "commit", commit)
    assert live.once(redis_url, PAIRS).outputs["pairs"]["tripped"] == 0
    trades(redis, *5 * [13], 4, 44, at=at)
    # It stops again, and the request that was followed does not count again.
    live.once(redis_url, PAIRS)
    assert live.once(redis_url, PAIRS).outputs["pairs"]["tripped"] == 1
    assert matched(redis) == []


def test_a_request_for_a_rule_that_was_changed_then_does_not_wait_for_it(
    redis, redis_url
):
    at = stopped(redis, redis_url)
    ask_to_resume(redis, "p", "pairs")

    @rule("pairs", key="symbol")
    def mended():
        low = on("market.trade", name="low").where((e.price < 9) & py(sane, [e.price]))
        high = on("market.trade", name="high").where(e.price > 20)
        return seq(low).then(high).within("1h"), emit(low=m.low.price, high=e.price)

    what = live.pipeline(rules=[mended, every], streams=STREAMS)
    trades(redis, *5 * [13], 4, 44, at=at)
    live.once(redis_url, what)
    assert live.once(redis_url, what).outputs["pairs"]["tripped"] == 1


def test_the_command_says_what_it_did_and_what_is_no_rule(redis, redis_url, capsys):
    stopped(redis, redis_url)
    server = ["--redis", redis_url]
    assert main(["resume", "p", "pairs", *server]) == 0
    assert "rule pairs of pipeline p goes on" in capsys.readouterr().out
    for words, problem in {
        ("p", "pears"): "has no rule 'pears'. Did you mean 'pairs'?",
        ("p", "every"): "Rule 'every' of pipeline 'p' has not stopped. Those that "
        "have: pairs.",
        ("q", "pairs"): "There is no pipeline 'q' on this server.",
    }.items():
        assert main(["resume", *words, *server]) == 2
        assert problem in capsys.readouterr().err


def test_a_rule_that_kept_what_it_had_begun_would_be_seen(
    redis, redis_url, monkeypatch
):
    """The planted bug: it lets nothing go when it stops, and then only goes on."""
    from cep.engine.kernels import nfa
    from cep.engine.running_rule import RunningRule

    def only_go_on(self):
        self.arena.counters[nfa.C_TRIPPED] = 0
        return []

    monkeypatch.setattr(RunningRule, "_let_go", lambda _: None)
    at = stopped(redis, redis_url)
    monkeypatch.setattr(RunningRule, "start_anew", only_go_on)
    ask_to_resume(redis, "p", "pairs")
    trades(redis, 30, at=at)
    live.drained(redis, redis_url, PAIRS)
    assert matched(redis) == [(1.0, 26.0)]  # though 25 was higher
    with pytest.raises(UsageError, match="has not stopped"):
        ask_to_resume(redis, "p", "pairs")
