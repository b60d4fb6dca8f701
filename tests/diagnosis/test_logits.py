"""Outputs in logits, advice beside a collapsed posterior, and a latent that a recurrent decoder reads at every step."""

import pytest
import torch
from torch import nn

import harness

ROWS = 600


def bits():
    draw = torch.Generator().manual_seed(0)
    return (torch.rand(ROWS, 12, generator=draw) > 0.5).float()


def codes():
    return torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(1))


def rules(diagnosis):
    return {finding.rule for finding in diagnosis.findings}


def test_an_output_in_logits_is_judged_behind_a_sigmoid_and_it_is_said():
    logits = (2 * bits() - 1) * 4
    diagnosis = harness.diagnose(codes(), inputs=bits(), reconstruction=logits)
    assert diagnosis.output.logits
    assert "logits_output" in rules(diagnosis)
    exact = 1 - float((torch.sigmoid(logits) - bits()).square().sum() / (bits() - bits().mean(0)).square().sum())
    assert diagnosis.output.r2 == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize("output", ["probabilities", "noise", "real rows"])
def test_other_outputs_are_judged_as_they_are(output):
    rows, made = bits(), torch.sigmoid((2 * bits() - 1) * 4)
    if output == "noise":
        made = 3 * torch.randn(ROWS, 12, generator=torch.Generator().manual_seed(2))
    if output == "real rows":
        rows, made = 3 * codes(), -5 * codes()
    diagnosis = harness.diagnose(codes(), inputs=rows, reconstruction=made)
    assert not diagnosis.output.logits
    assert "logits_output" not in rules(diagnosis)
    assert (diagnosis.output.verdict == "healthy") == (output == "probabilities")


def test_advice_beside_a_collapsed_posterior_is_about_the_divergence():
    rows, mean = bits(), 1e-4 * codes()
    output = rows.mean(0).expand_as(rows)
    collapsed = harness.diagnose(mean, posterior=torch.zeros_like(mean), inputs=rows, reconstruction=output)
    assert collapsed.verdict == "full_collapse"
    assert not any(
        "train longer" in finding.remedy or "zero the bias" in finding.remedy for finding in collapsed.findings
    )
    assert all("KL" in finding.remedy for finding in collapsed.findings if finding.severity == "fault")
    dead = harness.diagnose(torch.zeros(ROWS, 3), inputs=rows, reconstruction=output)
    assert any("zero the bias" in finding.remedy for finding in dead.findings)


class Sequences(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean, self.logvar = nn.Linear(8, 3), nn.Linear(8, 3)
        self.rnn, self.out = nn.GRU(3, 8, batch_first=True), nn.Linear(8, 1)

    def forward(self, x):
        mean, logvar = self.mean(x), self.logvar(x)
        return self.out(self.rnn(mean.unsqueeze(1).expand(-1, 8, -1))[0]).squeeze(2), mean, logvar


def test_a_latent_that_is_copied_for_every_step_is_judged_once_a_row():
    torch.manual_seed(0)
    diagnosis = harness.diagnose_model(
        Sequences(), torch.randn(ROWS, 8), "mean", posterior="out:2", reconstruction="out:0"
    )
    assert len(diagnosis.units) == 3
    assert diagnosis.rows == ROWS
    assert all(unit.kl == unit.kl for unit in diagnosis.units)
