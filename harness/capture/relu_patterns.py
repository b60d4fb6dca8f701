"""ReLUs written with a comparison or with a zero that is a tensor: `maximum(z, 0)`, `where(z > 0, z, 0)`, `z * (z > 0)`.

Above which threshold a value is let through does not matter: what is zero elsewhere fires where it is above zero.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from harness.capture.activation_calls import CLAMPS, PASSED_THROUGH, PRODUCTS
from harness.capture.tensor_map import TensorMap
from harness.capture.writes import TensorCopies, WriteCall


class Comparison(NamedTuple):
    """A value that was compared, with what, and how; `below` where the comparison is true of small values."""

    func: Callable[..., Any]
    value: Tensor
    by: Any
    below: bool


class ReluPatterns:
    """Knows the ReLUs of one pass that no single call shows.

    Which tensors are zero is known from the calls that made them, never by looking: a buffer or a parameter that happens
    to be zero is no constant, and to look is impossible under `vmap`.
    """

    def __init__(self) -> None:
        self._zeros = TensorMap[bool]()
        self._compared = TensorMap[Comparison]()

    def note(self, func: Callable[..., Any], args: tuple[Any, ...], result: Any) -> None:
        """Remember what a call made, if it is a zero or a comparison with one."""
        if func not in BEGINNINGS and not self._zeros and not self._compared:
            return  # as good as every call
        source = args[0] if args else None
        compared = self._compared.get(source)
        if self._makes_zero(func, args):
            self._zeros[result] = True
        elif func in COMPARISONS and len(args) == 2 and _can_be_threshold(args[1]):
            self._compared[result] = Comparison(func, args[0], args[1], func in BELOW)
        elif compared is not None and (func in PASSED_THROUGH or func in CASTS):
            self._compared[result] = compared

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor that something is known of."""
        yield from (tensor for tensor, _ in self._zeros.items())
        for tensor, comparison in self._compared.items():
            yield from (tensor, comparison.value)

    def set_aside(self, aside: TensorCopies) -> None:
        """Transfer to copies what is known of tensors that are about to be written to."""
        self._zeros.change(aside, lambda known: known)
        self._compared.change(aside, lambda known: known._replace(value=aside(known.value), by=aside(known.by)))

    def hand_over(self, written: Tensor, target: Tensor) -> None:
        """Transfer to the target what is known of the values written to it."""
        self._zeros.hand_over(written, target)
        self._compared.hand_over(written, target)

    def is_zero(self, value: Any) -> bool:
        """Whether it is a zero: a number, or a tensor that this pass made as one."""
        return value in self._zeros if isinstance(value, Tensor) else _is_number_zero(value)

    def _makes_zero(self, func: Callable[..., Any], args: tuple[Any, ...]) -> bool:
        source = args[0] if args else None
        if func is torch.tensor:
            return _is_number_zero(source)
        if func in PRODUCTS:
            return any(self.is_zero(each) for each in args[:2])
        return func in ZEROS or (func in PASSED_THROUGH and source in self._zeros)

    def read(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> WriteCall | None:
        """The call with what is rectified as its first argument; None when it is no ReLU."""
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

    def _where(self, first: Any, second: Any, other: Any) -> WriteCall | None:
        condition, value = (first, second) if first in self._compared else (second, first)
        if self.is_zero(value):
            return self._let_through(condition, other, _unless_true)
        return self._let_through(condition, value, _where_true) if self.is_zero(other) else None

    def _let_through(self, condition: Any, value: Any, keep: Callable[[Tensor, Tensor], Tensor]) -> WriteCall | None:
        """The call that keeps what is large of a value and makes the rest zero, if the condition says where that is."""
        compared = self._compared.get(condition)
        if compared is None or compared.value is not value or compared.below is not (keep is _unless_true):
            return None
        # what enters may be edited, and is then compared itself
        return WriteCall(lambda entered: keep(compared.func(entered, compared.by), entered), (value,), {})


def _is_number_zero(value: Any) -> bool:
    return isinstance(value, int | float) and value == 0


def _can_be_threshold(value: Any) -> bool:
    """A tensor may be one that is learned; a number below zero lets negatives through."""
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
