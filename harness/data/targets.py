"""Targets: the second part of the data, for a loss that names `target`."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from harness.data.rows import Rows
from harness.data.tensors import dataset_pairs, exact_tensor
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.case import Case


def paired_rows(data: Any) -> Rows:
    """Return the rows of `(inputs, targets)` or of a torch `Dataset` of such pairs.

    >>> paired_rows((torch.tensor([[1.0], [2.0]]), [0, 1])).targets
    tensor([0, 1])

    Raises:
        HarnessError: for a tuple of another length.
    """
    if isinstance(data, Dataset):
        inputs, targets = dataset_pairs(data)
        return Rows(inputs, targets=targets)
    if len(data) != 2:
        raise HarnessError(f"expected (inputs, targets), got a tuple of {len(data)}")
    return Rows(exact_tensor(data[0]), targets=None if data[1] is None else exact_tensor(data[1]))


def with_targets(case: "Case", rows: Rows, where: str) -> Rows:
    """Return the rows with their labels as targets if the case's loss names `target` and the rows have no targets.

    Raises:
        HarnessError: when the loss needs targets and the rows have neither targets nor labels.
    """
    if "target" not in case.supplied_keywords():
        return rows if rows.targets is None else replace(rows, targets=None)
    if rows.targets is not None:
        return rows
    if rows.labels is not None:
        return replace(rows, targets=rows.labels)
    if case.needs_target:
        raise HarnessError(
            f"{where}: expected targets, because losses names `target`, got inputs alone; return (inputs, targets)"
        )
    return rows


def checked_targets(rows: Rows, dtype: torch.dtype, where: str) -> Tensor | None:
    """Return the targets: floats in the precision of the inputs, integers as int64.

    Raises:
        HarnessError: for NaN, infinity, complex numbers or another number of rows.
    """
    targets = rows.targets
    if targets is None:
        return None
    if targets.is_complex():
        raise HarnessError(f"{where}: targets: expected real numbers, got {targets.dtype}")
    if targets.ndim == 0 or len(targets) != len(rows):
        raise HarnessError(
            f"{where}: targets: expected one per row, got shape {list(targets.shape)} for {len(rows)} rows"
        )
    if not bool(targets.isfinite().all()):
        raise HarnessError(f"{where}: targets: NaN or infinite values; clean them")
    if not targets.is_floating_point():
        return targets.long()
    return targets.to(dtype) if dtype.is_floating_point else targets
