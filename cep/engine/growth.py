"""Tables that grow by doubling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def grown(array: NDArray[Any], rows: int, fill: Any = 0) -> NDArray[Any]:
    """Return a copy with ``rows`` rows."""
    out = np.full((rows, *array.shape[1:]), fill, array.dtype)
    out[: len(array)] = array
    return out


def doubled(rows: int, need: int) -> int:
    """Return ``rows`` doubled until it is at least ``need``."""
    while rows < need:
        rows *= 2
    return rows
