"""A case is code and may print: with `--json` that goes to standard error, in the driver and in its workers."""

import json

import pytest
from commands import within

CASE = """
import torch
from torch import nn
import harness

print("HELLO")

def build():
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 6))

def data():
    print("in data")
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(0))

def losses(model, batch):
    print("in loss")
    return {"reconstruction": ((model(batch) - batch) ** 2).mean()}

case = harness.Case(build, data, losses, "0", train={"epochs": 1, "batch_size": 16})
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("printing")
    (root / "x.py").write_text(CASE)
    (root / "x.yaml").write_text("name: x\ncase: x.py\nfactors: {bias_init: [default]}\nseeds: 2\n")
    return root


@pytest.mark.parametrize("words", ["plan x.yaml", "audit x.py --no-during", "diagnose x.py"])
def test_one_document_and_nothing_else_is_on_standard_output(folder, words):
    """`run`, in a process and with workers, is in test_cli.py."""
    done = within(*words.split(), "--json", folder=folder)
    json.loads(done.stdout)
    assert "HELLO" in done.stderr
    assert "in loss" in done.stderr
