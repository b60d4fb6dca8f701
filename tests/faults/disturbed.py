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
import os, time, torch
from torch import nn
import harness

# not at the first call, which only looks whether the case runs, and for the first steps alone: the audit at the end
# calls the loss hundreds of times
calls_left = [13]

def build():
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 6))

def data():
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(0))

def losses(model, batch, scale=1.0):
    calls_left[0] -= 1
    if 0 <= calls_left[0] < 12:
        time.sleep(float(os.environ.get("PAUSE", "0")))
    return {"reconstruction": scale * ((model(batch) - batch) ** 2).mean()}

case = harness.Case(build, data, losses, "2", numbers={"scale": 1.0})
"""
EXPERIMENT = """
name: disturbed
case: own.py
factors: {activation: [relu, leaky_relu]}
seeds: 2
train: {epochs: 2, batch_size: 16}
"""
MEMBERS = 4
LONGEST = 180  # seconds that any process of a test may take
# without what depends on the clock, the machine or the folder, and on which attempt it was
COMPARED = {
    "runs": "SELECT name, status FROM runs WHERE lifecycle_stage = 'active'",
    "params": "SELECT r.name, p.key, p.value FROM params p JOIN runs r USING (run_uuid)"
    " WHERE lifecycle_stage = 'active'",
    "metrics": "SELECT r.name, m.key, m.step, m.value, m.is_nan FROM metrics m JOIN runs r USING (run_uuid)"
    " WHERE m.key NOT LIKE 'time/%' AND lifecycle_stage = 'active'",
    "tags": "SELECT r.name, t.key, t.value FROM tags t JOIN runs r USING (run_uuid)"
    " WHERE t.key NOT LIKE 'mlflow.%' AND t.key NOT IN ('git_commit', 'harness.origin')"
    " AND lifecycle_stage = 'active'",
}


def prepared(folder: Path, experiment: str = EXPERIMENT, store: Path | None = None) -> Path:
    """A folder with the experiment, and with an empty store where one is given: migrating one takes seconds."""
    (folder / "own.py").write_text(OWN)
    (folder / "disturbed.yaml").write_text(experiment)
    if store is not None:
        (folder / "mlruns").mkdir(exist_ok=True)
        shutil.copy(store, folder / "mlruns" / "mlflow.db")
    return folder


def command(
    folder: Path, *arguments: str, wrapper: tuple[str, ...] = (), **environment: str
) -> "subprocess.Popen[str]":
    """`harness run disturbed.yaml --json` in the folder, begun; PAUSE="2.0" makes its first steps so long."""
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


def told(process: "subprocess.Popen[str]", seconds: float = LONGEST) -> tuple[str, str]:
    """What a process printed until it ended by itself; one that does not end in time is killed, and fails the test."""
    try:
        return process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired as late:
        process.kill()
        raise AssertionError(f"not done after {seconds:.0f} s: {process.communicate()}") from late


def finished(folder: Path, *arguments: str, **environment: str) -> dict:
    """The document of a run to its end."""
    out, error = told(command(folder, *arguments, **environment))
    assert out, error
    return json.loads(out)


def rows_of(store: Path, query: str) -> list[tuple]:
    """What a query finds in a store."""
    with sqlite3.connect(store) as connection:
        return connection.execute(query).fetchall()


def left_behind(folder: Path, store: Path | None = None) -> dict[str, list]:
    """The rows of the store (the folder's own by default), the artifacts beside it and the members' table."""
    store = store or folder / "mlruns" / "mlflow.db"
    found = {name: sorted(map(repr, rows_of(store, query))) for name, query in COMPARED.items()}
    found["artifacts"] = sorted(path.name for path in (store.parent / "artifacts").rglob("*") if path.is_file())
    with (folder / "mlruns" / "reports" / "disturbed" / "members.csv").open() as file:
        rows = list(csv.DictReader(file))
    found["members"] = [{k: v for k, v in row.items() if k not in ("seconds", "logged_at")} for row in rows]
    found["report"] = sorted(path.name for path in (folder / "mlruns" / "reports" / "disturbed").iterdir())
    return found


def assert_same(found: dict[str, list], expected: dict[str, list]) -> None:
    """Equal, table by table, and nothing left RUNNING."""
    for table, rows in expected.items():
        assert found[table] == rows, table
    assert not [row for row in found["runs"] if "RUNNING" in row]
