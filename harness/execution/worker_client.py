"""Worker processes on the side of the driver: start, stop, answers."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from harness.execution.wire import load_records
from harness.execution.worker_environment import module_command, without_empty_places

Worker = subprocess.Popen[bytes]


def new_worker() -> Worker:
    """Start a worker process, which begins by loading torch."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        module_command("harness.execution.worker", str(os.getpid())),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=without_empty_places(variables),
        start_new_session=True,  # a Ctrl-C in the terminal reaches only the driver
    )


@contextmanager
def waiting_workers(count: int) -> Iterator[list[Worker]]:
    """Start workers, which load torch while the driver does, and end them with the block."""
    started: list[Worker] = []
    try:
        started += (new_worker() for _ in range(count))
        yield list(started)
    finally:
        for process in started:
            process.kill()
            process.wait()


def next_answer(answers: IO[bytes]) -> int | bytes | None:
    """Return a worker's next answer: steps done, or the bytes of its stack's records; None if it died.

    An answer is a line of JSON, followed by the number of bytes of records that the line gives.
    """
    try:
        message = json.loads(answers.readline())
        if "steps" in message:
            return int(message["steps"])
        content = answers.read(message["bytes"])
        for _record in load_records(content):  # a part of one, or output of other code, raises
            pass
        return content if len(content) == message["bytes"] else None
    except (ValueError, TypeError, LookupError):  # no line, a part of one, or output of other code
        return None
