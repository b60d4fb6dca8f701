"""Worker processes as the driver sees them: started, waiting, and heard."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from harness.execution.wire import load_records
from harness.execution.worker_environment import module_command, without_empty_places
from harness.results import MemberRecord

Worker = subprocess.Popen[bytes]


def new_worker() -> Worker:
    """A worker process, which begins with loading torch."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        module_command("harness.execution.worker", str(os.getpid())),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=without_empty_places(variables),
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


def next_answer(answers: IO[bytes]) -> int | list[MemberRecord] | None:
    """What a worker says next: steps done, or the records of its stack; None when it died, be it in mid-answer.

    An answer is a line of JSON, and after it as many bytes of records as it says.
    """
    try:
        said = json.loads(answers.readline())
        if "steps" in said:
            return int(said["steps"])
        content = answers.read(said["bytes"])
        return list(load_records(content)) if len(content) == said["bytes"] else None
    except (ValueError, TypeError, LookupError):  # nothing, a part of a line, or what somebody else wrote in between
        return None
