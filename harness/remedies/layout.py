"""What one forward pass of a case's model looks like: which activations it meets, in which role.

Remedies are changes at those places, so a remedy that finds no place for itself can say why.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from harness.capture import (
    BottleneckTap,
    ForwardPass,
    code_of,
    eval_mode,
    flatten_units,
    reconstruction_of,
    submodule,
    why_no_r2,
)
from harness.case import Case
from harness.errors import HarnessError
from harness.loss_terms import loss_terms
from harness.models import build_model
from harness.user_code import failure, guarded


@dataclass(frozen=True)
class ModelLayout:
    """The places of one forward pass.

    Args:
        names: the activations in the order in which they are met.
        code: position of the bottleneck's activation; None when it has none.
        output: position of the activation that makes the reconstruction; None when none does.
        reconstruction: index of the reconstruction among the outputs; None when no output is one.
        units: width of the code, once flattened.
        channels: width of the code along its unit axis, which a normalisation acts on.
        channel_axis: that axis.
        normalised: whether a normalisation already stands before the bottleneck's activation.
        by_module: whether the bottleneck is a module (and no output position).
        scope: where the forward pass is found in a loss: "model" when the loss calls the model as a whole, "loss" when
            it calls the parts itself in the same order, "unknown" otherwise.
        hidden: positions of the encoder's activations before the bottleneck's.
        no_r2: why no output is compared with the rows; empty where one is.
    """

    names: tuple[str, ...]
    code: int | None
    output: int | None
    reconstruction: int | None
    units: int
    channels: int
    channel_axis: int
    normalised: bool
    by_module: bool
    scope: str
    hidden: tuple[int, ...]
    no_r2: str


def inspect_model(case: Case, batch: Tensor) -> ModelLayout:
    """Look at one evaluation of the model, built with seed 0, on a few rows.

    Raises:
        HarnessError: when the model cannot be built or run, or never reaches its bottleneck.
    """
    model = build_model(case, 0, batch)
    with torch.no_grad(), eval_mode(model), torch.random.fork_rng():
        seen = _forward(case, model, batch)
        scope = _scope(case, model, batch, seen)
    return _places(case, model, seen, batch, scope)


def _forward(case: Case, model: nn.Module, batch: Tensor) -> ForwardPass:
    try:
        with guarded(), BottleneckTap(model, case.bottleneck) as tap:
            model(batch)
    except HarnessError as error:
        raise HarnessError(f"{case.name}: {error}") from error
    except Exception as error:
        raise HarnessError(f"{case.name}: model(batch) {failure(error)}") from error
    code_of(tap.passes[0], case.bottleneck)
    return tap.passes[0]


def _scope(case: Case, model: nn.Module, batch: Tensor, seen: ForwardPass) -> str:
    calls: list[int] = []
    handle = model.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        with torch.enable_grad(), BottleneckTap(model, case.bottleneck, everywhere=True) as tap:
            loss_terms(case, model, batch)
    finally:
        handle.remove()
    if calls:
        return "model"
    names = [each.name for each in seen.activations]
    return "loss" if [each.name for each in tap.passes[0].activations][: len(names)] == names else "unknown"


def _places(case: Case, model: nn.Module, seen: ForwardPass, batch: Tensor, scope: str) -> ModelLayout:
    code = next((each.position for each in seen.activations if each.is_code), None)
    value = code_of(seen, case.bottleneck)
    output = reconstruction_of(seen.outputs, batch, case.reconstruction)
    index = next((i for i, each in enumerate(seen.outputs) if each is output), None)
    maker = seen.makers[index] if index is not None else None
    end = code if code is not None else _activations_before_code(seen)
    axis = _channel_axis(case, model, value)
    places = ModelLayout(
        names=tuple(each.name for each in seen.activations),
        code=code,
        output=maker.position if maker is not None else None,
        reconstruction=index if output is not None else None,
        units=flatten_units(value).shape[1],
        channels=value.shape[axis],
        channel_axis=axis,
        normalised=seen.normalised,
        by_module=not case.bottleneck.startswith("out:"),
        scope=scope,
        hidden=tuple(range(end)),
        no_r2=why_no_r2(seen.outputs, batch, case.reconstruction),
    )
    return replace(places, output=None) if places.output == code and code is not None else places


def _activations_before_code(seen: ForwardPass) -> int:
    return seen.before_raw if seen.before_raw is not None else 0


def _channel_axis(case: Case, model: nn.Module, value: Tensor) -> int:
    """Convolutions keep their units on axis 1; a linear map, tokens included, on the last."""
    if case.bottleneck.startswith("out:") or value.dim() == 2:
        return value.dim() - 1 if value.dim() == 2 else 1
    kinds = [type(each).__name__ for each in submodule(model, case.bottleneck).modules()]
    return 1 if any("Conv" in kind for kind in kinds) else value.dim() - 1
