"""Resampling revives dormant units, leaves the others alone, and is the same stacked and alone."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness.case import Case
from harness.data import split_of
from harness.remedies import RemedyNotApplicable, apply_remedies
from harness.training import train
from harness.training.resampling import dormant_units, resample, resampling_steps
from harness.training.vmap_support import VmapSupport


class Net(nn.Module):
    def __init__(self, bias=-9.0):
        super().__init__()
        self.code, self.back = nn.Linear(8, 4), nn.Linear(4, 8)
        with torch.no_grad():
            self.code.bias[:2] = bias

    def forward(self, rows):
        return self.back(F.relu(self.code(rows)))


def losses(model, batch):
    return {"reconstruction": F.mse_loss(model(batch), batch)}


def rows():
    return torch.randn(320, 8, generator=torch.Generator().manual_seed(0))


def case(**fields):
    return Case(Net, rows, losses, "code", train={"epochs": 4, "batch_size": 32, "learning_rate": 0.01}, **fields)


def last(treated, seeds, stacking=None, dtype=None):
    split = split_of(treated)
    *_, snapshot = train([treated] * len(seeds), seeds, split, stacking, dtype=dtype)
    return snapshot.engine, split


def test_dormant_units_live_afterwards():
    plain, split = last(case(), [0, 1])
    treated, _ = last(apply_remedies(case(), {"resample": 2}), [0, 1])
    before = (plain.observe(split.evaluation.inputs).code > 0).any(dim=-2)
    after = (treated.observe(split.evaluation.inputs).code > 0).any(dim=-2)
    assert before.tolist() == [[False, False, True, True]] * 2
    assert bool(after.all())


def test_stacked_members_are_resampled_as_a_member_alone_is():
    """In float64: the same draws, the same units, the same forgotten averages."""
    treated = apply_remedies(case(), {"resample": 2})
    stack, _ = last(treated, [0, 1, 2], dtype=torch.float64)
    alone, _ = last(treated, [1], VmapSupport(None, frozenset(), "by request"), dtype=torch.float64)
    for name, value in alone.state_of(0).items():
        torch.testing.assert_close(stack.state_of(1)[name], value, rtol=1e-9, atol=1e-12)


def test_units_that_vary_and_their_averages_stay():
    """One resampling by hand: weights of live units are untouched, dormant ones have new weights and zeros behind."""
    treated = apply_remedies(case(), {"resample": 1})
    engine, split = last(replace(treated, train={**treated.train, "epochs": 1}), [3])
    with torch.no_grad():
        parameters, _ = engine.member_parameters(0)
        parameters["model.code.bias"][:2] = -9.0
    before = {name: value.clone() for name, value in engine.member_parameters(0)[0].items()}
    resample(engine, split.train.inputs, [3], step=7)
    after, averages = engine.member_parameters(0)
    assert torch.equal(after["model.code.weight"][2:], before["model.code.weight"][2:])
    assert not torch.equal(after["model.code.weight"][:2], before["model.code.weight"][:2])
    assert after["model.code.bias"][:2].tolist() == [0.0, 0.0]
    assert float(after["model.back.weight"][:, :2].abs().max()) == 0.0
    assert torch.equal(after["model.back.weight"][:, 2:], before["model.back.weight"][:, 2:])
    for average in averages["model.code.weight"]:
        assert float(average[:2].abs().max()) == 0.0
        assert float(average[2:].abs().max()) > 0.0


def test_a_model_without_the_remedy_is_never_resampled():
    engine, _ = last(case(), [0])
    assert resampling_steps(engine, 100) == frozenset()
    treated, _ = last(apply_remedies(case(), {"resample": 4}), [0])
    assert sorted(resampling_steps(treated, 100)) == [20, 40, 60, 80]


def test_the_threshold_is_relative_to_the_layer():
    code = torch.tensor([[1.0, 0.02, 0.0, 1.0]])  # mean 0.505, of which 0.025 is 0.0126
    assert dormant_units(code).tolist() == [False, False, True, False]


class Convolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.code, self.back = nn.Conv1d(1, 2, 3, padding=1), nn.Conv1d(2, 1, 3, padding=1)

    def forward(self, rows):
        return self.back(F.relu(self.code(rows[:, None])))[:, 0]


def test_a_code_that_no_linear_layer_makes_is_refused_with_the_reason():
    with pytest.raises(RemedyNotApplicable, match="resample: the code is not the output of a linear layer"):
        apply_remedies(Case(Convolution, rows, losses, "code"), {"resample": 2})
