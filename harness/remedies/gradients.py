"""The gradient of each loss term at the bottleneck: what is kept of a forward pass for it, and its norm."""

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
    """The norm of each loss term's gradient at the output of the bottleneck's module, over all of its calls.

    Args:
        batch: `[sample, *feature]`.

    Returns:
        term -> norm, 0 for a term without a gradient there. In the units of the loss per unit of the output.
    """
    nudge = torch.zeros((), dtype=precision_for(model, batch), device=batch.device, requires_grad=True)
    with torch.random.fork_rng(), bottleneck_outputs(model, case.bottleneck, nudge) as outputs:
        set_seed(0)
        terms = case.losses(model, batch, **{name: numbers[name] for name in case.loss_keywords()})
    return {name: gradient_norm(term, outputs) for name, term in terms.items()}


@contextmanager
def bottleneck_outputs(model: nn.Module, bottleneck: str, nudge: Tensor) -> Iterator[list[Tensor]]:
    """What the bottleneck returns while this is open, one tensor a call: places at which to differentiate.

    Args:
        model: the model as the loss is given it, treated or not.
        bottleneck: dotted module name, or `"out:<index>"` for an output of the author's model.
        nudge: a zero that is differentiated: by it, what frozen layers return can be differentiated too.
    """
    kept: list[Tensor] = []

    def keep_output(module: nn.Module, args: Any, output: Any) -> None:
        # its other outputs are made already, so it is kept as it is: they depend on it
        value = output_named(outputs_of(output), bottleneck)
        kept.extend([value] if value.requires_grad else [])

    def keep_first(module: nn.Module, args: Any, output: Any) -> Any:
        parts, form = tree_flatten(output)
        place = next((i for i, each in enumerate(parts) if _differs_smoothly(each)), None)
        if place is None:
            return None
        kept.append(parts[place] + nudge)
        parts[place] = kept[-1].clone()  # an in-place activation behind it must not disturb what is kept
        return tree_unflatten(parts, form)

    if bottleneck.startswith("out:"):
        author = model.model if isinstance(model, TreatedModel) else model
        handle = author.register_forward_hook(keep_output)
    else:
        # before the author's own hooks, so that what those keep can be differentiated as well
        handle = submodule(model, bottleneck).register_forward_hook(keep_first, prepend=True)
    try:
        yield kept
    finally:
        handle.remove()


def _differs_smoothly(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def gradient_norm(term: Any, outputs: list[Tensor]) -> float:
    """The norm of a loss term's gradient at these places together; 0 where it has none."""
    if not isinstance(term, Tensor) or not term.requires_grad or not outputs:
        return 0.0
    found = torch.autograd.grad(term.sum(), outputs, retain_graph=True, allow_unused=True)
    return float(sum(each.to(accumulation_dtype(each.dtype)).pow(2).sum() for each in found if each is not None) ** 0.5)
