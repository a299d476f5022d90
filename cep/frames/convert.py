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
from cep.bus.ulid_columns import ulid_letters
from cep.events.ids import LENGTH
from cep.events.registry import Registry, registry
from cep.frames.shape import (
    LEADING,
    OWN,
    TRAILING,
    column_name,
    dtype_of,
    event_time_dtype,
    labels_of,
)

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


def to_polars(
    columns: EventColumns,
    *,
    own: Collection[str] = OWN,
    registry: Registry = registry,
) -> pl.DataFrame:
    """Return events as a polars frame, one row per event, in the same order.

    ``own`` says which of the frame's own columns it has, beside the fields.
    """
    labels = labels_of(registry)
    payload: list[pl.Series] = []
    envelope: list[pl.Series] = []
    for name, column in columns.fields.items():
        into = envelope if name in ENVELOPE_COLUMNS else payload
        into.append(_series(name, column, labels))
    makers = {
        "event_time": lambda: pl.Series("event_time", columns.time_ms).cast(
            event_time_dtype()
        ),
        "type": lambda: _texts(
            "type", columns.types, columns.type_code, None, pl.Categorical()
        ),
        "event_id": lambda: _event_ids(columns),
        "entry_id": lambda: _entry_ids(columns),
    }
    leading = [makers[name]() for name in LEADING if name in own]
    trailing = [makers[name]() for name in TRAILING if name in own]
    return pl.DataFrame([*leading, *payload, *trailing, *envelope])


def _event_ids(columns: EventColumns) -> pl.Series:
    letters = ulid_letters(columns.id_hi, columns.id_lo)
    ends = np.arange(len(letters) + 1, dtype=np.int64) * LENGTH
    return _strings("event_id", letters, ends)


def _entry_ids(columns: EventColumns) -> pl.Series:
    """Return entry ids as text: all in one width, then without the leading zeros."""
    ms, seq = columns.entry_ms, columns.entry_seq
    widths = [len(str(int(part.max(initial=0)))) for part in (ms, seq)]
    letters = np.empty((len(ms), sum(widths) + 1), np.uint8)
    shown = np.ones(letters.shape, np.bool_)
    letters[:, widths[0]] = ord("-")
    for part, end, width in (
        (ms, widths[0], widths[0]),
        (seq, letters.shape[1], widths[1]),
    ):
        rest = part
        for place in range(end - 1, end - width - 1, -1):
            if place < end - 1:
                shown[:, place] = rest > 0
            larger = rest // 10
            letters[:, place] = rest - 10 * larger + ord("0")
            rest = larger
    ends = np.zeros(len(ms) + 1, np.int64)
    np.cumsum(shown.sum(axis=1), out=ends[1:])
    return _strings("entry_id", letters[shown], ends)


def _strings(
    name: str, letters: NDArray[np.uint8], ends: NDArray[np.int64]
) -> pl.Series:
    # By way of Arrow: polars' own expressions cost a millisecond each.
    parts = [None, pa.py_buffer(ends), pa.py_buffer(letters)]
    texts = pa.Array.from_buffers(pa.large_string(), len(ends) - 1, parts)
    return pl.Series(name, texts)


def _series(name: str, column: Column, labels: Collection[str]) -> pl.Series:
    named, dtype = column_name(name), dtype_of(name, column.kind, labels)
    if column.texts is not None:
        return _texts(named, column.texts, column.values, column.valid, dtype)
    return _numbers(named, column, dtype)


def masked(values: pl.Series, present: NDArray[np.bool_]) -> pl.Series:
    """Return values with null where they are not present."""
    both = pl.DataFrame({"values": values, "present": present})
    kept = both.select(pl.when("present").then("values")).to_series()
    return kept.alias(values.name)


def _numbers(name: str, column: Column, dtype: pl.DataType) -> pl.Series:
    if column.valid is None or column.kind == "bool":
        values = pl.Series(name, column.values, dtype=dtype)
        return values if column.valid is None else masked(values, column.valid)
    kind = pa.from_numpy_dtype(column.values.dtype)
    parts = [_bits(column.valid), pa.py_buffer(np.ascontiguousarray(column.values))]
    return pl.Series(name, pa.Array.from_buffers(kind, len(column), parts))


def _bits(valid: NDArray[np.bool_] | None) -> pa.Buffer | None:
    return (
        None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    )


def _texts(
    name: str,
    texts: Sequence[str],
    codes: NDArray[np.int32],
    valid: NDArray[np.bool_] | None,
    dtype: pl.DataType,
) -> pl.Series:
    """Return coded texts; null stands behind the last of them."""
    if dtype == pl.Categorical and texts:
        # By way of Arrow, which takes a third of the time.
        indices = pa.Array.from_buffers(
            pa.int32(), len(codes), [_bits(valid), pa.py_buffer(codes)]
        )
        known = pa.array(texts, pa.large_string())
        return pl.Series(name, pa.DictionaryArray.from_arrays(indices, known))
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
