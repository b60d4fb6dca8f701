"""Context managers that restore a user's model and the global random state after the audit."""

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from harness.capture import BottleneckTap, ForwardPass, eval_mode
from harness.case import Case, set_seed


class FloatCalls(TorchFunctionMode):
    """Let `.float()` in the user's code mean the precision of a probe, as in `F.one_hot(index).float() @ weight`."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is Tensor.float and not kwargs:
            return args[0].to(self.dtype)
        return func(*args, **(kwargs or {}))


@contextmanager
def isolated(model: nn.Module, dtype: torch.dtype | None = None) -> Iterator[nn.Module]:
    """Give the model copies of its tensors inside the block, and restore the originals afterwards.

    Parameters and buffers stay the same objects (hooks and optimizers refer to them) and get new storage in the block,
    of floating `dtype` where one is passed; `.float()` then casts to it. Gradients, modes, hooks and plain attributes are
    restored too.
    """
    modules = [(module, _shallow(module)) for module in model.modules()]
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    originals = [(tensor, tensor.data, tensor.grad, tensor.requires_grad) for tensor in tensors.values()]
    for tensor, data, _, _ in originals:
        tensor.grad = None
        tensor.data = data.to(dtype, copy=True) if dtype is not None and data.is_floating_point() else data.clone()
    try:
        with nullcontext() if dtype is None else FloatCalls(dtype):
            yield model
    finally:
        for module, attributes in modules:
            _put_back(module, attributes)
        for tensor, data, gradient, requires_grad in originals:
            tensor.grad = None
            tensor.data = data
            tensor.grad = gradient
            if tensor.requires_grad != requires_grad:
                tensor.requires_grad_(requires_grad)


@contextmanager
def preserved_state(model: nn.Module) -> Iterator[None]:
    """Restore buffers and attributes of `model` when the block ends.

    Buffers get their values back, whether they were written to or replaced by new tensors. So one evaluation does not
    influence the next.
    """
    modules = [(module, _shallow(module)) for module in model.modules()]
    values = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for module, attributes in modules:
            _put_back(module, attributes)
        with torch.no_grad():
            for buffer, value in values:
                if not torch.equal(buffer, value):
                    buffer.data = value


@contextmanager
def preserved_rng(seed: int | None = None) -> Iterator[None]:
    """Restore all global random states when the block ends; with `seed`, set them inside the block."""
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
    # torch changes dicts of hooks, children and buffers in place, so they are copied one level deep
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


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run what `torch.compile` made as ordinary code in the block: compiled code calls no hook that looks at a layer."""
    if "torch._dynamo" not in sys.modules:  # nothing is compiled, and the import takes seconds
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return detached copies, to detect later changes."""
    return [tensor.detach().clone() for tensor in tensors]


def bottleneck_pass(case: Case, model: nn.Module, rows: Tensor) -> ForwardPass:
    """Return one forward pass of the model on copies of the rows, in eval mode and without a trace in the model."""
    with (
        isolated(model),
        BottleneckTap(model, case.bottleneck) as tap,
        eval_mode(model),
        torch.no_grad(),
        preserved_rng(0),
    ):
        model(rows.clone())
    return tap.passes[0]


CONTAINERS = {"dict", "OrderedDict", "list", "set"}
