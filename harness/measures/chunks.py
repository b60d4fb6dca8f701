"""Chunks of the unit axis, so that wide layers are measured in bounded memory."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

CHUNK = 1 << 21
"""Numbers held in float64 at a time: 16 MB a copy."""
UNIT_CHUNK = 1 << 18
"""The same for single units, 2 MB a copy: larger blocks leave holes in the heap that add up to gigabytes."""


def chunks(shape: tuple[int, ...], numbers: int = CHUNK) -> Iterator[slice]:
    """Slices of the unit axis of `[*member, sample, unit]`, each of at most `numbers` values or one unit.

    >>> [(piece.start, piece.stop) for piece in chunks((1000, 5), 2000)]
    [(0, 2), (2, 4), (4, 5)]
    """
    units = shape[-1]
    numbers_per_unit = max(1, torch.Size(shape[:-1]).numel())
    step = max(1, numbers // numbers_per_unit)
    for start in range(0, units, step):
        yield slice(start, min(start + step, units))


def unit_rows(activations: Tensor, chunk: slice) -> tuple[Tensor, Tensor]:
    """Some units as contiguous float64 lines, 0 for a unit that is not finite.

    Returns:
        Lines `[*member, unit, sample]`, and which units are finite, `[*member, unit]`.

    >>> unit_rows(torch.tensor([[1.0, torch.nan], [2.0, 3.0]]), slice(0, 2))
    (tensor([[1., 2.],
            [0., 0.]], dtype=torch.float64), tensor([ True, False]))
    """
    values = activations[..., chunk].movedim(-1, -2).double().contiguous()
    finite = torch.isfinite(values).all(-1)
    return torch.where(finite[..., None], values, torch.zeros((), dtype=torch.float64)), finite


def map_units(measure: Callable[[Tensor], Tensor], activations: Tensor) -> Tensor:
    """`measure` of the lines of `unit_rows`, some units at a time, `[*member, unit]`; NaN for a unit not finite.

    >>> map_units(lambda lines: lines.sum(-1), torch.tensor([[1.0, torch.nan], [2.0, 3.0]])).tolist()
    [3.0, nan]
    """
    parts = []
    for chunk in chunks(tuple(activations.shape), UNIT_CHUNK):
        lines, finite = unit_rows(activations, chunk)
        parts.append(torch.where(finite, measure(lines), torch.nan))
    return torch.cat(parts, dim=-1)
