"""The live runtime: a long-running process that reads, matches and commits.

==============  =============================================================
`definition`    what a pipeline is; loading one from a Python file
`runtime`       the loop
`store`         owner, positions and state in Redis; the commit (`commit.lua`)
`accounting`    where every entry went
`entries`       outputs and dead letters as stream entries
==============  =============================================================
"""

from cep.pipeline.definition import Pipeline, load_pipeline, stream
from cep.pipeline.runtime import Runner, Summary

__all__ = ["Pipeline", "Runner", "Summary", "load_pipeline", "stream"]
