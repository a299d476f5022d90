"""The benchmark of the engine asks what it says, and ours answers exactly."""

import hashlib
import json
from dataclasses import fields

import numpy as np
import polars as pl
import pytest

from cep.engine.operator import Operator
from tests.benchmarks import engine, loops
from tests.benchmarks.frames import FRAMES, frame
from tests.benchmarks.questions import CONSTANTS, QUESTIONS, Constants, answer
from tests.benchmarks.streams import make_stream
from tests.benchmarks.trades import trade_stream, trades
from tests.benchmarks.workloads import PUBLISHED, SMALL, feed, rules
from tests.benchmarks.worst_case import POLICIES, worst_case

# Fits streams of seconds: windows lose events, drops find their rebounds.
SHORT = Constants(
    notional=300.0,
    window_ms=3_000,
    least=30,
    hop_ms=500,
    spread=0.002,
    within_ms=4_000,
)
CASES = [(1, 5e-4), (2, 2e-4), (3, 1e-3), (4, 5e-3), (5, 1e-4)]


def short_stream(seed, volatility):
    return make_stream(20_000, 4_000, symbols=8, seed=seed, volatility=volatility)


@pytest.mark.parametrize(
    ("given", "digest"),
    [
        ({"ticks": 2000, "ai": 200}, "05e8b284fedb4de0"),
        (
            {"ticks": 3000, "ai": 1000, "symbols": 7, "seed": 5, "volatility": 2e-3},
            "1a1d4da2fb1be51f",
        ),
    ],
)
def test_the_generator_makes_the_recorded_streams(given, digest):
    stream, hasher = make_stream(**given), hashlib.sha256()
    for field in fields(stream):
        hasher.update(getattr(stream, field.name).tobytes())
    assert hasher.hexdigest()[:16] == digest


@pytest.mark.slow
def test_the_definitions_give_the_published_answers():
    stream = make_stream(*SMALL[:2], seed=SMALL[2], volatility=SMALL[3])
    counts = {name: len(ask(stream)) for name, ask in QUESTIONS.items()}
    assert counts == {name: known[0] for name, known in PUBLISHED[SMALL].items()}


@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.parametrize(("seed", "volatility"), CASES)
def test_loops_by_hand_equal_the_definitions(name, seed, volatility):
    stream = short_stream(seed, volatility)
    found = loops.LOOPS[name](*loops.lists(stream, name), SHORT)
    if name == "W1":
        found = [(seq, seq) for seq, _, _ in found]
    assert sorted(found) == sorted(QUESTIONS[name](stream, SHORT))


@pytest.mark.parametrize("name", ["W1", "W2h", "W5"])
def test_polars_equals_the_definitions_where_it_says_the_same(name):
    stream = short_stream(*CASES[0])
    found = FRAMES[name](frame(stream), SHORT)
    pairs = zip(found["start"].to_list(), found["end"].to_list(), strict=True)
    assert sorted(pairs) == sorted(QUESTIONS[name](stream, SHORT))


@pytest.mark.slow
@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.parametrize(("seed", "volatility"), CASES)
def test_rules_equal_the_definitions_however_the_stream_is_cut(name, seed, volatility):
    stream = short_stream(seed, volatility)
    columns = stream.columns()
    rng = np.random.default_rng(seed)
    inner = rng.choice(len(columns), 40, replace=False)
    cuts = [0, *sorted(inner.tolist())]
    found = feed(Operator([rules(SHORT)[name]]), columns, cuts)
    assert sorted(found) == sorted(QUESTIONS[name](stream, SHORT))


def test_all_rules_together_answer_as_each_alone():
    stream = short_stream(*CASES[0])
    columns, made = stream.columns(), rules(SHORT)
    together = feed(Operator([*made.values()]), columns, [0])
    alone = [pair for name in QUESTIONS for pair in QUESTIONS[name](stream, SHORT)]
    assert sorted(together) == sorted(alone)


def test_days_of_trades_are_read_in_order_and_asked_the_same(tmp_path):
    rng = np.random.default_rng(6)
    n = 3_000
    prices = 20 + np.round(rng.normal(0, 0.01, n).cumsum(), 2)
    given = {
        "ts": pl.Series(rng.integers(0, 60_000, n)).cast(pl.Datetime("ms", "UTC")),
        "symbol": pl.Series(rng.choice(["A", "B"], n)).cast(pl.Categorical),
        "price": prices,
        "size": rng.integers(1, 900, n).astype(np.int32),
        "seq": np.arange(n, dtype=np.int32),
    }
    pl.DataFrame(given).write_parquet(tmp_path / "some_trades.parquet")
    stream = trade_stream(tmp_path / "some_trades.parquet")
    assert len(stream) == n
    assert (np.diff(stream.time_ms) >= 0).all()
    (rows,) = trades(tmp_path, repeat=1).values()
    assert sorted(rows) == ["W1", "W2", "W2h", "W3", "W3n", "W4"]
    for row in rows.values():
        assert row["exact"]
    assert rows["W1"]["answer"][0] > 0
    assert rows["W3n"]["answer"][0] > 0


def test_the_worst_case_is_held_at_the_limit_and_counted():
    found = worst_case(events=60, cap=100)
    for policy in POLICIES:
        assert found[policy]["live"] <= 100
        # One that has tripped holds nothing any more.
        assert (found[policy]["live"] == 0) == (policy == "trip")
        assert found[policy]["dropped"] > 0
        assert found[policy]["tripped"] == (policy == "trip")
    assert found["drop_oldest, matching"]["matches"] > 0


@pytest.mark.slow
def test_prints_one_json_object_with_answers_and_ratios(capsys):
    words = ["--ticks", "5000", "--ai", "500", "--repeat", "1", "--json"]
    assert engine.main([*words, "--only", "workloads"]) == 0
    result = json.loads(capsys.readouterr().out)
    stream = make_stream(5000, 500)
    assert result["wrong"] == []
    for name, row in result["workloads"].items():
        assert row["exact"]
        assert tuple(row["answer"]) == answer(QUESTIONS[name](stream, CONSTANTS))
        assert row["of_goal"] == pytest.approx(row["us"] / row["goal_us"])
        assert row["times_loop"] == pytest.approx(row["loop_us"] / row["us"])
