"""Limits of cluster tasks: counted from the beginning of a task, and gone with their executor."""

import queue
import threading
from types import SimpleNamespace

import pytest
from waiting import until

from harness.execution.task_limits import RunningTask, TaskLimits
from harness.execution.time_limit import TimeLimit


class Cluster:
    """Stands for the module `ray`: its only actor passes numbers on, and it notes which tasks are cancelled."""

    def __init__(self, lost=False):
        self.numbers, self.cancelled, self.lost = queue.Queue(), [], lost
        affinity = SimpleNamespace(NodeAffinitySchedulingStrategy=lambda node, soft: node)
        self.util = SimpleNamespace(scheduling_strategies=affinity)
        self.starts = SimpleNamespace(
            add=SimpleNamespace(remote=self.numbers.put), next=SimpleNamespace(remote=lambda: self.numbers)
        )

    def get_runtime_context(self):
        return SimpleNamespace(get_node_id=lambda: "driver")

    def remote(self, **options):
        return lambda actor: SimpleNamespace(remote=lambda: self.starts)

    def get(self, numbers):
        if self.lost:
            raise ConnectionError("lost")
        return numbers.get()

    def cancel(self, reference, force):
        assert force
        self.cancelled.append(reference)
        if self.lost:
            raise ConnectionError("lost")


TASK = SimpleNamespace(remote=lambda name, starts, number: (name, number))


def test_a_task_is_cancelled_some_time_after_it_began_and_one_that_waits_is_not():
    cluster = Cluster()
    limits = TaskLimits(cluster, 0.05)
    (_waiting, first), (_begun, second) = (limits.submit(TASK, name) for name in ("waits", "begins"))
    cluster.numbers.put(1)
    until(lambda: cluster.cancelled)
    assert cluster.cancelled == [("begins", 1)]
    assert (first.reached, second.reached) == (False, True)
    assert second.reason == "took longer than --timeout 0.05 s"
    limits.close()


def test_nothing_is_cancelled_after_the_end_and_no_thread_is_left():
    cluster = Cluster()
    before = threading.active_count()
    limits = TaskLimits(cluster, 0.2)
    _, limit = limits.submit(TASK, "begins")
    cluster.numbers.put(0)
    until(lambda: limit._timer is not None)
    limits.close()
    until(lambda: threading.active_count() == before)
    assert (cluster.cancelled, limit.reached) == ([], False)


def test_a_task_that_is_done_keeps_no_limit():
    limits = TaskLimits(Cluster(), 50.0)
    submitted = limits.submit(TASK, "done")
    assert len(limits._limits) == 1
    del submitted
    assert len(limits._limits) == 0
    limits.close()


def test_a_limit_that_starts_after_its_task_is_done_ends_nothing():
    limit = TimeLimit(RunningTask(pytest.fail, None), 0.01)
    limit.stop()
    limit.start()
    assert limit._timer is None


def test_a_lost_cluster_raises_nothing_in_other_threads():
    cluster = Cluster(lost=True)
    TaskLimits(cluster, 1.0).close()
    RunningTask(cluster.cancel, "task").kill()
    assert cluster.cancelled == ["task"]
