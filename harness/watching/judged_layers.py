"""Layers of a model that can be judged, with the activation in use."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness.capture import BottleneckTap
from harness.capture.outputs import first_tensor
from harness.capture.packing import is_packed
from harness.errors import HarnessError
from harness.watching.layer_names import unit_axis_of
from harness.watching.model_calls import batches_of, run_model
from harness.watching.preservation import preserved
from harness.watching.wrappers import core_of

ROWS = 8  # of the batch that the model runs on


@dataclass(frozen=True)
class LayerInfo:
    """A layer that `diagnose_model`, `watch` and `Case.bottleneck` take.

    Args:
        name: dotted name of the module.
        type: its class.
        activation: name of the activation in use behind it; "" for a layer that is not called.
        shape: of its code, without the sample axis.
        units: number of units, along the inferred unit axis.
        calls: number of calls in one forward pass.
        parameters: number of its parameters.
    """

    name: str
    type: str
    activation: str
    shape: tuple[int, ...]
    units: int
    calls: int
    parameters: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**vars(self), "shape": list(self.shape)}


def layers(model: nn.Module, rows: Any, *, forward: Callable[[Any], Any] | None = None) -> list[LayerInfo]:
    """Return the layers with weights that can be judged, in the order of the model.

    The model runs on the first 8 rows, in eval mode and without gradients; it is not changed.

    Args:
        model: any `nn.Module`.
        rows: as for `diagnose_model`.
        forward: as for `diagnose_model`.

    Raises:
        HarnessError: for rows without a batch.

    >>> model = nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 4))
    >>> [(layer.name, layer.activation, layer.units, layer.calls) for layer in layers(model, torch.rand(8, 4))]
    [('0', 'relu', 2, 1), ('2', 'none', 4, 1)]
    """
    core = core_of(model)
    batch = next(iter(batches_of(rows)), None)
    if batch is None:
        raise HarnessError("rows: expected at least one batch, got none")
    batch = _first_rows(batch)
    names = [name for name, module in core.named_modules() if name and _has_weights(module)]
    with preserved(core), torch.no_grad(), torch.compiler.set_stance("force_eager"):
        core.eval()
        with _call_counts(core, names) as calls:
            run_model(core, batch, forward)
        return [_layer(core, name, calls[name], batch, forward) for name in names]


def _layer(
    model: nn.Module, name: str, calls: list[bool], batch: Any, forward: Callable[[Any], Any] | None
) -> LayerInfo:
    module = model.get_submodule(name)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    uncalled = LayerInfo(name, type(module).__name__, "", (), 0, len(calls), parameters)
    if not any(calls):
        return uncalled
    with BottleneckTap(model, name, everywhere=True) as tap:
        run_model(model, batch, forward)
    record = tap.passes[0]
    if record.code is None or record.code.dim() < 2:
        return uncalled
    axis = unit_axis_of(module, record.code, None)
    shape = tuple(record.code.shape)
    return LayerInfo(name, type(module).__name__, record.activation, shape[1:], shape[axis], len(calls), parameters)


@contextmanager
def _call_counts(model: nn.Module, names: list[str]) -> Iterator[dict[str, list[bool]]]:
    """Yield name -> one entry per call, True where the layer returned a value per sample."""
    calls: dict[str, list[bool]] = {name: [] for name in names}

    def count(name: str, output: Any) -> None:
        value = first_tensor(output)
        calls[name].append(value is not None and value.dim() > 1)

    handles = [
        model.get_submodule(name).register_forward_hook(lambda module, args, output, name=name: count(name, output))
        for name in names
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _has_weights(module: nn.Module) -> bool:
    """Return True for a module with a matrix of its own, such as a linear layer, a convolution or an LSTM."""
    if isinstance(module, PARAMETERS):
        return False
    own = [module, *(child for child in module.children() if isinstance(child, PARAMETERS))]
    return any(parameter.dim() > 1 for part in own for parameter in part.parameters(recurse=False))


def _first_rows(batch: Any) -> Any:
    if isinstance(batch, Tensor):
        return batch[:ROWS]
    if isinstance(batch, dict):
        return {name: _first_rows(value) for name, value in batch.items()}
    if isinstance(batch, tuple | list) and not is_packed(batch):
        return type(batch)(_first_rows(value) for value in batch)
    return batch


PARAMETERS = nn.ParameterList | nn.ParameterDict  # children that are never called: their matrices are the parent's
