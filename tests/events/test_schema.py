import datetime as dt
import uuid
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum, IntEnum
from ipaddress import IPv4Address
from typing import Any, Literal, NewType, Optional

import msgspec
import pytest
from events.strategies import any_payloads_of_types, payloads_of_types
from hypothesis import given
from pydantic import AnyUrl, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from cep.errors import InvalidPayloadError
from cep.events import FieldSpec, check_payload, fields_of, registry
from cep.events.publishing import publishable_payload

TRADE = registry.get("market.trade").fields
SEND = registry.get("notification.send.requested").fields


def trade(**changes):
    return {"symbol": "BTCUSDT", "price": 1.5, "quantity": 2, **changes}


def one(kind, **more):
    return [FieldSpec("x", kind, **more)]


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (
            "float",
            [0, -1, 1.5, 1e308, -0.0, 10**308, 2**70],
            [None, True, "1", "", float("nan"), float("inf"), 10**309, [], {}],
        ),
        (
            "int",
            [0, 5, 5.0, -0.0, 1e18, 2**63 - 1, -(2**63), -(2.0**63)],
            [None, True, "1", 5.5, 2**63, 2.0**63, 1e300, float("inf"), []],
        ),
        ("bool", [True, False], [None, 0, 1, 1.0, "true", ""]),
        ("str", ["", "a", "é😀", "\0"], [None, 0, True, ["a"], {}]),
        ("json", [0, "a", True, [], {}, [None]], []),
    ],
)
def test_kinds_are_read_as_the_table_says(kind, good, bad):
    assert all(check_payload(one(kind), {"x": value}) == [] for value in good)
    assert all(len(check_payload(one(kind), {"x": value})) == 1 for value in bad)
    assert check_payload(one(kind, nullable=True), {"x": None}) == []


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (trade(price="abc"), "data.price is 'abc' (str), allowed: a finite number"),
        (trade(symbol=""), "data.symbol is '' (str), allowed: a non-empty string"),
        (trade(side=5), "data.side is 5 (int), allowed: a string or null"),
        (trade(price=None), "data.price is null, allowed: a finite number"),
        (
            {"symbol": "a", "prcie": 1, "quantity": 1},
            (
                "data.price is missing, allowed: a finite number "
                "(is 'prcie' a slip for it?)"
            ),
        ),
    ],
)
def test_problem_says_where_what_and_what_is_allowed(payload, message):
    assert [str(problem) for problem in check_payload(TRADE, payload)] == [message]


def test_problems_come_in_the_order_of_the_model():
    problems = check_payload(TRADE, {"venue": 1, "quantity": "x", "side": None})
    assert [problem.path for problem in problems] == [
        "data.symbol",
        "data.price",
        "data.quantity",
        "data.venue",
    ]
    assert [problem.missing for problem in problems] == [True, True, False, False]


def test_optional_may_be_absent_or_null_and_strangers_are_fine():
    assert check_payload(TRADE, trade()) == []
    assert check_payload(TRADE, trade(side=None, venue=None, whatever={"a": [1]})) == []


def test_choices_are_open_for_reading_and_closed_for_publishing():
    payload = {
        "user_id": "u",
        "notification_type": "news",
        "channels": ["email", "fax"],
        "message": {"title": "", "body": ""},
        "priority": "low",
    }
    assert check_payload(SEND, payload) == []
    closed = check_payload(SEND, payload, closed_choices=True)
    assert [problem.path for problem in closed] == [
        "data.notification_type",
        "data.channels[1]",
    ]
    assert closed[1].allowed == "one of 'email', 'push', 'websocket'"


def test_nested_values_are_checked_where_they_stand():
    payload = {
        "user_id": "u",
        "notification_type": "system_alert",
        "channels": ["email", 3],
        "message": {"title": "a", "bodi": "b"},
        "priority": "low",
    }
    assert [str(problem) for problem in check_payload(SEND, payload)] == [
        "data.channels[1] is 3 (int), allowed: one of 'email', 'push', 'websocket'",
        "data.message.body is missing, allowed: a string (is 'bodi' a slip for it?)",
    ]


def test_a_payload_wrong_in_many_places_is_told_in_twenty():
    payload = {"channels": [1] * 100_000, "message": {f"k{i}": i for i in range(9999)}}
    assert len(check_payload(SEND, payload)) == 20


@given(payloads_of_types)
def test_what_may_be_published_may_be_read(known_and_payload):
    known, payload = known_and_payload
    written = publishable_payload(known, payload)
    assert check_payload(known.fields, written, closed_choices=True) == []
    assert written.keys() <= payload.keys()
    # A float field given as an integer beyond 2**53 rounds, as it would on read.
    assert all(
        value == payload[key]
        or (known.field(key).kind == "float" and value == float(payload[key]))
        for key, value in written.items()
    )


@pytest.mark.slow
@given(any_payloads_of_types)
def test_publishing_and_reading_find_the_same_problems(known_and_payload):
    known, payload = known_and_payload
    payload = msgspec.json.decode(msgspec.json.encode(payload))
    read = check_payload(known.fields, payload, closed_choices=True)
    try:
        publishable_payload(known, payload)
    except InvalidPayloadError as error:
        published = error.problems
    else:
        published = []
    assert sorted(published) == sorted(read)


class Colour(Enum):
    RED = "red"


class Size(IntEnum):
    SMALL = 1


class Inner(BaseModel):
    a: int
    b: float | None = None


UserId = NewType("UserId", str)


@dataclass
class Point:
    x: float


class Everything(BaseModel):
    f: float
    i: int
    b: bool
    s: str
    s1: str = Field(min_length=1)
    defaulted: float = 1.0
    optional: Optional[int] = None  # noqa: UP045
    nullable: str | None
    lit: Literal["a", "b"]
    lit_int: Literal[1, 2]
    lit_null: Literal["a", None]
    colour: Colour
    size: Size
    when: dt.datetime
    key: uuid.UUID
    amount: Decimal
    inner: Inner
    inners: list[Inner]
    pairs: dict[str, int]
    either: int | str
    number: int | float
    anything: Any
    pair: tuple[int, int]
    aliased: str = Field(alias="AliasedName")
    address: IPv4Address
    url: AnyUrl
    span: dt.timedelta
    renamed: UserId
    record: Point
    opaque: object


def test_fields_are_derived_from_any_pydantic_model():
    inner = (FieldSpec("a", "int"), FieldSpec("b", "float", False, True))
    assert fields_of(Everything) == (
        FieldSpec("f", "float"),
        FieldSpec("i", "int"),
        FieldSpec("b", "bool"),
        FieldSpec("s", "str"),
        FieldSpec("s1", "str", non_empty=True),
        FieldSpec("defaulted", "float", required=False),
        FieldSpec("optional", "int", required=False, nullable=True),
        FieldSpec("nullable", "str", nullable=True),
        FieldSpec("lit", "str", choices=("a", "b")),
        FieldSpec("lit_int", "int"),
        FieldSpec("lit_null", "str", nullable=True, choices=("a",)),
        FieldSpec("colour", "str", choices=("red",)),
        FieldSpec("size", "int"),
        FieldSpec("when", "str"),
        FieldSpec("key", "str"),
        FieldSpec("amount", "str"),
        FieldSpec("inner", "json", shape="object", fields=inner),
        FieldSpec(
            "inners",
            "json",
            shape="array",
            items=FieldSpec("", "json", shape="object", fields=inner),
        ),
        FieldSpec("pairs", "json", shape="object"),
        FieldSpec("either", "json", nullable=True),
        FieldSpec("number", "float"),
        FieldSpec("anything", "json", nullable=True),
        FieldSpec("pair", "json", shape="array"),
        FieldSpec("AliasedName", "str"),
        FieldSpec("address", "str"),
        FieldSpec("url", "str"),
        FieldSpec("span", "str"),
        FieldSpec("renamed", "str"),
        FieldSpec("record", "json", shape="object"),
        FieldSpec("opaque", "json", nullable=True),
    )


def test_generated_aliases_are_the_names_on_the_wire():
    class Camel(BaseModel):
        model_config = ConfigDict(alias_generator=to_camel)
        request_id: str

    assert [field.name for field in fields_of(Camel)] == ["requestId"]


def test_a_model_that_holds_itself_is_an_object_at_the_second_turn():
    class Tree(BaseModel):
        name: str
        children: list["Tree"] = []

    (_, children) = fields_of(Tree)
    assert children.shape == "array"
    assert (
        check_payload(fields_of(Tree), {"name": "a", "children": [{"name": "b"}]}) == []
    )
