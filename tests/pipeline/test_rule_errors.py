"""A rule that fails on an event: the event gets a row, the rest goes on."""

import random
from collections import Counter

import live
import msgspec
import pytest

import cep
from cep import e, emit, on, py, rule
from cep.engine import python_calls
from cep.events.codec import encode
from cep.frames import load
from cep.pipeline import stream

pytestmark = pytest.mark.redis

T = live.START_MS
STREAMS = [stream(live.MARKET, max_out_of_orderness="250ms")]


def picky(price):
    if price == 13:
        raise LookupError(f"no luck with {price}")
    return True


def calling(function=picky):
    @rule("checked")
    def checked():
        good = py(function, reads=[e.price])
        return on("market.trade").where(good), emit(price=e.price)

    return checked


@rule("every")
def every():
    return on("market.trade"), emit(price=e.price)


def prices(redis):
    """What each rule has put out."""
    found = {}
    for _, fields in redis.xrange(live.OUTPUT):
        data = msgspec.json.decode(fields[b"data"])
        found.setdefault(data["rule"], []).append(data["values"]["price"])
    return {name: sorted(values) for name, values in found.items()}


def write(redis, *priced, step=1):
    """Write trades of some prices, ``step`` ms apart."""
    made = [live.trade(i, T + i * step, price=float(p)) for i, p in enumerate(priced)]
    return made, live.write(
        redis, [(live.MARKET, f"{T + i}-0", one) for i, one in enumerate(made)]
    )


def test_only_that_rule_misses_only_that_event(redis, redis_url):
    made, ids = write(redis, 1, 13, 2)
    what = live.pipeline(rules=[calling(), every], streams=STREAMS)
    summary = live.drained(redis, redis_url, what)
    assert prices(redis) == {"checked": [1.0, 2.0], "every": [1.0, 2.0, 13.0]}
    [row] = live.dead_letters(redis)
    detail = row.pop("detail")
    assert detail.startswith(
        "py(picky, reads=[e.price]) raised LookupError at test_rule"
    )
    assert "luck" not in detail
    raw = b"\n".join(k + b"=" + v for k, v in encode(made[1]).items())
    assert (row["kind"], row["reason"], row["rule"]) == (
        "rule",
        "rule_error",
        "checked",
    )
    assert (row["stream"], row["entry_id"]) == (live.MARKET, ids[1].decode())
    assert row["raw"] == raw
    assert summary.total.processed == 3
    assert summary.outputs["checked"]["errors"] == 1
    assert summary.outputs["checked"]["tripped"] == 0


def test_five_errors_in_a_minute_stop_the_rule_and_not_the_pipeline(redis, redis_url):
    write(redis, 1, 13, 13, 13, 13, 13, 13, 2)
    notes = []
    what = live.pipeline(rules=[calling(), every], streams=STREAMS)
    summary = live.drained(redis, redis_url, what, note=notes.append)
    assert prices(redis) == {"checked": [1.0], "every": [1.0, 2.0] + 6 * [13.0]}
    assert len(live.dead_letters(redis)) == 5
    assert summary.outputs["checked"]["tripped"] == 1
    [note] = [note for note in notes if "rule checked has stopped" in note]
    assert "failed on five events within a minute of event time" in note


def test_a_stopped_rule_stays_stopped_and_says_so_again(redis, redis_url):
    write(redis, *5 * [13], 1, 2, step=200)
    what = live.pipeline(rules=[calling(), every], streams=STREAMS)
    live.once(redis_url, what)
    notes = []
    live.drained(redis, redis_url, what, note=notes.append)
    assert "checked" not in prices(redis)
    assert any("rule checked has stopped" in note for note in notes)


@pytest.mark.parametrize("seed", range(3))
def test_errors_are_the_same_wherever_it_stops_and_over_frames(
    seed, redis, redis_url, limits
):
    random_ = random.Random(seed)
    made = [random_.choice([1, 2, 3, 13]) for _ in range(60)]
    write(redis, *made, step=random_.choice([1000, 5000]))
    what = live.pipeline(rules=[calling(), every], streams=STREAMS)
    live.drained(redis, redis_url, live.pipeline("control", what.rules, STREAMS))
    expected = live.came(redis, "control")
    assert len(expected.letters) >= 5
    redis.delete(live.OUTPUT)
    limits(READ_COUNT=7, STEP_ROWS=random_.choice([1, 5]))
    for _ in range(4):
        live.once(redis_url, what)
    live.drained(redis, redis_url, what)
    assert live.came(redis) == expected
    result = cep.run_rules(what, load([live.MARKET], url=redis_url), batch_rows=7)
    assert Counter(result.ids) == expected.ids
    rows = live.dead_letters(redis)
    assert {f"{f.entry_ms}-{f.entry_seq}" for f in result.failures} == {
        row["entry_id"] for row in rows
    }
    assert result.counts["checked"].tripped


def test_an_event_that_is_gone_still_has_its_row(redis, redis_url, monkeypatch):
    _, ids = write(redis, 13)
    step = cep.engine.operator.Operator.step

    def trimmed_meanwhile(self, rows, mark, **options):
        redis.xdel(live.MARKET, *ids)
        return step(self, rows, mark, **options)

    monkeypatch.setattr(cep.engine.operator.Operator, "step", trimmed_meanwhile)
    live.drained(redis, redis_url, live.pipeline(rules=[calling()], streams=STREAMS))
    [row] = [r for r in live.dead_letters(redis) if r["kind"] == "rule"]
    assert (row["entry_id"], row["raw"]) == (ids[0].decode(), b"")


def test_a_slow_function_is_told_once_and_changes_nothing(
    redis, redis_url, monkeypatch
):
    monkeypatch.setattr(python_calls, "SLOW_SECONDS", -1.0)
    write(redis, 1, 2)
    notes = []
    what = live.pipeline(rules=[calling()], streams=STREAMS)
    live.drained(redis, redis_url, what, note=notes.append)
    assert prices(redis) == {"checked": [1.0, 2.0]}
    [note] = [note for note in notes if "took" in note]
    assert note.startswith("py(picky, reads=[e.price]) took 0.0 s for 2 events")
