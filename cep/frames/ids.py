"""Event ids and entry ids as columns of text, and ids for events that have none."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl
import pyarrow as pa

from cep.errors import UsageError, shown
from cep.events.ids import ALPHABET, LENGTH

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Words = tuple[NDArray[np.uint64], NDArray[np.uint64]]
    EntryIds = tuple[NDArray[np.int64], NDArray[np.int64]]

ENTRY_ID: Final = r"^(0|[1-9][0-9]{0,18})-(0|[1-9][0-9]{0,18})$"
_NO_LETTER: Final = 255


def _values_of_letters() -> NDArray[np.uint8]:
    values = np.full(256, _NO_LETTER, np.uint8)
    values[np.frombuffer(ALPHABET.encode(), np.uint8)] = np.arange(32)
    return values


_VALUES: Final = _values_of_letters()


def parse_event_ids(texts: pl.Series) -> Words:
    """Return event ids as their upper and lower 64 bits.

    >>> parse_event_ids(pl.Series(["00000000000000000000000010"]))
    (array([0], dtype=uint64), array([32], dtype=uint64))

    Raises
    ------
    UsageError
        If one is null or no ULID in its canonical form; names the row, from 0.
    """
    n = len(texts)
    right_length = (texts.str.len_bytes() == LENGTH).fill_null(value=False)
    _refuse(texts, ~right_length, "is no event id", "A ULID has 26 characters.")
    if n == 0:
        return np.zeros(0, np.uint64), np.zeros(0, np.uint64)
    joined = pa.concat_arrays([texts.to_arrow().cast(pa.large_string())])
    letters = np.frombuffer(joined.buffers()[2], np.uint8)
    start = joined.offset * LENGTH
    values = _VALUES[letters[start : start + n * LENGTH].reshape(n, LENGTH)]
    wrong = (values == _NO_LETTER).any(axis=1) | (values[:, 0] > 7)
    _refuse(
        texts,
        pl.Series(wrong),
        "is no event id",
        "A ULID has upper-case Crockford base-32 letters, the first at most 7.",
    )
    hi, lo = np.zeros(n, np.uint64), np.zeros(n, np.uint64)
    for place in range(LENGTH):
        # 128 bits, shifted left by five, the upper word taking what leaves.
        hi = (hi << np.uint64(5)) | (lo >> np.uint64(59))
        lo = (lo << np.uint64(5)) | values[:, place]
    return hi, lo


def parse_entry_ids(texts: pl.Series) -> EntryIds:
    """Return entry ids as their milliseconds and sequence numbers.

    Raises
    ------
    UsageError
        If one is null or not ``ms-seq``; names the row, from 0.
    """
    good = texts.str.contains(ENTRY_ID).fill_null(value=False)
    _refuse(texts, ~good, "is no entry id", "Write ms-seq, as Redis does.")
    parts = texts.str.split_exact("-", 1).struct.unnest()
    numbers = parts.select(pl.all().cast(pl.Int64, strict=False))
    beyond = numbers.select(pl.any_horizontal(pl.all().is_null())).to_series()
    _refuse(texts, beyond, "is no entry id", "Its numbers take at most 63 bits.")
    ms, seq = (column.to_numpy() for column in numbers.iter_columns())
    return ms, seq


def made_entry_ids(time_ms: NDArray[np.int64]) -> EntryIds:
    """Return entry ids that keep the order of rows which have none.

    The milliseconds are the largest event time up to the row (as if each event
    had arrived at once, but for those that came late), the sequence number
    counts rows of equal milliseconds from 0.

    >>> made_entry_ids(np.array([5, 5, 3, 9]))
    (array([5, 5, 5, 9]), array([0, 1, 2, 0]))
    """
    ms = np.maximum.accumulate(time_ms) if len(time_ms) else time_ms
    place = np.arange(len(ms))
    first = np.searchsorted(ms, ms, side="left")
    return ms.astype(np.int64), (place - first).astype(np.int64)


def made_event_ids(stream: str, time_ms: NDArray[np.int64]) -> Words:
    """Return event ids for rows that have none, the same each time.

    A ULID of three parts: 48 bits of the row's event time; 16 bits, the first
    two bytes of the BLAKE2b hash (digest of 2 bytes) of the stream's name; 64
    bits, the row's number from 0. Nothing else goes in: equal rows get
    different ids, and a row's id depends on its place.

    >>> hi, lo = made_event_ids("market.events", np.array([1000, 1000]))
    >>> lo.tolist()
    [0, 1]
    """
    digest = hashlib.blake2b(stream.encode(), digest_size=2).digest()
    salt = np.uint64(int.from_bytes(digest, "big"))
    hi = (time_ms.astype(np.uint64) << np.uint64(16)) | salt
    return hi, np.arange(len(time_ms), dtype=np.uint64)


def _refuse(texts: pl.Series, wrong: pl.Series, problem: str, remedy: str) -> None:
    if wrong.any():
        row = wrong.arg_max() or 0
        raise UsageError(
            f"{texts.name or 'Column'}, row {row}: {shown(texts[row])} {problem}.",
            remedy,
        )
