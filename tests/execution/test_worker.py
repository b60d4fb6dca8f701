"""Worker processes: what dies takes nothing with it."""

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import python
from waiting import LONGEST

from harness.execution.executor import StackLost, Task, retry_tasks
from harness.execution.pool import Pool, run_stacks, split_among_workers
from harness.execution.run_stack import run_stack
from harness.execution.spec import StackMember, StackSpec, spec_line, spec_of
from harness.execution.wire import dump_records, load_records
from harness.execution.worker import _answer
from harness.execution.worker_client import new_worker, next_answer, waiting_workers

pytestmark = pytest.mark.many

CASE = """
import os, torch
from torch import nn
import harness

def build():
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 6))

def data():
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(0))

def losses(model, batch, poison=0.0):
    {fault}
    return {{"reconstruction": ((model(batch) - batch) ** 2).mean()}}

case = harness.Case(build, data, losses, "2", numbers={{"poison": 0.0}}, train={{"epochs": 2, "batch_size": 16}})
"""


def spec(tmp_path: Path, fault: str, poisons=(0.0, 0.0, 0.0, 0.0), name: str = "own") -> StackSpec:
    path = tmp_path / f"{name}.py"
    path.write_text(CASE.format(fault=fault))
    members = tuple(StackMember(f"{name}{i}", f"v{i}", {"poison": value}, i) for i, value in enumerate(poisons))
    return StackSpec(str(path), None, members)


def run(specs, workers, **more):
    found = {record.key: record for records in run_stacks(specs, workers, **more) for record in records}
    return [found[key] for key in sorted(found)]


LOUD = """print('noise {"bytes": 3}'); os.write(1, b'\\x80noise\\n{"steps": 1}\\n'); os.system("echo {}")"""


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """A stack that is nothing but trained."""
    return spec(tmp_path_factory.mktemp("quiet"), "pass", name="quiet")


@pytest.fixture(scope="module")
def answered(tmp_path_factory, quiet):
    """Records of one worker that was given three stacks one after the other, and the steps that it told of."""
    folder, steps = tmp_path_factory.mktemp("answered"), []
    wrong = spec(folder, "raise ZeroDivisionError('mine')", name="wrong")
    found = run([wrong, spec(folder, LOUD, name="loud"), quiet], 1, on_steps=steps.append)
    return {name: [each for each in found if each.key.startswith(name)] for name in ("wrong", "loud", "quiet")}, steps


def test_what_a_case_prints_is_no_answer_of_its_worker(answered):
    records, _ = answered
    for quiet, loud in zip(records["quiet"], records["loud"], strict=True):
        assert quiet.status == loud.status == "ok"
        assert (repr(quiet.history), quiet.losses) == (repr(loud.history), loud.losses)


def test_a_stack_is_shared_by_the_workers_and_its_members_do_not_know(tmp_path):
    one = spec(tmp_path, "pass", poisons=[0.0] * 12)
    path = Path(str(one.case))
    path.write_text(path.read_text().replace("nn.Linear(4, 2),", "nn.Linear(4, 2), nn.BatchNorm1d(2),"))
    long = 100_000
    assert [len(each.members) for each in split_among_workers([one], 2, long)] == [8, 4]
    for here, there in zip(run([one], 0), run([one], 2, steps=long), strict=True):
        assert here.status == there.status == "ok"
        assert (repr(here.history), here.losses, here.diagnosis) == (repr(there.history), there.losses, there.diagnosis)


def test_a_worker_gives_what_this_process_gives(quiet, answered):
    for here, there in zip(run([quiet], 0), answered[0]["quiet"], strict=True):
        assert here.status == there.status == "ok"
        assert repr(here.history) == repr(there.history)
        assert repr(here.losses) == repr(there.losses)


def test_an_error_of_the_authors_code_is_a_record(answered):
    records = answered[0]["wrong"]
    assert [record.status for record in records] == ["failed"] * 4
    assert "ZeroDivisionError: mine" in records[0].error


def test_a_member_that_kills_its_worker_is_found_and_the_rest_is_kept(tmp_path):
    """Member 1 ends the process; the stack is tried twice, then halved, and then it is alone."""
    fault = "os._exit(9) if float(poison) == 1.0 else None"
    records = run([spec(tmp_path, fault, (0.0, 1.0))], 1)
    assert [record.status for record in records] == ["ok", "failed"]
    assert "worker process died" in records[1].error


@pytest.mark.long
def test_a_worker_that_has_lost_its_gpu_takes_no_other_stack(tmp_path):
    broken = "CUDA error: device-side assert triggered"
    fault = f"""
    def lost():
        raise torch.AcceleratorError("{broken}")
    if os.path.basename(__file__) == "bad.py":
        torch.cuda.is_initialized, torch.cuda.synchronize = lambda: True, lost
    if torch.cuda.is_initialized():
        lost()
"""
    good = spec(tmp_path, fault)
    bad = replace(good, case=str(tmp_path / "bad.py"), members=tuple(replace(m, key="b" + m.key) for m in good.members))
    (tmp_path / "bad.py").write_text((tmp_path / "own.py").read_text())
    found = run([bad, good], 1)
    assert [(record.key[0], record.status) for record in found] == [("b", "failed")] * 4 + [("o", "ok")] * 4
    assert broken in found[0].error


def test_a_case_that_asks_is_answered_by_a_sentence_and_takes_no_other_stack(tmp_path):
    """What would be read are the stacks to come, and then the worker would wait for ever."""
    told = ""
    for number, fault in enumerate(("input('which? ')", "import sys; sys.stdin.readline()", "breakpoint()", "pass")):
        (tmp_path / str(number)).mkdir()
        told += spec_line(spec(tmp_path / str(number), fault, (0.0,)))
    answers = io.BytesIO(new_worker().communicate(told.encode(), timeout=LONGEST)[0])
    said = list(iter(lambda: next_answer(answers), None))
    found = [record for content in said if isinstance(content, bytes) for record in load_records(content)]
    assert [record.status for record in found] == ["failed", "failed", "failed", "ok"]
    assert all("the case reads standard input" in record.error for record in found[:3])


def test_a_worker_loads_neither_pandas_nor_pyarrow_nor_torchs_compiler(tmp_path):
    """Each takes a second or more, in every worker."""
    program = (
        "import sys; from harness.execution.worker import main; from harness.execution.spec import *\n"
        "from harness.execution.run_stack import run_stack; from harness.execution.wire import dump_records\n"
        "member = StackMember('k', 'v', {'penalty': 'kl_sigmoid_bottleneck', 'batchnorm': 'on'}, 0)\n"
        "assert dump_records(run_stack(StackSpec('forum', sys.argv[1], (member,), {'epochs': 1})))\n"
        "print({'pandas', 'pyarrow', 'torch._dynamo', 'scipy.stats', 'scipy.spatial'} & set(sys.modules))"
    )
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).random((200, 100), dtype=np.float32))
    done = python(program, tmp_path / "rows.npy", folder=tmp_path)
    assert done.stdout.strip() == "set()", done.stderr


def test_an_answer_that_is_cut_off_anywhere_is_none(tmp_path):
    records, answer = run_stack(spec(tmp_path, "pass", (0.0,))), io.BytesIO()
    content = dump_records(records)
    _answer(answer, {"bytes": len(content)}, content)
    assert next_answer(io.BytesIO(answer.getvalue())) == content
    assert list(load_records(content)) == records
    for length in range(len(answer.getvalue())):
        assert next_answer(io.BytesIO(answer.getvalue()[:length])) is None


@pytest.mark.parametrize(
    "line",
    [
        b"3\n",
        b"[]\n",
        b"{}\n",
        b"null\n",
        b'{"bytes": "x"}\nabc',
        b'{"bytes": 3}\nabc',
        b'{"bytes": 9}\n[[{}], [[1]]]\n',
    ],
)
def test_what_somebody_else_wrote_between_the_answers_is_none(line):
    assert next_answer(io.BytesIO(line)) is None


@pytest.mark.parametrize(
    "dies",
    [
        "",
        'out(b\'{"steps": 3}\\n{"bytes": 9999}\\n\' + bytes(5000))',
        "out(b'no answer at all\\n'); time.sleep(3600)",
    ],
)
def test_a_worker_that_dies_in_the_middle_of_an_answer_is_dead_and_its_stack_is_kept(dies):
    program = f"import sys, time; out = sys.stdout.buffer.write; {dies}; sys.stdout.flush()"
    program = program.replace("time.sleep", "sys.stdout.flush(); time.sleep")
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    steps = []
    with pytest.raises(StackLost, match="died"):
        Pool(1, steps.append)._ask(process, StackSpec("forum", None, ()))
    assert process.poll() is not None
    assert steps == ([3] if "steps" in dies else [])


def test_a_dead_stack_is_tried_again_then_halved_then_given_up():
    members = tuple(StackMember(str(i), "v", {}, i) for i in range(3))
    again = retry_tasks(Task(StackSpec("forum", None, members)))
    assert [len(task.spec.members) for task in again] == [3]
    halves = retry_tasks(again[0])
    assert [len(task.spec.members) for task in halves] == [1, 2]
    assert retry_tasks(halves[0]) == []


def test_workers_that_wait_are_taken_first_and_none_is_left(tmp_path):
    with waiting_workers(2) as waiting:
        (records,) = run_stacks([spec(tmp_path, "pass")], 1, waiting=waiting)
        assert [record.status for record in records] == ["ok"] * 4
        assert [worker.poll() for worker in waiting] == [None, -9]  # the one that was asked is stopped by its pool
    assert [worker.poll() for worker in waiting] == [-9, -9]


def test_a_worker_that_died_while_it_waited_costs_an_attempt_and_no_member(tmp_path):
    with waiting_workers(1) as waiting:
        waiting[0].kill()
        waiting[0].wait()
        (records,) = run_stacks([spec(tmp_path, "pass")], 1, waiting=waiting)
    assert [record.status for record in records] == ["ok"] * 4


def test_workers_that_wait_are_gone_when_the_driver_gives_up():
    with pytest.raises(KeyboardInterrupt), waiting_workers(2) as waiting:
        raise KeyboardInterrupt
    assert [worker.poll() for worker in waiting] == [-9, -9]


def test_a_spec_survives_its_line():
    one = StackSpec("forum", "digits", (StackMember("k", "v", {"rho": 0.1}, 3),), {"epochs": 2}, 1)
    assert spec_of(spec_line(one)) == one


def test_progress_counts_every_step(quiet, answered):
    steps, of_a_stack = [], 4 * 2 * 2  # members x epochs x batches of 32 training rows
    list(run_stacks([quiet], 0, steps.append))
    assert sum(steps) == of_a_stack
    assert sum(answered[1]) == 2 * of_a_stack  # the third stack fails before its first step
