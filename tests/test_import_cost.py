"""What ``import cep`` and ``cep --help`` may not load."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {
    "hiredis",
    "jinja2",
    "llvmlite",
    "msgspec",
    "numba",
    "numpy",
    "pandas",
    "plotly",
    "polars",
    "prometheus_client",
    "pyarrow",
    "pydantic",
    "redis",
    "rich",
    "scipy",
    "typer",
}


@pytest.mark.parametrize(
    "command", [["-c", "import cep"], ["-m", "cep", "--help"]], ids=" ".join
)
def test_loads_no_heavy_library(command):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {
        line.rpartition("|")[2].strip().partition(".")[0]
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    }
    assert "cep" in loaded
    assert not loaded & HEAVY


@pytest.mark.slow
def test_every_public_name_is_found_where_the_table_says():
    import cep

    assert set(cep.__all__) <= set(dir(cep))
    missing = [name for name in cep.__all__ if not hasattr(cep, name)]
    assert missing == []


def test_an_unknown_name_is_an_attribute_error():
    import cep

    with pytest.raises(AttributeError, match="'cep' has no attribute 'rulez'"):
        _ = cep.rulez
