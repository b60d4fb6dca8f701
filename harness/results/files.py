"""Atomic writes: a file is written beside its path, flushed to the disk, then renamed."""

import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, well_formed
from harness.results.temporary import temporary_path

SCHEMA_VERSION = 1
ATTEMPTS = 5  # of a write into a folder that is removed meanwhile


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that no reader ever sees a part of it, and a power cut loses all of it or nothing.

    A folder that another process removes meanwhile is made again.

    Raises:
        HarnessError: if the disk is full or the folder cannot be written.
    """
    for attempt in range(ATTEMPTS):
        try:
            _write(path, content)
        except FileNotFoundError as error:
            if attempt == ATTEMPTS - 1:
                raise _not_written(path, error) from error
        except OSError as error:
            raise _not_written(path, error) from error
        else:
            return


def _write(path: Path, content: bytes) -> None:
    beside = temporary_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        _flush_folder(path.parent)
    except OSError:
        with suppress(OSError):
            beside.unlink()
        raise


def _not_written(path: Path, error: OSError) -> HarnessError:
    return HarnessError(f"{path}: cannot be written: {error.strerror}; free disk space or use another folder")


def write_json(path: Path, content: Any) -> None:
    """Write a JSON document atomically, with its schema version; values that are not JSON are written as strings."""
    document = with_schema_version(content) if isinstance(content, Mapping) else content
    write_atomic(path, json.dumps(document, indent=1, default=str).encode())


def with_schema_version(document: Mapping[str, Any]) -> dict[str, Any]:
    """Add the key `schema_version`, which changes when a key of a JSON document is removed or changes its meaning.

    >>> with_schema_version({"members": 4})
    {'schema_version': 1, 'members': 4}
    """
    return {"schema_version": SCHEMA_VERSION, **document}


def checksum(content: bytes) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256."""
    return hashlib.sha256(content).hexdigest()[:16]


def slug(name: str) -> str:
    """Return a folder name that stays inside its parent, for any name of an experiment.

    >>> slug("forum"), slug("../etc <b>")[:6]
    ('forum', 'etc-b-')
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    safe = re.sub(r"[^A-Za-z0-9_-]+", "-", plain).strip("-")[:60]
    return (
        safe
        if safe and safe == name
        else f"{safe or 'experiment'}-{hashlib.sha256(well_formed(name).encode()).hexdigest()[:6]}"
    )


def results_folder(name: str, root: Path) -> Path:
    """Folder of an experiment's results."""
    return root / "mlruns" / "results" / slug(name)


def report_folder(name: str, root: Path) -> Path:
    """Folder of an experiment's report."""
    return root / "mlruns" / "reports" / slug(name)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
