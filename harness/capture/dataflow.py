"""Dataflow of the bottleneck's output through a forward pass: the tensors that hold it, and the results of activations."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from harness.capture.activation_calls import (
    CHOICES,
    DIVISIONS,
    JOINS,
    NORMALISATIONS,
    PASSED_THROUGH,
    PIECES,
    PRODUCTS,
    RESHAPES,
    SHIFTS,
    passes_through,
    same_for_all,
    takes_units,
)
from harness.capture.packing import Packing
from harness.capture.tensor_map import TensorMap
from harness.capture.writes import TensorCopies, same_layout, version_of


@dataclass(frozen=True)
class TrackedTensor:
    """State of the bottleneck's output in one tensor.

    Args:
        raw: the module's own output, in the layout of this tensor.
        complete: True if every unit is there once.
        moved: True if the output was normalized, shifted, scaled or split, so that a unit is no longer the module's sum.
    """

    raw: Tensor
    complete: bool = True
    moved: bool = False


@dataclass
class Activation:
    """One activation of a forward pass: its name, its position, and `is_code` for the bottleneck's.

    `part` is set for an activation of a part of the bottleneck's units. `again` maps `entered` to `result`.
    """

    name: str
    position: int
    entered: Tensor
    result: Tensor
    is_code: bool = False
    part: TrackedTensor | None = None
    again: Callable[[Tensor], Tensor] | None = None

    def set_aside(self, aside: TensorCopies) -> None:
        """Replace tensors that are about to be written to by copies."""
        self.entered, self.result = aside(self.entered), aside(self.result)
        self.part = self.part and replace(self.part, raw=aside(self.part.raw))


@dataclass
class ForwardPass:
    """Record of one forward pass: its activations in order, and the code.

    All tensors keep the values that they had when they were recorded: a tensor that the model writes to is replaced by a
    copy. `holder` is the model's own tensor with the code, and its version at the time.
    `code_call` is the number of the call that made the code, and the position of the code among its results; `replaced`
    is True if another value was put there. `read` is True if a parametric layer or a sum was seen to read it. `packing` is
    the layout of a bottleneck's output that is a packed sequence.
    """

    activations: list[Activation] = field(default_factory=list)
    raw: Tensor | None = None
    preactivation: Tensor | None = None
    code: Tensor | None = None
    activation: str = "none"
    normalised: bool = False
    moved: bool = False
    before_raw: int | None = None
    outputs: tuple[Any, ...] = ()
    makers: tuple[Activation | None, ...] = ()
    holder: tuple[Tensor, int] | None = None
    code_call: "tuple[int, int] | None" = None
    replaced: bool = False
    read: bool = False
    packing: Packing | None = None

    @property
    def code_packing(self) -> Packing | None:
        """The packed sequences of which each row of the code is a token, or None."""
        return self.packing if self.packing is not None and self.packing.fits(self.code) else None

    def tensors(self) -> Iterator[Tensor]:
        """Iterate over all recorded tensors except the outputs."""
        yield from (values for values in (self.raw, self.preactivation, self.code) if values is not None)
        for activation in self.activations:
            yield from (activation.entered, activation.result, *([activation.part.raw] if activation.part else []))

    def set_aside(self, aside: TensorCopies) -> None:
        """Replace tensors that are about to be written to by copies."""
        self.raw, self.preactivation, self.code = map(aside, (self.raw, self.preactivation, self.code))
        for activation in self.activations:
            activation.set_aside(aside)


class DataflowTracker:
    """Follows the bottleneck's output and the results of activations through the calls of one forward pass.

    Args:
        forward_pass: the record of the pass; the bottleneck's output is followed until its code is set.

    Attributes:
        followed: tensors that hold the bottleneck's output.
        sources: tensor -> the activation that made it.
    """

    def __init__(self, forward_pass: ForwardPass) -> None:
        self.forward_pass = forward_pass
        self.followed = TensorMap[TrackedTensor]()
        self.sources = TensorMap[Activation]()
        self._chosen = TensorMap[Tensor]()  # selected units -> the tensor that they were selected from
        self._origins = TensorMap[tuple[Tensor, int]]()  # copy -> the original and its version

    def tensors(self) -> Iterator[Tensor]:
        """Iterate over all tensors with an entry, except those of the forward pass."""
        for tensor, followed in self.followed.items():
            yield from (tensor, followed.raw)
        for tensor, activation in self.sources.items():
            yield from (tensor, activation.entered, activation.result)
        for tensor, source in self._chosen.items():
            yield from (tensor, source)

    def set_aside(self, aside: TensorCopies) -> None:
        """Move the entries of tensors that are about to be written to to their copies."""
        self.followed.change(aside, lambda followed: replace(followed, raw=aside(followed.raw)))
        for _, activation in self.sources.items():
            activation.set_aside(aside)
        self.sources.change(aside, lambda activation: activation)
        self._chosen.change(aside, aside)
        for tensor, copy in aside.pairs():
            self._origins[copy] = tensor, aside.version

    def origin(self, tensor: Tensor) -> tuple[Tensor, int]:
        """Return the model's own tensor behind a copy, and its version when it was copied."""
        return self._origins.get(tensor) or (tensor, version_of(tensor))

    def hand_over(self, written: Tensor, target: Tensor, aside: TensorCopies) -> None:
        """Move the entries of written values to the target, and to views of the whole target."""
        followed, activation = self.followed.hand_over(written, target), self.sources.hand_over(written, target)
        self._chosen.hand_over(written, target)
        if activation is not None and activation.result is written:
            activation.result = target
        views = [(tensor, copy) for tensor, copy in aside.pairs() if tensor is not target]
        self.touched([(tensor, copy) for tensor, copy in views if not same_layout(tensor, target)])
        for tensor, _ in views:
            if followed is not None and same_layout(tensor, target):
                self.followed[tensor] = replace(followed, raw=followed.raw.reshape(tensor.shape))
            if activation is not None and same_layout(tensor, target):
                self.sources[tensor] = activation

    def touched(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Follow tensors of which some numbers were overwritten: each has the entry of its copy, moved."""
        for tensor, copy in pairs:
            followed = self.followed.get(copy)
            if followed is not None and self._following():
                self.followed[tensor] = replace(followed, moved=True)

    def last(self) -> tuple[Tensor, TrackedTensor] | None:
        """Return the last followed tensor with all units, or None."""
        return next(((value, followed) for value, followed in self.followed.items() if followed.complete), None)

    def follow(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Add entries for the result of a call, where it still holds the bottleneck's output or an activation's result."""
        if func in SHIFTS:
            if self._following():
                self._follow_shift(func, args, result)
        elif func in JOINS:
            self._follow_join(func, args, kwargs, result)
        elif func in CHOICES:
            self._follow_choice(func, args, kwargs, result)
        elif func in PASSED_THROUGH or func in PIECES or func is Tensor.__getitem__:
            source = args[0]
            grows = isinstance(result, Tensor) and result.numel() > source.numel()  # copies for every step of a decoder
            if source in self.followed and self._following() and not grows:
                self._follow_output(func, args, kwargs, result)
            activation = self.sources.get(source)
            if activation is not None and passes_through(func, args) and result.numel() == source.numel():
                self.sources[result] = activation

    def put_back(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor
    ) -> tuple[Activation, TrackedTensor] | None:
        """Add entries for units that were selected for each sample and put back among zeros.

        Return the activation and the output that the units were selected from, if they had an activation. Without an
        activation the result still holds the bottleneck's output, except for the units that were not selected.
        """
        source = args[3] if len(args) > 3 else kwargs.get("src")
        activation = self.sources.get(source)
        origin = self.followed.get(self._chosen.get(source if activation is None else activation.entered))
        if origin is not None and not (origin.complete and self._following()):
            origin = None
        if activation is not None:
            axis, index = _axis_and_index(args, kwargs)
            entered = result.new_zeros(result.shape).scatter(axis, index, activation.entered)
            activation = self.sources[result] = replace(activation, entered=entered, result=result)
        elif origin is not None:
            self.followed[result] = replace(origin, moved=True)
        return None if activation is None or origin is None else (activation, origin)

    def gate(self, func: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Tensor, list[Activation]] | None:
        """Return a value that a call multiplies by its own activation, and the activations in between, last first."""
        if func not in PRODUCTS or len(args) != 2:
            return None
        for value, factor in (args, args[::-1]):
            chain = self._chain(factor)
            if chain and chain[0].name in GATES and self._is_same_value(chain[-1].entered, value):
                return value, chain
        return None

    def _chain(self, value: Any) -> list[Activation]:
        """Return the activation that made a value, the one that made its input, and so on."""
        activation = self.sources.get(value)
        if activation is None or activation.result is not value:
            return []
        return [activation, *self._chain(activation.entered)]

    def _is_same_value(self, entered: Tensor, value: Any) -> bool:
        """Return True for one tensor, and for two that hold the bottleneck's whole output, scaled or not."""
        first, second = self.followed.get(entered), self.followed.get(value)
        return entered is value or (first is not None and second is not None and first.raw is second.raw)

    def _following(self) -> bool:
        return len(self.followed) > 0 and self.forward_pass.code is None

    def _follow_output(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        source, so_far = args[0], self.followed.get(args[0])
        same = passes_through(func, args)
        if so_far is None or not (same or takes_units(func, args, kwargs)):
            return
        self.forward_pass.normalised |= func in NORMALISATIONS
        raw = laid_out(func, so_far.raw, args, kwargs, result)
        for tensor, numbers in zip(_tensors(result), _tensors(raw), strict=False):
            if same or (tensor.dim() and len(tensor) == len(source)):
                complete = so_far.complete and tensor.numel() == source.numel()
                moved = so_far.moved or func in NORMALISATIONS or not complete or not same
                self.followed[tensor] = TrackedTensor(numbers, complete, moved)

    def _follow_choice(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        values = result if isinstance(result, Tensor) else result[0]
        self._chosen[values] = args[0]
        activation = self.sources.get(args[0])
        if activation is not None and activation.entered.numel() == args[0].numel():
            entered = activation.entered.reshape(args[0].shape)
            gathered = isinstance(result, Tensor)
            axis, index = _axis_and_index(args, kwargs) if gathered else (_axis_of_topk(args, kwargs), result[1])
            self.sources[values] = replace(activation, entered=entered.gather(axis, index), result=values)

    def _follow_shift(self, func: Callable[..., Any], args: tuple[Any, ...], result: Tensor) -> None:
        """Follow a shift or scale that is the same for all samples; a sum with the output of another layer is another value."""
        operands: list[tuple[Any, ...]] = [args[:2]] if func in DIVISIONS else [args[:2], args[1::-1]]
        for value, operand in operands if len(args) > 1 else ():
            so_far = self.followed.get(value)
            if so_far is not None and same_for_all(operand, value) and result.shape == value.shape:
                self.followed[result] = replace(so_far, moved=True)
                return

    def _follow_join(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor
    ) -> None:
        """Join parts of the units that each had the same activation."""
        sources = [self.sources.get(tensor) for tensor in args[0]]
        parts = [
            source for source, x in zip(sources, args[0], strict=True) if source and source.part and source.result is x
        ]
        if len(parts) < len(sources) or len({source.name for source in parts}) > 1 or len(result) != len(args[0][0]):
            return
        entered, raw = (
            func(values, *args[1:], **kwargs)
            for values in ([source.entered for source in parts], [source.part.raw for source in parts if source.part])
        )
        part = TrackedTensor(raw, complete=False, moved=True)
        self.sources[result] = Activation(parts[0].name, parts[0].position, entered, result, part=part)


def _axis_and_index(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, Tensor]:
    """Return the axis and the index of a gather or scatter, from positions or keywords."""
    axis, index = (*args[1:3], *(kwargs[name] for name in ("dim", "index") if name in kwargs))
    return axis, index


def _axis_of_topk(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    return int(args[2] if len(args) > 2 else kwargs.get("dim", -1))


def _tensors(result: Any) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else tuple(result)


def laid_out(func: Callable[..., Any], raw: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
    """Apply the layout change of a call to the module's own output."""
    if func in PASSED_THROUGH and func not in RESHAPES:
        return raw
    return result if raw is args[0] else ON_ANY_STRIDES.get(func, func)(raw, *args[1:], **kwargs)


GATES = ("sigmoid", "tanh")  # between 0 and 1, or -1 and 1: the other factor passes in part
ON_ANY_STRIDES: dict[Any, Any] = {Tensor.view: Tensor.reshape, Tensor.view_as: Tensor.reshape_as}
