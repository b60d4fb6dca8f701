"""A program's step written out as one straight list of tensor operations: the same bits in a fraction of the time.

What Python did to find out which operations a step needs (the author's loss, `vmap`, the gradient) is done once and
kept. Only for programs that keep no state in Python, since such state would be kept as it was.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from harness.training.graph.nested import iter_tensors
from harness.training.graph.operations import StepGraph, build_step_graph

COMPILED_AT = 64  # calls: compiling a list takes what some fifty steps save


class GraphedFunction:
    """A function of nested tensors that is replaced by the list of its operations, once that list has proved itself.

    The first call is the function's own; at the second its operations are noted; at the third function and list both
    run, and the list is kept only if it gave the same numbers bit for bit. A list that is called often is compiled,
    and has to prove itself again.

    Args:
        function: called with nested tuples and mappings of tensors and plain numbers. Tensors that it reaches otherwise
            must stay the same tensors, though their numbers may change.
        compiles: whether a list is ever compiled: not worth it for what is called a hundred times.
    """

    def __init__(self, function: Callable[..., Any], compiles: bool = True) -> None:
        self.function, self.compiles = function, compiles
        self._calls: dict[Any, int] = {}
        self._lists: dict[Any, StepGraph | None] = {}

    def __call__(self, key: Any, *arguments: Any) -> Any:
        """The function of the arguments; `key` tells apart what needs another list of operations."""
        calls = self._calls[key] = self._calls.get(key, 0) + 1
        if calls == 2:
            return self._noted(key, arguments)
        operations = self._lists.get(key)
        if operations is None:
            return self.function(*arguments)
        inputs = list(iter_tensors(arguments))
        if calls == 3:
            proved, result = operations.compared(lambda: self.function(*arguments), inputs)
            self._lists[key] = operations if proved else None
            return result
        return operations.compile(inputs) if self.compiles and calls == COMPILED_AT else operations(inputs)

    def is_pure(self, key: Any) -> bool:
        """Whether a list that has proved itself is all there is: the same arguments then give the same numbers."""
        operations = self._lists.get(key)
        return self._calls.get(key, 0) > 2 and operations is not None and operations.changes_nothing

    def _noted(self, key: Any, arguments: tuple[Any, ...]) -> Any:
        with DispatchRecorder() as recorder:
            result = self.function(*arguments)
        try:
            self._lists[key] = build_step_graph(recorder.calls, list(iter_tensors(arguments)), result)
        except Exception:  # what no graph can hold stays a function
            self._lists[key] = None
        return result


@dataclass(frozen=True)
class RecordedOp:
    """One operation as it was called."""

    operation: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any


class DispatchRecorder(TorchDispatchMode):
    """Notes every operation below `vmap` and the gradient; what it holds stays alive, so that no identity is reused."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[RecordedOp] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing here is compiled, and to be skipped the compiler would have to be loaded first

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.calls.append(RecordedOp(func, args, kwargs or {}, result))
        return result
