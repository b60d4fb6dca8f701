"""The first look and the audit run in a worker: a case that crashes is told, and the command goes on."""

import pytest

from harness.errors import HarnessError
from harness.execution.calls import answered, is_call
from harness.experiment import run_experiment
from harness.experiment.inspection import WorkerInspection, audit_here, look_here
from harness.grid import load_experiment

CASE = """
import ctypes, os, sys, time, torch
from torch import nn
import harness
{top}

def losses(model, batch, rho=0.05):
    {loss}
    code = torch.relu(model[0](batch))
    return {{"reconstruction": ((model(batch) - batch) ** 2).mean(), "kl": (code.mean(0) - rho).square().sum()}}

def model():
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 6))

def data():
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(0))

case = harness.Case(model, data, losses, "0", numbers={{"rho": 0.05}}, train={{"epochs": 1, "batch_size": 16}})
"""


def project(folder, top="pass", loss="pass"):
    (folder / "own.py").write_text(CASE.format(top=top, loss=loss))
    (folder / "x.yaml").write_text("name: x\ncase: own.py\nfactors: {bias_init: [default, zero]}\nseeds: 1\n")
    return folder / "x.yaml"


CRASHES = {
    "os.abort()": r"own.py: its code ended the worker process with SIGABRT: os.abort\(\), or a failed check",
    "ctypes.string_at(0)": "own.py: its code ended the worker process with SIGSEGV: a crash in compiled code",
    "os.kill(os.getpid(), 9)": "own.py: its code ended the worker process with SIGKILL: out of memory",
    "os._exit(0)": "own.py: its code ended the worker process with exit code 0",
}


@pytest.mark.parametrize(
    ("site", "crash"),
    [("top", "os.abort()"), *(pytest.param("loss", crash, marks=pytest.mark.service) for crash in CRASHES)],
)
def test_a_case_that_crashes_at_the_first_look_is_told(tmp_path, site, crash):
    file = project(tmp_path, **{site: crash})
    with pytest.raises(HarnessError, match=CRASHES[crash]):
        run_experiment(file, workers=1, root=tmp_path)
    assert not (tmp_path / "mlruns").exists()


@pytest.mark.service
def test_a_first_look_that_never_ends_is_ended_when_a_limit_is_given(tmp_path):
    file = project(tmp_path, loss="time.sleep(3600)")
    with pytest.raises(HarnessError, match=r"own.py: its code took longer than --timeout 1 s"):
        run_experiment(file, workers=1, root=tmp_path, timeout=1.0)


@pytest.mark.service
def test_a_worker_finds_what_this_process_finds(tmp_path):
    experiment = load_experiment(project(tmp_path))
    assert WorkerInspection().look(experiment, {}) == look_here(experiment, {})
    assert WorkerInspection().audit(experiment) == audit_here(experiment)


@pytest.mark.service
def test_an_audit_that_crashes_is_undecided(tmp_path):
    experiment = load_experiment(project(tmp_path, loss="os.abort()"))
    [finding] = WorkerInspection().audit(experiment)["undecided"]
    assert finding["evidence"].startswith("the audit failed: own.py: its code ended the worker process with SIGABRT")


def test_an_error_of_the_case_is_an_answer(tmp_path):
    import json

    experiment = load_experiment(project(tmp_path, loss="raise ZeroDivisionError('mine')"))
    question = {"call": "fingerprints", "experiment": experiment.to_dict(), "arguments": [{}]}
    assert is_call(json.dumps(question))
    assert answered(json.dumps(question)) == {"error": "own: losses(model, batch) failed with ZeroDivisionError: mine"}


@pytest.mark.parametrize("site", ["top", "loss"])
def test_a_case_that_changes_the_working_directory_is_run_like_any(tmp_path, empty_store, monkeypatch, site):
    import shutil

    (tmp_path / "mlruns").mkdir()
    shutil.copy(empty_store, tmp_path / "mlruns")
    file = project(tmp_path, **{site: "os.chdir('/')"})
    monkeypatch.chdir(tmp_path)
    outcome = run_experiment(file.name, workers=0)
    assert (len(outcome.records), outcome.missing, outcome.logged) == (2, (), 2)
    assert outcome.report == tmp_path / "mlruns" / "reports" / "x" / "report.html"
