"""Events as columns to polars, and polars to pandas and Arrow.

`cep.frames.shape` says what the columns are. Nothing is rounded, renamed or
reordered on the way: integers never pass through floats, and an absent value
is null in polars and Arrow, ``pd.NA`` in pandas' Int64 and boolean, NaN in its
float64, str and category (payloads hold no NaN, so that is unambiguous).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa

from cep.bus.column_plan import ENVELOPE_COLUMNS
from cep.bus.ulid_columns import ulid_texts
from cep.events.registry import Registry, registry
from cep.frames.shape import column_name, dtype_of, event_time_dtype, labels_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from cep.events.columns import BadRow, Column, EventColumns

BAD_SCHEMA = {
    "stream": pl.String,
    "entry_id": pl.String,
    "reason": pl.String,
    "detail": pl.String,
    "raw": pl.Binary,
    "raw_length": pl.Int64,
    "sha256": pl.String,
}
"""The columns of a frame of bad rows; see `cep.events.BadRow`."""


def to_polars(columns: EventColumns, *, registry: Registry = registry) -> pl.DataFrame:
    """Return events as a polars frame, one row per event, in the same order."""
    labels = labels_of(registry)
    payload: list[pl.Series] = []
    envelope: list[pl.Series] = []
    for name, column in columns.fields.items():
        into = envelope if name in ENVELOPE_COLUMNS else payload
        into.append(_series(name, column, labels))
    parts = pl.DataFrame({"ms": columns.entry_ms, "seq": columns.entry_seq})
    entry_id = parts.select(entry_id=pl.concat_str("ms", pl.lit("-"), "seq"))
    event_id = ulid_texts(columns.id_hi, columns.id_lo)
    return pl.DataFrame(
        [
            pl.Series("event_time", columns.time_ms).cast(event_time_dtype()),
            _texts("type", columns.types, columns.type_code, None, pl.Categorical()),
            *payload,
            pl.Series("event_id", event_id, dtype=pl.Binary).cast(pl.String),
            entry_id.to_series(),
            *envelope,
        ]
    )


def _series(name: str, column: Column, labels: Collection[str]) -> pl.Series:
    named, dtype = column_name(name), dtype_of(name, column.kind, labels)
    if column.texts is not None:
        return _texts(named, column.texts, column.values, column.valid, dtype)
    values = pl.Series(named, column.values, dtype=dtype)
    return values if column.valid is None else masked(values, column.valid)


def masked(values: pl.Series, present: NDArray[np.bool_]) -> pl.Series:
    """Return values with null where they are not present."""
    both = pl.DataFrame({"values": values, "present": present})
    kept = both.select(pl.when("present").then("values")).to_series()
    return kept.alias(values.name)


def _texts(
    name: str,
    texts: Sequence[str],
    codes: NDArray[np.int32],
    valid: NDArray[np.bool_] | None,
    dtype: pl.DataType,
) -> pl.Series:
    """Return coded texts; null stands behind the last of them."""
    if valid is not None:
        codes = np.where(valid, codes, len(texts))
    known = pl.Series(name, [*texts, None], dtype=pl.String).cast(dtype)
    return known.gather(codes)


def bad_to_polars(rows: Sequence[BadRow]) -> pl.DataFrame:
    """Return bad rows as a frame with the columns of `BAD_SCHEMA`."""
    return pl.DataFrame(
        {name: [getattr(row, name) for row in rows] for name in BAD_SCHEMA},
        schema=BAD_SCHEMA,
    )


def to_arrow(frame: pl.DataFrame) -> pa.Table:
    """Return a polars frame as an Arrow table, Categoricals as dictionaries.

    Dictionaries have int32 indices, which every Arrow reader takes.
    """
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    columns = [_signed(column) for column in table.columns]
    return pa.Table.from_arrays(columns, names=table.column_names)


def _signed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if not pa.types.is_dictionary(column.type):
        return column
    chunks = [
        pa.DictionaryArray.from_arrays(chunk.indices.cast(pa.int32()), chunk.dictionary)
        for chunk in column.chunks
    ]
    return pa.chunked_array(
        chunks, pa.dictionary(pa.int32(), column.type.value_type)
    ).unify_dictionaries()


def to_pandas(frame: pl.DataFrame) -> pd.DataFrame:
    """Return a polars frame in pandas' types, as `cep.frames.shape` lists them."""
    import pandas as pd

    columns = {series.name: _pandas(series) for series in frame.iter_columns()}
    return pd.DataFrame(columns, index=pd.RangeIndex(len(frame)))


def _pandas(series: pl.Series) -> Any:
    import pandas as pd

    absent = series.is_null().to_numpy()
    if series.dtype == pl.Int64:
        return pd.arrays.IntegerArray(series.fill_null(0).to_numpy().copy(), absent)
    if series.dtype == pl.Boolean:
        values = series.fill_null(value=False).to_numpy().copy()
        return pd.arrays.BooleanArray(values, absent)
    if series.dtype == pl.Categorical:
        # Codes of this column alone: polars' own count all there ever were.
        coded = series.cast(pl.String).to_arrow().dictionary_encode()
        codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        return pd.Categorical.from_codes(codes, coded.dictionary.to_pylist())
    return series.to_pandas()
