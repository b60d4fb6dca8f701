"""One evaluation of a loss, watched: which layer made each tensor, by which operations, and what may be put there.

A *site* is "the values that these operations make of that layer's output": `Site("enc3", ())` is the output of `enc3`,
`Site("enc3", ("relu",))` its ReLU, whoever computes it: the model's own forward pass, a second call of it, or the loss.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from harness.capture import activation_name, outputs_of
from harness.capture.activations import NORMALISATIONS, PASSED_THROUGH
from harness.capture.outputs import first_tensor, with_first_tensor

Change = Callable[[Tensor, int], Tensor]  # (values, how-manieth instance of the site) -> values


@dataclass(frozen=True)
class Site:
    """The values that `chain` makes of the output of `layer`."""

    layer: str
    chain: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.layer if not self.chain else f"{' of '.join(reversed(self.chain))} of {self.layer}"


@dataclass
class Call:
    """One call of a layer: its name, which call of it, what came in, what came out and what was put there."""

    name: str
    index: int
    entered: Tensor | None
    before: Tensor
    after: Tensor


@dataclass
class Operation:
    """One torch call outside the model's layers: its name, the site it read, and the line of source it stands on."""

    name: str
    site: Site
    file: str
    line: int
    text: str = ""


@dataclass
class Record:
    """What one evaluation did."""

    calls: list[Call] = field(default_factory=list)
    met: dict[Site, list[Tensor]] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)
    outputs: list[tuple[Any, ...]] = field(default_factory=list)
    sites: dict[Site, None] = field(default_factory=dict)
    made: list[tuple[Tensor, int]] = field(default_factory=list)


class Recorder(TorchFunctionMode):
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
        changes: Mapping[Site, Change] | None = None,
        hold: Mapping[tuple[str, int], Tensor] | None = None,
        lines: bool = False,
        soft: bool = False,
        watch: tuple[Site, ...] = (),
    ) -> None:
        super().__init__()
        self.layers, self.changes, self.hold = layers, changes or {}, hold
        self.lines, self.soft, self.watch = lines, soft, set(watch)
        self.record = Record()
        self.site_of: dict[int, Site] = {}
        self._alive: list[Tensor] = []  # an id is only unique while its tensor lives
        self._inside = 0
        self._depth = 0
        self._seen: dict[str, int] = {}
        self._instances: dict[Site, int] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._inside:
            return func(*args, **kwargs)
        site = self._source(args)
        if site is None:
            return func(*args, **kwargs)
        name = _name(func, args, kwargs)
        if self.lines and self._depth == 0:
            self.record.operations.append(_operation(name or func.__name__, site))
        result = func(*args, **kwargs)
        if self.soft and name == "sigmoid" and isinstance(result, Tensor):
            result = result.clamp(1e-15, 1 - 1e-15)
        return self._register(func, args, result, Site(site.layer, (*site.chain, name) if name else site.chain), site)

    def _register(self, func: Any, args: tuple[Any, ...], result: Any, made: Site, source: Site) -> Any:
        if result is None and args and isinstance(args[0], Tensor) and made != source:
            self._remember(args[0], made)  # values[values > 0] = 1
        elif isinstance(result, Tensor):
            if made == source:
                self._remember(result, made)
            elif args and result is args[0]:
                return self._remember(
                    result.copy_(self._put(made, result.clone())) if made in self.changes else result, made
                )
            else:
                return self._remember(self._put(made, result), made)
        elif isinstance(result, tuple | list):
            for index, each in enumerate(result):
                if isinstance(each, Tensor):
                    self._remember(each, Site(made.layer, (*made.chain, str(index))))
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
        put = self._put(Site(name), put)
        self._inside -= 1
        self.record.calls.append(Call(name, index, first_tensor(args), value, put))
        self._remember(put, Site(name))
        return None if put is value else with_first_tensor(output, put)

    def _put(self, site: Site, value: Tensor) -> Tensor:
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

    def _remember(self, value: Tensor, site: Site) -> Tensor:
        self.site_of[id(value)] = site
        self.record.sites[site] = None
        self._alive.append(value)
        return value

    def _source(self, args: Any) -> Site | None:
        for each in args:
            if isinstance(each, Tensor):
                if id(each) in self.site_of:
                    return self.site_of[id(each)]
            elif isinstance(each, tuple | list):
                found = self._source(each)
                if found is not None:
                    return found
        return None


@contextmanager
def hooked(model: nn.Module, layers: Mapping[nn.Module, str], recorder: Recorder) -> Iterator[Recorder]:
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
    return "" if func in PASSED_THROUGH or plain in TRANSPARENT else plain.rstrip("_") or plain


def _operation(name: str, site: Site) -> Operation:
    """The call with the author's line: the nearest one below the evaluation of the loss that is not ours."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and any(part in frame.f_code.co_filename for part in OURS):
        frame = None if frame.f_code.co_filename.endswith(EVALUATES) else frame.f_back
    return (
        Operation(name, site, "", 0)
        if frame is None
        else Operation(name, site, frame.f_code.co_filename, frame.f_lineno)
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
EVALUATES = "/harness/auditing/evaluating.py"
