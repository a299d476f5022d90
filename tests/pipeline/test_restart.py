"""A pipeline that was stopped goes on where it was, also when its rules changed."""

import statistics

import live
import msgspec
import pytest

from cep import avg, count, e, emit, m, max, on, rule, seq, std
from cep.bus.keys import meta_key
from cep.errors import StateVersionError, UsageError
from cep.events.codec import encode
from cep.pipeline import stream

pytestmark = pytest.mark.redis

T = live.START_MS
STREAMS = [stream(live.MARKET, max_out_of_orderness="250ms")]


def pipeline(*rules):
    return live.pipeline(rules=rules, streams=STREAMS)


def trades(redis, *rows, at=0):
    """Write trades of (ms after T, price, quantity), one entry each."""
    return live.write(
        redis,
        [
            (live.MARKET, f"{T + at + i}-0", live.trade(at + i, T + ms, "BTC", *more))
            for i, (ms, *more) in enumerate(rows)
        ],
    )


def values(redis):
    """What was emitted, in order of publication."""
    return [
        msgspec.json.decode(fields[b"data"])["values"]
        for _, fields in redis.xrange(live.OUTPUT)
    ]


@rule("every")
def every():
    return on("market.trade"), emit(price=e.price)


def two_steps(gap="10s", name="two-steps"):
    @rule(name, key="symbol")
    def pattern():
        low = on("market.trade", name="low").where(e.price < 10)
        high = on("market.trade", name="high").where(e.price > 20)
        return seq(low).then(high).within(gap), emit(low=m.low.price, high=e.price)

    return pattern


def test_nothing_is_processed_twice_and_what_was_buffered_is_read_again(
    redis, redis_url
):
    trades(redis, (0, 1.0), (400, 2.0), (410, 3.0))
    summary = live.once(redis_url, pipeline(every))
    assert values(redis) == [{"price": 1.0}]
    assert (summary.total.processed, summary.total.buffered) == (1, 2)
    trades(redis, (420, 4.0), at=3)
    summary = live.drained(redis, redis_url, pipeline(every))
    assert [v["price"] for v in values(redis)] == [1.0, 2.0, 3.0, 4.0]
    assert (summary.total.processed, summary.total.buffered) == (4, 0)
    assert summary.outputs["every"]["emitted"] == 4


def test_a_sequence_goes_on_over_a_restart(redis, redis_url):
    trades(redis, (0, 5.0), (1000, 15.0))
    live.once(redis_url, pipeline(two_steps()))
    assert live.state_fields(redis)
    trades(redis, (1100, 25.0), at=2)
    live.drained(redis, redis_url, pipeline(two_steps()))
    assert values(redis) == [{"low": 5.0, "high": 25.0}]


def test_a_cooldown_goes_on_over_a_restart(redis, redis_url):
    @rule("seldom", cooldown="2s")
    def seldom():
        return on("market.trade"), emit(price=e.price)

    trades(redis, (0, 1.0), (1000, 2.0))
    live.once(redis_url, pipeline(seldom))
    trades(redis, (2000, 3.0), (2100, 4.0), at=2)
    summary = live.drained(redis, redis_url, pipeline(seldom))
    assert [v["price"] for v in values(redis)] == [1.0, 3.0]
    assert summary.outputs["seldom"]["suppressed"] == 2


def test_a_buffered_entry_that_was_deleted_becomes_a_gap_row(redis, redis_url):
    ids = trades(redis, (0, 1.0), (400, 2.0), (410, 3.0))
    live.once(redis_url, pipeline(every))
    redis.xdel(live.MARKET, ids[1])
    live.drained(redis, redis_url, pipeline(every))
    assert [v["price"] for v in values(redis)] == [1.0, 3.0]
    [row] = live.dead_letters(redis)
    assert (row["kind"], row["reason"]) == ("gap", "gap")
    assert (row["stream"], row["entry_id"]) == (live.MARKET, ids[1].decode())
    counts = live.counts(redis)[live.MARKET]
    assert (counts["read"], counts["processed"], counts["quarantined"]) == (3, 2, 1)


def test_a_buffered_entry_that_is_no_event_any_more_says_why(redis, redis_url):
    ids = trades(redis, (0, 1.0), (400, 2.0), (410, 3.0))
    live.once(redis_url, pipeline(every))
    redis.delete(live.MARKET)  # then its ids may be used again
    trades(redis, (400, 2.0), at=1)
    redis.xadd(live.MARKET, {"a": "b"}, ids[2])
    counts = "ENTRIESADDED", 3, "MAXDELETEDID", ids[0]  # as of the stream before
    redis.execute_command("XSETID", live.MARKET, ids[2], *counts)
    live.drained(redis, redis_url, pipeline(every))
    assert [v["price"] for v in values(redis)] == [1.0, 2.0]
    [row] = live.dead_letters(redis)
    assert (row["kind"], row["reason"]) == ("quarantine", "missing_envelope_field")
    assert (row["entry_id"], row["raw"]) == (ids[2].decode(), b"a=b")
    live.counts(redis)


def test_a_stream_that_was_deleted_is_a_gap_and_new_entries_are_read(redis, redis_url):
    trades(redis, (0, 1.0), (400, 2.0), (410, 3.0))
    live.once(redis_url, pipeline(every))
    redis.delete(live.MARKET)
    trades(redis, (700, 4.0), at=3)
    live.drained(redis, redis_url, pipeline(every))
    assert [v["price"] for v in values(redis)] == [1.0, 4.0]
    assert [row["kind"] for row in live.dead_letters(redis)] == ["gap"] * 2


def test_a_changed_rule_starts_anew_and_says_so(redis, redis_url):
    notes = []
    trades(redis, (0, 5.0), (1000, 15.0))
    live.once(redis_url, pipeline(two_steps(), two_steps(name="kept")))
    trades(redis, (1100, 25.0), at=2)
    changed = pipeline(two_steps(gap="11s"), two_steps(name="kept"))
    live.drained(redis, redis_url, changed, note=notes.append)
    assert notes == ["rule two-steps has changed: it starts without state"]
    assert len(values(redis)) == 1
    metadata = redis.xrange(live.OUTPUT)[0][1][b"metadata"]
    assert msgspec.json.decode(metadata)["rule"] == "kept"


def test_state_of_a_rule_that_is_gone_is_removed(redis, redis_url):
    notes = []
    trades(redis, (0, 5.0), (1000, 15.0))
    live.once(redis_url, pipeline(two_steps(), two_steps(name="other")))
    assert any("|other:" in field for field in live.state_fields(redis))
    trades(redis, (1100, 25.0), at=2)
    live.drained(redis, redis_url, pipeline(two_steps()), note=notes.append)
    assert notes == ["rule other is gone: its state is removed"]
    assert not any("|other:" in field for field in live.state_fields(redis))


def mean_of(function, name="mean"):
    """A rule whose window `kept` shares."""

    @rule(name)
    def mean():
        return on("market.trade"), emit(mean=function().over("10s"))

    return mean


@rule("kept")
def kept():
    now = [f(e.price).over("10s") for f in (avg, std, max)]
    return on("market.trade"), emit(n=count().over("10s"), now=now)


@pytest.mark.parametrize(
    ("before", "last"),
    [
        (lambda: avg(e.price), 1.5),
        (lambda: avg(e.price * e.quantity), 1.5),
        (lambda: std(e.quantity), 4 / 3),  # the same rows, another question
    ],
    ids=["other field", "other expression", "other function"],
)
def test_a_changed_rule_takes_no_foreign_rows_of_its_window_and_others_keep_theirs(
    before, last, redis, redis_url
):
    trades(redis, (0, 100.0, 1.0), (1000, 104.0, 1.0))
    live.once(redis_url, pipeline(mean_of(before), kept))
    trades(redis, (1100, 105.0, 2.0), at=2)
    changed = pipeline(mean_of(lambda: avg(e.quantity)), kept)
    live.drained(redis, redis_url, changed)
    means = [v["mean"] for v in values(redis) if "mean" in v]
    # The first trade was released before the change, the others after it.
    assert means[1:] == [1.0, last]
    assert [v["n"] for v in values(redis) if "n" in v] == [1, 2, 3]
    assert [v["now"] for v in values(redis) if "n" in v][-1] == pytest.approx(
        [103.0, statistics.pstdev([100.0, 104.0, 105.0]), 105.0]
    )


def test_a_stream_that_is_left_out_is_gone_on_with_when_it_comes_back(redis, redis_url):
    """What was held of it is judged anew: time has gone on without it."""
    both = [*STREAMS, stream("other.events", max_out_of_orderness="250ms")]
    trades(redis, (0, 1.0), (900, 2.0), (910, 3.0))
    live.once(redis_url, live.pipeline(rules=[every], streams=both))
    other = live.pipeline(rules=[every], streams=both[1:])
    late = live.trade(8, T + 905, price=8.0)
    for i, what in enumerate([late, live.trade(9, T + 5000, price=9.0)]):
        entry = encode(what) | {b"stream": b"other.events"}
        live.write(redis, [("other.events", f"{T + 5 + i}-0", entry)])
        live.once(redis_url, other)
    assert live.MARKET not in live.counts(redis)
    trades(redis, (6000, 4.0), (9000, 5.0), at=10)
    live.drained(redis, redis_url, live.pipeline(rules=[every], streams=both))
    found = live.counts(redis)[live.MARKET]
    assert (found["read"], found["late"]) == (5, 3)
    prices = sorted(v["price"] for v in values(redis))
    assert prices == [4.0, 5.0, 8.0, 9.0]


def test_a_drained_pipeline_says_that_its_input_has_ended(redis, redis_url):
    trades(redis, (0, 1.0))
    live.drained(redis, redis_url, pipeline(every))
    with pytest.raises(UsageError, match="'p' was declared to have ended"):
        live.run(redis_url, pipeline(every))


def test_state_that_was_damaged_is_refused_by_name(redis, redis_url):
    trades(redis, (0, 5.0), (1000, 15.0))
    live.once(redis_url, pipeline(two_steps()))
    [field] = [f for f in live.state_fields(redis) if f.startswith("r|two-steps")]
    blob = redis.hget("cep:{p}:state", field)
    redis.hset("cep:{p}:state", field, blob[:-1] + b"!")
    with pytest.raises(StateVersionError, match=r"two-steps.*is damaged"):
        live.once(redis_url, pipeline(two_steps()))


@pytest.mark.parametrize(
    "field",
    ["rules", "positions", "ordering", "held", "counts", "outputs", "marks", "absent"],
)
@pytest.mark.parametrize("value", [b"\xff", b"{", b"[1]"])
def test_a_place_that_was_damaged_is_refused_by_name(field, value, redis, redis_url):
    trades(redis, (0, 5.0), (1000, 15.0))
    live.once(redis_url, pipeline(every))
    redis.hset(meta_key("p"), field, value)
    with pytest.raises(StateVersionError, match=field):
        live.once(redis_url, pipeline(every))


@pytest.mark.parametrize("held", ["AAAA", "eNpjYBgFwxUAAAQAAAE="])
def test_held_entries_that_were_damaged_are_refused_by_name(held, redis, redis_url):
    trades(redis, (0, 5.0), (1000, 15.0))
    live.once(redis_url, pipeline(every))
    stored = msgspec.json.encode({live.MARKET: held})
    redis.hset(meta_key("p"), "held", stored)
    with pytest.raises(StateVersionError, match=r"entries held of market\.events"):
        live.once(redis_url, pipeline(every))


def test_ids_listed_as_they_were_before_are_read_again(redis, redis_url):
    ids = trades(redis, (0, 1.0), (400, 2.0), (410, 3.0))
    live.once(redis_url, pipeline(every))
    redis.hdel(meta_key("p"), "held")
    listed = {live.MARKET: [one.decode() for one in ids[1:]]}
    redis.hset(meta_key("p"), "buffered", msgspec.json.encode(listed))
    for _ in range(2):
        live.once(redis_url, pipeline(every))
    live.drained(redis, redis_url, pipeline(every))
    assert sorted(v["price"] for v in values(redis)) == [1.0, 2.0, 3.0]


def test_what_waits_for_a_silent_stream_makes_commits_no_larger(redis, redis_url):
    streams = [*STREAMS, stream("silent.events", idle=None)]
    sizes = []
    for n in (100, 4000):
        trades(redis, *((i // 10, 1.0) for i in range(n)), at=len(sizes) * 100)
        held = live.pipeline(rules=[every], streams=streams)
        summary = live.once(redis_url, held)
        sizes.append(len(redis.hget(meta_key("p"), "held")))
        assert summary.total.processed == 0
    assert live.counts(redis)[live.MARKET]["buffered"] >= 2000
    assert sizes[1] <= sizes[0] + 60


def test_runs_go_on_over_restarts(redis, redis_url):
    """Read again they follow what was read before, not what comes after."""
    streams = [*STREAMS, stream("silent.events", idle=None)]
    held = live.pipeline(rules=[every], streams=streams)
    for at in range(0, 40, 4):
        trades(redis, (0, 1.0), (5, 1.0), (3, 1.0), (4, 1.0), at=at)
        redis.xadd(live.MARKET, {"a": "b"}, f"{T + at + 3}-1")
        redis.xdel(live.MARKET, f"{T + at + 1}-0")
        live.once(redis_url, held)
    assert live.counts(redis)[live.MARKET]["buffered"] == 30
    live.drained(redis, redis_url, held)
    assert len(values(redis)) == 30
