"""Positions in the user's source of the layers and activations of a model."""

import functools
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from harness.capture import BottleneckTap, eval_mode
from harness.case import Case
from harness.loss_terms import bind_losses, loss_terms
from harness.models import build_model

PACKAGE = Path(__file__).resolve().parents[1]
CASES = PACKAGE / "cases"
LIBRARIES = (
    *(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")),
    Path(torch.__file__).resolve().parents[1],
)


@dataclass(frozen=True)
class Site:
    """A call in a source file; lines count from 1, columns are bytes from 0.

    Args:
        file: the file.
        end_line, end_column: end of the call expression, which no other call shares.
        owner: variable of the surrounding function that is a module, such as `self`; empty if none is.
        owner_type: class of that module.
    """

    file: str
    end_line: int
    end_column: int
    owner: str = ""
    owner_type: type[nn.Module] | None = field(default=None, compare=False)


@dataclass
class SourceSites:
    """Sites of a model's parts.

    Args:
        model: the traced model.
        constructions: site at which each module was constructed, by its id.
        activations: position of an activation -> sites and modules that apply it, in the model and in the loss.
        bottleneck: the same for the call of the bottleneck.
    """

    model: nn.Module
    constructions: Mapping[int, Site]
    activations: dict[int, list["Application"]] = field(default_factory=dict)
    bottleneck: list["Application"] = field(default_factory=list)


@dataclass(frozen=True)
class Application:
    """An activation or layer as it is applied.

    Args:
        call: the call in the user's code that leads to it.
        module: the module of torch that applies it; None for a function.
        contained: True if a container of torch calls the module, so that its construction is the place to change.
    """

    call: Site | None
    module: nn.Module | None
    contained: bool


def source_sites(case: Case, rows: Tensor, targets: Tensor | None, scope: str) -> SourceSites:
    """Build the case's model and run it once, with its loss if the loss calls the parts by itself (`scope` "loss")."""
    constructions: dict[int, Site] = {}
    with _recorded_constructions(constructions):
        model = build_model(case, 0, rows)
    sites = SourceSites(model, constructions)
    with torch.random.fork_rng(), eval_mode(model):
        with torch.no_grad(), _SiteTap(sites, case):
            model(rows)
        if scope == "loss" and case.has_losses:
            with _SiteTap(sites, case, everywhere=True):
                loss_terms(bind_losses(case, targets), model, rows)
    return sites


@contextmanager
def _recorded_constructions(constructions: dict[int, Site]) -> Iterator[None]:
    """Record the call that constructs each module while the block runs."""
    original: Callable[..., None] = nn.Module.__init__

    @functools.wraps(original)
    def recorded(self: nn.Module, *args: Any, **keywords: Any) -> None:
        site = _user_site(sys._getframe(1), self)
        if site is not None and id(self) not in constructions:
            constructions[id(self)] = site
        original(self, *args, **keywords)

    nn.Module.__init__ = recorded  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.__init__ = original  # type: ignore[method-assign]


class _SiteTap(BottleneckTap):
    """A tap that also records the place of each activation in the source."""

    def __init__(self, sites: SourceSites, case: Case, everywhere: bool = False) -> None:
        super().__init__(sites.model, case.bottleneck, everywhere=everywhere)
        self.sites, self.stack = sites, list[nn.Module]()

    def __enter__(self) -> "_SiteTap":
        super().__enter__()
        self._handles += [
            register_module_forward_pre_hook(lambda module, args: self.stack.append(module)),
            register_module_forward_hook(self._left, always_call=True),
        ]
        return self

    def _left(self, module: nn.Module, args: Any, output: Any) -> None:
        self.stack.pop()
        if module is self.module and self._open is not None and not self._is_recorded(self.sites.bottleneck):
            self.sites.bottleneck.append(self._application([*self.stack, module]))

    def _is_recorded(self, applications: list[Application]) -> bool:
        """True if this pass has added its site already; a later call does not lead to the reconstruction."""
        return len(applications) > int(self.everywhere)

    def _activate(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        position = len(self._pass().activations)
        self.sites.activations.setdefault(position, []).append(self._application(self.stack))
        return super()._activate(name, func, args, kwargs)

    def _application(self, stack: list[nn.Module]) -> Application:
        module = stack[-1] if stack and _is_torch(stack[-1]) else None
        contained = module is not None and len(stack) > 1 and _is_torch(stack[-2])
        return Application(_user_site(sys._getframe(1)), module, contained)


def _is_torch(module: nn.Module) -> bool:
    return type(module).__module__.split(".")[0] == "torch"


def _user_site(frame: FrameType | None, constructed: nn.Module | None = None) -> Site | None:
    """Return the innermost call of the user's code, outside the constructor of `constructed`."""
    while frame is not None:
        code = frame.f_code
        first = frame.f_locals.get(code.co_varnames[0]) if code.co_varnames else None
        if _is_users(code.co_filename) and (constructed is None or first is not constructed):
            position = list(code.co_positions())[frame.f_lasti // 2]
            if position[1] is None or position[3] is None:
                return None
            owner, owner_type = _owner(frame)
            return Site(code.co_filename, position[1], position[3], owner, owner_type)
        frame = frame.f_back
    return None


def _owner(frame: FrameType) -> tuple[str, type[nn.Module] | None]:
    for name, value in frame.f_locals.items():
        if isinstance(value, nn.Module):
            return name, type(value)
    return "", None


@functools.cache
def _is_users(file: str) -> bool:
    path = Path(file)
    if not path.is_file():
        return False
    path = path.resolve()
    if CASES in path.parents:
        return True
    return PACKAGE not in path.parents and not any(library in path.parents for library in LIBRARIES)
