from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from cep.analysis import series
from cep.errors import UsageError
from cep.frames.convert import to_arrow, to_pandas

START = datetime(2026, 1, 5, 9, tzinfo=UTC)
NS = 1_767_603_600_000_000_000


def make_frame(rows, unit="ms"):
    times = [None if t is None else START + timedelta(milliseconds=t) for t, _ in rows]
    return pl.DataFrame(
        {"event_time": times, "price": [p for _, p in rows]},
        schema={"event_time": pl.Datetime(unit, "UTC"), "price": pl.Float64},
    )


def test_the_last_of_an_instant_stands_and_what_has_no_value_is_counted():
    rows = [(5, 3.0), (1, 1.0), (5, 4.0), (7, None), (8, float("nan")), (None, 2.0)]
    got = series(make_frame(rows), transform="none")
    assert got.time_ns.tolist() == [NS + 1_000_000, NS + 5_000_000]
    assert got.values.tolist() == [1.0, 4.0]
    assert (got.absent, got.replaced) == (3, 1)


def test_prices_become_logarithms_and_none_below_zero():
    got = series(make_frame([(0, 1.0), (1, 0.0), (2, -1.0), (3, np.e)]))
    assert got.values.tolist() == [0.0, 1.0]
    assert got.absent == 2


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_times_are_nanoseconds_whatever_the_unit(unit):
    assert series(make_frame([(3, 1.0)], unit)).time_ns.tolist() == [NS + 3_000_000]


def test_all_kinds_of_frame_give_the_same():
    frame = make_frame([(0, 1.0), (2, 2.0), (1, 3.0)])
    for other in (frame.lazy(), to_pandas(frame), to_arrow(frame)):
        got = series(other)
        assert got.time_ns.tolist() == series(frame).time_ns.tolist()
        assert got.values.tolist() == series(frame).values.tolist()


def test_a_part_includes_both_ends():
    got = series(make_frame([(t, 1.0) for t in range(5)]))
    part = got.between(NS + 1_000_000, NS + 3_000_000)
    assert part.time_ns.tolist() == [NS + k * 1_000_000 for k in (1, 2, 3)]


def test_a_missing_column_is_named_with_its_near_miss():
    with pytest.raises(UsageError, match=r"no column 'prcie'.*Did you mean 'price'"):
        series(make_frame([(0, 1.0)]), "prcie")


def test_a_time_that_is_none_is_refused():
    frame = make_frame([(0, 1.0)]).cast({"event_time": pl.Int64})
    with pytest.raises(UsageError, match="'event_time' is Int64, not a datetime"):
        series(frame)


def test_a_transform_that_is_none_is_refused():
    with pytest.raises(UsageError, match="transform is 'ln'"):
        series(make_frame([(0, 1.0)]), transform="ln")
