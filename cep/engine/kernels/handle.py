"""Tables handed to kernels as one array of addresses.

numba unpacks each array that a call is given, some 100 ns apiece, which a rule's
twenty tables would pay anew for every event of a trickle. A handle is made once
and again when a table has moved; inside, `table` gives each table back as the
array that it is. Whoever makes a handle keeps the tables alive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba as nb
import numpy as np
from numba.core import cgutils, types
from numba.extending import intrinsic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

WORDS = 4  # address and up to three lengths


@intrinsic
def _pointer(typingctx: Any, address: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), codegen


def handle(tables: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    """Return the handle of contiguous tables of one, two or three dimensions."""
    out = np.zeros((len(tables), WORDS), np.int64)
    for i, table in enumerate(tables):
        assert table.flags.c_contiguous
        out[i, 0] = table.__array_interface__["data"][0]
        out[i, 1 : 1 + table.ndim] = table.shape
    return out


@nb.njit(inline="always")
def ints(handle, i):
    """Table ``i``: int64, one dimension."""
    return nb.carray(_pointer(handle[i, 0]), (handle[i, 1],), np.int64)


@nb.njit(inline="always")
def ints2(handle, i):
    """Table ``i``: int64, two dimensions."""
    return nb.carray(_pointer(handle[i, 0]), (handle[i, 1], handle[i, 2]), np.int64)


@nb.njit(inline="always")
def shorts(handle, i):
    """Table ``i``: int32, one dimension."""
    return nb.carray(_pointer(handle[i, 0]), (handle[i, 1],), np.int32)


@nb.njit(inline="always")
def shorts2(handle, i):
    """Table ``i``: int32, two dimensions."""
    return nb.carray(_pointer(handle[i, 0]), (handle[i, 1], handle[i, 2]), np.int32)


@nb.njit(inline="always")
def bytes1(handle, i):
    """Table ``i``: uint8, one dimension."""
    return nb.carray(_pointer(handle[i, 0]), (handle[i, 1],), np.uint8)


@nb.njit(inline="always")
def bytes2(handle, i):
    """Table ``i``: uint8, two dimensions."""
    return nb.carray(_pointer(handle[i, 0]), (handle[i, 1], handle[i, 2]), np.uint8)


@nb.njit(inline="always")
def floats(handle, i):
    """Table ``i``: float64, one dimension."""
    return nb.carray(_pointer(handle[i, 0]), (handle[i, 1],), np.float64)


@nb.njit(inline="always")
def floats2(handle, i):
    """Table ``i``: float64, two dimensions."""
    return nb.carray(_pointer(handle[i, 0]), (handle[i, 1], handle[i, 2]), np.float64)


@nb.njit(inline="always")
def floats3(handle, i):
    """Table ``i``: float64, three dimensions."""
    return nb.carray(
        _pointer(handle[i, 0]),
        (handle[i, 1], handle[i, 2], handle[i, 3]),
        np.float64,
    )
