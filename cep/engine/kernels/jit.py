"""How kernels are compiled.

`kernel` marks what Python calls: compiled on first use and cached on disk, once
per machine. `inner` marks what only kernels call: without the wrappers that a
call from Python needs, which halves the time that compiling takes.

The cache of a kernel is renewed when its own file changes, not when a file it
imports from does: after changing an inner function, touch its callers' files
(or remove the ``__pycache__`` folder).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba as nb

if TYPE_CHECKING:
    from collections.abc import Callable


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile for calls from Python."""
    compiled: Callable[..., Any] = nb.njit(cache=True, nogil=True)(function)
    return compiled


def inner(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile for calls from other kernels only."""
    options: Any = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    compiled: Callable[..., Any] = nb.njit(nogil=True, **options)(function)
    return compiled
