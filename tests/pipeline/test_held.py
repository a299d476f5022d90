"""Runs of entries: what is encoded comes back, in little room."""

import zlib

import numpy as np
import pytest

from cep.pipeline.held import decode, encode


def ids_of(run):
    """The entry ids of a run whose ids rise by one second part each."""
    ms, _, first = run.first.partition("-")
    last_ms, _, last = run.last.partition("-")
    assert ms == last_ms
    assert int(last) - int(first) + 1 == run.entries
    return [(int(ms), seq) for seq in range(int(first), int(last) + 1)]


@pytest.mark.parametrize("seed", range(30))
def test_what_is_encoded_comes_back(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 300))
    ms = np.sort(rng.integers(1, 4, n).cumsum() // 7 + 2**40)
    seq = np.arange(n) - np.searchsorted(ms, ms)  # of one millisecond, from 0
    # An entry of each new millisecond that is not held comes before it.
    place = np.arange(n) + ms - ms[:1].sum()
    kept = rng.random(n) < rng.choice([0.1, 0.5, 0.95])
    order = rng.permutation(np.flatnonzero(kept))
    runs = decode(encode(ms[order], seq[order], place[order]))
    found = [one for run in runs for one in ids_of(run)]
    assert found == list(zip(ms[kept].tolist(), seq[kept].tolist(), strict=True))
    breaks = np.diff(place[kept]) != 1
    assert len(runs) == (breaks.sum() + 1 if kept.any() else 0)


def test_large_ids_are_kept():
    big = np.array([2**62, 2**62 + 1])
    [run] = decode(encode(big, big, np.array([-7, -6])))
    assert run == (f"{2**62}-{2**62}", f"{2**62 + 1}-{2**62 + 1}", 2)


def test_rows_that_wait_take_no_room_and_scattered_ones_take_little():
    n = 100_000
    ms, seq = np.arange(n) // 30 + 1_700_000_000_000, np.arange(n) % 30
    assert len(encode(ms, seq, np.arange(n))) < 100
    rng = np.random.default_rng(0)
    scattered = np.sort(rng.choice(2 * n, n, replace=False))
    assert len(encode(ms, seq, scattered)) < 4 * n


@pytest.mark.parametrize(
    "raw",
    [
        b"x",
        encode(np.arange(9), np.arange(9), np.arange(9))[:-3],
        zlib.compress(b"1234"),
        zlib.compress(np.array([5, 0, 0, 0, 0], "<i8").tobytes()),
        zlib.compress(np.array([-5, 0, 0, 0, 1], "<i8").tobytes()),
        zlib.compress(np.array([5, 0, 0, -1, 1], "<i8").tobytes()),
        zlib.compress(b""),
    ],
)
def test_what_was_not_encoded_here_is_refused(raw):
    with pytest.raises(ValueError, match=r"it is|Error|negative|no entries"):
        decode(raw)
