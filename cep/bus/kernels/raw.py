"""Entries as they are: their ids as numbers, their names, their values' bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cep.bus.kernels.compiling import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cep.bus.kernels.compiling import Bytes, Places


@kernel
def entry_numbers(
    data: Bytes, entries: Places, ms: NDArray[np.uint64], seq: NDArray[np.uint64]
) -> None:
    """Write the two numbers of each entry id, which the server has written."""
    ten, zero = np.uint64(10), np.uint64(48)
    for row in range(len(entries)):
        number = np.uint64(0)
        for at in range(entries[row, 0], entries[row, 0] + entries[row, 1]):
            letter = np.uint64(data[at])
            if letter == np.uint64(45):
                ms[row] = number
                number = np.uint64(0)
            else:
                number = number * ten + (letter - zero)
        seq[row] = number


@kernel
def have_names(
    data: Bytes,
    entries: Places,
    fields: Places,
    names: Bytes,
    places: Places,
    found: NDArray[np.bool_],
) -> None:
    """Write which entries have just these names, in this order.

    ``places`` has shape ``(k, 2)``: offset and length of each in ``names``.
    """
    for row in range(len(entries)):
        first, good = entries[row, 2], entries[row, 3] == len(places)
        if good:
            for i in range(len(places)):
                length = places[i, 1]
                if fields[first + i, 1] != length:
                    good = False
                    break
                start = fields[first + i, 0]
                for j in range(length):
                    if data[start + j] != names[places[i, 0] + j]:
                        good = False
                        break
        found[row] = good


@kernel
def gather(data: Bytes, places: Places, out: Bytes) -> None:
    """Write the bytes at these offsets and lengths, one after the other."""
    at = 0
    for row in range(len(places)):
        start, length = places[row, 0], places[row, 1]
        for i in range(length):
            out[at + i] = data[start + i]
        at += length
