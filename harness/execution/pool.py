"""Worker pool: one process per core with one thread each, which train one stack at a time."""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from itertools import islice

from harness.execution.executor import OTHERS, Executor, StackLost, results
from harness.execution.spec import StackSpec, spec_line
from harness.execution.time_limit import TimeLimit
from harness.execution.wire import record_keys
from harness.execution.worker_client import Worker, new_worker, next_answer
from harness.grid.stack_plan import dealt
from harness.results import MemberRecord

Submitted = tuple[StackSpec, "Future[bytes]"]


@dataclass
class Pool:
    """Worker processes, each fed by a thread; started workers in `waiting` are used first.

    `timeout` is the largest number of seconds of a stack; None for no limit.
    """

    workers: int
    on_steps: Callable[[int], None]
    timeout: float | None = None
    tasks: "queue.Queue[Submitted | None]" = field(default_factory=queue.Queue)
    processes: list[Worker] = field(default_factory=list)
    waiting: list[Worker] = field(default_factory=list)
    feeding: int = 0
    stopping: bool = False

    def submit(self, spec: StackSpec) -> "Future[bytes]":
        """Train a stack in the next free worker; a process starts with its first stack."""
        future: Future[bytes] = Future()
        self.tasks.put((spec, future))
        if self.feeding < self.workers:
            self.feeding += 1
            threading.Thread(target=self._feed, daemon=True).start()
        return future

    def stop(self) -> None:
        """End every process at once."""
        self.stopping = True
        for _ in range(self.feeding):
            self.tasks.put(None)
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()

    def _feed(self) -> None:
        process: Worker | None = None
        while (task := self.tasks.get()) is not None:
            spec, future = task
            try:
                process = process if process is not None and process.poll() is None else self._new_process()
                future.set_result(self._ask(process, spec))
            except OSError:
                future.set_exception(StackLost())
            except BaseException as error:
                future.set_exception(error)

    def _new_process(self) -> Worker:
        try:
            process = self.waiting.pop()  # not `if waiting`: another thread may take the last one in between
        except IndexError:
            process = new_worker()
        self.processes.append(process)
        return process

    def _ask(self, process: Worker, spec: StackSpec) -> bytes:
        """Return the records of a stack.

        Raises:
            StackLost: if the worker died, took too long or answered for other members.
        """
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(spec_line(spec).encode())
        process.stdin.flush()
        failure = StackLost()
        with TimeLimit(process, self.timeout) as limit:
            while (answer := next_answer(process.stdout)) is not None:
                limit.start()  # with the first answer: a new worker has loaded torch
                if isinstance(answer, int):
                    self.on_steps(answer)
                elif record_keys(answer) == [member.key for member in spec.members]:
                    return answer
                else:
                    failure = StackLost(OTHERS)
                    break
        process.kill()
        process.wait()
        raise StackLost(limit.reason, halve=True) if limit.reached else failure


def run_stacks(
    specs: Sequence[StackSpec],
    workers: int,
    on_steps: Callable[[int], None] = lambda steps: None,
    waiting: Sequence[Worker] = (),
    steps: int = 0,
    timeout: float | None = None,
    executor: Executor | None = None,
) -> Iterator[list[MemberRecord]]:
    """Train stacks and yield the records of each stack as it is done.

    Args:
        specs: the stacks; without an executor, those whose case is not a file run in this process.
        workers: number of processes; 0 runs everything in this process. On an executor: stacks at a time.
        on_steps: called from any thread with the number of member-steps done.
        waiting: workers started before by `waiting_workers`.
        steps: approximate steps of a member; long stacks are split if workers would be idle.
        timeout: seconds that a worker may take for a stack; then it is halved until the slow member is alone.
        executor: where stacks are trained; None means processes on this machine. It is stopped at the end.
    """
    here = [] if executor else [spec for spec in specs if workers == 0 or not isinstance(spec.case, str)]
    there = [spec for spec in specs if executor or (workers and isinstance(spec.case, str))]
    if here:
        from harness.execution.process_state import kept_process_state
        from harness.execution.run_stack import run_stack

        for spec in here:
            with kept_process_state():
                records = run_stack(spec, on_steps)
            yield records
    if there:
        shares = split_among_workers(there, workers, steps)
        local = Pool(min(workers, len(shares)), on_steps, timeout, waiting=list(waiting))
        yield from results(shares, executor or local)


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
