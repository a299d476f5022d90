"""A bundled sample of real data: markets, requests to an inference service, tweets.

==================  ===========================================================
`frame` name        rows
==================  ===========================================================
``market.events``   every trade of six Binance instruments over 5 m 46 s, and
                    the changes of the best bid and ask of two of them, in the
                    order in which they were received, which is not the order
                    of their event times
``ai.events``       requests to an inference service, 5 m 6 s of them, shifted
                    onto the clock of the market
``social.mentions`` tweets that name one of five companies, per 5 minutes
``social.labels``   hand-labelled anomalies in the mentions
==================  ===========================================================

The requests are from another year than the trades. One constant shift puts
them onto the market's clock; **the two streams have no causal relation**, and
whatever looks like one was put there by the choice of that constant.

`cep.sample.mentions` is a worked example of the last two: a rule and its score.

`provenance` tells source, licence, attribution and what was cut; the files are
made by ``python -m cep.sample.build``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from cep.errors import UsageError, near_miss

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "ALIGNMENT",
    "Source",
    "frame",
    "pipeline_path",
    "provenance",
    "sample_path",
    "streams",
]

ALIGNMENT: Final = (
    "AI requests are from another year, shifted onto the market's clock; "
    "the two streams have no causal relation."
)

STREAMS: Final = ("market.events", "ai.events")
SOCIAL: Final = ("social.mentions", "social.labels")
PROVENANCE_KEY: Final = "cep.provenance"

_DATA = Path(__file__).parent / "data"


class Source(NamedTuple):
    """Where one part of the sample is from; ``note`` says what was done to it."""

    name: str
    source: str
    licence: str
    attribution: str
    note: str


def streams() -> list[str]:
    """Return the names of the streams in the sample.

    >>> streams()
    ['market.events', 'ai.events']
    """
    return list(STREAMS)


def sample_path(name: str) -> Path:
    """Return the Parquet file of a stream, or of ``social.mentions`` or ``.labels``.

    Raises
    ------
    UsageError
        If there is no such part.
    """
    known = (*STREAMS, *SOCIAL)
    if name not in known:
        near = near_miss(name, known)
        meant = f"Did you mean {near[0]!r}? " if near else ""
        raise UsageError(
            f"The sample has no {name!r}.", f"{meant}It has {', '.join(known)}."
        )
    return _DATA / f"{name}.parquet"


def frame(name: str) -> pl.DataFrame:
    """Return one part of the sample as a DataFrame.

    A stream has the columns ``event_time`` (Datetime, ms, UTC) and ``type``,
    then the payload fields of all its types, null where a type lacks the
    field. Its rows are in the order in which they are published: for
    ``market.events`` that is the order of receipt, in which event times fall
    now and then.

    >>> frame("ai.events").columns[:3]
    ['event_time', 'type', 'request_id']
    """
    import polars as pl

    return pl.read_parquet(sample_path(name))


def provenance() -> list[Source]:
    """Return source, licence, attribution and note of each part."""
    import polars as pl

    parts: list[Source] = []
    for name in (*STREAMS, *SOCIAL):
        kept = pl.read_parquet_metadata(sample_path(name))[PROVENANCE_KEY]
        parts.extend(Source(**part) for part in json.loads(kept))
    return parts


def pipeline_path(name: str) -> Path:
    """Return the file of a pipeline that travels with the package.

    In a wheel they are in ``cep/_pipelines/``, in a checkout in ``pipelines/``
    beside the package.

    Raises
    ------
    UsageError
        If there is no pipeline of that name.
    """
    package = Path(__file__).parents[1]
    for folder in (package / "_pipelines", package.parent / "pipelines"):
        path = folder / f"{name}.py"
        if path.is_file():
            return path
    raise UsageError(f"No pipeline {name!r} is bundled.", "Give the path of a file.")
