"""The printed diffs, applied to strangers' sources by `patch`, make the treated model's numbers bit for bit."""

import shutil
import subprocess
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from strangers import STRANGERS
from torch.utils._pytree import tree_flatten

from harness.case import load_case
from harness.data import split_of
from harness.loss_terms import loss_terms
from harness.models import build_model
from harness.remedies import apply_remedies, why_not_applicable
from harness.source_changes import change_code, source_diff
from harness.training.schedules import learning_rates

pytestmark = pytest.mark.many

CHANGES = (
    {"activation": "leaky_relu"},
    {"batchnorm": "on"},
    {"bias_init": "zero"},
    {"dropout": 0.2},
    {"output_activation": "linear"},
    {"penalty": "none"},
    {"beta": 0.0001},
    {"learning_rate": 0.003},
    {"warmup": 0.5},
    {"weight_init": "kaiming"},
    {"weight_init": "orthogonal", "bias_init": "zero"},
    {"gradient_clip": 1.0},
    {"rate_warmup": 0.1},
    {"batchnorm": "on", "bias_init": "zero", "dropout": 0.2, "activation": "leaky_relu"},
)
# changes that these sources show no single place for: a loop constructs the layers; nothing to change
WITHOUT_A_PLACE = {
    ("loop", "batchnorm"),
    ("loop", "dropout"),
    ("factory", "penalty"),
    ("parts_in_the_loss", "output_activation"),
}


def patched_case(folder, text, diff):
    """Apply the diff with the program that a user would call, and load the result."""
    folder = folder / "patched"
    folder.mkdir(exist_ok=True)
    file = folder / "mine.py"
    file.write_text(text)
    subprocess.run(["patch", "-p0", "--quiet"], input=diff, text=True, cwd=folder, check=True)
    return load_case(file)


def numbers(case, rows, monkeypatch):
    """Initial weights, outputs and loss terms, in evaluation and in training."""

    def dropout(x, p, training, inplace=False):
        return x * (torch.rand_like(x) >= p) / (1 - p) if training else x

    monkeypatch.setattr(F, "dropout", dropout)  # the masks of the treated model
    model, values = build_model(case, 3, rows), []
    values += [parameter.detach() for parameter in model.parameters()]
    for training in (False, True):
        torch.manual_seed(1)
        values += [leaf.detach() for leaf in tree_flatten(model.train(training)(rows))[0]]
        torch.manual_seed(1)
        terms = loss_terms(case, model.train(training), rows)
        values += [torch.as_tensor(value).detach() for value in terms.values()]
        values.append(torch.as_tensor(case.total(terms, case.numbers)).detach())
    return values


@pytest.mark.skipif(shutil.which("patch") is None, reason="needs the program patch")
@pytest.mark.parametrize("name", STRANGERS)
def test_the_patched_source_of_a_stranger_has_the_treated_numbers(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(STRANGERS[name])
    case = load_case(tmp_path / "mine.py")
    split = split_of(case)
    patched = 0
    for change in CHANGES:
        if why_not_applicable(case, change, split):
            continue
        diff = source_diff(case, change, split)
        if not diff:
            assert any((name, factor) in WITHOUT_A_PLACE for factor in change), (name, change)
            continue
        assert diff.startswith("--- mine.py\n+++ mine.py\n@@ ")
        changed = patched_case(tmp_path, STRANGERS[name], diff)
        treated = apply_remedies(case, change, split)
        assert changed.training() == treated.training()
        assert changed.clip == treated.clip
        assert learning_rates(changed, 0.01, 20) == learning_rates(treated, 0.01, 20)
        rows = split.train.inputs[:8]
        pairs = zip(numbers(changed, rows, monkeypatch), numbers(treated, rows, monkeypatch), strict=True)
        assert all(torch.equal(one, two) for one, two in pairs), (name, change)
        patched += 1
    assert patched >= 6


@pytest.mark.parametrize("name", ["forum", "convolutional", "digits", "sibling_count", "sibling_threshold"])
def test_shipped_cases_have_a_diff_for_every_change_of_the_model(name):
    case = load_case(name)
    split = split_of(case)
    for change in CHANGES[:4]:
        if why_not_applicable(case, change, split) is None:
            assert source_diff(case, change, split).count("--- ") == 1, change


def test_a_diff_that_would_change_other_layers_is_not_printed(tmp_path):
    """One expression constructs all rectifiers of this encoder, so it is no place for the normalization of one."""
    (tmp_path / "mine.py").write_text(STRANGERS["loop"])
    case = load_case(tmp_path / "mine.py")
    assert source_diff(case, {"batchnorm": "on"}, split_of(case)) == ""
    assert source_diff(case, {"activation": "leaky_relu"}, split_of(case))


FACTORY_WITH_BIASES = """import torch
import torch.nn.functional as F
from torch import nn

import harness


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc, self.dec = nn.Linear(6, 3), nn.Linear(3, 6)

    def forward(self, x):
        return self.dec(F.relu(self.enc(x)))


def build():
    model = Net()
    nn.init.constant_(model.enc.bias, -6.0)
    return model


def losses(model, batch):
    return {"reconstruction": F.mse_loss(model(batch), batch)}


case = harness.Case(build, lambda: torch.eye(6).repeat(10, 1), losses, "enc")
"""


def test_initial_values_are_set_after_a_factory_has_set_its_own(tmp_path):
    (tmp_path / "mine.py").write_text(FACTORY_WITH_BIASES)
    case = load_case(tmp_path / "mine.py")
    diff = source_diff(case, {"bias_init": "zero"}, split_of(case))
    assert "+            nn.init.zeros_(parameter)" in diff
    assert diff.index("model.enc.bias") < diff.index("zeros_")


def test_a_file_that_calls_no_torch_by_name_gets_the_import(tmp_path):
    (tmp_path / "mine.py").write_text(STRANGERS["methods"])
    case = load_case(tmp_path / "mine.py")
    diff = source_diff(case, {"activation": "leaky_relu"}, split_of(case))
    assert "+import torch.nn.functional as F" in diff or "+        return torch.nn.functional.leaky_relu(" in diff


def test_a_case_made_in_python_has_no_file_to_patch():
    case = load_case("forum")
    assert source_diff(replace(case, source=None), {"batchnorm": "on"}, split_of(case)) == ""


def test_a_change_without_a_place_in_the_file_is_lines(tmp_path):
    (tmp_path / "mine.py").write_text(FACTORY_WITH_BIASES)
    case = load_case(tmp_path / "mine.py")
    split = split_of(case)
    assert change_code(case, {"bias_init": "zero"}, split) == source_diff(case, {"bias_init": "zero"}, split) != ""
    assert change_code(case, {"inputs": "centred"}, split).endswith("rows = rows - mean")
    assert change_code(replace(case, source=None), {"learning_rate": 0.0033}, split) == "learning_rate = 0.0033"
    assert "kaiming_normal_" in change_code(replace(case, source=None), {"weight_init": "kaiming"}, split)
