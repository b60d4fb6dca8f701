"""Measures of other fields, each against its published definition written out, or against scikit-learn."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from scipy.stats import entropy, norm
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import r2_score
from torch.distributions import Normal, kl_divergence

from harness.errors import HarnessError
from harness.measures import field


def codes(rows=300, units=7, seed=0):
    draw = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, units, generator=draw)
    return torch.relu(values - torch.linspace(-1, 1.5, units))


def test_l0_counts_the_entries_that_are_not_zero():
    assert float(field.l0(codes())) == pytest.approx(np.count_nonzero(codes().numpy()) / 300)


def test_variance_unexplained_is_one_minus_r2():
    rows, made = codes(seed=1), codes(seed=1) + 0.3 * codes(seed=2)
    residual = ((rows - made) ** 2).sum() / ((rows - rows.mean(0)) ** 2).sum()
    assert float(field.fraction_of_variance_unexplained(rows, made)) == pytest.approx(float(residual), rel=1e-5)
    weighted = 1 - r2_score(rows.numpy(), made.numpy(), multioutput="variance_weighted")
    assert float(field.fraction_of_variance_unexplained(rows, made)) == pytest.approx(weighted, rel=1e-5)


def test_dead_and_dense_latents():
    values = torch.zeros(100, 3)
    values[:5, 1], values[:20, 2] = 1.0, 1.0
    assert field.dead_latents(values).tolist() == [True, False, False]
    assert field.dense_latents(values).tolist() == [False, False, True]


def test_kl_and_elbo_are_those_of_torch():
    draw = torch.Generator().manual_seed(3)
    mean, logvar = torch.randn(50, 4, generator=draw), torch.randn(50, 4, generator=draw)
    exact = kl_divergence(Normal(mean, (logvar / 2).exp()), Normal(0.0, 1.0)).mean(0)
    assert field.gaussian_kl(mean, logvar).tolist() == pytest.approx(exact.tolist(), rel=1e-5)
    rows = torch.from_numpy(norm.logpdf(mean[:, 0].numpy()))
    bound = float(rows.mean()) - float(exact.sum())
    assert float(field.elbo(rows, mean, logvar)) == pytest.approx(bound, rel=1e-5)


def test_perplexity_is_the_exponential_of_scipys_entropy():
    chosen = torch.tensor([0, 0, 0, 1, 2, 2, 5])
    shares = np.bincount(chosen.numpy(), minlength=8) / 7
    assert float(field.perplexity(chosen, 8)) == pytest.approx(math.exp(entropy(shares)))
    assert float(field.perplexity(torch.arange(8), 8)) == pytest.approx(8)
    with pytest.raises(HarnessError, match="expected codes from 0 to 3, got 0 to 5"):
        field.perplexity(chosen, 4)


def test_alignment_and_uniformity_are_those_of_the_paper():
    draw = torch.Generator().manual_seed(4)
    first, second = torch.randn(40, 5, generator=draw), torch.randn(40, 5, generator=draw)
    x, y = (torch.nn.functional.normalize(values, dim=1) for values in (first, second))
    assert float(field.alignment(first, second)) == pytest.approx(float((x - y).norm(dim=1).pow(2).mean()), rel=1e-5)
    distances = pdist(x.double().numpy(), "sqeuclidean")
    assert float(field.uniformity(first)) == pytest.approx(math.log(np.exp(-2 * distances).mean()), rel=1e-6)


def test_a_collapsed_embedding_is_aligned_and_not_uniform():
    constant = torch.ones(20, 4)
    assert float(field.alignment(constant, 3 * constant)) == pytest.approx(0, abs=1e-12)
    assert float(field.uniformity(constant)) == pytest.approx(0, abs=1e-12)


def test_rankme_is_not_centered():
    values = codes(seed=5).double().numpy()
    sigma = np.linalg.svd(values, compute_uv=False)
    shares = sigma / sigma.sum() + 1e-7
    assert float(field.rankme(codes(seed=5))) == pytest.approx(math.exp(-(shares * np.log(shares)).sum()), rel=1e-6)


def test_dormant_units_are_those_of_the_paper():
    values = codes(seed=6)
    scores = values.abs().mean(0) / values.abs().mean(0).mean()
    for tau in (0.0, 0.1, 0.5):
        assert field.dormant_units(values, tau).tolist() == (scores <= tau).tolist()
    assert field.dormant_units(torch.zeros(3, 2), 0.1).all()


def test_the_probe_is_scikit_learns_ridge_classifier():
    draw = np.random.default_rng(7)
    labels = draw.integers(0, 4, 400)
    values = draw.normal(size=(400, 6)) + np.eye(6)[labels]
    expected = RidgeClassifier(alpha=1.0).fit(values[:300], labels[:300]).score(values[300:], labels[300:])
    tensors = (torch.from_numpy(array) for array in (values[:300], labels[:300], values[300:], labels[300:]))
    assert field.linear_probe(*tensors) == pytest.approx(expected)


@pytest.mark.parametrize("measure", ["l0", "dead_latents", "dense_latents", "uniformity", "rankme", "dormant_units"])
def test_a_stack_is_each_member_alone(measure):
    members = torch.stack([codes(60, 5, seed) for seed in range(3)])
    function = getattr(field, measure)
    stacked = function(members)
    for member, values in enumerate(members):
        assert torch.allclose(stacked[member].double(), function(values).double())
