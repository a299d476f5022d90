"""The table of ids seen lately: right at any size, and no larger than it must be."""

import random

import numpy as np
import pytest

from cep.engine.batch import Batch
from cep.engine.recent_ids import LEAST_ROWS, PART_ROWS, RecentIds


def rows(ids, times):
    lo, time = np.array(ids, np.int64), np.array(times, np.int64)
    none = np.zeros(len(lo), np.int64)
    return Batch(
        np.array([time, none, none, none, none, lo >> 3, lo]), np.zeros((0, 0))
    )


def judged(recent, ids, times, horizon):
    batch = rows(ids, times)
    largest = np.maximum.accumulate(batch.time)
    late = batch.time < largest - horizon
    return recent.judge(batch, largest - horizon, late).tolist()


def by_definition(ids, times, horizon):
    kept, largest, found = {}, -(10**12), []
    for event_id, time in zip(ids, times, strict=True):
        largest = max(largest, time)
        late = time < largest - horizon
        copy = not late and kept.get(event_id, -(10**12)) >= largest - horizon
        if not late and not copy:
            kept[event_id] = time
        found.append(copy)
    return found


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("cut", [1, 7, 5000])
def test_ids_are_found_however_the_rows_are_cut(seed, cut):
    random_ = random.Random(seed)
    n = 5000
    ids = [random_.randrange(3000) - 1500 for _ in range(n)]
    times = [i // 3 - random_.randrange(20) for i in range(n)]
    recent, found = RecentIds(), []
    batch = rows(ids, times)
    marks = np.maximum.accumulate(batch.time) - 500
    late = batch.time < marks
    for at in range(0, n, cut):
        part = slice(at, at + cut)
        found += recent.judge(batch.take(part), marks[part], late[part]).tolist()
    assert found == by_definition(ids, times, 500)
    assert 100 < sum(found) < n - 100


def test_the_table_stays_as_small_as_the_horizon():
    recent = RecentIds()
    for at in range(0, 200_000, 1000):
        assert not any(judged(recent, range(at, at + 1000), range(at, at + 1000), 50))
    assert len(recent) <= 4096
    assert len(recent) >= LEAST_ROWS


def test_a_large_batch_is_judged_in_parts():
    n = 4 * PART_ROWS
    recent = RecentIds()
    ids = [*range(n - 1), n - 60]
    found = judged(recent, ids, range(n), 100)
    assert found.index(True) == n - 1
    assert len(recent) <= 4 * PART_ROWS


def test_rows_put_back_are_remembered_by_the_latest_time():
    recent = RecentIds()
    recent.put_back(rows([1, 2, 1], [100, 90, 70]))
    batch = rows([1, 2], [101, 101])
    marks = np.array([95, 95])
    assert recent.judge(batch, marks, np.zeros(2, np.bool_)).tolist() == [True, False]
