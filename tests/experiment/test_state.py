"""Steps of an epoch: what a plan, a run and its progress say is what training does."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from torch import nn

import harness
from harness.data.rows import Rows, Split
from harness.experiment import run_experiment
from harness.experiment.driver import RunCallbacks
from harness.experiment.state import load_state, member_steps, missing_members, steps_per_epoch
from harness.grid import load_experiment
from harness.minibatches import batch_bounds
from harness.minibatches import steps_per_epoch as steps_of
from harness.planning.cost import Training
from harness.planning.plan import plan
from harness.training import train

# (rows, batch size): exact multiples, one row left over, more than one, a batch larger than all rows, batches of one row
SIZES = [
    (1, 1),
    (1, 64),
    (2, 1),
    (2, 64),
    (3, 2),
    (5, 1),
    (64, 64),
    (65, 64),
    (66, 64),
    (128, 64),
    (129, 64),
    (130, 50),
]
SIZES += [(10, 64), (63, 64), (9, 4), (10, 4), (101, 100)]


def losses(model, batch):
    return {"reconstruction": (model(batch) - batch).pow(2).mean()}


CASE = harness.Case(
    lambda: nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 3)), lambda: torch.randn(4, 3), losses, "0"
)

FILE = """
import torch
from torch import nn

import harness


def losses(model, batch):
    return {{"reconstruction": (model(batch) - batch).pow(2).mean()}}


def rows(count):
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(count))


case = harness.Case(
    model=lambda: nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 3)),
    data=lambda: rows({rows}),
    evaluation=lambda: rows(12),
    losses=losses,
    bottleneck="0",
)
"""


def steps_done(rows, batch_size, epochs=2):
    """Optimizer steps that training counts in one epoch."""
    inputs = torch.randn(rows, 3, generator=torch.Generator().manual_seed(0))
    case = replace(CASE, train={"epochs": epochs, "batch_size": batch_size})
    for snapshot in train([case], [0], Split(Rows(inputs), Rows(inputs), "planted")):
        last = snapshot.step
    assert last % epochs == 0
    return last // epochs


@pytest.mark.parametrize(("rows", "batch_size"), SIZES)
def test_the_steps_of_an_epoch_are_those_that_training_does(rows, batch_size):
    done = steps_done(rows, batch_size)
    assert steps_of(rows, batch_size) == done == len(batch_bounds(rows, batch_size))
    training = Training({"batch_size": 7, "epochs": 1}, rows)
    assert training.steps_per_epoch({"batch_size": batch_size}) == done
    assert training.steps({"batch_size": batch_size, "epochs": 3}) == 3 * done


def experiment(folder, rows, text):
    (folder / "x.py").write_text(FILE.format(rows=rows))
    (folder / "x.yaml").write_text(f"name: x\ncase: x.py\nseeds: 2\n{text}")
    return load_experiment(folder / "x.yaml")


ONE_SIZE = "factors: {{bias_init: [default, zero]}}\ntrain: {{epochs: 3, batch_size: {}}}\n"


@pytest.mark.parametrize(("rows", "batch_size"), [(65, 64), (10, 64), (128, 64), (66, 64), (10, 1)])
def test_a_plan_and_a_run_say_the_steps_that_training_does(tmp_path, rows, batch_size):
    asked = experiment(tmp_path, rows, ONE_SIZE.format(batch_size))
    done = steps_done(rows, batch_size)
    found, work = plan(asked), load_state(asked, tmp_path / "results")
    assert found.to_dict()["steps_per_epoch"] == steps_per_epoch(work) == done
    assert found.member_steps == member_steps(work, missing_members(work, (1, 1))) == 4 * 3 * done


def test_the_steps_are_those_of_the_baseline_where_the_batch_size_is_a_factor(tmp_path):
    asked = experiment(
        tmp_path, 65, "factors: {batch_size: [64, 16, 8]}\nbaseline: {batch_size: 16}\ntrain: {epochs: 1}\n"
    )
    work = load_state(asked, tmp_path / "results")
    # 65 rows: 1 step of 64, 4 of 16, 8 of 8, and each time a single row that is left out
    assert plan(asked).steps_per_epoch == steps_per_epoch(work) == 4
    assert plan(asked).member_steps == member_steps(work, missing_members(work, (1, 1))) == 2 * (1 + 4 + 8)


def test_a_run_is_through_when_its_progress_is(tmp_path, empty_store):
    (tmp_path / "mlruns").mkdir()
    shutil.copy(empty_store, tmp_path / "mlruns" / "mlflow.db")
    asked = experiment(tmp_path, 65, ONE_SIZE.format(64))
    announced, told = [], []
    progress = RunCallbacks(started=lambda members, done, steps: announced.append(steps), stepped=told.append)
    outcome = run_experiment(asked, workers=0, root=tmp_path, progress=progress)
    assert announced == [sum(told)] == [4 * 3]
    assert json.loads(json.dumps(outcome.to_dict()))["steps_per_epoch"] == 1
    assert {record.history["step"][-1] for record in outcome.records} == {3}
