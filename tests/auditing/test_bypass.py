"""Decoders that start at zero and codes drawn by a distribution are no bypass; a skip and an unread code are."""

import pytest
import torch
from penalty_zoo import PLANTED, Plain, case_of, data
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from harness import Case
from harness.auditing import audit

pytestmark = pytest.mark.many


class ZeroOutput(Plain):
    def __init__(self) -> None:
        super().__init__(torch.tanh)
        nn.init.zeros_(self.dec2.weight)
        nn.init.constant_(self.dec2.bias, 0.5)


class NormalCode(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.mu, self.spread = nn.Linear(12, 16), nn.Linear(16, 3), nn.Linear(16, 3)
        self.decoder = nn.Linear(3, 12)

    def forward(self, rows):
        hidden = torch.relu(self.body(rows))
        self.posterior = Normal(self.mu(hidden), F.softplus(self.spread(hidden)))
        return self.decoder(self.posterior.rsample())


class NormalWithSkip(NormalCode):
    def forward(self, rows):
        return super().forward(rows) + rows


class Detached(nn.Module):
    """A VAE whose sample is detached: only mean and log-variance lead from the input to the decoder."""

    def __init__(self, skip: float = 0.0) -> None:
        super().__init__()
        self.body, self.mu = nn.Linear(12, 16), nn.Linear(16, 3)
        self.logvar = nn.Sequential(nn.Linear(16, 3), nn.Hardtanh(-8.0, 8.0))
        self.decoder, self.skip = nn.Linear(3, 12), skip

    def forward(self, rows):
        hidden = torch.relu(self.body(rows))
        mean, log_variance = self.mu(hidden), self.logvar(hidden)
        code = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        return self.decoder(code.detach()) + self.skip * rows, mean, log_variance


def detached_losses(model, rows):
    out, mean, log_variance = model(rows)
    kl = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(1).mean()
    return {"reconstruction": F.mse_loss(out, rows), "kl": 0.01 * kl}


def normal_losses(model, rows):
    out = model(rows)
    kl = kl_divergence(model.posterior, Normal(0.0, 1.0)).sum(1).mean()
    return {"reconstruction": F.mse_loss(out, rows), "kl": kl}


def normal_case(model):
    return Case(model=model, data=data, losses=normal_losses, bottleneck="mu", numbers={"beta": 0.01})


def rules(case):
    return audit(case, during_training=False, seeds=1).rules


def test_a_decoder_that_starts_at_zero_is_no_bypass():
    assert "bypass" not in rules(case_of(None, ZeroOutput))


def test_a_code_drawn_by_a_distribution_is_no_bypass():
    result = audit(normal_case(NormalCode), during_training=False, seeds=1)
    assert result.faults == (), str(result)


def test_a_skip_around_a_drawn_code_is_a_bypass():
    assert "bypass" in rules(normal_case(NormalWithSkip))


@pytest.mark.parametrize("posterior", ["out:2", "logvar", "logvar.0"])
def test_a_path_through_the_declared_posterior_alone_is_no_bypass(posterior):
    case = Case(Detached, data, detached_losses, "mu", posterior=posterior)
    found = rules(case)
    assert "bypass" not in found
    assert "cut_encoder" in found


@pytest.mark.parametrize("posterior", ["out:2", "logvar"])
def test_a_skip_beside_a_detached_sample_is_a_bypass(posterior):
    case = Case(lambda: Detached(skip=0.1), data, detached_losses, "mu", posterior=posterior)
    assert "bypass" in rules(case)


@pytest.mark.parametrize("name", ["skip", "unread code"])
def test_a_skip_and_an_unread_code_stay_a_bypass(name):
    assert "bypass" in rules(PLANTED[name][0]())


class Rescaled(nn.Module):
    """Standardizes the rows by running statistics, and returns their scale."""

    def __init__(self, skip: float = 0.0, own: bool = False) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(12, affine=False)
        self.code, self.decoder, self.skip, self.own = nn.Linear(12, 3), nn.Linear(3, 12), skip, own
        self.register_buffer("mean", torch.zeros(12))

    def forward(self, rows):
        if self.own and self.training:
            self.mean = 0.9 * self.mean + 0.1 * rows.detach().mean(0)
        standard = rows - self.mean if self.own else self.norm(rows)
        out = self.decoder(torch.tanh(self.code(standard)))
        scaled = out + self.mean if self.own else out * (self.norm.running_var + 1e-5).sqrt() + self.norm.running_mean
        return scaled + self.skip * rows


@pytest.mark.parametrize("own", [False, True])
def test_running_statistics_are_no_path_of_the_input(own):
    model = Rescaled(own=own).double()
    rows = data().double()
    model(rows)
    code = torch.tanh(model.eval().code(torch.randn(len(rows), 12, dtype=torch.float64)))
    model.code.register_forward_hook(lambda *_: torch.atanh(code.clamp(-0.999, 0.999)))
    assert torch.equal(model(rows), model(2 * rows + 1))  # in eval mode, with the code fixed
    assert "bypass" not in rules(Case(lambda: Rescaled(own=own), data, reconstruction, "code"))


@pytest.mark.parametrize("own", [False, True])
def test_a_skip_beside_running_statistics_is_a_bypass(own):
    assert "bypass" in rules(Case(lambda: Rescaled(0.1, own), data, reconstruction, "code"))


class ScaledByTheBatch(Rescaled):
    """Writes the statistics of the batch at hand to a buffer, in either mode, and returns the scale of these rows."""

    def forward(self, rows):
        self.mean = rows.mean(0)
        return self.decoder(torch.tanh(self.code(rows - self.mean))) + self.mean


def test_statistics_of_the_batch_at_hand_stay_a_bypass():
    assert "bypass" in rules(Case(ScaledByTheBatch, data, reconstruction, "code"))


def reconstruction(model, rows):
    return {"reconstruction": F.mse_loss(model(rows), rows)}
