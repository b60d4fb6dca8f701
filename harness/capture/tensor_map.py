"""A dict keyed by tensor identity."""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from torch import Tensor

Value = TypeVar("Value")


class TensorMap(Generic[Value]):
    """A dict whose keys are tensors, compared by identity.

    It keeps its tensors alive: Python gives the id of a deleted tensor to a new one, which would be taken for it. So a
    map must not outlive the forward pass that it describes.

    >>> import torch
    >>> names, zero = TensorMap[str](), torch.zeros(2)
    >>> names[zero] = "zero"
    >>> names.get(zero), names.get(torch.zeros(2))
    ('zero', None)
    """

    def __init__(self) -> None:
        self._entries: dict[int, tuple[Tensor, Value]] = {}

    def __setitem__(self, tensor: Tensor, value: Value) -> None:
        self._entries[id(tensor)] = tensor, value

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, tensor: object) -> bool:
        return id(tensor) in self._entries

    def get(self, tensor: object) -> Value | None:
        """Return the value of this tensor; None for another object."""
        entry = self._entries.get(id(tensor))
        return None if entry is None else entry[1]

    def forget(self, tensor: object) -> None:
        """Remove the entry of this tensor, if there is one."""
        self._entries.pop(id(tensor), None)

    def hand_over(self, old: Tensor, new: Tensor) -> Value | None:
        """Move the entry of one tensor to another, and return its value."""
        entry = self._entries.pop(id(old), None)
        if entry is None:
            return None
        self[new] = entry[1]
        return entry[1]

    def change(self, tensor: Callable[[Tensor], Tensor], value: Callable[[Value], Value]) -> None:
        """Apply functions to all keys and values, keeping their order."""
        entries = [(tensor(key), value(old)) for key, old in self._entries.values()]
        self._entries = {id(key): (key, new) for key, new in entries}

    def items(self) -> Iterator[tuple[Tensor, Value]]:
        """Iterate over tensors and values, the latest first."""
        return reversed(self._entries.values())
