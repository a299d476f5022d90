"""What a rule means: expressions, windows, patterns, emissions, checks.

Definitions only; `cep.engine` compiles and runs them.
"""

from cep.rules.after_match import AfterMatch
from cep.rules.choices import coalesce, when
from cep.rules.emission import Emission, emit
from cep.rules.expressions import Expr, e, m
from cep.rules.functions import (
    avg,
    ceil,
    clip,
    count,
    ewm,
    exp,
    first,
    floor,
    last,
    log,
    max,
    min,
    prev,
    py,
    sign,
    sqrt,
    std,
    sum,
    var,
)
from cep.rules.patterns import Quantifier, Sequence, Step, on, seq
from cep.rules.rule import Limits, Rule, build_rule, rule

__all__ = [
    "AfterMatch",
    "Emission",
    "Expr",
    "Limits",
    "Quantifier",
    "Rule",
    "Sequence",
    "Step",
    "avg",
    "build_rule",
    "ceil",
    "clip",
    "coalesce",
    "count",
    "e",
    "emit",
    "ewm",
    "exp",
    "first",
    "floor",
    "last",
    "log",
    "m",
    "max",
    "min",
    "on",
    "prev",
    "py",
    "rule",
    "seq",
    "sign",
    "sqrt",
    "std",
    "sum",
    "var",
    "when",
]
