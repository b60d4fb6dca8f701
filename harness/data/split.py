"""Training rows and held-out rows of a case: read once, checked, and the same for every member."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from harness.data.datasets import DATASETS, load
from harness.data.readers import read_array
from harness.data.rows import Rows, Split
from harness.data.targets import checked_targets, paired_rows, with_targets
from harness.data.tensors import exact_tensor, labels_beside, of_dataset, tensor
from harness.errors import HarnessError, did_you_mean
from harness.loss_terms import bind_losses
from harness.models import input_dtype
from harness.placement import aligned
from harness.user_code import failure, guarded

if TYPE_CHECKING:
    from harness.case import Case

MINIMUM_ROWS = 10  # a held-out fifth must have at least two rows
MINIMUM_HELD_OUT = 2
HELD_OUT = 5  # one of five rows, or blocks of rows, is held out


def split_of(case: "Case", data: str | None = None, split: int = 0) -> Split:
    """Return the rows of a case, or of another data set or file, in memory and in the model's own dtype.

    For a case without `evaluation`, a fixed fifth of the rows is held out; where rows have blocks, whole blocks. The
    choice depends on the number of rows alone.

    Args:
        case: its labels and factors belong to its own rows, and are not used with other `data`.
        data: a name of `DATASETS`, or a file that `read_array` reads.
        split: number of the split, from 0. Any other than 0 holds out another choice of as many rows; for a case with
            held-out rows of its own, both parts are pooled for it.

    Raises:
        HarnessError: for NaN, a wrong rank, too few rows, constant data, references of another length.
    """
    where = f"data {data}" if data is not None else f"case {case.name}: data"
    train, evaluation = _other_rows(data) if data is not None else _own_rows(case)
    train = with_targets(case, train, where)
    evaluation = None if evaluation is None else with_targets(case, evaluation, where)
    dtype = input_dtype(bind_losses(case, train.targets), train.inputs)
    train = check_rows(train, where, dtype=dtype)
    own_evaluation = evaluation is not None
    if evaluation is None:
        train, evaluation = hold_out(train, split)
    checked = check_rows(evaluation, where.replace(": data", ": evaluation"), MINIMUM_HELD_OUT, dtype)
    if checked.inputs.shape[1:] != train.inputs.shape[1:]:
        shapes = f"{list(train.inputs.shape[1:])} in training, {list(checked.inputs.shape[1:])} in evaluation"
        raise HarnessError(f"{where}: rows differ in shape: {shapes}")
    if split and own_evaluation:
        train, checked = hold_out(pooled(train, checked), split, groups_of(checked))
    return Split(train, checked, fingerprint(train, checked))


def hold_out(rows: Rows, split: int = 0, count: int | None = None) -> tuple[Rows, Rows]:
    """Split rows into training rows and a fixed fifth that is held out, both in their original order.

    Args:
        rows: whole blocks are held out where rows have blocks.
        split: number of the split; each holds out another choice.
        count: number of held-out blocks, or rows without blocks; a fifth by default.

    >>> train, evaluation = hold_out(Rows(torch.arange(20.0)[:, None]))
    >>> len(train), len(evaluation)
    (16, 4)

    Raises:
        HarnessError: for rows in fewer than two blocks.
    """
    groups = torch.arange(len(rows)) if rows.blocks is None else rows.blocks.unique(return_inverse=True)[1]
    total = int(groups.max()) + 1
    if total < 2:
        raise HarnessError("all rows lie in one block, so none of them can be held out; give the case an `evaluation`")
    order = torch.randperm(total, generator=torch.Generator().manual_seed(split))
    is_held_out = torch.isin(groups, order[: max(1, total // HELD_OUT) if count is None else count])
    return rows.take((~is_held_out).nonzero()[:, 0]), rows.take(is_held_out.nonzero()[:, 0])


def check_splits(case: "Case", splits: int) -> None:
    """Check that a case can be trained on several splits of its rows.

    Raises:
        HarnessError: for a case whose own `fit` chooses its rows.
    """
    if splits > 1 and case.fit is not None:
        raise HarnessError(
            f"splits: {case.name} trains by its own Case.fit, which chooses its rows itself; expected 1, got {splits}"
        )


def groups_of(rows: Rows) -> int:
    """Count the blocks of the rows; the rows themselves where they have none."""
    return len(rows) if rows.blocks is None else len(rows.blocks.unique())


def pooled(train: Rows, evaluation: Rows) -> Rows:
    """Join training rows and held-out rows; references that only one part has are left out."""
    blocks = None
    if train.blocks is not None and evaluation.blocks is not None:
        blocks = torch.cat([train.blocks, evaluation.blocks + train.blocks.max() + 1 - evaluation.blocks.min()])
    return Rows(
        torch.cat([train.inputs, evaluation.inputs]),
        _joined(train.labels, evaluation.labels),
        {
            name: torch.cat([values, evaluation.factors[name]])
            for name, values in train.factors.items()
            if name in evaluation.factors
        },
        blocks,
        _joined(train.targets, evaluation.targets),
    )


def _joined(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    return None if first is None or second is None else torch.cat([first, second])


def check_rows(rows: Rows, where: str, least: int = MINIMUM_ROWS, dtype: torch.dtype = torch.float32) -> Rows:
    """Return the rows with inputs of this dtype, after checking that a model can be trained on them.

    Raises:
        HarnessError: for NaN or infinity, a wrong rank, too few rows, constant data, references of another length.
    """
    inputs = rows.inputs
    if inputs.is_complex():
        raise HarnessError(f"{where}: expected real numbers, got {inputs.dtype}")
    if inputs.ndim < 2 or not inputs[:1].numel():
        raise HarnessError(f"{where}: expected [sample, feature, ...], got an array of shape {list(inputs.shape)}")
    if len(inputs) < least:
        raise HarnessError(f"{where}: expected at least {least} rows, got {len(inputs)}")
    inputs = _as_numbers(inputs, dtype, where)
    if bool((inputs == inputs[:1]).all()):
        rounded = bool((rows.inputs != rows.inputs[:1]).any())
        precision = f" in {_name(dtype)}, the model's precision" if rounded else ""
        raise HarnessError(f"{where}: all {len(inputs)} rows are equal{precision}: there is nothing to learn")
    return Rows(inputs, _labels(rows, where), _factors(rows, where), rows.blocks, checked_targets(rows, dtype, where))


def _as_numbers(values: Tensor, dtype: torch.dtype, where: str) -> Tensor:
    if not dtype.is_floating_point and values.is_floating_point():
        raise HarnessError(f"{where}: expected integers, as in the training rows, got {values.dtype}")
    inputs = aligned(values.to(dtype))
    bad = (~inputs.isfinite()).flatten(1).any(1).nonzero()[:, 0].tolist()
    if bad:
        finite = bool(values[bad[0]].isfinite().all())
        advice = f"too large for {_name(dtype)}, the model's precision: scale them"
        raise HarnessError(
            f"{where}: NaN or infinite values in {len(bad)} rows (the first is row {bad[0]}): "
            f"{advice if finite else 'clean them'}"
        )
    return inputs


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def fingerprint(*parts: Rows) -> str:
    """Return the SHA-256 of all bytes, shapes and dtypes of the rows and their references."""
    digest = hashlib.sha256()
    for rows in parts:
        arrays = {
            "inputs": rows.inputs,
            "labels": rows.labels,
            "blocks": rows.blocks,
            "targets": rows.targets,
            **rows.factors,
        }
        for name, values in arrays.items():
            if values is not None:
                digest.update(f"{name} {values.dtype} {list(values.shape)}".encode())
                # NumPy has no bfloat16, only its bits
                bits = values.view(torch.int16) if values.dtype == torch.bfloat16 else values
                digest.update(bits.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _other_rows(data: str) -> tuple[Rows, Rows | None]:
    if data in DATASETS:
        return load(data)
    if not Path(data.rpartition(":")[0] or data).suffix and not Path(data).suffix:
        raise HarnessError(f"{did_you_mean('data set', data, DATASETS)}; or give a file: .npy .npz .pt .csv .parquet")
    return Rows(read_array(data)), None


def _own_rows(case: "Case") -> tuple[Rows, Rows | None]:
    paired = "target" in case.supplied_keywords()
    train = _as_rows(case.data, f"case {case.name}: data", paired)
    labels = train.labels if case.labels is None else tensor(case.labels)
    factors = {**train.factors, **{name: tensor(values) for name, values in (case.factors or {}).items()}}
    evaluation = None if case.evaluation is None else _as_rows(case.evaluation, f"case {case.name}: evaluation", paired)
    own = Rows(train.inputs, labels, factors, train.blocks, train.targets)
    if evaluation is not None:
        _check_references(own, evaluation, f"case {case.name}")
    return own, evaluation


def _check_references(own: Rows, evaluation: Rows, where: str) -> None:
    """Check that the held-out rows, which are judged, have the references of the case's own rows."""
    missing = ["labels"] if own.labels is not None and evaluation.labels is None else []
    missing += [f"factor {name!r}" for name in own.factors if name not in evaluation.factors]
    if missing:
        raise HarnessError(
            f"{where}: {', '.join(missing)}: the rows of `data` have them, the rows of `evaluation`, on which mutual "
            "information is measured, do not; let `evaluation` return (tensor, labels), or harness.Rows with `factors`, "
            "or let `data` return the inputs alone"
        )


def _as_rows(load: Callable[[], Any], where: str, paired: bool = False) -> Rows:
    try:
        with guarded():
            return _rows_from(load(), where, paired)
    except HarnessError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise HarnessError(f"{where}: reading it {failure(error)}") from error


def _rows_from(data: Any, where: str, paired: bool = False) -> Rows:
    try:
        if isinstance(data, Rows):
            return _in_memory(data)
        if paired and isinstance(data, Dataset | tuple):
            return paired_rows(data)
        if isinstance(data, Dataset):
            return Rows(*of_dataset(data))
        if isinstance(data, tuple) and len(data) == 2:
            inputs = exact_tensor(data[0])
            return Rows(inputs, labels_beside(inputs, data[1]))
        return Rows(exact_tensor(data))
    except HarnessError as error:
        raise HarnessError(f"{where}: expected a tensor, (tensor, labels), a torch Dataset or Rows: {error}") from error


def _in_memory(rows: Rows) -> Rows:
    """Return the same rows on the CPU."""
    labels, blocks, targets = (
        None if values is None else exact_tensor(values) for values in (rows.labels, rows.blocks, rows.targets)
    )
    factors = {name: exact_tensor(values) for name, values in rows.factors.items()}
    return Rows(exact_tensor(rows.inputs), labels, factors, blocks, targets)


def _labels(rows: Rows, where: str) -> Tensor | None:
    if rows.labels is None:
        return None
    labels = _reference(rows.labels, len(rows), f"{where}: labels")
    if labels.is_floating_point() and not bool((labels == labels.round()).all()):
        raise HarnessError(
            f"{where}: expected whole-number labels, one class per row; put continuous values in `factors`"
        )
    return labels.long()


def _factors(rows: Rows, where: str) -> Mapping[str, Tensor]:
    return {name: _reference(values, len(rows), f"{where}: factor {name!r}") for name, values in rows.factors.items()}


def _reference(values: Tensor, rows: int, where: str) -> Tensor:
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or len(values) != rows:
        raise HarnessError(f"{where}: expected one value per row, got {list(values.shape)} for {rows} rows")
    if not bool(values.isfinite().all()):
        raise HarnessError(f"{where}: NaN or infinite values")
    return values.long() if values.dtype in (torch.bool, torch.uint8, torch.int32) else values
