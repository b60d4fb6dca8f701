"""What the rules look at, measured over all members at once and over the units in pieces of bounded memory."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.measures import chunks as cutting
from harness.measures.constancy import range_tolerance
from harness.measures.units import fires

PIECE = 1 << 18
"""Numbers held in float64 at a time, 2 MB a copy: larger blocks leave holes in the heap that add up to gigabytes."""

Table = dict[str, NDArray[np.float64]]


def unit_rows(activations: Tensor, piece: slice) -> tuple[Tensor, Tensor]:
    """A piece as `[member, unit, sample]` in float64 with 0 for the units that are not finite, and which are finite."""
    values = activations[..., piece].movedim(-1, -2).double().contiguous()
    finite = torch.isfinite(values).all(-1)
    return torch.where(finite[..., None], values, torch.zeros((), dtype=torch.float64)), finite


def pieces(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices of the unit axis of `[member, sample, unit]` that are worked on one after the other.

    >>> [piece.stop for piece in pieces((1, 100000, 5))]
    [2, 4, 5]
    """
    return cutting.chunks(shape, PIECE)


class Saturation(NamedTuple):
    """When a sigmoid unit counts as saturated: within `margin` of 0 or 1 on at least `share` of the rows."""

    margin: float
    share: float


def unit_table(
    activations: Tensor, activation: str, dtype: torch.dtype, scale: Tensor | None, saturation: Saturation
) -> Table:
    """Every measure of single units that the rules need, `[member, unit]` each."""
    tables = []
    for piece in pieces(tuple(activations.shape)):
        values, finite = unit_rows(activations, piece)
        tables.append(
            piece_table(values, finite, activation, dtype, None if scale is None else scale[..., piece], saturation)
        )
    return {name: np.concatenate([table[name] for table in tables], -1) for name in tables[0]}


def piece_table(
    values: Tensor, finite: Tensor, activation: str, dtype: torch.dtype, scale: Tensor | None, saturation: Saturation
) -> Table:
    """The measures of `[member, unit, sample]`."""
    # in the model's own precision: the float64 copy of float32's softplus(0) lies above log 2
    on = fires(values.to(dtype), activation)
    found = {"finite": finite, "fired_rows": on.sum(-1), **_moments(values)}
    found |= _range(values, torch.ones_like(on), dtype, scale_of(activation, scale), "")
    found |= _range(values, ~on, dtype, scale_of(activation, scale), "outside_")
    if activation == "sigmoid":
        found |= _saturation(values.to(dtype), saturation)
    return {name: each.double().numpy() for name, each in found.items()}


def _saturation(own: Tensor, saturation: Saturation) -> dict[str, Tensor]:
    """What is saturated, in the values' own precision: float32(.001) is above .001, and is meant."""
    low, high = own <= saturation.margin, own >= 1 - saturation.margin
    within = torch.minimum(own, 1 - own).double()
    enough = max(1, math.ceil(saturation.share * own.shape[-1] - 1e-9))
    both = torch.maximum(own.amin(-1), 1 - own.amax(-1)).double()
    return {
        "saturated": (low | high).double().mean(-1),
        "low_end": low.any(-1),
        "high_end": high.any(-1),
        "bimodal_margin": torch.maximum(both, within.kthvalue(enough, dim=-1).values),
    }


def scale_of(activation: str, scale: Tensor | None) -> Tensor | None:
    """A sigmoid is 1 wide: saturated at 0 it is as constant as saturated at 1, where rounding hides the difference."""
    if activation != "sigmoid":
        return scale
    return torch.ones(()).double() if scale is None else scale.clamp_min(1.0)


def _range(values: Tensor, rows: Tensor, dtype: torch.dtype, scale: Tensor | None, prefix: str) -> dict[str, Tensor]:
    low = torch.where(rows, values, torch.inf).amin(-1)
    high = torch.where(rows, values, -torch.inf).amax(-1)
    some = rows.any(-1)
    low, high = torch.where(some, low, 0.0), torch.where(some, high, 0.0)
    tolerance = range_tolerance(torch.stack([low, high], -2), dtype=dtype, scale=scale)
    ratio = torch.where(high > low, (high - low) / tolerance.clamp_min(torch.finfo(torch.float64).tiny), 0.0)
    if prefix:
        return {f"{prefix}ratio": ratio}
    return {"range_ratio": ratio, "minimum": low, "maximum": high, "tolerance": tolerance}


def _moments(values: Tensor) -> dict[str, Tensor]:
    # in units of the largest value: squares of 1e200 or 1e-200 leave the range of a float64
    size = values.abs().amax(-1, keepdim=True)
    scaled = values / torch.where(size > 0, size, 1.0)
    mean = scaled.mean(-1, keepdim=True)
    squares = (scaled - mean).square()
    variance, fourth = squares.mean(-1), squares.square().mean(-1)
    power = scaled.square()
    energy = power.sum(-1)
    rms = (energy / values.shape[-1]).sqrt()
    size, mean = size[..., 0], mean[..., 0]
    return {
        "mean": mean * size,
        "standard_deviation": variance.sqrt() * size,
        "power": rms * size,
        "variation": torch.where(energy > 0, variance.sqrt() / rms, 0.0),
        "kurtosis": torch.where(variance > 0, fourth / variance.square(), torch.nan),
        "energy_share": torch.where(energy > 0, power.amax(-1) / energy, torch.nan),
    }


def range_ratios(activations: Tensor, dtype: torch.dtype) -> NDArray[np.float64]:
    """Range / tolerance of each unit, `[member, unit]`; infinite where it is not finite."""
    found = []
    for piece in pieces(tuple(activations.shape)):
        values, finite = unit_rows(activations, piece)
        ratio = _range(values, torch.ones_like(values, dtype=torch.bool), dtype, None, "")["range_ratio"]
        found.append(torch.where(finite, ratio, torch.inf).numpy())
    return np.concatenate(found, -1)


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
