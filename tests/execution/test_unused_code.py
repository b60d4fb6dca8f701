"""A code that the output does not depend on is `unused` everywhere, never `healthy`."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness import Case
from harness.cli.diagnose import is_healthy
from harness.data import split_of
from harness.diagnosis import Diagnosis
from harness.execution.run_stack import run_stack
from harness.execution.spec import StackMember, StackSpec
from harness.training import train


def data():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1000, 3, generator=generator) @ torch.randn(3, 8, generator=generator)


class Model(nn.Module):
    """Its decoder reads the code, and with `bypass` the row itself and next to nothing of the code."""

    def __init__(self, bypass: bool):
        super().__init__()
        self.enc, self.bypass = nn.Linear(8, 4), bypass
        self.dec = nn.Linear(12 if bypass else 4, 8)
        with torch.no_grad():
            if bypass:
                self.dec.weight.copy_(torch.cat([0.02 * torch.randn(8, 4), torch.eye(8)], 1))

    def forward(self, rows):
        code = self.enc(rows)
        return self.dec(torch.cat([code, rows], 1) if self.bypass else code)


def case(bypass):
    return Case(
        lambda: Model(bypass),
        data,
        lambda model, rows: {"reconstruction": F.mse_loss(model(rows), rows)},
        "enc",
        train={"epochs": 1 if bypass else 20, "learning_rate": 1e-5 if bypass else 1e-2},
    )


def loss_of_the_code(model, rows):
    """R2 lost when the code is replaced by its mean, in plain torch."""
    with torch.no_grad():
        code = model.enc(rows)
        means = code.mean(0).expand_as(code)

        def r2(values):
            output = model.dec(torch.cat([values, rows], 1) if model.bypass else values)
            return float(1 - (output - rows).square().sum() / (rows - rows.mean(0)).square().sum())

        return r2(code) - r2(means)


@pytest.mark.parametrize("bypass", [True, False])
def test_a_code_that_the_output_does_not_depend_on_is_unused(bypass):
    own = case(bypass)
    split = split_of(own)
    *_, last = train([own], [0], split)
    model = Model(bypass)
    model.load_state_dict(last.engine.state_of(0))
    truth = loss_of_the_code(model, split.evaluation.inputs)
    assert (abs(truth) < 1e-3) == bypass
    (record,) = run_stack(StackSpec(own, None, (StackMember("k", "v", {}, 0),)))
    assert record.verdict == record.reported_verdict == ("unused" if bypass else "healthy")
    diagnosis = Diagnosis.from_dict(record.diagnosis)
    assert diagnosis.measures["code_ablation"] == pytest.approx(truth, rel=1e-3, abs=1e-6)
    assert is_healthy(diagnosis) != bypass
    assert record.failed is False
