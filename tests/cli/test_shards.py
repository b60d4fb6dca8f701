"""`--shard`: written out, or from the variables of SLURM and Kubernetes."""

import pytest

from harness.cli.shards import shard_of
from harness.errors import HarnessError


def slurm(number, **more):
    names = {"count": "COUNT", "least": "MIN", "step": "STEP"}
    variables = {f"SLURM_ARRAY_TASK_{names[name]}": str(value) for name, value in more.items()}
    return {"SLURM_ARRAY_TASK_ID": str(number), **variables}


@pytest.mark.parametrize(
    ("text", "variables", "expected"),
    [
        ("2/8", {}, (2, 8)),
        ("2/8", slurm(5, count=16), (2, 8)),
        ("auto", slurm(0, count=4, least=0, step=1), (1, 4)),
        ("auto", slurm(3, count=4, least=0, step=1), (4, 4)),
        ("auto", slurm(1, count=4, least=1, step=1), (1, 4)),
        ("auto", slurm(100, count=2, least=90, step=10), (2, 2)),
        ("auto/6", slurm(5, count=4), (6, 6)),
        ("auto/3", {"JOB_COMPLETION_INDEX": "2"}, (3, 3)),
    ],
)
def test_a_part_is_read(text, variables, expected):
    assert shard_of(text, variables) == expected


def test_the_tasks_of_an_array_are_all_parts_once():
    for least, step in ((0, 1), (1, 1), (7, 3)):
        numbers = range(least, least + 5 * step, step)
        parts = [shard_of("auto", slurm(number, count=5, least=least, step=step)) for number in numbers]
        assert parts == [(part, 5) for part in range(1, 6)]


@pytest.mark.parametrize(
    ("text", "variables", "reason"),
    [
        ("0/4", {}, "expected a part such as '2/8'"),
        ("5/4", {}, "expected a part such as '2/8'"),
        ("²/4", {}, "expected a part such as '2/8'"),
        ("auto/x", {}, "expected a part such as '2/8'"),
        ("auto", {}, "expected SLURM_ARRAY_TASK_ID or JOB_COMPLETION_INDEX, got neither"),
        ("auto", {"JOB_COMPLETION_INDEX": "0"}, "comes without a count; expected it after a slash, such as auto/8"),
        ("auto/2", {"JOB_COMPLETION_INDEX": "2"}, "expected one of 2 tasks, got 2; the job's completions"),
        ("auto", slurm(9, count=3, least=1, step=1), "expected one of 3 tasks, got 9; write the array as consecutive"),
        ("auto", slurm(4, count=3, least=1, step=2), "expected one of 3 tasks, got 4; write the array as consecutive"),
        ("auto", slurm("x", count=3), "SLURM_ARRAY_TASK_ID: expected a whole number, got 'x'"),
        ("auto", slurm(0), "SLURM_ARRAY_TASK_COUNT: expected a whole number, got ''"),
    ],
)
def test_what_is_no_part_is_refused(text, variables, reason):
    with pytest.raises(HarnessError, match=f"--shard.*{reason}".replace("(", r"\(")):
        shard_of(text, variables)
