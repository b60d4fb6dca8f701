"""Time limits of Ray tasks: a driver does not know when a task begins, so each task tells it through an actor."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

from harness.execution.time_limit import TimeLimit

SECONDS_TO_END = 5.0  # seconds that the thread, which waits for the actor, has to end


class Starts:
    """Numbers of the tasks that began, in order; an actor."""

    def __init__(self) -> None:
        self._numbers: asyncio.Queue[int | None] = asyncio.Queue()

    async def add(self, number: int | None) -> None:
        """Add the number of a task that begins now; None ends the driver's thread."""
        await self._numbers.put(number)

    async def next(self) -> int | None:
        """Wait for the next number."""
        return await self._numbers.get()


@dataclass(frozen=True)
class RunningTask:
    """A Ray task that can be ended, like a worker."""

    cancel: Callable[..., None]
    reference: Any

    def kill(self) -> None:
        """End the process of the task."""
        with suppress(Exception):  # a lost cluster is told by the task
            self.cancel(self.reference, force=True)


class TaskLimits:
    """Cancels tasks that take longer than some seconds after they began.

    Args:
        ray: the module, connected to a cluster.
        seconds: of a task.
    """

    def __init__(self, ray: Any, seconds: float) -> None:
        self._ray, self._seconds = ray, seconds
        # on the node of the driver: an actor that dies with another node would leave tasks without a limit
        node = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        self._starts = ray.remote(num_cpus=0, scheduling_strategy=node)(Starts).remote()
        # a limit lives as long as its task, whose result it would keep in the memory of the cluster
        self._limits = WeakValueDictionary[int, TimeLimit]()
        self._count, self._lock, self._closed = count(), threading.Lock(), False
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def submit(self, task: Any, *arguments: Any) -> tuple[Any, TimeLimit]:
        """Submit a task, which gets the actor and its own number as last arguments; return its reference and its limit."""
        with self._lock:  # the task may begin before its limit is there
            number = next(self._count)
            reference = task.remote(*arguments, self._starts, number)
            limit = self._limits[number] = TimeLimit(RunningTask(self._ray.cancel, reference), self._seconds)
        return reference, limit

    def close(self) -> None:
        """Stop all limits and end the thread: a call of Ray after its end would start Ray again."""
        self._closed = True
        for limit in self._limits.values():
            limit.stop()
        with suppress(Exception):  # the cluster may be lost
            self._starts.add.remote(None)
        self._thread.join(SECONDS_TO_END)

    def _listen(self) -> None:
        with suppress(Exception):  # a lost cluster is told by the tasks
            while not self._closed and (number := self._ray.get(self._starts.next.remote())) is not None:
                with self._lock:
                    limit = self._limits.get(number)
                if limit is not None:  # the task still runs
                    limit.start()
