"""Choice of the executor: processes on this machine, or the cluster that `--on` names."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.experiment.manifest import training_of
from harness.grid import Experiment

if TYPE_CHECKING:
    from harness.case import Case
    from harness.execution.ray import RayExecutor


def check_on(on: str | None, here: bool) -> None:
    """Refuse what a cluster cannot do, before anything is begun.

    Raises:
        HarnessError: if `on` is no address, if Ray is not installed, or with training in this process.
    """
    if on is not None and on != "ray" and not on.startswith("ray://"):
        raise HarnessError(f"--on: expected 'ray' or an address such as 'ray://head:10001', got {on!r}")
    if on is not None and find_spec("ray") is None:
        raise HarnessError("--on ray: expected Ray; `pip install 'collapse-harness[ray]'`")
    if on is not None and on != "ray" and find_spec("grpc") is None:
        raise HarnessError("--on ray://...: expected Ray's client; `pip install 'ray[client]'`")
    if on is not None and here:
        raise HarnessError("--on: expected training on the cluster; leave out --workers 0")


def executor_of(
    on: str | None,
    experiment: Experiment,
    specs: Sequence[Any],
    steps: int,
    stepped: Callable[[int], None],
    says: Callable[[str], None],
    timeout: float | None = None,
) -> "RayExecutor | None":
    """Return the executor of a cluster; None for processes on this machine, and if nothing is to be trained.

    Args:
        on: `ray`, or the address of a cluster.
        experiment: whose stacks are trained.
        specs: the stacks.
        steps: of a member.
        stepped, says: callbacks of the run's progress.
        timeout: seconds that a stack may take; None for no limit.

    Raises:
        HarnessError: if the cluster cannot be reached.
    """
    if on is None or not specs:
        return None
    case, data, device = specs[0].case, specs[0].data, str(training_of(experiment)["device"])
    return connect(on, case, data, device, says, lambda members: stepped(members * steps), timeout)


def connect(
    on: str,
    case: "str | Case",
    data: str | None,
    device: str,
    says: Callable[[str], None],
    trained: Callable[[int], None] = lambda members: None,
    timeout: float | None = None,
    lasting: bool = False,
) -> "RayExecutor":
    """Connect to a cluster, and tell of its nodes.

    Args:
        on: `ray`, or the address of a cluster.
        case, data, device, timeout, lasting: as in `RayExecutor`.
        says: told of the nodes, and of each when its first stack is done.
        trained: called from any thread with the members of a finished stack.

    Raises:
        HarnessError: if the cluster cannot be reached.
    """
    from harness.execution.ray import RayExecutor

    working: set[str] = set()

    def on_stack(members: int, node: str) -> None:
        if node not in working:
            working.add(node)
            says(f"{node} trains")
        trained(members)

    executor = RayExecutor(on, case, data, device, on_stack, timeout, lasting)
    nodes = executor.nodes
    cores = ", ".join(f"{address} ({count} cores)" for address, count in nodes)
    says(f"Ray: {len(nodes)} nodes: {cores}")
    return executor
