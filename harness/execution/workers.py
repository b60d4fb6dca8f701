"""Worker processes as the driver sees them: started, waiting, and heard."""

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

Worker = subprocess.Popen[bytes]


def new_worker() -> Worker:
    """A worker process, which begins with loading torch."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "harness.execution.worker", str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # a Ctrl-C in the terminal reaches the driver alone
    )


@contextmanager
def waiting_workers(count: int) -> Iterator[list[Worker]]:
    """So many workers, loading torch while the driver does; at the end none of them is left."""
    started: list[Worker] = []
    try:
        started += (new_worker() for _ in range(count))
        yield list(started)
    finally:
        for process in started:
            process.kill()
            process.wait()


def next_answer(answers: IO[bytes]) -> tuple[str, Any] | None:
    """What a worker says next: its kind and content; None when it died, be it in the middle of an answer."""
    try:
        answer: tuple[str, Any] = pickle.load(answers)
        return answer
    except Exception:  # a pickle that is cut off raises one of many
        return None
