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
