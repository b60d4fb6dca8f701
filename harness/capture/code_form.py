"""Units and positions of a code: a channel of an image or a feature of a token is one unit at every position."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from harness.capture.outputs import first_tensor
from harness.capture.tap import submodule

CHANNELS_IN_FRONT = ("Conv", "BatchNorm", "InstanceNorm", "GroupNorm", "Pool", "Dropout2d", "Dropout3d")


@dataclass(frozen=True)
class CodeForm:
    """Units and positions of the numbers of a row's code, once flattened.

    Args:
        units: number of units.
        positions: number of positions; 1 where every number of a row is a unit of its own.
        units_first: True for `[unit, position]`, as after a convolution; False for `[position, unit]`.

    >>> import torch
    >>> form = CodeForm(units=2, positions=3, units_first=True)
    >>> form.rows(torch.tensor([[1, 2, 3, 10, 20, 30]])).tolist(), form.numbers(torch.tensor([7, 8])).tolist()
    ([[1, 10], [2, 20], [3, 30]], [7, 7, 7, 8, 8, 8])
    """

    units: int
    positions: int = 1
    units_first: bool = False

    def rows(self, values: Tensor) -> Tensor:
        """Return `[*member, sample, number]` as `[*member, sample x position, unit]`."""
        return values if self.positions == 1 else self._by_position(values).flatten(-3, -2)

    def every_position(self, holds: Tensor) -> Tensor:
        """Return, per unit, True where `[*member, number]` is True at all positions."""
        return holds if self.positions == 1 else self._by_position(holds).all(-2)

    def numbers(self, values: Tensor) -> Tensor:
        """Return `[*member, unit]` at every position, `[*member, number]`."""
        if self.units_first:
            return values.repeat_interleave(self.positions, -1)
        return values.repeat(*[1] * (values.dim() - 1), self.positions)

    def at_every_position(self, values: Tensor) -> Tensor:
        """Return `[sample, ...]` once for each position, `[sample x position, ...]`."""
        return values.repeat_interleave(self.positions, 0)

    def _by_position(self, values: Tensor) -> Tensor:
        """View `[..., number]` as `[..., position, unit]`."""
        if self.units_first:
            return values.unflatten(-1, (self.units, self.positions)).mT
        return values.unflatten(-1, (self.positions, self.units))


class LayerBeforeCode:
    """The last layer with parameters that ran before the output of the bottleneck, and the shape of its output."""

    def __init__(self) -> None:
        self.module: nn.Module | None = None
        self.shape: tuple[int, ...] = ()
        self.closed = False

    def form(self, code: Tensor) -> CodeForm:
        """Return the form of a code `[sample, ...]`.

        The numbers at different positions are one unit only where one layer made them with the same weights, so its output
        has the axes of the code. In a code that was put together from a vector, every number is a unit.
        """
        every_number = CodeForm(code[0].numel())
        if self.module is None or code.dim() < 3 or len(self.shape) != code.dim():
            return every_number
        axis = 1 if has_channels_in_front(self.module) else code.dim() - 1
        if code.shape[axis] != self.shape[axis]:
            return every_number
        units = code.shape[axis]
        return CodeForm(units, code[0].numel() // units, units_first=axis == 1)


@contextmanager
def layer_before_code(model: nn.Module, bottleneck: str) -> Iterator[LayerBeforeCode]:
    """Watch the forward passes of the block for the layer before the code; there is none for an output such as `out:1`.

    Raises:
        HarnessError: for a bottleneck that does not exist.
    """
    layer = LayerBeforeCode()

    def note(module: nn.Module, args: Any, output: Any) -> None:
        value = first_tensor(output)
        if not layer.closed and value is not None:
            layer.module, layer.shape = module, tuple(value.shape)

    def close(*_: Any) -> None:
        layer.closed = True

    handles = []
    if not bottleneck.startswith("out:"):
        layers = [module for module in model.modules() if next(module.parameters(recurse=False), None) is not None]
        handles = [module.register_forward_hook(note) for module in layers]
        handles.append(submodule(model, bottleneck).register_forward_hook(close))
    try:
        yield layer
    finally:
        for handle in handles:
            handle.remove()


def has_channels_in_front(module: nn.Module) -> bool:
    """Return True for a module that keeps its channels in axis 1, such as a convolution, BatchNorm2d or pooling.

    >>> has_channels_in_front(nn.Conv2d(1, 8, 3)), has_channels_in_front(nn.Linear(1, 8))
    (True, False)
    """
    layers = {type(child).__name__ for child in module.modules()}
    # the Conv1D of transformers is a linear layer: its features are the last axis
    return any(word in layer and layer != "Conv1D" for layer in layers for word in CHANNELS_IN_FRONT)
