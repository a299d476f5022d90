"""Rules that call Python functions."""

import pytest

from cep import e, emit, on, py, rule, run_rules, sample
from cep.engine.operator import Operator
from cep.errors import RuleError


def calling(name, *functions):
    @rule(name)
    def made():
        step = on("market.trade")
        for function in functions:
            step = step.where(py(function, reads=[e.price]) == 1)
        return step, emit(price=e.price)

    return made


def above(price):
    return price > 100


def below(price):
    return price < 100


def test_functions_of_one_name_are_refused_for_they_would_be_taken_for_one():
    functions = [lambda p: p > 100, lambda p: p < 100]
    for rules in (
        [calling("both", *functions)],
        [calling("one", functions[0]), calling("two", functions[1])],
    ):
        with pytest.raises(RuleError, match=r"has the same name\. Write it with def"):
            Operator(rules)


def test_one_function_in_several_rules_is_fine():
    Operator([calling("one", above, below), calling("two", above)])


def test_a_function_that_raises_is_named_with_what_it_was_given():
    def fails(price):
        raise LookupError("no such price")

    frame = sample.frame("market.events").head(3)
    with pytest.raises(
        RuleError, match="raised LookupError: no such price, given "
    ) as error:
        run_rules(calling("fails", fails), frame)
    assert "Mend the function" in str(error.value)
