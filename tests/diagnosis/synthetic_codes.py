"""Codes with a stated truth, for the tests of the diagnosis."""

import torch
from torch import Tensor

ROWS = 2048


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(rows: int = ROWS, units: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(rows, units, generator=generator(seed))


def beside_zeros(unit: Tensor, units: int = 4) -> Tensor:
    """One unit, and the others exactly 0."""
    return torch.cat([unit[:, None], torch.zeros(len(unit), units - 1)], 1)


def labels(rows: int = ROWS, seed: int = 5) -> Tensor:
    return torch.randint(0, 4, (rows,), generator=generator(seed))
