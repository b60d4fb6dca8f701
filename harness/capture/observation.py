"""What a model's bottleneck did on a batch, read in one pass."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from harness.capture.edits import Edit
from harness.capture.outputs import flatten_units, reconstruction_of
from harness.capture.tap import BottleneckTap, ForwardPass
from harness.errors import HarnessError


@dataclass(frozen=True)
class Observation:
    """What a model's bottleneck did on a batch.

    Args:
        code: the activation in use, `[sample, unit]`.
        preactivation: what enters that activation, after any normalisation, `[sample, unit]`.
        raw: what the bottleneck's module returned of these units, before any normalisation or shift, `[sample, unit]`.
        activation: its name: relu, leaky_relu, elu, gelu, silu, softplus, sigmoid, tanh or none.
        reconstruction: the output compared with the batch, in the batch's shape, or None where there is none.
        outputs: all outputs of the model, flattened to a tuple.
    """

    code: Tensor
    preactivation: Tensor
    raw: Tensor
    activation: str
    reconstruction: Tensor | None
    outputs: tuple[Any, ...]


def observe(
    model: nn.Module,
    batch: Tensor,
    bottleneck: str,
    reconstruction: str | None = None,
    edits: Mapping[int, Edit] | None = None,
) -> Observation:
    """Run `model(batch)` once and read the bottleneck's activation in use.

    Gradients, mode and devices are the caller's choice; nothing of the model is changed.

    Raises:
        HarnessError: when there is no such module, it is never called, or it returns no tensor.
    """
    with BottleneckTap(model, bottleneck, edits) as tap:
        model(batch)
    seen = tap.passes[0]
    return Observation(
        flatten_units(code_of(seen, bottleneck)),
        flatten_units(seen.preactivation if seen.preactivation is not None else code_of(seen, bottleneck)),
        flatten_units(seen.raw if seen.raw is not None else code_of(seen, bottleneck)),
        seen.activation,
        reconstruction_of(seen.outputs, batch, reconstruction),
        seen.outputs,
    )


def code_of(seen: ForwardPass, bottleneck: str) -> Tensor:
    """The code that a pass found, in the model's own shape.

    Raises:
        HarnessError: when the pass never met the bottleneck.
    """
    if seen.code is None:
        raise HarnessError(
            f"bottleneck {bottleneck!r}: the model's forward pass never calls it, or it returns no tensor"
        )
    return seen.code


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[nn.Module]:
    """The model in eval mode, and back to each module's own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, mode in modes:
            module.training = mode
