"""Facts about the model in a Python file, found by importing it and calling the model once."""

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from harness.capture.outputs import first_tensor
from harness.case import run_file, set_seed
from harness.errors import HarnessError, did_you_mean
from harness.scaffolding.input_rows import input_candidates, takes
from harness.user_code import guarded
from harness.watching import diagnose_model

ROWS = 32
DATA_NAMES = ("data", "load", "load_data", "rows", "dataset", "get_data")
LOG_VARIANCE = re.compile(r"log_?var|log_?sigma2", re.IGNORECASE)
# functions that are called to see whether they return a model; others, such as main(), may train or read the command line
BUILDS_MODEL = re.compile(
    r"(build|create|make)(_.*)?|(?!(train|fit|test|eval|evaluate|run|load|save|plot|print|show)_)(.*_)?(auto)?"
    r"(model|net|network|encoder|decoder|vae|mlp|classifier|transformer|backbone|generator|critic|policy)(_.*)?",
    re.IGNORECASE,
)
RECURRENT = (nn.RNN, nn.GRU, nn.LSTM)


@dataclass(frozen=True)
class LayerFacts:
    """A layer with weights: its dotted name, its kind, the values per sample, and the activation behind it."""

    name: str
    kind: str
    values: int
    activation: str


@dataclass(frozen=True)
class ModelFacts:
    """Facts about a model file.

    Args:
        path: the file.
        factory: name of the class or function that builds the model.
        layers: the layers with weights, in the order of their calls.
        bottleneck: the layer of the fewest values per sample, or the one that was asked for.
        log_variance: name of the layer beside it that computes a log-variance; None for a code that is not drawn.
        rows: a few rows that the model takes.
        output: what the model returns for them.
        data: name of the file's function that returns rows; None if there is none.
        tensors: outputs of the layers by name.
    """

    path: Path
    factory: str
    layers: tuple[LayerFacts, ...]
    bottleneck: str
    log_variance: str | None
    rows: Tensor
    output: Any
    data: str | None
    tensors: dict[str, Tensor]


def inspect_model_file(path: Path, model: str | None = None, bottleneck: str | None = None) -> ModelFacts:
    """Import a file, build its model, call it once, and choose the bottleneck.

    Args:
        model: name of the class or function; None if the file has one model.
        bottleneck: dotted name of the layer; None chooses the narrowest.

    Raises:
        HarnessError: if the file has no model, or several; if the model takes no rows that could be guessed.
    """
    if path.suffix != ".py" or not path.is_file():
        raise HarnessError(f"{path}: expected a Python file with a torch model")
    module = run_file(path)
    factory = _factory(module, path, model)
    network = _built(getattr(module, factory))
    assert network is not None
    data = next((name for name in DATA_NAMES if _rows_of(module, name) is not None), None)
    rows = (
        _rows_of(module, data)
        if data
        else next((candidate for candidate in input_candidates(network, ROWS) if takes(network, candidate)), None)
    )
    if rows is None or not takes(network, rows):
        raise HarnessError(
            f"{path}: the shape of the rows could not be guessed from the layers of {factory}; write a function"
            " `data()` into the file that returns a tensor of rows"
        )
    output, tensors = _called(network, rows)
    layers = tuple(_facts(network, name, values, rows) for name, values in tensors.items())
    chosen = _bottleneck(layers, bottleneck, path)
    return ModelFacts(path, factory, layers, chosen, _log_variance(layers, chosen), rows, output, data, tensors)


def _factory(module: ModuleType, path: Path, wanted_name: str | None) -> str:
    """Name of the class or function that builds the model without arguments."""
    factories = dict(_factories(module, wanted_name))
    if wanted_name is not None:
        if wanted_name not in factories:
            raise HarnessError(
                f"{path}: {did_you_mean('model that is built without arguments', wanted_name, factories)}"
            )
        return wanted_name
    parts = {type(part).__name__ for network in factories.values() for part in list(network.modules())[1:]}
    complete = [name for name in factories if name not in parts]
    if not complete:
        raise HarnessError(
            f"{path}: expected a class or function that builds an nn.Module without arguments, found none; give its"
            " arguments default values"
        )
    if len(complete) > 1:
        raise HarnessError(f"{path}: expected one model, found {', '.join(complete)}; choose one with --model")
    return complete[0]


def _factories(module: ModuleType, wanted_name: str | None) -> Iterator[tuple[str, nn.Module]]:
    for name, value in vars(module).items():
        own = getattr(value, "__module__", None) == module.__name__ and not name.startswith("_")
        is_class = isinstance(value, type) and issubclass(value, nn.Module)
        is_function = inspect.isfunction(value) and (name == wanted_name or BUILDS_MODEL.fullmatch(name) is not None)
        if own and (is_class or is_function) and (network := _built(value)) is not None:
            yield name, network


def _built(factory: Callable[..., Any]) -> nn.Module | None:
    """Return the model that a factory builds without arguments; None for anything else."""
    parameters = inspect.signature(factory).parameters.values()
    if any(
        parameter.default is parameter.empty and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        for parameter in parameters
    ):
        return None
    with torch.random.fork_rng(), guarded():
        set_seed(0)
        try:
            value = factory()
        except Exception:
            return None
    return value if isinstance(value, nn.Module) else None


def _rows_of(module: ModuleType, name: str) -> Tensor | None:
    """Return a few rows of the file's own function of this name; None if it does not return a tensor, or a pair."""
    function = getattr(module, name, None)
    if not inspect.isfunction(function) or inspect.signature(function).parameters:
        return None
    with guarded():
        value = function()
    value = value[0] if isinstance(value, tuple) and value else value
    return value[:ROWS] if isinstance(value, Tensor) and value.ndim > 1 else None


def _called(network: nn.Module, rows: Tensor) -> tuple[Any, dict[str, Tensor]]:
    """Return the model's output, and the output of each layer with weights, in the order of the calls."""
    tensors: dict[str, Tensor] = {}

    def record(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            values = first_tensor(output)
            if values is not None:
                tensors.setdefault(name, values.detach())

        return hook

    handles = [
        layer.register_forward_hook(record(name)) for name, layer in network.named_modules() if _has_weights(layer)
    ]
    with torch.no_grad():
        output = network.eval()(rows)
    for handle in handles:
        handle.remove()
    return output, tensors


def _has_weights(layer: nn.Module) -> bool:
    """True for a layer with a weight of two axes or more (no normalization), or a recurrent one."""
    weight = getattr(layer, "weight", None)
    return isinstance(layer, RECURRENT) or (isinstance(weight, Tensor) and weight.ndim > 1)


def _facts(network: nn.Module, name: str, values: Tensor, rows: Tensor) -> LayerFacts:
    layer = network.get_submodule(name)
    try:
        activation = str(diagnose_model(network, rows, name).activation)
    except HarnessError:
        activation = "unknown"
    return LayerFacts(name, type(layer).__name__, values.numel() // len(rows), activation)


def _bottleneck(layers: tuple[LayerFacts, ...], wanted_name: str | None, path: Path) -> str:
    if not layers:
        raise HarnessError(f"{path}: the model calls no layer with weights, so it has no bottleneck")
    if wanted_name is None:
        return min(layers[:-1] or layers, key=lambda layer: layer.values).name
    names = [layer.name for layer in layers]
    if wanted_name not in names:
        raise HarnessError(f"{path}: {did_you_mean('layer with weights', wanted_name, names)}")
    return wanted_name


def _log_variance(layers: tuple[LayerFacts, ...], bottleneck: str) -> str | None:
    width = next(layer.values for layer in layers if layer.name == bottleneck)
    names = [layer.name for layer in layers if layer.values == width and LOG_VARIANCE.search(layer.name)]
    return names[0] if names and names[0] != bottleneck else None
