"""The live runtime: a long-running process that reads, matches and commits.

==============  =============================================================
`definition`    what a pipeline is; loading one from a Python file
`runtime`       the loop
`store`         owner, positions and state in Redis; the commit (`commit.lua`)
`accounting`    where every entry went
`entries`       outputs and dead letters as stream entries
==============  =============================================================

Defining a pipeline loads neither Redis nor kernels; `Runner` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cep.pipeline.definition import Pipeline, load_pipeline, stream

if TYPE_CHECKING:
    from cep.pipeline.runtime import Runner as Runner
    from cep.pipeline.runtime import Summary as Summary

__all__ = ["Pipeline", "stream", "load_pipeline", "Runner", "Summary"]


def __getattr__(name: str) -> object:
    if name not in ("Runner", "Summary"):
        msg = f"module 'cep.pipeline' has no attribute {name!r}"
        raise AttributeError(msg)
    from cep.pipeline import runtime

    return getattr(runtime, name)
