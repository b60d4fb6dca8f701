"""Arrays from files: `.npy`, `.npz`, `.pt`, `.csv`, `.parquet`. No pickle is ever loaded.

An archive with several arrays needs the name of one: `activations.npz:codes`, `states.pt:codes`.
"""

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.data.tensors import exact_tensor
from harness.errors import HarnessError, unknown


def read_array(path: str | Path) -> Tensor:
    """The array in a file, as it is: its own shape and precision, NaN included. What it is for decides who judges it.

    Raises:
        HarnessError: when there is no such file, it is damaged, holds no numbers, holds several arrays and none is
            named, or holds Python objects, which only a pickle could rebuild.
    """
    file, name = _file_and_name(path)
    if file.suffix.lower() not in READERS:
        raise HarnessError(f"{file}: {unknown('kind of file', file.suffix, READERS)}")
    if not file.is_file():
        raise HarnessError(f"{file}: no such file")
    try:
        return exact_tensor(READERS[file.suffix.lower()](file, name))
    except HarnessError as error:
        raise HarnessError(f"{path}: {error}") from error
    # whatever a damaged file makes its reader raise is the file's fault, and is told as one line
    except Exception as error:
        raise HarnessError(f"{path}: cannot be read as {file.suffix}: {_first_line(error)}") from error


def _file_and_name(path: str | Path) -> tuple[Path, str | None]:
    head, colon, name = str(path).rpartition(":")
    named = colon and Path(head).suffix.lower() in ARCHIVES
    return (Path(head), name) if named else (Path(path), None)


def _npy(file: Path, name: str | None) -> Any:
    with file.open("rb") as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
        if dtype.hasobject:
            raise HarnessError(OBJECTS)
        # the header of a damaged file may promise more than memory holds: compare before anything is allocated
        promised = int(np.prod([int(side) for side in shape], dtype=object)) * dtype.itemsize
        if promised > file.stat().st_size:
            raise HarnessError(f"its header promises {promised} bytes, the file has {file.stat().st_size}: cut off?")
    return np.load(file, allow_pickle=False)


def _npz(file: Path, name: str | None) -> Any:
    with zipfile.ZipFile(file) as archive:
        names = [entry.removesuffix(".npy") for entry in archive.namelist()]
    with np.load(file, allow_pickle=False) as arrays:
        chosen = _only(dict.fromkeys(names), name, file)
        try:
            return arrays[chosen]
        except ValueError as error:
            if "pickle" in str(error) or "Object" in str(error):
                raise HarnessError(OBJECTS) from error
            raise


def _pt(file: Path, name: str | None) -> Any:
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        if "weights_only" in str(error) or "Unsupported" in str(error):
            raise HarnessError(OBJECTS) from error
        raise
    if isinstance(found, Tensor) and name is None:
        return found
    if not isinstance(found, Mapping):
        raise HarnessError(f"a tensor, or a dict of tensors, is wanted, {type(found).__name__} was found")
    tensors = {str(key): value for key, value in found.items() if isinstance(value, Tensor)}
    return tensors[_only(tensors, name, file)]


def _csv(file: Path, name: str | None) -> Any:
    import pandas

    with file.open(encoding="utf-8-sig") as lines:
        first, second = lines.readline(), lines.readline()
    separator = max(",;\t", key=first.count) if any(mark in first for mark in ",;\t") else ","
    cells = [cell.strip().strip('"') for cell in first.split(separator)]
    numbered = _numbered(cells, [cell.strip() for cell in second.split(separator)])
    header = None if not numbered and all(_is_number(cell) for cell in cells) else 0
    frame = pandas.read_csv(file, sep=separator, header=header, encoding="utf-8-sig")
    # a frame saved with its index has a first column without a name: it numbers the rows and is no unit
    unnamed = header == 0 and not first.split(separator)[0].strip().strip('"')
    return _columns(frame.iloc[:, 1:] if unnamed else frame)


def _numbered(first: list[str], second: list[str]) -> bool:
    """Whether a first line of numbers is a header: 0, 1, 2, ... as a frame without names writes it, above fractions.

    >>> _numbered(["", "0", "1"], ["0", "0.5", "0.1"]), _numbered(["0", "1"], ["1", "0"])
    (True, False)
    """
    names = first[1:] if first[0] == "" else first
    above = first[0] == "" or any(not cell.lstrip("-").isdigit() for cell in second)
    return len(names) > 0 and names == [str(place) for place in range(len(names))] and above


def _parquet(file: Path, name: str | None) -> Any:
    import pyarrow.parquet

    return _columns(pyarrow.parquet.read_table(file).to_pandas())


def _columns(frame: Any) -> Any:
    words = [str(column) for column, kind in frame.dtypes.items() if getattr(kind, "kind", "O") not in "fiub"]
    if words:
        shown = ", ".join(" ".join(word.split())[:60] for word in words[:5])  # a stray quote makes a name of many lines
        raise HarnessError(f"numbers are wanted, and these columns hold something else: {shown}")
    return frame.to_numpy()


def _only(arrays: Mapping[str, Any], name: str | None, file: Path) -> str:
    if name is not None and name not in arrays:
        raise HarnessError(unknown("array", name, arrays))
    if name is None and len(arrays) != 1:
        example = f", as in {file.name}:{next(iter(arrays))}" if arrays else ""
        raise HarnessError(f"holds {len(arrays)} arrays ({', '.join(list(arrays)[:8])}); name one{example}")
    return name if name is not None else next(iter(arrays))


def _is_number(cell: str) -> bool:
    try:
        float(cell.strip().strip('"') or "nan")
    except ValueError:
        return False
    return True


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'damaged').splitlines()[0][:160]}"


OBJECTS = (
    "holds Python objects (a pickle), which can run code when loaded, so it is never loaded; "
    "save the numbers alone: np.save(path, array.astype(float)) or torch.save(tensor, path)"
)
ARCHIVES = (".npz", ".pt", ".pth")
READERS: dict[str, Callable[[Path, str | None], Any]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".pt": _pt,
    ".pth": _pt,
    ".csv": _csv,
    ".parquet": _parquet,
}
