import numpy as np
import polars as pl
import pytest

from cep.errors import UsageError
from cep.events.ids import ulid_to_words
from cep.frames.ids import (
    made_entry_ids,
    made_event_ids,
    parse_entry_ids,
    parse_event_ids,
)

LARGEST = "7ZZZZZZZZZZZZZZZZZZZZZZZZZ"
SOME = "01ARYZ6S419WM4ATHMZVXYX4QJ"


def test_event_ids_are_read_as_the_strict_parser_reads_them():
    texts = ["0" * 26, SOME, LARGEST, "0000000000000G000000000001"]
    hi, lo = parse_event_ids(pl.Series(texts))
    assert list(zip(hi.tolist(), lo.tolist(), strict=True)) == [
        ulid_to_words(text) for text in texts
    ]


def test_event_ids_are_read_from_the_middle_of_a_column():
    hi, lo = parse_event_ids(pl.Series([LARGEST, SOME, LARGEST]).slice(1, 1))
    assert (int(hi[0]), int(lo[0])) == ulid_to_words(SOME)


@pytest.mark.parametrize(
    "wrong",
    [None, "", SOME[:-1], SOME.lower(), "8" + SOME[1:], SOME[:-1] + "U", "é" * 13],
)
def test_what_is_no_event_id_is_refused_with_its_row(wrong):
    with pytest.raises(UsageError, match=r"event_id, row 1: .* is no event id"):
        parse_event_ids(pl.Series("event_id", [SOME, wrong]))


def test_entry_ids_are_read_to_63_bits():
    ms, seq = parse_entry_ids(pl.Series(["0-0", "1700000000000-12", f"5-{2**63 - 1}"]))
    assert ms.tolist() == [0, 1700000000000, 5]
    assert seq.tolist() == [0, 12, 2**63 - 1]


@pytest.mark.parametrize(
    "wrong", [None, "5", "5-", "-5-1", "05-1", "a-b", f"5-{2**63}"]
)
def test_what_is_no_entry_id_is_refused_with_its_row(wrong):
    with pytest.raises(UsageError, match=r"entry_id, row 1: .* is no entry id"):
        parse_entry_ids(pl.Series("entry_id", ["1-0", wrong]))


def test_made_entry_ids_keep_the_order_of_rows_whatever_their_times():
    times = np.random.default_rng(1).integers(0, 50, 500)
    ms, seq = made_entry_ids(times)
    pairs = list(zip(ms.tolist(), seq.tolist(), strict=True))
    assert pairs == sorted(set(pairs))
    assert (ms >= times).all()


def test_made_event_ids_are_of_time_stream_and_row_alone():
    hi, lo = made_event_ids("market.events", np.array([5, 5, 3]))
    assert (hi >> np.uint64(16)).tolist() == [5, 5, 3]
    assert lo.tolist() == [0, 1, 2]
    again, _ = made_event_ids("market.events", np.array([5, 5, 3]))
    other, _ = made_event_ids("ai.events", np.array([5, 5, 3]))
    assert again.tolist() == hi.tolist()
    assert not np.intersect1d(other, hi).size


def test_no_rows_have_no_ids():
    none = np.zeros(0, np.int64)
    assert [len(part) for part in made_entry_ids(none)] == [0, 0]
    assert [len(part) for part in made_event_ids("s", none)] == [0, 0]
    empty = pl.Series([], dtype=pl.String)
    assert [len(part) for part in parse_event_ids(empty)] == [0, 0]
    assert [len(part) for part in parse_entry_ids(empty)] == [0, 0]
