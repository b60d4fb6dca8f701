"""One target a case: `run` and `diagnose --weights` judge a unit that is constant at rho alike."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
import typer
from torch import nn
from typer.testing import CliRunner

from harness.case import Case, load_case
from harness.cli.diagnose import diagnose
from harness.data import split_of
from harness.execution.run_stack import run_stack
from harness.execution.spec import StackMember, StackSpec
from harness.experiment import run_experiment
from harness.remedies import apply_remedies, judged_target
from harness.training import train

pytestmark = pytest.mark.many

APP = typer.Typer()
APP.command()(diagnose)

# its first unit is .05 on every row, whatever is trained
FILE = """
import math

import torch
import torch.nn.functional as F
from torch import nn

import harness
from harness.penalties import bernoulli_kl_of_logits


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc, self.dec = nn.Linear(6, 3), nn.Linear(3, 6)

    def forward(self, x):
        logits = self.enc(x) * torch.tensor([0.0, 1.0, 1.0]) + torch.tensor([math.log(0.05 / 0.95), 0.0, 0.0])
        return self.dec(torch.sigmoid(logits)), logits


def rows(count, seed):
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))


def named(model, batch, rho):
    made, logits = model(batch)
    return {"reconstruction": F.mse_loss(made, batch), "kl": bernoulli_kl_of_logits(rho, logits)}


def unnamed(model, batch):
    return named(model, batch, 0.05)


case = harness.Case(
    model=Autoencoder, data=lambda: rows(64, 0), evaluation=lambda: rows(200, 1), bottleneck="enc",
    train={"epochs": 2, "batch_size": 32, "learning_rate": 0.01}, %s
)
"""

# what the case says of its penalty -> whether its units are held to .05
CASES = {
    "a rho that the loss names": ("losses=named, numbers={'rho': 0.05, 'beta': 0.01}", True),
    "a rho that the loss does not name": ("losses=unnamed, numbers={'rho': 0.05, 'beta': 0.01}", True),
    "a declared target": ("losses=unnamed, numbers={'beta': 0.01}, target=0.05", True),
    "a declared target beside another rho": ("losses=named, numbers={'rho': 0.3, 'beta': 0.01}, target=0.05", True),
    "another rho": ("losses=named, numbers={'rho': 0.3, 'beta': 0.01}", False),
    "no target": ("losses=unnamed, numbers={'beta': 0.01}", False),
}


def written(folder, more):
    (folder / "own.py").write_text(FILE % more)
    return folder / "own.py"


def trained_weights(path, file, seed=0):
    """The state dict of a member, as training leaves it."""
    case = load_case(path)
    for snapshot in train([case], [seed], split_of(case)):
        last = snapshot
    torch.save(last.engine.state_of(0), file)


def diagnosed(path, weights):
    done = CliRunner().invoke(APP, [str(path), "--weights", str(weights), "--json"])
    assert done.exit_code in (0, 1), done.output
    return json.loads(done.stdout)


def verdicts(document):
    return document["verdict"], [(unit["verdict"], unit["flags"]) for unit in document["units"]]


@pytest.mark.parametrize(("more", "held"), CASES.values(), ids=CASES)
def test_a_run_and_a_diagnosis_of_its_weights_agree(tmp_path, more, held):
    path = written(tmp_path, more)
    (record,) = run_stack(StackSpec(str(path), None, (StackMember("k", "v", {}, 0),)))
    trained_weights(path, tmp_path / "w.pt")
    told = diagnosed(path, tmp_path / "w.pt")
    assert verdicts(told) == verdicts(record.diagnosis)
    assert told["target"] == record.diagnosis["target"]
    assert (told["units"][0]["verdict"] == "constant_at_target") == held, told["units"][0]
    assert (judged_target(load_case(path)) == 0.05) == held


@pytest.mark.long
def test_so_does_a_whole_experiment(tmp_path, empty_store):
    path = written(tmp_path, CASES["a rho that the loss does not name"][0])
    (tmp_path / "x.yaml").write_text("name: x\ncase: own.py\nfactors: {bias_init: [default]}\nseeds: 1\n")
    (tmp_path / "mlruns").mkdir()
    shutil.copy(empty_store, tmp_path / "mlruns" / "mlflow.db")
    (record,) = run_experiment(tmp_path / "x.yaml", workers=0, root=tmp_path).records
    trained_weights(path, tmp_path / "w.pt")
    told = diagnosed(path, tmp_path / "w.pt")
    assert verdicts(told) == verdicts(record.diagnosis)
    assert told["units"][0]["verdict"] == "constant_at_target"


def rows():
    return torch.randn(64, 6, generator=torch.Generator().manual_seed(0))


def plain(model, batch):
    made = model(batch)
    return {"reconstruction": (made - batch).pow(2).mean(), "l1": made.abs().mean()}


def with_rho(model, batch, rho):
    return {**plain(model, batch), "kl": rho * model(batch).mean()}


NAMED = Case(
    lambda: nn.Sequential(nn.Linear(6, 3), nn.ReLU(), nn.Linear(3, 6)),
    rows,
    with_rho,
    "0",
    numbers={"rho": 0.1, "beta": 0.01},
)
BARE = replace(NAMED, losses=plain, numbers={"beta": 0.01})
DECLARED = replace(BARE, target=0.2)

TARGETS = [
    (NAMED, {}, 0.1),
    (NAMED, {"rho": 0.3}, 0.3),
    (NAMED, {"penalty": "as_posted"}, 0.1),
    (NAMED, {"activation": "tanh"}, 0.1),
    *((NAMED, {"penalty": site}, None) for site in ("none", "none_sigmoid_bottleneck", "l1", "topk", "hard_count")),
    *((NAMED, {"penalty": site, "rho": 0.3}, None) for site in ("none", "l1", "topk")),
    (NAMED, {"penalty": "kl_sigmoid_of_relu"}, 0.1),
    (NAMED, {"penalty": "kl_sigmoid_bottleneck", "rho": 0.3}, 0.3),
    (replace(NAMED, target=0.1), {"rho": 0.3}, 0.3),  # a target that repeats rho follows it
    (replace(NAMED, target=0.2), {"rho": 0.3}, 0.2),
    (replace(NAMED, target=0.2), {"penalty": "none"}, None),
    (BARE, {}, None),
    (BARE, {"rho": 0.3}, None),  # a penalty without rho gets none by the factor
    (BARE, {"rho": 0.3, "activation": "tanh"}, None),
    (BARE, {"penalty": "none"}, None),
    (BARE, {"penalty": "kl_sigmoid_of_preactivation"}, 0.05),
    (BARE, {"penalty": "kl_sigmoid_of_preactivation", "rho": 0.3}, 0.3),
    (DECLARED, {}, 0.2),
    (DECLARED, {"rho": 0.3}, 0.2),
    (DECLARED, {"penalty": "l1"}, None),
    (DECLARED, {"penalty": "kl_sigmoid_of_relu"}, 0.2),
    (DECLARED, {"penalty": "kl_sigmoid_of_relu", "rho": 0.3}, 0.3),
    (replace(NAMED, losses=plain), {}, 0.1),
    (replace(NAMED, losses=plain), {"rho": 0.3}, 0.1),  # what the loss does not read stays as the author wrote it
    (replace(NAMED, numbers={"rho": torch.tensor(0.25), "beta": 0.01}), {}, 0.25),
]


@pytest.mark.parametrize(("case", "levels", "target"), TARGETS)
def test_the_target_is_that_of_the_penalty_in_use(case, levels, target):
    found = judged_target(apply_remedies(case, levels))
    assert found == target
    assert found is None or isinstance(found, float)


def test_members_of_one_stack_are_judged_each_against_its_own_target():
    levels = [{"rho": 0.05}, {"rho": 0.2}, {"rho": 0.2}, {}]
    members = tuple(StackMember(f"k{place}", "v", level, 0) for place, level in enumerate(levels))
    together = run_stack(StackSpec("corrected", None, members, {"epochs": 1}))
    assert [record.diagnosis["target"] for record in together] == [0.05, 0.2, 0.2, 0.05]
    for member, record in zip(members, together, strict=True):
        (alone,) = run_stack(StackSpec("corrected", None, (member,), {"epochs": 1}))
        assert json.dumps(dict(alone.diagnosis)) == json.dumps(dict(record.diagnosis))
