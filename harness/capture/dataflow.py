"""The way of the bottleneck's output through a forward pass: which tensors still are it, and what activations made."""

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
from harness.capture.tensor_map import TensorMap
from harness.capture.writes import TensorCopies, same_layout, version_of


@dataclass(frozen=True)
class TrackedTensor:
    """What became of the bottleneck's output so far.

    Args:
        raw: the numbers that the module returned, laid out as they now are.
        whole: whether all units are there, each once.
        moved: whether it was normalised, shifted, scaled or taken apart, so that a unit is no longer the module's sum.
    """

    raw: Tensor
    whole: bool = True
    moved: bool = False


@dataclass
class Activation:
    """One activation met in a forward pass: its name, where it stands, and whether it is the bottleneck's.

    `part` is set where it was given a part of the bottleneck's units; `again` makes of what entered what left.
    """

    name: str
    position: int
    entered: Tensor
    left: Tensor
    is_code: bool = False
    part: TrackedTensor | None = None
    again: Callable[[Tensor], Tensor] | None = None

    def set_aside(self, aside: TensorCopies) -> None:
        """Put copies in the place of tensors that are about to be written to."""
        self.entered, self.left = aside(self.entered), aside(self.left)
        self.part = self.part and replace(self.part, raw=aside(self.part.raw))


@dataclass
class ForwardPass:
    """What one forward pass of the model did: its activations in order, and the code that was found.

    All tensors keep the values that they had when they were met: a copy takes the place of one that the model writes
    to. `holder` is the model's own tensor with the code, and its version at the time.
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

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor on record, but for the outputs."""
        yield from (values for values in (self.raw, self.preactivation, self.code) if values is not None)
        for met in self.activations:
            yield from (met.entered, met.left, *([met.part.raw] if met.part else []))

    def set_aside(self, aside: TensorCopies) -> None:
        """Put copies in the place of tensors that are about to be written to."""
        self.raw, self.preactivation, self.code = map(aside, (self.raw, self.preactivation, self.code))
        for met in self.activations:
            met.set_aside(aside)


class DataflowTracker:
    """What is known, within one pass, of the tensors that came of the bottleneck's output or of an activation.

    Args:
        seen: the pass; once its code is found, the bottleneck's output is followed no further.

    Attributes:
        followed: tensors that still are the bottleneck's output.
        made: which activation made a tensor.
    """

    def __init__(self, seen: ForwardPass) -> None:
        self.seen = seen
        self.followed = TensorMap[TrackedTensor]()
        self.made = TensorMap[Activation]()
        self._chosen = TensorMap[Tensor]()  # what the units of each sample were chosen from
        self._origins = TensorMap[tuple[Tensor, int]]()  # of what a copy is, and of which version

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor of which something is known, but for those that the pass holds."""
        for tensor, followed in self.followed.items():
            yield from (tensor, followed.raw)
        for tensor, met in self.made.items():
            yield from (tensor, met.entered, met.left)
        for tensor, source in self._chosen.items():
            yield from (tensor, source)

    def set_aside(self, aside: TensorCopies) -> None:
        """Transfer to copies what is known of tensors that are about to be written to."""
        self.followed.change(aside, lambda followed: replace(followed, raw=aside(followed.raw)))
        for _, met in self.made.items():
            met.set_aside(aside)
        self.made.change(aside, lambda met: met)
        self._chosen.change(aside, aside)
        for tensor, copy in aside.pairs():
            self._origins[copy] = tensor, aside.version

    def origin(self, tensor: Tensor) -> tuple[Tensor, int]:
        """The model's own tensor of which this is a copy, or itself, and its version then."""
        return self._origins.get(tensor) or (tensor, version_of(tensor))

    def hand_over(self, written: Tensor, target: Tensor, aside: TensorCopies) -> None:
        """Transfer to the target, and to views of all of it, what is known of the values written to it."""
        followed, met = self.followed.hand_over(written, target), self.made.hand_over(written, target)
        self._chosen.hand_over(written, target)
        if met is not None and met.left is written:
            met.left = target
        others = [(tensor, copy) for tensor, copy in aside.pairs() if tensor is not target]
        self.touched([(tensor, copy) for tensor, copy in others if not same_layout(tensor, target)])
        for tensor, _ in others:
            if followed is not None and same_layout(tensor, target):
                self.followed[tensor] = replace(followed, raw=followed.raw.reshape(tensor.shape))
            if met is not None and same_layout(tensor, target):
                self.made[tensor] = met

    def touched(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Some numbers of these tensors were written to: each still is what its copy was, moved."""
        for tensor, copy in pairs:
            followed = self.followed.get(copy)
            if followed is not None and self._following():
                self.followed[tensor] = replace(followed, moved=True)

    def last(self) -> tuple[Tensor, TrackedTensor] | None:
        """The last tensor that was followed and has all units; None where there is none."""
        return next(((value, followed) for value, followed in self.followed.items() if followed.whole), None)

    def follow(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Know of what a call made that it still is the bottleneck's output, or what an activation made."""
        if func in SHIFTS:
            if self._following():
                self._follow_shift(func, args, result)
        elif func in JOINS:
            self._follow_join(func, args, kwargs, result)
        elif func in CHOICES:
            self._follow_choice(func, args, kwargs, result)
        elif func in PASSED_THROUGH or func in PIECES or func is Tensor.__getitem__:
            source = args[0]
            if source in self.followed and self._following():
                self._follow_output(func, args, kwargs, result)
            made = self.made.get(source)
            if made is not None and passes_through(func, args) and result.numel() == source.numel():
                self.made[result] = made

    def put_back(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor
    ) -> tuple[Activation, TrackedTensor] | None:
        """Units that were chosen for each sample, back in their places among zeros.

        Where they had an activation and were chosen from the bottleneck's output, that activation and that output.
        Without an activation between, the result still is the bottleneck's output, but for the units not chosen.
        """
        source = args[3] if len(args) > 3 else kwargs.get("src")
        met = self.made.get(source)
        origin = self.followed.get(self._chosen.get(source if met is None else met.entered))
        if origin is not None and not (origin.whole and self._following()):
            origin = None
        if met is not None:
            axis, index = _axis_and_index(args, kwargs)
            entered = result.new_zeros(result.shape).scatter(axis, index, met.entered)
            met = self.made[result] = replace(met, entered=entered, left=result)
        elif origin is not None:
            self.followed[result] = replace(origin, moved=True)
        return None if met is None or origin is None else (met, origin)

    def gate(self, func: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Tensor, list[Activation]] | None:
        """A value that a call multiplies by an activation of its own, and the activations that lead there, last first."""
        if func not in PRODUCTS or len(args) != 2:
            return None
        for value, factor in (args, args[::-1]):
            chain = self._chain(factor)
            if chain and chain[0].name in GATES and self._are_one(chain[-1].entered, value):
                return value, chain
        return None

    def _chain(self, value: Any) -> list[Activation]:
        """The activation that made a value, and the one that made what entered it, and so on."""
        met = self.made.get(value)
        return [met, *self._chain(met.entered)] if met is not None and met.left is value else []

    def _are_one(self, entered: Tensor, value: Any) -> bool:
        """Whether these are the same numbers, or both of the bottleneck's whole output, scaled perhaps."""
        one, other = self.followed.get(entered), self.followed.get(value)
        return entered is value or (one is not None and other is not None and one.raw is other.raw)

    def _following(self) -> bool:
        return len(self.followed) > 0 and self.seen.code is None

    def _follow_output(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        source, so_far = args[0], self.followed.get(args[0])
        same = passes_through(func, args)
        if so_far is None or not (same or takes_units(func, args, kwargs)):
            return
        self.seen.normalised |= func in NORMALISATIONS
        raw = _laid_out(func, so_far.raw, args, kwargs, result)
        for each, numbers in zip(_tensors(result), _tensors(raw), strict=False):
            if same or (each.dim() and len(each) == len(source)):
                whole = so_far.whole and each.numel() == source.numel()
                moved = so_far.moved or func in NORMALISATIONS or not whole or not same
                self.followed[each] = TrackedTensor(numbers, whole, moved)

    def _follow_choice(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        values = result if isinstance(result, Tensor) else result[0]
        self._chosen[values] = args[0]
        made = self.made.get(args[0])
        if made is not None:
            chosen = isinstance(result, Tensor)
            axis, index = _axis_and_index(args, kwargs) if chosen else (_axis_of_topk(args, kwargs), result[1])
            self.made[values] = replace(made, entered=made.entered.gather(axis, index), left=values)

    def _follow_shift(self, func: Callable[..., Any], args: tuple[Any, ...], result: Tensor) -> None:
        """By something that is the same for all samples; a sum with what another layer made is another value."""
        operands: list[tuple[Any, ...]] = [args[:2]] if func in DIVISIONS else [args[:2], args[1::-1]]
        for value, by in operands if len(args) > 1 else ():
            so_far = self.followed.get(value)
            if so_far is not None and same_for_all(by, value) and result.shape == value.shape:
                self.followed[result] = replace(so_far, moved=True)
                return

    def _follow_join(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor
    ) -> None:
        """Parts that each had the same activation, side by side again."""
        made = [self.made.get(each) for each in args[0]]
        parts = [met for met, each in zip(made, args[0], strict=True) if met and met.part and met.left is each]
        if len(parts) < len(made) or len({met.name for met in parts}) > 1 or len(result) != len(args[0][0]):
            return
        entered, raw = (
            func(values, *args[1:], **kwargs)
            for values in ([met.entered for met in parts], [met.part.raw for met in parts if met.part])
        )
        part = TrackedTensor(raw, whole=False, moved=True)
        self.made[result] = Activation(parts[0].name, parts[0].position, entered, result, part=part)


def _axis_and_index(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, Tensor]:
    """Of a gather or scatter, whose second and third arguments they are, or keywords."""
    axis, index = (*args[1:3], *(kwargs[name] for name in ("dim", "index") if name in kwargs))
    return axis, index


def _axis_of_topk(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    return int(args[2] if len(args) > 2 else kwargs.get("dim", -1))


def _tensors(result: Any) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else tuple(result)


def _laid_out(func: Callable[..., Any], raw: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
    """What the call does to the layout of a value, done to the numbers that the module returned."""
    if func in PASSED_THROUGH and func not in RESHAPES:
        return raw
    return result if raw is args[0] else ON_ANY_STRIDES.get(func, func)(raw, *args[1:], **kwargs)


GATES = ("sigmoid", "tanh")  # between 0 and 1, or -1 and 1: what is multiplied by one is let through in part
ON_ANY_STRIDES: dict[Any, Any] = {Tensor.view: Tensor.reshape, Tensor.view_as: Tensor.reshape_as}
