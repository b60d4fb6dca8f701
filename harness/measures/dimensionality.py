"""Number of dimensions that a layer uses, centered first. `[*member, sample, unit]` in, `[*member]` out."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from harness.measures.constancy import is_constant
from harness.placement import PlaceInvariant
from harness.types import Activations, PerMember


def centered(activations: Activations) -> Float[Tensor, "*member sample unit"]:
    """Each unit minus its mean in float64; a unit that is constant up to rounding, or not finite, is exactly 0.

    >>> centered(torch.tensor([[1.0, 7.0], [3.0, 7.0]])).tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """
    values = activations.double()
    away = values - values.mean(dim=-2, keepdim=True)
    # else the rounding noise of a constant layer would have full rank
    left_out = is_constant(activations) | ~torch.isfinite(away).all(dim=-2)
    return torch.where(left_out[..., None, :], torch.zeros_like(away), away)


def standardised(activations: Activations) -> Float[Tensor, "*member sample unit"]:
    """Each unit with mean 0 and sum of squares 1 in float64; units that are constant or not finite are 0.

    >>> round(standardised(torch.tensor([[0.0], [2.0]])).square().sum().item(), 9)
    1.0
    """
    away = centered(activations)
    # by the largest deviation first: squares of 1e200 or 1e-200 leave the range of float64
    largest = away.abs().amax(dim=-2, keepdim=True)
    away = away / torch.where(largest > 0, largest, torch.ones_like(largest))
    length = away.norm(dim=-2, keepdim=True)
    return away / torch.where(length > 0, length, torch.ones_like(length))


def effective_rank(activations: Activations) -> PerMember:
    """Number of dimensions in use, exp of the entropy of the centered layer's normalized singular values.

    Returns:
        0 (nothing varies) or 1 (one direction) to the number of units (all directions equally), `[*member]`. A few rows
        make it too small: have 50 rows for every unit.

    >>> round(float(effective_rank(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))), 6)
    2.0

    Source: Roy & Vetterli 2007, The effective rank; Garrido et al. 2022, RankMe (arXiv 2210.02885).
    """
    sigma = singular_values(activations)
    total = sigma.sum(dim=-1, keepdim=True)
    share = sigma / torch.where(total > 0, total, torch.ones_like(total))
    return torch.where(
        total[..., 0] > 0, torch.exp(torch.special.entr(share).sum(dim=-1)), torch.zeros_like(total[..., 0])
    )


def singular_values(activations: Activations) -> Float[Tensor, "*member rank"]:
    """Singular values of the centered layer, smallest first; those that float64 cannot tell from 0 are 0.

    In the activation's own unit, at any scale whose singular values a float64 holds.

    >>> singular_values(torch.tensor([[3.0], [-3.0], [3.0], [-3.0]])).tolist()
    [6.0]
    """
    away, size = of_size_one(centered(activations))
    gram = products(away)
    with PlaceInvariant():
        power = torch.linalg.eigvalsh(gram)
    floor = power[..., -1:] * torch.finfo(torch.float64).eps * gram.shape[-1]
    return torch.where(power > floor, power, torch.zeros_like(power)).sqrt() * size[..., 0]


def of_size_one(
    values: Float[Tensor, "*member sample unit"],
) -> tuple[Float[Tensor, "*member sample unit"], Float[Tensor, "*member 1 1"]]:
    """Values over the power of two next to their largest, and that power: squares of 1e200 leave the range of float64.

    No digit changes, since only exponents do.

    >>> of_size_one(torch.tensor([[6.0, 2.0]], dtype=torch.float64))
    (tensor([[0.7500, 0.2500]], dtype=torch.float64), tensor([[8.]], dtype=torch.float64))
    """
    exponent = values.detach().abs().amax(dim=(-2, -1), keepdim=True).frexp().exponent.clamp(-1000, 1000)
    size = torch.as_tensor(np.ldexp(1.0, exponent.cpu().numpy())).to(values.device)
    return values / size, size


def products(away: Float[Tensor, "*member sample unit"]) -> Float[Tensor, "*member left right"]:
    """Products of all units with all units, or of all rows with all rows where these are fewer.

    >>> products(torch.tensor([[1.0], [2.0]])).tolist()
    [[5.0]]
    """
    with PlaceInvariant():
        return away @ away.mT if away.shape[-1] > away.shape[-2] else away.mT @ away


def participation_ratio(activations: Activations, standardise: bool = True, corrected: bool = False) -> PerMember:
    """Number of dimensions in use, (sum l)^2 / sum l^2 over the eigenvalues l of the covariance.

    Args:
        activations: `[*member, sample, unit]`.
        standardise: give every unit the same variance first; without it a unit of large scale hides the others.
        corrected: for the number of rows n, as 1 / (1/PR - 1/n): noise in n rows alone has 1/n of the squares.

    Returns:
        0 (nothing varies), 1 (one direction) to the number of units that vary (uncorrelated), `[*member]`. Corrected,
        it scatters about that number, so it can lie above it; infinite where 1/PR <= 1/n.

    >>> layer = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> participation_ratio(layer).item(), participation_ratio(layer, corrected=True).item()
    (2.0, 4.0)

    Source: Gao et al. 2017, A theory of multineuronal dimensionality (bioRxiv 214262).
    """
    away = standardised(activations) if standardise else of_size_one(centered(activations))[0]
    gram = products(away)
    trace = gram.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    squares = gram.square().sum(dim=(-2, -1))
    ratio = torch.where(squares > 0, trace.square() / torch.where(squares > 0, squares, 1.0), torch.zeros_like(trace))
    return correct_participation(ratio, activations.shape[-2]) if corrected else ratio


def correct_participation(ratio: PerMember, rows: int) -> PerMember:
    """Participation ratio corrected for the number of rows n, 1 / (1/PR - 1/n); 0 stays 0, n or more is infinite.

    >>> correct_participation(torch.tensor([0.0, 2.0]), 4).tolist()
    [0.0, 4.0]
    """
    rest = 1 / ratio - 1 / rows
    corrected = torch.where(rest > 0, 1 / rest, torch.full_like(ratio, torch.inf))
    return torch.where(ratio > 0, corrected, torch.zeros_like(ratio))
