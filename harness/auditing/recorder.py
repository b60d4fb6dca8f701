"""One evaluation of a loss, watched: which layer made each tensor, by which operations, and what may be put there."""

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
    """Watches one evaluation.

    Args:
        layers: the modules that count as layers, by name.
        changes: what to put at which site.
        hold: values that every layer call gives instead of its own, by (name, index of the call).
        lines: whether the lines of source are looked up (slow).
        soft: whether sigmoids keep away from 0 and 1, so that rounding is no infinity.
        watch: sites whose tensors are kept.
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
        self.site_of: dict[int, TensorSite] = {}
        self._site_at: dict[tuple[int, int], TensorSite] = {}
        self._alive: list[Tensor] = []  # an id is only unique while its tensor lives
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
        target = written_to(func, args, kwargs)
        if target is not None:
            self._set_aside(target)
        if self._inside:
            return func(*args, **kwargs)
        site = self._source(args)
        if site is None:
            return func(*args, **kwargs)
        name = _name(func, args, kwargs)
        if self.lines and self._depth == 0:
            self.record.operations.append(_operation(name or func.__name__, site))
        made = TensorSite(site.layer, (*site.chain, name) if name else site.chain)
        if target is not None:
            return self._write(target, func, args, kwargs, made, site)
        return self._register(self._softened(func(*args, **kwargs), name), made, site)

    def _softened(self, result: Any, name: str) -> Any:
        soft = self.soft and name == "sigmoid" and isinstance(result, Tensor)
        return result.clamp(1e-15, 1 - 1e-15) if soft else result

    def site_when(self, holder: tuple[Tensor, int]) -> TensorSite | None:
        """The site that a tensor held when it had been written to so many times."""
        tensor, version = holder
        return self._site_at.get((id(tensor), version), self.site_of.get(id(tensor)))

    def _set_aside(self, target: Tensor) -> None:
        """Keep what was recorded of a tensor as it was, before a call writes to it."""
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
        made: TensorSite,
        source: TensorSite,
    ) -> Any:
        """Values that are written, `values[values > 0] = 1` too: whoever holds the same numbers holds them then."""
        if func is Tensor.copy_ and id(args[1]) in self.site_of:
            made = source = self.site_of[id(args[1])]
        if made != source and (made in self.changes or self.soft):
            # on a copy: a gradient may need what the call has written, which is not to be written to once more
            written = target.clone()
            func(*(_swapped(each, target, written) for each in args), **_swapped(kwargs, target, written))
            target.copy_(self._put(made, self._softened(written, made.chain[-1])))
            result = None if func is Tensor.__setitem__ else target
        else:
            result = func(*args, **kwargs)
            if made != source and made in self.watch:
                self._put(made, target.clone())
        self._hold(target, made)
        if numbers_of(target) in self._views:
            put, view = self._views[numbers_of(target)]
            self._hold(view.copy_(put), made)
        return result

    def _hold(self, tensor: Tensor, site: TensorSite) -> None:
        """Remember a site of a tensor and of all that hold the same numbers."""
        self._remember(tensor, site)
        for other in list(self._sharing[numbers_of(tensor)].values()):
            if other is not tensor and same_layout(other, tensor):
                self._remember(other, site)

    def _register(self, result: Any, made: TensorSite, source: TensorSite) -> Any:
        if isinstance(result, Tensor):
            put = result if made == source else self._put(made, result)
            if put is not result and result._is_view():
                self._views[numbers_of(put)] = put, result  # what is written there reaches the base of the view
            return self._remember(put, made)
        if isinstance(result, tuple | list):
            for index, each in enumerate(result):
                if isinstance(each, Tensor):
                    self._remember(each, TensorSite(made.layer, (*made.chain, str(index))))
        return result

    def enter_model(self) -> None:
        """A forward pass of the whole model begins."""
        self._depth += 1

    def leave_model(self, output: Any) -> None:
        """A forward pass of the whole model ends."""
        self._depth -= 1
        if self._depth == 0:
            self._inside += 1  # looking at a version is no operation of the user's
            self.record.outputs.append(outputs_of(output))
            self.record.made.extend((each, each._version) for each in self._alive if not each.is_inference())
            self._inside -= 1

    def enter_layer(self, name: str) -> None:
        """A layer's own operations are its own business."""
        self._inside += 1

    def leave_layer(self, name: str, args: tuple[Any, ...], output: Any) -> Any:
        """The layer's output, with what shall stand in its place."""
        self._inside -= 1
        value = first_tensor(output)
        if self._inside or value is None:
            return None
        index = self._seen.get(name, 0)
        self._seen[name] = index + 1
        self._inside += 1  # what is put here is no operation of the user's
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
            # a watch that the model itself has open (a remedy's) must not take these for activations of the model
            with torch._C.DisableTorchFunction():
                value = change(value, index)
        if site in self.watch:
            self.record.met.setdefault(site, []).append(value)
        return value

    def _remember(self, value: Tensor, site: TensorSite) -> Tensor:
        self.site_of[id(value)] = self._site_at[id(value), version_of(value)] = site
        self._sharing.setdefault(numbers_of(value), {})[id(value)] = value
        self.record.sites[site] = None
        self._alive.append(value)
        return value

    def _source(self, args: Any) -> TensorSite | None:
        for each in args:
            if isinstance(each, Tensor):
                if id(each) in self.site_of:
                    return self.site_of[id(each)]
            elif isinstance(each, tuple | list) and (found := self._source(each)) is not None:
                return found
        return None


@contextmanager
def hooked_model(
    model: nn.Module, layers: Mapping[nn.Module, str], recorder: TensorRecorder
) -> Iterator[TensorRecorder]:
    """The recorder at work: it sees the model's layers and every torch call."""
    handles = [
        model.register_forward_pre_hook(lambda *_: recorder.enter_model(), prepend=True),
        model.register_forward_hook(lambda _, __, output: recorder.leave_model(output)),
    ]
    for module, name in layers.items():
        handles.append(module.register_forward_pre_hook(lambda _, __, name=name: recorder.enter_layer(name)))
        # before the user's own hooks, so that they see what is put there
        leave = lambda _, args, output, name=name: recorder.leave_layer(name, args, output)  # noqa: E731
        handles.append(module.register_forward_hook(leave, prepend=True))
    try:
        with recorder:
            yield recorder
    finally:
        for handle in handles:
            handle.remove()


def layers_of(model: nn.Module) -> dict[nn.Module, str]:
    """The modules with weights of their own; normalisations and per-unit scales belong to what they follow."""
    found: dict[nn.Module, str] = {}
    for name, module in model.named_modules():
        has_weights = any(each.dim() >= 2 for each in module.parameters(recurse=False))
        if name and has_weights and "Norm" not in type(module).__name__:
            found[module] = name
    inner = {module for module in found for other in module.modules() if other is not module and other in found}
    return {module: name for module, name in found.items() if module not in inner}


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


def _swapped(value: Any, old: Tensor, new: Tensor) -> Any:
    if isinstance(value, dict):
        return {name: _swapped(each, old, new) for name, each in value.items()}
    return new if value is old else value


def _operation(name: str, site: TensorSite) -> TracedOperation:
    """The call with the author's line: the nearest one below the evaluation of the loss that is not ours."""
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
