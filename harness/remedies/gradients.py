"""Gradient norm of each loss term at the bottleneck, and the recording of bottleneck outputs that it needs."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from harness.capture import submodule
from harness.capture.outputs import output_named, outputs_of
from harness.case import Case, set_seed
from harness.models import accumulation_dtype, precision_for
from harness.remedies.wrapper import TreatedModel


def gradient_norms(case: Case, model: nn.Module, batch: Tensor, numbers: Mapping[str, Any]) -> dict[str, float]:
    """Return the norm of each loss term's gradient at the output of the bottleneck's module, over all of its calls.

    Args:
        batch: `[sample, *feature]`.
        numbers: numbers of the loss, with targets, step and progress if it names them.

    Returns:
        term -> norm, 0 for a term without a gradient there. In the units of the loss per unit of the output.
    """
    nudge = torch.zeros((), dtype=precision_for(model, batch), device=batch.device, requires_grad=True)
    with torch.random.fork_rng(), bottleneck_outputs(model, case.bottleneck, nudge) as outputs:
        set_seed(0)
        terms = case.losses(model, batch, **case.loss_arguments(numbers))
    return {name: gradient_norm(term, outputs) for name, term in terms.items()}


@contextmanager
def bottleneck_outputs(model: nn.Module, bottleneck: str, nudge: Tensor) -> Iterator[list[Tensor]]:
    """Record the outputs of the bottleneck inside the block, one tensor per call, for differentiation.

    Outputs that autograd does not record are left out.

    Args:
        model: the model passed to the loss, treated or not.
        bottleneck: dotted module name, or `"out:<index>"` for an output of the author's model.
        nudge: a zero that requires a gradient, so that outputs of frozen layers can be differentiated too.
    """
    outputs: list[Tensor] = []

    def record_output(module: nn.Module, args: Any, output: Any) -> None:
        # unchanged, because the other outputs already depend on it
        value = output_named(outputs_of(output), bottleneck)
        outputs.extend([value] if value.requires_grad else [])

    def record_first(module: nn.Module, args: Any, output: Any) -> Any:
        parts, form = tree_flatten(output)
        index = next((i for i, part in enumerate(parts) if _is_floating(part)), None)
        if index is None:
            return None
        value = parts[index] + nudge
        if not value.requires_grad:  # called under `torch.no_grad()`
            return None
        outputs.append(value)
        parts[index] = value.clone()  # a later in-place activation must not change the recorded tensor
        return tree_unflatten(parts, form)

    if bottleneck.startswith("out:"):
        author = model.model if isinstance(model, TreatedModel) else model
        handle = author.register_forward_hook(record_output)
    else:
        # before the author's own hooks, so that tensors they store can be differentiated as well
        handle = submodule(model, bottleneck).register_forward_hook(record_first, prepend=True)
    try:
        yield outputs
    finally:
        handle.remove()


def _is_floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def gradient_norm(term: Any, outputs: list[Tensor]) -> float:
    """Return the norm of a loss term's gradient at all of these tensors; 0 for a term without one."""
    if not isinstance(term, Tensor) or not term.requires_grad or not outputs:
        return 0.0
    gradients = torch.autograd.grad(term.sum(), outputs, retain_graph=True, allow_unused=True)
    return float(
        sum(
            gradient.to(accumulation_dtype(gradient.dtype)).pow(2).sum()
            for gradient in gradients
            if gradient is not None
        )
        ** 0.5
    )
