"""Calls of functions in a worker: a case that ends its process with a signal ends only the worker."""

import json
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from subprocess import TimeoutExpired
from typing import Any

from harness.errors import HarnessError
from harness.execution.audits import audits
from harness.execution.first_look import fingerprints
from harness.execution.time_limit import TimeLimit
from harness.execution.worker_client import Worker
from harness.grid import Experiment
from harness.user_code import failure, guarded

SECONDS_TO_END = 10.0  # seconds for a process that closed its output to end


def call(process: Worker, name: str, experiment: Experiment, *arguments: Any, timeout: float | None = None) -> Any:
    """Run a function of `CALLS` in a worker, and return its result as plain values.

    Raises:
        HarnessError: if the function raises one, or the worker dies or takes longer than `timeout` seconds.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    question = {"call": name, "experiment": experiment.to_dict(), "arguments": arguments}
    with suppress(OSError):  # a worker that died before is described below
        process.stdin.write(json.dumps(question).encode() + b"\n")
        process.stdin.flush()
    with TimeLimit(process, timeout) as limit:
        while answer := _answer(process.stdout.readline()):
            limit.start()
            if "error" in answer:
                raise HarnessError(answer["error"])
            if "result" in answer:
                return answer["result"]
    end = f"its code {limit.reason}" if limit.reached else f"its code ended the worker process {_end(process)}"
    raise HarnessError(f"{experiment.case}: {end}")


def is_call(line: str) -> bool:
    """Return True for the line of a call, False for that of a stack."""
    return line.startswith('{"call": ')


def answered(line: str) -> dict[str, Any]:
    """Carry out the call of a line, in a worker."""
    question = json.loads(line)
    experiment = Experiment(**question["experiment"])
    try:
        with guarded():
            return {"result": CALLS[question["call"]](experiment, *question["arguments"])}
    except HarnessError as error:
        return {"error": str(error)}
    except Exception as error:
        return {"error": f"{experiment.case}: its code {failure(error)}"}


def _answer(line: bytes) -> Mapping[str, Any]:
    """Return the message of a line; an empty one if the worker died."""
    try:
        return dict(json.loads(line))
    except (ValueError, TypeError):
        return {}


def _end(process: Worker) -> str:
    """Describe how a worker ended."""
    with suppress(TimeoutExpired):
        process.wait(SECONDS_TO_END)
    process.kill()
    code = process.wait()
    if code >= 0:
        return f"with exit code {code}"
    name = signal.Signals(-code).name
    return f"with {name}{HINTS.get(name, '')}"


CALLS: dict[str, Callable[..., Any]] = {"fingerprints": fingerprints, "audits": audits}
HINTS = {
    "SIGABRT": ": os.abort(), or a failed check in compiled code",
    "SIGSEGV": ": a crash in compiled code, such as an extension or a wrong pointer",
    "SIGBUS": ": a crash in compiled code, or a memory-mapped file that was cut",
    "SIGFPE": ": a crash in compiled code, such as an integer division by zero",
    "SIGKILL": ": out of memory, or killed from outside",
}
