"""A changed rule begins with what history would have given it, if it asks for that."""

import sys

import live
import pytest

from cep import e, emit, on
from cep.errors import CepError
from cep.pipeline import replaying
from cep.pipeline.store import Store
from cep.rules import build_rule

N = 600


def as_they_were():
    """Other rules of the same names."""
    never = on("market.trade").where(e.price < 0)
    return [build_rule(rule.name, never, [emit(price=e.price)]) for rule in live.RULES]


def changed(on_change):
    return live.Pipeline("p", live.RULES, live.STREAMS, on_change=on_change)


@pytest.fixture
def after(redis, redis_url):
    """Return a function of what to do: what comes of the second half of the entries.

    The first half is for the rules as they were; as the control, for the same ones.
    """
    entries = live.traffic(3, N)

    def run(what, before=None, first=None):
        redis.flushall()
        live.write(redis, entries[: N // 2])
        live.once(redis_url, before or live.pipeline("p", as_they_were()))
        redis.delete(live.OUTPUT, "system.events")
        live.write(redis, entries[N // 2 :])
        if first is not None:
            first()
        notes = []
        live.drained(redis, redis_url, what, note=notes.append)
        found = live.came(redis)
        assert found.twice == []
        return found.ids, notes

    return run


@pytest.mark.redis
@pytest.mark.parametrize("length", ["1h", "3s"])
@pytest.mark.parametrize("step_rows", [7, 1000])
def test_what_follows_is_as_if_the_rule_had_always_been_so(
    length, step_rows, after, limits, monkeypatch
):
    limits(STEP_ROWS=step_rows)
    monkeypatch.setattr(replaying, "_PAGE", 50)
    expected, _ = after(changed("drop"), changed("drop"))
    found, notes = after(changed(f"replay {length}"))
    assert found == expected
    assert len(notes) == len(live.RULES)
    assert all(note.endswith("events were replayed for it") for note in notes)


@pytest.mark.redis
def test_without_a_replay_or_with_a_short_one_matches_are_missing(after):
    """The control: what is replayed is what makes the difference."""
    expected, _ = after(changed("drop"), changed("drop"))
    for on_change in ("drop", "replay 50ms"):
        found, _ = after(changed(on_change))
        assert found != expected


@pytest.mark.redis
def test_entries_that_wait_are_not_replayed_as_well(after, monkeypatch):
    """The planted bug: what was read and not released is seen twice."""
    expected, _ = after(changed("drop"), changed("drop"))
    monkeypatch.setattr(replaying, "_spans", lambda _: [])
    monkeypatch.setattr(replaying._History, "_were_released", lambda _, r: r.time > 0)
    found, _ = after(changed("replay 1h"))
    assert found != expected


@pytest.mark.redis
def test_whoever_dies_before_the_first_commit_does_it_again(
    after, redis_url, monkeypatch
):
    what = changed("replay 1h")
    expected, _ = after(changed("drop"), changed("drop"))

    def die():
        with monkeypatch.context() as patch:
            patch.setattr(Store, "commit", lambda *_: sys.exit())
            with pytest.raises(SystemExit):
                live.once(redis_url, what)
        live.once(redis_url, what)

    found, notes = after(what, first=die)
    assert found == expected
    assert notes == []  # the one before has committed it


@pytest.mark.redis
def test_it_can_be_asked_for_by_rule(after):
    name = live.RULES[0].name
    _, notes = after(changed({name: "replay 1h"}))
    replayed = [note for note in notes if note.endswith("were replayed for it")]
    assert [note.split()[1] for note in replayed] == [name]
    assert len(notes) == len(live.RULES)


@pytest.mark.parametrize(
    ("on_change", "problem"),
    [
        ("keep", "on_change is 'keep'. Write 'drop', or such as 'replay 15m'."),
        ("replay soon", "'soon' is not a duration"),
        ({"junp": "drop"}, "names 'junp', which is no rule of it. Its rules are jump,"),
    ],
)
def test_what_cannot_be_meant_is_refused(on_change, problem):
    with pytest.raises(CepError) as caught:
        changed(on_change)
    assert problem in str(caught.value)
