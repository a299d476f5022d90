"""Entries that go unread: counted, and the rest is as if they had never been."""

import random

import live
import pytest

from tests.faults import outages

pytestmark = [pytest.mark.redis, pytest.mark.slow]

ENTRIES = 1_000
EACH = 20


def lose(trial, rounds, dice):
    """Kill the pipeline, write some more, and delete entries that it has not read.

    They are in the middle of what is unread, or reach up to its end; only those
    that lie before others can be missed.
    """
    lost = {live.MARKET: 0, live.AI: 0}
    for number in range(rounds):
        kill = trial.kill(200 * number + 100, dice)
        assert kill.proved
        read = live.counts(trial.client, trial.name)
        trial.feed.let(200 * number + 200)
        live.wait_until(lambda n=number: trial.feed.written >= 200 * n + 200)
        for stream in lost:
            position = read[stream]["read"] + lost[stream]
            ids = [one for s, one, _ in trial.feed.entries if s == stream][position:]
            there = {found[0].decode() for found in trial.client.xrange(stream)}
            unread = [one for one in ids if one in there]
            gone = dice.sample(unread, min(len(unread) // 2, EACH))
            lost[stream] += trial.client.xdel(stream, *gone) if gone else 0
    return lost


def told(trial):
    """Return how many entries gap rows have named, by stream."""
    found = {live.MARKET: 0, live.AI: 0}
    for row in live.dead_letters(trial.client, trial.name):
        if row["kind"] == "gap":
            found[row["stream"]] += int(row["missing"])
    return found


def test_deleted_entries_are_counted_exactly_and_change_nothing_else(trial):
    lost = lose(trial, 4, random.Random(3))
    assert min(lost.values()) > 5
    trial.finish()
    assert told(trial) == lost
    counts = live.counts(trial.client, trial.name)
    assert {stream: one["gaps"] for stream, one in counts.items()} == lost
    verdict, _ = outages.verdict_over_survivors(trial, ignore=("rollback", "gap"))
    assert (verdict.lost, verdict.duplicated, verdict.phantom) == (0, 0, 0)


def test_what_was_never_there_is_noticed(trial):
    """A planted fault: the comparison is with all that was ever written."""
    lose(trial, 4, random.Random(3))
    assert trial.finish().lost > 0
