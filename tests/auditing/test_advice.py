"""Advice that fits the finding: the activation, the biases, the inputs and the penalty of the case."""

import pytest
import torch
from faulty_models import FAULTY
from penalty_zoo import DeadBirth, Plain, case_of, data, kl, sigmoid_model
from torch import nn
from torch.nn import functional as F

from harness import Case
from harness.auditing import audit


def finding_of(case, rule, **options):
    (finding,) = [each for each in audit(case, seeds=1, **options).findings if each.rule == rule]
    return finding


class DeadWithoutBias(Plain):
    """Rows of positive numbers and a bottleneck of negative weights: dead, with every bias at zero."""

    def __init__(self, activation=torch.relu) -> None:
        super().__init__(activation)
        with torch.no_grad():
            self.enc2.weight.copy_(-self.enc2.weight.abs())


class DeadGelu(Plain):
    def __init__(self) -> None:
        super().__init__(F.gelu)
        nn.init.constant_(self.enc2.bias, -50.0)


def test_dead_units_behind_a_bias_are_told_to_start_at_zero():
    remedy = finding_of(case_of(None, DeadBirth), "dead_at_birth", during_training=False).remedy
    assert remedy == "zero biases, a normalization before the activation, or leaky_relu"


def test_dead_units_without_a_bias_are_not_told_to_zero_it():
    remedy = finding_of(case_of(None, DeadWithoutBias), "dead_at_birth", during_training=False).remedy
    assert remedy == "a normalization before the activation, or leaky_relu"


def test_dead_units_on_inputs_with_an_offset_are_told_to_center_them():
    def losses(net, batch):
        return {"reconstruction": F.mse_loss(net(batch)[1], batch)}

    case = Case(model=DeadWithoutBias, data=lambda: data() + 10, losses=losses, bottleneck="enc2")
    assert finding_of(case, "dead_at_birth", during_training=False).remedy.startswith("centered inputs, ")


def test_a_gelu_is_not_told_to_be_leaky():
    remedy = finding_of(case_of(None, DeadGelu), "dead_at_birth", during_training=False).remedy
    assert "leaky_relu" not in remedy
    assert "zero biases" in remedy


def test_a_saturated_code_is_told_smaller_weights():
    remedy = finding_of(FAULTY["saturated"][1](), "constant_at_birth").remedy
    assert remedy.startswith("smaller initial weights")
    assert "tanh" in remedy


def test_a_weak_signal_is_told_larger_weights():
    assert finding_of(FAULTY["inputs in other units"][1](), "constant_at_birth").remedy.startswith("larger initial")


@pytest.mark.parametrize(
    ("penalty", "expected"),
    [
        (lambda m, c, b: kl(0.05, c.detach().mean(0)), "without `.detach()`"),
        (lambda m, c, b: kl(0.05, c.mean(0)).item(), "without `.detach()`"),
        (lambda m, c, b: (c > 0.5).float().mean(), "replace the count"),
    ],
    ids=["detached", "item", "count"],
)
def test_the_advice_for_a_missing_gradient_names_its_cause(penalty, expected):
    remedy = finding_of(case_of(penalty, sigmoid_model), "no_gradient", during_training=False).remedy
    assert expected in remedy
    assert ("count" in remedy) == expected.startswith("replace the count")
