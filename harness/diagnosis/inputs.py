"""Arguments of `diagnose`, checked once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.diagnosis.input_checks import (
    activation_matrix,
    are_categories,
    distinct_rows,
    finite_rows,
    flat_rows,
    per_unit,
    references_of,
    tensor_of,
    true_or_false,
)
from harness.diagnosis.thresholds import Thresholds
from harness.errors import HarnessError
from harness.measures.constancy import precision_of
from harness.measures.position_groups import PositionGroups, position_groups
from harness.measures.units import activation_named

Index = NDArray[np.int64]


@dataclass(frozen=True)
class DiagnosisInputs:
    """Checked arguments of `diagnose`: tensors on the CPU, with a leading member axis everywhere.

    Args:
        activations, repeat, before, kl: `[member, sample, unit]`. scale, ablation: `[member, unit]`. code_ablation: `[member]`.
        inputs, training, expected: `[sample, feature]`. reconstruction, output: `[member, sample, feature]`.
        references: `[sample]` each. dtype: the model's own precision.
        inferred: True where the activation was chosen from the values.
        categories: True where the inputs are tokens or categories.
        distinct: first row of every distinct input row; all rows without inputs.
        positions: rows of activations per row of the inputs and outputs.
        blocks: `[sample]`, the block of each row; None where rows are permuted one by one.
        groups: positions of the rows; None where each row is a sample.
    """

    activations: Tensor
    activation: str
    inferred: bool
    dtype: torch.dtype
    references: Mapping[str, Tensor]
    inputs: Tensor | None
    categories: bool
    distinct: Index
    positions: int
    training: Tensor | None
    reconstruction: Tensor | None
    expected: Tensor | None
    output: Tensor | None
    target: float | None
    repeat: Tensor | None
    before: Tensor | None
    kl: Tensor | None
    scale: Tensor | None
    ablation: NDArray[np.float64] | None
    code_ablation: NDArray[np.float64] | None
    blocks: Tensor | None
    groups: PositionGroups | None
    thresholds: Thresholds


def check_inputs(
    activations: Any, *, activation: str, labels: Any, factors: Any, inputs: Any, reconstruction: Any, target: Any,
    repeat: Any, posterior: Any, posterior_kl: Any, output: Any, expected_output: Any, members: bool, dtype: Any,
    scale: Any, ablation: Any, code_ablation: Any, blocks: Any, positions: Any, training_inputs: Any, normalised: Any,
    thresholds: Thresholds,
) -> DiagnosisInputs:  # fmt: skip
    """Return the arguments of `diagnose` as tensors of one shape.

    Raises:
        HarnessError: as described for `diagnose`.
    """
    if not isinstance(thresholds, Thresholds):
        raise HarnessError(
            f"thresholds: expected a harness.Thresholds, got {type(thresholds).__name__};"
            " e.g. Thresholds(near_constant=1e-4)"
        )
    matrix = activation_matrix(activations, true_or_false(members, "members"))
    count, rows, units = matrix.shape
    if reconstruction is not None and inputs is None and expected_output is None:
        raise HarnessError(
            "reconstruction: it is compared with the inputs; give inputs=..., or expected_output=... for another target"
        )
    judged = None if output is None else output[0] if members else output
    samples = rows if positions is None else _samples(rows, inputs, expected_output, judged)
    rows_in = None if inputs is None else finite_rows(flat_rows(inputs, "inputs", samples), "inputs")
    expected = _expected(expected_output, rows_in, samples)
    first, number = (np.arange(samples),) * 2 if rows_in is None else distinct_rows(rows_in)
    leading = count if members else None
    return DiagnosisInputs(
        activations=matrix,
        activation=_activation(activation, matrix),
        inferred=activation == AUTO,
        dtype=precision_of(matrix, dtype),
        references=references_of(labels, factors, rows),
        inputs=rows_in,
        categories=inputs is not None and are_categories(inputs),
        distinct=first,
        positions=rows // samples,
        training=_training(training_inputs, rows_in),
        reconstruction=_reconstruction(reconstruction, expected, leading),
        expected=expected,
        output=_output(output, samples, leading),
        target=_target(target),
        repeat=_same_shape(repeat, "repeat", matrix, members),
        before=_same_shape(normalised, "normalised", matrix, members),
        kl=_divergence(posterior, posterior_kl, matrix, members),
        scale=None if scale is None else _sizes(scale, (count, units)),
        ablation=None if ablation is None else per_unit(ablation, "ablation", (count, units)),
        code_ablation=None if code_ablation is None else _per_member(code_ablation, count),
        blocks=_default_blocks(number, rows) if blocks is None else _numbered(blocks, "blocks", rows),
        groups=None if positions is None else position_groups(_numbered(positions, "positions", rows)),
        thresholds=thresholds,
    )


def _per_member(values: Any, count: int) -> NDArray[np.float64]:
    return np.ravel(per_unit(tensor_of(values, "code_ablation").reshape(-1, 1), "code_ablation", (count, 1)))


def members_of(request: DiagnosisInputs, members: Sequence[int], activation: str) -> DiagnosisInputs:
    """Return the request for some of its members, with the activation of these."""
    if list(members) == list(range(len(request.activations))):  # without a copy of the values
        return replace(request, activation=activation)
    chosen = {name: getattr(request, name) for name in PER_MEMBER}
    parts: dict[str, Any] = {name: None if value is None else value[list(members)] for name, value in chosen.items()}
    return replace(request, activation=activation, **parts)


def inferred_activation(values: Tensor) -> str:
    """Activation that explains the range of the values: none, sigmoid or relu.

    Any negative value means that there is no activation or an unbounded one, values strictly between 0 and 1 mean a
    sigmoid. Values that are not finite are left out.

    >>> [inferred_activation(torch.tensor([low, high])) for low, high in ((-1.0, 2.0), (0.1, 0.9), (0.0, 0.9))]
    ['none', 'sigmoid', 'relu']
    """
    low, high = _ends(values)
    if low < 0:
        return "none"
    return "sigmoid" if low > 0 and high < 1 else "relu"


def is_relu(values: Tensor) -> bool:
    """True where no value is below -1e-6 of the largest, as after a ReLU."""
    low, high = _ends(values)
    return low >= -NEGLIGIBLE * max(-low, high)


def _ends(values: Tensor) -> tuple[float, float]:
    """Smallest and largest finite value; 0 and 0 without any."""
    low, high = (float(end) for end in values.aminmax())
    if np.isfinite(low) and np.isfinite(high):  # the usual case, without a copy of the values
        return low, high
    finite = values[torch.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.numel() else (0.0, 0.0)


def _activation(name: Any, matrix: Tensor) -> str:
    if isinstance(name, str) and name == AUTO:
        return AUTO
    activation = activation_named(name)
    if activation == "relu" and not is_relu(matrix):
        low, _ = _ends(matrix)
        raise HarnessError(
            f"activation: expected values of 0 or more after a ReLU, got {low:.4g}; say activation='none' for a linear"
            " layer, 'leaky_relu' for a leaky one, or activation='auto'"
        )
    return activation


def _expected(values: Any, inputs: Tensor | None, rows: int) -> Tensor | None:
    if values is None:
        return inputs
    return finite_rows(flat_rows(values, "expected_output", rows), "expected_output")


def _samples(rows: int, *sources: Any) -> int:
    """Number of rows of the inputs, where the activations have several for each; else that of the activations."""
    lengths = [len(source) for source in sources if hasattr(source, "__len__")]
    return lengths[0] if lengths and lengths[0] > 0 and rows % lengths[0] == 0 else rows


def _default_blocks(number: Index, rows: int) -> Tensor | None:
    """Blocks of the rows of one sample, and of equal samples; None where there are hardly any.

    Args:
        number: of the distinct input of each sample. rows: of the activations.
    """
    if len(number) < rows:
        return torch.from_numpy(number).repeat_interleave(rows // len(number))
    repeated = 2 <= int(number.max()) + 1 <= MOST_DISTINCT * len(number)
    return torch.from_numpy(number) if repeated else None


def _sizes(scale: Any, shape: tuple[int, int]) -> Tensor:
    sizes = torch.from_numpy(per_unit(scale, "scale", shape))
    if not bool(((sizes >= 0) & torch.isfinite(sizes)).all()):
        raise HarnessError("scale: expected sizes of sums, finite and at least 0")
    return sizes


def _same_shape(values: Any, name: str, matrix: Tensor, members: bool) -> Tensor | None:
    if values is None:
        return None
    tensor = activation_matrix(values, members, name)
    if tensor.shape != matrix.shape:
        raise HarnessError(
            f"{name}: expected the shape of the activations, {list(matrix.shape)} with members in front,"
            f" got {list(tensor.shape)}"
        )
    return tensor


def _divergence(log_variance: Any, divergence: Any, matrix: Tensor, members: bool) -> Tensor | None:
    """KL divergence of the posterior from the prior, nats, `[member, sample, unit]`.

    Against N(0, 1): (mean^2 + variance - 1 - log variance) / 2.
    """
    if log_variance is not None and divergence is not None:
        raise HarnessError("posterior: expected posterior= (log-variances) or posterior_kl= (nats), got both")
    if divergence is not None:
        nats = _same_shape(divergence, "posterior_kl", matrix, members)
        assert nats is not None
        if bool((nats < -NEGLIGIBLE).any()):
            raise HarnessError("posterior_kl: expected divergences of at least 0 nats, got a negative one")
        return nats.double()
    logs = _same_shape(log_variance, "posterior", matrix, members)
    if logs is None:
        return None
    return (matrix.double().square() + torch.special.expm1(logs.double()) - logs.double()) / 2


def _output(values: Any, rows: int, members: int | None) -> Tensor | None:
    if values is None:
        return None
    output = flat_rows(values, "output", rows, members)
    return output if members is not None else output[None]


def _reconstruction(values: Any, expected: Tensor | None, members: int | None) -> Tensor | None:
    if values is None or expected is None:
        return None
    reconstruction = flat_rows(values, "reconstruction", len(expected), members)
    if reconstruction.shape[-1] != expected.shape[-1]:
        raise HarnessError(
            f"reconstruction: expected {expected.shape[-1]} features per row, as in the rows that it is compared with,"
            f" got {reconstruction.shape[-1]}; pass an output of another shape as output="
        )
    return reconstruction if members is not None else reconstruction[None]


def _training(values: Any, inputs: Tensor | None) -> Tensor | None:
    if values is None or inputs is None:
        return None
    rows = tensor_of(values, "training_inputs")
    flat = finite_rows(flat_rows(rows, "training_inputs", len(rows) if rows.ndim else 0), "training_inputs")
    if flat.shape[-1] != inputs.shape[-1]:
        raise HarnessError(
            f"training_inputs: expected {inputs.shape[-1]} features per row, as in the inputs, got {flat.shape[-1]}"
        )
    return flat


def _numbered(values: Any, name: str, rows: int) -> Tensor:
    numbers = tensor_of(values, name)
    if numbers.ndim != 1 or len(numbers) != rows:
        raise HarnessError(f"{name}: expected one number per row, {rows} rows, got the shape {list(numbers.shape)}")
    if not bool(torch.isfinite(numbers.double()).all()):
        raise HarnessError(f"{name}: expected finite numbers, got NaN or infinity")
    return numbers.unique(return_inverse=True)[1]


def _target(target: Any) -> float | None:
    if target is None:
        return None
    try:
        value = None if isinstance(target, str | bool) else float(target)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        value = None
    if value is None:
        raise HarnessError(f"target: expected a number, the penalty's rho, got {str(target)[:40]!r}")
    if not np.isfinite(value):
        raise HarnessError(f"target: expected a finite number, the penalty's rho, got {target!r}")
    return value


AUTO = "auto"
NEGLIGIBLE = 1e-6
MOST_DISTINCT = 0.9
PER_MEMBER = (
    *("activations", "reconstruction", "output", "repeat", "before", "kl", "scale", "ablation", "code_ablation"),
)
