"""Locks between processes, which end with the process that holds them."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TRIES = 100  # attempts to open a file that other processes create and remove at the same time


@contextmanager
def locked(file: Path, shared: bool = False, wait: bool = True) -> Iterator[int]:
    """Hold a lock until the block ends; create its file and folder if they do not exist.

    Args:
        file: of the lock.
        shared: hold it together with other processes that share it.
        wait: for processes that hold it.

    Yields:
        The descriptor of the file.

    Raises:
        BlockingIOError: if another process holds it, and `wait` is False.
        OSError: if the file cannot be written.
    """
    descriptor = _locked_file(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def is_alone(descriptor: int) -> bool:
    """Return True, and hold the lock exclusively, if no other process shares it; otherwise give it up."""
    try:
        _lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock(descriptor: int, operation: int) -> None:
    """Lock the file; on a file system without locks, rely on atomic writes."""
    try:
        fcntl.flock(descriptor, operation)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP):
            raise


def _locked_file(file: Path, operation: int) -> int:
    """Open and lock the file; try again if it was removed before it was locked."""
    for _ in range(TRIES):
        with suppress(FileNotFoundError):
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                _lock(descriptor, operation)
                if os.path.samestat(os.fstat(descriptor), file.stat()):
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
    raise OSError(0, "its folder is removed again and again", str(file))
