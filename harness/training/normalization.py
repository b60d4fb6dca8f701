"""BatchNorm in a stack, with each member's values contiguous: the same bits in any stack.

Under `vmap` the members' channels become those of a single normalization whose output has the members between the rows
and the channels. A later sum over the rows then takes as many columns at a time as fit a register, and the remaining
columns one by one: which columns remain would depend on the other members of the stack.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class ContiguousMembers(torch.autograd.Function):
    """Copy a tensor so that each member's values are contiguous, in the forward pass and in the gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor) -> Tensor:
        """Return a contiguous copy."""
        return values.clone(memory_format=torch.contiguous_format)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        """Save nothing for the backward pass."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Return a contiguous copy of the gradient."""
        return gradient.clone(memory_format=torch.contiguous_format)


def batch_normalization(function: Callable[..., Tensor], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """Apply `function`, a BatchNorm of `[sample, channel]`, to contiguous input and return contiguous output."""
    values, rest = (args[0], args[1:]) if args else (kwargs["input"], ())
    keywords = {name: value for name, value in kwargs.items() if name != "input"}
    output: Tensor = ContiguousMembers.apply(function(ContiguousMembers.apply(values), *rest, **keywords))
    return output


def is_of_rows(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Return True for a BatchNorm of `[sample, channel]`; those of larger inputs are contiguous by themselves."""
    return function in NORMALIZATIONS and (args[0] if args else kwargs["input"]).dim() == 2


NORMALIZATIONS = (F.batch_norm, torch.batch_norm)
