"""Libraries of the extra ``stats``, imported when first needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from cep.errors import MissingExtraError


def stats_library(name: str) -> Any:
    """Return a module of scipy, statsmodels or ruptures.

    Raises
    ------
    MissingExtraError
        If it is not installed; names the extra that brings it.
    """
    try:
        return import_module(name)
    except ImportError as error:
        library = name.partition(".")[0]
        raise MissingExtraError(library, "stats") from error
