"""Imports numba without `scipy.linalg`, which costs 0.4 s of CPU.

numba imports that only to see whether there is a BLAS, and again where it compiles
something that uses one. Kernels do not; packages of kernels call this first.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec

from numba.np import linalg


def import_array_functions() -> None:
    """Import numba's functions of arrays, as if there were a BLAS."""
    if "numba.np.arraymath" in sys.modules or find_spec("scipy") is None:
        return
    ensure = linalg.ensure_blas
    linalg.ensure_blas = lambda: None
    try:
        import_module("numba.np.arraymath")
    finally:
        linalg.ensure_blas = ensure
