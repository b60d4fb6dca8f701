"""Files of an experiment that travel to another machine: the case, what it imports beside it, and its data."""

import hashlib
import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import HarnessError
from harness.execution.spec import StackSpec
from harness.results.fingerprint import imported_files

LARGEST_FILE = 64 * 2**20  # bytes of a file beside the case; larger ones are named as `data:`
LARGEST = 2 * 2**30  # bytes of all files


@dataclass(frozen=True)
class Shipment:
    """Files of an experiment, as a name for an archive.

    Args:
        digest: hash of the archive, the name of the folder into which it is unpacked; empty if nothing has to travel.
        case, data: names in the archive, or what stays as it is (a shipped name).
    """

    digest: str
    case: str
    data: str | None

    def unpacked(self, spec: StackSpec, content: Callable[[], bytes]) -> StackSpec:
        """Unpack the archive once on this machine, and return the stack with the paths here.

        Args:
            spec: a stack with the paths of another machine.
            content: called for the archive if it is not here yet.
        """
        if not self.digest:
            return spec
        folder = Path(tempfile.gettempdir()) / f"harness-{os.getuid()}" / self.digest
        if not folder.is_dir():
            folder.parent.mkdir(mode=0o700, exist_ok=True)
            _check_owner(folder.parent)
            beside = Path(tempfile.mkdtemp(dir=folder.parent))
            zipfile.ZipFile(io.BytesIO(content())).extractall(beside)
            try:
                beside.rename(folder)
            except OSError:  # another worker of this machine was faster
                shutil.rmtree(beside, ignore_errors=True)
                if not folder.is_dir():
                    raise
        return replace(spec, case=_here(folder, self.case), data=_here(folder, self.data) if self.data else None)


def shipment(case: str, data: str | None) -> tuple[Shipment, bytes]:
    """Collect the files of a case and its data in a zip archive.

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
    content = archive.getvalue() if names else b""
    return Shipment(hashlib.sha256(content).hexdigest()[:24] if names else "", case, data), content


def _is_small(file: Path) -> bool:
    return file.is_file() and not file.name.startswith(".") and file.stat().st_size <= LARGEST_FILE


def _here(folder: Path, name: str) -> str:
    return str(folder / name) if (folder / name).is_file() else name


def _check_owner(folder: Path) -> None:
    if folder.stat().st_uid != os.getuid():
        raise HarnessError(f"{folder}: expected a folder of this user, whose code is run from it; remove it")
