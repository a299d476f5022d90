from pydantic import BaseModel

from cep.bus.column_plan import plan_columns
from cep.events.registry import Registry


def registry_of(*types):
    mine = Registry()
    for name, stream, version, fields in types:
        model = type("M", (BaseModel,), {"__annotations__": fields})
        model.__module__ = f"{name}.{version}"
        mine.register(name, stream=stream, version=version)(model)
    return mine


def names(plan):
    return dict(plan.columns)


def test_numbers_widen_and_other_clashes_get_their_own_column():
    mine = registry_of(
        ("a", "s", 1, {"x": bool, "y": int, "z": str}),
        ("b", "s", 1, {"x": int, "y": float, "z": int}),
        ("c", "s", 1, {"x": bool, "z": str}),
    )
    plan = plan_columns("s", mine, None)
    assert names(plan) == {"x": "int", "y": "float", "z": "str", "b:z": "int"}
    assert plan.targets == [[0, 1, 2], [0, 1, 3], [0, 2]]


def test_foreign_types_never_change_the_columns_at_home():
    mine = registry_of(
        ("f", "other", 1, {"x": float, "w": int}),
        ("a", "s", 1, {"x": int}),
        ("g", "other", 1, {"w": float, "x": bool}),
    )
    plan = plan_columns("s", mine, None)
    assert names(plan) == {"x": "int", "f:x": "float", "w": "float"}
    assert plan.targets == [[1, 2], [0], [2, 0]]


def test_versions_of_a_type_share_columns_where_they_fit():
    mine = registry_of(
        ("a", "s", 1, {"x": str}),
        ("a", "s", 2, {"x": int}),
        ("a", "s", 3, {"x": dict}),
    )
    assert names(plan_columns("s", mine, None)) == {
        "x": "str",
        "a:x": "int",
        "a:x@3": "json",
    }


def test_only_fields_asked_for_have_columns():
    mine = registry_of(
        ("a", "s", 1, {"x": int, "y": int}),
        ("b", "s", 1, {"x": float}),
    )
    plan = plan_columns("s", mine, {"a": ["y"]}, ["@version"])
    assert names(plan) == {"y": "int"}
    assert plan.targets == [[-1, 0], [-1]]
    assert plan.always == [0]
    assert plan.envelope == ["@version"]
