"""What a stack computes in its own way, so that a member's bits do not depend on who shares the stack."""

from collections.abc import Callable
from typing import Any

from torch.overrides import TorchFunctionMode

from harness.training.convolution import OWN, transposed_convolution
from harness.training.normalization import batch_normalization, is_of_rows
from harness.training.products import FIRST_FACTOR, separate_factors


class StackKernels(TorchFunctionMode):
    """Takes over convolutions of one and two dimensions (those in groups stay torch's own), BatchNorm of rows, and
    products with what all members share.

    `picked` counts the numbers in the windows of the convolutions.
    """

    def __init__(self) -> None:
        super().__init__()
        self.picked = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        own, kwargs = OWN.get(func), kwargs or {}
        if is_of_rows(func, args, kwargs):
            return batch_normalization(func, args, kwargs)
        if func in FIRST_FACTOR:
            args, kwargs = separate_factors(func, args, kwargs)
        made = None if own is None else own(*args, **kwargs)
        if made is None:
            return func(*args, **kwargs)
        inputs, weight = (*args, *(kwargs[name] for name in ("input", "weight") if name in kwargs))[:2]
        places = inputs if own is transposed_convolution else made
        self.picked += weight[0].numel() * places.numel() // places.shape[1 - weight.dim()]
        return made
