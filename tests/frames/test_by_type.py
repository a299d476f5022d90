import polars as pl
import pytest
from polars.testing import assert_frame_equal

from cep.errors import UnknownEventTypeError, UsageError
from cep.frames import by_type, load, to_pandas

MARKET = "market.events"
OWN = ["event_time", "type", "event_id", "entry_id"]


@pytest.fixture(scope="module")
def frame():
    return load(MARKET, url="sample")


def test_each_type_is_what_loading_it_alone_gives(frame):
    parts = by_type(frame)
    assert list(parts) == sorted(frame["type"].cast(pl.String).unique())
    assert len(parts) > 1
    for name, part in parts.items():
        alone = load(MARKET, url="sample", types=name)
        assert_frame_equal(part, alone, check_column_order=False)


def test_no_row_is_lost_and_no_value(frame):
    parts = by_type(to_pandas(frame))
    whole = pl.concat(
        [part.with_columns(pl.col("type").cast(str)) for part in parts.values()],
        how="diagonal_relaxed",
    )
    assert len(whole) == len(frame)
    for name in set(frame.columns) - set(OWN):
        assert whole[name].count() == frame[name].count(), name


def test_what_has_no_types_is_refused(frame):
    with pytest.raises(UsageError, match="no column 'type'"):
        by_type(frame.drop("type"))
    with pytest.raises(UnknownEventTypeError, match=r"market\.trad"):
        by_type(frame.head(2).with_columns(type=pl.lit("market.trad")))


def test_an_empty_frame_has_no_types(frame):
    assert by_type(frame.clear()) == {}
