"""A hierarchical VAE: the divergences of both latents are judged where they act."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from harness import Case
from harness.auditing import audit

pytestmark = pytest.mark.many


def data():
    draw = torch.Generator().manual_seed(7)
    return torch.tanh(torch.randn(600, 4, generator=draw) @ torch.randn(4, 20, generator=draw))


class TwoLatents(nn.Module):
    """x -> z1 -> z2, with a learned p(z1 | z2)."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.mu1, self.lv1 = nn.Linear(20, 32), nn.Linear(32, 4), nn.Linear(32, 4)
        self.upper, self.mu2, self.lv2 = nn.Linear(4, 16), nn.Linear(16, 3), nn.Linear(16, 3)
        self.prior, self.pmu, self.plv = nn.Linear(3, 16), nn.Linear(16, 4), nn.Linear(16, 4)
        self.dec, self.out, self.head = nn.Linear(4, 32), nn.Linear(32, 20), nn.Linear(4, 2)

    def sample(self, mean, log_variance):
        return mean + torch.randn_like(mean) * (0.5 * log_variance).exp() if self.training else mean

    def forward(self, rows):
        hidden = torch.relu(self.body(rows))
        mean1, log1 = self.mu1(hidden), self.lv1(hidden)
        first = self.sample(mean1, log1)
        upper = torch.relu(self.upper(first))
        mean2, log2 = self.mu2(upper), self.lv2(upper)
        prior = torch.relu(self.prior(self.sample(mean2, log2)))
        hidden = torch.relu(self.dec(first))
        return self.out(hidden), mean1, log1, mean2, log2, self.pmu(prior), self.plv(prior), hidden, self.head(first)


def kl_to_normal(mean, log_variance):
    return 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(1).mean()


def losses(model, rows, upper=1.0):
    out, mean1, log1, mean2, log2, prior_mean, prior_log, _, _ = model(rows)
    ratio = ((mean1 - prior_mean).square() + log1.exp()) / prior_log.exp()
    return {
        "reconstruction": 100 * (out - rows).square().sum(1).mean(),
        "kl1": 0.5 * (prior_log - log1 - 1 + ratio).sum(1).mean(),
        "kl2": upper * kl_to_normal(mean2, log2),
    }


def with_head(model, rows):
    outputs = model(rows)
    label = (rows[:, 0] > 0).long()
    return {
        "reconstruction": 20 * (outputs[0] - rows).square().sum(1).mean(),
        "label": 1e-3 * F.cross_entropy(outputs[-1], label),
    }


def on_the_decoder(model, rows):
    hidden, head = model(rows)[-2:]
    return {**losses(model, rows), "kl1": (hidden.square().sum(1) + head.square().sum(1)).mean()}


def beside_the_code(model, rows):
    """The divergence of the lower latent from N(0, 1), which reads nothing behind the upper latent."""
    outputs = model(rows)
    return {**losses(model, rows), "kl1": kl_to_normal(outputs[1], outputs[2])}


def rules(terms, bottleneck, during_training):
    case = Case(TwoLatents, data, terms, bottleneck, reconstruction="out:0", train={"learning_rate": 2e-3})
    result = audit(case, during_training=during_training, seeds=1)
    return {(finding.rule, finding.term) for finding in result.findings}


def upper_divergence(upper):
    """Train in plain torch; return the divergence of the upper latent."""
    torch.manual_seed(0)
    model, rows = TwoLatents(), data()
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(500):
        terms = losses(model, rows, upper)
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
    outputs = model.eval()(rows)
    return kl_to_normal(outputs[3], outputs[4]).item()


def test_the_divergence_of_a_latent_behind_the_bottleneck_is_not_negligible():
    assert upper_divergence(1.0) < 0.2 * upper_divergence(0.0)
    assert ("negligible", "kl2") not in rules(losses, "mu1", during_training=True)


@pytest.mark.parametrize(
    ("terms", "term"), [(lambda model, rows: losses(model, rows, upper=1e-5), "kl2"), (with_head, "label")]
)
def test_a_weight_that_is_small_behind_the_bottleneck_too_is_negligible(terms, term):
    assert ("negligible", term) in rules(terms, "mu1", during_training=True)


def test_a_divergence_from_a_prior_that_is_computed_from_the_code_reads_the_code():
    model, rows = TwoLatents(), data()
    torch.manual_seed(0)
    before = losses(model, rows)["kl1"].item()
    handle = model.mu2.register_forward_hook(lambda module, args, output: output + 3)
    torch.manual_seed(0)
    assert losses(model, rows)["kl1"].item() != pytest.approx(before, rel=1e-3)
    handle.remove()
    assert ("wrong_layer", "kl1") not in rules(losses, "mu2", during_training=False)


@pytest.mark.parametrize(("terms", "bottleneck"), [(beside_the_code, "mu2"), (on_the_decoder, "mu1")])
def test_a_penalty_on_another_layer_stays_one_on_the_wrong_layer(terms, bottleneck):
    assert ("wrong_layer", "kl1") in rules(terms, bottleneck, during_training=False)
