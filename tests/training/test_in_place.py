"""A model that writes to its activations trains as plain PyTorch trains it, and is diagnosed as its twin that writes nowhere."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from in_place import PAIRS, ROUNDED_BY_TORCH, Network, losses, rows, twins
from torch import nn

from harness import Case
from harness.data import split_of
from harness.execution.run_stack import run_stack
from harness.execution.spec import StackMember, StackSpec
from harness.remedies import apply_remedies
from harness.training.sequential import SequentialEngine
from harness.training.stacked import StackedEngine
from harness.training.vmap_support import check_vmap_support

pytestmark = pytest.mark.many

SAME_BITS = [name for name in PAIRS if name not in ROUNDED_BY_TORCH]
STACKED = [name for name in SAME_BITS if name != "assignment"]  # vmap batches no assignment by a mask


def engine(case, alone, inputs):
    rule = check_vmap_support(case, inputs).rule
    assert alone or rule is not None
    return SequentialEngine([case] * 2, [0, 1], inputs) if alone else StackedEngine([case] * 2, [0, 1], rule, inputs)


def everything(case, alone):
    """All that a few steps of two members leave behind, and what is seen of them."""
    inputs = split_of(case).train.inputs
    members = engine(case, alone, inputs)
    left = [members.step(torch.stack([inputs[16 * k : 16 * k + 32]] * 2))[0] for k in range(4)]
    seen = members.observe(inputs)
    held = members.observe(inputs, clamp=seen.code[:, 0])
    left += [part for view in (seen, held) for part in (view.code, view.preactivation, view.raw, *view.parts)]
    left += [] if seen.scale is None else [seen.scale]
    left += members.gradients(torch.stack([inputs[:32]] * 2)).values()
    return [*left, *(value for k in range(2) for value in members.state_of(k).values())]


def same(one, other):
    return len(one) == len(other) and all(torch.equal(*pair) for pair in zip(one, other, strict=True))


@pytest.mark.parametrize("name", STACKED)
def test_twins_stack_and_have_the_same_bits(name):
    first, second = twins(name)
    assert same(everything(first, alone=False), everything(second, alone=False))


@pytest.mark.parametrize("name", SAME_BITS)
def test_twins_that_train_alone_have_the_same_bits(name):
    first, second = twins(name)
    assert same(everything(first, alone=True), everything(second, alone=True))


@pytest.mark.parametrize("name", ["elu", "elu_", "celu", "selu", "nn.ReLU"])
def test_a_model_that_writes_trains_as_a_plain_loop_trains_it(name):
    case = twins(name)[1]
    members, inputs = SequentialEngine([case], [0], rows()), rows()
    torch.manual_seed(0)
    model = case.model()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for k in range(4):
        batch = inputs[32 * k : 32 * k + 32]
        members.step(batch[None])
        optimizer.zero_grad()
        sum(losses(model, batch).values()).backward()
        optimizer.step()
    assert all(torch.equal(value, members.state_of(0)[key]) for key, value in model.state_dict().items())


LEVELS = (
    {"penalty": "kl_sigmoid_of_preactivation"},
    {"penalty": "kl_sigmoid_bottleneck"},
    {"activation": "leaky_relu", "batchnorm": "on", "dropout": 0.2, "penalty": "l1"},
)


@pytest.mark.parametrize("levels", LEVELS, ids=str)
@pytest.mark.parametrize("name", ["nn.ReLU", "clamp_", "dropout", "x += b", "linear, then x *= m"])
def test_a_remedy_on_a_model_that_writes_is_the_same_remedy(name, levels):
    if name == "linear, then x *= m" and "activation" in levels:
        levels = {**levels, "activation": "relu"}
    first, second = (apply_remedies(replace(case, numbers={"rho": 0.05}), levels) for case in twins(name))
    for alone in (False, True):
        assert same(everything(first, alone), everything(second, alone))


def test_dropout_that_writes_acts_where_its_result_is_not_used():
    def written(values):
        F.dropout(values, 0.5, training=True, inplace=True)
        return F.leaky_relu(values)

    def returned(values):
        return F.leaky_relu(F.dropout(values, 0.5, training=True))

    first, second = (
        Case(lambda gate=gate: Network(gate, False), rows, losses, "code", reconstruction="out:1")
        for gate in (written, returned)
    )
    for alone in (False, True):
        assert same(everything(first, alone), everything(second, alone))


class Variational(nn.Module):
    """It scales and shifts its noise in place, or in an expression."""

    def __init__(self, writes: bool) -> None:
        super().__init__()
        self.mean, self.spread, self.back = nn.Linear(12, 4), nn.Linear(12, 4), nn.Linear(4, 12)
        self.writes = writes

    def forward(self, batch):
        mean, spread = self.mean(batch), torch.exp(self.spread(batch) / 2)
        noise = torch.randn_like(mean)
        if self.writes:
            noise *= spread
            noise += mean
        else:
            noise = noise * spread + mean
        return noise, self.back(noise)


def test_noise_that_the_model_writes_to_is_drawn_anew_at_every_step():
    first, second = (
        Case(lambda writes=writes: Variational(writes), rows, losses, "mean", reconstruction="out:1")
        for writes in (False, True)
    )
    assert same(everything(first, alone=True), everything(second, alone=True))


@pytest.mark.parametrize("name", ["nn.ReLU", "x += b", "leaky, then x *= m", "batch norm"])
def test_twins_have_one_diagnosis(name):
    records = []
    for case in twins(name):
        case = replace(case, train={"epochs": 2}, labels=(rows()[:, 0] > 0).long())
        members = tuple(StackMember(str(seed), "as it is", {}, seed) for seed in range(2))
        records.append(run_stack(StackSpec(case, None, members)))
    for first, second in zip(*records, strict=True):
        assert first.status == "ok"
        assert first.diagnosis == second.diagnosis  # verdict, units, every measure and ablation effect
        assert any(unit["ablation"] for unit in first.diagnosis["units"])
        assert (first.losses, first.history, first.r2) == (second.losses, second.history, second.r2)
