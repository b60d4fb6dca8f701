"""Activations of a model's bottleneck on one batch."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from harness.capture.dataflow import ForwardPass
from harness.capture.edits import Edit
from harness.capture.outputs import flatten_units, reconstruction_of
from harness.capture.tap import BottleneckTap
from harness.errors import HarnessError


@dataclass(frozen=True)
class Observation:
    """Activations of a model's bottleneck on one batch.

    Args:
        code: the values that the next parametric layer reads, `[sample, unit]`.
        preactivation: input of the activation, after any normalization, `[sample, unit]`.
        raw: output of the bottleneck's module for these units, before any normalization or shift, `[sample, unit]`.
        activation: name of the activation: relu, leaky_relu, elu, gelu, silu, softplus, sigmoid, tanh or none.
        reconstruction: the output that is compared with the batch, or None.
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
    """Run `model(batch)` once and return the activations of its bottleneck.

    Gradients, mode and device are the caller's choice. The model is not changed.

    Raises:
        HarnessError: when the module does not exist, is never called, or returns no tensor.
    """
    with BottleneckTap(model, bottleneck, edits) as tap:
        model(batch)
    forward_pass = tap.passes[0]
    return Observation(
        flatten_units(code_of(forward_pass, bottleneck)),
        flatten_units(
            forward_pass.preactivation if forward_pass.preactivation is not None else code_of(forward_pass, bottleneck)
        ),
        flatten_units(forward_pass.raw if forward_pass.raw is not None else code_of(forward_pass, bottleneck)),
        forward_pass.activation,
        reconstruction_of(forward_pass.outputs, batch, reconstruction),
        forward_pass.outputs,
    )


def code_of(forward_pass: ForwardPass, bottleneck: str) -> Tensor:
    """Return the code of a forward pass, in the model's own shape.

    Raises:
        HarnessError: when the pass never reached the bottleneck, or it returns a packed sequence.
    """
    if forward_pass.packing is not None:
        raise HarnessError(
            f"bottleneck {bottleneck!r}: expected one row per sample, got a packed sequence; name a layer that returns "
            "[sample, unit, ...], or judge its tokens with harness.diagnose_model or harness.watch"
        )
    if forward_pass.code is None:
        raise HarnessError(
            f"bottleneck {bottleneck!r}: the model's forward pass never calls it, or it returns no tensor"
        )
    return forward_pass.code


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[nn.Module]:
    """Put the model in eval mode, and restore the mode of every module when the block ends."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, mode in modes:
            module.training = mode
