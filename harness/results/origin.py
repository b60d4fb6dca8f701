"""The origin of logged runs: a random name of one `mlruns/` folder, which distinguishes its runs from those of other folders."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.results.file_locks import locked
from harness.results.files import write_json

RECORD = ".origin.json"


@dataclass(frozen=True)
class Origin:
    """Origin of runs.

    Args:
        name: a tag of every run that this folder logs; unique to the folder.
        note: a message for the user if the folder is a copy, and has therefore got a new name.
    """

    name: str
    note: str = ""


def origin_of(root: Path) -> Origin:
    """Return the origin of the runs that `root` logs; it is created on first use, and again in a copy of a folder.

    A folder that was moved or renamed keeps its origin.

    Raises:
        HarnessError: if the folder cannot be written.
    """
    folder = root.resolve() / "mlruns"
    stored = _stored(folder)
    if stored.get("place") == _identity(folder):
        return Origin(stored["origin"])
    try:
        with locked(folder / ".origin.lock"):
            return _settled(folder)
    except OSError as error:
        raise HarnessError(f"{folder}: cannot be written ({error.strerror}); run in a folder that can be") from error


def _settled(folder: Path) -> Origin:
    """Return the origin, and update its record; called by one process at a time."""
    stored, identity = _stored(folder), _identity(folder)
    if stored.get("place") == identity:
        return Origin(stored["origin"])
    is_same = bool(stored) and _is_same(stored["place"], identity)
    name = stored["origin"] if is_same else secrets.token_hex(8)
    write_json(folder / RECORD, {"origin": name, "place": identity})
    return Origin(name, _copied(folder, stored) if stored and not is_same else "")


def _stored(folder: Path) -> dict[str, Any]:
    """Return the record, or an empty dict if none can be read."""
    try:
        stored = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        record = {"origin": str(stored["origin"]), "place": dict(stored["place"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return record if record["origin"] and record["place"] else {}


def _identity(folder: Path) -> dict[str, Any]:
    """Return the path, device and inode, which distinguish the folder from a copy of it."""
    if not folder.is_dir():
        return {}
    status = folder.stat()
    return {"folder": str(folder.resolve()), "device": status.st_dev, "inode": status.st_ino}


def _is_same(stored: Mapping[str, Any], identity: Mapping[str, Any]) -> bool:
    """Return True for the folder of the record: a move preserves inode and device, a reboot inode and path."""
    return stored.get("inode") == identity["inode"] and (
        stored.get("device") == identity["device"] or stored.get("folder") == identity["folder"]
    )


def _copied(folder: Path, stored: Mapping[str, Any]) -> str:
    source = stored["place"].get("folder")
    copy = f"is a copy of {source}" if source not in (None, str(folder.resolve())) else "was restored from a copy"
    return f"{folder} {copy}: its new runs get an origin of their own; runs logged before stay as they are"
