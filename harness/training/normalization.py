"""BatchNorm in a stack, laid out member by member: the same bits in any stack.

Under `vmap` the members' channels become those of one normalisation, with the members between the rows and the channels
of what comes out. Whatever sums over the rows from there on takes as many columns at a time as a register has, and the
few that are left one by one: which they are would depend on who shares the stack.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class MemberByMember(torch.autograd.Function):
    """A tensor as it is, each member's numbers beside each other: of what goes forward, and of its gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor) -> Tensor:
        """A copy."""
        return values.clone(memory_format=torch.contiguous_format)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        """Nothing is kept for the way back."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """A copy, too."""
        return gradient.clone(memory_format=torch.contiguous_format)


def batch_normalization(function: Callable[..., Tensor], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """`function`, a BatchNorm of `[sample, channel]`, with what enters and what leaves it laid out member by member."""
    given, rest = (args[0], args[1:]) if args else (kwargs["input"], ())
    named = {name: value for name, value in kwargs.items() if name != "input"}
    made: Tensor = MemberByMember.apply(function(MemberByMember.apply(given), *rest, **named))
    return made


def is_of_rows(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether this is a BatchNorm of `[sample, channel]`; those of larger inputs lay their channels out by themselves."""
    return function in NORMALIZATIONS and (args[0] if args else kwargs["input"]).dim() == 2


NORMALIZATIONS = (F.batch_norm, torch.batch_norm)
