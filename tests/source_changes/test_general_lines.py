"""Code to copy: it parses, and it names the user's layer."""

import ast

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from harness.factors import FACTORS
from harness.source_changes.general_lines import attribute_path, remedy_code


@pytest.mark.parametrize("factor", sorted(FACTORS))
@pytest.mark.parametrize("level", ["none", "zero", "on", "leaky_relu", "linear", "l1", 0.2, 3, "a b\n'", "```"])
def test_every_snippet_is_python(factor, level):
    ast.parse(remedy_code({factor: level}, "enc3"))


@pytest.mark.parametrize("penalty", ["kl_sigmoid_bottleneck", "kl_sigmoid_of_relu", "kl_sigmoid_of_preactivation"])
def test_the_penalties_run_and_are_least_at_the_target(penalty):
    class Owner:
        enc3 = nn.Linear(3, 4)

    names = {"self": Owner(), "x": torch.randn(8, 3), "rho": 0.05, "torch": torch, "F": F}
    exec(remedy_code({"penalty": penalty}, "enc3"), names)  # the code that a user copies
    assert names["penalty"].ndim == 0
    assert names["penalty"] >= 0


def test_batchnorm_code_runs_in_a_module():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.enc3 = nn.Linear(3, 4)

    model, inputs = Model(), torch.randn(16, 3)
    exec(remedy_code({"batchnorm": "on"}, "enc3"), {"self": model, "x": inputs, "nn": nn, "F": F})
    assert isinstance(model.code_norm, nn.BatchNorm1d)
    assert not model.code_norm.affine


def test_zero_bias_code_sets_every_bias_to_zero():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 3))
    exec(remedy_code({"bias_init": "zero"}), {"model": model, "nn": nn})
    assert all(not layer.bias.any() for layer in model)


def test_a_bottleneck_that_is_no_attribute_gets_a_general_name():
    assert attribute_path("a.b[0]") == "self.bottleneck"
    assert attribute_path("net.2.out") == "self.net[2].out"


def test_a_number_is_an_assignment_and_a_factor_that_is_no_name_is_a_comment():
    assert remedy_code({"learning_rate": 0.0033}) == "learning_rate = 0.0033"
    assert remedy_code({"two words": 2}) == "# two words\nnumber = 2"
