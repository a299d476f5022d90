from datetime import UTC, date, datetime
from decimal import Decimal

import polars as pl
import pytest

from cep.bus.history import as_events, parse_mapping, read_file
from cep.errors import InvalidPayloadError, UnknownEventTypeError, UsageError
from cep.events import registry


def make_trades(**columns):
    return pl.DataFrame(
        {
            "ts": [datetime(2024, 8, 8, 23, 54, 15, 342_999)],  # noqa: DTZ001
            "symbol": ["BTCUSDT"],
            "px": [61837.63],
            "qty": [0.02],
            **columns,
        }
    )


NOON = datetime(2024, 8, 8, 12, tzinfo=UTC)
MAPPING = {"price": "px", "quantity": "qty"}


def test_parses_pairs_and_quoted_constants():
    assert parse_mapping("price=px,quantity = qty , venue='a,b=c'") == {
        "price": "px",
        "quantity": "qty",
        "venue": "'a,b=c'",
    }
    assert parse_mapping("") == {}


@pytest.mark.parametrize("text", ["price", "price=", "=px", "price=px,quantity"])
def test_a_broken_mapping_is_a_usage_error(text):
    with pytest.raises(UsageError, match="is not a mapping"):
        parse_mapping(text)


def test_a_field_mapped_twice_is_a_usage_error():
    with pytest.raises(UsageError, match="'price' is mapped twice"):
        parse_mapping("price=px,price=qty")


def test_maps_columns_and_takes_equal_names_along():
    events = as_events(
        make_trades(), "market.trade", mapping={**MAPPING, "venue": "'spot'"}
    )
    assert events.columns == [
        "event_time", "type", "symbol", "price", "quantity", "venue",
    ]  # fmt: skip
    assert events.row(0)[1:] == ("market.trade", "BTCUSDT", 61837.63, 0.02, "spot")


def test_a_time_without_zone_is_utc_and_is_cut_to_milliseconds():
    events = as_events(make_trades(), "market.trade", mapping=MAPPING)
    assert events["event_time"].dtype == pl.Datetime("ms", "UTC")
    assert events["event_time"][0] == datetime(2024, 8, 8, 23, 54, 15, 342_000, UTC)


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        ([NOON], "ms"),
        (["2024-08-08T12:00:00Z"], "ms"),
        (["2024-08-08T14:00:00+02:00"], "ms"),
        ([1723118400], "s"),
        ([1723118400.0], "s"),
        ([1723118400000], "ms"),
        ([1723118400000000], "us"),
        ([1723118400000000000], "ns"),
        (pl.Series([NOON]).dt.convert_time_zone("America/Lima"), "ms"),
    ],
)
def test_every_form_of_time_gives_the_same_moment(values, unit):
    table = make_trades(ts=values)
    events = as_events(table, "market.trade", mapping=MAPPING, time_unit=unit)
    assert events["event_time"][0] == NOON


def test_nanoseconds_do_not_lose_a_millisecond():
    table = make_trades(ts=[1723161255342000000])
    events = as_events(table, "market.trade", mapping=MAPPING, time_unit="ns")
    assert events["event_time"].dt.epoch("ms")[0] == 1723161255342


def test_a_date_is_its_midnight_in_utc():
    events = as_events(
        make_trades(ts=[date(2024, 8, 8)]), "market.trade", mapping=MAPPING
    )
    assert events["event_time"][0] == datetime(2024, 8, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    "value", [None, "yesterday", -1, 9_999_999_999_999_999, True, float("nan")]
)
def test_what_is_no_time_is_refused_with_its_row(value):
    table = make_trades(ts=pl.Series([value]))
    with pytest.raises(UsageError, match=r"Column 'ts', row 0: .* is not a time"):
        as_events(table, "market.trade", mapping=MAPPING)


def test_a_file_without_a_time_column_is_told_to_name_it():
    with pytest.raises(UsageError, match="Name the one with the event time"):
        as_events(make_trades().drop("ts"), "market.trade", mapping=MAPPING)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mapping": {"prcie": "px"}}, "no field 'prcie'. Did you mean 'price'?"),
        ({"mapping": {"price": "pxx"}}, "no column 'pxx'. Did you mean 'px'?"),
        ({"time": "tss"}, "no column 'tss'. Did you mean 'ts'?"),
        ({"mapping": {"price": "px"}}, "needs 'quantity' (a finite number)"),
        ({"constants": {"price": "1"}}, "'price' is given twice"),
        ({"mapping": {}, "constants": {"price": "x"}}, "price cannot be 'x'"),
        ({"time_unit": "m"}, "no unit of time"),
    ],
)
def test_a_slip_is_named_with_the_near_miss(change, message):
    arguments = {"mapping": MAPPING, **change}
    if "cannot be" in message:
        arguments["mapping"] = {"quantity": "qty"}
    with pytest.raises(UsageError) as caught:
        as_events(make_trades(), "market.trade", **arguments)
    assert message in str(caught.value)


def test_an_unknown_type_is_told_the_near_one():
    with pytest.raises(UnknownEventTypeError, match=r"Did you mean 'market\.trade'"):
        as_events(make_trades(), "market.trad", mapping=MAPPING)


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), "12", True])
def test_a_value_that_may_not_stand_in_its_field_is_refused(value):
    with pytest.raises(InvalidPayloadError, match=r"data\.price\[0\]"):
        as_events(make_trades(px=pl.Series([value])), "market.trade", mapping=MAPPING)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pl.Series(["a"], dtype=pl.Categorical), "a"),
        (pl.Series([7]), "7"),
        (pl.Series([date(2024, 8, 8)]), "2024-08-08"),
    ],
)
def test_text_fields_take_categories_whole_numbers_and_dates(values, expected):
    events = as_events(make_trades(symbol=values), "market.trade", mapping=MAPPING)
    assert events["symbol"].to_list() == [expected]


def test_a_float_is_no_text():
    with pytest.raises(InvalidPayloadError, match=r"data\.symbol\[0\] is 1\.5"):
        as_events(make_trades(symbol=[1.5]), "market.trade", mapping=MAPPING)


def test_decimals_become_floats():
    events = as_events(
        make_trades(px=[Decimal("1.25")]), "market.trade", mapping=MAPPING
    )
    assert events["price"].to_list() == [1.25]


def test_constants_are_of_the_type_of_their_field():
    events = as_events(
        make_trades(),
        "market.trade",
        mapping={"price": "px"},
        constants={"quantity": "2", "venue": "42"},
    )
    assert events.select("quantity", "venue").row(0) == (2, "42")


def test_reads_parquet_and_csv(tmp_path):
    table = make_trades()
    table.write_parquet(tmp_path / "a.parquet")
    table.write_csv(tmp_path / "a.csv")
    for name in ("a.parquet", "a.csv"):
        events = as_events(read_file(tmp_path / name), "market.trade", mapping=MAPPING)
        assert events["event_time"].dt.epoch("ms")[0] == 1723161255342


def test_an_unreadable_file_is_one_clear_line(tmp_path):
    (tmp_path / "trades.parquet").write_bytes(b"PAR1 but no more")
    (tmp_path / "trades.xlsx").touch()
    for name, message in [
        ("trades.parquet", "'trades.parquet' cannot be read"),
        ("trades.xlsx", "neither a .parquet nor a .csv file"),
        ("trade.parquet", "Did you mean 'trades.parquet'?"),
        ("no/such/folder.csv", "Check the path"),
    ]:
        with pytest.raises(UsageError) as caught:
            read_file(tmp_path / name)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_an_empty_table_gives_no_events():
    assert len(as_events(make_trades().clear(), "market.trade", mapping=MAPPING)) == 0
    assert "market.trade" in registry
