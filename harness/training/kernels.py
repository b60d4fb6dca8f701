"""Kernels of a stack whose results for a member do not depend, to the last bit, on the other members."""

from collections.abc import Callable
from typing import Any

from torch.overrides import TorchFunctionMode

from harness.training.convolution import OWN, transposed_convolution
from harness.training.normalization import batch_normalization, is_of_rows
from harness.training.products import FIRST_FACTOR, separate_factors


class StackKernels(TorchFunctionMode):
    """Replace convolutions of one and two dimensions without groups, BatchNorm of rows, and products with shared tensors.

    `picked` is the total number of elements in the windows of the convolutions.
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
        output = None if own is None else own(*args, **kwargs)
        if output is None:
            return func(*args, **kwargs)
        inputs, weight = (*args, *(kwargs[name] for name in ("input", "weight") if name in kwargs))[:2]
        positions = inputs if own is transposed_convolution else output
        self.picked += weight[0].numel() * positions.numel() // positions.shape[1 - weight.dim()]
        return output
