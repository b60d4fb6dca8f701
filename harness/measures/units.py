"""Measures of single units: moments, range, how often they fire. `[*member, sample, unit]` in, `[*member, unit]` out.

`UnitMoments` is the one implementation of the moments: the functions below return one of its numbers each, `unit_table`
returns all of them.
"""

import math
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from harness.errors import HarnessError, did_you_mean
from harness.measures.chunks import map_units
from harness.types import Activations, PerMember, PerUnit


class UnitMoments:
    """Moments of the lines `[*member, unit, sample]` in float64, each computed when first read, `[*member, unit]`.

    Values are divided by the largest of their line first: squares of 1e200 or 1e-200 leave the range of a float64.

    >>> moments = UnitMoments(torch.tensor([[3.0, -3.0]], dtype=torch.float64))
    >>> moments.mean.item(), moments.standard_deviation.item(), moments.root_mean_square.item()
    (0.0, 3.0, 3.0)
    """

    def __init__(self, lines: Float[Tensor, "*member unit sample"]) -> None:
        self._size = lines.abs().amax(-1, keepdim=True)
        self._scaled = lines / torch.where(self._size > 0, self._size, 1.0)

    @cached_property
    def mean(self) -> PerUnit:
        """Arithmetic mean."""
        return self._scaled_mean[..., 0] * self._size[..., 0]

    @cached_property
    def standard_deviation(self) -> PerUnit:
        """Root of the mean square about the mean."""
        return self._scaled_variance.sqrt() * self._size[..., 0]

    @cached_property
    def root_mean_square(self) -> PerUnit:
        """Root of the mean square about 0."""
        return self._scaled_rms * self._size[..., 0]

    @cached_property
    def variation(self) -> PerUnit:
        """Standard deviation / root mean square; 0 for a line of zeros."""
        return torch.where(self._energy > 0, self._scaled_variance.sqrt() / self._scaled_rms, 0.0)

    @cached_property
    def kurtosis(self) -> PerUnit:
        """Fourth central moment / squared variance; NaN where the variance is 0."""
        fourth = self._squares.square().mean(-1)
        return torch.where(self._scaled_variance > 0, fourth / self._scaled_variance.square(), torch.nan)

    @cached_property
    def energy_share(self) -> PerUnit:
        """Largest square / sum of squares; NaN for a line of zeros."""
        return torch.where(self._energy > 0, self._power.amax(-1) / self._energy, torch.nan)

    @cached_property
    def _scaled_mean(self) -> Tensor:
        return self._scaled.mean(-1, keepdim=True)

    @cached_property
    def _squares(self) -> Tensor:
        return (self._scaled - self._scaled_mean).square()

    @cached_property
    def _scaled_variance(self) -> Tensor:
        return self._squares.mean(-1)

    @cached_property
    def _power(self) -> Tensor:
        return self._scaled.square()

    @cached_property
    def _energy(self) -> Tensor:
        return self._power.sum(-1)

    @cached_property
    def _scaled_rms(self) -> Tensor:
        return (self._energy / self._scaled.shape[-1]).sqrt()


def mean(activations: Activations) -> PerUnit:
    """Mean activation of each unit in float64, in the activation's own unit; NaN for a unit that is not finite.

    >>> mean(torch.tensor([[1.0, 0.0], [3.0, 0.0]])).tolist()
    [2.0, 0.0]
    """
    return map_units(lambda lines: UnitMoments(lines).mean, activations)


def variance(activations: Activations) -> PerUnit:
    """Variance of each unit (divisor: the number of rows) in two float64 passes, from 0 (constant) upwards.

    In one pass and float32, E[z^2] - E[z]^2 turns negative as soon as the offset is large against the spread.

    >>> variance(torch.tensor([[10000.0], [10002.0]])).round(decimals=6).tolist()
    [1.0]

    Source: Chan, Golub & LeVeque 1983, The American Statistician 37.
    """
    return standard_deviation(activations).square()


def standard_deviation(activations: Activations) -> PerUnit:
    """Standard deviation of each unit, the root of `variance`: 0 is constant; it scales with the unit.

    >>> standard_deviation(torch.tensor([[0.0], [4.0]])).tolist()
    [2.0]
    """
    return map_units(lambda lines: UnitMoments(lines).standard_deviation, activations)


def root_mean_square(activations: Activations) -> PerUnit:
    """Root of the mean square of each unit, 0 only for a unit that is 0 everywhere.

    >>> root_mean_square(torch.tensor([[3.0], [-3.0]])).tolist()
    [3.0]
    """
    return map_units(lambda lines: UnitMoments(lines).root_mean_square, activations)


def layer_root_mean_square(activations: Activations) -> PerMember:
    """Root of the mean square over all rows and units of a layer, `[*member]`; units that are not finite are left out.

    >>> round(float(layer_root_mean_square(torch.tensor([[4.0, 0.0, torch.nan], [0.0, 0.0, 1.0]]))), 9)
    2.0

    Returns:
        In the activation's own unit, 0 only for a layer that is 0 everywhere; NaN where no unit is finite.
    """
    sizes = root_mean_square(activations.detach().cpu())
    finite = torch.isfinite(sizes)
    layer = torch.as_tensor(layer_size(sizes.nan_to_num(0.0).numpy(), finite.numpy()))
    return torch.where(finite.any(-1), layer, torch.nan).to(activations.device)


def layer_size(sizes: NDArray[np.float64], finite: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Root mean square of a layer from that of its units `[*member, unit]`, `[*member]`; 0 where no unit is finite.

    >>> layer_size(np.array([2.0, 0.0, 7.0]), np.array([True, True, False])).round(4).item()
    1.4142
    """
    sizes = sizes * finite
    # in units of the largest: squares of 1e200 leave the range of float64
    largest = sizes.max(-1, keepdims=True)
    largest = np.where(largest > 0, largest, 1.0)
    power = np.square(sizes / largest).sum(-1, keepdims=True) / np.maximum(finite.sum(-1, keepdims=True), 1)
    layer: NDArray[np.float64] = (largest * np.sqrt(power))[..., 0]
    return layer


def variation(activations: Activations) -> PerUnit:
    """Standard deviation / RMS, free of scale, from 0 (constant, or 0 everywhere) to 1 (mean zero).

    >>> variation(torch.tensor([[1.0, -1.0, 0.0], [1.0, 1.0, 0.0]])).tolist()
    [0.0, 1.0, 0.0]
    """
    return map_units(lambda lines: UnitMoments(lines).variation, activations)


def value_range(activations: Activations) -> PerUnit:
    """Largest minus smallest activation of each unit in float64; 0 is exactly constant. See `is_constant`.

    >>> value_range(torch.tensor([[1.0, 2.0], [4.0, 2.0]])).tolist()
    [3.0, 0.0]
    """
    low, high = torch.aminmax(activations, dim=-2)
    return high.double() - low.double()


def has_off_state(activation: str) -> bool:
    """Return True if units of this activation can be off; those of tanh and none cannot and have no frequency.

    >>> has_off_state("relu"), has_off_state("tanh")
    (True, False)

    Raises:
        HarnessError: for a name that is not in `FIRES_ABOVE`.
    """
    return FIRES_ABOVE[activation_named(activation)] is not None


def activation_named(activation: str) -> str:
    """The activation's own name: `linear` and `identity` are `none`.

    >>> activation_named("linear")
    'none'

    Raises:
        HarnessError: for an unknown name, or a value that is no string.
    """
    if not isinstance(activation, str):
        raise HarnessError(
            f"activation: expected a name, got {type(activation).__name__}; names are {', '.join(FIRES_ABOVE)}"
        )
    name = ALIASES.get(activation, activation)
    if name not in FIRES_ABOVE:
        raise HarnessError(f"activation: {did_you_mean('activation', activation, FIRES_ABOVE)}")
    return name


def fires(activations: Activations, activation: str = "relu") -> Bool[Tensor, "*member sample unit"]:
    """Rows on which a unit is on, strictly: its pre-activation is positive. False everywhere for tanh and none.

    Args:
        activations: values after the activation, `[*member, sample, unit]`.
        activation: its name, a key of `FIRES_ABOVE`.

    >>> fires(torch.tensor([[0.5, 0.6]]), "sigmoid").tolist()
    [[False, True]]
    """
    threshold = FIRES_ABOVE[activation_named(activation)]
    if threshold is None:
        return torch.zeros_like(activations, dtype=torch.bool)
    # compared in the values' own precision: float32's softplus(0) lies above the float64 log 2
    return activations > torch.tensor(threshold, dtype=activations.dtype, device=activations.device)


def fired_rows(activations: Activations, activation: str = "relu") -> Int[Tensor, "*member unit"]:
    """Number of rows on which each unit fires, 0 to the number of rows: the count behind a frequency's interval.

    >>> fired_rows(torch.tensor([[0.0, 1.0], [2.0, 3.0]])).tolist()
    [1, 2]
    """
    return fires(activations, activation).sum(dim=-2)


def activation_frequency(activations: Activations, activation: str = "relu") -> PerUnit:
    """Share of rows on which each unit fires, from 0 (on no row) to 1 (on every row).

    0 of n rows does not mean never: see `clopper_pearson`. NaN for tanh and none, which have no off state.

    >>> activation_frequency(torch.tensor([[0.0, 1.0], [2.0, 3.0]])).tolist()
    [0.5, 1.0]

    See also: Sokar et al. 2023 (arXiv 2302.12902), who call a ReLU unit dormant that never fires.
    """
    rows = activations.shape[-2]
    share = fired_rows(activations, activation).double() / rows
    return share if has_off_state(activation) else torch.full_like(share, math.nan)


def kurtosis(activations: Activations) -> PerUnit:
    """Fourth central moment / squared variance: 1 (two values, equally often), 3 (normal), large with rare peaks.

    NaN for a unit of variance 0. At most the number of rows.

    >>> kurtosis(torch.tensor([[0.0], [2.0]])).tolist()
    [1.0]
    """
    return map_units(lambda lines: UnitMoments(lines).kurtosis, activations)


def energy_share(activations: Activations) -> PerUnit:
    """Largest share of a unit's sum of squares that one row holds: 1/rows (all alike) to 1 (one row alone).

    NaN for a unit that is 0 everywhere.

    >>> round(energy_share(torch.tensor([[1.0], [3.0]])).item(), 9)
    0.9
    """
    return map_units(lambda lines: UnitMoments(lines).energy_share, activations)


def active_units(activations: Activations, threshold: float = 0.01) -> Bool[Tensor, "*member unit"]:
    """Burda's active unit: variance above 0.01. For comparison with the literature only, never a verdict.

    It is bound to scale: a unit of 0.01 +- 0.01 is inactive by it and may carry everything; after BatchNorm without
    affine parameters every unit that varies at all is active.

    >>> active_units(torch.tensor([[0.0, 0.0], [1.0, 0.1]])).tolist()
    [True, False]

    Source: Burda, Grosse & Salakhutdinov 2016, Importance weighted autoencoders.
    """
    # the root of the threshold, not the square of the deviation: the diagnosis compares these
    return standard_deviation(activations) > threshold**0.5


def saturated_share(activations: Activations, margin: float = 1e-3) -> PerUnit:
    """Share of a sigmoid unit's values at most `margin` from 0 or from 1: at 1 hardly any gradient passes it.

    >>> saturated_share(torch.tensor([[0.0], [0.5], [1.0], [0.9999]])).tolist()
    [0.75]
    """
    # in the values' own precision: float32(0.001) is above 0.001, and is meant
    saturated = (activations <= margin) | (activations >= 1 - margin)
    return saturated.double().mean(dim=-2)


RELU_FAMILY = ("relu", "leaky_relu", "elu", "gelu", "silu", "softplus")
"""Activations whose units are off where their pre-activation is not positive."""

FIRES_ABOVE: dict[str, float | None] = {
    **dict.fromkeys(RELU_FAMILY, 0.0),
    "softplus": math.log(2),  # its value where the pre-activation is 0
    "sigmoid": 0.5,
    "tanh": None,
    "none": None,
}
ALIASES = {"linear": "none", "identity": "none"}
