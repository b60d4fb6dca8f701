"""Wide layers in bounded memory: a measure of single units is taken over some units at a time."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

CHUNK = 1 << 21
"""Numbers held in float64 at a time: 16 MB a copy."""


def chunks(shape: tuple[int, ...], numbers: int = CHUNK) -> Iterator[slice]:
    """Slices of the unit axis of `[*member, sample, unit]`, each of at most `numbers` values or one unit.

    >>> [(piece.start, piece.stop) for piece in chunks((1000, 5), 2000)]
    [(0, 2), (2, 4), (4, 5)]
    """
    units = shape[-1]
    a_unit = max(1, torch.Size(shape[:-1]).numel())
    step = max(1, numbers // a_unit)
    for start in range(0, units, step):
        yield slice(start, min(start + step, units))


def map_chunks(measure: Callable[[Tensor], Tensor], activations: Tensor) -> Tensor:
    """`measure` of the float64 copy of some units at a time, `[*member, unit]`; float64 itself is not copied."""
    found = [measure(activations[..., piece].double()) for piece in chunks(tuple(activations.shape))]
    return torch.cat(found, dim=-1)
