"""Checks of single arguments of `diagnose`: each returns a tensor or raises an error that says what is expected."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.diagnosis.spool import is_spooled, spooled
from harness.errors import HarnessError
from harness.measures.arrays import to_numpy, to_tensor

RANK_THREE = (
    "rank 3 is ambiguous. For several models [member, sample, unit], use diagnose_members(...) or members=True. For the"
    " output of a convolution or a transformer, make it [sample, unit] first: activations.movedim(1, -1).flatten(0, -2)"
    " for [sample, channel, position], activations.flatten(0, 1) for [sample, token, unit]"
)


def tensor_of(values: Any, name: str) -> Tensor:
    """Tensor on the CPU without gradient, from a tensor or an array of real numbers.

    Raises:
        HarnessError: for complex, boolean or object values, and for values that are no array.
    """
    if isinstance(values, Tensor):
        return to_tensor(values, name)
    array = to_numpy(values, name)
    # torch supports neither foreign byte order nor negative strides nor read-only memory
    array = array.copy() if min(array.strides, default=0) < 0 else array
    return torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))


def activation_matrix(values: Any, members: bool, name: str = "activations") -> Tensor:
    """`[member, sample, unit]` in floating point; a matrix gets one leading member.

    Raises:
        HarnessError: for a wrong rank, no rows, no units, or values that are no real numbers.
    """
    matrix = spooled(values, name) if is_spooled(values) else tensor_of(values, name)
    shape = list(matrix.shape)
    if members and matrix.ndim != 3:
        raise HarnessError(f"{name}: expected [member, sample, unit] with members=True, got the shape {shape}")
    if not members and matrix.ndim == 3:
        raise HarnessError(f"{name}: {RANK_THREE}; the shape is {shape}")
    if not members and matrix.ndim != 2:
        flat = "; `.movedim(1, -1).flatten(0, -2)` makes rows of every position of [sample, unit, ...]"
        raise HarnessError(
            f"{name}: expected a matrix [sample, unit], got the shape {shape}{flat if matrix.ndim > 3 else ''}"
        )
    if 0 in shape:
        raise HarnessError(f"{name}: expected at least one row, unit and member, got the shape {shape}")
    floating = matrix if matrix.is_floating_point() else matrix.double()
    return floating if members else floating[None]


def references_of(labels: Any, factors: Mapping[str, Any] | None, rows: int) -> dict[str, Tensor]:
    """Reference variables by name, `[sample]` each: `labels`, then the factors.

    Raises:
        HarnessError: for another length, values that are not finite, labels that are no classes, or labels with
            hardly a second row of any class.
    """
    references: dict[str, Tensor] = {}
    if labels is not None:
        references["labels"] = _classes(_vector(labels, "labels", rows))
    if factors is not None and not isinstance(factors, Mapping):
        raise HarnessError(
            f"factors: expected a mapping from name to values, got {type(factors).__name__};"
            " for a frame use dict(frame.items())"
        )
    for name, values in (factors or {}).items():
        if str(name) in references and name != "labels":
            raise HarnessError(f"factors: two factors have the name {str(name)!r}; rename one")
        if name == "labels":
            raise HarnessError("factors: the name 'labels' is reserved; rename the factor, or pass it as labels=")
        vector = _vector(values, f"factors[{name!r}]", rows)
        references[str(name)] = vector if vector.is_floating_point() else _classes(vector, f"factors[{name!r}]")
    return references


def _vector(values: Any, name: str, rows: int) -> Tensor:
    vector = tensor_of(values, name)
    if vector.ndim == 2 and vector.shape[-1] == 1:
        vector = vector[:, 0]
    if vector.ndim != 1:
        raise HarnessError(f"{name}: expected one value per row, got the shape {list(vector.shape)}")
    if len(vector) != rows:
        raise HarnessError(f"{name}: expected {rows} values, one per row of activations, got {len(vector)}")
    if vector.is_floating_point() and not bool(torch.isfinite(vector).all()):
        row = int((~torch.isfinite(vector)).nonzero()[0])
        raise HarnessError(f"{name}: expected finite values, got NaN or infinity in row {row}; leave such rows out")
    return vector


def _classes(values: Tensor, name: str = "labels") -> Tensor:
    if values.is_floating_point():
        raise HarnessError(
            f"{name}: expected classes as integers, got {values.dtype}; use labels.long() for classes,"
            " factors={'name': values} for a continuous factor"
        )
    classes = len(values.unique())
    if len(values) >= MANY_ROWS and 2 * classes > len(values):
        raise HarnessError(
            f"{name}: expected classes of several rows, got {classes} classes for {len(values)} rows; pass a quantity"
            " as a factor of floats, and leave row numbers out"
        )
    return values.long()


def flat_rows(values: Any, name: str, rows: int, members: int | None = None) -> Tensor:
    """`[sample, feature]` or, for several members, `[member, sample, feature]`, with flattened features.

    Raises:
        HarnessError: for another number of rows or members.
    """
    tensor = tensor_of(values, name)
    leading = (rows,) if members is None else (members, rows)
    if tensor.ndim < len(leading) or tuple(tensor.shape[: len(leading)]) != leading:
        axes = "[sample, ...]" if members is None else "[member, sample, ...]"
        raise HarnessError(
            f"{name}: expected {axes} with the leading shape {list(leading)}, got the shape {list(tensor.shape)}"
        )
    if not tensor.numel():
        raise HarnessError(f"{name}: expected rows and features, got the shape {list(tensor.shape)}")
    floating = tensor if tensor.is_floating_point() else tensor.double()
    return floating.reshape(*leading, -1)


def are_categories(values: Any) -> bool:
    """True for integers of 16 bits or more, which are tokens or categories; bytes are pixels, which are quantities."""
    dtype = tensor_of(values, "inputs").dtype
    return not dtype.is_floating_point and dtype not in (torch.uint8, torch.int8)


def distinct_rows(inputs: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First row of every distinct one, and for each row the number of its distinct one.

    >>> first, number = distinct_rows(torch.tensor([[1.0], [2.0], [1.0], [3.0]]))
    >>> first.tolist(), number.tolist()
    ([0, 1, 3], [0, 1, 0, 2])
    """
    numbers: dict[bytes, int] = {}
    first, number = [], np.empty(len(inputs), np.int64)
    # numpy has no bfloat16; every 16-bit float is a float32
    wide = inputs if inputs.dtype in (torch.float32, torch.float64) else inputs.float()
    # adding 0 makes -0 equal to 0
    for row, values in enumerate((wide + 0.0).contiguous().numpy()):
        digest = hashlib.blake2b(values.tobytes(), digest_size=16).digest()
        if digest not in numbers:
            numbers[digest] = len(numbers)
            first.append(row)
        number[row] = numbers[digest]
    return np.array(first, np.int64), number


def true_or_false(value: Any, name: str) -> bool:
    """Return a boolean.

    Raises:
        HarnessError: for any other value, also one that is merely true or false in a condition.
    """
    if not isinstance(value, bool | np.bool_):
        raise HarnessError(f"{name}: expected True or False, got {value!r}")
    return bool(value)


def finite_rows(values: Tensor, name: str) -> Tensor:
    """Return the values.

    Raises:
        HarnessError: where one is not finite: data, unlike activations, have to be repaired first.
    """
    if not bool(torch.isfinite(values).all()):
        row = int((~torch.isfinite(values)).any(-1).nonzero()[0, 0])
        raise HarnessError(f"{name}: expected finite values, got NaN or infinity in row {row}; leave such rows out")
    return values


def per_unit(values: Any, name: str, shape: tuple[int, int]) -> np.ndarray:
    """`[member, unit]` in float64, from `[unit]` or `[member, unit]`.

    Raises:
        HarnessError: for another number of members or units.
    """
    numbers = tensor_of(values, name).double()
    numbers = numbers[None] if numbers.ndim == 1 and shape[0] == 1 else numbers
    if numbers.ndim == 1 and len(numbers) == shape[1]:
        numbers = numbers.expand(shape)
    if tuple(numbers.shape) != shape:
        raise HarnessError(f"{name}: expected one value per unit, {list(shape)}, got the shape {list(numbers.shape)}")
    return numbers.numpy()


MANY_ROWS = 10
