"""Every notebook runs from top to bottom in a fresh kernel, and is kept clean."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FIGURE = "application/vnd.plotly.v1+json"


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs_of(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda path: path.stem)
def executed(request):
    """A notebook after a run in a fresh kernel, in its own folder."""
    notebook = read(request.param)
    # The kernel must find the package when it is not installed.
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    client = NotebookClient(
        notebook,
        timeout=120,
        resources={"metadata": {"path": str(ROOT / "notebooks")}},
    )
    client.execute(env={**os.environ, "PYTHONPATH": path})
    return notebook


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_cleared(path):
    cells = code_cells(read(path))
    assert not [cell for cell in cells if cell.outputs or cell.execution_count], (
        "clear outputs before you commit"
    )


@pytest.mark.slow
def test_runs_in_order_without_a_complaint(executed):
    complaints = [
        output.text
        for output in outputs_of(executed)
        if output.output_type == "stream" and output.name == "stderr"
    ]
    assert complaints == []


@pytest.mark.slow
def test_figures_can_be_seen_without_a_network(executed):
    data = [output.data for output in outputs_of(executed) if "data" in output]
    figures = [one for one in data if FIGURE in one]
    assert figures
    assert all(one[FIGURE]["data"] for one in figures)
    pages = "".join(one.get("text/html", "") for one in data)
    assert "plotly.js v" in pages
    assert not re.findall(r"<script[^>]*src=", pages)
