"""Nested tensors: taken out, put back, compared bit for bit, restored after a trial."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


def iter_tensors(nested: Any) -> Iterator[Tensor]:
    """The tensors of nested tuples, lists and mappings, in their order.

    >>> [float(each) for each in iter_tensors((torch.tensor(1.0), {"a": torch.tensor(2.0), "b": 3.0}))]
    [1.0, 2.0]
    """
    if isinstance(nested, Tensor):
        yield nested
    elif isinstance(nested, dict):
        for each in nested.values():
            yield from iter_tensors(each)
    elif isinstance(nested, tuple | list):
        for each in nested:
            yield from iter_tensors(each)


def replace_tensors(nested: Any, tensors: Iterator[Tensor]) -> Any:
    """The same nesting, with these tensors in the places of its own.

    >>> replace_tensors((torch.tensor(1), {"a": torch.tensor(2), "b": 3}), iter([torch.tensor(8), torch.tensor(9)]))
    (tensor(8), {'a': tensor(9), 'b': 3})
    """
    if isinstance(nested, Tensor):
        return next(tensors)
    if isinstance(nested, dict):
        return {name: replace_tensors(each, tensors) for name, each in nested.items()}
    if isinstance(nested, tuple | list):
        return type(nested)([replace_tensors(each, tensors) for each in nested])
    return nested


def bitwise_equal(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> bool:
    """Whether tensors agree bit for bit, NaN being equal to NaN.

    >>> bitwise_equal([torch.tensor([torch.nan, 1.0])], [torch.tensor([torch.nan, 1.0])])
    True
    """
    return len(found) == len(wanted) and all(
        torch.equal(torch.nan_to_num(one, nan=0.125), torch.nan_to_num(other, nan=0.125))
        and torch.equal(one.isnan(), other.isnan())
        for one, other in zip(found, wanted, strict=True)
    )


@contextmanager
def restore_nesting(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Afterwards the memory of these tensors is as it was, whoever shares it.

    >>> values = torch.zeros(2)
    >>> with restore_nesting([values]):
    ...     values[0] = 1.0
    >>> values
    tensor([0., 0.])
    """
    storages = {each.untyped_storage()._cdata: each.untyped_storage() for each in tensors}
    before = {key: storage.clone() for key, storage in storages.items()}
    try:
        yield
    finally:
        for key, storage in storages.items():
            storage.copy_(before[key])
