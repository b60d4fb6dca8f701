"""What `diagnose` was asked, checked once at the border."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.diagnosis.input_checks import (
    activation_matrix,
    finite_rows,
    flat_rows,
    per_unit,
    references_of,
    tensor_of,
    yes_or_no,
)
from harness.diagnosis.thresholds import Thresholds
from harness.errors import HarnessError
from harness.measures.constancy import precision_of
from harness.measures.units import activation_named


@dataclass(frozen=True)
class DiagnosisInputs:
    """What `diagnose` was asked, checked: tensors on the CPU, one leading member axis everywhere.

    Args:
        activations, repeat, before: `[member, sample, unit]`. scale, ablation: `[member, unit]`.
        inputs, training: `[sample, feature]`. reconstruction: `[member, sample, feature]`.
        references: `[sample]` each. dtype: the model's own precision.
    """

    activations: Tensor
    activation: str
    dtype: torch.dtype
    references: Mapping[str, Tensor]
    inputs: Tensor | None
    training: Tensor | None
    reconstruction: Tensor | None
    target: float | None
    repeat: Tensor | None
    before: Tensor | None
    scale: Tensor | None
    ablation: NDArray[np.float64] | None
    blocks: Tensor | None
    thresholds: Thresholds


def check_inputs(
    activations: Any, activation: str, labels: Any, factors: Any, inputs: Any, reconstruction: Any, target: Any,
    repeat: Any, members: bool, dtype: Any, scale: Any, ablation: Any, blocks: Any, training_inputs: Any,
    normalised: Any, thresholds: Thresholds,
) -> DiagnosisInputs:  # fmt: skip
    """The arguments of `diagnose` as tensors of one shape.

    Raises:
        HarnessError: as `diagnose` says.
    """
    if not isinstance(thresholds, Thresholds):
        raise HarnessError(
            f"thresholds: a harness.Thresholds is wanted, {type(thresholds).__name__} was given;"
            " e.g. Thresholds(near_constant=1e-4)"
        )
    matrix = activation_matrix(activations, yes_or_no(members, "members"))
    count, rows, units = matrix.shape
    if reconstruction is not None and inputs is None:
        raise HarnessError("reconstruction: it is compared with the inputs; give inputs=... as well")
    same = None if inputs is None else finite_rows(flat_rows(inputs, "inputs", rows), "inputs")
    return DiagnosisInputs(
        activations=matrix,
        activation=activation_named(activation),
        dtype=precision_of(matrix, dtype),
        references=references_of(labels, factors, rows),
        inputs=same,
        training=_training(training_inputs, same),
        reconstruction=_reconstruction(reconstruction, same, count if members else None),
        target=_target(target),
        repeat=_alike(repeat, "repeat", matrix, members),
        before=_alike(normalised, "normalised", matrix, members),
        scale=None if scale is None else _sizes(scale, (count, units)),
        ablation=None if ablation is None else per_unit(ablation, "ablation", (count, units)),
        blocks=None if blocks is None else _blocks(blocks, rows),
        thresholds=thresholds,
    )


def _sizes(scale: Any, shape: tuple[int, int]) -> Tensor:
    sizes = torch.from_numpy(per_unit(scale, "scale", shape))
    if not bool(((sizes >= 0) & torch.isfinite(sizes)).all()):
        raise HarnessError("scale: sizes of sums are wanted, finite and at least 0")
    return sizes


def _alike(values: Any, name: str, matrix: Tensor, members: bool) -> Tensor | None:
    if values is None:
        return None
    given = activation_matrix(values, members, name)
    if given.shape != matrix.shape:
        raise HarnessError(
            f"{name}: the shape of the activations is wanted, {list(matrix.shape)} with members in front;"
            f" it is {list(given.shape)}"
        )
    return given


def _reconstruction(values: Any, inputs: Tensor | None, members: int | None) -> Tensor | None:
    if values is None or inputs is None:
        return None
    made = flat_rows(values, "reconstruction", len(inputs), members)
    if made.shape[-1] != inputs.shape[-1]:
        raise HarnessError(
            f"reconstruction: {made.shape[-1]} features a row, the inputs have {inputs.shape[-1]};"
            " they are compared one by one"
        )
    return made if members is not None else made[None]


def _training(values: Any, inputs: Tensor | None) -> Tensor | None:
    if values is None or inputs is None:
        return None
    rows = tensor_of(values, "training_inputs")
    flat = finite_rows(flat_rows(rows, "training_inputs", len(rows) if rows.ndim else 0), "training_inputs")
    if flat.shape[-1] != inputs.shape[-1]:
        raise HarnessError(f"training_inputs: {flat.shape[-1]} features a row, the inputs have {inputs.shape[-1]}")
    return flat


def _blocks(values: Any, rows: int) -> Tensor:
    blocks = tensor_of(values, "blocks")
    if blocks.ndim != 1 or len(blocks) != rows:
        raise HarnessError(f"blocks: one number a row is wanted, {rows} rows; the shape is {list(blocks.shape)}")
    if not bool(torch.isfinite(blocks.double()).all()):
        raise HarnessError("blocks: NaN or infinite names no block")
    return blocks.unique(return_inverse=True)[1]


def _target(target: Any) -> float | None:
    if target is None:
        return None
    try:
        value = None if isinstance(target, str | bool) else float(target)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        value = None
    if value is None:
        raise HarnessError(f"target: a number, the penalty's rho, is wanted; {str(target)[:40]!r} was given")
    if not np.isfinite(value):
        raise HarnessError(f"target: a finite number, the penalty's rho, is wanted; {target!r} was given")
    return value
