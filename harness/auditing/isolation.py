"""A user's model and the global random state, lent to the audit and given back exactly as they were."""

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from harness.case import set_seed


@contextmanager
def isolated(model: nn.Module, dtype: torch.dtype | None = None) -> Iterator[nn.Module]:
    """The model with copies of its tensors inside; the originals come back untouched afterwards.

    Parameters and buffers stay the same objects (hooks and optimisers refer to them) and get other storage meanwhile,
    of floating `dtype` where one is given. Gradients, modes, hooks and plain attributes are put back too.
    """
    modules = [(module, _shallow(module)) for module in model.modules()]
    tensors = {id(each): each for each in (*model.parameters(), *model.buffers())}
    kept = [(each, each.data, each.grad, each.requires_grad) for each in tensors.values()]
    for tensor, data, _, _ in kept:
        tensor.grad = None
        tensor.data = data.to(dtype, copy=True) if dtype is not None and data.is_floating_point() else data.clone()
    try:
        yield model
    finally:
        for module, attributes in modules:
            _put_back(module, attributes)
        for tensor, data, gradient, wanted in kept:
            tensor.grad = None
            tensor.data = data
            tensor.grad = gradient
            if tensor.requires_grad != wanted:
                tensor.requires_grad_(wanted)


@contextmanager
def preserved_state(model: nn.Module) -> Iterator[None]:
    """What a model keeps for itself, running statistics above all, as it was: whatever the loss or a pass makes of it.

    Buffers come back with their values, whether they were written into or other tensors put in their place, and so do
    plain attributes: what one evaluation leaves behind must not reach the next.
    """
    modules = [(module, _shallow(module)) for module in model.modules()]
    kept = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for module, attributes in modules:
            _put_back(module, attributes)
        with torch.no_grad():
            for buffer, value in kept:
                if not torch.equal(buffer, value):
                    buffer.data = value


@contextmanager
def preserved_rng(seed: int | None = None) -> Iterator[None]:
    """All global random states as they are, given back afterwards; with `seed`, a fixed one meanwhile."""
    states = (torch.get_rng_state(), random.getstate(), _numpy_state())
    if seed is not None:
        set_seed(seed)
        random.seed(seed)
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        if states[2] is not None:
            sys.modules["numpy"].random.set_state(states[2])


def _numpy_state() -> Any:
    return sys.modules["numpy"].random.get_state() if "numpy" in sys.modules else None


def _shallow(module: nn.Module) -> dict[str, Any]:
    # a dict of hooks, children or buffers is changed in place by torch, so each is copied one level deep
    return {name: value.copy() if type(value).__name__ in CONTAINERS else value for name, value in vars(module).items()}


def _put_back(module: nn.Module, attributes: dict[str, Any]) -> None:
    current = vars(module)
    for name, value in attributes.items():
        if type(value).__name__ in CONTAINERS and isinstance(current.get(name), type(value)):
            current[name].clear()
            _fill(current[name], value)
        else:
            current[name] = value
    for name in [name for name in current if name not in attributes]:
        del current[name]


def _fill(container: Any, value: Any) -> None:
    if isinstance(container, list):
        container.extend(value)
    else:
        container.update(value)


def copies(tensors: list[Tensor]) -> list[Tensor]:
    """Copies of the values, to see later whether something changed them."""
    return [each.detach().clone() for each in tensors]


CONTAINERS = {"dict", "OrderedDict", "list", "set"}
