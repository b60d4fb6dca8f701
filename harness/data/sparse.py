"""Sparse matrices from files: archives of `scipy.sparse.save_npz`, and sparse tensors of `torch.save`."""

import math
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness.data.memory import check_declared
from harness.data.tensors import exact_tensor
from harness.errors import HarnessError

ENTRIES = {"format", "shape", "data"}  # of every archive of `scipy.sparse.save_npz`


def is_scipy(names: Collection[str]) -> bool:
    """Return True for the names of the arrays in an archive of `scipy.sparse.save_npz`.

    >>> is_scipy(["indices", "indptr", "format", "shape", "data"]), is_scipy(["codes", "shape"])
    (True, False)
    """
    return ENTRIES.issubset(names)


def read_scipy(file: Path) -> Tensor:
    """Return the matrix of an archive of `scipy.sparse.save_npz` as a sparse tensor.

    Raises:
        HarnessError: for indices outside of the shape, Python objects, or a shape larger than memory.
    """
    from scipy import sparse

    try:
        matrix = sparse.load_npz(file)
        if hasattr(matrix, "check_format"):
            matrix.check_format(full_check=True)
        entries = matrix.tocoo()
    except ValueError as error:
        raise HarnessError(OBJECTS if "pickle" in str(error) else f"{OUTSIDE}: {error}") from error
    values = exact_tensor(entries.data)
    check_declared(math.prod(map(int, entries.shape)) * values.element_size())
    indices = torch.from_numpy(np.stack([np.asarray(axis, np.int64) for axis in entries.coords]))
    return torch.sparse_coo_tensor(indices, values, entries.shape, check_invariants=True)


def checked(values: Tensor) -> Tensor:
    """Return a sparse tensor in coordinates after a check of its indices, which `torch.load` leaves out.

    >>> checked(torch.eye(2).to_sparse_csr()).layout
    torch.sparse_coo

    Raises:
        HarnessError: for indices outside of the shape, or a shape larger than memory.
    """
    values = values.detach().cpu()
    check_declared(values.numel() * values.element_size())
    try:
        if values.layout == torch.sparse_coo:
            parts = values._indices(), values._values()
            return torch.sparse_coo_tensor(*parts, values.shape, check_invariants=True)
        if values.layout in (torch.sparse_csr, torch.sparse_bsr):
            parts = values.crow_indices(), values.col_indices()
        else:
            parts = values.ccol_indices(), values.row_indices()
        layout = values.layout
        return torch.sparse_compressed_tensor(
            *parts, values.values(), values.shape, layout=layout, check_invariants=True
        ).to_sparse_coo()
    except RuntimeError as error:
        raise HarnessError(f"{OUTSIDE}: {str(error).splitlines()[0]}") from error


OBJECTS = (
    "holds Python objects (a pickle), which can run code when loaded, so it is never loaded; "
    "save the numbers alone: np.save(path, array.astype(float)) or torch.save(tensor, path)"
)
OUTSIDE = "expected a sparse matrix with indices inside of its shape"
