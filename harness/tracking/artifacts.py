"""Files of a run: the report, and the kept weights in a folder of their own."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.tracking.address import artifact_folder
from harness.tracking.concurrency import for_all

WEIGHTS = "weights"  # folder of the weights, which are named after the key of their member


def log_artifacts(client: Any, run: str, files: Sequence[Path], requests: int) -> None:
    """Log files; weights that are logged already are not sent again, and those of earlier members are removed if they are local.

    Args:
        client: an `MlflowClient`.
        run: id of the run.
        files: `*.safetensors` go to the folder `weights`.
        requests: number of requests at a time.
    """
    if not files:
        return
    weights = [file for file in files if file.suffix == ".safetensors"]
    reports = [file for file in files if file.suffix != ".safetensors"]
    folder = artifact_folder(str(client.get_run(run).info.artifact_uri))
    if folder is not None:
        _copy(reports, folder)
        for file in set((folder / WEIGHTS).glob("*.safetensors")) - {folder / WEIGHTS / file.name for file in weights}:
            file.unlink()
        _copy([file for file in weights if not _same(file, folder / WEIGHTS / file.name)], folder / WEIGHTS)
        return
    logged = {item.path: item.file_size for item in client.list_artifacts(run, WEIGHTS)} if weights else {}
    missing = [file for file in weights if logged.get(f"{WEIGHTS}/{file.name}") != file.stat().st_size]
    for_all(lambda file: client.log_artifact(run, str(file)), reports, requests)
    for_all(lambda file: client.log_artifact(run, str(file), WEIGHTS), missing, requests)


def _copy(files: Sequence[Path], folder: Path) -> None:
    if files:
        folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copy2(file, folder / file.name)


def _same(file: Path, copy: Path) -> bool:
    """True if the copy has the size and the date of the file: `copy2` keeps both."""
    if not copy.is_file():
        return False
    first, second = file.stat(), copy.stat()
    return (first.st_size, first.st_mtime_ns) == (second.st_size, second.st_mtime_ns)
