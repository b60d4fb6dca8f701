"""Free memory, compared with the declared size of a file before it is unpacked."""

import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from harness.errors import HarnessError

GIB = 2**30
COPIES = 3  # of an activation matrix, that a diagnosis holds at most
CGROUP = Path("/sys/fs/cgroup")


def check_fits(size: int) -> None:
    """Check that numbers of this size can be unpacked and diagnosed.

    Args:
        size: in bytes, as the file declares it.

    Raises:
        HarnessError: if there is less free memory.
    """
    free = free_memory()
    if free is not None and COPIES * size > free:
        raise HarnessError(
            f"holds {size / GIB:.1f} GiB of numbers when unpacked, which take {COPIES * size / GIB:.1f} GiB of memory, and"
            f" {free / GIB:.1f} GiB are free; save fewer rows or units"
        )


def check_declared(size: int) -> None:
    """Check that a sparse matrix, which is judged from a mapped file of this size, is no larger than memory.

    Raises:
        HarnessError: if it is; a small file may declare any shape.
    """
    free = free_memory()
    if free is not None and size > free:
        raise HarnessError(
            f"declares a sparse matrix of {size / GIB:.1f} GiB with its zeros, and {free / GIB:.1f} GiB of memory are free;"
            " save fewer rows or units"
        )


def free_memory() -> int | None:
    """Return the bytes that this process can still take, by the machine, its container and `ulimit -v`; None if the system has no `/proc`."""
    return min(_limits(), default=None)


def _limits() -> Iterator[int]:
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    with suppress(OSError, ValueError):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        if limit != resource.RLIM_INFINITY:
            yield max(0, limit - used)
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        yield 1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1])
    for most, now in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with suppress(OSError, ValueError):  # "max" is no number
            limit, used = (int((CGROUP / name).read_text()) for name in (most, now))
            yield max(0, limit - used)
