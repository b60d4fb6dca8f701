"""A training step recorded as a straight list of tensor operations: the same bits in a fraction of the time.

The Python code that determines the operations of a step (the author's loss, `vmap`, the gradient) runs once. Programs that
keep state in Python cannot be recorded, because that state would be frozen.
"""

from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from harness.training.graph.nested import iter_tensors
from harness.training.graph.operations import RecordedOp, StepGraph, build_step_graph

CUDA_GRAPH_AT = 64  # calls; building a CUDA graph takes the time that about fifty steps save


class GraphedFunction:
    """Function of nested tensors that is replaced by the list of its operations after a bitwise test.

    The first call runs the function; the second records its operations; the third runs both, and the list is used from
    then on only if all results are bitwise equal. On a GPU a list that is called often becomes a CUDA graph, which is
    tested likewise.

    Args:
        function: takes nested tuples and mappings of tensors and plain numbers. Other tensors that it uses must stay
            the same objects; their values may change.
        cuda_graph: False for a function called too rarely to be worth a CUDA graph.
    """

    def __init__(self, function: Callable[..., Any], cuda_graph: bool = True) -> None:
        self.function, self.cuda_graph = function, cuda_graph
        self._calls: dict[Any, int] = {}
        self._lists: dict[Any, StepGraph | None] = {}

    def __call__(self, key: Any, *arguments: Any) -> Any:
        """Evaluate the function; each `key` has a list of operations of its own."""
        calls = self._calls[key] = self._calls.get(key, 0) + 1
        if calls == 2:
            return self._record(key, arguments)
        operations = self._lists.get(key)
        if operations is None:
            return self.function(*arguments)
        inputs = list(iter_tensors(arguments))
        if calls == 3:
            equal, result = operations.compared(lambda: self.function(*arguments), inputs)
            self._lists[key] = operations if equal else None
            return result
        if self.cuda_graph and calls == CUDA_GRAPH_AT:
            return operations.use_cuda_graph(inputs)
        return operations(inputs)

    def is_pure(self, key: Any) -> bool:
        """Return True if a tested list replaces the function and changes nothing: equal arguments give equal results."""
        operations = self._lists.get(key)
        return self._calls.get(key, 0) > 2 and operations is not None and operations.changes_nothing

    def _record(self, key: Any, arguments: tuple[Any, ...]) -> Any:
        with DispatchRecorder() as recorder:
            result = self.function(*arguments)
        try:
            self._lists[key] = build_step_graph(recorder.calls, list(iter_tensors(arguments)), result)
        except Exception:  # a function that no graph can represent is called as it is
            self._lists[key] = None
        return result


class DispatchRecorder(TorchDispatchMode):
    """Record every operation under `vmap` and the gradient; recorded tensors stay alive, so that no id is reused."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[RecordedOp] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing here is compiled, and skipping would load the compiler

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.calls.append(RecordedOp(func, args, kwargs or {}, result))
        return result
