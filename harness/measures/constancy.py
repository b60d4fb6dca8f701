"""Range test: a unit depends on its input only if its values differ by more than rounding explains."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from harness.errors import HarnessError, did_you_mean
from harness.measures.units import value_range
from harness.types import Activations, PerUnit


def range_tolerance(activations: Activations, dtype: Any = None, scale: Tensor | float | None = None) -> PerUnit:
    """Widest range that rounding alone can give a constant unit: c eps(dtype) max(max|z|, scale).

    Args:
        activations: `[*member, sample, unit]`.
        dtype: the precision (torch's, numpy's or its name) in which the *model* computed, if the values have another
            (a float64 copy, a CSV). Default: that of the values.
        scale: `[*member, unit]` or a number: size of the sum that made the unit, sum_i |w_i| E|h_i| + |b|. A sum that
            cancels carries the rounding of its terms, not that of its small result. Behind a function that is not steep,
            times its slope.

    Returns:
        In the activation's own unit, float64. c is 64 for float32 and float64, 4 for float16 and bfloat16.

    >>> float(range_tolerance(torch.tensor([[2.0], [1.0]])) / (64 * 2.0**-23 * 2))
    1.0

    Raises:
        HarnessError: for a dtype that no model computes in.
    """
    precision = precision_of(activations, dtype)
    largest = activations.abs().amax(dim=-2).double()
    if scale is not None:
        largest = torch.maximum(largest, torch.as_tensor(scale, dtype=torch.float64, device=largest.device))
    return rounding(precision) * largest


def rounding(precision: torch.dtype) -> float:
    """Widest range of a constant unit of scale 1: c eps.

    >>> rounding(torch.bfloat16)
    0.03125
    """
    return ROUNDINGS[precision] * torch.finfo(precision).eps


def precision_of(activations: Tensor, dtype: Any = None) -> torch.dtype:
    """Precision that a model computed in: the given one, else that of its activations; float32 for integers.

    >>> precision_of(torch.zeros(1), "bfloat16")
    torch.bfloat16
    """
    if dtype is None:
        return activations.dtype if activations.is_floating_point() else torch.float32
    is_numpy = isinstance(dtype, np.dtype) or (isinstance(dtype, type) and issubclass(dtype, np.generic))
    name = np.dtype(dtype).name if is_numpy else str(dtype).removeprefix("torch.")
    precisions = {str(precision).removeprefix("torch."): precision for precision in ROUNDINGS}
    if name not in precisions:
        raise HarnessError(f"dtype: {did_you_mean('precision', name, precisions)}")
    return precisions[name]


def is_constant(
    activations: Activations, dtype: Any = None, scale: Tensor | float | None = None
) -> Bool[Tensor, "*member unit"]:
    """Return True for a unit that ignores its input: its range is at most `range_tolerance`. False if not finite.

    The test is of range, not of variance: a unit that moves on one row in a million is not constant.

    >>> is_constant(torch.tensor([[5.0, 5.0], [5.0, 5.001]])).tolist()
    [True, False]

    Args and Raises: those of `range_tolerance`.
    """
    spread = value_range(activations)
    return torch.isfinite(spread) & (spread <= range_tolerance(activations, dtype, scale))


ROUNDINGS = {torch.float32: 64, torch.float64: 64, torch.float16: 4, torch.bfloat16: 4}
