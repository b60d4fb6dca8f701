"""Tap on a forward pass: reads the bottleneck's activation in use, and edits activations."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map
from torch.utils.hooks import RemovableHandle

from harness.capture.activation_calls import ACTIVATIONS, PARAMETRIC, SCATTERS, activation_name
from harness.capture.dataflow import Activation, DataflowTracker, ForwardPass, TrackedTensor
from harness.capture.edits import CODE_SITE, KEEP, OUTPUT_SITE, Edit
from harness.capture.outputs import first_tensor, output_named, outputs_of, with_first_tensor, with_replaced
from harness.capture.packing import packing_of
from harness.capture.relu_patterns import ReluPatterns
from harness.capture.selections import CodeCandidate, SelectionTracker
from harness.capture.tensor_map import TensorMap
from harness.capture.writes import TensorCopies, twin, version_of, written_to
from harness.errors import HarnessError, did_you_mean


class BottleneckTap(TorchFunctionMode):
    """Follows the bottleneck's output to its activation in use, and edits activations.

    The output is followed through normalizations, dropout, reshaping, a selection of units, and a shift or scale that is
    the same for every sample. A selection of samples, or a sum with the output of another layer, ends it.

    Only calls inside the model's own forward pass count; a loss that calls a child of the model directly is ignored.
    Each call of the model adds one `ForwardPass` to `passes`. With `everywhere`, for a loss that never calls the model as
    a whole, all calls while the tap is open are one pass.

    Args:
        model: the model whose forward pass is recorded.
        bottleneck: dotted module name, or `"out:<index>"`.
        edits: position of an activation in the pass -> its change; `CODE_SITE` stands for the output of
            a bottleneck that no activation follows.
        replace: maps the code to the values that the rest of the model reads instead.
        code_call: `ForwardPass.code_call` of an earlier pass, at which `replace` acts. By default the model runs once
            more beforehand, on the same arguments, to find it.
        everywhere: see above.
        call: number of the module's call within a pass that is followed; 0 is the first.
    """

    def __init__(
        self,
        model: nn.Module,
        bottleneck: str,
        edits: Mapping[int, Edit] | None = None,
        replace: Callable[[Tensor], Tensor] | None = None,
        everywhere: bool = False,
        code_call: tuple[int, int] | None = None,
        call: int = 0,
    ) -> None:
        super().__init__()
        self.call, self.module_calls = call, 0
        self.model, self.bottleneck = model, bottleneck
        self.edits, self.replace, self.everywhere = edits or {}, replace, everywhere
        self.module = None if bottleneck.startswith("out:") else submodule(model, bottleneck)
        self.code_call, self.passes = code_call, list[ForwardPass]()
        self._open: ForwardPass | None = None
        self._depth = 0
        self._editing = False
        self._forget()
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> "BottleneckTap":
        self._handles = []
        if not self.everywhere:
            self._handles = [
                self.model.register_forward_pre_hook(self._enter_model, prepend=True, with_kwargs=True),
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
        self._forget()  # a pass that an exception ended is dropped

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
        """Run a call that writes to a tensor: records keep the old values, and the rest is as for the out-of-place twin.

        `x.relu_()` is recorded as `x = relu(copy of x)`, also for other references to `x`.
        """
        passes = [*self.passes, *([] if self._open is None else [self._open])]
        tensors = chain(*(part.tensors() for part in self._trackers()), *(record.tensors() for record in passes))
        watched = self._open is not None and activation_name(func, args, kwargs) is not None
        aside = TensorCopies(target)
        if not watched and not any(map(aside.shares, tensors)):
            return func(*args, **kwargs)
        for record in passes:
            record.set_aside(aside)
        for part in self._trackers():
            part.set_aside(aside)
        for tensor, copy in aside.pairs():
            self._made_by[id(copy)] = self._made_by.get(id(tensor), NOWHERE)
        call = twin(func, args, kwargs)
        if self._open is None or call is None:
            result = func(*args, **kwargs)
            if func is Tensor.__setitem__ and self._open is not None:
                self._touched(aside, args[2])
            return result
        keywords = {name: aside(value) for name, value in call.kwargs.items()}
        written = self._call(call.func, tuple(map(aside, call.args)), keywords)
        target.copy_(written)
        self._rectifiers.hand_over(written, target)
        self._trail.hand_over(written, target, aside)
        self._selections.hand_over(written, target, aside)
        self._made_by[id(target)] = self._made_by.get(id(written), NOWHERE)
        if self._open.code is written:
            self._open.holder = target, version_of(target)
        return None if func is Tensor.__setitem__ else target

    def _touched(self, aside: TensorCopies, value: Any) -> None:
        """Follow tensors of which some numbers were overwritten."""
        self._calls += 1
        self._trail.touched(aside.pairs())
        for position, (tensor, copy) in enumerate(aside.pairs()):
            if self._selections.touched(tensor, copy, value) and tensor is aside.target:
                self._made_by[id(tensor)] = self._calls, position
                if self.replace is not None and self.code_call == (self._calls, position):
                    self._pass().replaced = True
                    tensor.copy_(self.replace(tensor.clone()))

    def _trackers(self) -> tuple[DataflowTracker, ReluPatterns, SelectionTracker]:
        return self._trail, self._rectifiers, self._selections

    def _made(self, result: Any) -> Any:
        """Number a call by its results, and replace the code where its call is known."""
        self._calls += 1
        tensors = [result] if isinstance(result, Tensor) else result if isinstance(result, tuple | list) else []
        for position, tensor in enumerate(tensors):
            if self.replace is not None and self.code_call == (self._calls, position):
                self._pass().replaced = True
                self._editing, editing = True, self._editing
                tensor = self.replace(tensor)
                self._editing = editing
                result = tensor if isinstance(result, Tensor) else _with_item(result, position, tensor)
            if isinstance(tensor, Tensor):
                self._made_by[id(tensor)] = self._calls, position
        return result

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
            self._settle(args)
            return self._made(func(*args, **kwargs))
        among_zeros = func in SCATTERS and self._rectifiers.is_zero(args[0])
        result = self._made(func(*args, **kwargs))
        self._rectifiers.note(func, args, result)
        if among_zeros:
            result = self._put_back(args, kwargs, result)
        elif args:
            self._trail.follow(func, args, kwargs, result)
        self._selections.follow(func, args, kwargs, result)
        return result

    def _put_back(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor) -> Tensor:
        """Take selected units among zeros as the code, if they are the bottleneck's and had an activation."""
        entry = self._trail.put_back(args, kwargs, result)
        if entry is None:
            return result
        source, origin = entry
        self._pass().activations[source.position].is_code = True
        return self._set_code(source.entered, result, source.name, replace(origin, moved=True))

    def _activate(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        current = self._pass()
        edit = self.edits.get(len(current.activations), KEEP)
        followed = self._trail.followed.get(args[0]) if current.code is None else None
        is_code = followed is not None and followed.complete
        entered = args[0]
        if edit.before:
            entered = self._normalised[args[0]] = edit.before(args[0])
        writes = written_to(func, args, kwargs) is not None
        own = (
            ACTIVATIONS[edit.activation]
            if edit.activation
            else lambda values: func(values.clone() if writes else values, *args[1:], **kwargs)
        )
        result = _writable(own(entered), edit, name)
        result = self._made(edit.after(result) if edit.after else result)
        if is_code:
            self._set_code(entered, result, edit.activation or name, followed)
        source = Activation(edit.activation or name, len(current.activations), entered, result, is_code, followed, own)
        current.activations.append(source)
        self._trail.sources[result] = source
        self._selections.activated(source.name, args[0], result)
        return result

    def _undone(self, chain: list[Activation]) -> Tensor:
        """Return the factor of a gate. If it was taken for the code, undo that: the product is the code."""
        if not any(source.is_code for source in chain):
            return chain[0].result
        current, factor = self._pass(), chain[-1].entered
        current.code, current.preactivation, current.activation = None, None, "none"
        for source in reversed(chain):
            source.is_code = False
            assert source.again is not None
            factor = source.again(factor)
        return factor

    def _set_code(
        self, entered: Tensor, code: Tensor, activation: str, followed: TrackedTensor | None = None
    ) -> Tensor:
        current = self._pass()
        current.preactivation, current.code, current.activation = entered, code, activation
        current.holder = code, version_of(code)
        current.code_call = self._made_by.get(id(self._selections.base(code)))
        if followed is not None:
            current.raw, current.moved = followed.raw, followed.moved
        return code

    def _settle(self, args: tuple[Any, ...]) -> None:
        """Take the input of a parametric layer as the code.

        Its activation is none, unless the layer reads a part of the units behind an activation of their own. Such a part
        can be the code only where it is read alone: the other half of a VAE's layer has an activation too.
        """
        for argument in args:
            followed, source = self._trail.followed.get(argument), self._trail.sources.get(argument)
            if self._pass().code is None and followed is not None:
                self._read, _ = True, self._set_code(argument, argument, "none", followed)
                return
            candidate = self._selections.candidate(argument)
            if candidate is not None and self._is_read(candidate):
                self._read = True
                if candidate.code is not None:
                    self._set_selected(candidate)
                elif self._pass().code is None and source is not None:
                    source.is_code = True
                    self._set_code(source.entered, source.result, source.name, source.part)
                return

    def _is_read(self, candidate: CodeCandidate) -> bool:
        # the distances of a quantizer may read the values that its straight-through output replaces
        return (candidate.activated or candidate.complete) and (not self._read or candidate.straight)

    def _set_selected(self, candidate: CodeCandidate) -> None:
        assert candidate.code is not None
        values, raw, entered, moved = candidate.code
        self._set_code(entered, values, candidate.name, TrackedTensor(raw, moved=moved))
        self._pass().holder = self._trail.origin(values)

    def _leave_bottleneck(self, module: nn.Module, args: Any, output: Any) -> Any:
        current = self._open
        value = first_tensor(output)
        if current is None or value is None:
            return None
        self.module_calls += 1
        if current.raw is not None or self.module_calls <= self.call:
            return None
        original = self._made(value)
        if original is not value:
            output, value = with_first_tensor(output, original), original
        current.raw, current.before_raw = value, len(current.activations)
        current.packing = packing_of(output)
        source = self._trail.sources.get(value)
        if source is not None:  # the module ends in an activation of its own
            source.is_code = True
            self._set_code(source.entered, value, source.name)
            return output
        edit = self.edits.get(CODE_SITE)
        if edit is None:
            self._trail.followed[value] = TrackedTensor(value)
            return output
        return with_first_tensor(output, self._edit_linear_code(value, edit))

    def _edit_linear_code(self, value: Tensor, edit: Edit) -> Tensor:
        self._editing = True  # a hook runs under this mode, and the calls of an edit do not belong to the model
        entered = edit.before(value) if edit.before else value
        result = _writable(ACTIVATIONS[edit.activation](entered), edit, "none") if edit.activation else entered
        result = self._made(edit.after(result) if edit.after else result)
        self._editing = False
        return self._set_code(entered, result, edit.activation or "none")

    def _enter_model(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._depth += 1
        if self._depth == 1 and self.replace is not None and self.code_call is None:
            self.code_call = self._find_code(args, kwargs)
        if self._depth == 1:
            self._begin()

    def _leave_model(self, module: nn.Module, args: Any, output: Any) -> Any:
        self._depth -= 1
        if self._depth > 0:
            return None
        edit = self.edits.get(OUTPUT_SITE)
        if edit is not None and edit.after is not None:
            self._editing = True
            output = edit.after(output)  # the whole output: only the author of the edit knows the part
            self._editing = False
        # a model that returns the input of an activation returns the edited input
        output = with_replaced(output, self._normalised)
        self._end(outputs_of(output))
        return output

    def _find_code(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, int]:
        """Run the model once without a replacement; return the call that made the code."""
        copies = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, (args, kwargs))
        tap = BottleneckTap(self.model, self.bottleneck, self.edits)
        with torch.no_grad(), torch.random.fork_rng(), tap:
            self.model(*copies[0], **copies[1])
        return tap.passes[0].code_call or NOWHERE

    def _begin(self) -> None:
        self._open, self.module_calls = ForwardPass(), 0
        self._forget(self._open)

    def _end(self, outputs: tuple[Any, ...]) -> None:
        current = self._pass()
        current.outputs = outputs
        current.makers = tuple(self._trail.sources.get(output) for output in outputs)
        current.read = self._read
        if self.bottleneck.startswith("out:") and outputs:
            self._read_output(current)
        elif not self._read and current.raw is not None:
            self._set_last_code(current)
        self.passes.append(current)
        self._open = None
        self._forget()

    def _forget(self, forward_pass: ForwardPass | None = None) -> None:
        self._trail = DataflowTracker(forward_pass or ForwardPass())
        self._rectifiers = ReluPatterns()
        self._selections = SelectionTracker(self._trail, self._rectifiers.is_zero)
        self._made_by: dict[int, tuple[int, int]] = {}  # id of a tensor -> the call that made it
        self._calls, self._read = 0, False
        self._normalised = TensorMap[Tensor]()  # input of an activation -> the edited input

    def _set_last_code(self, current: ForwardPass) -> None:
        """Take the code of a pass without a parametric layer behind it: what a sum reads, or the last followed tensor."""
        summed = self._selections.summed
        if summed is not None and summed[1].code is not None:
            self._set_selected(summed[1])
        current.read = summed is not None
        if current.code is not None:
            return
        last = self._trail.last()
        if last is None:
            current.preactivation = current.code = current.raw
            current.code_call = None if current.raw is None else self._made_by.get(id(current.raw))
            return
        current.preactivation = current.code = last[0]
        current.code_call = self._made_by.get(id(self._selections.base(last[0])))
        current.holder = self._trail.origin(last[0])
        current.raw, current.moved = last[1].raw, last[1].moved

    def _read_output(self, current: ForwardPass) -> None:
        value = output_named(current.outputs, self.bottleneck)
        source = self._trail.sources.get(value)
        current.code = current.raw = current.preactivation = value
        current.holder = value, version_of(value)
        current.code_call = self._made_by.get(id(value))
        if source is not None:
            source.is_code = True
            current.preactivation = current.raw = source.entered
            current.activation = source.name

    def _pass(self) -> ForwardPass:
        assert self._open is not None
        return self._open


def _writable(result: Tensor, edit: Edit, own: str) -> Tensor:
    """Return an edit's result, or a copy that the model may write to where the gradient needs the result."""
    return result.clone() if edit.activation in NEEDING_RESULT and own not in NEEDING_RESULT else result


def submodule(model: nn.Module, name: str) -> nn.Module:
    """Return the module with a dotted name.

    Raises:
        HarnessError: when no module has this name; the message gives the nearest one.
    """
    modules = dict(model.named_modules())
    if name not in modules:
        raise HarnessError(f"bottleneck: {did_you_mean('module', name, [module for module in modules if module])}")
    return modules[name]


def _with_item(items: Any, position: int, value: Tensor) -> Any:
    """Return the results of a call with one of them replaced."""
    if isinstance(items, tuple) and type(items) is not tuple:  # a struct sequence, such as that of topk
        return items if position else type(items)((value, *items[1:]))
    return type(items)([*items[:position], value, *items[position + 1 :]])


NOWHERE = (-1, -1)
NEEDING_RESULT = ("relu", "sigmoid", "tanh")
