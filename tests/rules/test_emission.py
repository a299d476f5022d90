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
        ("{price:{width}}", r"\{width\} is not emitted"),
        ("{price", r"expected '\}' before end of string\. Write \{\{ and \}\}"),
        ("}", r"Single '\}' encountered"),
    ],
)
def test_a_title_that_could_not_be_filled_is_refused(title, problem):
    with pytest.raises(RuleError, match=problem) as caught:
        emit(title=title, price=e.price)
    assert "emit(title=" in str(caught.value)


@pytest.mark.parametrize(
    "title", ["", "plain", "{key}: {price:,.2f} {{}}", "{price!r}"]
)
def test_a_title_names_emitted_fields_and_the_key(title):
    assert emit(title=title, price=e.price).title == title
