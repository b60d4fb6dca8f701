"""The notebooks of docs/ run, and show what they showed when they were written."""

import nbformat
import pytest
from blocks import ROOT
from notebooks import NOTEBOOKS, execute, notebook, texts

FOLDER = ROOT / "docs" / "notebooks"
WORDS = {
    "diagnose_and_watch": ("2 of 4 units live", "units 0, 1 of 0 have not fired", "receives no gradient"),
    "grid_and_effects": ("'leaky_relu bn=on'", "16 seeds fail", "leaky_relu"),
}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_has_the_cells_of_its_source_and_no_error(name):
    stored = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbformat.validate(stored)
    assert [cell.source for cell in stored.cells] == [cell.source for cell in notebook(NOTEBOOKS[name]).cells]
    outputs = [output for cell in stored.cells if cell.cell_type == "code" for output in cell.outputs]
    assert all(output.output_type != "error" and output.get("name") != "stderr" for output in outputs)
    assert any("text/html" in output.get("data", {}) for output in outputs)
    assert [word for word in WORDS[name] if word not in texts(stored)] == []


@pytest.mark.service
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs(name, tmp_path):
    assert [word for word in WORDS[name] if word not in texts(execute(notebook(NOTEBOOKS[name]), tmp_path))] == []
