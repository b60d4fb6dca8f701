"""Processes of our own run no file of the working directory, and find what this process finds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import LONGEST

from harness.execution.pool import run_stacks
from harness.execution.spec import StackMember, StackSpec
from harness.execution.worker_client import new_worker
from harness.execution.worker_environment import module_command, without_empty_places
from harness.sibling_imports import SiblingFinder

CASE = """
import torch
from torch import nn
import harness
from far_away import WIDTH

def build():
    return nn.Sequential(nn.Linear(6, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 6))

def data():
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(0))

def losses(model, batch):
    return {"reconstruction": ((model(batch) - batch) ** 2).mean()}

case = harness.Case(build, data, losses, "0", train={"epochs": 1, "batch_size": 16})
"""
HOSTILE = ("csv", "gzip", "harness", "mlflow", "numpy", "pickle", "random", "socket", "torch", "typing")
STACK = (StackMember("k", "v", {}, 0),)
ROOT = str(Path(__file__).parents[2])


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """A working directory whose files are named like modules, and say when they are run."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    for name in HOSTILE:
        (folder / f"{name}.py").write_text(f"open({str(folder / 'run')!r}, 'a').write('{name} ')\n")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def elsewhere(tmp_path):
    """A folder with a module, and a case in another folder that needs it."""
    (tmp_path / "libraries").mkdir()
    (tmp_path / "libraries" / "far_away.py").write_text("WIDTH = 3\n")
    (tmp_path / "cases").mkdir()
    (tmp_path / "cases" / "own.py").write_text(CASE)
    return tmp_path


def statuses(case):
    return [record.status for found in run_stacks([StackSpec(str(case), None, STACK)], 1) for record in found]


def test_a_worker_runs_no_file_of_the_working_directory(hostile, elsewhere, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([ROOT, str(elsewhere / "libraries"), ""]))
    monkeypatch.setattr(sys, "path", ["", *sys.path])  # as a script or `python -c` in that folder has it
    assert statuses(elsewhere / "cases" / "own.py") == ["ok"]
    assert not (hostile / "run").exists()


def test_a_worker_finds_what_this_process_finds(elsewhere, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(elsewhere / "libraries"), *sys.path])
    assert statuses(elsewhere / "cases" / "own.py") == ["ok"]


def test_a_worker_has_this_package_whatever_is_first_on_its_path(elsewhere, monkeypatch):
    other = elsewhere / "libraries" / "harness"
    other.mkdir()
    (other / "__init__.py").write_text("raise ImportError('another version')\n")
    monkeypatch.setenv("PYTHONPATH", str(elsewhere / "libraries"))
    assert statuses(elsewhere / "cases" / "own.py") == ["ok"]


def test_places_of_this_process_come_last_and_those_for_cases_alone_not_at_all(elsewhere, monkeypatch):
    cases, libraries = elsewhere / "cases", str(elsewhere / "libraries")
    monkeypatch.setattr(sys, "path", [libraries, *sys.path, str(cases)])
    monkeypatch.setattr(sys, "meta_path", [SiblingFinder(cases, last=True), *sys.meta_path])
    (elsewhere / "cases" / "shown.py").write_text("import json, sys\nprint(json.dumps([sys.argv, sys.path]))\n")
    command = module_command("harness.execution.worker", "one", "two")
    command[command.index("harness.execution.worker")] = "shown"
    monkeypatch.setenv("PYTHONPATH", str(cases))
    done = subprocess.run(command, capture_output=True, text=True, cwd=elsewhere)
    arguments, path = json.loads(done.stdout)
    assert arguments == ["shown", "one", "two"]
    assert path.index(libraries) > path.index(os.path.dirname(os.__file__))
    assert path.count(str(cases)) == 1  # of PYTHONPATH
    assert str(elsewhere) not in path


def test_places_that_the_user_names_stay():
    assert without_empty_places({"PYTHONPATH": os.pathsep.join(["a", "", ".", "b"])}) == {
        "PYTHONPATH": os.pathsep.join(["a", ".", "b"])
    }
    assert without_empty_places({"HOME": "/"}) == {"HOME": "/"}


SPAWNING = """
import multiprocessing, os, sys
from harness.execution.worker_environment import leave_working_directory

assert sys.path[0] == {first!r}
leave_working_directory()
assert "" not in sys.path
from harness.execution.worker_environment import leave_working_directory as again
again()
if __name__ == "__main__":
    for method in ("spawn", "forkserver"):
        process = multiprocessing.get_context(method).Process(target=os.getpid)
        process.start()
        process.join()
        assert process.exitcode == 0
    from multiprocessing.shared_memory import SharedMemory
    memory = SharedMemory(create=True, size=1)
    memory.close()
    memory.unlink()
"""


def test_what_multiprocessing_starts_runs_no_file_of_the_working_directory(hostile, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SPAWNING.format(first=str(tmp_path)))
    done = subprocess.run([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": ROOT}, timeout=LONGEST)
    assert done.returncode == 0
    assert not (hostile / "run").exists()


def test_the_working_directory_is_taken_off_the_path_of_a_command(tmp_path):
    (tmp_path / "colorsys.py").write_text("raise ImportError\n")
    code = SPAWNING.partition("if __name__")[0].format(first="") + "import colorsys"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": ROOT})
    assert done.returncode == 0


def test_a_worker_is_known_by_its_command():
    process = new_worker()
    try:
        assert "harness.execution.worker" in process.args
        assert process.args[1] == "-P"
    finally:
        process.kill()
        process.wait()
