"""Tests of rules say the truth, and say why where a rule does not fire."""

import random
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from cep import avg, count, e, emit, last, m, on, py, rule, seq
from cep.errors import InvalidPayloadError, UsageError
from cep.testing import START, advance, events, given
from cep.testing.strategies import event_streams


@rule("busy", key="symbol")
def busy():
    window = on("market.trade").tumbling("10s")
    return window.where(count() >= 5), emit(trades=count())


def trades(price, **fields):
    return events("market.trade", symbol="BTC", price=price, **fields)


@rule("dear", key="symbol", cooldown="5s")
def dear():
    return on("market.trade").where(e.price > 100), emit(price=e.price)


@rule("drop", key="symbol")
def drop():
    high = on("market.trade", name="high").where(e.price > 100)
    low = on("market.trade", name="low").where(
        (e.price < 0.9 * m.high.price) & (e.quantity >= 2)
    )
    return seq(high).then(low).within("10s"), emit(by=m.high.price - e.price)


@rule("silence", key="symbol")
def silence():
    high = on("market.trade", name="high").where(e.price > 100)
    other = on("market.trade", name="other")
    return seq(high).not_then(other).within("30s"), emit(price=m.high.price)


@rule("run", key="symbol", after_match="past_last_event")
def run_up():
    up = (
        on("market.trade", name="up")
        .where((count(m.up) == 0) | (e.price > last(m.up).price))
        .at_least(3)
        .greedy()
    )
    fall = on("market.trade", name="fall").where(e.price <= last(m.up).price)
    gain = last(m.up).price / 100 - 1
    return seq(up).next(fall).where(gain > 0.5), emit(gain=gain)


@rule("pair", key="symbol")
def pair():
    a = on("market.trade", name="a").where(e.price == 1)
    no = on("market.trade", name="no").where(e.price == 2)
    b = on("market.trade", name="b").where(e.price == 3)
    return seq(a).not_then(no).then(b), emit()


def failure(call):
    with pytest.raises(AssertionError) as caught:
        call()
    return str(caught.value)


def test_events_come_every_second_unless_said_and_after_time_that_passed():
    made = given(
        trades([1, 2]),
        trades([3, 4], every="5s"),
        advance("31s"),
        [trades([5]), trades([6], every="0s")],
        trades([7, 8], at="500ms"),
        advance("2s"),
    )
    assert [(x.at_ms, x.event.data["price"]) for x in made.given] == [
        (0, 1),
        (500, 7),
        (1000, 2),
        (1500, 8),
        (6000, 3),
        (11000, 4),
        (42000, 5),
        (42000, 6),
    ]
    assert made.given[0].event.timestamp == START
    assert made.end_ms == 42000


def test_what_a_type_requires_is_filled_in_and_checked():
    (one,) = given(events("system.service.health", service_name="x")).given
    assert one.event.data["status"] == "healthy"
    assert one.event.data["error_rate"] == 1.0
    (one,) = given(events("user.login", user_id="u", correlation_id="c")).given
    assert (one.event.data["user_id"], one.event.correlation_id) == ("u", "c")
    listed = events("market.data.collection.started", keywords=["a", "b"])
    assert [row["keywords"] for row in listed.rows] == [["a", "b"]]
    with pytest.raises(UsageError, match=r"no field 'prcie'. Did you mean 'price'"):
        events("market.trade", prcie=1)
    with pytest.raises(UsageError, match="different lengths: price 2, quantity 3"):
        trades([1, 2], quantity=[1, 2, 3])
    with pytest.raises(InvalidPayloadError):
        trades("x")
    with pytest.raises(UsageError, match="given takes events and time, got"):
        given("market.trade")


def test_expectations_that_hold_return_the_outcome_again():
    outcome = given(trades([99, 101, 102])).when(dear)
    outcome.expect().expect(1, at="1s", key="BTC", price=101, rule="dear").expect(
        0, price=102
    )
    assert len(outcome.events) == 1
    given(trades([99])).when(dear).expect_none().expect(0)
    with pytest.raises(UsageError, match=r"The rule 'cheap' .* did not run"):
        outcome.expect(rule="cheap")


def test_times_of_absences_are_those_of_the_clock():
    given(trades([101]), advance("29999ms")).when(silence).expect_none()
    given(trades([101]), advance("30s")).when(silence).expect(1, at="30s", price=101)
    given(trades([101, 1]), advance("60s")).when(silence).expect_none()
    given(trades([101]), advance("30s"), trades([1])).when(silence).expect(1)


def test_windows_that_close_by_the_end_are_told():
    full = given(trades([1, 2, 3, 4, 5]), advance("20s")).when(busy)
    full.expect(1, at="10s", trades=5)
    few = given(trades([1, 2, 3]), advance("20s")).when(busy)
    said = failure(lambda: few.expect(1))
    assert "which wants on('market.trade', name='trade').tumbling('10s')" in said


def test_a_failure_shows_what_was_given_derived_and_not_as_expected():
    outcome = given(trades([99, 101])).when(dear)
    said = failure(lambda: outcome.expect(1, price=102))
    assert said.startswith("Expected 1 event with price=102, there are none.\ngiven:")
    assert "  #1 at 1s: market.trade symbol='BTC', price=101" in said
    assert "  dear at 1s, key 'BTC': title='dear', price=101" in said
    assert "    from trade #1\n    not as expected: price is 101" in said
    said = failure(lambda: outcome.expect_none(because="it is cheap"))
    assert said.startswith("Expected no event (it is cheap), there is 1.")
    assert "why" not in said
    assert "it has no gain" in failure(lambda: outcome.expect(1, gain=2))


@pytest.mark.parametrize(
    ("parts", "what", "said"),
    [
        (
            [trades([99, 100])],
            dear,
            [
                "nothing took step 'trade', the first of 1",
                "nearest was #1, where",
                "(e.price > 100) was false: 100 > 100",
            ],
        ),
        ([trades([101, 102])], dear, ["1 matches suppressed by its cooldown of 5s"]),
        (
            [events("market.quote", symbol="BTC")],
            dear,
            ["no event of type market.trade was given"],
        ),
        (
            [trades([101, 50])],
            drop,
            [
                "as far as step 'high': high #0",
                "then nothing took step 'low'",
                "nearest was #1",
                "(e.quantity >= 2) was false: 1 >= 2",
            ],
        ),
        (
            [trades([101, 95], quantity=2)],
            drop,
            ["(e.price < (0.9 * m.high.price)) was false: 95 < 90.9"],
        ),
        (
            [trades([101]), trades([50], every="10s", quantity=2)],
            drop,
            ["#1 would fit, but came 10s after the first", "less than 10s is allowed"],
        ),
        (
            [trades([101]), events("market.trade", symbol="ETH", price=50, quantity=2)],
            drop,
            ["no event of market.trade of its key came after that"],
        ),
        (
            [trades([101]), advance("12s")],
            silence,
            ['the absence is certain only at 30s: add advance("18s")'],
        ),
        (
            [trades([101, 50]), advance("60s")],
            silence,
            ["then step 'other' must not come, and came: #1"],
        ),
        (
            [trades([1, 2, 3])],
            pair,
            ["as far as step 'a': a #0", "then step 'no' must not come, and came: #1"],
        ),
        (
            [trades([1, 4])],
            pair,
            ["then nothing took step 'b'", "(e.price == 3) was false: 4 == 3"],
        ),
        (
            [trades([101, 102, 103, 50])],
            run_up,
            ["condition of the whole was false", "was false: 0.03 > 0.5"],
        ),
        (
            [trades([101, 102, 50])],
            run_up,
            ["nothing took step 'up'.at_least(3)", "which wants"],
        ),
    ],
)
def test_a_rule_that_does_not_fire_is_explained(parts, what, said):
    text = failure(lambda: given(*parts).when(what).expect(9))
    for one in [f"why {what.name!r} did not fire", *said]:
        assert one in text


def test_what_depends_on_the_order_of_arrival_fails_with_the_seed():
    seen = Counter()

    def third(price):
        seen["calls"] += 1
        return seen["calls"] % 3 == 0

    @rule("odd")
    def odd():
        return on("market.trade").where(py(third, [e.price])), emit()

    stream = trades([1, 2, 3, 4, 5, 6, 7], every="100ms")
    said = failure(lambda: given(stream, seed=7).when(odd))
    assert (
        "Out of order the rules derive something else (seed 7: given(..., seed=7)"
        in said
    )
    assert "arrived as: #" in said
    assert "only in order: odd at" in said


def test_runs_out_of_order_are_out_of_order_and_never_late():
    from cep.testing.scenario import Stage

    stream = [trades(list(range(20)), every="100ms"), trades([1, 2, 3], every="0s")]
    stage = Stage(given(stream), [dear], dear, "1s")
    orders = [stage._out_of_order(random.Random(seed)) for seed in range(20)]
    assert len({tuple(order) for order in orders}) == 20
    for order in orders:
        times = [stage.scenario.given[i].at_ms for i in order]
        assert all(t >= max(times[: i + 1]) - 1000 for i, t in enumerate(times))
        # Those of one time keep their order.
        assert [i for i in order if i >= 19] == [19, 20, 21, 22]


@settings(max_examples=20, deadline=None)
@for_all(
    event_streams("market.trade", "market.quote", symbol=st.sampled_from("AB"), most=12)
)
def test_streams_of_hypothesis_are_events_that_rules_take(stream):
    outcome = given(stream).when(mean, runs=1)
    kept = [x for part in stream for x in part.rows if part.type == "market.trade"]
    assert sum(row["price"] > 0 for row in kept) == len(outcome.events)


@rule("positive")
def mean():
    return on("market.trade").where(e.price > 0), emit(mean=avg(e.price).over("10s"))


def test_events_that_no_rule_can_see_for_want_of_a_key_are_refused():
    @rule("stuck", key="correlation_id")
    def stuck():
        asked = on("ai.content.generation.requested", name="asked")
        done = on("ai.content.generation.completed", name="done")
        return seq(asked).not_then(done).within("30s"), emit()

    asked = events("ai.content.generation.requested", request_id=["r1"])
    with pytest.raises(
        UsageError, match=r"key correlation_id, .* correlation_id=\.\.\."
    ):
        given(asked, advance("31s")).when(stuck)
    known = events("ai.content.generation.requested", correlation_id="c")
    given(known, advance("31s")).when(stuck).expect(1)
    given(known, asked, advance("31s")).when(stuck).expect(1)


def test_streams_of_hypothesis_refuse_unknown_fields():
    with pytest.raises(UsageError, match="None of the types has a field 'prcie'"):
        event_streams("market.trade", prcie=st.just(1))


@pytest.mark.slow
def test_the_plugin_sets_the_seed_and_loads_nothing_heavy(tmp_path):
    test = tmp_path / "test_seed.py"
    test.write_text(
        "import sys\n"
        "heavy = {'numpy', 'polars', 'numba', 'redis'} & set(sys.modules)\n"
        "def test_seed():\n"
        "    assert not heavy\n"
        "    from cep.testing import given\n"
        "    assert given().seed == 41\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "cep.testing.plugin"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", "--cep-seed", "41", str(test)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr
