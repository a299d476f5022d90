"""State taken out at any event boundary and put back changes nothing."""

import builtins
import random
import zlib

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import cep.engine.state
import cep.engine.stored_windows
from cep.engine.operator import SWEEP_AT, Operator
from cep.engine.state import CHUNK_ROWS, STATE_VERSION, EngineState, pack
from cep.errors import StateVersionError
from cep.rules import (
    Limits,
    avg,
    build_rule,
    corr,
    count,
    e,
    emit,
    ewm,
    first,
    last,
    m,
    max,
    min,
    on,
    prev,
    rule,
    seq,
    std,
    sum,
)
from tests import random_rules, streams

SETTINGS = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def keep(stored, operator):
    """Do with a delta what a store does."""
    for name, blob in operator.delta().items():
        if blob is None:
            stored.pop(name, None)
        else:
            stored[name] = blob


def run_with_restarts(rules, rows, cuts, restart_at, whole=False):
    """Run batch by batch; before some of them, go on in an operator of its own."""
    operator = Operator(rules)
    parts = streams.cut_batches(streams.ordered(operator, rows), cuts)
    stored, events = {}, []
    for i in range(len(parts)):
        if i in restart_at:
            if whole:
                stored = operator.snapshot()
            operator = noisy(Operator(rules))
            assert operator.restore(stored) == []
            # Codes of strings are of one process: these are the new one's.
            parts = streams.cut_batches(streams.ordered(operator, rows), cuts)
        mark = parts[i + 1].time[0] if i + 1 < len(parts) else parts[i].time[-1]
        events += operator.step(parts[i], int(mark)).events
        keep(stored, operator)
    restored = Operator(rules)
    restored.restore(stored)
    nothing = restored.ingest(streams.columns([]), 0)
    return events + restored.step(nothing, np.iinfo(np.int64).max).events


def noisy(operator):
    """Shift the codes of strings as another process would."""
    for text in ("zzz", "b", "a"):
        operator.plan.strings.code(text)
    return operator


@pytest.mark.slow
@SETTINGS
@given(st.data())
def test_random_rules_go_on_as_if_never_stopped(data):
    made = data.draw(random_rules.rules())
    assume(made is not None)
    rows = data.draw(random_rules.rows())
    assume(rows)
    cuts = data.draw(st.lists(st.integers(1, len(rows)), max_size=6))
    restart_at = data.draw(st.sets(st.integers(1, len(cuts) + 1), max_size=4))
    expected = sorted(streams.told(streams.run(made, rows)))
    for whole in (False, True):
        found = run_with_restarts([made], rows, cuts, restart_at, whole)
        assert sorted(streams.told(found)) == expected


def busy_rules():
    """Rules that keep every kind of state there is."""

    @rule("windows", key="key")
    def windows():
        return on("test.tick").where(e.flag == True), emit(  # noqa: E712
            n=count().over("40ms"),
            mean=avg(e.x).over("40ms"),
            deviation=std(e.x).where(e.x > 0).over("25ms", by=[]),
            low=min(e.x).over("40ms"),
            high=max(e.x * 2).over("15ms"),
            first=first(e.x).over("40ms"),
            last=last(e.x).over("40ms"),
        )

    @rule("run", key="key", after_match="past_last_event", cooldown="7ms")
    def rising():
        up = (
            on("test.tick", name="up")
            .where((count(m.up) == 0) | (e.x > last(m.up).x))
            .at_least(2)
        )
        fall = on("test.tick", name="fall").where(e.x <= last(m.up).x)
        return seq(up).next(fall).within("60ms"), emit(
            total=sum(m.up.x), text=first(m.up).text, falls=m.fall.text, now=e.text
        )

    @rule("silence", key=["key", "flag"], cooldown="3ms")
    def silence():
        asked = on("test.tick", name="asked").where(e.x > 1)
        done = on("test.tack", name="done").where(e.text == m.asked.text)
        return seq(asked).not_then(done).within("9ms"), emit(
            text=m.asked.text, starts=m.asked.text.starts_with("t1")
        )

    @rule("everywhere")
    def everywhere():
        return seq(on("test.tick", name="a").where(e.x > 0)).then_any(
            on("test.tock", name="b").where(e.x > m.a.x)
        ).within("9ms"), emit(of=m.a.key, tock=e.only_tock)

    @rule("memory", key="key")
    def memory():
        return on("test.tick").where(e.x > prev(e.x)), emit(
            before=prev(e.text),
            step=e.x - prev(e.x, by=[]),
            smooth=ewm(e.x, half_life="30ms"),
        )

    return [windows, rising, silence, everywhere, memory]


def busy_rows(seed, n=600, keys=6):
    rng = random.Random(seed)
    t, rows = 0, []
    for _ in range(n):
        t += rng.choice([0, 1, 1, 2, 9])
        kind = rng.choice(["test.tick", "test.tick", "test.tack", "test.tock"])
        row = {
            "t": t,
            "type": kind,
            "key": f"k{rng.randrange(keys)}",
            "x": rng.choice([None, rng.gauss(0, 2), rng.randrange(-3, 4)]),
        }
        if kind == "test.tock":
            row["only_tock"] = rng.random()
        else:
            row["flag"] = rng.choice([True, False, None])
            row["text"] = rng.choice([None, f"t{rng.randrange(30)}"])
        rows.append(row)
    return rows


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("whole", [False, True])
def test_restarts_between_any_batches_give_the_same_ids_and_payloads(seed, whole):
    rules, rows = busy_rules(), busy_rows(seed)
    expected = streams.told(streams.run(rules, rows))
    assert {name for name, *_ in expected}
    assert len({e.rule for e in streams.run(rules, rows)}) == 5
    cuts = streams.every(len(rows), 23)
    found = run_with_restarts(rules, rows, cuts, range(1, len(cuts) + 1, 2), whole)
    assert sorted(streams.told(found)) == sorted(expected)


@pytest.mark.slow
def test_a_restart_before_every_single_event_changes_nothing():
    rules, rows = busy_rules(), busy_rows(9, n=150)
    expected = streams.told(streams.run(rules, rows))
    cuts = streams.every(len(rows), 1)
    found = run_with_restarts(rules, rows, cuts, range(1, len(rows)))
    assert sorted(streams.told(found)) == sorted(expected)


@pytest.fixture
def small_chunks(monkeypatch):
    """Windows of these tests hold some rows: let them be several chunks."""
    for module in (cep.engine.state, cep.engine.stored_windows):
        monkeypatch.setattr(module, "CHUNK_ROWS", 4)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("whole", [False, True])
def test_restarts_change_nothing_where_windows_are_stored_in_chunks(
    seed, whole, small_chunks
):
    rules, rows = [*busy_rules()[:1], totals()], busy_rows(seed, n=300, keys=2)
    expected = streams.told(streams.run(rules, rows))
    cuts = streams.every(len(rows), 11)
    found = run_with_restarts(rules, rows, cuts, range(1, len(cuts) + 1, 2), whole)
    assert sorted(streams.told(found)) == sorted(expected)


def totals():
    """A rule whose windows are long, and hold strings and pairs of values."""
    return showing(
        n=count().over("200ms"),
        texts=last(e.text).over("200ms"),
        some=sum(e.x).over(events=30, by="key"),
        both=corr(e.x, e.x * e.x).session("8ms", by=[]),
    )


def chunks(state):
    return {name for name in state if name.startswith("c|")}


def test_deltas_add_up_to_what_restores_to_the_snapshot(small_chunks):
    rules, rows = [*busy_rules(), totals()], busy_rows(4)
    operator, stored = Operator(rules), {}
    cuts = streams.every(len(rows), 37)
    for part in streams.cut_batches(streams.ordered(operator, rows), cuts):
        operator.step(part, int(part.time[-1]))
        keep(stored, operator)
        snapshot = operator.snapshot()
        assert chunks(stored) == chunks(snapshot)
        # A chunk that was stored whole loses rows in a snapshot, and nowhere else.
        kept = snapshot.keys() - chunks(snapshot)
        assert {n: stored[n] for n in kept} == {n: snapshot[n] for n in kept}
        restored = noisy(Operator(rules))
        assert restored.restore(stored) == []
        assert restored.snapshot() == snapshot
        assert set(restored.delta()) == {"engine"}
    assert len(chunks(stored)) > 20


def test_what_a_commit_writes_grows_with_what_came_and_not_with_the_window():
    rule = showing(mean=avg(e.x).over("1h"), high=max(e.x).over("1h"))
    rows = [{"t": t, "x": float(t % 7)} for t in range(4_000)]
    operator = Operator([rule])
    sizes, written = [], []
    for part in streams.cut_batches(
        streams.ordered(operator, rows), streams.every(len(rows), 10)
    ):
        operator.step(part, int(part.time[-1]))
        delta = operator.delta()
        sizes.append(builtins.sum(len(blob or b"") for blob in delta.values()))
        written += chunks(delta)
    assert builtins.max(sizes[-100:]) < builtins.max(sizes[10:110]) + 30
    assert len(written) == len(set(written)) == len(rows) // CHUNK_ROWS


def half_way(rules, rows):
    operator = Operator(rules)
    batch = streams.ordered(operator, rows)
    operator.step(batch.take(slice(0, len(batch) // 2)), int(batch.time[0]))
    return operator


def test_a_snapshot_is_what_the_deltas_add_up_to():
    rules, rows = busy_rules(), busy_rows(4)
    operator = Operator(rules)
    stored = {}
    for part in streams.cut_batches(streams.ordered(operator, rows), [50, 51, 300]):
        operator.step(part, int(part.time[-1]))
        keep(stored, operator)
    assert operator.snapshot() == stored


def test_a_snapshot_takes_nothing_away_from_the_next_delta():
    rules, rows = busy_rules(), busy_rows(4)
    looked, alone = half_way(rules, rows), half_way(rules, rows)
    looked.snapshot()
    assert looked.delta() == alone.delta()


def test_a_second_delta_holds_only_what_changed_since():
    operator = half_way(busy_rules(), busy_rows(4))
    assert len(operator.delta()) > 5
    assert list(operator.delta()) == ["engine"]


def test_state_says_the_same_bytes_whatever_the_arena_looks_like():
    """A restored operator's snapshot is the one it was restored from."""
    operator = noisy(half_way(busy_rules(), busy_rows(5)))
    snapshot = operator.snapshot()
    restored = noisy(Operator(busy_rules()))
    restored.restore(snapshot)
    assert restored.snapshot() == snapshot


# What may not be restored -------------------------------------------------------


def packed(value, version=STATE_VERSION):
    body = msgspec.msgpack.encode(value)
    head = version.to_bytes(2, "big") + zlib.crc32(body).to_bytes(4, "big")
    return head + body


def test_packed_here_is_as_the_engine_packs():
    parts = {"order": 3, "tripped": {}, "closed_ns": 7, "errors": {}}
    assert packed(parts) == pack(EngineState(order=3, closed_ns=7))


@pytest.fixture(scope="module")
def snapshot():
    return half_way(busy_rules(), busy_rows(4)).snapshot()


def refused(state):
    with pytest.raises(StateVersionError) as caught:
        Operator(busy_rules()).restore(state)
    return str(caught.value)


def test_state_of_another_version_is_refused_by_name(snapshot):
    name = next(n for n in snapshot if n.startswith("r|run"))
    body = snapshot[name][6:]
    blob = (99).to_bytes(2, "big") + zlib.crc32(body).to_bytes(4, "big") + body
    text = refused(snapshot | {name: blob})
    assert f"The stored state of {name} is version 99" in text
    assert f"this code reads version {STATE_VERSION}" in text
    assert "another pipeline name" in text


@pytest.mark.parametrize("prefix", ["engine", "w|", "s|", "r|run", "r|silence"])
def test_any_flipped_bit_is_found(snapshot, prefix):
    name = next(n for n in snapshot if n.startswith(prefix))
    blob = bytearray(snapshot[name])
    for at in range(2, len(blob), 1 + len(blob) // 40):
        blob[at] ^= 1
        assert "damaged" in refused(snapshot | {name: bytes(blob)})
        blob[at] ^= 1


@pytest.mark.parametrize("prefix", ["engine", "w|", "s|", "r|run", "r|silence"])
@pytest.mark.parametrize("length", [0, 1, 5, 6, 20])
def test_a_cut_blob_is_refused(snapshot, prefix, length):
    name = next(n for n in snapshot if n.startswith(prefix))
    refused(snapshot | {name: snapshot[name][:length]})


@pytest.mark.parametrize("value", [None, 7, "x", [], {}, [1] * 9, [b""] * 4, [[]] * 9])
@pytest.mark.parametrize("prefix", ["engine", "w|", "s|", "r|run"])
def test_a_blob_of_another_shape_is_refused(snapshot, prefix, value):
    """Its checksum is right: somebody else wrote it."""
    name = next(n for n in snapshot if n.startswith(prefix))
    assert "damaged" in refused(snapshot | {name: packed(value)})


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["w|", "s|", "r|run", "r|silence"])
def test_no_number_in_a_blob_can_break_the_process(snapshot, prefix):
    """Whatever stands there is refused or runs, and never reads out of bounds."""
    rng = random.Random(0)
    rows = busy_rows(4)
    names = [n for n in snapshot if n.startswith(prefix)]
    verdicts = set()
    for _ in range(120):
        name = rng.choice(names)
        blob = msgspec.msgpack.decode(snapshot[name][6:])
        where = rng.randrange(len(blob))
        if isinstance(blob[where], bytes) and blob[where]:
            numbers = np.frombuffer(blob[where], np.int64).copy()
            numbers[rng.randrange(len(numbers))] = rng.choice(
                [-(2**63), -1, -2, 0, 1, 5, 10**6, 2**40, 2**63 - 1]
            )
            blob[where] = numbers.tobytes()
        elif isinstance(blob[where], int):
            blob[where] = rng.choice([-(2**63), -1, 0, 1, 2, 1000, 2**62])
        elif isinstance(blob[where], list):
            blob[where] = blob[where][:-1] if rng.random() < 0.5 else ["x", 3]
        operator = Operator(busy_rules())
        try:
            operator.restore(snapshot | {name: packed(blob)})
        except StateVersionError:
            verdicts.add("refused")
            continue
        verdicts.add("ran")
        batch = streams.ordered(operator, rows)
        rest = batch.take(slice(len(batch) // 2, None))
        operator.step(rest, int(rest.time[-1]))
        operator.snapshot()
    assert verdicts == {"refused", "ran"}


@pytest.mark.parametrize(
    "key", ["", "[", "7", '"a"', "[]", '["a","b"]', "[1]", "[null]", "[[1]]", '{"a":1}']
)
def test_a_key_that_is_none_of_ours_is_refused(snapshot, key):
    name = next(n for n in snapshot if n.startswith("r|run"))
    kind, identity, _ = name.split("|", 2)
    assert "damaged" in refused({f"{kind}|{identity}|{key}": snapshot[name]})


def test_fields_of_other_rules_are_named_and_left_alone(snapshot):
    rules = [r for r in busy_rules() if r.name != "run"]
    unknown = Operator(rules).restore(snapshot)
    assert unknown
    assert all(name.startswith("r|run:") for name in unknown)


def test_names_that_are_no_fields_are_named_as_well(snapshot):
    odd = {"": b"", "x": b"1", "r|": b"", "a|b": b"", "a|b|c|d": b""}
    assert sorted(Operator(busy_rules()).restore(snapshot | odd)) == sorted(odd)


def test_a_changed_rule_starts_without_the_old_ones_state(snapshot):
    changed = [
        build_rule(
            r.name,
            r.pattern,
            r.emissions,
            key=r.key,
            cooldown="8ms" if r.name == "run" else None,
            after_match=r.after_match,
        )
        for r in busy_rules()
    ]
    unknown = Operator(changed).restore(snapshot)
    assert any(name.startswith("r|run:") for name in unknown)


def showing(**values):
    return build_rule("shows", on("test.tick"), [emit(**values)])


def changed_half_way(before, after, rows):
    """What rules show of rows 15 on when they were others before."""
    old = Operator([before])
    batch = streams.ordered(old, rows)
    old.step(batch.take(slice(0, 15)), int(batch.time[15]))
    new = Operator([after])
    state = old.snapshot()
    new.restore({k: v for k, v in state.items() if k.startswith("w|")})
    batch = streams.ordered(new, rows).take(slice(15, 20))
    events = new.step(batch, int(batch.time[-1])).events
    return [event.data["values"] for event in events]


CHANGE_ROWS = [{"t": t, "x": t + 0.5, "y": -3.0 * t} for t in range(20)]


def uninterrupted(rule, rows=CHANGE_ROWS):
    return [event.data["values"] for event in streams.run(rule, rows)]


@pytest.mark.parametrize(
    "other", [avg(e.y), avg(e.x * 2), avg(e.y * e.x)], ids=["field", "formula", "two"]
)
def test_a_window_of_something_else_does_not_take_over_the_values(other):
    """The two share type, key, length and the number of values, and nothing else."""
    n = count().over("50ms")
    after = showing(value=other.over("50ms"), n=n)
    before = showing(value=avg(e.x).over("50ms"), n=n)
    found = changed_half_way(before, after, CHANGE_ROWS)
    fresh = uninterrupted(after, CHANGE_ROWS[15:])
    assert [v["value"] for v in found] == [v["value"] for v in fresh]
    assert [v["n"] for v in found] == [16, 17, 18, 19, 20]


@pytest.mark.parametrize(
    "after",
    [
        {"value": std(e.x).over("50ms")},
        {"low": min(e.x).over("50ms"), "value": avg(e.x).over("50ms")},
        {"n": count().over("50ms")},
    ],
    ids=["std", "min", "count"],
)
def test_another_aggregate_of_the_same_values_finds_the_rows(after):
    before = showing(value=avg(e.x).over("50ms"))
    found = changed_half_way(before, showing(**after), CHANGE_ROWS)
    assert found == uninterrupted(showing(**after))[15:]


def test_windows_in_another_order_find_their_rows_again():
    values = {"a": avg(e.x).over("50ms"), "b": max(e.y).over("50ms")}
    swapped = dict(reversed(values.items()))
    found = changed_half_way(showing(**values), showing(**swapped), CHANGE_ROWS)
    assert found == uninterrupted(showing(**values))[15:]


def chunked():
    """A key's state in several fields, and the rules it is of."""
    rules = [showing(text=last(e.text).over("1h"), mean=avg(e.x).over("1h"))]
    rows = [{"t": t, "x": float(t), "text": f"t{t % 5}"} for t in range(300)]
    operator = Operator(rules)
    operator.step(streams.ordered(operator, rows), 0)
    return rules, operator.snapshot()


def refused_by(rules, state):
    with pytest.raises(StateVersionError) as caught:
        Operator(rules).restore(state)
    return str(caught.value)


def test_a_chunk_that_is_missing_is_refused_by_name():
    rules, state = chunked()
    names = chunks(state)
    assert len(names) == 300 // CHUNK_ROWS
    for name in names:
        without = {key: blob for key, blob in state.items() if key != name}
        assert f"{name} is damaged (it is missing)" in refused_by(rules, without)


def test_a_chunk_that_is_damaged_is_refused_by_name():
    rules, state = chunked()
    name = sorted(chunks(state))[1]
    blob = bytearray(state[name])
    for at in range(2, len(blob), 61):
        blob[at] ^= 1
        assert f"{name} is damaged" in refused_by(rules, state | {name: bytes(blob)})
        blob[at] ^= 1
    for length in (0, 5, 6, 100):
        assert name in refused_by(rules, state | {name: state[name][:length]})


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, -1),
        (0, 0),
        (0, 2**62),
        (1, b""),
        (1, b"x" * 7),
        (2, b""),
        (2, np.full(2 * 64, 1e300).tobytes()),
        (2, np.full(2 * 64, 77.0).tobytes()),
        (3, []),
        (3, ["x", "x"]),
        (4, []),
    ],
)
def test_a_chunk_that_says_something_else_is_refused(place, value):
    rules, state = chunked()
    name = next(n for n in chunks(state) if "|2|" in n)
    parts = msgspec.msgpack.decode(state[name][6:])
    parts[place] = value
    assert "damaged" in refused_by(rules, state | {name: packed(parts)})


def test_a_chunk_in_anothers_place_is_refused():
    rules, state = chunked()
    first, second = sorted(chunks(state))[:2]
    swapped = state | {first: state[second], second: state[first]}
    assert "damaged" in refused_by(rules, swapped)


def test_chunks_of_no_window_are_named():
    rules, state = chunked()
    more = {name.replace("|1|", "|9|"): state[name] for name in chunks(state)}
    odd = sorted(more.keys() - state.keys())
    assert len(odd) == 1
    assert Operator(rules).restore(state | more) == odd


def test_a_key_that_is_given_up_takes_its_chunks_with_it(small_chunks):
    rule = build_rule("r", on("test.tick"), [emit(n=count().over("20ms"))], key="key")
    rows = [{"t": t, "key": f"k{t // 30}"} for t in range(300)]
    operator, stored = Operator([rule]), {}
    for part in streams.cut_batches(
        streams.ordered(operator, rows), streams.every(300, 9)
    ):
        mark = int(part.time[-1])
        operator.step(part, mark)
        keep(stored, operator)
        operator.sweep(mark)
        keep(stored, operator)
        assert chunks(stored) == chunks(operator.snapshot())
        assert Operator([rule]).restore(stored) == []
    assert 1 < len(chunks(stored)) < 8
    assert operator.keys() < 3


# Limits and idle keys ----------------------------------------------------------------


def test_sweeping_idle_keys_changes_no_result_and_removes_their_fields():
    rules = busy_rules()[:-1]  # the last keeps what it has seen of a key
    rows = busy_rows(6, n=900, keys=40)
    expected = sorted(streams.told(streams.run(rules, rows)))
    operator = Operator(rules)
    stored, events, swept = {}, [], 0
    parts = streams.cut_batches(streams.ordered(operator, rows), range(0, 900, 30))
    for i, part in enumerate(parts):
        mark = int(parts[i + 1].time[0] if i + 1 < len(parts) else part.time[-1])
        events += operator.step(part, mark).events
        before = set(operator.snapshot())
        swept += operator.sweep(mark)
        after = set(operator.snapshot())
        assert after <= before
        keep(stored, operator)
        assert set(stored) == after
    nothing = operator.ingest(streams.columns([]), 0)
    events += operator.step(nothing, np.iinfo(np.int64).max).events
    assert swept > 50
    assert sorted(streams.told(events)) == expected
    operator.sweep(np.iinfo(np.int64).max)
    # What is left belongs to no key, or waits without a time limit.
    assert {name for name in operator.snapshot() if name.startswith("r|run")} == set()


@pytest.mark.slow
def test_state_does_not_grow_with_the_keys_ever_seen():
    @rule("many-keys", key="number_key", cooldown="5ms")
    def many():
        pair = seq(on("test.tick", name="a")).then(on("test.tick", name="b"))
        return pair.within("20ms"), emit(mean=avg(e.x).over("10ms"))

    operator = Operator([many])
    stored, most = {}, 0
    one = streams.columns([{"t": 0, "x": 1.0, "number_key": 0.0}])
    for begin in range(0, 50_000, 1_000):
        columns = one.take(np.zeros(1_000, np.int64))
        number = np.arange(begin, begin + 1_000)
        columns.time_ms = streams.T0 + number
        columns.entry_ms = streams.T0 + number
        columns.fields["number_key"].values = (number // 2).astype(float)
        batch = operator.ingest(columns, 0)
        operator.step(batch, int(batch.time[-1]) + 1_000_000)
        keep(stored, operator)
        most = builtins.max(most, len(stored))
    assert operator.counts()["many-keys"].emitted == 25_000
    assert most < 2 * (SWEEP_AT + 2_000)
    assert operator.keys() < SWEEP_AT + 2_000
    assert len(operator._rules[0].arena.keys) < 40_000


def tripping(cap=2):
    @rule(
        "trips",
        key="key",
        limits=Limits(partials_per_key=cap, policy="trip"),
    )
    def made():
        asked = on("test.tick", name="asked")
        done = on("test.tack", name="done")
        return seq(asked).not_then(done).within("10ms"), emit(x=m.asked.x)

    return made


TRIP_ROWS = [
    {"t": 0, "key": "early", "x": 0.0},
    {"t": 12, "key": "b", "x": 1.0},
    {"t": 13, "key": "a", "x": 2.0},
    {"t": 14, "key": "a", "x": 3.0},
    {"t": 15, "key": "a", "x": 4.0},  # the third: the rule trips
    {"t": 16, "key": "b", "type": "test.tack"},  # would have answered b
    {"t": 17, "key": "c", "x": 5.0},
    {"t": 90, "key": "c", "type": "test.tack"},
]


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize("restart", [False, True])
def test_a_tripped_rule_stays_so_and_raises_no_false_alarm(size, restart):
    """It no longer sees the answers, so nothing that is due later may come out."""
    rules = [tripping()]
    cuts = streams.every(len(TRIP_ROWS), size)
    restart_at = range(1, len(cuts) + 1) if restart else ()
    found = run_with_restarts(rules, TRIP_ROWS, cuts, restart_at)
    assert [e.data["values"]["x"] for e in found] == [0.0]


def test_what_was_due_when_a_rule_tripped_still_comes_out_in_one_batch():
    operator = Operator([tripping()])
    found = streams.step_all(
        operator, [streams.ordered(operator, TRIP_ROWS)], end="inf"
    )
    assert [e.data["values"]["x"] for e in found] == [0.0]
    counts = operator.counts()["trips"]
    assert counts.tripped
    assert counts.live_partials == 0
