"""Site where one hook reads a layer's code, found in a forward pass that a tap has followed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from harness.capture import ForwardPass
from harness.capture.outputs import first_tensor
from harness.capture.writes import numbers_of, same_layout, version_of
from harness.watching.forward_calls import ForwardCalls


@dataclass(frozen=True)
class CodeSite:
    """A module whose input or output is the code.

    Args:
        module: the module.
        argument: position or keyword of the input that is the code; None for the output.
        activation: name of the activation in use.
        again: activation to apply to the output, for a code that no module reads or returns.
    """

    module: nn.Module
    argument: int | str | None
    activation: str
    again: Callable[[Tensor], Tensor] | None = None

    def register(self, take: Callable[[Any], None]) -> ForwardCalls:
        """Call `take` with the code at each call of the module."""
        if self.argument is None:
            return ForwardCalls(
                self.module,
                after=lambda output: take(
                    output if self.again is None and isinstance(output, Tensor) else self._of_output(output)
                ),
            )
        if isinstance(self.argument, int):
            position = self.argument
            return ForwardCalls(
                self.module, before=lambda args, kwargs: take(args[position] if position < len(args) else None)
            )
        keyword = self.argument
        return ForwardCalls(self.module, before=lambda args, kwargs: take(kwargs.get(keyword)))

    def _of_output(self, output: Any) -> Any:
        value = first_tensor(output)
        if self.again is None or value is None:
            return value
        with torch.no_grad(), torch._C.DisableTorchFunction():  # a tap that checks the site must not follow the call
            return self.again(value.detach())


@dataclass(frozen=True)
class ModuleTensor:
    """A tensor that entered or left a module: the argument (None for the output), the call and the tensor's version."""

    module: nn.Module
    argument: int | str | None
    call: int
    tensor: Tensor
    version: int


class ModuleTensors:
    """Record of the tensors that enter and leave all modules inside a model, while it is open."""

    def __init__(self, model: nn.Module) -> None:
        self.entries: list[ModuleTensor] = []
        self.calls: dict[int, int] = {}  # id of a module -> its calls
        self._handles: list[RemovableHandle] = []
        for module in (module for module in model.modules() if module is not model):
            self._handles.append(module.register_forward_pre_hook(self._enter, with_kwargs=True))
            self._handles.append(module.register_forward_hook(self._leave))

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        call = self.calls[id(module)] = self.calls.get(id(module), 0) + 1
        with torch._C.DisableTorchFunction():
            arguments: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
            for argument, value in arguments:
                if isinstance(value, Tensor):
                    self.entries.append(ModuleTensor(module, argument, call, value, version_of(value)))

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        with torch._C.DisableTorchFunction():
            value = first_tensor(output)
            if value is not None:
                call = self.calls.get(id(module), 1)
                self.entries.append(ModuleTensor(module, None, call, value, version_of(value)))


def find_site(layer: nn.Module, passes: list[ForwardPass], record: ModuleTensors) -> CodeSite | None:
    """Return a site that gives the code of every call of a layer, and nothing else; None if there is none.

    Args:
        layer: the layer.
        passes: one for each call of the layer, in order.
        record: the tensors of all modules in the same pass.
    """
    if not passes or len({forward.activation for forward in passes}) > 1:
        return None
    candidates: dict[tuple[int, Any], list[ModuleTensor]] = {}
    for forward in passes:
        for entry in _matches(forward, record.entries):
            candidates.setdefault((id(entry.module), entry.argument), []).append(entry)
    for (module, argument), entries in candidates.items():
        # every call of the module reads the code, and in the order of the layer's calls
        if (
            [entry.call for entry in entries]
            == list(range(1, len(passes) + 1))
            == list(range(1, record.calls[module] + 1))
        ):
            return CodeSite(entries[0].module, argument, passes[0].activation)
    return _activated_output(layer, passes, record)


def _matches(forward: ForwardPass, entries: list[ModuleTensor]) -> Iterator[ModuleTensor]:
    """Iterate over the first match in each module."""
    assert forward.code is not None
    holder, version = forward.holder or (forward.raw, None)
    modules = set()
    for entry in entries:
        key = (id(entry.module), entry.argument)
        if holder is None or entry.tensor.shape != forward.code.shape or key in modules:
            continue
        current = version is None or entry.version in (version, -1)
        if current and numbers_of(entry.tensor) == numbers_of(holder) and same_layout(entry.tensor, holder):
            modules.add(key)
            yield entry


def _activated_output(layer: nn.Module, passes: list[ForwardPass], record: ModuleTensors) -> CodeSite | None:
    """Return the layer's output with the activation applied once more, if that gives the code bit for bit."""
    if record.calls.get(id(layer)) != len(passes):
        return None
    again = None
    for forward in passes:
        activation = next((activation for activation in forward.activations if activation.is_code), None)
        if activation is None or activation.again is None or forward.raw is None or forward.moved:
            return None
        with torch.no_grad():
            if not same_values(activation.again(forward.raw.detach()), forward.code):
                return None
        again = activation.again
    return CodeSite(layer, None, passes[0].activation, again)


def same_values(first: Tensor, second: Tensor | None) -> bool:
    """Return True for equal shapes and values; NaN equals NaN.

    >>> same_values(torch.tensor([1.0, torch.nan]), torch.tensor([1.0, torch.nan]))
    True
    """
    if second is None or first.shape != second.shape or first.dtype != second.dtype:
        return False
    return bool(((first == second) | (first != first) & (second != second)).all())
