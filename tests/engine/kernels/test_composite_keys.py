"""Rows are numbered by several columns as a dictionary would."""

import numpy as np
import pytest

from cep.engine.interner import Interner
from cep.engine.keyspace import KeySpace

ODD = [0.0, -0.0, 0.5, -1.0, 1e15, -1e15, 1e300, 2.0**53, 1 / 1024, 1 / 1025, np.nan]


@pytest.mark.parametrize("seed", range(6))
def test_numbers_are_those_of_a_dictionary_over_batches_and_forgotten_keys(seed):
    rng = np.random.default_rng(seed)
    space = KeySpace((2, 0), ("float", "float"), Interner())
    known = {}
    for _ in range(12):
        cols = rng.choice(
            [*ODD, *rng.integers(0, 40, 5)], (3, int(rng.integers(0, 300)))
        )
        out = np.full(cols.shape[1], -9)
        space.number_rows(cols, out)
        for number, (_, a, b) in zip(out.tolist(), cols[[1, 2, 0]].T, strict=True):
            if np.isnan(a) or np.isnan(b):
                assert number == -1
                continue
            key = a + 0.0, b + 0.0
            assert known.setdefault(key, number) == number
        assert len(set(known.values())) == len(known)
        for key in list(known)[:: int(rng.integers(2, 9))]:
            space.release(known.pop(key))
        if rng.random() < 0.3:
            space.forget_codes()


def test_more_keys_than_the_table_first_held():
    space = KeySpace((0, 1), ("float", "float"), Interner())
    cols = np.array(np.meshgrid(np.arange(100.0), np.arange(70.0))).reshape(2, -1)
    out = np.empty(cols.shape[1], np.int64)
    space.number_rows(cols, out)
    assert sorted(out.tolist()) == list(range(7000))
    again = np.empty_like(out)
    space.number_rows(cols[:, ::-1].copy(), again)
    assert again[::-1].tolist() == out.tolist()
