"""Write and execute the notebooks of docs/notebooks: `python docs/generate/notebooks.py` (a minute)."""

import os
import tempfile
from pathlib import Path

import nbformat
from navigation import DOCS
from nbclient import NotebookClient

ROOT = DOCS.parent
DIAGNOSE = [
    """# Diagnose and watch

A finished model, a verdict on its bottleneck, and a monitor in a training loop that stays as it is.""",
    """import torch
from torch import nn

import harness

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(20, 4), nn.ReLU(), nn.Linear(4, 20))
nn.init.constant_(model[0].bias[:2], -9.0)  # planted: two units can no longer fire
rows = torch.randn(2000, 20)""",
    """A diagnosis is the last value of a cell: the notebook shows it as a table.""",
    """diagnosis = harness.diagnose_model(model, rows, "0")
diagnosis""",
    """One row per unit, as a DataFrame:""",
    """diagnosis.to_frame()[["verdict", "activation_frequency", "mean", "entropy_bits"]]""",
    """Your own loop, observed. Warnings are collected instead of printed.""",
    """warnings = []
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
with harness.watch(model, "0", callback=warnings.append) as monitor:
    for epoch in range(5):
        for batch in rows.split(100):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(batch), batch).backward()
            optimizer.step()
warnings""",
    """history = monitor.history()
axes = history.pivot(index="step", columns="unit", values="activation_frequency").plot(
    xlabel="step", ylabel="share of rows on which the unit fires", title="Units 0 and 1 never fire"
)""",
    """What the words mean, without leaving the notebook:""",
    """print(harness.explain("dead"))""",
]
GRID = [
    """# A grid and its effects

Which change of a model lowers collapse, and is it more than luck? Two changes are crossed, each variant with the same 16
seeds. Nothing is written but a folder `mlruns/`.""",
    """from pathlib import Path

import harness

Path("mine.yaml").write_text(\"\"\"
name: mine
case: forum
data: patches
factors:
  activation: [relu, leaky_relu]
  batchnorm: [off, on]
seeds: 16
train: {epochs: 20, batch_size: 64, learning_rate: 0.01}
\"\"\")
plan = harness.plan("mine.yaml")
plan.members, plan.variants""",
    """results = harness.run("mine.yaml", workers=0)
results.members[["variant", "seed", "verdict", "live_units", "r2"]].head()""",
    """The share of failed seeds in each cell:""",
    """results.members.pivot_table(index="activation", columns="batchnorm", values="failed", aggfunc="mean")""",
    """The answer of the report, and the effects with their intervals over seeds:""",
    """print(results.answer["headline"])""",
    """effects = results.effects
effects[effects.outcome == "r2"][["factor", "level", "estimate", "low", "high"]].round(2)""",
    """The report has the figures: `results.report` is its path. For a proof with few seeds, and fresh ones, see
`harness.prescribe`.""",
]
NOTEBOOKS = {"diagnose_and_watch": DIAGNOSE, "grid_and_effects": GRID}


def notebook(cells: list[str]) -> nbformat.NotebookNode:
    """Return a notebook of texts and code; a text opens with a capital letter or a heading."""
    made = nbformat.v4.new_notebook()
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for number, text in enumerate(cells):
        is_text = text[0] == "#" or (text[0].isupper() and "=" not in text.splitlines()[0])
        cell = nbformat.v4.new_markdown_cell(text) if is_text else nbformat.v4.new_code_cell(text)
        cell["id"] = f"cell-{number}"
        made.cells.append(cell)
    return made


def execute(made: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """Execute a notebook in a folder, with the package of this checkout."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)
    try:
        NotebookClient(
            made, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
        ).execute()
    finally:
        os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)
    return made


def texts(made: nbformat.NotebookNode) -> str:
    """Return all plain outputs of a notebook, without errors of the display."""
    outputs = [output for cell in made.cells if cell.cell_type == "code" for output in cell.outputs]
    return "\n".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs)


if __name__ == "__main__":
    for name, cells in NOTEBOOKS.items():
        with tempfile.TemporaryDirectory() as folder:
            made = execute(notebook(cells), Path(folder))
        for cell in made.cells:
            cell.metadata.pop("execution", None)  # times of day
            if cell.cell_type == "code":  # warnings of other packages, with paths of this machine
                cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        nbformat.write(made, DOCS / "notebooks" / f"{name}.ipynb")
