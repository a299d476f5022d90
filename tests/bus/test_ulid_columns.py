import numpy as np
import pytest

from cep.bus.ulid_columns import new_ulids, ulid_texts
from cep.events.ids import ulid_time_ms, words_to_ulid


def test_texts_are_those_of_single_ids():
    rng = np.random.default_rng(3)
    hi, lo = rng.integers(0, 2**64, (2, 500), dtype=np.uint64)
    edges = np.array([0, 1, 2**63, 2**64 - 1], np.uint64)
    hi, lo = np.append(hi, edges), np.append(lo, edges[::-1])
    expected = [words_to_ulid(*pair).encode() for pair in zip(hi, lo, strict=True)]
    assert ulid_texts(hi, lo) == expected
    assert ulid_texts(hi[:0], lo[:0]) == []


def test_ids_carry_their_events_time_and_keep_order_within_it():
    time_ms = np.array([5, 5, 5, 7, 6, 6, 5, 2**48 - 1])
    texts = [text.decode() for text in ulid_texts(*new_ulids(time_ms))]
    assert [ulid_time_ms(text) for text in texts] == time_ms.tolist()
    assert texts[0] < texts[1] < texts[2] < texts[4] < texts[5] < texts[3]
    assert len(set(texts)) == len(texts)


def test_two_makings_do_not_meet():
    time_ms = np.zeros(1000, np.int64)
    first, second = (ulid_texts(*new_ulids(time_ms)) for _ in range(2))
    assert not set(first) & set(second)


@pytest.mark.parametrize("time_ms", [-1, 2**48])
def test_time_that_no_id_can_hold_is_refused(time_ms):
    with pytest.raises(ValueError, match="2\\*\\*48"):
        new_ulids(np.array([0, time_ms]))
