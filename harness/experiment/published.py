"""Check of a finished experiment: report and store are looked at, not assumed."""

import sqlite3
from collections.abc import Mapping
from pathlib import Path

from harness.errors import HarnessError
from harness.results.files import checksum
from harness.tracking import experiment_names, has_experiment, local_store, store_uri


def report_checksums(folder: Path) -> dict[str, str]:
    """Return file name -> checksum of a report, without temporary files."""
    return {path.name: checksum(path.read_bytes()) for path in report_files(folder)}


def report_files(folder: Path) -> list[Path]:
    """List the files of a report, without temporary files."""
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def is_whole(folder: Path, checksums: Mapping[str, str]) -> bool:
    """Return True if every file of a report is there, with its checksum."""
    if not checksums:
        return False
    try:
        return all((folder / name).is_file() and _has(folder / name, value) for name, value in checksums.items())
    except OSError:
        return False


def is_stored(name: str, tracking_uri: str | None, root: Path) -> bool | None:
    """Ask the store whether it has the experiment; None if a server does not answer."""
    uri = store_uri(tracking_uri, root)
    try:
        return has_experiment(uri, name) if local_store(uri) is None else name in experiment_names(uri)
    except sqlite3.Error:
        return False
    except HarnessError:
        return None


def _has(file: Path, value: str) -> bool:
    return checksum(file.read_bytes()) == value
