"""Complex event processing over Redis Streams.

Events are read from Redis Streams into sliding windows, rules written in plain
Python find patterns in them, and what they find is published as new events.
The same rules run live, over history and in a notebook, with the same result.

The map, from the bottom up; each package may import only from those above it:

========================  =====================================================
`cep.errors`, `clock`     every exception; durations, system and test clocks
`cep.style`               the one look of figures: colours, fonts, axes
`cep.events`              event envelope, payload models, registry, wire format
`cep.rules`               what a rule means: expressions, windows, patterns
`cep.engine`, `cep.bus`   the matcher on columns; Redis: publish, read, replay
`cep.frames`, `sample`    streams as DataFrames; the bundled sample of real data
`cep.pipeline`            the live runtime: read, order, match, commit, recover
`cep.backtesting`         the same rules over DataFrames, scored against labels
`cep.analysis`            whether one stream has to do with another
`cep.reporting`           figures, and pages that need no network
`cep.cli`                 the command ``cep``
========================  =====================================================

Names are imported when first used, so ``import cep`` is quick and loads no
numpy, polars or redis.

>>> import cep
>>> "rule" in dir(cep)
True
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import cep.sample as sample
    from cep.backtesting import backtest as backtest
    from cep.backtesting import run_rules as run_rules
    from cep.bus import EmbeddedServer as EmbeddedServer
    from cep.bus import Publisher as Publisher
    from cep.bus import connect_redis as connect_redis
    from cep.events import Event as Event
    from cep.events import register as register
    from cep.frames.load import load as load
    from cep.frames.scan import scan as scan
    from cep.pipeline import Pipeline as Pipeline
    from cep.pipeline import stream as stream
    from cep.reporting import report as report
    from cep.rules import avg as avg
    from cep.rules import ceil as ceil
    from cep.rules import clip as clip
    from cep.rules import coalesce as coalesce
    from cep.rules import corr as corr
    from cep.rules import count as count
    from cep.rules import cov as cov
    from cep.rules import distinct as distinct
    from cep.rules import e as e
    from cep.rules import emit as emit
    from cep.rules import ewm as ewm
    from cep.rules import exp as exp
    from cep.rules import first as first
    from cep.rules import floor as floor
    from cep.rules import last as last
    from cep.rules import log as log
    from cep.rules import m as m
    from cep.rules import max as max
    from cep.rules import min as min
    from cep.rules import on as on
    from cep.rules import prev as prev
    from cep.rules import py as py
    from cep.rules import quantile as quantile
    from cep.rules import rate as rate
    from cep.rules import rule as rule
    from cep.rules import seq as seq
    from cep.rules import sign as sign
    from cep.rules import slope as slope
    from cep.rules import sqrt as sqrt
    from cep.rules import std as std
    from cep.rules import sum as sum
    from cep.rules import var as var
    from cep.rules import wavg as wavg
    from cep.rules import when as when

__version__ = "0.1.0"

__all__ = [
    # rules
    "rule",
    "on",
    "seq",
    "emit",
    "e",
    "m",
    "count",
    "sum",
    "avg",
    "std",
    "var",
    "min",
    "max",
    "first",
    "last",
    "prev",
    "ewm",
    "rate",
    "slope",
    "quantile",
    "distinct",
    "wavg",
    "cov",
    "corr",
    "log",
    "sqrt",
    "exp",
    "floor",
    "ceil",
    "sign",
    "clip",
    "coalesce",
    "when",
    "py",
    # events
    "Event",
    "register",
    # Redis
    "connect_redis",
    "EmbeddedServer",
    "Publisher",
    # running rules
    "Pipeline",
    "stream",
    "run_rules",
    "backtest",
    # data
    "report",
    "load",
    "scan",
    "sample",
]

_HOMES = {
    "cep.rules": [
        "rule",
        "on",
        "seq",
        "emit",
        "e",
        "m",
        "count",
        "sum",
        "avg",
        "std",
        "var",
        "min",
        "max",
        "first",
        "last",
        "prev",
        "ewm",
        "rate",
        "slope",
        "quantile",
        "distinct",
        "wavg",
        "cov",
        "corr",
        "log",
        "sqrt",
        "exp",
        "floor",
        "ceil",
        "sign",
        "clip",
        "coalesce",
        "when",
        "py",
    ],
    "cep.events": ["Event", "register"],
    "cep.bus": ["connect_redis", "EmbeddedServer", "Publisher"],
    "cep.pipeline": ["Pipeline", "stream"],
    "cep.backtesting": ["backtest", "run_rules"],
    "cep.frames": ["load", "scan"],
    "cep.reporting": ["report"],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_MODULES = {"sample"}


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return import_module(f"cep.{name}")
    if name not in _HOME_OF:
        msg = f"module 'cep' has no attribute {name!r}"
        raise AttributeError(msg)
    found: object = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
