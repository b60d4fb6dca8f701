"""Batches in the forms that data loaders yield, and calls of a model with them."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import DataLoader, Dataset, RandomSampler, default_collate

from harness.capture.packing import is_packed, on_device, packing_of
from harness.errors import HarnessError

ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class Call:
    """Arguments of one call of a model.

    Args:
        args, kwargs: the arguments.
        inputs: the first tensor among them.
        labels: whole numbers that the batch has beside its inputs, one per row, or None.
        targets: floats that the batch has beside its inputs, in the shape of these, or None.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: Tensor | None
    labels: Tensor | None = None
    targets: Tensor | None = None


def batches_of(rows: Any) -> Iterable[Any]:
    """Return batches of a tensor, a tuple or dict of tensors, or a `Dataset`; any other iterable yields batches itself.

    A packed sequence is one batch.

    >>> [len(batch) for batch in batches_of(torch.zeros(300, 2))]
    [256, 44]

    Raises:
        HarnessError: for an object that is not iterable.
    """
    if isinstance(rows, np.ndarray):
        rows = torch.as_tensor(rows)
        rows = rows.to(torch.get_default_dtype()) if rows.is_floating_point() else rows
    if isinstance(rows, Tensor):
        return rows.split(ROWS_AT_ONCE)
    if is_packed(rows):
        return [rows]
    if isinstance(rows, Mapping) and _equal_lengths(rows.values()):
        return _slices(rows, len(next(iter(rows.values()))))
    if isinstance(rows, tuple) and len(rows) > 1 and _equal_lengths(rows):
        return _slices(rows, len(rows[0]))
    if isinstance(rows, Dataset) and hasattr(rows, "__len__"):
        length = len(rows)
        return (
            default_collate([rows[index] for index in range(start, min(start + ROWS_AT_ONCE, length))])
            for start in range(0, length, ROWS_AT_ONCE)
        )
    if isinstance(rows, Iterable) and not isinstance(rows, str | Mapping):
        return rows
    raise HarnessError(
        f"rows: expected a tensor, a tuple or dict of tensors, a Dataset or a loader of batches, got {type(rows).__name__}"
    )


def call_of(model: nn.Module, batch: Any) -> Call:
    """Return the call of a model with a batch: `model(batch)`, `model(*batch)` as far as it takes arguments, `model(**batch)`.

    Of a tuple or list, the model gets as many items as its `forward` requires, at least one. Whole numbers behind them,
    one per row, are the labels. Of a dict, it gets the items that its `forward` names; if it names none, the dict itself.
    Whole numbers that it does not name, if there is one such item, are the labels. Floats behind the inputs of a tuple or
    list, in the shape of the inputs, are the targets.
    """
    batch = _on_device(model, batch)
    if isinstance(batch, Mapping):
        items = _named(model, batch)
        if not items and batch:
            return Call((batch,), {}, first_leaf(batch))
        inputs = _first_tensor(items.values())
        unnamed = [value for name, value in batch.items() if name not in items]
        classes = [value for value in unnamed if inputs is not None and _are_labels(value, len(inputs))]
        return Call((), items, inputs, classes[0] if len(classes) == 1 else None)
    if not isinstance(batch, tuple | list) or is_packed(batch):
        return Call((batch,), {}, batch if isinstance(batch, Tensor) else None)
    count = min(max(1, _required(model)), len(batch))
    inputs = _first_tensor(batch[:count])
    rest = batch[count] if len(batch) > count else None
    packing = packing_of(tuple(batch[:count]))
    rows = packing.samples if packing is not None else 0 if inputs is None else len(inputs)
    labels = rest if rows and _are_labels(rest, rows) else None
    paired = isinstance(rest, Tensor) and inputs is not None and rest.shape == inputs.shape and rest.is_floating_point()
    return Call(tuple(batch[:count]), {}, inputs, labels, rest if paired else None)


def run_model(model: nn.Module, batch: Any, forward: Callable[[Any], Any] | None) -> Call:
    """Run a model on a batch, by `forward(batch)` where it is declared, and return the call."""
    if forward is None:
        call = call_of(model, batch)
        model(*call.args, **call.kwargs)
        return call
    forward(batch)
    leaves = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, tuple | list) else [batch]
    return Call((), {}, _first_tensor(leaves))


def _are_labels(values: Any, rows: int) -> bool:
    if not isinstance(values, Tensor) or values.dim() != 1 or len(values) != rows:
        return False
    return not values.is_floating_point() and not values.is_complex()


def _slices(rows: Any, length: int) -> Iterator[Any]:
    for start in range(0, length, ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        if isinstance(rows, Mapping):
            yield {name: values[part] for name, values in rows.items()}
        else:
            yield tuple(values[part] for values in rows)


def _equal_lengths(values: Iterable[Any]) -> bool:
    tensors = list(values)
    if not tensors or not all(isinstance(value, Tensor) and value.dim() > 0 for value in tensors):
        return False
    return len({len(value) for value in tensors}) == 1


def _required(model: nn.Module) -> int:
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return 1
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(parameter.kind in positional and parameter.default is parameter.empty for parameter in parameters)


def _named(model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return the items of a batch that the model's `forward` names; all of them if it takes any."""
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return dict(batch)
    if any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters):
        return dict(batch)
    names = {parameter.name for parameter in parameters if parameter.kind != parameter.POSITIONAL_ONLY}
    return {name: value for name, value in batch.items() if name in names}


def _on_device(model: nn.Module, batch: Any) -> Any:
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    return tree_map(partial(on_device, device=device), batch, is_leaf=is_packed)


def _first_tensor(values: Iterable[Any]) -> Tensor | None:
    return next((value for value in values if isinstance(value, Tensor)), None)


def first_leaf(batch: Any) -> Tensor | None:
    """Return the first tensor in a batch of any nesting; None without one, or for packed sequences.

    >>> first_leaf({"name": "batch", "pixels": [torch.ones(1)]})
    tensor([1.])
    """
    leaves = tree_leaves(batch, is_leaf=is_packed)
    return None if any(map(is_packed, leaves)) else _first_tensor(leaves)


def loader_generators(rows: Any) -> list[torch.Generator]:
    """Return the generators of a data loader and its sampler."""
    if not isinstance(rows, DataLoader):
        return []
    candidates = (rows.generator, getattr(rows.sampler, "generator", None))
    return [generator for generator in candidates if isinstance(generator, torch.Generator)]


def is_shuffled(rows: Any) -> bool:
    """Return True for a data loader that draws its rows at random.

    >>> is_shuffled(DataLoader([1, 2], shuffle=True)), is_shuffled(DataLoader([1, 2]))
    (True, False)
    """
    return isinstance(rows, DataLoader) and isinstance(rows.sampler, RandomSampler)
