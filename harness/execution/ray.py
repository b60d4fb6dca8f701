"""Ray executor: each stack is a task of a Ray cluster; the only file that imports ray.

Ray does not try a task again: a stack whose worker or node dies comes back as lost, like a stack of the pool.
"""

import hashlib
import os
import socket
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import harness
from harness.errors import HarnessError
from harness.execution.executor import StackLost
from harness.execution.shipment import Shipment, shipment
from harness.execution.spec import StackSpec, spec_line
from harness.execution.task_limits import RunningTask, TaskLimits
from harness.execution.time_limit import TimeLimit

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
if TYPE_CHECKING:
    from harness.case import Case

LOST = "its Ray worker or node died at every attempt: out of memory, killed from outside, or ended by the case's code"


LOSSES = (
    "WorkerCrashedError",
    "NodeDiedError",
    "LocalRayletDiedError",
    "OutOfMemoryError",
    "ObjectLostError",
    "TaskCancelledError",
)


class RayExecutor:
    """Trains stacks as tasks of a Ray cluster.

    Args:
        address: `ray` for the cluster of RAY_ADDRESS, or one on this machine; `ray://head:10001` for another.
        case, data: of the experiment, whose files travel to the nodes; a case made in this session travels pickled.
        device: of the experiment (`cpu`, `cuda`, `auto`); it decides on the GPUs of a task.
        on_stack: called from any thread with the members of a finished stack and the name of its node.
        timeout: seconds that a stack may take; None for no limit.
        lasting: stay connected after `stop`, until `close`.

    Raises:
        HarnessError: if the cluster cannot be reached, or a case made in this session cannot be pickled.
    """

    def __init__(
        self,
        address: str,
        case: "str | Case",
        data: str | None,
        device: str = "cpu",
        on_stack: Callable[[int, str], None] = lambda members, node: None,
        timeout: float | None = None,
        lasting: bool = False,
    ) -> None:
        self.on_stack, self.lasting = on_stack, lasting
        self._ray = _connected(address)
        self._limits: TaskLimits | None = None
        try:
            self._prepare(case, data, device, timeout)
        except BaseException:
            self.close()
            raise

    def _prepare(self, case: "str | Case", data: str | None, device: str, timeout: float | None) -> None:
        """Send the files of the experiment, and count what the cluster can train at a time."""
        self._files, content = shipment(case if isinstance(case, str) else "", data)
        pickled = b"" if isinstance(case, str) else _pickled(case)
        self._session = hashlib.sha256(pickled).hexdigest() if pickled else ""
        # in a list, so that only a machine without the files fetches them
        self._content = [self._ray.put(content), self._ray.put(pickled)]
        resources = self._ray.cluster_resources()
        self.slots = int(resources.get("GPU", 0)) if (uses_gpu := _gpus(device, resources)) else 0
        self.slots = self.slots or max(1, int(resources.get("CPU", 1)))
        options = {"num_cpus": 1, "num_gpus": uses_gpu, "max_retries": 0}
        self._train = self._ray.remote(**options)(_train)
        self._references: set[Any] = set()
        if timeout is not None:
            self._limits = TaskLimits(self._ray, timeout)

    @property
    def nodes(self) -> list[tuple[str, int]]:
        """Address and cores of each node that is alive; one machine may have several."""
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        return [(node["NodeManagerAddress"], int(node["Resources"].get("CPU", 0))) for node in nodes]

    def submit(self, spec: StackSpec) -> "Future[bytes]":
        """Train a stack where a core is free."""
        line = spec_line(replace(spec, case="") if self._session else spec)
        arguments = (line, self._files, self._content, harness.__version__, self._session)
        reference, limit = self._limited(arguments)
        answer = Future[bytes]()
        self._references.add(reference)

        def done(future: "Future[tuple[bytes, str]]") -> None:
            self._references.discard(reference)
            limit.stop()
            error = future.exception()
            if error is None:
                content, node = future.result()
                self.on_stack(len(spec.members), node)
                answer.set_result(content)
            else:
                answer.set_exception(self._translated(error, limit))

        reference.future().add_done_callback(done)
        return answer

    def stop(self) -> None:
        """Cancel what trains, and leave the cluster unless the executor is lasting."""
        try:
            for reference in list(self._references):
                self._ray.cancel(reference, force=True)
        finally:
            if not self.lasting:
                self.close()

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        if self._limits is not None:
            self._limits.close()
        self._ray.shutdown()

    def _limited(self, arguments: tuple[Any, ...]) -> tuple[Any, TimeLimit]:
        """Submit a stack; return its reference and its time limit."""
        if self._limits is not None:
            return self._limits.submit(self._train, *arguments)
        reference = self._train.remote(*arguments)
        return reference, TimeLimit(RunningTask(self._ray.cancel, reference), None)

    def _translated(self, error: BaseException, limit: TimeLimit) -> BaseException:
        if limit.reached:
            return StackLost(limit.reason, halve=True)
        errors = self._ray.exceptions
        if isinstance(error, tuple(getattr(errors, name) for name in LOSSES)):
            return StackLost(LOST)
        cause = getattr(error, "cause", None)
        if isinstance(cause, HarnessError):
            return cause
        return HarnessError(f"Ray: {str(error).strip().splitlines()[-1]}")


def _connected(address: str) -> Any:
    """Connect to a cluster, and return the module `ray`.

    Raises:
        HarnessError: if there is no cluster at the address.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    import ray

    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if address != "ray":
        options |= {"address": address}
    elif "RAY_ADDRESS" not in os.environ:
        options |= {"include_dashboard": False}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the error below says it
            ray.init(**options)
    except Exception as error:
        reason = next((line for line in str(error).strip().splitlines() if line), type(error).__name__)
        raise HarnessError(f"--on {address}: no Ray cluster answers: {reason}") from error
    return ray


def _gpus(device: str, resources: Mapping[str, float]) -> int:
    """Return the GPUs of a task: one if the experiment trains on GPUs, or leaves it open and the cluster has some."""
    return int(device.startswith("cuda") or (device == "auto" and resources.get("GPU", 0) > 0))


def _pickled(case: "Case") -> bytes:
    """Pickle a case by value, with the functions of a notebook or script.

    Raises:
        HarnessError: if it holds something that cannot travel.
    """
    from ray import cloudpickle

    try:
        return bytes(cloudpickle.dumps(case))
    except Exception as error:
        raise HarnessError(
            f"--on: a case made in this session travels pickled, and it cannot be: {error}; write it in a file"
        ) from error


_CACHES: dict[tuple[str, str], Any] = {}  # of a worker process, by the files and the session's case of the experiment
_CASES: dict[str, Any] = {}  # unpickled once, since a cache knows a case by its functions


def _session_case(digest: str, content: Callable[[], bytes]) -> "Case":
    if digest not in _CASES:
        from ray import cloudpickle

        _CASES[digest] = cloudpickle.loads(content())
    case: Case = _CASES[digest]
    return case


def _train(
    line: str,
    files: Shipment,
    content: Sequence[Any],
    version: str,
    session: str = "",
    starts: Any = None,
    number: int = 0,
) -> tuple[bytes, str]:
    """Train a stack in a worker process of a node; return the bytes of its records and the node's name."""
    import ray
    import torch

    from harness.execution.process_state import kept_process_state
    from harness.execution.program_batches import CaseCache
    from harness.execution.run_stack import run_stack
    from harness.execution.spec import spec_of
    from harness.execution.stdin import forbid_stdin
    from harness.execution.wire import dump_records

    if harness.__version__ != version:
        raise HarnessError(f"node {socket.gethostname()}: expected harness {version}, got {harness.__version__}")
    torch.set_num_threads(1)
    cache = _CACHES.setdefault((files.digest, session), CaseCache())
    with kept_process_state(), forbid_stdin():
        spec = files.unpacked(spec_of(line), lambda: ray.get(content[0]))
        if starts is not None:  # the time limit of the stack begins here
            starts.add.remote(number)
        if session:
            spec = replace(spec, case=_session_case(session, lambda: ray.get(content[1])))
        records = run_stack(spec, None, cache)
    return dump_records(records), socket.gethostname()
