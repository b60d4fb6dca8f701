"""Standard output of a command: one document with --json, no traceback into a closed pipe; threads do not keep it alive."""

import json
import os
import subprocess
import sys

import pytest
from commands import CODE, ROOT, harness
from waiting import LONGEST

from harness.cli import CLOSED_PIPE

pytestmark = pytest.mark.many

CASE = """
import os, threading, time, torch
from torch import nn
import harness
{top}

def losses(model, batch):
    {loss}
    return {{"reconstruction": ((model(batch) - batch) ** 2).mean()}}

def model():
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 6))

def data():
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(0))

case = harness.Case(model, data, losses, "0", train={{"epochs": 1, "batch_size": 16}})
"""
LOUD = "print('printed'); os.write(1, b'written to 1\\n'); os.system('echo of a child')"


def project(folder, top="pass", loss="pass"):
    (folder / "own.py").write_text(CASE.format(top=top, loss=loss))
    (folder / "x.yaml").write_text("name: x\ncase: own.py\nfactors: {bias_init: [default, zero]}\nseeds: 1\n")
    return folder


def test_json_is_one_document_whatever_the_case_writes(tmp_path):
    done = harness("plan", "x.yaml", "--json", folder=project(tmp_path, LOUD, LOUD))
    assert json.loads(done.stdout)["members"] == 2
    for text in ("printed", "written to 1", "of a child"):
        assert text in done.stderr


@pytest.mark.service
@pytest.mark.parametrize("workers", ["0", "1"])
def test_json_of_a_run_is_one_document_whatever_the_case_writes(tmp_path, stored, workers):
    folder = stored(project(tmp_path, LOUD, LOUD))
    done = harness("run", "x.yaml", "--json", "--workers", workers, folder=folder)
    assert json.loads(done.stdout)["done"] == 2


@pytest.mark.parametrize(
    "words",
    [("--help",), ("plan", "x.yaml"), ("plan", "x.yaml", "--json"), ("diagnose", "own.py"), ("explain", "dead")],
)
def test_a_reader_that_is_gone_is_no_traceback(tmp_path, words):
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", CODE, *words]
    done = subprocess.run(
        command,
        cwd=project(tmp_path),
        env=variables,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=LONGEST,
    )
    os.close(writing)
    assert done.returncode == (1 if words == ("--help",) else CLOSED_PIPE)  # click prints the help
    assert done.stderr == ""


def test_a_thread_that_a_case_starts_does_not_keep_the_command_alive(tmp_path):
    """The thread would end after the test's own limit."""
    folder = project(tmp_path, f"threading.Thread(target=time.sleep, args=({2 * LONGEST},)).start()")
    done = harness("plan", "x.yaml", "--json", folder=folder)
    assert (done.returncode, json.loads(done.stdout)["members"]) == (0, 2)


def test_the_module_imports_nothing_from_the_working_directory(tmp_path):
    for name in ("gzip", "typer", "random", "json"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('this file is not to be imported')\n")
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "harness", "examples"]
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=LONGEST)
    assert (done.returncode, done.stderr) == (0, "")
