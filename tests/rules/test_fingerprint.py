"""A changed Python function is a changed rule; an unchanged one is not."""

import functools
import subprocess
import sys

import pytest

from cep import e, emit, on, py, rule
from cep.rules.fingerprint import fingerprint


def made(source, name="f", **names):
    """Run a module's text and return one of its functions."""
    exec(compile(source, "rules.py", "exec"), names)
    return names[name]


BEFORE = """
LIMIT = 5
def helper(x):
    return x + 1
def f(x, y=2):
    inner = lambda z: z * 3
    return helper(x) > LIMIT and inner(y) in {"a", "b"}
"""
CHANGES = {
    "a constant of the body": ("z * 3", "z * 4"),
    "an operation": ("z * 3", "z / 3"),
    "a default": ("y=2", "y=3"),
    "a constant of the module": ("LIMIT = 5", "LIMIT = 6"),
    "a function that it calls": ("x + 1", "x + 2"),
    "an element of a set": ('"b"', '"c"'),
    "what it calls": ("helper(x) >", "abs(x) >"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_is_noticed(what):
    old, new = CHANGES[what]
    assert BEFORE.replace(old, new) != BEFORE
    changed = made(BEFORE.replace(old, new))
    assert fingerprint(changed) != fingerprint(made(BEFORE))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 5", "# a comment\n\n\nLIMIT = 5"),
        ("def helper", "UNUSED = 7\ndef helper"),
    ],
)
def test_what_does_not_matter_is_no_change(old, new):
    same = made(BEFORE.replace(old, new))
    assert fingerprint(same) == fingerprint(made(BEFORE))


def closing_over(value):
    return lambda x: x > value


def test_closures_partials_and_callables_count():
    assert fingerprint(closing_over(1)) == fingerprint(closing_over(1))
    assert fingerprint(closing_over(1)) != fingerprint(closing_over(2))
    assert fingerprint(closing_over([1])) != fingerprint(closing_over([2]))
    partial = functools.partial
    assert fingerprint(partial(max, 1)) == fingerprint(partial(max, 1))
    assert fingerprint(partial(max, 1)) != fingerprint(partial(max, 2))
    assert fingerprint(max) != fingerprint(min)
    assert fingerprint(str.upper) != fingerprint(str.lower)


def test_a_value_that_has_no_text_of_its_own_counts_by_its_type():
    assert fingerprint(closing_over(object())) == fingerprint(closing_over(object()))


def test_what_refers_to_itself_has_a_fingerprint():
    source = "def f(n):\n    return n < 1 or f(n - 1)"
    assert fingerprint(made(source)) == fingerprint(made(source))
    held = []
    held.append(held)
    assert fingerprint(closing_over(held))


def test_it_is_the_same_in_every_process():
    program = (
        "import sys; from cep.rules.fingerprint import fingerprint\n"
        f"names = {{}}; exec(compile({BEFORE!r}, 'rules.py', 'exec'), names)\n"
        "print(fingerprint(names['f']))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert found == {fingerprint(made(BEFORE))}


def checked(limit):
    @rule("checked")
    def checked():
        good = py(lambda price: price > limit, reads=[e.price]) == 1
        return on("market.trade").where(good), emit(price=e.price)

    return checked


def test_a_rule_with_a_changed_function_is_another_rule():
    assert checked(1).hash == checked(1).hash
    assert checked(1).hash != checked(2).hash
