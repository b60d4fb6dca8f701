"""Edits of the activations of a forward pass, and the two positions that are not activations."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Edit:
    """Change at one activation of the forward pass.

    Args:
        before: applied to the input of the activation.
        activation: name of the activation to use instead; None keeps the model's own.
        after: applied to the output of the activation.
    """

    before: Callable[[Tensor], Tensor] | None = None
    activation: str | None = None
    after: Callable[[Any], Any] | None = None


CODE_SITE = -1
OUTPUT_SITE = -2
KEEP = Edit()
