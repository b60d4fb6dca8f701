"""ReLUs written with a comparison or with a zero tensor: `maximum(z, 0)`, `where(z > 0, z, 0)`, `z * (z > 0)`.

The threshold above which a value passes does not matter: a function that is zero elsewhere fires where it is above zero.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from harness.capture.activation_calls import CLAMPS, PASSED_THROUGH, PRODUCTS
from harness.capture.tensor_map import TensorMap
from harness.capture.writes import TensorCopies, WriteCall


class ReluComparison(NamedTuple):
    """A comparison of a value with a threshold; `below` for one that is true of small values."""

    func: Callable[..., Any]
    value: Tensor
    by: Any
    below: bool


class ReluPatterns:
    """Recognizer of the ReLUs of one forward pass that consist of several calls.

    A tensor counts as zero because of the call that made it, never because of its values: a buffer or parameter that
    happens to be zero is not a constant, and values cannot be read under `vmap`.
    """

    def __init__(self) -> None:
        self._zeros = TensorMap[bool]()
        self._compared = TensorMap[ReluComparison]()

    def note(self, func: Callable[..., Any], args: tuple[Any, ...], result: Any) -> None:
        """Record the result of a call that makes a zero or a comparison."""
        if func not in BEGINNINGS and not self._zeros and not self._compared:
            return  # true of nearly every call
        source = args[0] if args else None
        compared = self._compared.get(source)
        if self._makes_zero(func, args):
            self._zeros[result] = True
        elif func in COMPARISONS and len(args) == 2 and _can_be_threshold(args[1]):
            self._compared[result] = ReluComparison(func, args[0], args[1], func in BELOW)
        elif compared is not None and (func in PASSED_THROUGH or func in CASTS):
            self._compared[result] = compared

    def tensors(self) -> Iterator[Tensor]:
        """Iterate over all recorded tensors."""
        yield from (tensor for tensor, _ in self._zeros.items())
        for tensor, comparison in self._compared.items():
            yield from (tensor, comparison.value)

    def set_aside(self, aside: TensorCopies) -> None:
        """Move the records of tensors that are about to be written to to their copies."""
        self._zeros.change(aside, lambda zero: zero)
        self._compared.change(
            aside, lambda comparison: comparison._replace(value=aside(comparison.value), by=aside(comparison.by))
        )

    def hand_over(self, written: Tensor, target: Tensor) -> None:
        """Move the records of written values to the tensor that they were written to."""
        self._zeros.hand_over(written, target)
        self._compared.hand_over(written, target)

    def is_zero(self, value: Any) -> bool:
        """Return True for the number 0 and for a tensor that this pass created as zeros."""
        return value in self._zeros if isinstance(value, Tensor) else _is_number_zero(value)

    def _makes_zero(self, func: Callable[..., Any], args: tuple[Any, ...]) -> bool:
        source = args[0] if args else None
        if func is torch.tensor:
            return _is_number_zero(source)
        if func in PRODUCTS:
            return any(self.is_zero(factor) for factor in args[:2])
        return func in ZEROS or (func in PASSED_THROUGH and source in self._zeros)

    def read(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> WriteCall | None:
        """Return the call with the rectified value as its first argument; None for a call that is not a ReLU."""
        if func not in RECTIFYING:
            return None
        if func in CLAMPS:
            low = args[1] if len(args) > 1 else kwargs.get("min")
            return WriteCall(func, args, kwargs) if self.is_zero(low) else None
        if func in MAXIMA and len(args) == 2:
            args = args[::-1] if args[0] in self._zeros else args
            return WriteCall(func, args, kwargs) if args[1] in self._zeros else None  # a number is an axis here
        if func in PRODUCTS and len(args) == 2:
            return self._let_through(args[1], args[0], _times_true) or self._let_through(args[0], args[1], _times_true)
        if func in FILLS and len(args) == 3:
            return self._let_through(args[1], args[0], _unless_true) if self.is_zero(args[2]) else None
        return self._where(*args) if len(args) == 3 and func in WHERES else None

    def _where(self, first: Any, second: Any, alternative: Any) -> WriteCall | None:
        condition, value = (first, second) if first in self._compared else (second, first)
        if self.is_zero(value):
            return self._let_through(condition, alternative, _unless_true)
        return self._let_through(condition, value, _where_true) if self.is_zero(alternative) else None

    def _let_through(self, condition: Any, value: Any, keep: Callable[[Tensor, Tensor], Tensor]) -> WriteCall | None:
        """Return the call that keeps the large values and sets the others to zero, if the condition compares this value."""
        compared = self._compared.get(condition)
        if compared is None or compared.value is not value or compared.below is not (keep is _unless_true):
            return None
        # an edited input is compared itself
        return WriteCall(lambda entered: keep(compared.func(entered, compared.by), entered), (value,), {})


def _is_number_zero(value: Any) -> bool:
    return isinstance(value, int | float) and value == 0


def _can_be_threshold(value: Any) -> bool:
    """Return True for a tensor, which may be learned, and for a number that lets no negative value through."""
    return isinstance(value, Tensor) or (isinstance(value, int | float) and value >= 0)


def _where_true(true: Tensor, entered: Tensor) -> Tensor:
    return torch.where(true, entered, 0)


def _unless_true(true: Tensor, entered: Tensor) -> Tensor:
    return torch.where(true, 0, entered)


def _times_true(true: Tensor, entered: Tensor) -> Tensor:
    return entered * true


ZEROS = {torch.zeros, torch.zeros_like, Tensor.new_zeros}
BELOW = {torch.lt, Tensor.lt, Tensor.__lt__, torch.le, Tensor.le, Tensor.__le__}
COMPARISONS = {torch.gt, Tensor.gt, Tensor.__gt__, torch.ge, Tensor.ge, Tensor.__ge__, *BELOW}
CASTS = {Tensor.type_as, Tensor.int, Tensor.long, Tensor.to}
FILLS = {torch.masked_fill, Tensor.masked_fill}
MAXIMA = {torch.maximum, Tensor.maximum, torch.max, Tensor.max, torch.fmax, Tensor.fmax}
WHERES = {torch.where, Tensor.where}
BEGINNINGS = {torch.tensor, *ZEROS, *COMPARISONS, *PRODUCTS}
RECTIFYING = {*CLAMPS, *MAXIMA, *WHERES, *PRODUCTS, *FILLS}
