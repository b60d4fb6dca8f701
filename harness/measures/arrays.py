"""What comes in at the public doors, as arrays of one shape, or refused with a sentence that says what is wanted."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.errors import HarnessError
from harness.measures.constancy import is_constant

Array = NDArray[np.float64]
MANY_ROWS = 10


def real_array(values: Any, name: str) -> NDArray[Any]:
    """A numpy array of real numbers, from a tensor or anything that numpy reads; bfloat16 becomes float32.

    >>> real_array(torch.ones(2, dtype=torch.bfloat16), "activations").dtype.name
    'float32'

    Raises:
        HarnessError: for complex, boolean or object values, and for rows of different lengths.
    """
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        array = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    else:
        try:
            array = np.asarray(values)
        except ValueError as error:
            raise HarnessError(f"{name}: an array is wanted; the rows have different lengths ({error})") from error
    if array.dtype.kind not in "iuf":
        raise HarnessError(f"{name}: real numbers are wanted, an array of {array.dtype} was given")
    return array.astype(np.float64) if array.dtype.itemsize > 8 else array


def unit_columns(activations: Any, dtype: Any = None) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.bool_]]:
    """Activations as `[*member, unit, sample]`, and which units are constant and which finite, `[*member, unit]`.

    Raises:
        HarnessError: for a wrong rank, no rows or no units, and values that are no real numbers.
    """
    values = real_array(activations, "activations")
    if values.ndim < 2:
        raise HarnessError(
            f"activations: [sample, unit] is wanted, the shape is {list(values.shape)};"
            " one unit alone is activations[:, None]"
        )
    if not values.size:
        raise HarnessError(f"activations: the shape is {list(values.shape)}; at least one row and one unit are wanted")
    if dtype is None and values.dtype.kind == "f":
        # bfloat16 comes as float32, and is still as coarse as it was
        dtype = activations.dtype if isinstance(activations, torch.Tensor) else values.dtype.name
    columns = np.ascontiguousarray(np.moveaxis(values, -1, -2), _computable(values.dtype))
    constant = is_constant(torch.from_numpy(columns).mT, dtype).numpy()
    return columns, constant, np.asarray(np.isfinite(columns).all(-1))


def _computable(dtype: np.dtype[Any]) -> type[np.floating[Any]]:
    return np.float32 if dtype.kind == "f" and dtype.itemsize <= 4 else np.float64


def reference_column(reference: Any, rows: int) -> NDArray[Any]:
    """A reference as `[sample]`: class numbers 0, 1, ... where it was integers, float64 where it was floats.

    Raises:
        HarnessError: for another length or rank, values that are not finite, and classes of which hardly any has a
            second row.
    """
    values = real_array(reference, "reference")
    if values.ndim != 1 or len(values) != rows:
        raise HarnessError(
            f"reference: one value for each of the {rows} samples is wanted, the shape is {list(values.shape)}"
        )
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise HarnessError(f"reference: NaN or infinite in row {int(np.flatnonzero(~np.isfinite(values))[0])}")
        return values.astype(np.float64)
    names, classes = np.unique(values, return_inverse=True)
    if rows >= MANY_ROWS and 2 * len(names) > rows:
        raise HarnessError(
            f"reference: {len(names)} classes for {rows} rows: hardly any class has a second row;"
            " a quantity is wanted as floats, e.g. reference.float()"
        )
    return classes
