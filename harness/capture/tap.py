"""The watch over a forward pass: it follows the bottleneck's output to its activation in use, and edits on the way."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from harness.capture.activations import (
    ACTIVATIONS,
    NORMALISATIONS,
    PARAMETRIC,
    PASSED_THROUGH,
    activation_name,
    in_place,
)
from harness.capture.identity import ByIdentity
from harness.capture.outputs import first_tensor, output_named, outputs_of, with_first_tensor
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


@dataclass
class Activation:
    """One activation met in a forward pass: its name, where it stands, and whether it is the bottleneck's."""

    name: str
    position: int
    entered: Tensor
    left: Tensor
    is_code: bool = False


@dataclass
class Pass:
    """What one forward pass of the model did: its activations in order, and the code that was found."""

    activations: list[Activation] = field(default_factory=list)
    raw: Tensor | None = None
    preactivation: Tensor | None = None
    code: Tensor | None = None
    activation: str = "none"
    normalised: bool = False
    before_raw: int | None = None
    outputs: tuple[Any, ...] = ()
    makers: tuple[Activation | None, ...] = ()


class CodeTap(TorchFunctionMode):
    """Follows the bottleneck's output to its activation in use, and edits activations on the way.

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
        if name is not None and args and isinstance(args[0], Tensor):
            return self._activate(name, func, args, kwargs)
        if func in PARAMETRIC:
            return func(*self._settle(args), **kwargs)
        result = func(*args, **kwargs)
        if func in PASSED_THROUGH and args:
            self._follow(func, args[0], result)
        return result

    def _activate(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        seen = self._pass()
        edit = self.edits.get(len(seen.activations), KEEP)
        is_code = seen.code is None and args[0] in self._trail
        changes = in_place(func, args, kwargs)
        entered = args[0].clone() if changes else args[0]
        entered = edit.before(entered) if edit.before else entered
        if edit.activation is not None:
            left = ACTIVATIONS[edit.activation](entered)
        else:
            left = func(entered, *args[1:], **{**kwargs, **({"inplace": False} if "inplace" in kwargs else {})})
        left = edit.after(left) if edit.after else left
        if is_code:
            left = self._found(entered, left, edit.activation or name)
        if changes:
            left = args[0].copy_(left)
        met = Activation(edit.activation or name, len(seen.activations), entered, left, is_code)
        seen.activations.append(met)
        self._made[left] = met
        return left

    def _found(self, entered: Tensor, code: Tensor, activation: str) -> Tensor:
        seen = self._pass()
        code = self.replace(code) if self.replace else code
        seen.preactivation, seen.code, seen.activation = entered, code, activation
        return code

    def _settle(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """A parametric layer ends the trail: what enters it is the code, and no activation came before."""
        seen = self._pass()
        if seen.code is not None or not any(each in self._trail for each in args):
            return args
        position = next(i for i, each in enumerate(args) if each in self._trail)
        code = self._found(args[position], args[position], "none")
        return (*args[:position], code, *args[position + 1 :])

    def _follow(self, func: Callable[..., Any], source: Any, result: Any) -> None:
        if not isinstance(source, Tensor) or not isinstance(result, Tensor):
            return
        if source in self._trail:
            self._trail[result] = None
            self._pass().normalised |= func in NORMALISATIONS
        made = self._made.get(source)
        if made is not None:
            self._made[result] = made

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
            self._trail[value] = None
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
            last = self._trail.last()
            seen.preactivation = seen.code = seen.raw if last is None else last
        self.passes.append(seen)
        self._open = None
        self._forget()

    def _forget(self) -> None:
        self._trail = ByIdentity[None]()  # tensors that still are the bottleneck's output
        self._made = ByIdentity[Activation]()  # which activation made a tensor

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


CODE_SITE = -1
OUTPUT_SITE = -2
KEEP = Edit()
