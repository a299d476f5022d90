"""What a Python function does, as a few digits that are the same in every process.

Of the function are taken its code with its constants, its defaults, the values
that it closes over, and the functions and plain values of its module that it
names. Of any other value only its type counts: a text of it could hold an
address. Another version of Python compiles to other code.
"""

from __future__ import annotations

import functools
import hashlib
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@functools.lru_cache(maxsize=1024)
def fingerprint(function: Callable[..., object]) -> str:
    """Return sixteen hex digits of what a function does.

    >>> fingerprint(lambda x: x > 1) == fingerprint(lambda x: x > 1)
    True
    >>> fingerprint(lambda x: x > 1) == fingerprint(lambda x: x > 2)
    False
    """
    told = _told(function, ())
    return hashlib.sha256(repr(told).encode("utf-8", "replace")).hexdigest()[:16]


def _told(value: object, within: tuple[int, ...]) -> object:
    """Return plain values that stand for any one."""
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        return type(value).__name__, repr(value)
    if id(value) in within:
        return "again", within.index(id(value))
    within = (*within, id(value))
    if isinstance(value, (tuple, list)):
        return type(value).__name__, [_told(one, within) for one in value]
    if isinstance(value, (set, frozenset)):
        return type(value).__name__, sorted(repr(_told(one, within)) for one in value)
    if isinstance(value, dict):
        pairs = [(_told(k, within), _told(v, within)) for k, v in value.items()]
        return "dict", pairs
    if isinstance(value, CodeType):
        return "code", value.co_code, value.co_names, _told(value.co_consts, within)
    if isinstance(value, functools.partial):
        return "partial", _told([value.func, value.args, value.keywords], within)
    if isinstance(value, FunctionType):
        return "function", _parts(value, within)
    if isinstance(value, ModuleType):
        return "module", value.__name__
    if isinstance(value, type) or callable(value):
        name = getattr(value, "__qualname__", type(value).__qualname__)
        return "named", getattr(value, "__module__", ""), name
    return "of", type(value).__module__, type(value).__qualname__


def _parts(function: FunctionType, within: tuple[int, ...]) -> list[object]:
    cells = []
    for cell in function.__closure__ or ():
        try:
            cells.append(_told(cell.cell_contents, within))
        except ValueError:  # it has no value yet
            cells.append("empty")
    names = {
        name: function.__globals__[name]
        for name in sorted(_names(function.__code__))
        if name in function.__globals__
    }
    return [
        _told(function.__code__, within),
        _told(function.__defaults__, within),
        _told(function.__kwdefaults__, within),
        cells,
        _told(names, within),
    ]


def _names(code: CodeType) -> set[str]:
    inner = (_names(one) for one in code.co_consts if isinstance(one, CodeType))
    return set(code.co_names).union(*inner)
