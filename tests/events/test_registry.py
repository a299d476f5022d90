import pytest
from pydantic import BaseModel

from cep.errors import (
    RegistrationError,
    UnknownEventTypeError,
    UnknownEventVersionError,
)
from cep.events import Event, Registry, decode, encode, registry


class Deploy(BaseModel):
    service: str
    seconds: float


class DeployTwo(BaseModel):
    service: str
    milliseconds: int


@pytest.fixture
def mine():
    return Registry()


def test_users_type_is_published_and_read_like_a_known_one(mine):
    mine.register("ops.deploy.finished", stream="system.events")(Deploy)
    event = Event.new(
        "ops.deploy.finished", {"service": "api", "seconds": 3}, registry=mine
    )
    fields = encode(event, registry=mine)
    assert decode(fields, stream_key="system.events", registry=mine) == event


def test_a_model_instance_is_a_payload(mine):
    mine.register("ops.deploy.finished", stream="system.events")(Deploy)
    event = Event.new(
        "ops.deploy.finished", Deploy(service="api", seconds=3), registry=mine
    )
    assert event.data == {"service": "api", "seconds": 3.0}


def test_versions_live_side_by_side_and_the_newest_is_the_default(mine):
    mine.register("ops.deploy.finished", stream="system.events", version=2)(DeployTwo)
    mine.register("ops.deploy.finished", stream="system.events", version=1)(Deploy)
    assert mine.get("ops.deploy.finished").model is DeployTwo
    assert mine.get("ops.deploy.finished", 1).model is Deploy
    assert [known.version for known in mine.types_of("system.events")] == [2]
    assert sorted(mine.versions("ops.deploy.finished")) == [1, 2]
    assert len(mine.all()) == 2


def test_unknown_type_offers_the_near_miss():
    with pytest.raises(UnknownEventTypeError) as caught:
        registry.get("market.trad")
    assert caught.value.near[0] == "market.trade"
    assert "Did you mean 'market.trade'" in str(caught.value)


def test_unknown_version_lists_the_known():
    with pytest.raises(UnknownEventVersionError, match=r"no version 9; known: 1\."):
        registry.get("market.trade", 9)


def test_registering_the_same_model_again_changes_nothing(mine):
    for _ in range(2):
        mine.register("a.b", stream="x.events")(Deploy)
    assert mine.names() == ["a.b"]


def test_a_reloaded_module_may_register_again_unless_fields_changed(mine):
    def declare(**fields):
        space = {
            "__annotations__": fields,
            "__module__": "user.rules",
            "__qualname__": "Made",
        }
        return type("Made", (BaseModel,), space)

    first, same, other = declare(a=int), declare(a=int), declare(a=str)
    mine.register("a.b", stream="x.events")(first)
    mine.register("a.b", stream="x.events")(same)
    assert mine.get("a.b").model is same
    with pytest.raises(RegistrationError, match=r"user\.rules\.Made already"):
        mine.register("a.b", stream="x.events")(other)


@pytest.mark.parametrize(
    ("name", "stream", "version", "model", "why"),
    [
        ("a.b", "x.events", 1, DeployTwo, "Deploy already is its model"),
        ("a.b", "y.events", 2, DeployTwo, "version 1 lives on x.events"),
        ("a.c", "x.events", 0, Deploy, "the version must be 1 to 999999999, got 0"),
        ("a.c", "x.events", True, Deploy, "the version must be 1 to"),
        ("a.c", "x.events", 10**9, Deploy, "the version must be 1 to"),
        ("", "x.events", 1, Deploy, "the type '' is empty"),
        ("a.c", " x", 1, Deploy, "the stream ' x' is empty or has blanks"),
        ("a\nc", "x.events", 1, Deploy, r"the type 'a\\nc'"),
        ("a.c", "x.events", 1, dict, "is not a pydantic model"),
    ],
)
def test_refused_registration_says_why(mine, name, stream, version, model, why):
    mine.register("a.b", stream="x.events")(Deploy)
    with pytest.raises(RegistrationError, match=why):
        mine.register(name, stream=stream, version=version)(model)
    assert mine.names() == ["a.b"]


def test_a_copy_grows_without_the_original():
    mine = registry.copy()
    mine.register("ops.deploy.finished", stream="system.events")(Deploy)
    assert "ops.deploy.finished" in mine
    assert "market.trade" in mine
    assert "ops.deploy.finished" not in registry
