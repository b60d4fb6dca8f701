"""Units and positions of a code: a channel of an image or a feature of a token is one unit at every position."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from harness.capture.outputs import first_tensor
from harness.capture.tap import submodule

MIXING = (
    *(nn.Linear, nn.Bilinear, nn.Embedding, nn.EmbeddingBag, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention),
    *(nn.modules.conv._ConvNd, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer),
)
CHANNELS_IN_FRONT = ("Conv", "BatchNorm", "InstanceNorm", "GroupNorm", "Pool", "Dropout2d", "Dropout3d")


@dataclass(frozen=True)
class CodeForm:
    """Units and positions of the elements of a sample's code, once flattened; such an element is called a number.

    Args:
        units: number of units.
        positions: number of positions; 1 where every number of a sample is a unit of its own.
        units_first: True for `[unit, position]`, as after a convolution; False for `[position, unit]`.

    >>> import torch
    >>> form = CodeForm(units=2, positions=3, units_first=True)
    >>> form.rows(torch.tensor([[1, 2, 3, 10, 20, 30]])).tolist(), form.spread_units(torch.tensor([7, 8])).tolist()
    ([[1, 10], [2, 20], [3, 30]], [7, 7, 7, 8, 8, 8])
    """

    units: int
    positions: int = 1
    units_first: bool = False

    def rows(self, values: Tensor) -> Tensor:
        """Return `[*member, sample, number]` as `[*member, sample x position, unit]`."""
        return values if self.positions == 1 else self._by_position(values).flatten(-3, -2)

    def all_positions(self, holds: Tensor) -> Tensor:
        """Return, per unit, True where `[*member, number]` is True at all positions."""
        return holds if self.positions == 1 else self._by_position(holds).all(-2)

    def spread_units(self, values: Tensor) -> Tensor:
        """Return `[*member, unit]` at every position, `[*member, number]`."""
        if self.units_first:
            return values.repeat_interleave(self.positions, -1)
        return values.repeat(*[1] * (values.dim() - 1), self.positions)

    def repeat_samples(self, values: Tensor) -> Tensor:
        """Return `[sample, ...]` once for each position, `[sample x position, ...]`."""
        return values.repeat_interleave(self.positions, 0)

    def _by_position(self, values: Tensor) -> Tensor:
        """View `[..., number]` as `[..., position, unit]`."""
        if self.units_first:
            return values.unflatten(-1, (self.units, self.positions)).mT
        return values.unflatten(-1, (self.positions, self.units))


class LayerBeforeCode:
    """The last layer that mixes units up to the end of the bottleneck, and the shape of its output."""

    def __init__(self) -> None:
        self.module: nn.Module | None = None
        self.shape: tuple[int, ...] = ()
        self.done = False

    def form(self, code: Tensor) -> CodeForm:
        """Return the form of a code `[sample, ...]`.

        The numbers at different positions are one unit where that layer made them with the same weights: its output has as
        many axes as the code, and as many units on its own axis of units, which is 1 for a convolution and the last one
        otherwise. In a code that was put together from a vector, every number is a unit.
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
    """Record the last layer that mixes units up to the end of the bottleneck's first call.

    Normalizations, PReLU and modules around other layers are passed over. For an output such as `out:1` nothing is recorded.

    Raises:
        HarnessError: for a bottleneck that does not exist.
    """
    layer = LayerBeforeCode()

    def note(module: nn.Module, args: Any, output: Any) -> None:
        value = first_tensor(output)
        if not layer.done and value is not None:
            layer.module, layer.shape = module, tuple(value.shape)

    def close(*_: Any) -> None:
        layer.done = True

    handles = []
    if not bottleneck.startswith("out:"):
        handles = [module.register_forward_hook(note) for module in model.modules() if _mixes_units(module)]
        handles.append(submodule(model, bottleneck).register_forward_hook(close))
    try:
        yield layer
    finally:
        for handle in handles:
            handle.remove()


def _mixes_units(module: nn.Module) -> bool:
    """Return True for a layer of torch, and for a module with parameters of its own and no layer inside."""
    if isinstance(module, MIXING):
        return True
    if (
        "Norm" in type(module).__name__
        or isinstance(module, nn.PReLU)
        or next(module.parameters(recurse=False), None) is None
    ):
        return False
    return not any(isinstance(child, MIXING) for child in module.modules())


def has_channels_in_front(module: nn.Module) -> bool:
    """Return True for a module that keeps its channels in axis 1, such as a convolution, or that has such a module inside.

    >>> has_channels_in_front(nn.Conv2d(1, 8, 3)), has_channels_in_front(nn.Linear(1, 8))
    (True, False)
    """
    layers = {type(child).__name__ for child in module.modules()}
    # the Conv1D of transformers is a linear layer: its features are the last axis
    return any(word in layer and layer != "Conv1D" for layer in layers for word in CHANNELS_IN_FRONT)
