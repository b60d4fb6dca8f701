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

    `drawn` is True once there was one. Noise that is added to the inputs, dropout, and uniform draws do not count.
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
        if func in GAUSSIAN and isinstance(result, Tensor) and result.shape == self._shape:
            self.drawn = True
        return result
