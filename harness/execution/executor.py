"""Executors: where stacks are trained, and what is done with a stack whose worker is lost.

An executor takes a stack and answers with the bytes of its records. There are two: processes on this machine
(`pool.Pool`) and tasks of a Ray cluster (`ray.RayExecutor`). Whatever the executor, a stack whose worker dies is tried once
more and then halved until the responsible member is alone; a stack that takes too long is halved at once.
"""

import queue
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Protocol

from harness.execution.spec import StackSpec, failed_record
from harness.execution.wire import load_records
from harness.results import MemberRecord

ATTEMPTS = 2
DIED = (
    "its worker process died at every attempt: out of memory, killed from outside, or ended by the case's code "
    "(os._exit)"
)
OTHERS = "its worker process answered for other members at every attempt: the case's code writes into its answers"


class Executor(Protocol):
    """Trains stacks in other processes."""

    def submit(self, spec: StackSpec) -> "Future[bytes]":
        """Train a stack; the result is the bytes of `dump_records`, the error of a lost worker a `StackLost`."""

    def stop(self) -> None:
        """End everything at once."""


class StackLost(Exception):
    """The worker of a stack died, took too long or answered for other members.

    Args:
        reason: of members that are lost at every attempt.
        halve: whether the stack is halved at once instead of being tried once more.
    """

    def __init__(self, reason: str = DIED, halve: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.halve = reason, halve


@dataclass
class Task:
    """A stack to be trained, the number of workers that died of it, and the reason of the last death."""

    spec: StackSpec
    deaths: int = 0
    reason: str = DIED


def results(specs: Sequence[StackSpec], executor: Executor) -> Iterator[list[MemberRecord]]:
    """Train stacks on an executor, and yield the records of each as it is done; stop the executor at the end."""
    answers: queue.Queue[tuple[Task, Future[bytes]]] = queue.Queue()

    def submit(task: Task) -> None:
        executor.submit(task.spec).add_done_callback(lambda future: answers.put((task, future)))

    try:
        for spec in specs:
            submit(Task(spec))
        open_tasks = len(specs)
        while open_tasks:
            task, future = _next(answers)
            open_tasks -= 1
            try:
                yield _records(task.spec, future.result())
            except StackLost as lost:
                task = replace(task, reason=lost.reason, deaths=ATTEMPTS if lost.halve else task.deaths)
                again = retry_tasks(task)
                open_tasks += len(again)
                if not again:
                    yield [failed_record(member, task.reason) for member in task.spec.members]
                for part in again:
                    submit(part)
    finally:
        executor.stop()


def retry_tasks(task: Task) -> list[Task]:
    """Return the tasks to try after a worker died: the same stack, then its halves, then none."""
    if task.deaths + 1 < ATTEMPTS:
        return [replace(task, deaths=task.deaths + 1, reason=DIED)]
    members = task.spec.members
    if len(members) == 1:
        return []
    middle = len(members) // 2
    halves = (members[:middle], members[middle:])
    return [Task(replace(task.spec, members=half), deaths=ATTEMPTS - 1) for half in halves]


def _records(spec: StackSpec, answer: bytes) -> list[MemberRecord]:
    """Return the records of an answer.

    Raises:
        StackLost: if the answer is about other members, or no answer at all.
    """
    try:
        records = list(load_records(answer))
    except (ValueError, TypeError, LookupError) as error:  # written by other code
        raise StackLost from error
    if [record.key for record in records] != [member.key for member in spec.members]:
        raise StackLost(OTHERS)
    return records


def _next(answers: "queue.Queue[tuple[Task, Future[bytes]]]") -> "tuple[Task, Future[bytes]]":
    while True:  # short waits, so that Ctrl-C is handled at once
        try:
            return answers.get(timeout=0.2)
        except queue.Empty:
            continue
