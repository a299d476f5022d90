"""Tables handed to kernels by their addresses.

numba unpacks every array that a call is given: some 100 ns apiece when Python
calls, and dozens of words on the stack when one kernel calls another. What a rule
works on are some thirty tables. So they go in as one: a handle holds address and
lengths of each, is made once and again when a table has moved, and kernels pass
its own address on, a number, from which each takes the tables that it needs.
Whoever makes a handle keeps it and the tables alive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numba.np import arrayobj

from cep.engine.kernels.jit import inner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

WORDS = 4  # of each table: address and up to three lengths
_INT = ir.IntType(64)


def handle(tables: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    """Return the handle of contiguous tables of up to three dimensions."""
    out = np.zeros((len(tables), WORDS), np.int64)
    for i, table in enumerate(tables):
        assert table.flags.c_contiguous
        out[i, 0] = table.__array_interface__["data"][0]
        out[i, 1 : 1 + table.ndim] = table.shape
    return out


@intrinsic
def word(typingctx: Any, h: Any, i: Any) -> Any:
    """Word ``i`` of the handle at address ``h``."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        base = builder.inttoptr(args[0], _INT.as_pointer())
        return builder.load(builder.gep(base, [args[1]]))

    return types.int64(types.int64, types.int64), codegen


def table(place: Any, dtype: Any, ndim: int = 1, *, width: int = 0) -> Any:
    """Return the function that gives kernels the table at ``place`` of a handle.

    Parameters
    ----------
    dtype
        The numba type of its elements.
    width
        The last length where it is always the same, which spares a load.
    """

    @intrinsic
    def table_of(typingctx: Any, h: Any) -> Any:
        array = types.Array(dtype, ndim, "C")

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            base = builder.inttoptr(args[0], _INT.as_pointer())

            def load(i: int) -> Any:
                at = ir.Constant(_INT, int(place) * WORDS + i)
                return builder.load(builder.gep(base, [at]))

            pointer = context.get_data_type(dtype).as_pointer()
            item = context.get_abi_sizeof(context.get_data_type(dtype))
            itemsize = ir.Constant(_INT, item)
            shape = [load(1 + d) for d in range(ndim)]
            if width:
                shape[-1] = ir.Constant(_INT, int(width))
            strides = [itemsize]
            for size in reversed(shape[1:]):
                strides.insert(0, builder.mul(size, strides[0]))
            made = arrayobj.make_array(array)(context, builder)
            arrayobj.populate_array(
                made,
                data=builder.inttoptr(load(0), pointer),
                shape=shape,
                strides=strides,
                itemsize=itemsize,
                meminfo=None,
            )
            return made._getvalue()

        return array(types.int64), codegen

    return table_of


@inner
def length(h, i):
    """How many rows table ``i`` has."""
    return word(h, i * WORDS + 1)


@inner
def bind(handle, i, table):
    """Let table ``i`` of a handle be an array of one dimension."""
    handle[i, 0], handle[i, 1] = table.ctypes.data, table.size


@inner
def bind2(handle, i, table):
    """Let table ``i`` of a handle be an array of two dimensions."""
    handle[i, 0] = table.ctypes.data
    handle[i, 1], handle[i, 2] = table.shape
