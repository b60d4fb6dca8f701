"""Worker pool: one process per core with one thread each, which train one stack at a time.

If a worker dies, its stack is tried once more and then halved until the responsible member is alone. A stack that takes too
long is halved at once.
"""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from harness.execution.spec import StackSpec, failed_record, spec_line
from harness.execution.time_limit import TimeLimit
from harness.execution.worker_client import Worker, new_worker, next_answer
from harness.grid.stack_plan import dealt
from harness.results import MemberRecord

ATTEMPTS = 2
DIED = (
    "its worker process died at every attempt: out of memory, killed from outside, or ended by the case's code "
    "(os._exit)"
)
OTHERS = "its worker process answered for other members at every attempt: the case's code writes into its answers"


@dataclass
class Task:
    """A stack to be trained, the number of workers that died of it, and the reason of the last death."""

    spec: StackSpec
    deaths: int = 0
    reason: str = DIED


@dataclass
class Pool:
    """Worker processes, each fed by a thread; started workers in `waiting` are used first.

    `timeout` is the largest number of seconds of a stack; None for no limit.
    """

    workers: int
    on_steps: Callable[[int], None]
    timeout: float | None = None
    tasks: "queue.Queue[Task | None]" = field(default_factory=queue.Queue)
    answers: "queue.Queue[list[MemberRecord] | Task | BaseException]" = field(default_factory=queue.Queue)
    processes: list[Worker] = field(default_factory=list)
    waiting: list[Worker] = field(default_factory=list)
    stopping: bool = False

    def start(self) -> None:
        """Start the feeding threads; each starts its process with its first stack."""
        for _ in range(self.workers):
            threading.Thread(target=self._feed, daemon=True).start()

    def stop(self) -> None:
        """End every process at once."""
        self.stopping = True
        for _ in range(self.workers):
            self.tasks.put(None)
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()

    def _feed(self) -> None:
        process: Worker | None = None
        while (task := self.tasks.get()) is not None:
            try:
                process = process if process is not None and process.poll() is None else self._new_process()
                self.answers.put(self._ask(process, task))
            except OSError:
                self.answers.put(task)
            except BaseException as error:
                self.answers.put(error)

    def _new_process(self) -> Worker:
        try:
            process = self.waiting.pop()  # not `if waiting`: another thread may take the last one in between
        except IndexError:
            process = new_worker()
        self.processes.append(process)
        return process

    def _ask(self, process: Worker, task: Task) -> "list[MemberRecord] | Task":
        """Return the records of a stack, or the task if the worker died, took too long or answered for other members."""
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(spec_line(task.spec).encode())
        process.stdin.flush()
        with TimeLimit(process, self.timeout) as limit:
            while (answer := next_answer(process.stdout)) is not None:
                limit.start()  # with the first answer: a new worker has loaded torch
                if isinstance(answer, int):
                    self.on_steps(answer)
                elif [record.key for record in answer] == [member.key for member in task.spec.members]:
                    return answer
                else:
                    task = replace(task, reason=OTHERS)
                    break
        process.kill()
        process.wait()
        return replace(task, deaths=ATTEMPTS, reason=limit.reason) if limit.reached else task


def run_stacks(
    specs: Sequence[StackSpec],
    workers: int,
    on_steps: Callable[[int], None] = lambda steps: None,
    waiting: Sequence[Worker] = (),
    steps: int = 0,
    timeout: float | None = None,
) -> Iterator[list[MemberRecord]]:
    """Train stacks and yield the records of each stack as it is done.

    Args:
        specs: the stacks; those whose case is not a file run in this process.
        workers: number of processes; 0 runs everything in this process.
        on_steps: called from any thread with the number of member-steps done.
        waiting: workers started before by `waiting_workers`.
        steps: approximate steps of a member; long stacks are split if workers would be idle.
        timeout: seconds that a worker may take for a stack; then it is halved until the slow member is alone.
    """
    here = [spec for spec in specs if workers == 0 or not isinstance(spec.case, str)]
    there = [spec for spec in specs if not (workers == 0 or not isinstance(spec.case, str))]
    if here:
        from harness.execution.process_state import kept_process_state
        from harness.execution.run_stack import run_stack

        for spec in here:
            with kept_process_state():
                records = run_stack(spec, on_steps)
            yield records
    if there:
        shares = split_among_workers(there, workers, steps)
        yield from _in_processes(shares, Pool(min(workers, len(shares)), on_steps, timeout, waiting=list(waiting)))


def split_among_workers(specs: Sequence[StackSpec], workers: int, steps: int) -> list[StackSpec]:
    """Sort the stacks by size, largest first, and cut the last ones, so that workers end at about the same time."""
    ordered = sorted(specs, key=lambda spec: -len(spec.members))
    parts = dealt([len(spec.members) for spec in ordered], workers, steps)
    cut = [part for spec, sizes in zip(ordered, parts, strict=True) for part in _cut(spec, sizes)]
    return sorted(cut, key=lambda spec: -len(spec.members))


def _cut(spec: StackSpec, sizes: Sequence[int]) -> Iterator[StackSpec]:
    members = iter(spec.members)
    for size in sizes:
        yield replace(spec, members=tuple(islice(members, size)))


def _in_processes(specs: Sequence[StackSpec], pool: Pool) -> Iterator[list[MemberRecord]]:
    for spec in specs:
        pool.tasks.put(Task(spec))
    open_tasks = len(specs)
    pool.start()
    try:
        while open_tasks:
            answer = _next_answer(pool.answers)
            if isinstance(answer, BaseException):
                raise answer
            if isinstance(answer, Task):
                again = retry_tasks(answer)
                open_tasks += len(again) - 1
                if not again:
                    yield [failed_record(member, answer.reason) for member in answer.spec.members]
                for task in again:
                    pool.tasks.put(task)
                continue
            open_tasks -= 1
            yield answer
    finally:
        pool.stop()


def _next_answer(
    answers: "queue.Queue[list[MemberRecord] | Task | BaseException]",
) -> "list[MemberRecord] | Task | BaseException":
    while True:  # short waits, so that Ctrl-C is handled at once
        try:
            return answers.get(timeout=0.2)
        except queue.Empty:
            continue


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
