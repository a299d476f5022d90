"""Tests of rules, as their users write them: given events, when a rule, expect.

==============  =============================================================
`streams`       `events` and `advance`: what happens, and time that passes
`scenario`      `given`, ``.when``, ``.expect``: each test also runs out of order
`explain`       why a rule did not fire
`strategies`    event streams for hypothesis
`plugin`        for pytest: ``--cep-seed``
==============  =============================================================

>>> from cep import e, emit, on, rule
>>> from cep.testing import events, given
>>> @rule("dear", key="symbol")
... def dear():
...     return on("market.trade").where(e.price > 100), emit(price=e.price)
>>> outcome = given(events("market.trade", symbol="BTC", price=[99, 101])).when(dear)
>>> _ = outcome.expect(1, at="1s", price=101)

Names are imported when first used: pytest loads the plugin in every run.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cep.testing.scenario import Outcome as Outcome
    from cep.testing.scenario import Scenario as Scenario
    from cep.testing.scenario import given as given
    from cep.testing.streams import START as START
    from cep.testing.streams import Advance as Advance
    from cep.testing.streams import Events as Events
    from cep.testing.streams import advance as advance
    from cep.testing.streams import events as events

__all__ = [
    "given",
    "events",
    "advance",
    "Scenario",
    "Outcome",
    "Events",
    "Advance",
    "START",
]

_SCENARIO = ("given", "Scenario", "Outcome")


def __getattr__(name: str) -> object:
    if name not in __all__:
        msg = f"module 'cep.testing' has no attribute {name!r}"
        raise AttributeError(msg)
    home = "cep.testing.scenario" if name in _SCENARIO else "cep.testing.streams"
    found: object = getattr(import_module(home), name)
    globals()[name] = found
    return found
