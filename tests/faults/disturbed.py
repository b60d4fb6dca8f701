"""A tiny experiment, run in a process of its own, and what it left behind without what the clock decides."""

import csv
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

OWN = """
import time, torch
from torch import nn
import harness

def build():
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 6))

def data():
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(0))

def losses(model, batch, scale=1.0):
    time.sleep({pause})
    return {{"reconstruction": scale * ((model(batch) - batch) ** 2).mean()}}

case = harness.Case(build, data, losses, "2", numbers={{"scale": 1.0}})
"""
EXPERIMENT = """
name: disturbed
case: own.py
factors: {activation: [relu, leaky_relu]}
seeds: 2
train: {epochs: 2, batch_size: 16}
"""
MEMBERS = 4
# without what depends on the clock, the machine or the folder, and on which attempt it was
COMPARED = {
    "runs": "SELECT name, status FROM runs WHERE lifecycle_stage = 'active'",
    "params": "SELECT r.name, p.key, p.value FROM params p JOIN runs r USING (run_uuid)"
    " WHERE lifecycle_stage = 'active'",
    "metrics": "SELECT r.name, m.key, m.step, m.value, m.is_nan FROM metrics m JOIN runs r USING (run_uuid)"
    " WHERE m.key NOT LIKE 'time/%' AND lifecycle_stage = 'active'",
    "tags": "SELECT r.name, t.key, t.value FROM tags t JOIN runs r USING (run_uuid)"
    " WHERE t.key NOT LIKE 'mlflow.%' AND t.key != 'git_commit' AND lifecycle_stage = 'active'",
}


def prepared(folder: Path, pause: float = 0.0, experiment: str = EXPERIMENT, store: Path | None = None) -> Path:
    """A folder with the experiment, and with an empty store where one is given: migrating one takes seconds."""
    (folder / "own.py").write_text(OWN.format(pause=pause))
    (folder / "disturbed.yaml").write_text(experiment)
    if store is not None:
        (folder / "mlruns").mkdir(exist_ok=True)
        shutil.copy(store, folder / "mlruns" / "mlflow.db")
    return folder


def command(
    folder: Path, *arguments: str, wrapper: tuple[str, ...] = (), **environment: str
) -> "subprocess.Popen[str]":
    """`harness run disturbed.yaml --json` in the folder, begun."""
    variables = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    variables.pop("MLFLOW_TRACKING_URI", None)
    words = ("harness", "run", "disturbed.yaml", "--json", "--workers", "0", *arguments)
    code = f"import sys; sys.argv = {list(words)}; from harness.cli import main; main()"
    return subprocess.Popen(
        [*wrapper, sys.executable, "-c", code],
        cwd=folder,
        env={**variables, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(folder: Path, *arguments: str, **environment: str) -> dict:
    """The document of a run to its end."""
    out, error = command(folder, *arguments, **environment).communicate(timeout=180)
    assert out, error
    return json.loads(out)


def left_behind(folder: Path) -> dict[str, list]:
    """The rows of the store, the artifacts and the members' table."""
    with sqlite3.connect(folder / "mlruns" / "mlflow.db") as connection:
        found = {name: sorted(map(repr, connection.execute(query))) for name, query in COMPARED.items()}
    found["artifacts"] = sorted(path.name for path in (folder / "mlruns" / "artifacts").rglob("*") if path.is_file())
    with (folder / "mlruns" / "reports" / "disturbed" / "members.csv").open() as file:
        rows = list(csv.DictReader(file))
    found["members"] = [{k: v for k, v in row.items() if k not in ("seconds", "logged_at")} for row in rows]
    return found


def assert_same(found: dict[str, list], expected: dict[str, list]) -> None:
    """Equal, table by table, and nothing left RUNNING."""
    for table, rows in expected.items():
        assert found[table] == rows, table
    assert not [row for row in found["runs"] if "RUNNING" in row]
