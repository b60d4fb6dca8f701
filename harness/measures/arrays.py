"""Checked arguments of the public functions, as arrays of one shape."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.errors import HarnessError
from harness.measures.constancy import is_constant

Array = NDArray[np.float64]
MANY_ROWS = 10
INSTEAD = {
    "b": "0 and 1 as integers are classes, as floats a quantity",
    "c": "give the real part, the imaginary part or the absolute value",
    "U": "give each word its number, e.g. pandas.factorize(words)[0]",
    "O": "where these are numbers, astype(float) says so; words need a number each, e.g. pandas.factorize(words)[0]",
    "other": "convert it, e.g. to float32",
}
NUMBERS = {
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64),
}


def real_array(values: Any, name: str) -> NDArray[Any]:
    """A numpy array of real numbers, from a tensor or anything that numpy reads; bfloat16 becomes float32.

    >>> real_array(torch.ones(2, dtype=torch.bfloat16), "activations").dtype.name
    'float32'

    Args:
        values: tensor, array or nested sequence. name: the argument's name, for the error.

    Raises:
        HarnessError: for complex, boolean or object values, and for rows of different lengths.
    """
    if isinstance(values, torch.Tensor):
        values = to_tensor(values, name)
        return np.asarray((values.float() if values.dtype == torch.bfloat16 else values).numpy())
    return to_numpy(values, name)


def to_tensor(values: torch.Tensor, name: str) -> torch.Tensor:
    """A tensor of real numbers on the CPU, dense and without gradient.

    >>> to_tensor(torch.eye(2).to_sparse(), "activations").tolist()
    [[1.0, 0.0], [0.0, 1.0]]

    Raises:
        HarnessError: for complex, boolean, quantized or 8-bit floats, nested tensors, and those without values.
    """
    if values.dtype not in NUMBERS:
        letter = "b" if values.dtype == torch.bool else "c" if values.is_complex() else "other"
        raise HarnessError(f"{name}: expected real numbers, got {values.dtype}; {INSTEAD[letter]}")
    if values.is_nested or values.is_meta:
        fault = (
            "a nested tensor, whose rows have different lengths"
            if values.is_nested
            else "a meta tensor, without values"
        )
        instead = "pad it to one length" if values.is_nested else "materialize it with values first"
        raise HarnessError(f"{name}: expected a dense tensor, got {fault}; {instead}")
    dense = values if values.layout == torch.strided else values.to_dense()
    return dense.detach().cpu().resolve_neg()


def to_numpy(values: Any, name: str) -> NDArray[Any]:
    """A numpy array of real numbers of at most 64 bits, from any values that numpy reads; tensors go to `to_tensor`.

    >>> to_numpy([[1, 2]], "activations").shape
    (1, 2)

    Raises:
        HarnessError: for complex, boolean, object or masked values, and for values that numpy cannot convert.
    """
    if isinstance(values, np.ma.MaskedArray):
        raise HarnessError(f"{name}: expected an array, got a masked array; fill it, or leave the masked rows out")
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise HarnessError(f"{name}: expected an array, got rows of different lengths ({error})") from error
    except (TypeError, RuntimeError) as error:
        raise HarnessError(
            f"{name}: expected an array, got a {_kind(values)} that numpy cannot convert: {error}"
        ) from error
    if array.dtype.kind not in "iuf":
        source = "" if isinstance(values, np.ndarray) else f" (from a {_kind(values)})"
        instead = INSTEAD.get(array.dtype.kind, INSTEAD["other"])
        raise HarnessError(f"{name}: expected real numbers, got an array of {array.dtype}{source}; {instead}")
    return array.astype(np.float64) if array.dtype.itemsize > 8 else array


def _kind(values: Any) -> str:
    return type(values).__name__


def unit_columns(activations: Any, dtype: Any = None) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.bool_]]:
    """Activations as `[*member, unit, sample]`, with the units that are constant and those that are finite.

    Args:
        activations: `[*member, sample, unit]`, tensor or array.
        dtype: the precision the model computed in; default that of the values.

    Returns:
        Columns, float32 or float64; `constant` and `finite`, `[*member, unit]` each.

    Raises:
        HarnessError: for a wrong rank, no rows or no units, and values that are no real numbers.
    """
    values = real_array(activations, "activations")
    if values.ndim < 2:
        raise HarnessError(
            f"activations: expected [sample, unit], got the shape {list(values.shape)};"
            " a single unit is activations[:, None]"
        )
    if not values.size:
        raise HarnessError(f"activations: expected at least one row and one unit, got the shape {list(values.shape)}")
    if dtype is None and values.dtype.kind == "f":
        # bfloat16 comes as float32, and keeps its own tolerance
        dtype = activations.dtype if isinstance(activations, torch.Tensor) else values.dtype.name
    columns = np.require(np.moveaxis(values, -1, -2), _computable(values.dtype), ["C", "W"])
    constant = is_constant(torch.from_numpy(columns).mT, dtype).numpy()
    return columns, constant, np.asarray(np.isfinite(columns).all(-1))


def _computable(dtype: np.dtype[Any]) -> type[np.floating[Any]]:
    return np.float32 if dtype.kind == "f" and dtype.itemsize <= 4 else np.float64


def reference_column(reference: Any, rows: int) -> NDArray[Any]:
    """A reference as `[sample]`: class numbers 0, 1, ... from integers, float64 from floats.

    Raises:
        HarnessError: for another length or rank, values that are not finite, and classes most of which have a
            single row.
    """
    values = real_array(reference, "reference")
    if values.ndim != 1 or len(values) != rows:
        raise HarnessError(
            f"reference: expected one value for each of the {rows} samples, got the shape {list(values.shape)}"
        )
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise HarnessError(f"reference: NaN or infinite in row {int(np.flatnonzero(~np.isfinite(values))[0])}")
        return values.astype(np.float64)
    names, classes = np.unique(values, return_inverse=True)
    if rows >= MANY_ROWS and 2 * len(names) > rows:
        raise HarnessError(
            f"reference: expected classes with several rows, got {len(names)} classes for {rows} rows;"
            " give a quantity as floats, e.g. reference.float()"
        )
    return classes
