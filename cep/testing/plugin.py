"""For pytest: ``--cep-seed N`` sets the seed of tests that `cep.testing.given` makes.

Installed with the package. The seed that a failing test names makes the same orders of
arrival and the same batches again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cep.testing.seed import DEFAULTS

if TYPE_CHECKING:
    import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.getgroup("cep").addoption(
        "--cep-seed",
        type=int,
        default=None,
        help="seed of the runs out of order that every test of rules makes (0)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Set the seed."""
    seed = config.getoption("--cep-seed")
    if seed is not None:
        DEFAULTS["seed"] = seed
