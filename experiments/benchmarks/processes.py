"""Contenders are processes of their own: their threads, their memory, and what they said."""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HARNESS = (sys.executable, "-c", "from harness.cli import main; main()")
# what keeps a library to one thread: OpenMP and MKL (torch), XLA's matrix products and its pool (JAX)
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "NPROC": "1",
}


@dataclass(frozen=True)
class Ended:
    """A command that is done.

    Args:
        seconds: of wall time.
        cpu: seconds of the processor, its workers included.
        peak_mb: the most memory that it or one of its workers held; None where that is less than this process holds,
            because a new process starts with the mark of the one that started it.
        output: what it wrote to stdout.
    """

    seconds: float
    cpu: float
    peak_mb: float | None
    output: str


def ended(command: Sequence[str], folder: Path | None = None) -> Ended:
    """Run a command with one thread a process, to its end."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        begun = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, env=environment(True), stdout=output, stderr=errors)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0), errors.seek(0)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{errors.read()}")
        peak = used.ru_maxrss / 1024
        return Ended(seconds, used.ru_utime + used.ru_stime, peak if peak > peak_mb() else None, output.read())


def largest(done: Sequence[Ended]) -> float | None:
    """The most memory that any of them held, where it is known."""
    return max((each.peak_mb for each in done if each.peak_mb is not None), default=None)


def environment(one_thread: bool) -> dict[str, str]:
    """This process's variables, with one thread for every library, or with each library's own choice."""
    free = {name: value for name, value in os.environ.items() if name not in ONE_THREAD}
    return {**free, **ONE_THREAD} if one_thread else free


def peak_mb() -> float:
    """The most memory that this process has held; `getrusage` would start from what its parent held."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    marks = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
    return int(marks[0]) / 1024


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
