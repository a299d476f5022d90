"""Rows written by a template are what packing each word by itself gives."""

import numpy as np
import pytest

from cep.bus.link import Words
from cep.bus.row_template import Hole, RowTemplate, Texts
from cep.events.timestamps import END_MS


@pytest.mark.parametrize("seed", range(5))
def test_rows_equal_words_packed_one_by_one(seed):
    rng = np.random.default_rng(seed)

    def text():
        return rng.bytes(int(rng.choice([0, 1, 7, 8, 9, 26, 99, 100, 1200])))

    names = [Hole(name) for name in "abc"]
    words = [
        [text() if rng.random() < 0.5 else rng.choice(names) for _ in range(size)]
        for size in [0, 1, 1, 2, 3, 5]
    ]
    words = [[Hole(x) if isinstance(x, str) else x for x in word] for word in words]
    words.append([Hole("a")])
    columns = {name: [text() for _ in range(20)] for name in "abc"}
    data, ends = RowTemplate.of(words).fill(
        {name: Texts.of(column) for name, column in columns.items()}
    )
    expected = [
        Words.of(
            [
                b"".join(columns[x][row] if isinstance(x, Hole) else x for x in word)
                for word in words
            ]
        ).data
        for row in range(20)
    ]
    assert data == b"".join(expected)
    assert ends.tolist() == np.cumsum(list(map(len, expected))).tolist()


def test_no_rows_are_nothing():
    data, ends = RowTemplate.of([[Hole("a")]]).fill({"a": Texts.of([])})
    assert (data, len(ends)) == (b"", 0)


def test_texts_may_repeat():
    texts = Texts.of([b"one", b"two"]).take(np.array([1, 1, 0]))
    data, _ = RowTemplate.of([[Hole("a")]]).fill({"a": texts})
    assert data == Words.of([b"two", b"two", b"one"]).data


@pytest.mark.parametrize("items", [[], [b"1"], [b"1.5", b"-2", b"3e9"]])
def test_an_array_is_parted_at_its_commas(items):
    texts = Texts.between_commas(b"[" + b",".join(items) + b"]")
    found = [bytes(texts.data[a : a + n]) for a, n in texts.spans.tolist()]
    assert found == items


def test_times_are_written_as_numpy_writes_them():
    rng = np.random.default_rng(1)
    days = 86_400_000 * np.arange(0, END_MS // 86_400_000, 17)
    edges = [0, 951_782_400_000, 951_868_799_999, 4_107_542_400_000, END_MS - 1]
    times = np.concatenate([edges, days, days - 1, rng.integers(0, END_MS, 1000)])
    times = times[times >= 0]
    texts = Texts.of_times(times)
    found = texts.data.view("S24").tolist()
    expected = np.datetime_as_string(times.astype("datetime64[ms]")).tolist()
    assert found == [f"{text}Z".encode() for text in expected]
