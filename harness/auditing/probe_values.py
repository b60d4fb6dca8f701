"""Values to put at a site, within the range of its activation, moderate and extreme."""

import torch
from torch import Tensor

from harness.auditing.trace import Change, TensorSite

RANGES: dict[str, tuple[float, float]] = {
    "relu": (0.0, float("inf")),
    "leaky_relu": (float("-inf"), float("inf")),
    "elu": (-1.0, float("inf")),
    "gelu": (-0.17, float("inf")),
    "silu": (-0.2785, float("inf")),
    "softplus": (0.0, float("inf")),
    "sigmoid": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "softmax": (0.0, 1.0),
    "none": (float("-inf"), float("inf")),
}


def activation_of(site: TensorSite) -> str:
    """Return the activation that bounds a site: the last of its chain, "none" for a layer's own output.

    >>> activation_of(TensorSite("enc3", ("batch_norm", "relu"))), activation_of(TensorSite("enc3"))
    ('relu', 'none')
    """
    return site.chain[-1] if site.chain and site.chain[-1] in RANGES else "none"


def on_simplex(values: Tensor) -> bool:
    """True if the units of every row are at least 0 and add up to 1, as those of a softmax do.

    >>> on_simplex(torch.tensor([[0.2, 0.8], [1.0, 0.0]])), on_simplex(torch.tensor([[0.2, 0.8], [0.7, 0.2]]))
    (True, False)
    """
    if values.dim() != 2 or values.shape[1] < 2 or not values.is_floating_point():
        return False
    tolerance = 100 * torch.finfo(values.dtype).eps
    return bool((values >= -tolerance).all()) and bool(((values.sum(1) - 1).abs() <= tolerance).all())


def random_values(like: Tensor, activation: str, scale: float = 1.0, seed: int = 0, axis: int | None = None) -> Tensor:
    """Draw values in the activation's range with a different level per unit, positive on about half of the rows for a ReLU.

    Args:
        like: shape and dtype, `[sample, ...]`.
        activation: name of the activation.
        scale: standard deviation before the activation; 1 is moderate, 5 spreads sigmoid and tanh over their range.
        seed: seed of the draw.
        axis: axis of the units, which get different levels; None gives every number of a row its own level.
    """
    draw = torch.Generator().manual_seed(seed)
    noise = torch.randn(like.shape, generator=draw, dtype=torch.float64)
    shape = [1] * like.dim()
    for axis_index in range(1, like.dim()) if axis is None else [axis % like.dim()]:
        shape[axis_index] = like.shape[axis_index]
    level = torch.randn(shape, generator=draw, dtype=torch.float64)
    pre = scale * (noise + level)
    return _shaped(pre, activation).to(dtype=like.dtype, device=like.device)


def random_outputs(seed: int, scale: float = 3.0) -> Change:
    """Return a change that puts other random numbers at every call of a layer."""
    return lambda values, index: random_values(values, "none", scale, seed + 7 * index)


def _shaped(pre: Tensor, activation: str) -> Tensor:
    if activation in ("relu", "softplus"):
        return pre.clamp(min=0)
    if activation == "sigmoid":
        return torch.sigmoid(pre)
    if activation == "softmax":
        return torch.softmax(pre, -1)
    if activation == "tanh":
        return torch.tanh(pre)
    low = RANGES.get(activation, RANGES["none"])[0]
    return pre.clamp(min=low)


def value_levels(activation: str) -> list[float]:
    """Constants within the activation's range, in ascending order, for the whole column of a unit."""
    if activation in ("sigmoid", "softmax"):
        return [0.5, 0.7, 0.9, 0.97, 0.99]
    if activation == "tanh":
        return [0.3, 0.6, 0.8, 0.95, 0.99]
    return [0.3, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0]


def set_point_grid() -> list[float]:
    """Constants at which a set point is searched, wider than the range of any activation."""
    positive = [1e-3, 3e-3, 0.01, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9]
    positive += [0.97, 0.99, 0.999, 1.2, 1.6, 2.2, 3.0, 4.0, 6.0, 10.0, 30.0]
    return [-constant for constant in reversed(positive)] + [0.0] + positive
