"""Activations that come in batches or as a sparse tensor, written to a temporary file that is mapped into memory.

The file has no name and goes with its tensor. Memory holds one batch at a time.
"""

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from harness.errors import HarnessError
from harness.measures.arrays import to_tensor

BLOCK = 1 << 24  # bytes of a sparse tensor that are dense at a time
MAPPED = 1 << 26  # bytes of a dense matrix; a smaller sparse one becomes dense in memory


def is_spooled(values: Any) -> bool:
    """Return True for an iterator of batches, and for a large sparse matrix.

    >>> is_spooled(iter([torch.zeros(2, 3)])), is_spooled(torch.zeros(2, 3)), is_spooled([[1.0]])
    (True, False, False)
    """
    return isinstance(values, Iterator) or (_is_sparse(values) and values.numel() * values.element_size() >= MAPPED)


def spooled(values: Any, name: str) -> Tensor:
    """Return the matrix `[sample, unit]` of an iterator of batches, or of a sparse one.

    Raises:
        HarnessError: without any batch, for batches that differ in width or precision, or if the disk is too small.

    >>> spooled(iter([torch.zeros(2, 3), torch.ones(1, 3)]), "activations").shape
    torch.Size([3, 3])
    """
    if _is_sparse(values):
        _check_disk(values.numel() * values.element_size(), name)
    blocks = _dense_blocks(values) if _is_sparse(values) else map(_tensor, values)
    with tempfile.TemporaryFile() as file:
        rows, width, dtype = _write((to_tensor(block, name) for block in blocks), file, name)
        bits = torch.empty(0, dtype=dtype).view(BITS[dtype.itemsize]).numpy().dtype
        array = np.memmap(file, dtype=bits, mode="c", shape=(rows, width))
    return torch.from_numpy(array).view(dtype)


def _tensor(batch: Any) -> Tensor:
    return batch if isinstance(batch, Tensor) else torch.as_tensor(np.asarray(batch))


def _is_sparse(values: Any) -> bool:
    return isinstance(values, Tensor) and values.layout != torch.strided and values.ndim == 2


def _check_disk(size: int, name: str) -> None:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if size > free:
        raise HarnessError(
            f"{name}: a sparse matrix takes {size / 2**30:.1f} GiB in a temporary file, and {free / 2**30:.1f} GiB of"
            f" {folder} are free; give TMPDIR another folder, or fewer rows or units"
        )


def _write(batches: Iterable[Tensor], file: IO[bytes], name: str) -> tuple[int, int, torch.dtype]:
    rows, width, dtype = 0, 0, torch.float32
    for number, batch in enumerate(batches):
        if batch.ndim != 2:
            raise HarnessError(f"{name}: expected batches [sample, unit], got the shape {list(batch.shape)}")
        lines = (batch if batch.is_floating_point() else batch.double()).contiguous()
        width, dtype = (lines.shape[1], lines.dtype) if number == 0 else (width, dtype)
        if (lines.shape[1], lines.dtype) != (width, dtype):
            raise HarnessError(
                f"{name}: expected batches of {width} units in {dtype}, as the first one, got {lines.shape[1]} units"
                f" in {lines.dtype} in batch {number}"
            )
        lines.view(BITS[dtype.itemsize]).numpy().tofile(file)  # numpy has no bfloat16
        rows += len(lines)
    if not rows or not width:
        raise HarnessError(f"{name}: expected at least one batch with rows and units, got none")
    file.flush()
    return rows, width, dtype


def _dense_blocks(values: Tensor) -> Iterator[Tensor]:
    """Yield the rows of a sparse matrix, some at a time."""
    entries = values.detach().cpu().to_sparse_coo().coalesce()
    (row, *columns), numbers = entries.indices(), entries.values()  # no column if the rows alone are sparse
    rows, units = values.shape
    step = max(1, BLOCK // max(1, units * numbers.element_size()))
    bounds = torch.searchsorted(row, torch.arange(0, rows + step, step)).tolist()
    for block, start in enumerate(range(0, rows, step)):
        part = slice(bounds[block], bounds[block + 1])
        dense = torch.zeros(min(step, rows - start), units, dtype=numbers.dtype)
        dense[(row[part] - start, *(column[part] for column in columns))] = numbers[part]
        yield dense


BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
