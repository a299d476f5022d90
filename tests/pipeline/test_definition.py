import sys

import pytest

from cep import Pipeline, e, emit, on, rule, stream
from cep.errors import InvalidDurationError, UsageError
from cep.pipeline import load_pipeline


@rule("trades")
def trades():
    return on("market.trade"), emit(price=e.price)


@rule("requests")
def requests():
    return on("ai.inference.requested", "market.quote"), emit()


def test_streams_default_to_the_homes_of_the_rules_types():
    found = Pipeline("p", [trades, requests])
    assert [one.name for one in found.streams] == ["ai.events", "market.events"]
    assert {one.max_out_of_orderness_ns for one in found.streams} == {10**9}
    assert {one.idle_ns for one in found.streams} == {30 * 10**9}


def test_streams_may_be_named_or_described():
    found = Pipeline("p", [trades], ["a", stream("b", idle=None)])
    assert [(one.name, one.idle_ns) for one in found.streams] == [
        ("a", 30 * 10**9),
        ("b", None),
    ]


@pytest.mark.parametrize(
    ("name", "rules", "streams", "problem"),
    [
        ("p", [], [], "has no rules"),
        ("p", [lambda: 1], [], "something that is not a rule"),
        ("p", [trades, trades], [], "two rules named 'trades'"),
        ("p", [trades], ["a", stream("a")], "two streams named 'a'"),
        ("a}b", [trades], [], "cannot name a pipeline"),
        ("", [trades], [], "cannot name a pipeline"),
    ],
)
def test_what_no_pipeline_can_be_is_refused(name, rules, streams, problem):
    with pytest.raises(UsageError, match=problem):
        Pipeline(name, rules, streams)


@pytest.mark.parametrize(
    "wrong", [{"idle": 30}, {"idle": "0s"}, {"max_out_of_orderness": "-1s"}]
)
def test_durations_have_units_and_a_direction(wrong):
    with pytest.raises(InvalidDurationError):
        stream("a", **wrong)


def test_a_bound_of_nothing_is_one():
    assert stream("a", max_out_of_orderness="0ms").max_out_of_orderness_ns == 0


def test_an_imported_rule_counts_as_the_modules_own(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "shared_rules.py").write_text(
        "from cep import emit, on, rule\n"
        "@rule('shared')\ndef shared():\n    return on('market.trade'), emit()\n"
    )
    (tmp_path / "mine.py").write_text("from shared_rules import shared\n")
    found = load_pipeline(tmp_path / "mine.py")
    assert (found.name, [one.name for one in found.rules]) == ("mine", ["shared"])
    del sys.modules["shared_rules"]


def test_an_error_below_the_module_names_the_line_that_led_there(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_part.py").write_text("\n\n\nraise OSError('disk')\n")
    path = tmp_path / "mine.py"
    path.write_text("import json\nimport broken_part\n")
    with pytest.raises(UsageError, match=r"mine\.py:2: OSError: disk"):
        load_pipeline(path)


def test_an_error_in_a_rule_names_its_line(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from cep import e, emit, on, py, rule\n"
        "@rule('one')\ndef one():\n"
        "    odd = py(len, e.symbol)\n"
        "    return on('market.trade').where(odd), emit()\n"
    )
    with pytest.raises(UsageError, match=r"mine\.py:4: .*py\(len\).*reads=\[e"):
        load_pipeline(path)


def test_a_module_that_changed_is_loaded_anew(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from cep import emit, on, rule\n"
        "@rule('one')\ndef one():\n    return on('market.trade'), emit()\n"
    )
    first = load_pipeline(path)
    path.write_text(path.read_text().replace("'one'", "'another'"))
    assert [r.name for r in load_pipeline(path).rules] != [r.name for r in first.rules]
