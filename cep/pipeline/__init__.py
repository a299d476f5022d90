"""The live runtime: a long-running process that reads, matches and commits.

==============  =============================================================
`definition`    what a pipeline is; loading one from a Python file
`runtime`       running a pipeline, again and again after lost connections
`session`       one life between two losses of memory: read, match, commit
`intake`        from streams to ordered rows; what is late or bad put aside
`pending`       what the next commit will hold
`ticks`         time that goes on while streams are silent
`limits`        limits and periods
`summary`       what a run did, as numbers
`notes`         what it tells its operator besides
`store`         owner, positions and state in Redis; the commit (`commit.lua`)
`accounting`    where every entry went
`entries`       outputs and dead letters as stream entries
`poison`        finding the event that kills the process
`quarantine`    reading, retrying and removing dead letters
==============  =============================================================

Defining a pipeline loads neither Redis nor kernels; `Runner` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cep.pipeline.definition import Pipeline, load_pipeline, stream

if TYPE_CHECKING:
    from cep.pipeline.runtime import Runner as Runner
    from cep.pipeline.summary import Summary as Summary

__all__ = ["Pipeline", "stream", "load_pipeline", "Runner", "Summary"]


def __getattr__(name: str) -> object:
    if name not in ("Runner", "Summary"):
        msg = f"module 'cep.pipeline' has no attribute {name!r}"
        raise AttributeError(msg)
    from importlib import import_module

    home = "runtime" if name == "Runner" else "summary"
    return getattr(import_module(f"cep.pipeline.{home}"), name)
