"""Tables handed to kernels by their addresses.

numba unpacks every array that a call is given: some 100 ns apiece when Python
calls, and dozens of words on the stack when one kernel calls another. What a rule
works on are some thirty tables. So they go in as one: a handle holds address and
lengths of each, is made once and again when a table has moved, and kernels pass
its own address on, a number, from which each takes the tables that it needs.
Whoever makes a handle keeps it and the tables alive.

Arrays that are new in each call go in as objects (`hold2`, `array_at`): Python says
``id(array)``, which is where CPython keeps it, and the kernel reads address and
lengths there. Where in the object they are is part of numpy's binary interface, by
which every extension in C is compiled (``PyArrayObject_fields`` in ndarraytypes.h).
The caller keeps the array alive and sees to its dtype.
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

# Words of an array's object, after the header that all objects have.
_DATA = object.__basicsize__ // 8
_DIMENSIONS, _STRIDES, _DTYPE = _DATA + 2, _DATA + 3, _DATA + 5
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


@intrinsic
def set_word(typingctx: Any, h: Any, i: Any, value: Any) -> Any:
    """Write word ``i`` of the handle at address ``h``."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        base = builder.inttoptr(args[0], _INT.as_pointer())
        builder.store(args[2], builder.gep(base, [args[1]]))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@inner
def copy_table(h, i, other, j):
    """Let table ``i`` of a handle be table ``j`` of another."""
    for w in range(WORDS):
        set_word(h, i * WORDS + w, word(other, j * WORDS + w))


@inner
def hold2(h, i, array):
    """Let table ``i`` of a handle be an array of two dimensions, given as an object."""
    dimensions = word(array, _DIMENSIONS)
    set_word(h, i * WORDS, word(array, _DATA))
    set_word(h, i * WORDS + 1, word(dimensions, 0))
    set_word(h, i * WORDS + 2, word(dimensions, 1))


@inner
def dtype_of(array):
    """Where the dtype of an array is, given as an object: its ``id``."""
    return word(array, _DTYPE)


@inner
def stride_of(array):
    """How many bytes lie between the items of an array, given as an object."""
    return word(word(array, _STRIDES), 0)


def array_at(dtype: Any, ndim: int = 1) -> Any:
    """Return the function that gives kernels an array that is an object.

    It must be C-contiguous, with items of the numba type ``dtype``.
    """

    @intrinsic
    def array_of(typingctx: Any, array: Any) -> Any:
        kind = types.Array(dtype, ndim, "C")

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            item = context.get_data_type(dtype)

            def load(base: Any, i: int) -> Any:
                base = builder.inttoptr(base, _INT.as_pointer())
                return builder.load(builder.gep(base, [ir.Constant(_INT, i)]))

            lengths = load(args[0], _DIMENSIONS)
            shape = [load(lengths, d) for d in range(ndim)]
            itemsize = ir.Constant(_INT, context.get_abi_sizeof(item))
            strides = [itemsize]
            for size in reversed(shape[1:]):
                strides.insert(0, builder.mul(size, strides[0]))
            made = arrayobj.make_array(kind)(context, builder)
            arrayobj.populate_array(
                made,
                data=builder.inttoptr(load(args[0], _DATA), item.as_pointer()),
                shape=shape,
                strides=strides,
                itemsize=itemsize,
                meminfo=None,
            )
            return made._getvalue()

        return kind(types.int64), codegen

    return array_of
