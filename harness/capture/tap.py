"""The watch over a forward pass: it finds the bottleneck's activation in use, and edits activations on the way."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from harness.capture.activation_calls import ACTIVATIONS, PARAMETRIC, SCATTERS, activation_name
from harness.capture.dataflow import Activation, DataflowTracker, ForwardPass, TrackedTensor
from harness.capture.edits import CODE_SITE, KEEP, OUTPUT_SITE, Edit
from harness.capture.outputs import first_tensor, output_named, outputs_of, with_first_tensor, with_replaced
from harness.capture.relu_patterns import ReluPatterns
from harness.capture.tensor_map import TensorMap
from harness.capture.writes import TensorCopies, twin, version_of, written_to
from harness.errors import HarnessError, did_you_mean


class BottleneckTap(TorchFunctionMode):
    """Follows the bottleneck's output to its activation in use, and edits activations on the way.

    It is followed through normalisations, dropout, reshaping, a choice of units, and a shift or scale that is the same
    for every sample; a choice of samples, or a sum with what another layer made, ends the way.

    Only calls inside the model's own forward pass count; a loss that calls a child of the model by itself is left
    alone. Each call of the model adds one `ForwardPass` to `passes`. With `everywhere`, for a loss that never calls the
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
        self.passes: list[ForwardPass] = []
        self._open: ForwardPass | None = None
        self._depth = 0
        self._editing = False
        self._forget()
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> "BottleneckTap":
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
        target = None if self._editing else written_to(func, args, kwargs)
        if target is not None:
            return self._write(target, func, args, kwargs)
        if self._open is None or self._editing:
            return func(*args, **kwargs)
        return self._call(func, args, kwargs)

    def _write(self, target: Tensor, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a call that writes to a tensor: records stay as they were, and all else is as for the call's twin.

        `x.relu_()` is `x = relu(copy of x)`, whoever else holds `x`.
        """
        passes = [*self.passes, *([] if self._open is None else [self._open])]
        tensors = chain(self._trail.tensors(), self._rectifiers.tensors(), *(record.tensors() for record in passes))
        watched = self._open is not None and activation_name(func, args, kwargs) is not None
        aside = TensorCopies(target)
        if not watched and not any(map(aside.shares, tensors)):
            return func(*args, **kwargs)
        for record in passes:
            record.set_aside(aside)
        self._trail.set_aside(aside)
        self._rectifiers.set_aside(aside)
        call = twin(func, args, kwargs)
        if self._open is None or call is None:
            result = func(*args, **kwargs)
            self._trail.touched(aside.pairs() if func is Tensor.__setitem__ else [])
            return result
        keywords = {name: aside(value) for name, value in call.kwargs.items()}
        written = self._call(call.func, tuple(map(aside, call.args)), keywords)
        target.copy_(written)
        self._rectifiers.hand_over(written, target)
        self._trail.hand_over(written, target, aside)
        if self._open.code is written:
            self._open.holder = target, version_of(target)
        return None if func is Tensor.__setitem__ else target

    def _call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = activation_name(func, args, kwargs)
        written = self._rectifiers.read(func, args, kwargs) if name is None else None
        if written is not None:
            name, (func, args, kwargs) = "relu", written
        gate = self._trail.gate(func, args) if name is None else None
        if gate is not None:
            name, args = "silu", (gate[0], self._undone(gate[1]))
        if name is not None and args and isinstance(args[0], Tensor):
            return self._activate(name, func, args, kwargs)
        if func in PARAMETRIC:
            return func(*self._settle(args), **kwargs)
        among_zeros = func in SCATTERS and self._rectifiers.is_zero(args[0])
        result = func(*args, **kwargs)
        self._rectifiers.note(func, args, result)
        if among_zeros:
            return self._put_back(args, kwargs, result)
        if args:
            self._trail.follow(func, args, kwargs, result)
        return result

    def _put_back(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor) -> Tensor:
        """Chosen units among zeros: the code, if they were chosen from the bottleneck's output and had an activation."""
        found = self._trail.put_back(args, kwargs, result)
        if found is None:
            return result
        made, origin = found
        self._pass().activations[made.position].is_code = True
        return self._found(made.entered, result, made.name, replace(origin, moved=True))

    def _activate(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        seen = self._pass()
        edit = self.edits.get(len(seen.activations), KEEP)
        followed = self._trail.followed.get(args[0]) if seen.code is None else None
        is_code = followed is not None and followed.whole
        entered = args[0]
        if edit.before:
            entered = self._normalised[args[0]] = edit.before(args[0])
        writes = written_to(func, args, kwargs) is not None
        own = (
            ACTIVATIONS[edit.activation]
            if edit.activation
            else lambda values: func(values.clone() if writes else values, *args[1:], **kwargs)
        )
        left = _writable(own(entered), edit, name)
        left = edit.after(left) if edit.after else left
        if is_code:
            left = self._found(entered, left, edit.activation or name, followed)
        met = Activation(edit.activation or name, len(seen.activations), entered, left, is_code, followed, own)
        seen.activations.append(met)
        self._trail.made[left] = met
        return left

    def _undone(self, chain: list[Activation]) -> Tensor:
        """The factor of a gate: if what leads to it was taken for the code, that is undone, as the product is."""
        if not any(met.is_code for met in chain):
            return chain[0].left
        seen, factor = self._pass(), chain[-1].entered
        seen.code, seen.preactivation, seen.activation = None, None, "none"
        for met in reversed(chain):
            met.is_code = False
            assert met.again is not None
            factor = met.again(factor)
        return factor

    def _found(self, entered: Tensor, code: Tensor, activation: str, followed: TrackedTensor | None = None) -> Tensor:
        seen = self._pass()
        code = self.replace(code) if self.replace else code
        seen.preactivation, seen.code, seen.activation = entered, code, activation
        seen.holder = code, version_of(code)
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
            followed, made = self._trail.followed.get(each), self._trail.made.get(each)
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

    def _leave_bottleneck(self, module: nn.Module, args: Any, output: Any) -> Any:
        seen = self._open
        value = first_tensor(output)
        if seen is None or seen.raw is not None or value is None:
            return None
        seen.raw, seen.before_raw = value, len(seen.activations)
        made = self._trail.made.get(value)
        if made is not None:  # the module ends in an activation of its own
            made.is_code = True
            seen.preactivation, seen.code, seen.activation = made.entered, value, made.name
            seen.holder = value, version_of(value)
            if self.replace is None:
                return None
            seen.code = self.replace(value)
            return with_first_tensor(output, seen.code)
        edit = self.edits.get(CODE_SITE)
        if edit is None:
            self._trail.followed[value] = TrackedTensor(value)
            return None
        return with_first_tensor(output, self._edit_linear_code(value, edit))

    def _edit_linear_code(self, value: Tensor, edit: Edit) -> Tensor:
        self._editing = True  # a hook runs with this very mode on, and its own calls are no part of the model
        entered = edit.before(value) if edit.before else value
        left = _writable(ACTIVATIONS[edit.activation](entered), edit, "none") if edit.activation else entered
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
        # a model that returns what entered an activation returns what enters it now
        output = with_replaced(output, self._normalised)
        self._end(outputs_of(output))
        return output

    def _begin(self) -> None:
        self._open = ForwardPass()
        self._forget(self._open)

    def _end(self, outputs: tuple[Any, ...]) -> None:
        seen = self._pass()
        seen.outputs = outputs
        seen.makers = tuple(self._trail.made.get(each) for each in outputs)
        if self.bottleneck.startswith("out:") and outputs:
            self._read_output(seen)
        elif seen.code is None and seen.raw is not None:
            self._found_last(seen)
        self.passes.append(seen)
        self._open = None
        self._forget()

    def _forget(self, begun: ForwardPass | None = None) -> None:
        self._trail = DataflowTracker(begun or ForwardPass())
        self._rectifiers = ReluPatterns()
        self._normalised = TensorMap[Tensor]()  # what the model put into an activation -> what an edit made of it

    def _found_last(self, seen: ForwardPass) -> None:
        """Nothing that ends the trail was met: the code is where it ends, before the units went ways of their own."""
        last = self._trail.last()
        if last is None:
            seen.preactivation = seen.code = seen.raw
            return
        seen.preactivation = seen.code = last[0]
        seen.holder = self._trail.origin(last[0])
        seen.raw, seen.moved = last[1].raw, last[1].moved

    def _read_output(self, seen: ForwardPass) -> None:
        value = output_named(seen.outputs, self.bottleneck)
        made = self._trail.made.get(value)
        seen.code = seen.raw = seen.preactivation = value
        seen.holder = value, version_of(value)
        if made is not None:
            made.is_code = True
            seen.preactivation = seen.raw = made.entered
            seen.activation = made.name

    def _pass(self) -> ForwardPass:
        assert self._open is not None
        return self._open


def _writable(result: Tensor, edit: Edit, own: str) -> Tensor:
    """Return an edit's result, or a copy that the model may write to where the gradient needs the result itself."""
    return result.clone() if edit.activation in NEEDING_RESULT and own not in NEEDING_RESULT else result


def submodule(model: nn.Module, name: str) -> nn.Module:
    """The module of that dotted name.

    Raises:
        HarnessError: when there is none, with the nearest name.
    """
    modules = dict(model.named_modules())
    if name not in modules:
        raise HarnessError(f"bottleneck: {did_you_mean('module', name, [each for each in modules if each])}")
    return modules[name]


NEEDING_RESULT = ("relu", "sigmoid", "tanh")
