"""Selections and elementwise maps between the bottleneck's activation and the layer that reads the code."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.capture.activation_calls import (
    CHOICES,
    CLAMPS,
    DIVISIONS,
    NORMALISATIONS,
    PASSED_THROUGH,
    PRODUCTS,
    RESHAPES,
    SCATTERS,
    SHIFTS,
    passes_through,
    same_for_all,
)
from harness.capture.dataflow import DataflowTracker, laid_out
from harness.capture.relu_patterns import CASTS, COMPARISONS, FILLS, MAXIMA, WHERES
from harness.capture.tensor_map import TensorMap
from harness.capture.writes import TensorCopies, same_layout


class SelectedCode(NamedTuple):
    """A code with the module's own output and the activation's input in the same layout.

    `moved` is False for the module's own output.
    """

    values: Tensor
    raw: Tensor
    entered: Tensor
    moved: bool = True


@dataclass(frozen=True)
class CodeCandidate:
    """State of a value that still holds the units of the bottleneck.

    Args:
        name: the activation whose off state the values have; "none" behind a map that moves zero.
        raw: the module's own output, in the layout of this value.
        entered: input of the activation, in the layout of this value.
        activated: True behind the bottleneck's activation.
        code: the code if the next parametric layer reads this value; None for the result of the activation itself. A
            normalization, shift or one-to-one map behind an activation is followed, and the code is the value before it.
        complete: True if every unit is there once.
        straight: True for the result of a straight-through estimator.
        indicator: True for zeros and ones that say which units were chosen.
    """

    name: str
    raw: Tensor
    entered: Tensor
    activated: bool
    code: SelectedCode | None = None
    complete: bool = True
    straight: bool = False
    indicator: bool = False

    def selected(self, values: Tensor, keeps_zero: bool = True) -> "CodeCandidate":
        """Return the state of selected values."""
        code = SelectedCode(values, self.raw, self.entered)
        return replace(self, code=code, name=self.name if keeps_zero else "none")

    def mapped(self, tensor: Callable[[Tensor], Any]) -> "CodeCandidate":
        """Return the state with other tensors."""
        code = self.code
        if code is not None:
            code = SelectedCode(tensor(code.values), tensor(code.raw), tensor(code.entered), code.moved)
        return replace(self, raw=tensor(self.raw), entered=tensor(self.entered), code=code)


@dataclass(frozen=True)
class Summand:
    """A tensor in a sum, with its sign; `detached` if no gradient reaches it through the sum."""

    tensor: Tensor
    positive: bool = True
    detached: bool = False


class SelectionTracker:
    """Follows candidates for the code through selections and elementwise maps.

    A sum with another tensor ends the way, except for a detached difference with the candidate itself
    (straight-through estimator). Products with a mask or a gate are followed, products with normal noise are not.

    Args:
        trail: tracker of the bottleneck's output up to its activation.
        is_zero: returns True for a tensor that the pass created as zeros.
    """

    def __init__(self, trail: DataflowTracker, is_zero: Callable[[Any], bool]) -> None:
        self._trail, self._is_zero = trail, is_zero
        self._values = TensorMap[CodeCandidate]()
        self._chosen = TensorMap[tuple[Tensor, CodeCandidate]]()  # selected values -> the candidate that they come from
        self._bases = TensorMap[Tensor]()  # view or copy -> the tensor with the same numbers in the same order
        self._detached = TensorMap[bool]()
        self._sums = TensorMap[tuple[Summand, ...]]()  # sums with a candidate in them
        self._choices = TensorMap[tuple[Tensor, int, CodeCandidate]]()  # index of chosen units -> where, axis, whose
        self._identities = TensorMap[bool]()
        self._noise = TensorMap[bool]()
        self._masks = TensorMap[bool]()  # tensors without negative values
        self.summed: tuple[Tensor, CodeCandidate] | None = None  # the first candidate that a sum reads

    def tensors(self) -> Iterator[Tensor]:
        """Iterate over all tensors with an entry."""
        for tensor, candidate in self._values.items():
            yield from (tensor, candidate.raw, candidate.entered, *(candidate.code or ())[:3])
        for tensor, (origin, _) in self._chosen.items():
            yield from (tensor, origin)
        for tensor, base in self._bases.items():
            yield from (tensor, base)
        for tensor, summands in self._sums.items():
            yield from (tensor, *(summand.tensor for summand in summands))

    def set_aside(self, aside: TensorCopies) -> None:
        """Move the entries of tensors that are about to be written to to their copies."""
        self._values.change(aside, lambda candidate: candidate.mapped(aside))
        self._chosen.change(aside, lambda entry: (aside(entry[0]), entry[1].mapped(aside)))
        self._bases.change(aside, aside)
        self._choices.change(aside, lambda entry: (aside(entry[0]), entry[1], entry[2].mapped(aside)))
        for flags in (self._detached, self._noise, self._masks, self._identities):
            flags.change(aside, lambda flag: flag)
        self._sums.change(
            aside, lambda summands: tuple(replace(summand, tensor=aside(summand.tensor)) for summand in summands)
        )
        if self.summed is not None:
            self.summed = aside(self.summed[0]), self.summed[1].mapped(aside)

    def hand_over(self, written: Tensor, target: Tensor, aside: TensorCopies) -> None:
        """Move the entries of written values to the target, and to views of the whole target."""
        candidate = self._values.hand_over(written, target)
        if candidate is not None and candidate.code is not None and candidate.code.values is written:
            candidate = self._values[target] = candidate.selected(target)
        tables = (self._chosen, self._bases, self._detached, self._sums, self._noise, self._masks)
        for table in (*tables, self._choices, self._identities):
            table.hand_over(written, target)
        for tensor, _ in aside.pairs():
            if candidate is not None and tensor is not target and same_layout(tensor, target):
                self._values[tensor] = self._shaped(candidate, tensor)
                self._bases[tensor] = target

    def touched(self, tensor: Tensor, copy: Tensor, value: Any) -> bool:
        """Follow a tensor of which some numbers were overwritten; return True if it holds the bottleneck's units.

        Selected values that are written to a tensor of zeros are put back in their places.
        """
        candidate, chosen = self.candidate(copy), self._chosen.get(value)
        if candidate is None and chosen is not None and self._is_zero(copy) and chosen[0].shape == copy.shape:
            candidate = chosen[1]
        if candidate is not None:
            self._values[tensor] = candidate.selected(tensor)
        return candidate is not None

    def base(self, tensor: Tensor) -> Tensor:
        """Return the tensor of which this is a view or copy with the same numbers in the same order."""
        base = self._bases.get(tensor)
        return tensor if base is None else base

    def candidate(self, value: Any) -> CodeCandidate | None:
        """Return the entry of a tensor that is a candidate for the code, or None."""
        entry = self._values.get(value)
        if entry is not None or not isinstance(value, Tensor) or value in self._chosen:
            return entry
        current, source = self._trail.forward_pass, self._trail.sources.get(value)
        if source is not None:
            if not source.is_code and source.part is None:
                return None
            raw = source.part.raw if source.part is not None else current.raw
            if raw is None or raw.numel() != value.numel():
                return None
            complete = source.part is None or source.part.complete
            return self._shaped(CodeCandidate(source.name, raw, source.entered, True, complete=complete), value)
        followed = self._trail.followed.get(value)
        if followed is None or current.activation != "none":
            return None
        code = SelectedCode(value, followed.raw, value, followed.moved)
        return CodeCandidate("none", followed.raw, value, False, code, followed.complete)

    def follow(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Add entries for the result of a call."""
        if func in NOISE and isinstance(result, Tensor):
            self._noise[result] = True
            return
        if func is torch.eye:
            self._identities[result] = True
            return
        if not args:
            return
        if func is Tensor.__getitem__ and self._is_mask(args[1]) and args[1].shape == args[0].shape:
            candidate = self.candidate(args[0])
            if candidate is not None:
                self._chosen[result] = args[0], candidate
            return
        self._follow_choice(func, args, kwargs, result)
        if func in CHOICES and (candidate := self.candidate(args[0])) is not None:
            self._chosen[result if isinstance(result, Tensor) else result[0]] = args[0], candidate
            return
        if not isinstance(result, Tensor):
            return
        if self._makes_mask(func, args):
            self._masks[result] = True
        self._follow_sum(func, args, kwargs, result)
        if func in DETACHES:
            self._detached[result] = True
        chosen = self._chosen.get(args[0])
        if chosen is not None and (func in ELEMENTWISE or func in PASSED_THROUGH or func in SHIFTS):
            self._chosen[result] = chosen
            return
        candidate = self._next(func, args, kwargs, result)
        if candidate is not None and result not in self._trail.followed and result is not self._trail.forward_pass.code:
            self._values[result] = candidate
        if self._keeps_order(func, args, result):
            self._bases[result] = self.base(args[0])

    def activated(self, name: str, entered: Tensor, result: Tensor) -> None:
        """Follow an activation of a candidate that is not the bottleneck's own."""
        if name in ("relu", "sigmoid"):
            self._masks[result] = True
        if entered in self._trail.followed:
            return
        candidate = self.candidate(entered)
        if candidate is not None and candidate.activated and name in ("tanh", "sigmoid", "softplus", "leaky_relu"):
            self._values[result] = replace(candidate, name="none")
        elif candidate is not None and result.shape == entered.shape:
            self._values[result] = replace(candidate.selected(result), name=name if candidate.activated else "none")
        elif entered in self._chosen:
            self._chosen[result] = self._chosen.get(entered)  # type: ignore[assignment]

    def _next(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor
    ) -> CodeCandidate | None:
        if func in SCATTERS or func is torch.scatter:
            return self._put_back(args, kwargs, result)
        followed = self._straight_through(result) or self._indicated(func, args, kwargs, result)
        if followed is not None:
            return followed
        for value, operand in self._operands(func, args, kwargs):
            candidate = self.candidate(value)
            if candidate is None or (candidate.indicator and self.candidate(operand) is not None):
                continue
            if func in PASSED_THROUGH or func in DETACHES or func is Tensor.__getitem__:
                if isinstance(result, Tensor) and result.numel() > value.numel():
                    return None
                return self._passed(func, args, kwargs, candidate, result)
            if result.shape != value.shape or not result.is_floating_point():
                return None
            if self._is_followed(func, operand, candidate):
                return self._selected(func, operand, candidate, result)
            if (
                func in SUMS
                and candidate.complete
                and not candidate.indicator
                and self.summed is None
                and self._counts_as_read(value, candidate)
            ):
                self.summed = value, candidate
        return None

    def _operands(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> list[tuple[Any, Any]]:
        """Return pairs of a value and the operand that it is combined with."""
        if func in WHERES:
            if len(args) != 3:
                return []
            first, second = (args[1], args[2]) if func is torch.where else (args[0], args[2])
            return [(first, second), (second, first)]
        if func in FILLS:
            return [(args[0], args[2] if len(args) > 2 else kwargs.get("value"))]
        binary = func in SHIFTS or func in MAXIMA or func in MINIMA
        if binary and len(args) > 1:
            return [(args[0], args[1])] if func in DIVISORS else [(args[0], args[1]), (args[1], args[0])]
        return [(args[0], None)]

    def _is_followed(self, func: Callable[..., Any], operand: Any, candidate: CodeCandidate) -> bool:
        if func in ELEMENTWISE or func in CLAMPS or func in NORMALISATIONS:
            return True
        if func in PRODUCTS or func is Tensor.mul_:
            if operand in self._noise:
                return False
            return candidate.complete or (self.candidate(operand) is None and operand not in self._trail.followed)
        if func in SHIFTS or func in WHERES or func in FILLS or func in MAXIMA or func in MINIMA:
            constant = self._is_zero(operand) or not isinstance(operand, Tensor)
            return constant or same_for_all(operand, candidate.entered)
        return False

    def _selected(
        self, func: Callable[..., Any], operand: Any, candidate: CodeCandidate, result: Tensor
    ) -> CodeCandidate:
        product = func in PRODUCTS or func is Tensor.mul_
        if func in NORMALISATIONS or (func in SHIFTS and (not product or same_for_all(operand, result))):
            positive = isinstance(operand, int | float) and operand > 0
            keeps_zero = positive and (product or func in DIVISIONS)
            if candidate.activated and not candidate.indicator:
                return candidate if keeps_zero else replace(candidate, name="none")
            return candidate.selected(result)
        if product:
            return candidate.selected(result, self._is_mask(operand))
        if func in ONE_TO_ONE and candidate.activated:
            return candidate if func not in MOVES_ZERO else replace(candidate, name="none")
        if func in ELEMENTWISE:
            return candidate.selected(result, func not in MOVES_ZERO)
        return candidate.selected(result, operand is None or self._is_zero(operand))

    def _is_mask(self, operand: Any) -> bool:
        return operand in self._masks or getattr(operand, "dtype", None) == torch.bool

    def _makes_mask(self, func: Callable[..., Any], args: tuple[Any, ...]) -> bool:
        if func in MASKS:
            return True
        if func in SCATTERS:
            return self._is_zero(args[0]) and isinstance(args[-1], int | float) and args[-1] >= 0
        return (func in CASTS or func in PASSED_THROUGH or func in DETACHES) and self._is_mask(args[0])

    def _counts_as_read(self, value: Tensor, candidate: CodeCandidate) -> bool:
        # an elementwise map of a linear code, such as its square in a KL term, is not read by the model
        return candidate.activated or value in self._trail.followed

    def _passed(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        candidate: CodeCandidate,
        result: Tensor,
    ) -> CodeCandidate | None:
        if func in DETACHES:
            return candidate
        if not passes_through(func, args) or result.numel() != args[0].numel():
            return None
        raw = laid_out(func, candidate.raw, args, kwargs, result)
        entered = laid_out(func, candidate.entered, args, kwargs, result)
        candidate, output = replace(candidate, raw=raw, entered=entered), self._trail.forward_pass.raw
        if candidate.code is None or output is None or func in NORMALISATIONS:
            return candidate
        # units that were selected across samples, in one row of numbers, have their samples back
        flat = len(candidate.code.values) != len(output) == len(result)
        return replace(candidate, code=SelectedCode(result, raw, entered)) if flat else candidate

    def _keeps_order(self, func: Callable[..., Any], args: tuple[Any, ...], result: Tensor) -> bool:
        source = args[0]
        if not isinstance(source, Tensor) or result.numel() != source.numel() or not result.dim() or not source.dim():
            return False
        in_order = func in COPIES or func in ORDERED_RESHAPES
        return len(result) == len(source) and (in_order or (func is Tensor.__getitem__ and passes_through(func, args)))

    def _put_back(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor) -> CodeCandidate | None:
        source = args[3] if len(args) > 3 else kwargs.get("src")
        chosen = self._chosen.get(source)
        if chosen is not None and self._is_zero(args[0]) and chosen[0].shape == result.shape:
            return chosen[1].selected(result)
        axis, index = args[1:3] if len(args) > 2 else (kwargs.get("dim"), kwargs.get("index"))
        value = args[3] if len(args) > 3 else kwargs.get("value")
        if isinstance(value, int | float) and self._is_zero(args[0]):
            return self._indicator(index, axis, result)
        return None

    def _follow_choice(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        """Follow an index of units that each sample chooses, such as an argmax."""
        value = args[0]
        if func in ARGUMENTS and (candidate := self.candidate(value)) is not None:
            position = 2 if func in CHOICES else 1
            axis = args[position] if len(args) > position else kwargs.get("dim", -1 if func in CHOICES else None)
            index = result if isinstance(result, Tensor) else result[1]
            if isinstance(axis, int) and isinstance(value, Tensor) and isinstance(index, Tensor):
                self._choices[index] = value, axis % value.dim(), candidate
        elif func in PASSED_THROUGH and isinstance(result, Tensor) and (entry := self._choices.get(value)) is not None:
            self._choices[result] = entry
        elif func in PASSED_THROUGH and value in self._identities:
            self._identities[result] = True

    def _indicated(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor
    ) -> CodeCandidate | None:
        """Return the candidate for zeros and ones that say which units were chosen, or exceed a threshold."""
        if func is F.one_hot:
            return self._indicator(args[0], result.dim() - 1, result)
        if func is Tensor.__getitem__ and args[0] in self._identities:
            return self._indicator(args[1], result.dim() - 1, result)
        compares = func in COMPARISONS and len(args) == 2 and same_for_all(args[1], args[0])
        if not compares and func not in CASTS and func not in PASSED_THROUGH:
            return None
        candidate = self.candidate(args[0])
        if candidate is None or result.shape != args[0].shape:
            return None
        becomes_float = result.is_floating_point() and not args[0].is_floating_point()
        return replace(candidate.selected(result, False), indicator=True) if compares or becomes_float else None

    def _indicator(self, index: Any, axis: Any, result: Tensor) -> CodeCandidate | None:
        entry = self._choices.get(index)
        if entry is None or entry[0].shape != result.shape or axis % result.dim() != entry[1]:
            return None
        return replace(entry[2].selected(result, False), indicator=True)

    def _follow_sum(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor
    ) -> None:
        """Follow sums with a candidate, their differences, and detached ones."""
        if func in DETACHES and args[0] in self._sums:
            self._sums[result] = tuple(replace(summand, detached=True) for summand in self._summands(args[0]))
        elif (func in SUMS or func in DIFFERENCES) and len(args) == 2 and not kwargs:
            if not all(isinstance(value, Tensor) for value in args):
                return
            if any(value in self._sums or self.candidate(value) is not None for value in args):
                second = self._summands(args[1])
                if func in DIFFERENCES:
                    second = tuple(replace(summand, positive=not summand.positive) for summand in second)
                self._sums[result] = *self._summands(args[0]), *second

    def _summands(self, value: Tensor) -> tuple[Summand, ...]:
        return self._sums.get(value) or (Summand(value, detached=value in self._detached),)

    def _straight_through(self, result: Tensor) -> CodeCandidate | None:
        """Return the candidate for a sum of q, z and -z.detach() in any order, such as `z + (q - z).detach()`."""
        summands = self._sums.get(result) or ()
        if len(summands) != 3:
            return None
        for summand in summands:
            for negative in summands:
                cancels = summand.positive and negative.detached and not negative.positive
                if cancels and not summand.detached and self.base(summand.tensor) is self.base(negative.tensor):
                    if self.summed is not None and any(self.summed[0] is part.tensor for part in summands):
                        self.summed = None  # the whole sum is read
                    return self._straight(summand.tensor, result)
        return None

    def _straight(self, value: Tensor, result: Tensor) -> CodeCandidate | None:
        candidate = self.candidate(value)
        if candidate is None or result.shape != value.shape:
            return None
        return replace(candidate.selected(result, False), straight=True)

    def _shaped(self, candidate: CodeCandidate, value: Tensor) -> CodeCandidate:
        if candidate.code is not None or candidate.raw.shape == value.shape == candidate.entered.shape:
            return candidate
        sizes = candidate.raw.numel(), candidate.entered.numel()
        if sizes != (value.numel(), value.numel()):
            return candidate
        return replace(
            candidate, raw=candidate.raw.reshape(value.shape), entered=candidate.entered.reshape(value.shape)
        )


def _functions(*names: str) -> set[Callable[..., Any]]:
    """Return the functions with these names, in place or not, of torch, of Tensor and of torch.nn.functional."""
    homes = (torch, Tensor, F, torch.special)
    options = (getattr(home, f"{name}{end}", None) for home in homes for name in names for end in ("", "_"))
    return {function for function in options if callable(function)}


MASKS = COMPARISONS | {
    *(torch.eq, Tensor.eq, Tensor.__eq__, torch.ne, Tensor.ne, Tensor.__ne__, torch.isin, F.one_hot, torch.bernoulli),
    *(Tensor.bernoulli, F.relu, torch.relu, Tensor.relu, torch.sigmoid, Tensor.sigmoid, F.softmax, torch.softmax),
    *(Tensor.softmax, torch.rand, torch.rand_like, torch.logical_and, torch.logical_or, torch.logical_not),
    *(Tensor.logical_and, Tensor.logical_or, Tensor.logical_not, torch.exp, Tensor.exp, torch.abs, Tensor.abs),
}
DETACHES: set[Callable[..., Any]] = {Tensor.detach, torch.detach, Tensor.data.__get__}  # type: ignore[attr-defined]
ARGUMENTS: set[Callable[..., Any]] = {torch.argmax, Tensor.argmax, torch.topk, Tensor.topk}
ARGUMENTS |= {torch.max, Tensor.max, torch.argmin, Tensor.argmin, torch.min, Tensor.min}
DIFFERENCES = _functions("sub", "subtract") | {Tensor.__sub__}
SUMS = _functions("add") | {Tensor.__add__, Tensor.__radd__}
DIVISORS = _functions("div", "divide", "true_divide", "sub", "subtract")
MINIMA = {torch.minimum, Tensor.minimum, torch.min, Tensor.min, torch.fmin, Tensor.fmin}
NOISE = {torch.randn, torch.randn_like, torch.normal, Tensor.normal_}
COPIES: set[Callable[..., Any]] = {*DETACHES, torch.clone, Tensor.clone, Tensor.contiguous}
ORDERED_RESHAPES = RESHAPES & {
    *(torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze, torch.unflatten, Tensor.unflatten, Tensor.flatten),
    *(Tensor.reshape, Tensor.squeeze, Tensor.unsqueeze, Tensor.view, Tensor.view_as, Tensor.reshape_as),
}
ELEMENTWISE = _functions(
    *("abs", "absolute", "square", "sqrt", "rsqrt", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "pow"),
    *("float_power", "neg", "negative", "reciprocal", "sign", "sgn", "round", "floor", "ceil", "trunc", "fix", "frac"),
    *("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "erf", "erfc", "erfinv"),
    *("logit", "xlogy", "clamp_max", "threshold", "hardshrink", "softshrink", "tanhshrink", "hardswish", "logsigmoid"),
    *("softmax", "log_softmax", "softmin", "gumbel_softmax", "bernoulli", "nan_to_num", "heaviside", "relu", "relu6"),
    *("fake_quantize_per_tensor_affine", "fake_quantize_per_channel_affine", "softplus", "sigmoid", "tanh", "hardtanh"),
)
ONE_TO_ONE = _functions(
    *(
        "exp",
        "exp2",
        "expm1",
        "log",
        "log2",
        "log10",
        "log1p",
        "neg",
        "negative",
        "reciprocal",
        "rsqrt",
        "sinh",
        "asinh",
    ),
    *("atan", "erf", "erfc", "erfinv", "logit", "logsigmoid", "softplus", "sigmoid", "tanh"),
)
MOVES_ZERO = _functions(
    *("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "neg", "negative", "reciprocal", "rsqrt", "cos", "acos"),
    *("cosh", "acosh", "erfc", "logit", "xlogy", "logsigmoid", "softmax", "log_softmax", "softmin", "gumbel_softmax"),
    *("fake_quantize_per_tensor_affine", "fake_quantize_per_channel_affine", "tan", "sin", "softplus", "sigmoid"),
)
