"""How kernels are compiled and cached."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import numba

from cep.jit import InnerCompiler, KernelCompiler, digest

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

Function = TypeVar("Function", bound="Callable[..., Any]")

Bytes: TypeAlias = "NDArray[np.uint8]"
Places: TypeAlias = "NDArray[np.int64]"
Int: TypeAlias = Any
"""An int or np.int64, which to kernels are the same and to mypy are not."""


_DIGEST = digest(sorted(Path(__file__).parent.glob("*.py")))


# Leave out what kernels do not use: it costs most of the compilation.
_LEAN: dict[str, Any] = {
    "no_cfunc_wrapper": True,
    "no_rewrites": True,
    "_nrt": False,
    "error_model": "numpy",
    "pipeline_class": KernelCompiler,
}


_HELPER: dict[str, Any] = {
    **_LEAN,
    "no_cpython_wrapper": True,
    "pipeline_class": InnerCompiler,
}


def kernel(function: Function) -> Function:
    """Compile a function that Python calls, on its first call on this machine.

    numba's cache looks at the file of the function only and would go on using
    code of helpers that have changed since. So the name it files the code
    under holds a digest of all kernels.
    """
    function.__qualname__ += f"_{_DIGEST}"
    try:
        return cast("Function", numba.njit(cache=True, nogil=True, **_LEAN)(function))
    except RuntimeError:
        # No folder to write to at all: then each process compiles for itself.
        return cast("Function", numba.njit(nogil=True, **_LEAN)(function))


def helper(function: Function) -> Function:
    """Compile a function that only kernels call.

    Each kind of arguments is compiled anew, and numba takes a literal for a
    kind of its own: callers pass int64 only, ``np.int64(0)`` where a constant
    is meant.
    """
    return cast("Function", numba.njit(**_HELPER)(function))


def inlined(function: Function) -> Function:
    """Compile a function that kernels call so often that calling it would show.

    Of each array that is passed the shape and strides go by value, some 4 ns.
    """
    return cast("Function", numba.njit(forceinline=True, **_HELPER)(function))
