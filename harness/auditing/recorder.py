"""Recorder of one evaluation of a loss: the layer and operations behind every tensor, and changes put there."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from harness.auditing.trace import Change, TensorSite, Trace, TracedCall, TracedOperation
from harness.capture import activation_name, outputs_of
from harness.capture.activation_calls import NORMALISATIONS, PASSED_THROUGH
from harness.capture.outputs import first_tensor, with_first_tensor
from harness.capture.writes import TensorCopies, numbers_of, same_layout, version_of, written_to


class TensorRecorder(TorchFunctionMode):
    """Record one evaluation and apply changes to it.

    Args:
        layers: the modules that count as layers, by name.
        changes: change by site.
        hold: fixed outputs of the layers, by (name, index of the call).
        lines: look up the lines of source (slow).
        soft: keep sigmoids away from 0 and 1, so that rounding causes no infinity.
        watch: sites whose tensors are recorded.
    """

    def __init__(
        self,
        layers: Mapping[nn.Module, str],
        changes: Mapping[TensorSite, Change] | None = None,
        hold: Mapping[tuple[str, int], Tensor] | None = None,
        lines: bool = False,
        soft: bool = False,
        watch: tuple[TensorSite, ...] = (),
    ) -> None:
        super().__init__()
        self.layers, self.changes, self.hold = layers, changes or {}, hold
        self.lines, self.soft, self.watch = lines, soft, set(watch)
        self.record = Trace()
        self.site_of = self.record.site_of
        self._site_at: dict[tuple[int, int], TensorSite] = {}
        self._alive: list[Tensor] = []  # an id is unique only while its tensor is alive
        self._sharing: dict[int, dict[int, Tensor]] = {}
        self._views: dict[int, tuple[Tensor, Tensor]] = {}
        self._inside = 0
        self._depth = 0
        self._seen: dict[str, int] = {}
        self._instances: dict[TensorSite, int] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunction():  # a look at a tensor is no call of the user, nor of a mode below this one
            target = written_to(func, args, kwargs)
            source = None if self._inside else self._source(args)
        if target is not None:
            self._set_aside(target)
        if source is None:
            return func(*args, **kwargs)
        if func is torch.broadcast_tensors:  # every output is one of the arguments, expanded
            return self._expanded(func(*args, **kwargs), args)
        name = _name(func, args, kwargs)
        if self.lines and self._depth == 0:
            self.record.operations.append(_operation(name or func.__name__, source))
        site = TensorSite(source.layer, (*source.chain, name) if name else source.chain)
        if target is not None:
            return self._write(target, func, args, kwargs, site, source)
        return self._register(self._softened(func(*args, **kwargs), name), site, source)

    def _softened(self, result: Any, name: str) -> Any:
        soft = self.soft and name == "sigmoid" and isinstance(result, Tensor)
        return result.clamp(1e-15, 1 - 1e-15) if soft else result

    def site_when(self, holder: tuple[Tensor, int]) -> TensorSite | None:
        """Return the site of a tensor at an earlier version of it."""
        tensor, version = holder
        return self._site_at.get((id(tensor), version), self.site_of.get(id(tensor)))

    def _set_aside(self, target: Tensor) -> None:
        """Copy the recorded values of a tensor before a call writes to it."""
        with torch._C.DisableTorchFunction():
            aside = TensorCopies(target)
            for call in self.record.calls:
                call.entered, call.before, call.after = map(aside, (call.entered, call.before, call.after))
            for values in self.record.met.values():
                values[:] = map(aside, values)

    def _write(
        self,
        target: Tensor,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        site: TensorSite,
        source: TensorSite,
    ) -> Any:
        """Handle a call that writes in place, such as `values[values > 0] = 1`, for all tensors that share the memory."""
        if func is Tensor.copy_ and id(args[1]) in self.site_of:
            site = source = self.site_of[id(args[1])]
        if site != source and (site in self.changes or self.soft):
            # on a copy: the gradient may need the written values, which must not change again
            written = target.clone()
            func(*(_swapped(argument, target, written) for argument in args), **_swapped(kwargs, target, written))
            target.copy_(self._put(site, self._softened(written, site.chain[-1])))
            result = None if func is Tensor.__setitem__ else target
        else:
            result = func(*args, **kwargs)
            if site != source and site in self.watch:
                self._put(site, target.clone())
        self._hold(target, site)
        if numbers_of(target) in self._views:
            put, view = self._views[numbers_of(target)]
            self._hold(view.copy_(put), site)
        return result

    def _hold(self, tensor: Tensor, site: TensorSite) -> None:
        """Record the site of a tensor and of all tensors that share its memory."""
        self._remember(tensor, site)
        for alias in list(self._sharing[numbers_of(tensor)].values()):
            if alias is not tensor and same_layout(alias, tensor):
                self._remember(alias, site)

    def _expanded(self, results: Any, arguments: tuple[Any, ...]) -> Any:
        for result, argument in zip(results, arguments, strict=True):
            if id(argument) in self.site_of:
                self._remember(result, self.site_of[id(argument)])
        return results

    def _register(self, result: Any, site: TensorSite, source: TensorSite) -> Any:
        if isinstance(result, Tensor):
            put = result if site == source else self._put(site, result)
            if put is not result and result._is_view():
                self._views[numbers_of(put)] = put, result  # writing to the change must reach the base of the view
            return self._remember(put, site)
        if isinstance(result, tuple | list):
            elements = list(result)
            for index, element in enumerate(elements):
                if isinstance(element, Tensor):
                    part = TensorSite(site.layer, (*site.chain, str(index)))
                    elements[index] = self._remember(self._put(part, element), part)
            return type(result)(elements) if type(result) in (tuple, list) else result
        return result

    def enter_model(self) -> None:
        """Enter a forward pass of the whole model."""
        self._depth += 1

    def leave_model(self, output: Any) -> None:
        """Leave a forward pass of the whole model and record its outputs."""
        self._depth -= 1
        if self._depth == 0:
            self._inside += 1  # reading a version is not an operation of the user
            self.record.outputs.append(outputs_of(output))
            self.record.tensors.extend((tensor, tensor._version) for tensor in self._alive if not tensor.is_inference())
            self._inside -= 1

    def enter_layer(self, name: str) -> None:
        """Enter a layer, whose own operations are not recorded."""
        self._inside += 1

    def leave_layer(self, name: str, args: tuple[Any, ...], output: Any) -> Any:
        """Record a layer's output and return its replacement, or None."""
        self._inside -= 1
        value = first_tensor(output)
        if self._inside or value is None:
            return None
        index = self._seen.get(name, 0)
        self._seen[name] = index + 1
        self._inside += 1  # the replacement is not an operation of the user
        with torch._C.DisableTorchFunction():
            put = value if self.hold is None or (name, index) not in self.hold else value * 0 + self.hold[name, index]
        put = self._remember(self._put(TensorSite(name), put), TensorSite(name))
        self._inside -= 1
        self.record.calls.append(TracedCall(name, index, first_tensor(args), value, put))
        return None if put is value else with_first_tensor(output, put)

    def _put(self, site: TensorSite, value: Tensor) -> Tensor:
        change = self.changes.get(site)
        if change is not None:
            index = self._instances.get(site, 0)
            self._instances[site] = index + 1
            # a remedy that watches the model must not take these for activations of the model
            with torch._C.DisableTorchFunction():
                changed = change(value, index)
                value = changed if value.is_floating_point() else changed.to(value.dtype)  # a mask stays a mask
        if site in self.watch:
            self.record.met.setdefault(site, []).append(value)
        return value

    def _remember(self, value: Tensor, site: TensorSite) -> Tensor:
        with torch._C.DisableTorchFunction():
            version, memory = version_of(value), numbers_of(value)
        self.site_of[id(value)] = self._site_at[id(value), version] = site
        self._sharing.setdefault(memory, {})[id(value)] = value
        self.record.sites[site] = None
        self._alive.append(value)
        return value

    def _source(self, args: Any) -> TensorSite | None:
        """Return the site of the first argument with floats: a mask or an index chooses among values, and is none."""
        recorded = [argument for argument in _tensors(args) if id(argument) in self.site_of]
        floats = [argument for argument in recorded if argument.is_floating_point()]
        return self.site_of[id((floats or recorded)[0])] if recorded else None


@contextmanager
def hooked_model(
    model: nn.Module, layers: Mapping[nn.Module, str], recorder: TensorRecorder
) -> Iterator[TensorRecorder]:
    """Attach the recorder to the model's layers and to every torch call."""
    handles = [
        model.register_forward_pre_hook(lambda *_: recorder.enter_model(), prepend=True),
        model.register_forward_hook(lambda _, __, output: recorder.leave_model(output)),
    ]
    for module, name in layers.items():
        handles.append(module.register_forward_pre_hook(lambda _, __, name=name: recorder.enter_layer(name)))
        # before the user's own hooks, so that they receive the replacement
        leave = lambda _, args, output, name=name: recorder.leave_layer(name, args, output)  # noqa: E731
        handles.append(module.register_forward_hook(leave, prepend=True))
    try:
        with recorder:
            yield recorder
    finally:
        for handle in handles:
            handle.remove()


def layers_of(model: nn.Module) -> dict[nn.Module, str]:
    """Return the modules with weight matrices by name; normalizations and scales belong to the layer before them."""
    layers: dict[nn.Module, str] = {}
    for name, module in model.named_modules():
        has_weights = any(parameter.dim() >= 2 for parameter in module.parameters(recurse=False))
        if name and has_weights and "Norm" not in type(module).__name__:
            layers[module] = name
    inner = {module for module in layers for child in module.modules() if child is not module and child in layers}
    return {module: name for module, name in layers.items() if module not in inner}


def _name(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    name = activation_name(func, args, kwargs)
    if name is not None:
        return name
    if func in NORMALISATIONS:
        return func.__name__
    plain = getattr(func, "__name__", str(func))
    return (
        "" if func in PASSED_THROUGH or plain in TRANSPARENT else plain if plain.endswith("__") else plain.rstrip("_")
    )


def _tensors(args: Any) -> Iterator[Tensor]:
    for argument in args:
        if isinstance(argument, Tensor):
            yield argument
        elif isinstance(argument, tuple | list):
            yield from _tensors(argument)


def _swapped(value: Any, old: Tensor, new: Tensor) -> Any:
    if isinstance(value, dict):
        return {name: _swapped(element, old, new) for name, element in value.items()}
    return new if value is old else value


def _operation(name: str, site: TensorSite) -> TracedOperation:
    """Return the call with its line in the user's source."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and any(part in frame.f_code.co_filename for part in OURS):
        frame = None if frame.f_code.co_filename.endswith(EVALUATES) else frame.f_back
    return (
        TracedOperation(name, site, "", 0)
        if frame is None
        else TracedOperation(name, site, frame.f_code.co_filename, frame.f_lineno)
    )


TRANSPARENT = {
    "__get__",
    "detach",
    "requires_grad_",
    "retain_grad",
    "cpu",
    "contiguous",
    "expand_as",
    "type_as",
    "unflatten",
}
OURS = ("/torch/", "/harness/auditing/", "/harness/capture/", "/harness/remedies/", "/contextlib.py")
EVALUATES = "/harness/auditing/probe.py"
