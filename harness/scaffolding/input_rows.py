"""Rows that a model might take, guessed from its first layer with weights."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from harness.capture.outputs import first_tensor

SIDES = (32, 28, 64, 16, 8)  # pixels of square images, or lengths of sequences
CONVOLUTIONS = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}


def input_candidates(network: nn.Module, rows: int) -> Iterator[Tensor]:
    """Yield random rows of the shapes that the model's layers suggest, the most likely first."""
    generator = torch.Generator().manual_seed(0)
    for layer in network.modules():
        for shape in _shapes(layer):
            yield torch.randn(rows, *shape, generator=generator)
        if isinstance(layer, nn.Embedding):
            for length in (16, 8):
                yield torch.randint(layer.num_embeddings, (rows, length), generator=generator)


def takes(network: nn.Module, rows: Tensor) -> bool:
    """True if the model can be called with the rows, and returns values for them."""
    with torch.random.fork_rng(), torch.no_grad():
        try:
            values = first_tensor(network.eval()(rows))
        except Exception:  # a wrong guess may fail in any way
            return False
    return values is not None and values.numel() > 0


def _shapes(layer: nn.Module) -> Iterator[tuple[int, ...]]:
    if isinstance(layer, nn.Linear):
        yield (layer.in_features,)
        yield (16, layer.in_features)
        side = round(layer.in_features**0.5)
        if side**2 == layer.in_features:
            yield (1, side, side)
    for convolution, axes in CONVOLUTIONS.items():
        if isinstance(layer, convolution):
            for side in SIDES:
                yield (layer.in_channels, *[side] * axes)
    if isinstance(layer, nn.RNNBase):
        yield (16, layer.input_size)
