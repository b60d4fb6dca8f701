"""The part of an experiment that a process trains: written out, or read from a job array's environment variables."""

import os
from collections.abc import Mapping

from harness.errors import HarnessError

AUTO = "auto"
EXPECTED = "expected a part such as '2/8' (the second of eight), 'auto' or 'auto/8' in a job array"


def shard_of(text: str, variables: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Return number and count of the part of `--shard`.

    `auto` reads SLURM's SLURM_ARRAY_TASK_ID, _COUNT, _MIN and _STEP; `auto/8` gives the count, which Kubernetes's
    JOB_COMPLETION_INDEX does not.

    >>> shard_of("2/8")
    (2, 8)
    >>> slurm = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "3"}
    >>> shard_of("auto", {**slurm, "SLURM_ARRAY_TASK_STEP": "2"})
    (3, 4)
    >>> shard_of("auto/8", {"JOB_COMPLETION_INDEX": "0"})
    (1, 8)

    Raises:
        HarnessError: if the text is no part, or the variables give none.
    """
    part, slash, parts = text.partition("/")
    if part == AUTO and (not slash or parts.isdecimal()):
        return _of_job_array(int(parts) if slash else None, variables)
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise HarnessError(f"--shard: {EXPECTED}, got {text!r}")
    return int(part), int(parts)


def _of_job_array(count: int | None, variables: Mapping[str, str]) -> tuple[int, int]:
    if "SLURM_ARRAY_TASK_ID" in variables:
        first, step = _number(variables, "SLURM_ARRAY_TASK_MIN", 0), _number(variables, "SLURM_ARRAY_TASK_STEP", 1)
        index, rest = divmod(_number(variables, "SLURM_ARRAY_TASK_ID") - first, max(1, step))
        count = _number(variables, "SLURM_ARRAY_TASK_COUNT") if count is None else count
        advice = "write the array as consecutive numbers, for example --array=0-7"
        name = "SLURM_ARRAY_TASK_ID"
    elif "JOB_COMPLETION_INDEX" in variables:
        if count is None:
            raise HarnessError(
                "--shard auto: JOB_COMPLETION_INDEX comes without a count; expected it after a slash, such as auto/8"
            )
        name, index, rest = "JOB_COMPLETION_INDEX", _number(variables, "JOB_COMPLETION_INDEX"), 0
        advice = "the job's completions and this count must be equal"
    else:
        raise HarnessError("--shard auto: expected SLURM_ARRAY_TASK_ID or JOB_COMPLETION_INDEX, got neither")
    if rest or not 0 <= index < count:
        raise HarnessError(f"--shard auto: {name}: expected one of {count} tasks, got {variables[name]}; {advice}")
    return index + 1, count


def _number(variables: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = variables.get(name, "")
    if not text and default is not None:
        return default
    if not text.isdecimal():
        raise HarnessError(f"--shard auto: {name}: expected a whole number, got {text!r}")
    return int(text)
