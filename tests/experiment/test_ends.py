"""A case that tries to end its process: one sentence, exit code 2, nothing written; in training a failed member."""

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.auditing import audit
from harness.case import load_case
from harness.errors import HarnessError
from harness.experiment import conduct
from harness.experiment.publishing import audits
from harness.grid import load_experiment
from harness.grid.plan import plan

CASE = """
import sys

import torch
from torch import nn

import harness

calls = [0]
{top}

def build():
    {model}
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 6))

def data():
    {data}
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(0))

def losses(model, batch):
    calls[0] += 1
    {losses}
    return {{"reconstruction": ((model(batch) - batch) ** 2).mean()}}

def optimizer(parameters):
    {optimizer}
    return torch.optim.SGD(parameters, lr=0.1)

case = harness.Case(build, data, losses, "0"{more}, train={{"epochs": 2, "batch_size": 16}})
"""
PLACES = {
    "top": "own.py: running it ended with ",
    "model": "own: building the model ended with ",
    "data": "case own: data: reading it ended with ",
    "losses": r"own: losses\(model, batch\) ended with ",
    "optimizer": r"own: optimizer\(parameters\) ended with ",
}
ENDS = {
    "sys.exit(0)": r"SystemExit\(0\); a case must not call sys.exit",
    "exit()": r"SystemExit\(None\); a case must not call sys.exit",
    "raise SystemExit('done')": r"SystemExit\('done'\); a case must not call sys.exit",
    "raise GeneratorExit": r"GeneratorExit\(\); a case may raise an Exception",
}
ARGPARSE = "import argparse\nparser = argparse.ArgumentParser()\nparser.add_argument('--rows', required=True)\n"
ARGPARSE += "parser.parse_args()"


def experiment(folder, **code):
    parts = dict.fromkeys(("top", "model", "data", "losses", "optimizer"), "pass")
    more = ", optimizer=optimizer" if "optimizer" in code else ""
    (folder / "own.py").write_text(CASE.format(**{**parts, "more": more, **code}))
    (folder / "x.yaml").write_text("name: x\ncase: own.py\nfactors: {bias_init: [default, zero]}\nseeds: 2\n")
    return folder / "x.yaml"


def left(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != "__pycache__")


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("place", PLACES)
def test_what_ends_its_process_is_refused_by_every_door_in_one_sentence(tmp_path, monkeypatch, place, end):
    monkeypatch.setattr("sys.stdin", io.StringIO())  # which exit() closes
    file, sentence = experiment(tmp_path, **{place: end}), PLACES[place] + ENDS[end]
    for workers in (0, 1):
        with pytest.raises(HarnessError, match=sentence):
            conduct(file, workers=workers, root=tmp_path)
    with pytest.raises(HarnessError, match=sentence):
        plan(load_experiment(file))
    with pytest.raises(HarnessError, match=sentence):
        audit(load_case(tmp_path / "own.py"), during_training=False, seeds=1)
    assert left(tmp_path) == ["own.py", "x.yaml"]


SAID = {
    "sys.exit(0)": "SystemExit(0); a case must not call sys.exit(), exit() or quit(); put what a script does",
    ARGPARSE: "SystemExit(2); it reads the command line with argparse",
    "raise KeyboardInterrupt": "KeyboardInterrupt()",
    "import os; os._exit(0)": "os._exit(0); a case must not call os._exit()",
}
VERBS = ("run x.yaml", "run x.yaml --workers 0", "plan x.yaml --json", "audit own.py", "diagnose own.py")


@pytest.mark.parametrize(
    ("top", "words"), [*(("sys.exit(0)", words) for words in VERBS), *((top, "plan x.yaml") for top in SAID)]
)
def test_a_command_says_so_and_exits_with_2(tmp_path, top, words):
    experiment(tmp_path, top=top)
    done = command(tmp_path, words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert f"running it ended with {SAID[top]}" in done.stderr.splitlines()[-1]
    assert 'under `if __name__ == "__main__":`' in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert left(tmp_path) == ["own.py", "x.yaml"]


def command(folder, words):
    variables = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    code = "import sys; sys.argv[0] = 'harness'; from harness.cli import main; main()"
    program = [sys.executable, "-c", code, *words.split()]
    return subprocess.run(program, cwd=folder, env=variables, capture_output=True, text=True, timeout=240)


@pytest.mark.parametrize("end", ["sys.exit(0)", "__import__('os')._exit(0)"])
def test_members_whose_loss_ends_its_process_in_training_are_failed_rows(tmp_path, empty_store, end):
    """And so it may in the audit of the driver: 0 is no exit code of members that are missing."""
    (tmp_path / "mlruns").mkdir()
    shutil.copy(empty_store, tmp_path / "mlruns")
    experiment(tmp_path, losses=f"if calls[0] > 3: {end}")
    done = command(tmp_path, "run x.yaml --workers 1")
    assert done.returncode == 3, done.stderr
    assert "4 members" in done.stdout
    assert "4 failed" in " ".join(done.stdout.split()) or done.stdout.count("2 failed") == 2


def test_an_audit_that_a_loss_ends_is_a_finding(tmp_path):
    (found,) = audits(load_experiment(experiment(tmp_path, losses="sys.exit(0)")))["undecided"]
    assert "the audit failed: " in str(found)
    assert "SystemExit(0)" in str(found)
