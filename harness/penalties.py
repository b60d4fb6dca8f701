"""Sparsity penalties as pure functions on `[*member, sample, unit]`."""

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.errors import HarnessError


def bernoulli_kl(rho: float | Tensor, rho_hat: Tensor) -> Tensor:
    """Kullback-Leibler divergence of a unit's mean activation from its target, summed over units, `[*member]`.

    Exact while the means are away from 0 and 1: a float32 sigmoid is 1 from about 17 on, and the divergence infinite.
    `bernoulli_kl_of_logits` has no such limit.

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


def bernoulli_kl_of_logits(rho: float | Tensor, logits: Tensor) -> Tensor:
    """Kullback-Leibler divergence of a unit's mean sigmoid from its target, summed over units, `[*member]`.

    The same number as `bernoulli_kl(rho, sigmoid(logits).mean(-2))`, computed from the logarithms of the sigmoid and of
    its complement: finite, with the right gradient, for every finite logit. Means and sums are taken in float32 at
    least, so that 16-bit logits of many rows do not overflow.

    Args:
        rho: target mean activation, in (0, 1), as the logits' precision holds it; a tensor broadcasts with
            `[*member, unit]`.
        logits: `[*member, sample, unit]`, the values that enter the sigmoid.

    Returns:
        Nats: 0 when every unit's mean sigmoid is at the target, also when the units never vary. Where a unit is far
        from 0 on every row it grows like `(1 - rho) * logit` above, and like `-rho * logit` below. Infinite only for a
        unit that is infinite on every row.

    Raises:
        HarnessError: when there is no row to average over.

    >>> round(float(bernoulli_kl_of_logits(0.05, torch.full((64, 4), 20.0))), 4)
    75.2059

    Source: Ng 2011, Sparse autoencoder, CS294A lecture notes; log mean sigmoid(a) = logsumexp(logsigmoid(a)) - log n.
    """
    if logits.dim() < 2 or not logits.shape[-2]:
        raise HarnessError(
            f"bernoulli_kl_of_logits: expected logits of shape [*member, sample, unit] with a row or more, got {list(logits.shape)}"
        )
    logits = logits if logits.dtype == torch.float64 else logits.float()
    rho = torch.as_tensor(rho, dtype=logits.dtype, device=logits.device)
    log_mean, log_complement = _log_mean_exp(F.logsigmoid(logits)), _log_mean_exp(F.logsigmoid(-logits))
    entropy = torch.special.entr(rho) - torch.special.xlog1py(1 - rho, -rho)
    return (-rho * log_mean - (1 - rho) * log_complement - entropy).sum(dim=-1)


def l1(activations: Tensor) -> Tensor:
    """Mean absolute activation over samples, summed over units, `[*member]`: 0 when every unit is silent.

    >>> float(l1(torch.tensor([[1.0, -3.0], [3.0, 1.0]])))
    4.0
    """
    return activations.abs().mean(dim=-2).sum(dim=-1)


def hard_count(activations: Tensor) -> Tensor:
    """Share of rows on which a unit is above 0, summed over units, `[*member]`: it has no gradient at all.

    >>> float(hard_count(torch.tensor([[1.0, 0.0], [2.0, 1.0]])))
    1.5
    """
    return (activations > 0).to(activations.dtype).mean(dim=-2).sum(dim=-1)


def keep_largest(activations: Tensor, count: int) -> Tensor:
    """Set all but the `count` largest units of each row to 0.

    Exactly `count` units are kept: of equal ones those of the lowest index, and all units if there are fewer.

    Args:
        activations: `[*member, sample, unit]`.
        count: units kept in each row, 1 or more.

    Raises:
        HarnessError: when `count` is not a whole number from 1.

    >>> keep_largest(torch.tensor([[1.0, 3.0, 2.0], [2.0, 2.0, 2.0]]), 1)
    tensor([[0., 3., 0.],
            [2., 0., 0.]])

    Source: Makhzani & Frey 2014, k-sparse autoencoders.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise HarnessError(
            f"keep_largest: count: expected a whole number from 1, got {count!r}; e.g. keep_largest(activations, 4)"
        )
    ranked = activations.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)  # a NaN is kept, so it is seen
    least = ranked.topk(min(count, ranked.shape[-1]), dim=-1).values[..., -1:]
    above, tied = ranked > least, ranked == least
    selected = above | (tied & (tied.cumsum(dim=-1, dtype=torch.int32) <= count - above.sum(dim=-1, keepdim=True)))
    return torch.where(selected, activations, torch.zeros_like(activations))


def _log_mean_exp(logarithms: Tensor) -> Tensor:
    """`log(mean(exp(logarithms)))` over samples; a mean in place of `logsumexp - log n` rounds less near 0."""
    # the shift changes no value; -inf on every row would make it NaN
    largest = logarithms.detach().max(dim=-2, keepdim=True).values.clamp(min=torch.finfo(logarithms.dtype).min)
    return (largest + (logarithms - largest).exp().mean(dim=-2, keepdim=True).log()).squeeze(dim=-2)
