"""Detection of noise that a model draws behind a layer, as a variational autoencoder does."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from harness.capture.outputs import first_tensor

GAUSSIAN: set[Callable[..., Any]] = {torch.randn, torch.randn_like, torch.normal, Tensor.normal_}


class NoiseDraws(TorchFunctionMode):
    """Watch for a Gaussian draw of the shape of a module's output, after the module was called.

    An output may also hold means and log-variances side by side: then the draw has half as many units. `drawn` is True once
    there was one. Noise that is added to the inputs, dropout, and uniform draws do not count.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.drawn = False
        self._shape: torch.Size | None = None
        self._handle = module.register_forward_hook(self._called)

    def _called(self, module: nn.Module, args: object, output: Any) -> None:
        value = first_tensor(output)
        self._shape = None if value is None else value.shape

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._handle.remove()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in GAUSSIAN and isinstance(result, Tensor) and self._shape is not None:
            self.drawn |= result.shape == self._shape or _is_half(result.shape, self._shape)
        return result


def _is_half(shape: torch.Size, whole: torch.Size) -> bool:
    """Return True for a shape with half as many units, on the last axis or behind a convolution on axis 1.

    >>> _is_half(torch.Size([5, 3]), torch.Size([5, 6])), _is_half(torch.Size([3, 6]), torch.Size([6, 6]))
    (True, False)
    """
    if len(shape) != len(whole) or len(shape) < 2:
        return False
    axes = [axis for axis, (part, size) in enumerate(zip(shape, whole, strict=True)) if part != size]
    return len(axes) == 1 and axes[0] in (1, len(shape) - 1) and 2 * shape[axes[0]] == whole[axes[0]]
