"""Tensors from arrays, lists and torch data sets."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from harness.errors import HarnessError


def tensor(values: Any) -> Tensor:
    """Return references as a plain dense tensor on the CPU: float64 becomes float32, other dtypes stay.

    >>> tensor(np.array([[1.0, 2.0]])).dtype
    torch.float32

    Raises:
        HarnessError: for objects, texts, dates or ragged lists.
    """
    exact = exact_tensor(values)
    return exact.float() if exact.dtype == torch.float64 else exact


def exact_tensor(values: Any) -> Tensor:
    """Return a plain dense tensor on the CPU with the dtype of the values, float64 included.

    Rows are cast to the model's precision later; an activation matrix is judged in its own precision.

    Raises:
        HarnessError: for objects, texts, dates or ragged lists.
    """
    if isinstance(values, Tensor):
        detached = values.detach()
        return (detached if detached.layout == torch.strided else detached.to_dense()).cpu()
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise HarnessError(f"expected a rectangular array of numbers: {error}") from error
    return torch.from_numpy(np.array(_numeric(array), order="C"))


def of_dataset(dataset: "Dataset[Any]") -> tuple[Tensor, Tensor | None]:
    """Return all items of a torch `Dataset` in memory: inputs, and labels where an item is `(input, label)`.

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
        raise HarnessError("expected a torch Dataset with a length, since its rows are read into memory once")
    items = [dataset[index] for index in range(len(dataset))]
    if not items:
        raise HarnessError("the torch Dataset has no items")
    if not isinstance(items[0], tuple | list):
        return _stack(items), None
    inputs, seconds = _stack([item[0] for item in items]), [item[1] for item in items if len(item) > 1]
    return inputs, None if all(second is None for second in seconds) else _stack(seconds)


def labels_beside(inputs: Tensor, second: Any) -> Tensor | None:
    """Return the labels beside inputs; None where the second value repeats the inputs, as an autoencoder's targets do.

    >>> rows = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> labels_beside(rows, rows.clone()), labels_beside(rows, [0, 1])
    (None, tensor([0, 1]))

    Raises:
        HarnessError: for targets that differ from the inputs, which the loss would not receive.
    """
    if second is None:
        return None
    labels = tensor(second)
    if labels.shape != inputs.shape:
        return labels
    if torch.allclose(labels.float(), inputs.float(), rtol=0, atol=0, equal_nan=True):
        return None
    if inputs[:1].numel() > 1:
        raise HarnessError(
            "the second value has the shape of the inputs and differs from them, as a target does, but `losses` receives "
            "the inputs alone; name it `target` in the signature of `losses`, or return the inputs alone"
        )
    return labels


def _stack(items: list[Any]) -> Tensor:
    rows = [exact_tensor(item) for item in items]
    shapes = {tuple(row.shape) for row in rows}
    if len(shapes) > 1:
        raise HarnessError(f"the items of the torch Dataset differ in shape: {sorted(shapes)[:3]}")
    return torch.stack(rows)


def _numeric(array: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    if array.dtype.kind not in "fiubc":
        raise HarnessError(f"expected numbers, got an array of {array.dtype}")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        return array.astype(np.float64)
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        return array.astype(np.int64)
    return array.astype(array.dtype.newbyteorder("="), copy=False)
