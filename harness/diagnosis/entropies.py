"""Entropy of units at a declared resolution; the layer's scale leaves out units that are not finite."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.measures.unit_table import Table, pieces, unit_rows

BITS = float(np.log(2))


def entropy_table(
    activations: Tensor, finite: NDArray[np.float64], power: NDArray[np.float64], activation: str
) -> Table:
    """`[member, unit]` of `entropy_bits`, its standard error, the resolution D, and the layer's RMS.

    H(floor(z / D + 1/2)), Miller-Madow corrected, with D = 1/64 for sigmoid and tanh, layer RMS / 32 otherwise.
    """
    count = finite.sum(-1, keepdims=True)
    power = power * finite
    largest = power.max(-1, keepdims=True)
    largest = np.where(largest > 0, largest, 1.0)
    rms = largest * np.sqrt(np.square(power / largest).sum(-1, keepdims=True) / np.maximum(count, 1))
    step = np.full_like(rms, 1 / 64) if activation in ("sigmoid", "tanh") else rms / 32
    found = []
    for piece in pieces(tuple(activations.shape)):
        values, _ = unit_rows(activations, piece)
        found.append(_entropy(values, torch.from_numpy(step)))
    wide = {"resolution": np.broadcast_to(step, power.shape), "layer_rms": np.broadcast_to(rms, power.shape)}
    return {name: np.concatenate([each[name] for each in found], -1) for name in found[0]} | wide


def _entropy(values: Tensor, step: Tensor) -> Table:
    rows = values.shape[-1]
    held = cell_counts(torch.where(step[..., None] > 0, torch.floor(values / step[..., None] + 0.5), 0.0))
    share = held / rows
    surprise = -torch.log(torch.where(share > 0, share, 1.0))
    entropy = _added(share * surprise)
    error = (_added(share * surprise.square()) - entropy.square()).clamp_min(0).sqrt() / rows**0.5
    corrected = entropy + ((held > 0).sum(-1).double() - 1) / (2 * rows)
    return {"entropy_bits": (corrected / BITS).numpy(), "entropy_error": (error / BITS).numpy()}


def _added(terms: Tensor) -> Tensor:
    """The sum along the cells, one after the other: how many empty ones there are depends on the other members."""
    return terms.cumsum(-1)[..., -1]


def cell_counts(cells: Tensor) -> Tensor:
    """How many rows of `[member, unit, sample]` each whole number holds, `[member, unit, cell]`; empty cells are 0.

    >>> cell_counts(torch.tensor([[[7.0, 9.0, 7.0]]])).tolist()
    [[[2.0, 0.0, 1.0]]]
    """
    members, units, rows = cells.shape
    place = cells - cells.amin(-1, keepdim=True)
    width = place.amax() + 1
    if not width <= rows:  # far outliers (or overflow, NaN): numbered in order instead of counted from the smallest
        ordered = place.sort(dim=-1).values
        place = torch.zeros_like(place)
        place[..., 1:] = (ordered[..., 1:] != ordered[..., :-1]).cumsum(-1)
        width = place.amax() + 1
    first = torch.arange(members * units).reshape(members, units, 1) * int(width)
    counts = torch.bincount((place.long() + first).flatten(), minlength=members * units * int(width))
    return counts.reshape(members, units, int(width)).double()
