"""A program's step written out as one straight list of tensor operations: the same bits in a third of the time.

What Python did to find out which operations a step needs (the author's loss, `vmap`, the gradient) is done once and
kept. Only for programs that keep no state in Python, since such state would be kept as it was.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from harness.training.operations import OperationList, written_out


class Traced:
    """A function of nested tensors that is replaced by the list of its operations, once that list has proved itself.

    The first call is the function's own; at the second its operations are noted; at the third function and list both
    run, and the list is kept only if it gave the same numbers bit for bit.

    Args:
        function: called with nested tuples and mappings of tensors and plain numbers.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._calls: dict[Any, int] = {}
        self._lists: dict[Any, OperationList | None] = {}

    def __call__(self, key: Any, *arguments: Any) -> Any:
        """The function of the arguments; `key` tells apart what needs another list of operations."""
        calls = self._calls[key] = self._calls.get(key, 0) + 1
        if calls == 2:
            return self._noted(key, arguments)
        operations = self._lists.get(key)
        if operations is None:
            return self.function(*arguments)
        if calls == 3:
            return self._compared(key, operations, arguments)
        return operations(list(tensors_of(arguments)))

    def _noted(self, key: Any, arguments: tuple[Any, ...]) -> Any:
        with Recorder() as recorder:
            result = self.function(*arguments)
        try:
            self._lists[key] = written_out(recorder.calls, list(tensors_of(arguments)), result)
        except Exception:  # what no graph can hold stays a function
            self._lists[key] = None
        return result

    def _compared(self, key: Any, operations: OperationList, arguments: tuple[Any, ...]) -> Any:
        inputs = list(tensors_of(arguments))
        # what a step may change in place is whole; a slice (a parameter) is not, and its copy would be laid out otherwise
        copies = [each.clone() if each.is_contiguous() else each for each in inputs]
        try:
            found = operations(copies)
        except Exception:  # the function went another way this time
            found = ()
        result = self.function(*arguments)
        if not same_bits([*tensors_of(found), *copies], [*tensors_of(result), *inputs]):
            self._lists[key] = None
        return result


@dataclass(frozen=True)
class Call:
    """One operation as it was called."""

    operation: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any


class Recorder(TorchDispatchMode):
    """Notes every operation below `vmap` and the gradient; what it holds stays alive, so that no identity is reused."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing here is compiled, and to be skipped the compiler would have to be loaded first

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.calls.append(Call(func, args, kwargs or {}, result))
        return result


def tensors_of(nested: Any) -> Iterator[Tensor]:
    """The tensors of nested tuples, lists and mappings, in their order.

    >>> [float(each) for each in tensors_of((torch.tensor(1.0), {"a": torch.tensor(2.0), "b": 3.0}))]
    [1.0, 2.0]
    """
    if isinstance(nested, Tensor):
        yield nested
    elif isinstance(nested, dict):
        for each in nested.values():
            yield from tensors_of(each)
    elif isinstance(nested, tuple | list):
        for each in nested:
            yield from tensors_of(each)


def same_bits(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> bool:
    """Whether tensors agree bit for bit, NaN being equal to NaN."""
    return len(found) == len(wanted) and all(
        torch.equal(torch.nan_to_num(one, nan=0.125), torch.nan_to_num(other, nan=0.125))
        and torch.equal(one.isnan(), other.isnan())
        for one, other in zip(found, wanted, strict=True)
    )
