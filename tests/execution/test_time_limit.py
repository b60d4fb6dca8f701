"""A time limit of a stack ends what never ends, and only that."""

from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.execution.pool import run_stacks
from harness.execution.spec import StackMember, StackSpec
from harness.experiment import run_experiment

CASE = """
import time, torch
from torch import nn
import harness

def losses(model, batch, endless=0.0):
    while float(endless) == 1.0:
        time.sleep(0.01)
    return {"reconstruction": ((model(batch) - batch) ** 2).mean()}

def model():
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 6))

def data():
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(0))

case = harness.Case(model, data, losses, "0", numbers={"endless": 0.0}, train={"epochs": 1})
"""


def records(tmp_path: Path, endless: tuple[float, ...], timeout: float | None):
    (tmp_path / "own.py").write_text(CASE)
    members = tuple(StackMember(f"k{seed}", "v", {"endless": value}, seed) for seed, value in enumerate(endless))
    spec = StackSpec(str(tmp_path / "own.py"), None, members)
    trained = [record for part in run_stacks([spec], 1, timeout=timeout) for record in part]
    return {record.seed: record for record in trained}


def test_a_loss_that_never_returns_is_ended(tmp_path):
    record = records(tmp_path, (1.0,), timeout=0.5)[0]
    assert (record.status, record.error) == ("failed", "took longer than --timeout 0.5 s")


@pytest.mark.service
def test_the_other_members_of_a_stack_that_is_ended_are_trained(tmp_path):
    by_seed = records(tmp_path, (0.0, 1.0), timeout=20.0)
    assert [by_seed[seed].status for seed in (0, 1)] == ["ok", "failed"]
    assert by_seed[1].error == "took longer than --timeout 20 s"


def test_a_limit_that_is_not_reached_changes_nothing(tmp_path):
    limited, unlimited = (records(tmp_path, (0.0, 0.0), timeout)[1] for timeout in (500.0, None))
    assert limited.status == "ok"
    assert (repr(limited.history), limited.losses) == (repr(unlimited.history), unlimited.losses)


def test_without_worker_processes_nothing_can_be_ended(tmp_path):
    (tmp_path / "own.py").write_text(CASE)
    (tmp_path / "e.yaml").write_text("name: e\ncase: own.py\nfactors: {activation: [relu]}\nseeds: 1\n")
    with pytest.raises(HarnessError, match="--timeout: expected worker processes, which can be ended; leave out"):
        run_experiment(tmp_path / "e.yaml", workers=0, root=tmp_path, timeout=1.0)
