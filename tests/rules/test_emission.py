import pytest

from cep import e, emit
from cep.errors import RuleError


@pytest.mark.parametrize(
    ("title", "problem"),
    [
        ("{prcie:.2f}", r"\{prcie\} is not emitted\. Did you mean \{price\}\?"),
        ("{}", r"\{\} is not emitted\. A title may name price, key"),
        ("{0}", r"\{0\} is not emitted"),
        ("{price.real}", r"\{price\.real\} is not emitted"),
        ("{price[0]}", r"\{price\[0\]\} is not emitted"),
        ("{price:{key}}", r"has a field in its format\. Write the format out"),
        ("{price:>100000000}", r"asks for 100000000 characters\. At most 200"),
        ("{price:.201f}", r"asks for 201 characters"),
        ("{foo}", r"\{foo\} is not emitted\. Write emit\(\.\.\., foo=\.\.\.\)"),
        ("{price", r"expected '\}' before end of string\. Write \{\{ and \}\}"),
        ("}", r"Single '\}' encountered"),
    ],
)
def test_a_title_that_could_not_be_filled_is_refused(title, problem):
    with pytest.raises(RuleError, match=problem) as caught:
        emit(title=title, price=e.price)
    assert "emit(title=" in str(caught.value)


@pytest.mark.parametrize(
    "title",
    ["", "plain", "{key}: {price:,.2f} {{}}", "{price!r}", "{price:9>0200.200f}"],
)
def test_a_title_names_emitted_fields_and_the_key(title):
    assert emit(title=title, price=e.price).title == title
