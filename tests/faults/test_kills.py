"""Killed anywhere, a run goes on as if nothing had been: same runs, parameters, metrics and tags, none twice.

Injected: SIGKILL at every named moment, SIGTERM and SIGINT in the middle of training. Counted: the rows of the store.
"""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.results.faults import MOMENTS, VARIABLE

OWN = '''
import time, torch
from torch import nn
import harness

def build():
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 6))

def data():
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(0))

def losses(model, batch):
    time.sleep({pause})
    return {{"reconstruction": ((model(batch) - batch) ** 2).mean()}}

case = harness.Case(build, data, losses, "2")
'''
EXPERIMENT = """
name: killed
case: own.py
factors: {activation: [relu, leaky_relu]}
seeds: 2
train: {epochs: 2, batch_size: 16}
"""
# what depends on the clock, and what depends on the machine
COMPARED = {
    "runs": "SELECT name, status FROM runs",
    "params": "SELECT r.name, p.key, p.value FROM params p JOIN runs r USING (run_uuid)",
    "metrics": "SELECT r.name, m.key, m.step, m.value, m.is_nan FROM metrics m JOIN runs r USING (run_uuid)"
    " WHERE m.key NOT LIKE 'time/%'",
    "tags": "SELECT r.name, t.key, t.value FROM tags t JOIN runs r USING (run_uuid)"
    " WHERE t.key NOT LIKE 'mlflow.%' AND t.key NOT LIKE 'version%'",
}


def command(folder, **environment):
    variables = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environment}
    variables.pop("MLFLOW_TRACKING_URI", None)
    code = "import sys; sys.argv = ['harness', 'run', 'killed.yaml', '--json', '--workers', '1']; from harness.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def prepared(folder, pause=0.0):
    (folder / "own.py").write_text(OWN.format(pause=pause))
    (folder / "killed.yaml").write_text(EXPERIMENT)
    return folder


def store(folder):
    with sqlite3.connect(folder / "mlruns" / "mlflow.db") as connection:
        return {name: sorted(map(repr, connection.execute(query))) for name, query in COMPARED.items()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = prepared(tmp_path_factory.mktemp("undisturbed"))
    out, error = command(folder).communicate(timeout=120)
    assert json.loads(out)["done"] == 4, error
    return store(folder)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_that_is_killed_is_resumed_to_the_same_store(tmp_path, undisturbed, moment):
    folder = prepared(tmp_path)
    killed = command(folder, **{VARIABLE: moment})
    killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL
    out, error = command(folder).communicate(timeout=120)
    assert json.loads(out)["done"] == 4, error
    found = store(folder)
    for table, rows in undisturbed.items():
        assert found[table] == rows, table
    assert not [row for row in found["runs"] if "RUNNING" in row]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_is_out_in_five_seconds_and_can_be_resumed(tmp_path, number, code):
    folder = prepared(tmp_path, pause=0.05)
    process = command(folder)
    deadline = time.monotonic() + 60
    while not list(folder.glob("mlruns/results/killed/manifest.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.0)
    begun = time.monotonic()
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    assert time.monotonic() - begun < 5
    assert process.returncode == code
    assert "Traceback" not in error
    assert "goes on from there" in error
    prepared(tmp_path)
    out, _ = command(folder).communicate(timeout=120)
    assert json.loads(out)["done"] == 4
