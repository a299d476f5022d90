"""Whether the engine's kernels are compiled already on this machine."""

from __future__ import annotations

from typing import Any


def is_warm() -> bool:
    """Whether the largest kernel is in numba's cache on disk.

    A hint for what to tell the user, not a promise: another version of numba
    or another processor compiles again.
    """
    from cep.engine.kernels import nfa

    compiled: Any = nfa.feed
    try:
        return bool(compiled._cache._cache_file._load_index())
    except (AttributeError, OSError):
        return False
