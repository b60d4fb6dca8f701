"""Wrappers of a model: torch.compile, DataParallel and DistributedDataParallel."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import tree_map

from harness.capture.packing import is_packed, on_device
from harness.watching.forward_calls import After, Before
from harness.watching.preservation import preserved_random_state


def core_of(model: nn.Module) -> nn.Module:
    """Return the author's own module behind wrappers.

    >>> layer = nn.Linear(2, 2)
    >>> core_of(nn.DataParallel(layer)) is layer
    True
    """
    while True:
        wrapped = getattr(model, "_orig_mod", None)
        if wrapped is None and isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            wrapped = model.module
        if not isinstance(wrapped, nn.Module):
            return model
        model = wrapped


def own_name(pattern: str) -> str:
    """Return the name of a module without the prefixes of wrappers.

    >>> own_name("module._orig_mod.encoder.0")
    'encoder.0'
    """
    while pattern.startswith(PREFIXES):
        pattern = pattern.partition(".")[2]
    return pattern


def is_opaque(model: nn.Module) -> bool:
    """Return True if hooks on the layers do not see the model's own calls: compiled code, and replicas on several devices."""
    if isinstance(model, nn.DataParallel) and len(model.device_ids) > 1:
        return True
    return any(
        hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    )


def is_distributed(model: nn.Module) -> bool:
    """Return True for a model of which several processes have a copy each."""
    return any(isinstance(module, nn.parallel.DistributedDataParallel) for module in model.modules())


def second_pass(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Run the author's module once more, in eager mode, without gradients, on copies of its buffers.

    The buffers themselves may be needed for the gradient of the first pass. The random state is restored.
    """
    core = core_of(model)
    device = next((parameter.device for parameter in core.parameters()), torch.device("cpu"))
    args, kwargs = tree_map(partial(_detached, device=device), (args, kwargs), is_leaf=is_packed)
    buffers = {name: buffer.clone() for name, buffer in core.named_buffers()}
    with preserved_random_state(core), torch.no_grad(), torch.compiler.set_stance("force_eager"):
        torch.func.functional_call(core, buffers, args, kwargs)


def _detached(leaf: Any, device: torch.device) -> Any:
    if isinstance(leaf, PackedSequence):
        leaf = PackedSequence(leaf.data.detach(), *leaf[1:])
    return on_device(leaf.detach() if isinstance(leaf, Tensor) else leaf, device)


@contextmanager
def around_compiled_calls(model: nn.Module, before: Before, after: After, failed: Callable[[], None]) -> Iterator[None]:
    """Call functions around each call of a model that `model.compile()` compiled in place; see `ForwardCalls`."""
    compiled = model._compiled_call_impl
    assert compiled is not None

    def call(*args: Any, **kwargs: Any) -> Any:
        before(args, kwargs)
        try:
            output = compiled(*args, **kwargs)
        except BaseException:
            failed()
            raise
        after(output)
        return output

    model._compiled_call_impl = call
    try:
        yield
    finally:
        model._compiled_call_impl = compiled


PREFIXES = ("module.", "_orig_mod.")
