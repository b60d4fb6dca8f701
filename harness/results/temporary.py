"""Temporary files, named after the process that writes them, so that files of killed processes can be removed."""

import itertools
import os
import re
import secrets
import socket
import time
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

OLD = 86_400.0  # seconds, a day: no file takes that long to write
MARK = ".new"
WRITER = re.compile(r"\.(?P<host>[A-Za-z0-9_-]+)\.(?P<pid>\d+)\.(?P<start>[0-9a-f]{8})-\d+\.new(-\w+)?$")
START = secrets.token_hex(4)  # distinguishes this process from an earlier one with the same id
COUNT = itertools.count()


def temporary_path(path: Path) -> Path:
    """Return a new name beside `path` that contains the host, the process id and a counter."""
    return path.with_name(f".{path.name}.{host()}.{os.getpid()}.{START}-{next(COUNT)}{MARK}")


def remove_abandoned(folder: Path, name: str = "") -> None:
    """Remove temporary files (only those of `name`, if not empty) whose writer is gone."""
    for path in folder.glob(f".*{MARK}*"):
        if (not name or path.name.startswith(f".{name}.")) and is_abandoned(path):
            path.unlink(missing_ok=True)


def is_abandoned(path: Path) -> bool:
    """Return True if the writer of a temporary file is gone: its process ended, or the file is a day old."""
    writer = WRITER.search(path.name)
    if writer is None or writer["host"] != host():
        return _age(path) > OLD
    if int(writer["pid"]) == os.getpid():
        return writer["start"] != START
    return not _is_running(int(writer["pid"]))


@lru_cache(maxsize=1)
def host() -> str:
    """Identify this machine, its boot and its process namespace: containers number their own processes."""
    identifiers = [socket.gethostname()]
    with suppress(OSError):
        identifiers.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with suppress(OSError):
        identifiers.append(os.readlink("/proc/self/ns/pid"))
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", identifiers[0])[:24]
    return f"{plain}-{sha256(' '.join(identifiers).encode()).hexdigest()[:8]}"


def _age(path: Path) -> float:
    """Seconds since the file was last written; 0 if it does not exist."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # the process belongs to another user
        return True
    return True
