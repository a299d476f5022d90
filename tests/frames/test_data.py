"""Frames of the user's own as a source, beside the server that they came from."""

import live
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from cep.bus.connection import connect_redis
from cep.bus.embedded import EmbeddedServer
from cep.errors import UsageError
from cep.frames import load, scan, to_arrow, to_pandas

MARKET, AI = live.MARKET, live.AI
TYPES = ["market.trade", "market.quote"]
FORMS = {
    "polars": lambda frame: frame,
    "lazy": pl.DataFrame.lazy,
    "pandas": to_pandas,
    "arrow": to_arrow,
}


@pytest.fixture(scope="module")
def server():
    with (
        EmbeddedServer(appendonly=False) as server,
        connect_redis(server.url) as client,
    ):
        live.write(client, live.traffic(6, 900))
        yield server.url


@pytest.fixture(scope="module")
def frames(server):
    return load([MARKET, AI], url=server, envelope=True)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"types": "market.trade", "columns": ["price"], "limit": 7},
        {"start": "-300ms", "envelope": True},
        {"types": TYPES},
    ],
)
def test_a_frame_is_loaded_as_the_stream_that_it_came_from(server, frames, form, how):
    data = FORMS[form](frames[MARKET])
    expected = load(MARKET, url=server, **how)
    assert len(expected)
    assert_frame_equal(load(MARKET, data=data, **how), expected)


def test_frames_of_several_streams_are_loaded_and_scanned(server, frames):
    expected = load([MARKET, AI], url=server)
    loaded = load([MARKET, AI], data=frames)
    lazy = scan([MARKET, AI], data=frames)
    for stream, scanned in scan([MARKET, AI], url=server).items():
        assert_frame_equal(loaded[stream], expected[stream])
        assert_frame_equal(lazy[stream].collect(), scanned.collect())
    dear = pl.col("price") > 10
    assert_frame_equal(
        scan(MARKET, data=frames[MARKET]).filter(dear).head(5).collect(),
        scan(MARKET, url=server).filter(dear).head(5).collect(),
    )


def test_a_frame_without_types_and_ids_holds_the_one_type_asked_for():
    own = pl.DataFrame({"event_time": [2000, 1000], "symbol": ["A", "B"]})
    own = own.with_columns(price=pl.lit(1.5), quantity=pl.lit(2.0))
    found = load(MARKET, data=own, types="market.trade")
    assert found["symbol"].to_list() == ["A", "B"]
    assert found["type"].unique().to_list() == ["market.trade"]
    found = scan(MARKET, data={MARKET: own}, types=["market.trade"]).collect()
    assert found["price"].to_list() == [1.5, 1.5]
    with pytest.raises(UsageError, match="no column 'type'"):
        load(MARKET, data=own)


def test_what_cannot_be_meant_is_refused(frames):
    with pytest.raises(UsageError, match="one frame for 2 streams"):
        load([MARKET, AI], data=frames[MARKET])
    with pytest.raises(UsageError, match="one frame for 2 streams"):
        scan([MARKET, AI], data=frames[MARKET])
    with pytest.raises(UsageError, match=r"data has no stream 'market.event'"):
        load("market.event", data=frames)
    with pytest.raises(UsageError, match="a server or an archive as well"):
        load(MARKET, data=frames, url="sample")
    with pytest.raises(UsageError, match="is no frame"):
        load(MARKET, data=[1, 2])
