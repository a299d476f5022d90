import datetime as dt

import numpy as np
import pytest
from pydantic import BaseModel, Field, ValidationError

from cep.errors import InvalidPayloadError, UnknownEventTypeError
from cep.events import Event, Registry
from cep.events.models.ai import AiInferenceRequested
from cep.events.models.market import MarketTrade
from cep.events.timestamps import from_ms

TRADE = {"symbol": "BTCUSDT", "price": 64000.5, "quantity": 2}
NOON = dt.datetime(2026, 11, 23, 12, 0, 0, 125_999, tzinfo=dt.UTC)


def refused(event_type, data, **envelope):
    with pytest.raises(InvalidPayloadError) as caught:
        Event.new(event_type, data, **envelope)
    return str(caught.value)


def test_new_event_has_home_stream_version_id_and_time():
    before = dt.datetime.now(dt.UTC) - dt.timedelta(milliseconds=1)
    event = Event.new("market.trade", TRADE)
    assert (event.stream, event.type, event.version) == (
        "market.events",
        "market.trade",
        1,
    )
    assert before <= event.timestamp <= dt.datetime.now(dt.UTC)
    assert event.correlation_id is event.user_id is None
    assert event.metadata == event.extra == {}


def test_ids_of_new_events_rise():
    made = [Event.new("market.trade", TRADE).id for _ in range(100)]
    assert made == sorted(set(made))


def test_timestamp_is_kept_in_utc_to_the_millisecond():
    zone = dt.timezone(dt.timedelta(hours=5, minutes=30))
    event = Event.new("market.trade", TRADE, timestamp=NOON.astimezone(zone))
    assert event.timestamp == NOON.replace(microsecond=125_000)
    assert event.timestamp.tzinfo is dt.UTC
    assert from_ms(event.time_ms) == event.timestamp


def test_event_cannot_be_changed():
    event = Event.new("market.trade", TRADE)
    with pytest.raises(ValidationError):
        event.stream = "other"


def test_invalid_payload_names_type_path_value_and_what_is_allowed():
    assert refused("market.trade", {"price": "abc", "quantity": 1}) == (
        "market.trade is not valid: data.symbol is missing, allowed: a non-empty "
        "string; data.price is 'abc' (str), allowed: a finite number. Nothing was "
        "written."
    )


def test_missing_field_is_guessed_from_a_near_miss():
    data = {"symbol": "a", "prcie": 1, "quantity": 1}
    assert "data.price is missing" in refused("market.trade", data)
    assert "(is 'prcie' a slip for it?)" in refused("market.trade", data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"price": float("nan")}, "data.price is nan (float), allowed: a finite"),
        ({"price": True}, "data.price is True (bool), allowed: a finite number"),
        ({"price": "1.5"}, "data.price is '1.5' (str), allowed: a finite number"),
        ({"price": None}, "data.price is null, allowed: a finite number"),
        ({"symbol": ""}, "data.symbol is '' (str), allowed: a non-empty string"),
        ({"symbol": 5}, "data.symbol is 5 (int), allowed: a non-empty string"),
        ({"note": {1}}, "data.note is {1} (set), allowed: a JSON value"),
        ({"note": {1: 2}}, "a key of data.note is 1 (int), allowed: a string"),
        ({"note": [1, float("inf")]}, "data.note[1] is inf (float), allowed"),
        ({"note": "\ud800"}, r"data.note is '\ud800' (str), allowed: text without"),
        ({"note": "x" * 99 + "\ud800"}, "xxx... (str), allowed: text without"),
        ({5: 1}, "a key of data is 5 (int), allowed: a string"),
    ],
)
def test_values_that_no_reader_would_take_are_refused(change, message):
    assert message in refused("market.trade", {**TRADE, **change})


def test_choices_are_closed_for_publishing():
    message = refused(
        "system.service.health",
        {
            "service_name": "api",
            "status": "fine",
            "response_time_ms": 1,
            "memory_usage_mb": 1,
            "cpu_usage_percent": 1,
            "error_rate": 0,
        },
    )
    assert (
        "data.status is 'fine' (str), allowed: one of 'healthy', 'degraded', "
        "'unhealthy'" in message
    )


def test_nothing_is_coerced_but_whole_floats_and_numpy_floats():
    event = Event.new(
        "ai.inference.requested",
        {"request_id": "r", "context_tokens": 5.0, "generated_tokens": 3},
    )
    assert repr(event.data["context_tokens"]) == "5"
    trade = Event.new("market.trade", {**TRADE, "price": np.float64(1.5)})
    assert type(trade.data["price"]) is float


def test_unknown_fields_are_kept_and_absent_optionals_left_out():
    event = Event.new("market.trade", {**TRADE, "note": {"a": (1, None)}})
    assert event.data == {**TRADE, "note": {"a": [1, None]}}


def test_the_callers_payload_is_not_touched():
    data = {**TRADE, "note": [1]}
    event = Event.new("market.trade", data)
    event.data["note"].append(2)
    assert data == {**TRADE, "note": [1]}


def test_model_instance_is_a_payload_but_not_of_another_type():
    assert Event.new("market.trade", MarketTrade(**TRADE)).data == TRADE
    other = AiInferenceRequested(request_id="r", context_tokens=1, generated_tokens=1)
    assert "allowed: a mapping or a MarketTrade" in refused("market.trade", other)


def test_unchecked_model_instance_is_checked():
    sneaky = MarketTrade.model_construct(symbol="a", price="1", quantity=float("nan"))
    message = refused("market.trade", sneaky)
    assert "data.price is '1' (str)" in message
    assert "data.quantity is nan (float)" in message


@pytest.mark.parametrize("data", [None, [1], "text", 5])
def test_payload_must_be_a_mapping(data):
    assert "allowed: a mapping of fields to values" in refused("market.trade", data)


def test_unknown_type_is_refused():
    with pytest.raises(UnknownEventTypeError, match=r"Did you mean 'market\.trade'"):
        Event.new("market.trades", TRADE)


@pytest.mark.parametrize(
    ("envelope", "message"),
    [
        ({"id": "x"}, "id is 'x' (str), allowed: a ULID of 26"),
        ({"timestamp": NOON.replace(tzinfo=None)}, "allowed: an aware datetime"),
        ({"timestamp": "2026-11-23T12:00:00Z"}, "allowed: an aware datetime"),
        ({"timestamp": NOON.replace(year=2262)}, "years 1970 to 2261"),
        ({"timestamp": NOON.replace(year=1969)}, "years 1970 to 2261"),
        ({"user_id": 4}, "user_id is 4 (int), allowed: a string or None"),
        ({"correlation_id": b"x"}, "correlation_id is b'x' (bytes), allowed: a str"),
        ({"stream": ""}, "stream is '' (str), allowed: a non-empty string"),
        ({"metadata": {"a": {1}}}, "metadata.a is {1} (set), allowed: a JSON value"),
    ],
)
def test_envelope_is_checked_like_the_payload(envelope, message):
    text = refused("market.trade", TRADE, **envelope)
    assert text.startswith("market.trade is not valid: ")
    assert message in text


def test_empty_ids_are_none():
    event = Event.new("market.trade", TRADE, correlation_id="", user_id="")
    assert event.correlation_id is event.user_id is None


class Inner(BaseModel):
    a: int


class Reading(BaseModel):
    sensor: str = Field(alias="sensorName")
    level: int = Field(ge=0)
    when: dt.datetime
    inner: Inner
    factor: float = 1.0
    note: str | None = None


@pytest.fixture
def mine():
    own = Registry()
    own.register("lab.reading", stream="lab.events")(Reading)
    return own


def test_users_model_is_written_as_it_dumps_itself(mine):
    event = Event.new(
        "lab.reading",
        {"sensorName": "s", "level": "5", "when": NOON, "inner": {"a": 1}},
        registry=mine,
    )
    assert event.data == {
        "sensorName": "s",
        "level": 5,
        "when": "2026-11-23T12:00:00.125999Z",
        "inner": {"a": 1},
        "factor": 1.0,
        "note": None,
    }


def test_users_constraints_are_told_in_the_models_words(mine):
    data = {"sensorName": "s", "level": -5, "when": "noon", "inner": {}}
    message = refused("lab.reading", data, registry=mine)
    assert "data.level is -5 (int), allowed: greater than or equal to 0" in message
    assert "data.when is 'noon' (str), allowed: a valid datetime" in message
    assert "data.inner.a is missing, allowed: an integer" in message


def test_users_model_cannot_hide_what_is_not_finite(mine):
    data = {"sensorName": "s", "level": 1, "when": NOON, "inner": {"a": 1}}
    message = refused("lab.reading", {**data, "factor": float("inf")}, registry=mine)
    assert "data.factor is inf (float), allowed: a finite number" in message
