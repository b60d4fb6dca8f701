"""ReLUs written with a comparison or with a zero that is a tensor: `maximum(z, 0)`, `where(z > 0, z, 0)`, `clamp(min=0)`."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from harness.capture.activations import CLAMPS, PASSED_THROUGH, in_place
from harness.capture.identity import ByIdentity


class Call(NamedTuple):
    """A torch call whose first argument is what it is about."""

    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Comparison(NamedTuple):
    """A value that was compared with zero, and how."""

    func: Callable[..., Any]
    value: Tensor


class Rectifiers:
    """Knows the ReLUs of one pass that no single call shows.

    Which tensors are zero is known from the calls that made them, never by looking: a buffer or a parameter that happens
    to be zero is no constant, and to look is impossible under `vmap`.
    """

    def __init__(self) -> None:
        self._zeros = ByIdentity[bool]()
        self._compared = ByIdentity[Comparison]()

    def note(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> None:
        """Remember what a call made, if it is a zero or a comparison with one."""
        if func not in BEGINNINGS and not self._zeros and not self._compared:
            return  # as good as every call
        source = args[0] if args else None
        known = source in self._zeros or source in self._compared
        if known and (in_place(func, args, kwargs) or func in OVERWRITES):
            self._zeros.forget(source)
            self._compared.forget(source)
        elif self._makes_zero(func, source):
            self._zeros[result] = True
        elif func in COMPARISONS and len(args) == 2 and self._is_zero(args[1]):
            self._compared[result] = Comparison(func, args[0])

    def _makes_zero(self, func: Callable[..., Any], source: Any) -> bool:
        if func is torch.tensor:
            return _is_number_zero(source)
        return func in ZEROS or (func in PASSED_THROUGH and source in self._zeros)

    def read(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        """The call with what is rectified as its first argument; None when it is no ReLU."""
        if func not in RECTIFYING:
            return None
        if func in CLAMPS:
            low = args[1] if len(args) > 1 else kwargs.get("min")
            return Call(func, args, kwargs) if self._is_zero(low) else None
        if func in MAXIMA and len(args) == 2:
            args = args[::-1] if args[0] in self._zeros else args
            return Call(func, args, kwargs) if args[1] in self._zeros else None  # a number is an axis here
        return self._where(*args) if len(args) == 3 and func in WHERES else None

    def _where(self, first: Any, second: Any, other: Any) -> Call | None:
        condition, value = (first, second) if first in self._compared else (second, first)
        compared = self._compared.get(condition)
        if compared is None or compared.value is not value or not self._is_zero(other):
            return None
        # what enters may be edited, and is then compared itself
        return Call(lambda entered: torch.where(compared.func(entered, 0), entered, other), (value,), {})

    def _is_zero(self, value: Any) -> bool:
        return value in self._zeros if isinstance(value, Tensor) else _is_number_zero(value)


def _is_number_zero(value: Any) -> bool:
    return isinstance(value, int | float) and value == 0


OVERWRITES = {Tensor.__setitem__, Tensor.__iand__, Tensor.__ior__, Tensor.__ixor__}
ZEROS = {torch.zeros, torch.zeros_like, Tensor.new_zeros}
COMPARISONS = {torch.gt, Tensor.gt, Tensor.__gt__, torch.ge, Tensor.ge, Tensor.__ge__}
MAXIMA = {torch.maximum, Tensor.maximum, torch.max, Tensor.max, torch.fmax, Tensor.fmax}
WHERES = {torch.where, Tensor.where}
BEGINNINGS = {torch.tensor, *ZEROS, *COMPARISONS}
RECTIFYING = {*CLAMPS, *MAXIMA, *WHERES}
