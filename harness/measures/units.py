"""What single units do: moments, range, how often they fire. `[*member, sample, unit]` in, `[*member, unit]` out."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from harness.errors import HarnessError, did_you_mean
from harness.measures.chunks import map_chunks
from harness.types import Activations, PerMember, PerUnit


def mean(activations: Activations) -> PerUnit:
    """Mean activation of each unit in float64, in the activation's own unit.

    >>> mean(torch.tensor([[1.0, 0.0], [3.0, 0.0]])).tolist()
    [2.0, 0.0]
    """
    return map_chunks(lambda values: values.mean(dim=-2), activations)


def variance(activations: Activations) -> PerUnit:
    """Variance of each unit (divisor: the number of rows) in two float64 passes, from 0 (constant) upwards.

    In one pass and float32, E[z^2] - E[z]^2 turns negative as soon as the offset is large against the spread.

    >>> variance(torch.tensor([[10000.0], [10002.0]])).tolist()
    [1.0]

    Source: Chan, Golub & LeVeque 1983, The American Statistician 37.
    """
    return map_chunks(lambda values: (values - values.mean(dim=-2, keepdim=True)).square().mean(dim=-2), activations)


def standard_deviation(activations: Activations) -> PerUnit:
    """Standard deviation of each unit, the root of `variance`: 0 is constant; it scales with the unit.

    >>> standard_deviation(torch.tensor([[0.0], [4.0]])).tolist()
    [2.0]
    """
    return variance(activations).sqrt()


def root_mean_square(activations: Activations) -> PerUnit:
    """Root of the mean square of each unit, 0 only for a unit that is 0 everywhere.

    >>> root_mean_square(torch.tensor([[3.0], [-3.0]])).tolist()
    [3.0]
    """
    return map_chunks(lambda values: values.square().mean(dim=-2).sqrt(), activations)


def layer_root_mean_square(activations: Activations) -> PerMember:
    """Root of the mean square over all rows and units of a layer, `[*member]`; units that are not finite are left out.

    >>> float(layer_root_mean_square(torch.tensor([[4.0, 0.0, torch.nan], [0.0, 0.0, 1.0]])))
    2.0

    Returns:
        In the activation's own unit, 0 only for a layer that is 0 everywhere; NaN where no unit is finite.
    """
    peaks = activations.abs().amax(dim=-2).double()
    finite = torch.isfinite(peaks)
    # in units of the largest value: squares of 1e200 leave the range of float64
    largest = torch.where(finite, peaks, 0.0).amax(dim=-1, keepdim=True)
    size = torch.where(largest > 0, largest, 1.0)
    power = map_chunks(lambda values: (values / size[..., None]).square().mean(dim=-2), activations)
    return size[..., 0] * (torch.where(finite, power, 0.0).sum(dim=-1) / finite.sum(dim=-1)).sqrt()


def variation(activations: Activations) -> PerUnit:
    """Standard deviation / RMS, free of scale, from 0 (constant, or 0 everywhere) to 1 (mean zero).

    >>> variation(torch.tensor([[1.0, -1.0, 0.0], [1.0, 1.0, 0.0]])).tolist()
    [0.0, 1.0, 0.0]
    """
    size = root_mean_square(activations)
    return torch.where(size > 0, standard_deviation(activations) / size, torch.zeros_like(size))


def value_range(activations: Activations) -> PerUnit:
    """Largest minus smallest activation of each unit in float64; 0 is exactly constant. See `is_constant`.

    >>> value_range(torch.tensor([[1.0, 2.0], [4.0, 2.0]])).tolist()
    [3.0, 0.0]
    """
    low, high = torch.aminmax(activations, dim=-2)
    return high.double() - low.double()


def has_off_state(activation: str) -> bool:
    """Whether units of this activation can be off. Those of tanh and none cannot: no frequency is stated for them.

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
        HarnessError: for a name that is not known, or no name at all.
    """
    if not isinstance(activation, str):
        raise HarnessError(
            f"activation: a name is wanted, {type(activation).__name__} was given. Known: {', '.join(FIRES_ABOVE)}"
        )
    name = ALIASES.get(activation, activation)
    if name not in FIRES_ABOVE:
        raise HarnessError(f"activation: {did_you_mean('activation', activation, FIRES_ABOVE)}")
    return name


def fires(activations: Activations, activation: str = "relu") -> Bool[Tensor, "*member sample unit"]:
    """Where a unit is on, strictly: its pre-activation is positive. False everywhere for tanh and none.

    Args:
        activations: what left the activation, `[*member, sample, unit]`.
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
    """On how many rows each unit fires, from 0 to the number of rows: what the intervals of a frequency rest on.

    >>> fired_rows(torch.tensor([[0.0, 1.0], [2.0, 3.0]])).tolist()
    [1, 2]
    """
    return fires(activations, activation).sum(dim=-2)


def activation_frequency(activations: Activations, activation: str = "relu") -> PerUnit:
    """Share of rows on which each unit fires, from 0 (never seen to fire) to 1 (on every row).

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
    return map_chunks(_kurtosis, activations)


def _kurtosis(values: Float[Tensor, "*member sample unit"]) -> Float[Tensor, "*member unit"]:
    centred = values - values.mean(dim=-2, keepdim=True)
    # in units of the largest deviation: fourth powers leave the range of float64 at 1e80
    largest = centred.abs().amax(dim=-2, keepdim=True)
    squares = (centred / torch.where(largest > 0, largest, torch.ones_like(largest))).square()
    spread = squares.mean(dim=-2)
    return torch.where(spread > 0, squares.square().mean(dim=-2) / spread.square(), torch.full_like(spread, math.nan))


def energy_share(activations: Activations) -> PerUnit:
    """Largest share of a unit's sum of squares that one row holds: 1/rows (all alike) to 1 (one row alone).

    NaN for a unit that is 0 everywhere.

    >>> round(energy_share(torch.tensor([[1.0], [3.0]])).item(), 9)
    0.9
    """
    return map_chunks(_energy_share, activations)


def _energy_share(values: Float[Tensor, "*member sample unit"]) -> Float[Tensor, "*member unit"]:
    largest = values.abs().amax(dim=-2, keepdim=True)
    squares = (values / torch.where(largest > 0, largest, torch.ones_like(largest))).square()
    return squares.amax(dim=-2) / squares.sum(dim=-2)


def active_units(activations: Activations, threshold: float = 0.01) -> Bool[Tensor, "*member unit"]:
    """Burda's active unit: variance above 0.01. For comparison with the literature only, never a verdict.

    It is bound to scale: a unit of 0.01 +- 0.01 is inactive by it and may carry everything; after BatchNorm without
    affine parameters every unit that varies at all is active.

    >>> active_units(torch.tensor([[0.0, 0.0], [1.0, 0.1]])).tolist()
    [True, False]

    Source: Burda, Grosse & Salakhutdinov 2016, Importance weighted autoencoders.
    """
    return variance(activations) > threshold


def saturated_share(activations: Activations, margin: float = 1e-3) -> PerUnit:
    """Share of a sigmoid unit's values at most `margin` from 0 or from 1: at 1 hardly any gradient passes it.

    >>> saturated_share(torch.tensor([[0.0], [0.5], [1.0], [0.9999]])).tolist()
    [0.75]
    """
    low = torch.tensor(margin, dtype=activations.dtype, device=activations.device)
    saturated = (activations <= low) | (activations >= 1 - low)
    return saturated.double().mean(dim=-2)


FIRES_ABOVE: dict[str, float | None] = {
    "relu": 0.0,
    "leaky_relu": 0.0,
    "elu": 0.0,
    "gelu": 0.0,
    "silu": 0.0,
    "softplus": math.log(2),  # where its pre-activation is 0
    "sigmoid": 0.5,
    "tanh": None,
    "none": None,
}
ALIASES = {"linear": "none", "identity": "none"}
