"""Locks of an experiment's results folder: one full run or several shards, and one process that publishes."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from harness.errors import HarnessError
from harness.results.file_locks import is_alone, locked

WHOLE = (1, 1)  # the only shard
RUN, PUBLISHING = ".lock", ".lock-publishing"


@contextmanager
def running(folder: Path, shard: tuple[int, int] = WHOLE) -> Iterator[None]:
    """Hold the lock of a run, or of one shard beside the others; a refused run leaves no lock or folder behind.

    Raises:
        HarnessError: if another process runs the experiment, or the folder cannot be written.
    """
    with ExitStack() as locks:
        if shard != WHOLE:
            _enter(locks, folder / f"{RUN}-{shard[0]}-of-{shard[1]}")
        lock = _enter(locks, folder / RUN, shared=shard != WHOLE)
        try:
            yield
        except HarnessError:
            if is_alone(lock):  # otherwise the last shard removes it
                _remove((folder, *folder.parents[:2]))
            raise


@contextmanager
def publishing(folder: Path) -> Iterator[None]:
    """Hold the lock for writing manifest, report and store; wait for another process that holds it.

    Raises:
        HarnessError: if the folder cannot be written.
    """
    with ExitStack() as locks:
        _enter(locks, folder / PUBLISHING, wait=True)
        yield


def _enter(locks: ExitStack, file: Path, shared: bool = False, wait: bool = False) -> int:
    try:
        return locks.enter_context(locked(file, shared, wait))
    except BlockingIOError as error:
        raise HarnessError(
            f"{file.parent}: another process is running this experiment; wait for it, or stop it"
        ) from error
    except OSError as error:
        raise HarnessError(
            f"{file.parent}: cannot be written ({error.strerror}); run in a folder that can be"
        ) from error


def _remove(folders: Sequence[Path]) -> None:
    """Remove folders that contain only locks, innermost first: they were created for a run that is refused."""
    with suppress(OSError):
        files = list(folders[0].iterdir())
        if all(file.name.startswith(RUN) for file in files):
            for file in files:
                file.unlink(missing_ok=True)
        for folder in folders:
            folder.rmdir()
