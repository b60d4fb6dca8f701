"""Files of an experiment that travel to another machine: the case, what it imports beside it, and its data."""

import hashlib
import io
import os
import tempfile
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import HarnessError
from harness.execution.spec import StackSpec
from harness.results.fingerprint import imported_files

LARGEST_FILE = 64 * 2**20  # bytes of a file beside the case; larger ones are named as `data:`
LARGEST = 2 * 2**30  # bytes of all files


@dataclass(frozen=True)
class Shipment:
    """Files as one archive.

    Args:
        content: bytes of a zip archive; empty if nothing has to travel.
        case, data: names in the archive, or what stays as it is (a shipped name).
    """

    content: bytes
    case: str
    data: str | None

    @property
    def digest(self) -> str:
        """Hash of the content, the name of the folder into which it is unpacked."""
        return hashlib.sha256(self.content).hexdigest()[:24]

    def unpacked(self, spec: StackSpec) -> StackSpec:
        """Unpack the files once on this machine, and return the stack with their paths here."""
        if not self.content:
            return spec
        folder = Path(tempfile.gettempdir()) / f"harness-{os.getuid()}" / self.digest
        if not folder.is_dir():
            folder.parent.mkdir(mode=0o700, exist_ok=True)
            _check_owner(folder.parent)
            beside = Path(tempfile.mkdtemp(dir=folder.parent))
            zipfile.ZipFile(io.BytesIO(self.content)).extractall(beside)
            try:
                beside.rename(folder)
            except OSError:  # another worker of this machine was faster
                if not folder.is_dir():
                    raise
        return replace(spec, case=_here(folder, str(self.case)), data=_here(folder, self.data) if self.data else None)


def shipment(case: str, data: str | None) -> Shipment:
    """Collect the files of a case and its data.

    Files directly beside the case travel as well (a table that the case reads), without hidden and very large ones.

    Raises:
        HarnessError: if they are too large together.
    """
    archive, names = io.BytesIO(), dict[Path, str]()
    if case.endswith(".py"):
        path = Path(case).absolute()
        beside = [file for file in path.parent.iterdir() if _is_small(file)]
        for file in (path, *imported_files(path), *beside):
            names.setdefault(file, f"case/{file.relative_to(path.parent).as_posix()}")
        case = names[path]
    if data is not None and Path(data).is_file():
        path = Path(data).absolute()
        data = names.setdefault(path, f"data/{path.name}")
    if sum(file.stat().st_size for file in names) > LARGEST:
        raise HarnessError(
            f"--on: expected at most {LARGEST / 2**30:.0f} GiB of files that travel with the case, got more"
        )
    with zipfile.ZipFile(archive, "w", compresslevel=1) as packed:
        for file in sorted(names):
            # a fixed date, so that equal files are one folder
            packed.writestr(zipfile.ZipInfo(names[file]), file.read_bytes(), zipfile.ZIP_DEFLATED)
    return Shipment(archive.getvalue() if names else b"", case, data)


def _is_small(file: Path) -> bool:
    return file.is_file() and not file.name.startswith(".") and file.stat().st_size <= LARGEST_FILE


def _here(folder: Path, name: str) -> str:
    return str(folder / name) if (folder / name).is_file() else name


def _check_owner(folder: Path) -> None:
    if folder.stat().st_uid != os.getuid():
        raise HarnessError(f"{folder}: expected a folder of this user, whose code is run from it; remove it")
