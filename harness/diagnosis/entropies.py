"""Entropy of units at a declared resolution; the layer's scale leaves out units that are not finite."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.diagnosis.measuring import Table, unit_rows
from harness.measures.pieces import pieces

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
    code = torch.where(step[..., None] > 0, torch.floor(values / step[..., None] + 0.5), 0.0).sort(dim=-1).values
    ends = torch.ones_like(code, dtype=torch.bool)
    ends[..., :-1] = code[..., 1:] != code[..., :-1]
    place = torch.arange(1, rows + 1, dtype=torch.float64).expand(code.shape)
    before = torch.zeros_like(code)
    before[..., 1:] = torch.where(ends, place, 0.0).cummax(-1).values[..., :-1]
    # how many rows each code holds, written at its last row
    held = torch.where(ends, place - before, 0.0)
    surprise = torch.where(ends, -torch.log((held / rows).clamp_min(1 / (2 * rows))), 0.0)
    entropy = (held * surprise).sum(-1) / rows
    error = ((held * surprise.square()).sum(-1) / rows - entropy.square()).clamp_min(0).sqrt() / rows**0.5
    corrected = entropy + (ends.sum(-1) - 1) / (2 * rows)
    return {"entropy_bits": (corrected / BITS).numpy(), "entropy_error": (error / BITS).numpy()}
