"""Entropy of a unit at a declared, fixed resolution: I(X; Q(Z)) for a deterministic unit."""

import torch
from torch import Tensor

from harness.measures.unit_table import entropy_table, resolution_of
from harness.measures.units import activation_named, layer_root_mean_square, root_mean_square
from harness.types import Activations, PerMember, PerUnit


def resolution(activations: Activations, activation: str = "relu") -> PerMember:
    """Width of the cells in which a unit's entropy is counted: 1/64 for sigmoid and tanh, else layer RMS / 32.

    Returns:
        In the unit of the activation, `[*member]`; 0 for a layer that is 0 everywhere, NaN without a finite unit.

    >>> float(resolution(torch.full((4, 2), 4.0)))
    0.125
    """
    rms = layer_root_mean_square(activations)
    return torch.as_tensor(resolution_of(rms.cpu().numpy(), activation_named(activation))).to(activations.device)


def entropy_bits(activations: Activations, activation: str = "relu") -> PerUnit:
    """Entropy of floor(z / D + 1/2) with the declared D of `resolution`, Miller-Madow corrected.

    Fixed cells only: quantile cells would give every continuous unit the same entropy, float noise included.

    Returns:
        Bits, from 0 (constant at this resolution) to log2 of the number of rows and the correction. NaN for a unit that
        is not finite; it takes no part in the resolution of the others.

    >>> entropy_bits(torch.tensor([[0.0], [0.5], [0.0], [0.5]]), "sigmoid").round(decimals=3).tolist()
    [1.18]

    Source: Panzeri et al. 2007 for the correction, (cells - 1) / 2n nats.
    """
    stack = activations.detach().cpu().reshape(-1, *activations.shape[-2:])
    sizes = root_mean_square(stack)
    finite = torch.isfinite(sizes)
    table = entropy_table(stack, finite.double().numpy(), sizes.nan_to_num(0.0).numpy(), activation_named(activation))
    bits: Tensor = torch.where(finite, torch.from_numpy(table["entropy_bits"]), torch.nan)
    return bits.reshape(*activations.shape[:-2], activations.shape[-1]).to(activations.device)
