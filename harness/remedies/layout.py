"""Layout of a model: the activations of one forward pass and their roles.

Remedies are changes at these positions; the layout also gives the reason when a remedy does not apply.
"""

from collections.abc import Iterator
from contextlib import contextmanager
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
from harness.capture.code_form import CodeForm, layer_before_code
from harness.case import Case
from harness.errors import HarnessError
from harness.loss_terms import loss_terms
from harness.models import build_model
from harness.user_code import failure, guarded

FEW_ROWS = 4


@dataclass(frozen=True)
class ModelLayout:
    """Activations and tensors of one forward pass.

    Args:
        names: the activations in order of execution.
        code: position of the bottleneck's activation; None when it has none.
        output: position of the activation that makes the reconstruction; None when none does.
        reconstruction: index of the reconstruction among the outputs; None when no output is one.
        units: width of the code, once flattened.
        form: which of these numbers are one unit at several positions.
        channels: width of the code along its unit axis, on which a normalization acts.
        channel_axis: that axis.
        normalized: True if a normalization precedes the bottleneck's activation.
        by_module: True if the bottleneck is a module, False for an output position.
        scope: location of the forward pass in a loss: "model" when the loss calls the model as a whole, "loss" when it
            calls the parts itself in the same order, "unknown" otherwise.
        hidden: positions of the encoder's activations before the bottleneck's.
        reader: name of the linear layer that reads the code; empty if none does.
        linear: True if the bottleneck is a linear layer.
        reads_rows: True if that layer reads the rows as they are.
        readout: True if the output of the reader is the reconstruction.
        codebook: name of the only `nn.Embedding` of which the code is made; empty if there is none.
        no_r2: reason why no output is compared with the rows; empty if one is.
    """

    names: tuple[str, ...]
    code: int | None
    output: int | None
    reconstruction: int | None
    units: int
    form: CodeForm
    channels: int
    channel_axis: int
    normalized: bool
    by_module: bool
    scope: str
    hidden: tuple[int, ...]
    no_r2: str
    reader: str = ""
    linear: bool = False
    reads_rows: bool = False
    readout: bool = False
    codebook: str = ""


def inspect_model(case: Case, rows: Tensor) -> ModelLayout:
    """Inspect one evaluation of the model, built with seed 0, on the first few rows.

    The loss is evaluated on a batch of the training size where it fails on few rows.

    Raises:
        HarnessError: when the model cannot be built or run, or does not run its bottleneck.
    """
    batch = rows[:FEW_ROWS]
    model = build_model(case, 0, batch)
    with torch.no_grad(), eval_mode(model), torch.random.fork_rng():
        with _linear_calls(model) as calls, layer_before_code(model, case.bottleneck) as layer:
            forward = _forward(case, model, batch)
        try:
            scope = _scope(case, model, batch, forward)
        except HarnessError:
            scope = _scope(case, model, rows[: case.training()["batch_size"]], forward)
    code = code_of(forward, case.bottleneck)
    readers = [call for call in calls if _equal(call[1], code)]
    layout, reconstruction = _layout(case, model, forward, batch, scope, layer.form(code)), None
    if layout.reconstruction is not None:
        reconstruction = forward.outputs[layout.reconstruction]
    return replace(
        layout,
        reader=readers[0][0] if readers else "",
        linear=_is_linear(case, model),
        reads_rows=any(name == case.bottleneck and _equal(value, batch) for name, value, _ in calls),
        readout=bool(readers) and reconstruction is not None and _equal(readers[0][2], reconstruction),
        codebook=_codebook(model, code),
    )


def _equal(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and torch.equal(first, second)


def _codebook(model: nn.Module, code: Tensor) -> str:
    """Name of the embedding whose vectors are the code of every row; empty if there is none, or several fit."""
    books = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and _are_entries(code, module.weight)
    ]
    return books[0] if len(books) == 1 else ""


def _are_entries(code: Tensor, book: Tensor) -> bool:
    """True if each row of the code is an entry of the book, up to the rounding of a straight-through estimator."""
    if code.dim() != 2 or code.shape[1] != book.shape[1]:
        return False
    distances = torch.cdist(code.to(book), book).min(dim=1).values
    return bool((distances <= 1e-4 * book.abs().max()).all())


def _is_linear(case: Case, model: nn.Module) -> bool:
    return not case.bottleneck.startswith("out:") and isinstance(submodule(model, case.bottleneck), nn.Linear)


@contextmanager
def _linear_calls(model: nn.Module) -> Iterator[list[tuple[str, Tensor, Tensor]]]:
    """Record the name, the input and the output of each linear layer that runs inside the block."""
    calls: list[tuple[str, Tensor, Tensor]] = []
    handles = [
        module.register_forward_hook(
            lambda module, args, options, output, name=name: calls.append(
                (name, (*args, *options.values())[0].detach().clone(), output.detach().clone())
            ),
            with_kwargs=True,
        )
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


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


def _scope(case: Case, model: nn.Module, batch: Tensor, forward: ForwardPass) -> str:
    if not case.has_losses:
        return "model"
    calls: list[int] = []
    handle = model.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        with torch.enable_grad(), BottleneckTap(model, case.bottleneck, everywhere=True) as tap:
            loss_terms(case, model, batch)
    finally:
        handle.remove()
    if calls:
        return "model"
    names = [activation.name for activation in forward.activations]
    return "loss" if [activation.name for activation in tap.passes[0].activations][: len(names)] == names else "unknown"


def _layout(
    case: Case, model: nn.Module, forward: ForwardPass, batch: Tensor, scope: str, form: CodeForm
) -> ModelLayout:
    code = next((activation.position for activation in forward.activations if activation.is_code), None)
    value = code_of(forward, case.bottleneck)
    output = reconstruction_of(forward.outputs, batch, case.reconstruction)
    index = next((i for i, output_tensor in enumerate(forward.outputs) if output_tensor is output), None)
    maker = forward.makers[index] if index is not None else None
    end = code if code is not None else _activations_before_code(forward)
    axis = _channel_axis(case, model, value)
    layout = ModelLayout(
        names=tuple(activation.name for activation in forward.activations),
        code=code,
        output=maker.position if maker is not None else None,
        reconstruction=index if output is not None else None,
        units=flatten_units(value).shape[1],
        form=form,
        channels=value.shape[axis],
        channel_axis=axis,
        normalized=forward.normalised,
        by_module=not case.bottleneck.startswith("out:"),
        scope=scope,
        hidden=tuple(range(end)),
        no_r2=why_no_r2(forward.outputs, batch, case.reconstruction),
    )
    return replace(layout, output=None) if layout.output == code and code is not None else layout


def _activations_before_code(forward: ForwardPass) -> int:
    return forward.before_raw if forward.before_raw is not None else 0


def _channel_axis(case: Case, model: nn.Module, value: Tensor) -> int:
    """Return the unit axis of the code: 1 after a convolution, the last one after a linear map."""
    if case.bottleneck.startswith("out:") or value.dim() == 2:
        return value.dim() - 1 if value.dim() == 2 else 1
    types = [type(module).__name__ for module in submodule(model, case.bottleneck).modules()]
    return 1 if any("Conv" in type_name for type_name in types) else value.dim() - 1
