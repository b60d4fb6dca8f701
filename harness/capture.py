"""How an activation is read from any module: which values enter the activation in use, and which leave it.

A forward pass is watched as a sequence of torch calls, so `F.relu`, `torch.relu`, `nn.ReLU`, `x.clamp(min=0)` and
`relu_` look alike, nothing has to be subclassed, and the same code works under `torch.func.vmap`.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

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


@dataclass(frozen=True)
class Observation:
    """What a model's bottleneck did on a batch.

    Args:
        code: the activation in use, `[sample, unit]`.
        preactivation: what enters that activation, after any normalisation, `[sample, unit]`.
        raw: what the bottleneck's module returned, before any normalisation, `[sample, unit]`.
        activation: its name: relu, leaky_relu, elu, gelu, silu, softplus, sigmoid, tanh or none.
        reconstruction: the output compared with the batch, in the batch's shape, or None where there is none.
        outputs: all outputs of the model, flattened to a tuple.
    """

    code: Tensor
    preactivation: Tensor
    raw: Tensor
    activation: str
    reconstruction: Tensor | None
    outputs: tuple[Any, ...]


def observe(
    model: nn.Module,
    batch: Tensor,
    bottleneck: str,
    reconstruction: str | None = None,
    edits: Mapping[int, Edit] | None = None,
) -> Observation:
    """Run `model(batch)` once and read the bottleneck's activation in use.

    Gradients, mode and devices are the caller's choice; nothing of the model is changed.

    Raises:
        HarnessError: when there is no such module, it is never called, or it returns no tensor.
    """
    with CodeTap(model, bottleneck, edits) as tap:
        model(batch)
    seen = tap.passes[0]
    return Observation(
        flat(code_of(seen, bottleneck)),
        flat(seen.preactivation if seen.preactivation is not None else code_of(seen, bottleneck)),
        flat(seen.raw if seen.raw is not None else code_of(seen, bottleneck)),
        seen.activation,
        reconstruction_of(seen.outputs, batch, reconstruction),
        seen.outputs,
    )


def code_of(seen: Pass, bottleneck: str) -> Tensor:
    """The code that a pass found, in the model's own shape.

    Raises:
        HarnessError: when the pass never met the bottleneck.
    """
    if seen.code is None:
        raise HarnessError(
            f"bottleneck {bottleneck!r}: the model's forward pass never calls it, or it returns no tensor"
        )
    return seen.code


def flat(values: Tensor) -> Tensor:
    """`[sample, ...]` as `[sample, unit]`: every number that is handed on is a unit.

    >>> flat(torch.zeros(5, 2, 3)).shape
    torch.Size([5, 6])
    """
    return values.reshape(len(values), -1)


def reconstruction_of(outputs: tuple[Any, ...], batch: Tensor, which: str | None) -> Tensor | None:
    """The output that is compared with the batch: the one named, or the last one shaped like the batch.

    Raises:
        HarnessError: when the named output does not exist.
    """
    if which is not None:
        return _output(outputs, which)
    alike = [each for each in outputs if isinstance(each, Tensor) and each.shape == batch.shape]
    # a flattened copy of the batch counts when nothing has its very shape
    alike = alike or [
        each
        for each in outputs
        if isinstance(each, Tensor) and each.numel() == batch.numel() and len(each) == len(batch)
    ]
    return alike[-1] if alike else None


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
        self._trail: dict[int, Tensor] = {}  # tensors that still are the bottleneck's output
        self._made: dict[int, Activation] = {}  # which activation made a tensor
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
        is_code = seen.code is None and id(args[0]) in self._trail
        in_place = _in_place(func, args, kwargs)
        entered = args[0].clone() if in_place else args[0]
        entered = edit.before(entered) if edit.before else entered
        if edit.activation is not None:
            left = ACTIVATIONS[edit.activation](entered)
        else:
            left = func(entered, *args[1:], **{**kwargs, **({"inplace": False} if "inplace" in kwargs else {})})
        left = edit.after(left) if edit.after else left
        if is_code:
            left = self._found(entered, left, edit.activation or name)
        if in_place:
            left = args[0].copy_(left)
        met = Activation(edit.activation or name, len(seen.activations), entered, left, is_code)
        seen.activations.append(met)
        self._made[id(left)] = met
        return left

    def _found(self, entered: Tensor, code: Tensor, activation: str) -> Tensor:
        seen = self._pass()
        code = self.replace(code) if self.replace else code
        seen.preactivation, seen.code, seen.activation = entered, code, activation
        return code

    def _settle(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """A parametric layer ends the trail: what enters it is the code, and no activation came before."""
        seen = self._pass()
        if seen.code is not None or not any(id(each) in self._trail for each in args if isinstance(each, Tensor)):
            return args
        position = next(i for i, each in enumerate(args) if id(each) in self._trail)
        code = self._found(args[position], args[position], "none")
        return (*args[:position], code, *args[position + 1 :])

    def _follow(self, func: Callable[..., Any], source: Any, result: Any) -> None:
        if not isinstance(source, Tensor) or not isinstance(result, Tensor):
            return
        if id(source) in self._trail:
            self._trail[id(result)] = result
            self._pass().normalised |= func in NORMALISATIONS
        if id(source) in self._made:
            self._made[id(result)] = self._made[id(source)]

    def _leave_bottleneck(self, module: nn.Module, args: Any, output: Any) -> Any:
        seen = self._open
        value = _first_tensor(output)
        if seen is None or seen.raw is not None or value is None:
            return None
        seen.raw, seen.before_raw = value, len(seen.activations)
        made = self._made.get(id(value))
        if made is not None:  # the module ends in an activation of its own
            made.is_code = True
            seen.preactivation, seen.code, seen.activation = made.entered, value, made.name
            if self.replace is None:
                return None
            seen.code = self.replace(value)
            return _with_first_tensor(output, seen.code)
        edit = self.edits.get(CODE_SITE)
        if edit is None:
            self._trail[id(value)] = value
            return None
        return _with_first_tensor(output, self._edit_linear_code(value, edit))

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
        self._trail, self._made = {}, {}

    def _end(self, outputs: tuple[Any, ...]) -> None:
        seen = self._pass()
        seen.outputs = outputs
        seen.makers = tuple(self._made.get(id(each)) for each in outputs)
        if self.bottleneck.startswith("out:") and outputs:
            self._read_output(seen)
        elif seen.code is None and seen.raw is not None:
            last = list(self._trail.values())[-1] if self._trail else seen.raw
            seen.preactivation = seen.code = last
        self.passes.append(seen)
        self._open = None
        self._trail, self._made = {}, {}

    def _read_output(self, seen: Pass) -> None:
        value = _output(seen.outputs, self.bottleneck)
        made = self._made.get(id(value))
        seen.code = seen.raw = seen.preactivation = value
        if made is not None:
            made.is_code = True
            seen.preactivation = seen.raw = made.entered
            seen.activation = made.name

    def _pass(self) -> Pass:
        assert self._open is not None
        return self._open


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """The model in eval mode, and back to each module's own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, mode in modes:
            module.training = mode


def submodule(model: nn.Module, name: str) -> nn.Module:
    """The module of that dotted name.

    Raises:
        HarnessError: when there is none, with the nearest name.
    """
    modules = dict(model.named_modules())
    if name not in modules:
        raise HarnessError(f"bottleneck: {unknown('module', name, [each for each in modules if each])}")
    return modules[name]


def outputs_of(output: Any) -> tuple[Any, ...]:
    """A model's output as a flat tuple: itself, the members of a tuple or list, or the values of a mapping."""
    if isinstance(output, Tensor):
        return (output,)
    if isinstance(output, Mapping):
        return tuple(output.values())
    if hasattr(output, "__dataclass_fields__"):
        return tuple(getattr(output, name) for name in output.__dataclass_fields__)
    return tuple(output) if isinstance(output, tuple | list) else (output,)


def activation_name(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
    """The activation that a torch call is, or None.

    >>> activation_name(torch.clamp, (torch.zeros(1),), {"min": 0})
    'relu'
    """
    if func in CLAMPS:
        low = args[1] if len(args) > 1 else kwargs.get("min")
        return "relu" if isinstance(low, int | float) and low == 0 else None
    return NAMES.get(func)


def _in_place(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    name = getattr(func, "__name__", "")
    return bool(kwargs.get("inplace")) or (name.endswith("_") and not name.endswith("__"))


def _output(outputs: tuple[Any, ...], which: str) -> Tensor:
    index = which.removeprefix("out:")
    if not which.startswith("out:") or not index.isdigit():
        raise HarnessError(f"{which!r}: 'out:0' for the first output, 'out:1' for the second, ... is wanted")
    if int(index) >= len(outputs) or not isinstance(outputs[int(index)], Tensor):
        raise HarnessError(f"{which!r}: the model has {len(outputs)} outputs; the last is 'out:{len(outputs) - 1}'")
    return outputs[int(index)]


def _first_tensor(output: Any) -> Tensor | None:
    return next((each for each in outputs_of(output) if isinstance(each, Tensor)), None)


def _with_first_tensor(output: Any, value: Tensor) -> Any:
    if isinstance(output, tuple):
        position = next(i for i, each in enumerate(output) if isinstance(each, Tensor))
        return (*output[:position], value, *output[position + 1 :])
    return value


CODE_SITE = -1
OUTPUT_SITE = -2
KEEP = Edit()

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "gelu": F.gelu,
    "silu": F.silu,
    "softplus": F.softplus,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "none": lambda values: values,
}

CLAMPS = {torch.clamp, torch.clip, torch.clamp_, torch.clamp_min, torch.clamp_min_}
CLAMPS |= {Tensor.clamp, Tensor.clip, Tensor.clamp_, Tensor.clip_, Tensor.clamp_min, Tensor.clamp_min_}

NAMES: dict[Callable[..., Any], str] = {
    **dict.fromkeys((F.relu, F.relu_, F.relu6, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_), "relu"),
    **dict.fromkeys((F.threshold,), "relu"),
    **dict.fromkeys((F.leaky_relu, F.leaky_relu_, F.prelu, F.rrelu, Tensor.prelu, torch.prelu), "leaky_relu"),
    **dict.fromkeys((F.elu, F.elu_, F.celu, F.selu, torch.selu, torch.celu), "elu"),
    F.gelu: "gelu",
    **dict.fromkeys((F.silu, F.mish), "silu"),
    F.softplus: "softplus",
    **dict.fromkeys((F.sigmoid, torch.sigmoid, torch.sigmoid_, Tensor.sigmoid, Tensor.sigmoid_), "sigmoid"),
    **dict.fromkeys((torch.special.expit, F.hardsigmoid), "sigmoid"),
    **dict.fromkeys((F.tanh, torch.tanh, torch.tanh_, Tensor.tanh, Tensor.tanh_, F.hardtanh, F.softsign), "tanh"),
}

NORMALISATIONS: set[Callable[..., Any]] = {
    *(F.batch_norm, F.layer_norm, F.instance_norm, F.group_norm, F.rms_norm, F.local_response_norm, F.normalize),
}

PASSED_THROUGH: set[Callable[..., Any]] = {
    *NORMALISATIONS,
    *(F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout),
    *(torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze, torch.permute, torch.transpose, torch.clone),
    *(torch.unflatten, Tensor.unflatten, torch.movedim, Tensor.movedim, torch.swapaxes, Tensor.swapaxes, Tensor.type),
    *(Tensor.flatten, Tensor.reshape, Tensor.squeeze, Tensor.unsqueeze, Tensor.permute, Tensor.transpose, Tensor.clone),
    *(Tensor.view, Tensor.contiguous, Tensor.to, Tensor.float, Tensor.double, Tensor.half, Tensor.bfloat16, Tensor.t),
    *(Tensor.T.__get__, Tensor.mT.__get__),  # type: ignore[attr-defined]
}

PARAMETRIC: set[Callable[..., Any]] = {
    *(F.linear, F.bilinear, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d),
    *(torch.matmul, torch.mm, torch.bmm, torch.addmm, torch.baddbmm, torch.einsum, F.multi_head_attention_forward),
    *(Tensor.matmul, Tensor.mm, Tensor.bmm, Tensor.__matmul__, F.embedding, F.scaled_dot_product_attention),
    *(torch.conv1d, torch.conv2d, torch.conv3d, torch.conv_transpose1d, torch.conv_transpose2d),
}
