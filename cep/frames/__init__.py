"""Streams as frames of polars, pandas and Arrow, and frames as events.

====================  ========================================================
`load`                events of streams, or of the bundled sample, as frames
`scan`                the same as polars LazyFrames
`by_type`             a frame of many types as one frame of each
`columns_from_frame`  the way back, for rules over frames
`shape`               which columns a frame has, and of which types
`convert`             events as columns to polars, polars to pandas and Arrow
`ids`                 ids as text, and ids for events that have none
`span`                from when to when
`archive`             streams as Parquet files, joined with what is live
====================  ========================================================
"""

from __future__ import annotations

from cep.frames.convert import to_arrow, to_pandas, to_polars
from cep.frames.from_frame import columns_from_frame
from cep.frames.load import load
from cep.frames.parts import by_type
from cep.frames.scan import scan

__all__ = [
    "load",
    "scan",
    "by_type",
    # between events as columns and frames
    "columns_from_frame",
    "to_polars",
    # from polars
    "to_pandas",
    "to_arrow",
]
