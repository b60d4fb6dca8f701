"""In which numbers a model computes: its own, and wider ones for what is summed up of it."""

import torch
from torch import Tensor, nn


def own_precision(model: nn.Module) -> torch.dtype:
    """The precision of a model: of its first floating parameter, else of its first floating buffer, else float32.

    >>> own_precision(nn.Linear(2, 2).double())
    torch.float64
    """
    return precisions(model)[0]


def precisions(model: nn.Module) -> list[torch.dtype]:
    """Every precision that the parameters are in, the model's own first; that of its buffers where it has none.

    >>> precisions(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2).double()))
    [torch.float32, torch.float64]
    """
    for held in (model.parameters(), model.buffers()):
        found = dict.fromkeys(each.dtype for each in held if each.is_floating_point())
        if found:
            return list(found)
    return [torch.float32]


def precision_for(model: nn.Module, rows: Tensor) -> torch.dtype:
    """In what a model is trained on rows that it takes: in theirs, or in its own where they are integers.

    >>> precision_for(nn.Embedding(9, 2), torch.tensor([[1, 2]]))
    torch.float32
    """
    return rows.dtype if rows.is_floating_point() else own_precision(model)


def cast_floats(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Floats in another precision; integers, which name things, stay what they are.

    >>> cast_floats(torch.tensor([1.5]), torch.float64), cast_floats(torch.tensor([3]), torch.float64)
    (tensor([1.5000], dtype=torch.float64), tensor([3]))
    """
    return rows.to(dtype) if rows.is_floating_point() else rows


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """What sums and products of numbers are kept in: at least float32, as the squares of 16-bit floats leave their range.

    >>> accumulation_dtype(torch.bfloat16), accumulation_dtype(torch.float64)
    (torch.float32, torch.float64)
    """
    return torch.promote_types(dtype, torch.float32)


SIXTEEN_BITS = (torch.float16, torch.bfloat16)
