"""The origin of logged runs: a random name that one `mlruns/` keeps, so that its runs can be told from those of others."""

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
    """Where runs come from.

    Args:
        name: a tag of every run that this folder logs; no other folder has it.
        note: what the user should know: that the folder is a copy, and has a new name since now.
    """

    name: str
    note: str = ""


def origin_of(root: Path) -> Origin:
    """The origin of what `root` logs; it is made when it is first asked for, and anew in a copy of a folder.

    A folder that was moved or renamed keeps its origin: the folder itself is still the same one.

    Raises:
        HarnessError: when the folder cannot be written.
    """
    folder = root.resolve() / "mlruns"
    stored = _stored(folder)
    if stored.get("place") == _place(folder):
        return Origin(stored["origin"])
    try:
        with locked(folder / ".origin.lock"):
            return _settled(folder)
    except OSError as error:
        raise HarnessError(f"{folder}: cannot be written ({error.strerror}); run in a folder that can be") from error


def _settled(folder: Path) -> Origin:
    """The origin, with its record brought up to date: by one process at a time."""
    stored, place = _stored(folder), _place(folder)
    if stored.get("place") == place:
        return Origin(stored["origin"])
    same = bool(stored) and _is_same(stored["place"], place)
    name = stored["origin"] if same else secrets.token_hex(8)
    write_json(folder / RECORD, {"origin": name, "place": place})
    return Origin(name, _copied(folder, stored) if stored and not same else "")


def _stored(folder: Path) -> dict[str, Any]:
    """The record, or nothing where there is none that can be read."""
    try:
        stored = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        record = {"origin": str(stored["origin"]), "place": dict(stored["place"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return record if record["origin"] and record["place"] else {}


def _place(folder: Path) -> dict[str, Any]:
    """What tells the folder from a copy of it."""
    if not folder.is_dir():
        return {}
    status = folder.stat()
    return {"folder": str(folder.resolve()), "device": status.st_dev, "inode": status.st_ino}


def _is_same(stored: Mapping[str, Any], place: Mapping[str, Any]) -> bool:
    """Whether it is the folder of the record: a move keeps its inode and its device, a restart its inode and its path."""
    return stored.get("inode") == place["inode"] and (
        stored.get("device") == place["device"] or stored.get("folder") == place["folder"]
    )


def _copied(folder: Path, stored: Mapping[str, Any]) -> str:
    source = stored["place"].get("folder")
    copy = f"is a copy of {source}" if source not in (None, str(folder.resolve())) else "was restored from a copy"
    return f"{folder} {copy}: runs that it logs have an origin of their own now; runs logged before stay as they are"
