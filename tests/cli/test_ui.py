"""Commands in a folder whose files are named like modules: none of them is run, by the command or by what it starts."""

import json
import os
import signal
import subprocess
import sys
import sysconfig
import urllib.request
from pathlib import Path

import pytest
from ports import free_port
from waiting import LONGEST, until

from harness.cli.ui import server_command, server_environment

HOSTILE = (
    "bottleneck",
    "copy",
    "csv",
    "gzip",
    "harness",
    "json",
    "mlflow",
    "numpy",
    "pandas",
    "random",
    "socket",
    "torch",
)
CASE = """
import torch
from torch import nn
import harness
from helper import WIDTH

def build():
    import lazy
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 6))

def data():
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(0))

def losses(model, batch):
    return {"reconstruction": ((model(batch) - batch) ** 2).mean()}

case = harness.Case(build, data, losses, "2", train={"epochs": 1, "batch_size": 16})
"""
COMMANDS = {
    "run x.yaml --workers 1": (0,),
    "plan x.yaml": (0,),
    "audit own.py --no-during": (0, 1),
    "diagnose own.py": (0, 1),
}


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "here"
    root.mkdir()
    for name in HOSTILE:
        (root / f"{name}.py").write_text(f"open({str(root / 'executed')!r}, 'a').write('{name} ')\n")
    (root / "helper.py").write_text("WIDTH = 2\n")
    (root / "lazy.py").write_text("")
    (root / "own.py").write_text(CASE)
    (root / "x.yaml").write_text("name: x\ncase: own.py\nfactors: {bias_init: [default, zero]}\nseeds: 2\n")
    # an installed program: its own folder is on the path, and not the working directory
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "program").write_text("from harness.cli import main\nmain()\n")
    return root


def program(folder):
    return [sys.executable, str(folder.parent / "bin" / "program")]


def surroundings():
    variables = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "NO_COLOR": "1"}
    variables.pop("MLFLOW_TRACKING_URI", None)
    return variables


@pytest.mark.long
@pytest.mark.parametrize(
    "words", [pytest.param(words, marks=() if "x.yaml" in words else pytest.mark.service) for words in COMMANDS]
)
def test_no_file_of_the_working_directory_is_run(folder, stored, words):
    stored(folder)
    command = [*program(folder), *words.split(), "--json"]
    done = subprocess.run(command, cwd=folder, env=surroundings(), capture_output=True, text=True, timeout=LONGEST)
    assert done.returncode in COMMANDS[words], done.stderr
    document = json.loads(done.stdout)
    assert (document.get("done", 4), document.get("failed", 0)) == (4, 0)
    assert not (folder / "executed").exists()


def test_the_server_is_told_its_store_where_ps_does_not_show_it(monkeypatch):
    uri = "postgresql://ann:hunter2@host/db"
    assert uri not in server_command(5000)
    # psycopg 3 is the driver that the extra `postgresql` brings
    assert server_environment(uri)["MLFLOW_BACKEND_STORE_URI"] == uri.replace("postgresql:", "postgresql+psycopg:")


def test_the_server_and_what_it_starts_have_no_working_directory_on_their_path(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", "/libraries"]))
    assert "-P" in server_command(5000)
    variables = server_environment("sqlite:///x.db")
    assert variables["PYTHONSAFEPATH"] == "1"
    assert variables["PYTHONPATH"] == "/libraries"
    assert variables["UVICORN_APP_DIR"] == sysconfig.get_path("stdlib")
    monkeypatch.setenv("UVICORN_APP_DIR", "/mine")
    assert server_environment("sqlite:///x.db")["UVICORN_APP_DIR"] == "/mine"


@pytest.mark.service
def test_a_server_that_answers_has_run_no_file_of_the_working_directory(folder, empty_store):
    (folder / "mlruns").mkdir()
    (folder / "mlruns" / "mlflow.db").write_bytes(empty_store.read_bytes())
    port = free_port()
    command = [*program(folder), "ui", "--port", str(port)]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=surroundings(), stdout=log, stderr=log, start_new_session=True
        )
    try:
        body = json.dumps({"max_results": 1}).encode()
        asked = urllib.request.Request(
            f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search", body, {"Content-Type": "application/json"}
        )
        until(lambda: "experiments" in answer(asked), server)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    assert not (folder / "executed").exists()


def answer(request):
    """What a server says, and nothing as long as it is not up."""
    try:
        with urllib.request.urlopen(request, timeout=LONGEST) as found:
            return json.load(found)
    except OSError:
        return {}
