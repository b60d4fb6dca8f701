"""A loss that forks, or that has processes of its own: no member vanishes, and none is there twice."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import LONGEST

from harness.execution import pool, run_stack
from harness.execution.executor import OTHERS, StackLost
from harness.execution.pool import Pool, run_stacks
from harness.execution.spec import StackMember, StackSpec, failed_record
from harness.execution.wire import dump_records, record_keys
from harness.execution.worker import _answer

pytestmark = pytest.mark.many

CASE = """
import multiprocessing, os, sys, torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
import harness

calls, owner = [0], os.getpid()  # only the process that loaded the case forks: a fault must not breed processes

class Rows(Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, index):
        return torch.randn(6, generator=torch.Generator().manual_seed(index))

def row(index):
    return Rows()[index]

def build():
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 6))

def data():
    rows = torch.stack([row(index) for index in range(40)])
    {data}
    return rows

def losses(model, batch, poison=0.0):
    calls[0] += 1
    {loss}
    return {{"reconstruction": ((model(batch) - batch) ** 2).mean()}}

case = harness.Case(build, data, losses, "2", numbers={{"poison": 0.0}}, train={{"epochs": 2, "batch_size": 16}})
"""
FORKS = {
    "a child that returns": "calls[0] % 5 == 0 and os.getpid() == owner and os.fork()",
    "a child that raises": "if calls[0] % 5 == 0 and os.getpid() == owner and os.fork() == 0: raise ValueError('of the child')",
    "a child that exits": "if calls[0] % 5 == 0 and os.getpid() == owner and os.fork() == 0: sys.exit(0)",
}
OWN_PROCESSES = {
    "a process in the loss": {
        "loss": "if calls[0] == 5: p = multiprocessing.Process(target=row, args=(0,)); p.start(); p.join()"
        "; assert p.exitcode == 0"
    },
    "a pool in the data": {
        "data": "with multiprocessing.Pool(2) as pool: assert torch.equal(torch.stack(pool.map(row, range(40))), rows)"
    },
    "a loader with workers in the data": {
        "data": "assert torch.equal(torch.cat(list(DataLoader(Rows(), batch_size=8, num_workers=2))), rows)"
    },
}
ASKED = StackSpec("forum", None, (StackMember("a", "v", {}, 0), StackMember("b", "v", {}, 1)))
SCRIPT = """
import json, sys
from harness.execution.pool import run_stacks
from harness.execution.spec import StackMember, StackSpec

members = [StackMember(f"k{i}", f"v{i}", {"poison": 0.0}, i) for i in range(4)]
stacks = [StackSpec("own.py", None, tuple(members[:2])), StackSpec("own.py", None, tuple(members[2:]))]
steps = []
records = [record for found in run_stacks(stacks, int(sys.argv[1]), steps.append) for record in found]
print(json.dumps([[each.key, each.status, each.error, each.losses, repr(each.history)] for each in records]), sum(steps))
"""


def records(folder, workers, data="pass", loss="pass"):
    """What a process of its own prints of two stacks of two members: one line for all that come out of it."""
    (folder / "own.py").write_text(CASE.format(data=data, loss=loss))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", SCRIPT, str(workers)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LONGEST)
    (line,) = done.stdout.splitlines()
    document, _, steps = line.rpartition(" ")
    return sorted(json.loads(document)), int(steps)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    found, steps = records(tmp_path_factory.mktemp("quiet"), 0)
    assert [(key, status) for key, status, *_ in found] == [(f"k{i}", "ok") for i in range(4)]
    return found, steps


def here_and_there(kinds, *quick):
    """Each kind in the process itself and in a worker; without a mark those that `make test` has."""
    pairs = [(name, workers) for name in kinds for workers in (0, 1)]
    return [pytest.param(*pair, marks=() if pair in quick else pytest.mark.service) for pair in pairs]


@pytest.mark.parametrize(
    ("name", "workers"), here_and_there(FORKS, ("a child that raises", 0), ("a child that returns", 1))
)
def test_a_loss_that_forks_leaves_the_members_that_any_leaves(tmp_path, quiet, name, workers):
    assert records(tmp_path, workers, loss=FORKS[name]) == quiet


@pytest.mark.parametrize(
    ("name", "workers"), here_and_there(OWN_PROCESSES, ("a process in the loss", 0), ("a pool in the data", 1))
)
@pytest.mark.long
def test_a_case_may_have_processes_of_its_own(tmp_path, quiet, name, workers):
    assert records(tmp_path, workers, **OWN_PROCESSES[name]) == quiet


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("ends", ["sys.exit(0)", "raise KeyboardInterrupt"])
def test_a_loss_that_ends_its_process_fails_its_member_and_no_other(tmp_path, ends, workers):
    if workers == 0 and "Keyboard" in ends:
        pytest.skip("in this process it is a Ctrl-C")
    (tmp_path / "own.py").write_text(CASE.format(data="pass", loss=f"if float(poison) == 1.0: {ends}"))
    members = tuple(StackMember(f"k{i}", f"v{i}", {"poison": float(i == 2)}, i) for i in range(4))
    found = [
        each for part in run_stacks([StackSpec(str(tmp_path / "own.py"), None, members)], workers) for each in part
    ]
    assert {each.key: each.status for each in found} == {"k0": "ok", "k1": "ok", "k2": "failed", "k3": "ok"}
    (error,) = [each.error for each in found if each.error]
    assert error.startswith("the case's code ended with ")


def raising(error):
    def raises(*arguments):
        raise error

    return raises


def test_a_case_that_ends_as_its_models_are_built_fails_its_members(monkeypatch):
    monkeypatch.setattr(run_stack, "group_programs", raising(SystemExit(0)))
    assert [record.status for record in run_stack.run_stack(ASKED)] == ["failed", "failed"]
    assert "ended with SystemExit(0)" in run_stack.run_stack(ASKED)[0].error


def test_a_case_that_ends_as_it_is_tried_in_parts_fails_by_what_it_raised_first(monkeypatch):
    monkeypatch.setattr(run_stack, "_train_batch", raising(ValueError("late")))
    monkeypatch.setattr(run_stack, "fallback_batches", raising(SystemExit(0)))
    assert [record.error for record in run_stack.run_stack(ASKED)] == ["ValueError: late"] * 2


def answering(keys):
    """A process that answers the first stack it is asked about with failed members of these keys."""
    answer = io.BytesIO()
    content = dump_records([failed_record(StackMember(key, "v", {}, 0), "mine") for key in keys])
    _answer(answer, {"bytes": len(content)}, content)
    program = f"import sys; sys.stdin.readline(); sys.stdout.buffer.write({answer.getvalue()!r}); sys.stdout.flush()"
    program += "; sys.stdin.read()"
    return subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


@pytest.mark.parametrize("keys", ["a", "ba", "abc", "cd", "aab", ""])
def test_an_answer_about_others_is_none(keys):
    process = answering(keys)
    with pytest.raises(StackLost, match=re.escape(OTHERS)):
        Pool(1, lambda steps: None)._ask(process, ASKED)
    assert process.poll() is not None


def test_an_answer_about_those_who_were_asked_is_taken():
    process = answering("ab")
    assert record_keys(Pool(1, lambda steps: None)._ask(process, ASKED)) == ["a", "b"]
    process.kill()
    process.wait()


def test_members_that_are_never_answered_for_are_failed_and_say_why(monkeypatch):
    monkeypatch.setattr(pool, "new_worker", lambda: answering("xy"))
    found = [record for part in run_stacks([ASKED], 1) for record in part]
    assert sorted((record.key, record.status, record.error) for record in found) == [
        ("a", "failed", OTHERS),
        ("b", "failed", OTHERS),
    ]
