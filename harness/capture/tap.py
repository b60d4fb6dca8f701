"""The watch over a forward pass: it follows the bottleneck's output to its activation in use, and edits on the way."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from harness.capture.activations import (
    ACTIVATIONS,
    DIVISIONS,
    JOINS,
    NORMALISATIONS,
    PARAMETRIC,
    PASSED_THROUGH,
    PIECES,
    RESHAPES,
    SHIFTS,
    activation_name,
    in_place,
    passes_through,
    same_for_all,
    takes_units,
)
from harness.capture.identity import ByIdentity
from harness.capture.outputs import first_tensor, output_named, outputs_of, with_first_tensor
from harness.capture.rectifying import Rectifiers
from harness.errors import HarnessError, unknown


@dataclass(frozen=True)
class Edit:
    """What is changed at one activation of the forward pass.

    Args:
        before: applied to what enters the activation.
        activation: the name of the activation that takes its place; None keeps the model's own.
        after: applied to what leaves it.
    """

    before: Callable[[Tensor], Tensor] | None = None
    activation: str | None = None
    after: Callable[[Any], Any] | None = None


@dataclass(frozen=True)
class Followed:
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

    `part` is set where it was given a part of the bottleneck's units.
    """

    name: str
    position: int
    entered: Tensor
    left: Tensor
    is_code: bool = False
    part: Followed | None = None


@dataclass
class Pass:
    """What one forward pass of the model did: its activations in order, and the code that was found."""

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


class CodeTap(TorchFunctionMode):
    """Follows the bottleneck's output to its activation in use, and edits activations on the way.

    It is followed through normalisations, dropout, reshaping, a choice of units, and a shift or scale that is the same
    for every sample; a choice of samples, or a sum with what another layer made, ends the way.

    Only calls inside the model's own forward pass count; a loss that calls a child of the model by itself is left
    alone. Each call of the model adds one `Pass` to `passes`. With `everywhere`, for a loss that never calls the
    model as a whole, all that happens while the tap is open is one pass.

    Args:
        model: the model whose forward pass is watched.
        bottleneck: dotted module name, or `"out:<index>"`.
        edits: what to change at which activation, by its position in the pass; `CODE_SITE` stands for the output of
            a bottleneck that no activation follows.
        replace: takes the code in use and gives the values that the rest of the model shall see instead.
        everywhere: see above.
    """

    def __init__(
        self,
        model: nn.Module,
        bottleneck: str,
        edits: Mapping[int, Edit] | None = None,
        replace: Callable[[Tensor], Tensor] | None = None,
        everywhere: bool = False,
    ) -> None:
        super().__init__()
        self.model, self.bottleneck = model, bottleneck
        self.edits, self.replace, self.everywhere = edits or {}, replace, everywhere
        self.module = None if bottleneck.startswith("out:") else submodule(model, bottleneck)
        self.passes: list[Pass] = []
        self._open: Pass | None = None
        self._depth = 0
        self._editing = False
        self._forget()
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> "CodeTap":
        self._handles = [
            self.model.register_forward_pre_hook(self._enter_model, prepend=True),
            self.model.register_forward_hook(self._leave_model),
        ]
        if self.module is not None and self.module is not self.model:
            self._handles.append(self.module.register_forward_hook(self._leave_bottleneck))
        if self.everywhere:
            self._begin()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for handle in self._handles:
            handle.remove()
        if self.everywhere and self._open is not None:
            self._end(())
        self._forget()  # a pass that broke off ends here

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._open is None or self._editing:
            return func(*args, **kwargs)
        name = activation_name(func, args, kwargs)
        written = self._rectifiers.read(func, args, kwargs) if name is None else None
        if written is not None:
            name, (func, args, kwargs) = "relu", written
        if name is not None and args and isinstance(args[0], Tensor):
            return self._activate(name, func, args, kwargs)
        if func in PARAMETRIC:
            return func(*self._settle(args), **kwargs)
        result = func(*args, **kwargs)
        self._rectifiers.note(func, args, kwargs, result)
        if args:
            self._follow(func, args, kwargs, result)
        return result

    def _activate(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        seen = self._pass()
        edit = self.edits.get(len(seen.activations), KEEP)
        followed = self._trail.get(args[0]) if seen.code is None else None
        is_code = followed is not None and followed.whole
        changes = in_place(func, args, kwargs)
        entered = args[0].clone() if changes else args[0]
        entered = edit.before(entered) if edit.before else entered
        if edit.activation is not None:
            left = ACTIVATIONS[edit.activation](entered)
        else:
            left = func(entered, *args[1:], **{**kwargs, **({"inplace": False} if "inplace" in kwargs else {})})
        left = edit.after(left) if edit.after else left
        if is_code:
            left = self._found(entered, left, edit.activation or name, followed)
        if changes:
            left = args[0].copy_(left)
            self._trail.forget(left)
        met = Activation(edit.activation or name, len(seen.activations), entered, left, is_code, followed)
        seen.activations.append(met)
        self._made[left] = met
        return left

    def _found(self, entered: Tensor, code: Tensor, activation: str, followed: Followed | None = None) -> Tensor:
        seen = self._pass()
        code = self.replace(code) if self.replace else code
        seen.preactivation, seen.code, seen.activation = entered, code, activation
        if followed is not None:
            seen.raw, seen.moved = followed.raw, followed.moved
        return code

    def _settle(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """A parametric layer ends the trail: what enters it is the code.

        Its activation is none, unless the layer reads a part of the units behind an activation of theirs. Only here is
        it known that such a part is handed on by itself: the other half of a VAE's layer has an activation too.
        """
        if self._pass().code is not None:
            return args
        for position, each in enumerate(args):
            followed, made = self._trail.get(each), self._made.get(each)
            if followed is not None:
                return (*args[:position], self._found(each, each, "none", followed), *args[position + 1 :])
            if made is not None and made.part is not None:
                return (*args[:position], self._found_part(made, each), *args[position + 1 :])
        return args

    def _found_part(self, made: Activation, handed_on: Tensor) -> Tensor:
        made.is_code = True
        code = self._found(made.entered, handed_on, made.name, made.part)
        if self.replace is None:
            self._pass().code = made.left
        return code

    def _follow(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        if func in SHIFTS:
            if self._following():
                self._follow_shift(func, args, result)
            self._made.forget(result)
        elif func in JOINS:
            self._follow_join(func, args, kwargs, result)
        elif func in PASSED_THROUGH or func in PIECES or func is Tensor.__getitem__:
            source = args[0]
            if source in self._trail and self._following():
                self._follow_output(func, args, kwargs, result)
            made = self._made.get(source)
            if made is not None and passes_through(func, args) and result.numel() == source.numel():
                self._made[result] = made

    def _following(self) -> bool:
        return len(self._trail) > 0 and self._pass().code is None

    def _follow_output(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        source, so_far = args[0], self._trail.get(args[0])
        same = passes_through(func, args)
        if so_far is None or not (same or takes_units(func, args, kwargs)):
            return
        self._pass().normalised |= func in NORMALISATIONS
        raw = _laid_out(func, so_far.raw, args, kwargs, result)
        for each, numbers in zip(_tensors(result), _tensors(raw), strict=False):
            if same or (each.dim() and len(each) == len(source)):
                whole = so_far.whole and each.numel() == source.numel()
                moved = so_far.moved or func in NORMALISATIONS or not whole or not same
                self._trail[each] = Followed(numbers, whole, moved)

    def _follow_shift(self, func: Callable[..., Any], args: tuple[Any, ...], result: Tensor) -> None:
        """By something that is the same for all samples; a sum with what another layer made is another value."""
        operands: list[tuple[Any, ...]] = [args[:2]] if func in DIVISIONS else [args[:2], args[1::-1]]
        for value, by in operands if len(args) > 1 else ():
            so_far = self._trail.get(value)
            if so_far is not None and same_for_all(by, value) and result.shape == value.shape:
                self._trail[result] = replace(so_far, moved=True)
                return
        self._trail.forget(result)  # what was changed in place

    def _follow_join(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor
    ) -> None:
        """Parts that each had the same activation, side by side again."""
        made = [self._made.get(each) for each in args[0]]
        parts = [met for met, each in zip(made, args[0], strict=True) if met and met.part and met.left is each]
        if len(parts) < len(made) or len({met.name for met in parts}) > 1 or len(result) != len(args[0][0]):
            return
        entered, raw = (
            func(values, *args[1:], **kwargs)
            for values in ([met.entered for met in parts], [met.part.raw for met in parts if met.part])
        )
        part = Followed(raw, whole=False, moved=True)
        self._made[result] = Activation(parts[0].name, parts[0].position, entered, result, part=part)

    def _leave_bottleneck(self, module: nn.Module, args: Any, output: Any) -> Any:
        seen = self._open
        value = first_tensor(output)
        if seen is None or seen.raw is not None or value is None:
            return None
        seen.raw, seen.before_raw = value, len(seen.activations)
        made = self._made.get(value)
        if made is not None:  # the module ends in an activation of its own
            made.is_code = True
            seen.preactivation, seen.code, seen.activation = made.entered, value, made.name
            if self.replace is None:
                return None
            seen.code = self.replace(value)
            return with_first_tensor(output, seen.code)
        edit = self.edits.get(CODE_SITE)
        if edit is None:
            self._trail[value] = Followed(value)
            return None
        return with_first_tensor(output, self._edit_linear_code(value, edit))

    def _edit_linear_code(self, value: Tensor, edit: Edit) -> Tensor:
        self._editing = True  # a hook runs with this very mode on, and its own calls are no part of the model
        entered = edit.before(value) if edit.before else value
        left = ACTIVATIONS[edit.activation](entered) if edit.activation else entered
        left = edit.after(left) if edit.after else left
        self._editing = False
        return self._found(entered, left, edit.activation or "none")

    def _enter_model(self, module: nn.Module, args: Any) -> None:
        self._depth += 1
        if self._depth == 1 and not self.everywhere:
            self._begin()

    def _leave_model(self, module: nn.Module, args: Any, output: Any) -> Any:
        self._depth -= 1
        if self._depth > 0 or self.everywhere:
            return None
        edit = self.edits.get(OUTPUT_SITE)
        if edit is not None and edit.after is not None:
            self._editing = True
            output = edit.after(output)  # the whole output: only who wrote the edit knows which part is meant
            self._editing = False
        self._end(outputs_of(output))
        return output

    def _begin(self) -> None:
        self._open = Pass()
        self._forget()

    def _end(self, outputs: tuple[Any, ...]) -> None:
        seen = self._pass()
        seen.outputs = outputs
        seen.makers = tuple(self._made.get(each) for each in outputs)
        if self.bottleneck.startswith("out:") and outputs:
            self._read_output(seen)
        elif seen.code is None and seen.raw is not None:
            self._found_last(seen)
        self.passes.append(seen)
        self._open = None
        self._forget()

    def _forget(self) -> None:
        self._trail = ByIdentity[Followed]()  # tensors that still are the bottleneck's output
        self._made = ByIdentity[Activation]()  # which activation made a tensor
        self._rectifiers = Rectifiers()

    def _found_last(self, seen: Pass) -> None:
        """Nothing that ends the trail was met: the code is where it ends, before the units went ways of their own."""
        for value, followed in self._trail.items():
            if followed.whole:
                seen.preactivation = seen.code = value
                seen.raw, seen.moved = followed.raw, followed.moved
                return
        seen.preactivation = seen.code = seen.raw

    def _read_output(self, seen: Pass) -> None:
        value = output_named(seen.outputs, self.bottleneck)
        made = self._made.get(value)
        seen.code = seen.raw = seen.preactivation = value
        if made is not None:
            made.is_code = True
            seen.preactivation = seen.raw = made.entered
            seen.activation = made.name

    def _pass(self) -> Pass:
        assert self._open is not None
        return self._open


def submodule(model: nn.Module, name: str) -> nn.Module:
    """The module of that dotted name.

    Raises:
        HarnessError: when there is none, with the nearest name.
    """
    modules = dict(model.named_modules())
    if name not in modules:
        raise HarnessError(f"bottleneck: {unknown('module', name, [each for each in modules if each])}")
    return modules[name]


def _tensors(result: Any) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else tuple(result)


def _laid_out(func: Callable[..., Any], raw: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
    """What the call does to the layout of a value, done to the numbers that the module returned."""
    if func in PASSED_THROUGH and func not in RESHAPES:
        return raw
    return result if raw is args[0] else ON_ANY_STRIDES.get(func, func)(raw, *args[1:], **kwargs)


ON_ANY_STRIDES: dict[Any, Any] = {Tensor.view: Tensor.reshape, Tensor.view_as: Tensor.reshape_as}
CODE_SITE = -1
OUTPUT_SITE = -2
KEEP = Edit()
