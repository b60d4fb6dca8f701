"""A case that takes batches of its training size only is trained and judged."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness import Case
from harness.execution.run_stack import run_stack
from harness.execution.spec import StackMember, StackSpec

BATCH = 50


def data():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1000, 3, generator=generator) @ torch.randn(3, 8, generator=generator)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc, self.dec = nn.Linear(8, 3), nn.Linear(3, 8)

    def forward(self, rows):
        return self.dec(self.enc(rows))


def losses(model, rows):
    return {"reconstruction": F.mse_loss(model(rows), rows)}


def particular(model, rows):
    if len(rows) != BATCH:
        raise AssertionError
    return losses(model, rows)


def impossible(model, rows):
    raise AssertionError


@pytest.mark.parametrize("loss", [particular, losses])
def test_a_loss_for_one_batch_size_is_trained_as_any_other(loss):
    case = Case(Model, data, loss, "enc", train={"epochs": 10, "batch_size": BATCH, "learning_rate": 1e-2})
    (record,) = run_stack(StackSpec(case, None, (StackMember("k", "v", {}, 0),)))
    assert (record.status, record.error, record.verdict) == ("ok", None, "healthy")
    assert record.r2 > 0.5


def test_a_loss_that_never_runs_is_named_by_the_line_that_raises():
    case = Case(Model, data, impossible, "enc", train={"epochs": 1, "batch_size": BATCH})
    (record,) = run_stack(StackSpec(case, None, (StackMember("k", "v", {}, 0),)))
    line = impossible.__code__.co_firstlineno + 1
    assert f"AssertionError in line {line} of {Path(__file__).name}: raise AssertionError" in record.error
