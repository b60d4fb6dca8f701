"""A tiny experiment, run in a process of its own or in this one, and what it left behind without what the clock decides."""

import csv
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

from waiting import LONGEST

from harness.experiment import run_experiment

OWN = """
import os, time, torch
from pathlib import Path
from torch import nn
import harness

calls = [0]  # the first only looks whether the case runs

def build():
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 6))

def data():
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(0))

def wait():
    hold = Path(os.environ["HOLD"])
    if len(list(Path("mlruns/results").rglob("*.parquet"))) >= int(os.environ["STACKS"]):
        (hold / "reached").touch()
        while not (hold / "open").exists():
            time.sleep(0.02)

def losses(model, batch, scale=1.0):
    calls[0] += 1
    if "HOLD" in os.environ and calls[0] > 1:
        wait()
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
MEMBERS, VARIANTS = 4, 2
RUNS = MEMBERS + VARIANTS + 1  # each member, a summary of each variant, and the parent
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


class Hold:
    """A run that waits in the middle of training until it is let go.

    Args:
        folder: of the experiment.
        stacks: so many are on disk before it waits.
    """

    def __init__(self, folder: Path, stacks: int = 0) -> None:
        self.place = folder / "hold"
        self.place.mkdir()
        self.environment = {"HOLD": str(self.place), "STACKS": str(stacks)}

    def reached(self) -> bool:
        """Whether it waits."""
        return (self.place / "reached").exists()

    def let_go(self) -> None:
        """Let it train on."""
        (self.place / "open").touch()


def command(
    folder: Path, *arguments: str, wrapper: tuple[str, ...] = (), before: str = "", **environment: str
) -> "subprocess.Popen[str]":
    """`harness run disturbed.yaml --json` in the folder, begun; `before` is Python that it runs first."""
    variables = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    words = ("harness", "run", "disturbed.yaml", "--json", "--workers", "0", *arguments)
    code = f"{before}\nimport sys; sys.argv = {list(words)}; from harness.cli import main; main()"
    return subprocess.Popen(
        [*wrapper, sys.executable, "-c", code],
        cwd=folder,
        env={**variables, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def told(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """What a process printed until it ended by itself; one that hangs is killed, and fails the test."""
    try:
        return process.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired as late:
        process.kill()
        raise AssertionError(f"not done after {LONGEST:.0f} s: {process.communicate()}") from late


def finished(folder: Path, *arguments: str, **environment: str) -> dict:
    """The document of a run to its end, in a process of its own."""
    out, error = told(command(folder, *arguments, **environment))
    assert out, error
    return json.loads(out)


def continued(folder: Path) -> dict:
    """The document of a run to its end, in this process, which has loaded everything already."""
    return run_experiment(folder / "disturbed.yaml", workers=0, root=folder).to_dict()


def rows_of(store: Path, query: str) -> list[tuple]:
    """What a query finds in a store."""
    with sqlite3.connect(store, timeout=LONGEST) as connection:
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
