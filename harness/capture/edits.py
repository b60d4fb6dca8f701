"""Changes at the activations of a forward pass, and the positions that are no activation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Edit:
    """What is changed at one activation of the forward pass.

    Args:
        before: applied to what enters the activation.
        activation: the name of the activation that takes its place; None keeps the model's own.
        after: applied to what leaves it.
    """

    before: Callable[[Tensor], Tensor] | None = None
    activation: str | None = None
    after: Callable[[Any], Any] | None = None


CODE_SITE = -1
OUTPUT_SITE = -2
KEEP = Edit()
