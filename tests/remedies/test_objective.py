"""The main term of a loss under another name than `reconstruction`, in remedies, matched weights and records."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness import Case
from harness.data import split_of
from harness.errors import HarnessError
from harness.execution.pool import run_stacks
from harness.execution.run_stack import run_stack
from harness.execution.spec import StackMember, StackSpec
from harness.remedies import apply_remedies, matched_beta
from harness.training import check_vmap_support, train

ROWS = torch.randn(80, 6, generator=torch.Generator().manual_seed(1))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.head = nn.Linear(6, 3), nn.Linear(3, 2)

    def forward(self, rows):
        return self.head(F.relu(self.encoder(rows)))


def losses(model, batch, name="similarity"):
    first, second = model(batch), model(batch + 0.1)
    return {name: (1 - F.cosine_similarity(first, second)).mean(), "l2": F.relu(model.encoder(batch)).pow(2).mean()}


def renamed(model, batch):
    return losses(model, batch, "reconstruction")


CASE = Case(
    Encoder, lambda: ROWS, losses, "encoder", objective="similarity", numbers={"beta": 0.1}, train={"epochs": 2}
)
TWIN = replace(CASE, losses=renamed, objective="reconstruction")


@pytest.mark.parametrize("levels", [{}, {"penalty": "l1"}, {"penalty": "none"}, {"activation": "tanh"}, {"beta": 0.5}])
def test_training_does_not_depend_on_the_name_of_the_objective(levels):
    states = []
    for case in (CASE, TWIN):
        split = split_of(case)
        treated = apply_remedies(case, levels, split)
        assert check_vmap_support(treated, split.train.inputs).rule is not None
        *_, last = train([treated] * 2, [0, 1], split)
        assert case.objective in last.losses
        states.append(last.engine.state_of(1))
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_the_matched_weight_is_that_of_the_objective():
    split = split_of(CASE)
    assert matched_beta(CASE, {}, split) == matched_beta(TWIN, {}, split) > 0


def test_the_term_of_that_name_has_to_be_there():
    with pytest.raises(HarnessError, match="losses: expected a term 'similarity', got reconstruction, l2"):
        apply_remedies(replace(CASE, losses=renamed), {"penalty": "l1"}, split_of(CASE))


def test_records_name_it():
    (record,) = run_stack(StackSpec(CASE, None, (StackMember("a", "v", {"penalty": "l1"}, 0),)))
    assert set(record.losses) == {"similarity", "l1", "total"}
    assert "loss/similarity" in record.history


def test_a_worker_trains_a_case_file_with_targets_a_posterior_and_a_schedule(tmp_path):
    (tmp_path / "pairs.py").write_text(
        """
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR

import harness

ROWS = torch.randn(80, 6, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean, self.logvar, self.head = nn.Linear(6, 3), nn.Linear(6, 3), nn.Linear(3, 2)

    def forward(self, rows):
        mean = self.mean(rows)
        return self.head(mean), mean, self.logvar(rows)


def losses(model, batch, target, progress):
    made, mean, log_variance = model(batch)
    kl = 0.5 * (mean**2 + log_variance.exp() - log_variance - 1).sum(1).mean()
    return {"error": (1 + progress) * F.mse_loss(made, target), "kl": kl}


case = harness.Case(
    Net, lambda: (ROWS, ROWS[:, :2] ** 2), losses, "mean", objective="error", posterior="logvar", clip=1.0,
    scheduler=lambda optimizer, steps: ExponentialLR(optimizer, 0.9), numbers={"beta": 0.1}, train={"epochs": 2},
)
"""
    )
    members = tuple(StackMember(str(bits), "v", {"free_bits": bits, "warmup": 0.5}, 0) for bits in (0.0, 0.25))
    spec = StackSpec(str(tmp_path / "pairs.py"), None, members)
    here, (there,) = run_stack(spec), run_stacks([spec], workers=1)
    assert [record.status for record in there] == ["ok", "ok"], there[0].error
    assert [record.losses for record in there] == [record.losses for record in here]
    assert all(math.isfinite(value) for record in there for value in record.losses.values())
    assert all(unit["informed_rows"] >= 0 for record in there for unit in record.diagnosis["units"])
