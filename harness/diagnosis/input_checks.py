"""What comes in, made into tensors of one shape, or refused with a sentence that says what is wanted."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.errors import HarnessError
from harness.measures.arrays import to_numpy, to_tensor

BOTH_READINGS = (
    "rank 3 has two readings. [member, sample, unit], several models: say members=True. A convolution's or"
    " a transformer's activation: make it [sample, unit] first, e.g. activations.movedim(1, -1).flatten(0, -2) for"
    " [sample, channel, position], activations.flatten(0, 1) for [sample, token, unit]"
)


def tensor_of(values: Any, name: str) -> Tensor:
    """A tensor on the CPU without gradient, from a tensor or an array of real numbers.

    Raises:
        HarnessError: for complex, boolean or object values, or what is no array at all.
    """
    if isinstance(values, Tensor):
        return to_tensor(values, name)
    array = to_numpy(values, name)
    # torch knows neither foreign byte order nor negative strides nor read-only memory
    array = array.copy() if min(array.strides, default=0) < 0 else array
    return torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))


def activation_matrix(values: Any, members: bool, name: str = "activations") -> Tensor:
    """`[member, sample, unit]` of floating point; one member is added in front of a matrix.

    Raises:
        HarnessError: for a wrong rank, no rows, no units, or values that are no real numbers.
    """
    given = tensor_of(values, name)
    shape = list(given.shape)
    if members and given.ndim != 3:
        raise HarnessError(f"{name}: members=True wants [member, sample, unit]; the shape is {shape}")
    if not members and given.ndim == 3:
        raise HarnessError(f"{name}: {BOTH_READINGS}; the shape is {shape}")
    if not members and given.ndim != 2:
        raise HarnessError(f"{name}: a matrix [sample, unit] is wanted; the shape is {shape}")
    if 0 in shape:
        raise HarnessError(f"{name}: no rows, no units or no members to judge; the shape is {shape}")
    floating = given if given.is_floating_point() else given.double()
    return floating if members else floating[None]


def references_of(labels: Any, factors: Mapping[str, Any] | None, rows: int) -> dict[str, Tensor]:
    """The reference variables by name: `labels`, then each factor; `[sample]` each.

    Raises:
        HarnessError: for another length, values that are not finite, labels that are no classes, or labels with
            hardly a second row of any class.
    """
    references: dict[str, Tensor] = {}
    if labels is not None:
        references["labels"] = _classes(_vector(labels, "labels", rows))
    if factors is not None and not isinstance(factors, Mapping):
        raise HarnessError(
            f"factors: a mapping from name to values is wanted, {type(factors).__name__} was given;"
            " of a frame, dict(frame.items())"
        )
    for name, values in (factors or {}).items():
        if str(name) in references and name != "labels":
            raise HarnessError(f"factors: two of them are called {str(name)!r}")
        if name == "labels":
            raise HarnessError("factors: the name 'labels' is taken; call it otherwise, or pass it as labels")
        vector = _vector(values, f"factors[{name!r}]", rows)
        references[str(name)] = vector if vector.is_floating_point() else _classes(vector, f"factors[{name!r}]")
    return references


def _vector(values: Any, name: str, rows: int) -> Tensor:
    vector = tensor_of(values, name)
    if vector.ndim == 2 and vector.shape[-1] == 1:
        vector = vector[:, 0]
    if vector.ndim != 1:
        raise HarnessError(f"{name}: one value a row is wanted; the shape is {list(vector.shape)}")
    if len(vector) != rows:
        raise HarnessError(f"{name}: {len(vector)} values for {rows} rows of activations")
    if vector.is_floating_point() and not bool(torch.isfinite(vector).all()):
        raise HarnessError(f"{name}: NaN or infinite in row {int((~torch.isfinite(vector)).nonzero()[0])}")
    return vector


def _classes(values: Tensor, name: str = "labels") -> Tensor:
    if values.is_floating_point():
        raise HarnessError(
            f"{name}: classes are wanted as integers, {values.dtype} was given; labels.long() if they are classes,"
            " factors={'name': values} if they are a continuous factor"
        )
    classes = len(values.unique())
    if len(values) >= MANY_ROWS and 2 * classes > len(values):
        raise HarnessError(
            f"{name}: {classes} classes for {len(values)} rows: hardly any class has a second row; if they number the"
            " rows they are no classes, if they are a quantity pass it as a factor of floats"
        )
    return values.long()


def flat_rows(values: Any, name: str, rows: int, members: int | None = None) -> Tensor:
    """`[sample, feature]` or, of several members, `[member, sample, feature]`, features flattened.

    Raises:
        HarnessError: for another number of rows or members.
    """
    given = tensor_of(values, name)
    leading = (rows,) if members is None else (members, rows)
    if given.ndim < len(leading) or tuple(given.shape[: len(leading)]) != leading:
        words = "[sample, feature]" if members is None else "[member, sample, feature]"
        raise HarnessError(f"{name}: {words} with {leading} in front is wanted; the shape is {list(given.shape)}")
    if not given.numel():
        raise HarnessError(f"{name}: no rows or no features; the shape is {list(given.shape)}")
    floating = given if given.is_floating_point() else given.double()
    return floating.reshape(*leading, -1)


def yes_or_no(value: Any, name: str) -> bool:
    """True or False, and nothing that merely counts as one of them.

    Raises:
        HarnessError: for anything else.
    """
    if not isinstance(value, bool | np.bool_):
        raise HarnessError(f"{name}: True or False is wanted, {value!r} was given")
    return bool(value)


def finite_rows(values: Tensor, name: str) -> Tensor:
    """The same values, refused where they are not finite: data, unlike activations, has to be repaired first."""
    if not bool(torch.isfinite(values).all()):
        raise HarnessError(f"{name}: NaN or infinite in row {int((~torch.isfinite(values)).any(-1).nonzero()[0, 0])}")
    return values


def per_unit(values: Any, name: str, shape: tuple[int, int]) -> np.ndarray:
    """`[member, unit]` in float64, from `[unit]` or `[member, unit]`.

    Raises:
        HarnessError: for another number of members or units.
    """
    given = tensor_of(values, name).double()
    given = given[None] if given.ndim == 1 and shape[0] == 1 else given
    if given.ndim == 1 and len(given) == shape[1]:
        given = given.expand(shape)
    if tuple(given.shape) != shape:
        raise HarnessError(f"{name}: one value a unit is wanted, {shape}; the shape is {list(given.shape)}")
    return given.numpy()


MANY_ROWS = 10
