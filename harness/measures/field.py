"""Measures by the names and definitions of the fields that use them; numbers beside the verdicts, never judged.

Sparse autoencoders: `l0`, `fraction_of_variance_unexplained`, `dead_latents`, `dense_latents`. Variational ones:
`gaussian_kl`, `elbo` (and `active_units`). Quantized ones: `perplexity`. Self-supervised learning: `alignment`,
`uniformity`, `rankme`. Reinforcement learning: `dormant_units`. With labels: `linear_probe`.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor

from harness.errors import HarnessError
from harness.types import Activations, PerMember, PerUnit

RANKME_EPSILON = 1e-7  # added to every share, as in the paper


def l0(activations: Activations) -> PerMember:
    """Mean number of units that are not 0 on a row, from 0 (no unit) to the number of units.

    >>> float(l0(torch.tensor([[1.0, 0.0], [2.0, 3.0]])))
    1.5

    Source: Bricken et al. 2023, Towards Monosemanticity; Gao et al. 2024 (arXiv 2406.04093).
    """
    return (activations != 0).double().sum(-1).mean(-1)


def fraction_of_variance_unexplained(
    inputs: Num[Tensor, "*member sample feature"], reconstruction: Num[Tensor, "*member sample feature"]
) -> PerMember:
    """Sum of squared errors / sum of squares of the inputs about their mean: 1 - R2, pooled over features.

    Returns:
        0 (exact), 1 (as good as the mean of the rows), above 1 (worse than the mean).

    >>> rows = torch.tensor([[0.0], [2.0]])
    >>> float(fraction_of_variance_unexplained(rows, torch.ones(2, 1)))
    1.0

    Source: Cunningham et al. 2023 (arXiv 2309.08600).
    """
    rows, outputs = inputs.double(), reconstruction.double()
    total = (rows - rows.mean(-2, keepdim=True)).square().sum((-2, -1))
    return (rows - outputs).square().sum((-2, -1)) / total


def dead_latents(activations: Activations) -> Bool[Tensor, "*member unit"]:
    """True for units that are 0 on every row. A finite number of rows cannot tell dead from rare.

    >>> dead_latents(torch.tensor([[1.0, 0.0], [0.0, 0.0]])).tolist()
    [False, True]

    Source: Gao et al. 2024 (arXiv 2406.04093), who count over 10 million tokens.
    """
    return (activations == 0).all(-2)


def dense_latents(activations: Activations, frequency: float = 0.1) -> Bool[Tensor, "*member unit"]:
    """True for units that are not 0 on more than this share of the rows (0.1: this project).

    >>> dense_latents(torch.tensor([[1.0, 0.0], [1.0, 2.0]]), 0.5).tolist()
    [True, False]
    """
    return (activations != 0).double().mean(-2) > frequency


def gaussian_kl(mean: Activations, logvar: Activations) -> PerUnit:
    """Mean KL divergence of N(mean, exp(logvar)) from N(0, 1) for each unit, in nats, from 0 (equal) upward.

    >>> gaussian_kl(torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2)).tolist()
    [0.5, 0.0]

    Source: Kingma & Welling 2014 (arXiv 1312.6114), appendix B.
    """
    mean, logvar = mean.double(), logvar.double()
    return (-0.5 * (1 + logvar - mean.square() - logvar.exp())).mean(-2)


def elbo(log_likelihood: Float[Tensor, "*member sample"], mean: Activations, logvar: Activations) -> PerMember:
    """Evidence lower bound: mean log-likelihood of a row minus the KL divergence summed over units, in nats.

    >>> float(elbo(torch.tensor([-3.0]), torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2)))
    -3.5

    Source: Kingma & Welling 2014 (arXiv 1312.6114).
    """
    return log_likelihood.double().mean(-1) - gaussian_kl(mean, logvar).sum(-1)


def perplexity(codes: Int[Tensor, "*member sample"], book: int) -> PerMember:
    """Exp of the entropy of the shares of codebook entries, from 1 (one entry is used) to `book` (all equally).

    >>> float(perplexity(torch.tensor([0, 0, 3, 3]), 8))
    2.0

    Source: van den Oord et al. 2017 (arXiv 1711.00937), as their code logs it.
    """
    if codes.numel() and (int(codes.min()) < 0 or int(codes.max()) >= book):
        low, high = int(codes.min()), int(codes.max())
        raise HarnessError(f"perplexity: expected codes from 0 to {book - 1}, got {low} to {high}")
    shares = F.one_hot(codes.long(), book).double().mean(-2)
    return torch.special.entr(shares).sum(-1).exp()


def alignment(first: Activations, second: Activations, alpha: float = 2.0) -> PerMember:
    """Mean distance to the power `alpha` of normalized embeddings of two views, from 0 (equal) to 2 ** alpha.

    >>> float(alignment(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0]]))).__round__(6)
    2.0

    Source: Wang & Isola 2020 (arXiv 2005.10242).
    """
    difference = F.normalize(first.double(), dim=-1) - F.normalize(second.double(), dim=-1)
    return difference.norm(dim=-1).pow(alpha).mean(-1)


def uniformity(activations: Activations, t: float = 2.0) -> PerMember:
    """Log of the mean Gaussian potential exp(-t d^2) over all pairs of normalized embeddings.

    Returns:
        0 (all equal) down to about -2 t (spread over a sphere of many dimensions).

    >>> abs(round(float(uniformity(torch.ones(4, 2))), 9))
    0.0

    Source: Wang & Isola 2020 (arXiv 2005.10242).
    """
    values = F.normalize(activations.double(), dim=-1)
    cosines = values @ values.transpose(-1, -2)
    rows = values.shape[-2]
    first, second = torch.triu_indices(rows, rows, 1)
    squares = (2 - 2 * cosines[..., first, second]).clamp_min(0)
    return torch.logsumexp(-t * squares, -1) - math.log(len(first))


def rankme(activations: Activations) -> PerMember:
    """Exp of the entropy of the singular values' shares, not centered, from about 1 to the number of units.

    `effective_rank` is the same of the centered layer.

    >>> round(float(rankme(torch.eye(4))), 3)
    4.0

    Source: Garrido et al. 2022, RankMe (arXiv 2210.02885).
    """
    sigma = torch.linalg.svdvals(activations.double())
    shares = sigma / sigma.sum(-1, keepdim=True) + RANKME_EPSILON
    return (-(shares * shares.log()).sum(-1)).exp()


def dormant_units(activations: Activations, tau: float = 0.0) -> Bool[Tensor, "*member unit"]:
    """True for units whose mean |activation| is at most `tau` times the layer's mean; `tau` 0: never active.

    >>> dormant_units(torch.tensor([[4.0, 0.1, 0.0]]), 0.1).tolist()
    [False, True, True]

    Source: Sokar et al. 2023 (arXiv 2302.12902).
    """
    size = activations.double().abs().mean(-2)
    return size <= tau * size.mean(-1, keepdim=True)


def linear_probe(
    activations: Num[Tensor, "sample unit"],
    labels: Int[Tensor, " sample"],
    test_activations: Num[Tensor, "test unit"],
    test_labels: Int[Tensor, " test"],
    ridge: float = 1.0,
) -> float:
    """Accuracy on test rows of a ridge regression of +1 and -1 per class, from 0 to 1.

    >>> codes, labels = torch.tensor([[-1.0], [-2.0], [1.0], [2.0]]), torch.tensor([0, 0, 1, 1])
    >>> linear_probe(codes, labels, torch.tensor([[-3.0], [3.0]]), torch.tensor([0, 1]))
    1.0

    Source: Alain & Bengio 2016 (arXiv 1610.01644) for probes; the classifier is scikit-learn's `RidgeClassifier`.
    """
    classes, targets = labels.unique(return_inverse=True)
    codes, center = activations.double(), activations.double().mean(0)
    signs = 2 * F.one_hot(targets, len(classes)).double() - 1
    centered = codes - center
    gram = centered.T @ centered + ridge * torch.eye(codes.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(gram, centered.T @ (signs - signs.mean(0)))
    scores = (test_activations.double() - center) @ weights + signs.mean(0)
    return float((classes[scores.argmax(1)] == test_labels).double().mean())
