"""Arrays from files: `.npy`, `.npz`, `.pt`, `.safetensors`, `.csv`, `.parquet`. No pickle is ever loaded.

An archive with several arrays needs the name of one: `activations.npz:codes`, `states.pt:codes`. One of
`scipy.sparse.save_npz` is one matrix.
"""

import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.data.csv_parquet import read_csv, read_parquet
from harness.data.memory import check_fits
from harness.data.sparse import OBJECTS, checked, is_scipy, read_scipy
from harness.data.tensors import exact_tensor
from harness.errors import HarnessError, did_you_mean, missing_extra


def read_array(path: str | Path, keep_sparse: bool = False) -> Tensor:
    """Return the array in a file with its own shape and precision, NaN included.

    Args:
        path: of the file, with the name of an array in an archive.
        keep_sparse: return a sparse matrix as a sparse tensor instead of a dense one.

    Raises:
        HarnessError: for a file that does not exist, is damaged, holds no numbers, holds several arrays of which none is
            selected, or holds Python objects, which only a pickle can rebuild.
    """
    file, name = _file_and_name(path)
    if file.suffix.lower() not in READERS:
        raise HarnessError(f"{file}: {did_you_mean('kind of file', file.suffix, READERS)}")
    with _read_errors(path, file):
        content = READERS[file.suffix.lower()](file, name)
        if isinstance(content, Tensor) and content.layout != torch.strided:
            content = checked(content)
            if keep_sparse:
                return content
        if isinstance(content, Tensor):  # an expanded or sparse tensor takes little in the file
            check_fits(content.numel() * content.element_size())
        return exact_tensor(content)


def array_names(path: str | Path) -> list[str]:
    """Return the names of the arrays in an `.npz` archive.

    Raises:
        HarnessError: for a file that does not exist or is damaged.
    """
    with _read_errors(path, Path(path)):
        return _names(Path(path))


@contextmanager
def _read_errors(path: str | Path, file: Path) -> Iterator[None]:
    """Turn any exception of a reader into a `HarnessError` of one line that names the file."""
    if not file.is_file():
        raise HarnessError(f"{file}: {'a folder, not a' if file.is_dir() else 'no such'} file")
    if not file.stat().st_size:
        raise HarnessError(f"{file}: the file is empty")
    try:
        yield
    except HarnessError as error:
        raise HarnessError(f"{path}: {error}") from error
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and (missing := missing_extra(error)):
            raise missing from error
        suffix = file.suffix.lower()
        raise HarnessError(
            f"{path}: cannot be read as {suffix} ({_first_line(error)}): truncated, or of another format? "
            f"{WRITERS[suffix]} writes such a file"
        ) from error


def _file_and_name(path: str | Path) -> tuple[Path, str | None]:
    head, colon, name = str(path).rpartition(":")
    has_name = colon and Path(head).suffix.lower() in ARCHIVES
    return (Path(head), name) if has_name else (Path(path), None)


def _npy(file: Path, name: str | None) -> Any:
    with file.open("rb") as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream)
        if dtype.hasobject:
            raise HarnessError(OBJECTS)
        # the header of a damaged file may declare more than memory holds: compare before anything is allocated
        declared = int(np.prod([int(side) for side in shape], dtype=object)) * dtype.itemsize
        if declared > file.stat().st_size:
            raise HarnessError(f"its header declares {declared} bytes, the file has {file.stat().st_size}: truncated?")
    if declared >= MAPPED and dtype.isnative and dtype.kind == "f" and dtype.itemsize <= 8 and not fortran:
        # mapped, and private: pages that are read belong to the file, and nothing is written to it
        return torch.from_numpy(np.load(file, mmap_mode="c", allow_pickle=False))
    return np.load(file, allow_pickle=False)


def _npz(file: Path, name: str | None) -> Any:
    names = _names(file)
    if name is None and is_scipy(names):
        check_fits(_unpacked(file))
        return read_scipy(file)
    selected = _only(dict.fromkeys(names), name, file)
    check_fits(_unpacked(file, f"{selected}.npy"))
    with np.load(file, allow_pickle=False) as arrays:
        try:
            return arrays[selected]
        except ValueError as error:
            if "pickle" in str(error) or "Object" in str(error):
                raise HarnessError(OBJECTS) from error
            raise


def _names(archive: Path) -> list[str]:
    with zipfile.ZipFile(archive) as entries:
        return [entry.removesuffix(".npy") for entry in entries.namelist()]


def _unpacked(archive: Path, name: str = "") -> int:
    """Return the declared size of an archive's entries, or of those of one name, in bytes."""
    with zipfile.ZipFile(archive) as entries:
        return sum(entry.file_size for entry in entries.infolist() if name in ("", entry.filename))


def _pt(file: Path, name: str | None) -> Any:
    if zipfile.is_zipfile(file):
        check_fits(_unpacked(file))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of files that are refused below
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        if "weights_only" in str(error) or "Unsupported" in str(error):
            raise HarnessError(OBJECTS) from error
        raise
    if isinstance(content, Tensor) and name is None:
        return content
    if not isinstance(content, Mapping):
        raise HarnessError(f"{TENSORS}, got a {type(content).__name__}")
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if content and not tensors:
        raise HarnessError(f"{TENSORS}, got a dict of other objects: {', '.join(map(str, list(content)[:8]))}")
    if name is None and any(key.rpartition(".")[2] == "weight" for key in tensors):
        raise HarnessError(f"holds a model's weights ({', '.join(list(tensors)[:8])}), {NO_ROWS}")
    return tensors[_only(tensors, name, file)]


def _safetensors(file: Path, name: str | None) -> Any:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as tensors:  # mapped into memory
        if name is None and any(key.rpartition(".")[2] == "weight" for key in tensors.keys()):  # noqa: SIM118
            raise HarnessError(f"holds a model's weights ({', '.join(list(tensors.keys())[:8])}), {NO_ROWS}")
        return tensors.get_tensor(_only(dict.fromkeys(tensors.keys()), name, file))


def _only(arrays: Mapping[str, Any], name: str | None, file: Path) -> str:
    if not arrays:
        raise HarnessError("holds no array")
    if name is not None and name not in arrays:
        raise HarnessError(did_you_mean("array", name, arrays))
    if name is None and len(arrays) != 1:
        example = f"as in {file.name}:{next(iter(arrays))}"
        raise HarnessError(f"holds {len(arrays)} arrays ({', '.join(list(arrays)[:8])}); name one, {example}")
    return name if name is not None else next(iter(arrays))


def _first_line(error: Exception) -> str:
    message = (str(error).strip() or "damaged").splitlines()[0].split(". This is")[0]
    return f"{type(error).__name__}: {message[:160]}"


TENSORS = "expected a tensor or a dict of tensors"
NO_ROWS = (
    "expected rows, [sample, ...]: save the layer's activations with torch.save(activations, path), or select one array"
)
ARCHIVES = (".npz", ".pt", ".pth", ".safetensors")
MAPPED = 1 << 26  # bytes: larger arrays are mapped into memory instead of read
READERS: dict[str, Callable[[Path, str | None], Any]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".pt": _pt,
    ".pth": _pt,
    ".safetensors": _safetensors,
    ".csv": read_csv,
    ".parquet": read_parquet,
}
WRITERS = {
    ".npy": "np.save(path, array)",
    ".npz": "np.savez(path, name=array)",
    ".pt": "torch.save(tensor, path)",
    ".pth": "torch.save(tensor, path)",
    ".safetensors": "safetensors.torch.save_file({'codes': tensor}, path)",
    ".csv": "frame.to_csv(path)",
    ".parquet": "frame.to_parquet(path)",
}
