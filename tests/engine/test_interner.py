"""Strings that nothing refers to any more are dropped, and nobody notices."""

import random

import pytest

from cep.engine import interner
from cep.engine.batch import Batch
from cep.engine.operator import Operator
from cep.rules import build_rule, coalesce, e, emit, last, m, on, prev, seq
from tests import streams


def rules():
    a = on("test.tick", name="a").where(~e.text.is_null())
    b = on("test.tick", name="b").where((e.text != m.a.text) | e.text.contains("7"))
    return [
        build_rule(
            "pairs",
            seq(a).then(b).within("60ms"),
            [emit(first=m.a.text, second=e.text, number=m.a.text.as_float())],
            key="key",
        ),
        build_rule(
            "held",
            seq(a.between(1, 3)).then(on("test.tack")).within("40ms"),
            [emit(first=m.a.text)],
            key="key",
            after_match="past_last_event",
        ),
        build_rule(
            "before",
            on("test.tick").where(prev(e.text).is_null() | (prev(e.text) != e.text)),
            [
                emit(
                    before=prev(e.text),
                    last=last(coalesce(e.text, "none")).over("30ms", by=["flag"]),
                )
            ],
            key=["key", "flag"],
        ),
    ]


def rows(seed, n=400):
    rng = random.Random(seed)
    return [
        {
            "t": 5 * t,
            "type": rng.choice(["test.tick", "test.tick", "test.tick", "test.tack"]),
            "key": f"key-{rng.randrange(t // 50 + 1, t // 50 + 4)}",
            "flag": rng.random() < 0.5,
            "text": rng.choice([None, "same", str(t), f"{t}-text"]),
        }
        for t in range(n)
    ]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [1, 7, 100])
def test_dropping_texts_changes_no_result(seed, size, monkeypatch):
    given = rows(seed)
    expected = streams.told(streams.run(rules(), given))
    assert len(expected) > 100
    monkeypatch.setattr(interner, "TEXTS", 5)
    # All batches are made before the first is stepped: their codes go stale.
    got = streams.run(rules(), given, cuts=streams.every(len(given), size))
    assert streams.told(got) == expected


def test_texts_that_state_refers_to_are_all_that_is_kept(monkeypatch):
    monkeypatch.setattr(interner, "TEXTS", 50)
    operator = Operator(rules())
    most = 0
    for row in rows(1, 3000):
        batch = streams.ordered(operator, [row])
        operator.step(batch, streams.ns(row["t"]))
        most = max(most, operator.texts())
    assert most <= 200


def test_snapshots_after_texts_were_dropped_hold_the_same(monkeypatch):
    given = rows(2)

    def snapshot():
        operator = Operator(rules())
        batch = streams.ordered(operator, given)
        for part in streams.cut_batches(batch, streams.every(len(given), 9)):
            operator.step(part, int(part.time[-1]))
        return operator.snapshot()

    expected = snapshot()
    monkeypatch.setattr(interner, "TEXTS", 5)
    assert snapshot() == expected


def test_batches_from_before_and_after_texts_were_dropped_join(monkeypatch):
    monkeypatch.setattr(interner, "TEXTS", 5)
    operator = Operator(rules())
    given = rows(3, 60)
    waiting = streams.ordered(operator, given[20:40])
    operator.step(streams.ordered(operator, given[:20]), 0)
    inputs = operator.plan.inputs.items()
    column = next(n for n, c in inputs if c.name == "text")
    joined = Batch.concat([waiting, streams.ordered(operator, given[40:])])
    texts = operator.plan.strings.texts
    assert waiting.coding.texts is not texts
    found = [None if c != c else texts[int(c)] for c in joined.cols[column]]
    assert found == [row["text"] for row in given[20:]]
