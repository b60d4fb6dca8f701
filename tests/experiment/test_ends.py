"""A case that tries to end its process: one sentence, exit code 2, nothing written; in training a failed member."""

import io

import pytest
from commands import harness, within

from harness.auditing import audit
from harness.case import load_case
from harness.errors import HarnessError
from harness.execution.audits import audits
from harness.experiment import run_experiment
from harness.grid import load_experiment
from harness.planning.plan import plan

pytestmark = pytest.mark.many

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


def experiment(folder, seeds=2, **code):
    parts = dict.fromkeys(("top", "model", "data", "losses", "optimizer"), "pass")
    more = ", optimizer=optimizer" if "optimizer" in code else ""
    (folder / "own.py").write_text(CASE.format(**{**parts, "more": more, **code}))
    (folder / "x.yaml").write_text(f"name: x\ncase: own.py\nfactors: {{bias_init: [default, zero]}}\nseeds: {seeds}\n")
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
            run_experiment(file, workers=workers, root=tmp_path)
    with pytest.raises(HarnessError, match=sentence):
        plan(load_experiment(file))
    with pytest.raises(HarnessError, match=sentence):
        audit(load_case(tmp_path / "own.py"), during_training=False, seeds=1)
    assert left(tmp_path) == ["own.py", "x.yaml"]


SAID = {
    "sys.exit(0)": "SystemExit(0); a case must not call sys.exit(), exit() or quit(); put code of the script itself",
    ARGPARSE: "SystemExit(2); it reads the command line with argparse",
    "raise KeyboardInterrupt": "KeyboardInterrupt()",
    "import os; os._exit(0)": "os._exit(0); a case must not call os._exit()",
}
VERBS = ("run x.yaml", "run x.yaml --workers 0", "plan x.yaml --json", "audit own.py", "diagnose own.py")


@pytest.mark.parametrize(
    ("command", "top", "words"),
    [
        *((within, "sys.exit(0)", words) for words in VERBS[1:]),
        (harness, "sys.exit(0)", VERBS[0]),
        (within, ARGPARSE, "plan x.yaml"),
        *((harness, top, "plan x.yaml") for top in list(SAID)[2:]),  # what would be the end of this process
    ],
)
def test_a_command_says_so_and_exits_with_2(tmp_path, command, top, words):
    experiment(tmp_path, top=top)
    done = command(*words.split(), folder=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert f"running it ended with {SAID[top]}" in done.stderr.splitlines()[-1]
    assert 'under `if __name__ == "__main__":`' in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert left(tmp_path) == ["own.py", "x.yaml"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("end", "seeds"),
    [
        ("__import__('os')._exit(0)", 1),
        pytest.param("__import__('os')._exit(0)", 2, marks=pytest.mark.service),
        pytest.param("sys.exit(0)", 2, marks=pytest.mark.service),
    ],
)
def test_members_whose_loss_ends_its_process_in_training_are_failed_rows(tmp_path, stored, end, seeds):
    """And so it may in the audit of the driver: 0 is no exit code of members that are missing."""
    experiment(tmp_path, seeds, losses=f"if calls[0] > 3: {end}")
    done = harness("run", "x.yaml", "--workers", "1", folder=stored(tmp_path))
    assert done.returncode == 3, done.stderr
    members = 2 * seeds
    assert f"{members} models" in done.stdout
    assert f"{members} failed" in " ".join(done.stdout.split()) or done.stdout.count(f"{seeds} failed") == 2


def test_an_audit_that_a_loss_ends_is_a_finding(tmp_path):
    (found,) = audits(load_experiment(experiment(tmp_path, losses="sys.exit(0)")))["undecided"]
    assert "the audit failed: " in str(found)
    assert "SystemExit(0)" in str(found)
