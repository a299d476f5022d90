"""Columns come out of a batch as they went in, however their arrays are laid out."""

import dataclasses

import numpy as np
import pytest

from cep.engine.kernels import rows as place
from cep.engine.operator import Operator
from cep.events.columns import Column
from cep.rules import build_rule, e, emit, on
from tests import streams

NAMES = ["key", "x", "y", "n", "flag", "text"]
WORDS = ["", "a", "b", "zß"]


def strided(array):
    wide = np.zeros((array.size, 3), array.dtype)
    wide[:, 1] = array
    return wide[:, 1]


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


LAYOUTS = {
    "plain": lambda a: a,
    "slice": lambda a: np.concatenate([a, a])[a.size :],
    "strided": strided,
    "read only": read_only,
    "bytes the other way round": lambda a: a.astype(a.dtype.newbyteorder()),
    "smaller": lambda a: a.astype(np.float32) if a.dtype == np.float64 else a,
}


def given(rng, n):
    """Rows whose values floats of 32 bits hold, too; some absent."""

    def value(name):
        number = int(rng.integers(-4, 4))
        of = {"n": number, "flag": number > 0, "x": number / 2, "y": float(number)}
        word = WORDS[number % len(WORDS)]
        return None if rng.random() < 0.3 else of.get(name, word)

    return [{"t": t, **{name: value(name) for name in NAMES}} for t in range(n)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("n", [0, 1, 2, 50])
def test_values_do_not_depend_on_the_layout_of_arrays(layout, n):
    values = {f"of_{name}": getattr(e, name) for name in NAMES}
    operator = Operator([build_rule("r", on("test.tick"), [emit(**values)])])
    rows = given(np.random.default_rng(n), n)
    columns = streams.columns(rows)
    change = LAYOUTS[layout]
    arrays = {
        field.name: change(getattr(columns, field.name))
        for field in dataclasses.fields(columns)
        if isinstance(getattr(columns, field.name), np.ndarray)
    }
    fields = {
        name: Column(
            column.kind,
            change(column.values),
            None if column.valid is None else change(column.valid),
            column.texts,
        )
        for name, column in columns.fields.items()
    }
    batch = operator.ingest(dataclasses.replace(columns, fields=fields, **arrays), 7)
    assert batch.time.tolist() == [streams.ns(row["t"]) for row in rows]
    assert batch.stream.tolist() == [7] * n
    for name, row in (
        ("entry_ms", place.ENTRY_MS),
        ("entry_seq", place.ENTRY_SEQ),
        ("id_hi", place.ID_HI),
        ("id_lo", place.ID_LO),
    ):
        expected = getattr(columns, name).astype(np.int64)
        assert batch.ints[row].tolist() == expected.tolist()
    texts = operator.plan.strings.texts
    for number, column in operator.plan.inputs.items():
        if column.name not in NAMES:
            continue
        for row, got in zip(rows, batch.cols[number].tolist(), strict=True):
            if row[column.name] is None:
                assert np.isnan(got)
            else:
                found = texts[int(got)] if column.kind == "str" else got
                assert found == row[column.name]


def test_a_dictionary_that_grows_is_looked_up_again():
    operator = Operator([build_rule("r", on("test.tick"), [emit(k=e.key)])])
    columns = streams.columns([{"t": 0, "key": "a"}])
    (number,) = (i for i, c in operator.plan.inputs.items() if c.name == "key")
    for step, word in enumerate("abcde"):
        texts = columns.fields["key"].texts
        if word not in texts:
            texts.append(word)
        columns.fields["key"].values = np.array([step], np.int32)
        batch = operator.ingest(columns, 0)
        code = int(batch.cols[number, 0])
        assert operator.plan.strings.text(code) == word
