"""From what users have (arrays, lists, data sets of torch) to tensors."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from harness.errors import HarnessError


def tensor(values: Any) -> Tensor:
    """References as a plain dense tensor on the CPU: float64 becomes float32, other kinds keep theirs.

    >>> tensor(np.array([[1.0, 2.0]])).dtype
    torch.float32

    Raises:
        HarnessError: for objects, words, dates or ragged lists.
    """
    found = exact_tensor(values)
    return found.float() if found.dtype == torch.float64 else found


def exact_tensor(values: Any) -> Tensor:
    """The same with float64 kept: rows wait for their model's precision, a matrix is judged at that it was written in.

    Raises:
        HarnessError: for objects, words, dates or ragged lists.
    """
    if isinstance(values, Tensor):
        found = values.detach()
        return (found if found.layout == torch.strided else found.to_dense()).cpu()
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise HarnessError(f"a rectangular array of numbers is wanted: {error}") from error
    return torch.from_numpy(np.array(_numeric(array), order="C"))


def of_dataset(dataset: "Dataset[Any]") -> tuple[Tensor, Tensor | None]:
    """All items of a torch `Dataset` in memory: inputs, and labels where an item is `(input, label)`.

    Raises:
        HarnessError: for an iterable data set without a length, no items, items of unequal shape, or targets that
            differ from their inputs.
    """
    inputs, seconds = dataset_pairs(dataset)
    return inputs, labels_beside(inputs, seconds)


def dataset_pairs(dataset: "Dataset[Any]") -> tuple[Tensor, Tensor | None]:
    """Read all items of a torch `Dataset`: inputs, and the second parts if items are pairs.

    Raises:
        HarnessError: for an iterable data set without a length, no items, or items of unequal shape.
    """
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise HarnessError("a torch Dataset with a length is wanted, as its rows are read into memory once")
    items = [dataset[index] for index in range(len(dataset))]
    if not items:
        raise HarnessError("the torch Dataset has no items")
    if not isinstance(items[0], tuple | list):
        return _stack(items), None
    inputs, seconds = _stack([item[0] for item in items]), [item[1] for item in items if len(item) > 1]
    return inputs, None if all(second is None for second in seconds) else _stack(seconds)


def labels_beside(inputs: Tensor, second: Any) -> Tensor | None:
    """The labels that come with inputs; none where that is the inputs again, as an autoencoder's targets are.

    >>> rows = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> labels_beside(rows, rows.clone()), labels_beside(rows, [0, 1])
    (None, tensor([0, 1]))

    Raises:
        HarnessError: for targets that differ from the inputs, which no loss would be given.
    """
    if second is None:
        return None
    found = tensor(second)
    if found.shape != inputs.shape:
        return found
    if torch.allclose(found.float(), inputs.float(), rtol=0, atol=0, equal_nan=True):
        return None
    if inputs[:1].numel() > 1:
        raise HarnessError(
            "what comes second has the shape of the inputs and differs from them, as a target does, and `losses` is "
            "given the inputs alone; return these, and let `losses` make of them what it compares with (noise, a shift)"
        )
    return found


def _stack(items: list[Any]) -> Tensor:
    rows = [exact_tensor(item) for item in items]
    shapes = {tuple(row.shape) for row in rows}
    if len(shapes) > 1:
        raise HarnessError(f"the items of the torch Dataset differ in shape: {sorted(shapes)[:3]}")
    return torch.stack(rows)


def _numeric(array: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    if array.dtype.kind not in "fiubc":
        raise HarnessError(f"numbers are wanted, an array of {array.dtype} was given")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        return array.astype(np.float64)
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        return array.astype(np.int64)
    return array.astype(array.dtype.newbyteorder("="))
