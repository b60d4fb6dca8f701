"""Entropy of a unit at a declared, fixed resolution: I(X; Q(Z)) for a deterministic unit."""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from harness.measures.chunks import map_chunks
from harness.measures.ranks import run_lengths, run_starts
from harness.measures.units import activation_named, layer_root_mean_square
from harness.types import Activations, PerUnit

BOUNDED_RESOLUTION = 1 / 64  # of sigmoid and tanh
SHARE_OF_LAYER = 1 / 32  # of the layer's root mean square, for every other activation
BOUNDED = ("sigmoid", "tanh")


def resolution(activations: Activations, activation: str = "relu") -> Float[Tensor, "*member"]:
    """The width of the cells in which a unit's entropy is counted: 1/64 for sigmoid and tanh, else layer RMS / 32.

    Returns:
        In the units of the activation; 1 for a layer that is zero everywhere, or has no finite unit.

    >>> float(resolution(torch.full((4, 2), 4.0)))
    0.125
    """
    rms = layer_root_mean_square(activations)
    if activation_named(activation) in BOUNDED:
        return torch.full_like(rms, BOUNDED_RESOLUTION)
    return torch.where(rms > 0, rms * SHARE_OF_LAYER, torch.ones_like(rms))


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
    width = resolution(activations, activation)[..., None, None]
    return map_chunks(lambda values: _entropy(torch.floor(values / width + 0.5)), activations)


def _entropy(cells: Float[Tensor, "*member sample unit"]) -> Float[Tensor, "*member unit"]:
    rows, columns = cells.shape[-2], cells.detach().cpu().mT.contiguous()
    ordered = np.sort(columns.numpy(), axis=-1)  # one line a unit: several times as fast as across lines
    starts = run_starts(ordered)
    counts = run_lengths(starts)
    logs = np.zeros(ordered.shape)
    logs[starts] = counts * np.log(counts)
    plain = math.log(rows) - logs.sum(-1) / rows
    corrected = (plain + (starts.sum(-1) - 1) / (2 * rows)) / math.log(2)
    finite = torch.isfinite(columns).all(dim=-1)
    return torch.where(finite, torch.from_numpy(corrected), math.nan).to(cells.device)
