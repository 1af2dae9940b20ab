"""The notebooks run from top to bottom on the sample market, and are committed without output."""

from __future__ import annotations

import os

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import HERE

NOTEBOOKS = sorted((HERE / "notebooks").glob("*.ipynb"))
PLOTS = {"explore", "signals", "data_quality"}


def test_there_are_the_notebooks_that_the_readme_names():
    readme = (HERE / "README.md").read_text(encoding="utf-8")
    assert {path.stem for path in NOTEBOOKS} >= {"explore", "signals", "add_an_indicator", "data_quality"}
    assert all(path.stem in readme for path in NOTEBOOKS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_is_committed_without_output(sample_lake, path, monkeypatch):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in notebook.cells)
    assert sum(cell.cell_type == "markdown" for cell in notebook.cells) * 3 > len(notebook.cells), "it reads well"
    monkeypatch.setenv("SISE_LAKE", sample_lake.lake)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE / "lib"), os.environ.get("PYTHONPATH", "")]))
    resources = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(notebook, timeout=1_200, startup_timeout=240, kernel_name="python3", resources=resources)
    client.execute()
    kinds = {kind for cell in notebook.cells for out in cell.get("outputs", ()) for kind in out.get("data", {})}
    assert ("application/vnd.plotly.v1+json" in kinds) == (path.stem in PLOTS)
