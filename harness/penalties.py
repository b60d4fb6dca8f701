"""Sparsity penalties as pure functions on `[*member, sample, unit]`: what each can do, and what it cannot."""

import torch
from torch import Tensor


def bernoulli_kl(rho: float | Tensor, rho_hat: Tensor) -> Tensor:
    """Kullback-Leibler divergence of a unit's mean activation from its target, summed over units, `[*member]`.

    Args:
        rho: target mean activation, in (0, 1).
        rho_hat: `[*member, unit]`, mean activation of each unit, in (0, 1).

    Returns:
        Nats: 0 when every unit's mean is at the target, also when the units never vary; it grows without bound
        towards means of 0 and 1.

    >>> round(float(bernoulli_kl(0.05, torch.tensor([0.5]))), 4)
    0.4946

    Source: Ng 2011, Sparse autoencoder, CS294A lecture notes.
    """
    rho = torch.as_tensor(rho, dtype=rho_hat.dtype, device=rho_hat.device)
    return (rho * torch.log(rho / rho_hat) + (1 - rho) * torch.log((1 - rho) / (1 - rho_hat))).sum(dim=-1)


def l1(code: Tensor) -> Tensor:
    """Mean absolute activation over samples, summed over units, `[*member]`: 0 when every unit is silent.

    >>> float(l1(torch.tensor([[1.0, -3.0], [3.0, 1.0]])))
    4.0
    """
    return code.abs().mean(dim=-2).sum(dim=-1)


def hard_count(code: Tensor) -> Tensor:
    """Share of rows on which a unit is above 0, summed over units, `[*member]`: it has no gradient at all.

    >>> float(hard_count(torch.tensor([[1.0, 0.0], [2.0, 1.0]])))
    1.5
    """
    return (code > 0).to(code.dtype).mean(dim=-2).sum(dim=-1)


def keep_largest(code: Tensor, count: int) -> Tensor:
    """The code with all but the `count` largest units of each row set to 0.

    >>> keep_largest(torch.tensor([[1.0, 3.0, 2.0]]), 1)
    tensor([[0., 3., 0.]])

    Source: Makhzani & Frey 2014, k-sparse autoencoders.
    """
    threshold = code.topk(count, dim=-1).values[..., -1:]
    return torch.where(code >= threshold, code, torch.zeros_like(code))
