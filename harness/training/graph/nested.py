"""Nested tensors: iteration, replacement, bitwise comparison, restoration."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


def iter_tensors(nested: Any) -> Iterator[Tensor]:
    """Yield the tensors of nested tuples, lists and mappings, in order.

    >>> [float(tensor) for tensor in iter_tensors((torch.tensor(1.0), {"a": torch.tensor(2.0), "b": 3.0}))]
    [1.0, 2.0]
    """
    if isinstance(nested, Tensor):
        yield nested
    elif isinstance(nested, dict):
        for item in nested.values():
            yield from iter_tensors(item)
    elif isinstance(nested, tuple | list):
        for item in nested:
            yield from iter_tensors(item)


def replace_tensors(nested: Any, tensors: Iterator[Tensor]) -> Any:
    """Return the same nesting with its tensors replaced by these.

    >>> replace_tensors((torch.tensor(1), {"a": torch.tensor(2), "b": 3}), iter([torch.tensor(8), torch.tensor(9)]))
    (tensor(8), {'a': tensor(9), 'b': 3})
    """
    if isinstance(nested, Tensor):
        return next(tensors)
    if isinstance(nested, dict):
        return {name: replace_tensors(item, tensors) for name, item in nested.items()}
    if isinstance(nested, tuple | list):
        return type(nested)([replace_tensors(item, tensors) for item in nested])
    return nested


def bitwise_equal(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    """Return True if tensors are bitwise equal; NaN equals NaN.

    >>> bitwise_equal([torch.tensor([torch.nan, 1.0])], [torch.tensor([torch.nan, 1.0])])
    True
    """
    return len(actual) == len(expected) and all(
        torch.equal(torch.nan_to_num(a, nan=0.125), torch.nan_to_num(b, nan=0.125))
        and torch.equal(a.isnan(), b.isnan())
        for a, b in zip(actual, expected, strict=True)
    )


@contextmanager
def restore_nesting(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Restore the memory of these tensors, and of tensors that share it, when the block ends.

    >>> values = torch.zeros(2)
    >>> with restore_nesting([values]):
    ...     values[0] = 1.0
    >>> values
    tensor([0., 0.])
    """
    storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage() for tensor in tensors}
    before = {key: storage.clone() for key, storage in storages.items()}
    try:
        yield
    finally:
        for key, storage in storages.items():
            storage.copy_(before[key])
