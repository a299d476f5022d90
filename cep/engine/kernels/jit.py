"""How kernels are compiled.

`kernel` marks what Python calls: compiled on first use and cached on disk, once
per machine. `inner` marks what only kernels call: without the wrappers that a
call from Python needs and without reference counts, which together halves the
time that compiling takes. An inner function may not make arrays, and each kind
of arguments is compiled anew; numba takes a literal for a kind of its own, so
callers write ``np.int64(-1)`` where a constant is meant. Each array costs a call
some 4 ns, for its shape and strides go by value; `inlined` is for what runs so
often that this shows.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numba as nb

from cep.jit import InnerCompiler, KernelCompiler, digest

if TYPE_CHECKING:
    from collections.abc import Callable

STEP = nb.types.int64(*[nb.types.int64] * 6)
_LEAN: Any = {
    "no_cfunc_wrapper": True,
    "no_rewrites": True,
    "error_model": "numpy",
    "nogil": True,
    "pipeline_class": KernelCompiler,
}
_INNER: Any = {
    **_LEAN,
    "no_cpython_wrapper": True,
    "_nrt": False,
    "pipeline_class": InnerCompiler,
}


def _sources(path: Path, found: dict[str, Path]) -> dict[str, Path]:
    """Return a module of kernels and all those that it imports, by name."""
    if path.name not in found:
        found[path.name] = path
        for module, names in _IMPORTS.findall(path.read_text("utf-8")):
            for name in [module] if module else names.split(", "):
                _sources(Path(__file__).with_name(f"{name}.py"), found)
    return found


_IMPORTS = re.compile(
    r"^from cep\.engine\.kernels(?:\.(\w+) import| import (.+)$)", re.MULTILINE
)


@cache
def _digest(path: str) -> str:
    sources = _sources(Path(path), {})
    return digest(sources[name] for name in sorted(sources))


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile for calls from Python.

    numba's cache looks only at the file of the function itself and would go on
    using code of inner functions that have changed since, so the name under
    which it files the code holds a digest of that module and those it imports.
    """
    return _cached(function, _LEAN)


def plain_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile for calls from Python a kernel that makes no arrays.

    Without reference counts a call costs half a microsecond less.
    """
    return _cached(function, {**_LEAN, "_nrt": False})


def _cached(function: Callable[..., Any], options: Any) -> Callable[..., Any]:
    function.__qualname__ += f"_{_digest(function.__code__.co_filename)}"
    compiled: Callable[..., Any]
    try:
        compiled = nb.njit(cache=True, **options)(function)
    except RuntimeError:
        # No folder to write to at all: each process compiles for itself.
        compiled = nb.njit(**options)(function)
    return compiled


def step_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a kernel that `cep.engine.kernels.work` calls by its address.

    All of them take and return the same, see there; Python can call them, too.
    """
    compiled: Any = plain_kernel(function)
    compiled.address = cache(lambda: _address(compiled))
    return compiled  # type: ignore[no-any-return]


def _address(compiled: Any) -> int:
    compiled.compile(STEP)
    (overload,) = compiled.overloads.values()
    name = overload.fndesc.llvm_func_name
    found: int = overload.library.get_pointer_to_function(name)
    return found


def inner(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile for calls from other kernels only."""
    compiled: Callable[..., Any] = nb.njit(**_INNER)(function)
    return compiled


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile like `inner`, into the body of each caller."""
    compiled: Callable[..., Any] = nb.njit(**_INNER, forceinline=True)(function)
    return compiled
