"""Files that are being written: their names say by whom, so that what a killed process left can be told apart."""

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

OLD = 86_400.0  # seconds, a day: nobody writes one file for so long
MARK = ".new"
WRITER = re.compile(r"\.(?P<host>[A-Za-z0-9_-]+)\.(?P<pid>\d+)\.(?P<start>[0-9a-f]{8})-\d+\.new(-\w+)?$")
START = secrets.token_hex(4)  # tells this process from an earlier one with its number
COUNT = itertools.count()


def temporary_path(path: Path) -> Path:
    """A new name beside `path`, with the host, the process and a number of its own in it."""
    return path.with_name(f".{path.name}.{host()}.{os.getpid()}.{START}-{next(COUNT)}{MARK}")


def remove_abandoned(folder: Path, name: str = "") -> None:
    """Remove temporary files (of `name` alone, where given) whose writer is gone; others are never touched."""
    for path in folder.glob(f".*{MARK}*"):
        if (not name or path.name.startswith(f".{name}.")) and is_abandoned(path):
            path.unlink(missing_ok=True)


def is_abandoned(path: Path) -> bool:
    """Whether the writer of a temporary file is gone: its process ended, or nothing is known of it for a day."""
    writer = WRITER.search(path.name)
    if writer is None or writer["host"] != host():
        return _age(path) > OLD
    if int(writer["pid"]) == os.getpid():
        return writer["start"] != START
    return not _is_running(int(writer["pid"]))


@lru_cache(maxsize=1)
def host() -> str:
    """This machine, since it was started, and the numbering of its processes: containers count their own."""
    known = [socket.gethostname()]
    with suppress(OSError):
        known.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with suppress(OSError):
        known.append(os.readlink("/proc/self/ns/pid"))
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", known[0])[:24]
    return f"{plain}-{sha256(' '.join(known).encode()).hexdigest()[:8]}"


def _age(path: Path) -> float:
    """Seconds since it was written last; of a file that is gone, none."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # of another user
        return True
    return True
