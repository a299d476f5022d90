"""Which rows are late, and in which order the others are released."""

import random

import numpy as np
import pytest

from cep.engine.batch import Batch
from cep.engine.ordering import (
    END_OF_TIME,
    LAST_MS,
    NS_PER_MS,
    InputStream,
    Ordering,
)
from cep.errors import UsageError

MS = NS_PER_MS


def rows(stream, *arrivals):
    """Rows of (entry ms, entry seq, event ms) of one stream, and the id's number.

    Without a number the ids of all rows differ.
    """
    parts = zip(*(row[:3] for row in arrivals), strict=True)
    ms, seq, time = (np.array(part, np.int64) for part in parts)
    none = np.zeros(len(ms), np.int64)
    lo = np.array([row[3] if len(row) > 3 else row[1] for row in arrivals], np.int64)
    hi = np.array([0 if len(row) > 3 else row[0] for row in arrivals], np.int64)
    number = np.full(len(ms), stream)
    place = np.arange(len(ms))
    ints = np.array([time * MS, number, ms, seq, none, hi, lo, place])
    return Batch(ints, np.zeros((1, len(ms))))


def ids_of(batch):
    return list(
        zip(
            batch.stream.tolist(),
            batch.entry_ms.tolist(),
            batch.entry_seq.tolist(),
            strict=True,
        )
    )


def made_streams(random_):
    bounds = [0, 5, 40]
    idles = [None, 20, 100]
    return [
        InputStream(
            f"s{i}",
            random_.choice(bounds) * MS,
            None if (idle := random_.choice(idles)) is None else idle * MS,
        )
        for i in range(3)
    ]


def made_arrivals(random_, n=120):
    """Of each stream (entry ms, entry seq, event ms, id), in entry id order.

    Streams begin at different times and fall silent; some events are old, some
    have the id of an earlier one, with its time or another.
    """
    silent_until = [random_.choice([0, 0, 150]) for _ in range(3)]
    arrivals, now = [[], [], []], 1000
    for _ in range(n):
        now += random_.choice([0, 1, 1, 2, 7])
        number = random_.randrange(3)
        if now - 1000 < silent_until[number]:
            continue
        if random_.random() < 0.05:
            silent_until[number] = now - 1000 + 150
        seq = sum(1 for ms, *_ in arrivals[number] if ms == now)
        time = now - random_.choice([0, 0, 1, 3, 30, 90])
        event_id = len(arrivals[number])
        if arrivals[number] and random_.random() < 0.2:
            *_, time_then, event_id = random_.choice(arrivals[number][-8:])
            time = random_.choice([time, time_then])
        arrivals[number].append((now, seq, time, event_id))
    return arrivals


class Reads:
    """Reads as a live run does them: what is there by then, so much of it."""

    def __init__(self, streams, arrivals):
        self.ordering = Ordering(streams, 1)
        self.arrivals, self.positions = arrivals, [0] * len(arrivals)
        self.late, self.duplicate, self.released = set(), set(), []

    def read(self, now, count, limit):
        """Read up to ``count`` rows of each stream that arrived by ``now``."""
        pages, behind = [], []
        for number, all_rows in enumerate(self.arrivals):
            at = self.positions[number]
            there = [row for row in all_rows[at:] if row[0] <= now]
            if page := there[:count]:
                pages.append(rows(number, *page))
                self.positions[number] += len(page)
            if len(page) == count:
                behind.append(page[-1][0])
        for page in sorted(pages, key=lambda page: page.entry_ms[0]):
            late, duplicate = self.ordering.add(page)
            self.late.update(ids_of(page.take(late)))
            self.duplicate.update(ids_of(page.take(duplicate)))
        if pages:
            ends = [int(page.entry_ms[-1]) for page in pages]
            self.ordering.arrived(min(behind, default=max(ends)))
        while True:
            batch, mark = self.ordering.release(limit)
            assert (batch.time < mark).all() or limit is not None
            self.released += ids_of(batch)
            if limit is None or len(batch) < limit:
                return bool(behind)

    def end(self):
        self.ordering.end()
        self.released += ids_of(self.ordering.release()[0])


@pytest.mark.parametrize("seed", range(60))
def test_what_is_late_and_what_is_released_does_not_depend_on_the_reads(seed):
    random_ = random.Random(seed)
    streams, arrivals = made_streams(random_), made_arrivals(random_)
    last = max(row[0] for all_rows in arrivals for row in all_rows)

    at_once = Reads(streams, arrivals)
    at_once.read(last, 10_000, None)
    at_once.end()
    gone = len(at_once.late) + len(at_once.duplicate)
    assert len(at_once.released) + gone == sum(map(len, arrivals))

    for _ in range(5):
        others = Reads(streams, arrivals)
        now = 1000
        while now < last:
            now += random_.choice([1, 5, 50])
            count, limit = random_.choice([1, 3, 1000]), random_.choice([None, 1, 4])
            while others.read(now, count, limit) and random_.random() < 0.8:
                pass
            if random_.random() < 0.2:  # a tick, when all has been read
                while others.read(now, 1000, None):
                    pass
                others.ordering.arrived(now)
            if random_.random() < 0.2:  # a restart
                state = others.ordering.snapshot()
                held = others.ordering._held()
                others.ordering = Ordering(streams, 1)
                others.ordering.restore(state)
                for batch in held:
                    others.ordering.put_back(batch)
        while others.read(last, 1000, None):
            pass
        others.end()
        assert others.late == at_once.late
        assert others.duplicate == at_once.duplicate
        assert others.released == at_once.released


@pytest.mark.slow
def test_the_comparison_notices_a_clock_that_runs_ahead(monkeypatch):
    arrived = Ordering.arrived
    monkeypatch.setattr(Ordering, "arrived", lambda self, ms: arrived(self, ms + 60))
    noticed = 0
    for seed in range(60):
        try:
            test_what_is_late_and_what_is_released_does_not_depend_on_the_reads(seed)
        except AssertionError:
            noticed += 1
    assert noticed > 5


def test_rows_of_one_moment_are_released_by_stream_and_then_by_entry():
    ordering = Ordering([InputStream("b"), InputStream("a")], 1)
    ordering.add(rows(1, (5, 0, 100), (5, 1, 100)))
    ordering.add(rows(0, (6, 0, 100), (9, 9, 101)))
    ordering.end()
    assert ids_of(ordering.release()[0]) == [(0, 6, 0), (1, 5, 0), (1, 5, 1), (0, 9, 9)]


def test_rows_held_back_for_long_are_joined_and_not_piled_up():
    ordering = Ordering([InputStream("a"), InputStream("silent")], 1)
    for i in range(1, 200):
        ordering.add(rows(0, (i, 0, i)))
        assert len(ordering.release(100)[0]) == 0
        assert len(ordering._waiting) <= 10
    assert len(ordering) == 199


@pytest.mark.parametrize("limit", [None, 100])
def test_a_release_leaves_batches_alone_that_it_takes_nothing_from(limit):
    """So its cost does not grow with how many rows wait."""
    ordering = Ordering([InputStream("a", 20 * MS)], 1)
    n = 2000
    for at in range(30):
        page = [(at, i, at, at * n + i) for i in range(n)]
        ordering.add(rows(0, *page))
    before = {id(batch) for batch in ordering._waiting}
    released = len(ordering.release(limit)[0])
    assert released == (limit or 9 * n)
    left = {id(batch) for batch in ordering._waiting}
    assert len(left) == 21
    assert left < before
    assert len(ordering) == 30 * n - released


@pytest.mark.parametrize("limit", [None, 1, 7, 100])
def test_what_is_held_is_all_that_was_not_released(limit):
    """Also where a part of the rows that are due is still to be released."""
    ordering = Ordering([InputStream("a", 60 * MS), InputStream("b", 60 * MS)], 1)
    for number in (0, 1):
        arrivals = [(i, 0, (7 * i) % 50 + i) for i in range(100)]
        ordering.add(rows(number, *arrivals))
    released = set()
    for _ in range(3):
        released |= set(ids_of(ordering.release(limit)[0]))
        for number, name in enumerate("ab"):
            ms, seq, place = ordering.held(number)
            held = [f"{a}-{b}" for a, b in zip(ms.tolist(), seq.tolist(), strict=True)]
            assert sorted(held) == sorted(ordering.waiting_ids()[name])
            assert (ms == place).all()
            left = 100 - sum(one[0] == number for one in released)
            assert len(held) == left


def test_rows_at_the_watermark_wait():
    ordering = Ordering([InputStream("a", 10 * MS)], 1)
    ordering.add(rows(0, (1, 0, 89), (2, 0, 90), (3, 0, 100)))
    batch, mark = ordering.release()
    assert batch.time.tolist() == [89 * MS]
    assert mark == 90 * MS
    assert ordering.waiting_ids() == {"a": ["2-0", "3-0"]}
    assert ordering.held_back_by() == "a"


def test_an_event_at_its_own_watermark_is_not_late():
    ordering = Ordering([InputStream("a", 10 * MS)], 1)
    late, _ = ordering.add(rows(0, (1, 0, 100), (2, 0, 90), (3, 0, 89), (4, 0, 95)))
    assert late.tolist() == [False, False, True, False]


def expected_duplicates(arrivals, bound):
    """Of one stream that never idles, by the definition."""
    found, kept, largest = set(), [], -(10**12)
    for ms, seq, time, event_id in arrivals:
        mark = largest - bound
        largest = max(largest, time)
        if time < mark:
            continue
        if any(earlier == event_id and then >= mark for earlier, then in kept):
            found.add((0, ms, seq))
        else:
            kept.append((event_id, time))
    return found


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("bound", [0, 5, 40, 200])
def test_duplicates_are_what_the_definition_says(seed, bound):
    arrivals = made_arrivals(random.Random(seed), 300)[0]
    ordering = Ordering([InputStream("a", bound * MS)], 1)
    page = rows(0, *arrivals)
    late, duplicate = ordering.add(page)
    assert not (late & duplicate).any()
    assert set(ids_of(page.take(duplicate))) == expected_duplicates(arrivals, bound)


def test_streams_that_say_so_are_not_looked_at_for_duplicates():
    page = rows(0, (1, 0, 100, 7), (2, 0, 100, 7))
    for deduplicate in (True, False):
        ordering = Ordering([InputStream("a", 0, None, deduplicate)], 1)
        assert ordering.add(page).duplicate.tolist() == [False, deduplicate]
        assert len(ordering) == 2 - deduplicate


def test_equal_ids_of_two_streams_are_two_events():
    ordering = Ordering([InputStream("a"), InputStream("b")], 1)
    for number in (0, 1):
        assert not ordering.add(rows(number, (1, 0, 100, 7))).duplicate.any()


def test_an_id_may_come_again_once_its_event_is_below_the_watermark():
    ordering = Ordering([InputStream("a", 10 * MS)], 1)
    page = rows(0, (1, 0, 100, 7), (2, 0, 110, 8), (3, 0, 111, 7), (4, 0, 112, 7))
    assert ordering.add(page).duplicate.tolist() == [False, False, True, False]
    assert ordering.add(rows(0, (5, 0, 113, 7))).duplicate.tolist() == [True]


@pytest.mark.parametrize("names", [[], ["a", "a"]])
def test_streams_are_named_once_and_at_least_one(names):
    with pytest.raises(UsageError, match="Name at least one, each once"):
        Ordering([InputStream(name) for name in names], 1)


@pytest.mark.parametrize("far", [LAST_MS - 5, LAST_MS, LAST_MS + 9, 2**63 - 1])
def test_entry_ids_beyond_the_end_of_time_overflow_nothing(far):
    """A raw client may choose them; the stream's clock then stands at the end."""
    ordering = Ordering([InputStream("a", 0, MS), InputStream("b", 0, MS)], 1)
    late, _ = ordering.add(
        rows(0, (1, 0, 100), (far, 0, 101), (far, 1, 9_000_000_000_000))
    )
    assert late.tolist() == [False, True, True]
    ordering.arrived(far)
    assert ordering.watermark() <= END_OF_TIME
    batch, mark = ordering.release()
    assert len(batch) == 1
    assert mark <= END_OF_TIME
