"""What is known of tensors, by which tensor it is and not by what it holds."""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from torch import Tensor

Value = TypeVar("Value")


class TensorMap(Generic[Value]):
    """A table whose keys are tensors themselves, whatever their numbers.

    It keeps its tensors: the id of one that is gone is given to another, which would then be taken for it. So a table
    lives as long as what it watches, and no longer.

    >>> import torch
    >>> names, zero = TensorMap[str](), torch.zeros(2)
    >>> names[zero] = "zero"
    >>> names.get(zero), names.get(torch.zeros(2))
    ('zero', None)
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[Tensor, Value]] = {}

    def __setitem__(self, tensor: Tensor, value: Value) -> None:
        self._known[id(tensor)] = tensor, value

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, tensor: object) -> bool:
        return id(tensor) in self._known

    def get(self, tensor: object) -> Value | None:
        """What is known of this tensor; None of any other, and of what is no tensor."""
        known = self._known.get(id(tensor))
        return None if known is None else known[1]

    def forget(self, tensor: object) -> None:
        """Nothing is known of this tensor any more, though it may live on."""
        self._known.pop(id(tensor), None)

    def hand_over(self, old: Tensor, new: Tensor) -> Value | None:
        """What is known of one tensor is known of another instead; return it."""
        known = self._known.pop(id(old), None)
        if known is None:
            return None
        self[new] = known[1]
        return known[1]

    def change(self, tensor: Callable[[Tensor], Tensor], value: Callable[[Value], Value]) -> None:
        """Put other tensors, and other values, in the place of all, in their order."""
        entries = [(tensor(key), value(known)) for key, known in self._known.values()]
        self._known = {id(key): (key, known) for key, known in entries}

    def items(self) -> Iterator[tuple[Tensor, Value]]:
        """The tensors and what is known of them, the latest first."""
        return reversed(self._known.values())
