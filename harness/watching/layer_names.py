"""Layers by name or pattern, and the unit axis of their activations."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from harness.capture.code_form import has_channels_in_front
from harness.capture.outputs import first_tensor, outputs_of
from harness.capture.packing import Packing
from harness.diagnosis import Diagnosis, Finding, LayerVerdict, Severity
from harness.errors import HarnessError, did_you_mean
from harness.watching.wrappers import core_of, own_name


def layer_names(model: nn.Module, layers: str | Sequence[str]) -> list[str]:
    """Return the dotted names of modules that match names or patterns, in the order of the model.

    >>> layer_names(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)), ["2", "0*"])
    ['0', '2']

    Raises:
        HarnessError: for a name or pattern that matches no module.
    """
    names = [name for name, _ in core_of(model).named_modules() if name]
    patterns = [layers] if isinstance(layers, str | Tensor) or not isinstance(layers, Iterable) else list(layers)
    for pattern in patterns:
        if not isinstance(pattern, str):
            got = pattern if isinstance(pattern, int | float) else f"a {type(pattern).__name__}"
            raise HarnessError(f"layer: expected a module name such as 'encoder.0', got {got}")
    patterns = [pattern if pattern in names else own_name(pattern) for pattern in patterns]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise HarnessError(f"layer: {did_you_mean('module', pattern, names)}")
    if not patterns:
        raise HarnessError("layer: expected at least one module name, got none")
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def unit_axis_of(module: nn.Module, values: Tensor, declared: int | None) -> int:
    """Return the axis of the units in activations `[sample, ...]`.

    A declared axis is taken. Otherwise axis 1 for modules that keep channels there (convolution, BatchNorm2d, pooling),
    and for modules without parameters whose output has four axes or more; the last axis for all others. Axis 2 of a
    recurrent layer is the last one of its packed sequences too.

    >>> image, tokens = torch.zeros(2, 8, 5, 5), torch.zeros(2, 7, 8)
    >>> [unit_axis_of(module, values, None) for module, values in ((nn.ReLU(), image), (nn.Linear(8, 8), tokens))]
    [1, 2]

    Raises:
        HarnessError: for activations without a sample axis, or a declared axis that they do not have.
    """
    if values.dim() < 2:
        raise HarnessError(
            f"layer: expected activations [sample, unit, ...], got shape {list(values.shape)}; choose a layer that "
            "returns one row per sample"
        )
    if declared == 2 and values.dim() == 2 and isinstance(module, nn.RNNBase):
        return 1
    if declared is not None:
        if not -values.dim() <= declared < values.dim() or declared % values.dim() == 0:
            raise HarnessError(
                f"unit_axis: expected an axis from 1 to {values.dim() - 1}, got {declared}; the activations have shape "
                f"{list(values.shape)}, and axis 0 is the sample"
            )
        return declared % values.dim()
    image = values.dim() > 3 and next(module.parameters(), None) is None  # of an activation function as a module
    return 1 if image or has_channels_in_front(module) or values.dim() == 2 else values.dim() - 1


def unit_rows(values: Tensor, axis: int) -> Tensor:
    """Return activations as `[row, unit]`; every position of a sample is a row.

    >>> unit_rows(torch.zeros(2, 8, 5, 5), 1).shape, unit_rows(torch.zeros(2, 7, 3), 2).shape
    (torch.Size([50, 8]), torch.Size([14, 3]))
    """
    return values.movedim(axis, -1).flatten(0, -2)


def places_of_rows(
    code: Tensor, axis: int, mask: Tensor | None = None, packing: Packing | None = None
) -> tuple[Tensor, Tensor]:
    """Return the sample and the position of each row of activations, both from 0.

    Args:
        code: activations `[sample, ...]`, or the tokens of a packed sequence. axis: axis of the units.
        mask: `[sample, position]`, True for positions that are rows. packing: layout of a packed sequence.

    >>> [place.tolist() for place in places_of_rows(torch.zeros(2, 8, 3), axis=1)]
    [[0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2]]
    """
    if mask is not None:
        sample, position = mask.cpu().nonzero().unbind(1)
        return sample, position
    if packing is not None:
        return packing.sample_of_rows(), packing.position_of_rows()
    samples, count = len(code), code.numel() // max(1, len(code) * code.shape[axis])
    return torch.arange(samples).repeat_interleave(count), torch.arange(count).repeat(samples)


def has_fixed_rows(module: nn.Module) -> bool:
    """Return True for an embedding, whose table of positions is meant to be the same for every input."""
    return isinstance(module, nn.Embedding)


def axis_finding(
    shape: Sequence[int], axis: int, declared: bool, calls: int = 1, masked: bool = False, packed: bool = False
) -> Finding | None:
    """Return a note on the rows: the unit axis, the calls per step, padding; None for one call with `[sample, unit]`."""
    if len(shape) == 2 and calls == 1 and not packed:
        return None
    source = "declared" if declared else "inferred"
    axes = [*(["packed token"] if packed else ["sample"]), *shape[1:]]
    evidence = f"units are axis {axis} ({source}) of activations of shape {axes}".replace("'", "")
    if calls > 1:
        evidence += f"; the layer is called {calls} times per step, and the rows of all calls are judged"
    return Finding(
        "unit_axis",
        Severity.NOTE,
        evidence + ("; padding is left out" if masked or packed else ""),
        "each position of a sample is a row; the rows of a sample are permuted together",
        "declare the axis with unit_axis= if this one is wrong",
        numbers={"unit_axis": float(axis)},
    )


def never_called(layer: str, passes: int, ignored: int = 0, returned: str = "") -> Diagnosis:
    """Return the diagnosis of a layer without activations: not testable, with a finding that says why.

    Args:
        layer: its name.
        passes: forward passes that were observed.
        ignored: forward passes in eval mode, which were not.
        returned: what the layer returned, if it was called; see `form_of`.
    """
    if returned:
        evidence = f"{layer} returned {returned} in the forward passes of the model: no rows of units"
        remedy = "choose a layer that returns [sample, unit, ...], such as the next one that reads it"
    else:
        evidence = f"{layer} was not called in {passes} forward passes of the model" + (
            f"; {ignored} others were in eval mode and not observed" if ignored else ""
        )
        remedy = (
            "call model.train() before the loop, or pass evaluation=True to watch calls in eval mode"
            if ignored and not passes
            else "pass the module that the loop calls (a compiled copy is another one), and call it as a whole: model(batch)"
            if not passes
            else "check the name of the layer, and call the model as a whole: model(batch)"
        )
    finding = Finding(
        "never_called",
        Severity.RISK,
        evidence,
        "the layer has no activations, so there is nothing to judge",
        remedy,
        numbers={"passes": float(passes), "passes_in_eval_mode": float(ignored)},
    )
    return Diagnosis(LayerVerdict.NOT_TESTABLE, (), (), None, (finding,), {"live_units": 0.0}, "none", 0)


def form_of(output: Any) -> str:
    """Return what a layer returned in words, where that is no `[sample, unit, ...]`; "" otherwise.

    >>> form_of((torch.zeros(3, 2), None)), form_of(torch.zeros(3)), form_of(([torch.zeros(3, 2)], None))
    ('', 'a tensor of shape [3]', 'list, NoneType')
    """
    value = first_tensor(output)
    if value is None:
        return ", ".join(type(part).__name__ for part in outputs_of(output))
    with torch._C.DisableTorchFunction():
        return f"a tensor of shape {list(value.shape)}" if value.dim() < 2 else ""


def whole_numbers(labels: Tensor) -> Tensor:
    """Return boolean labels as 0 and 1, all others unchanged."""
    return labels.long() if labels.dtype == torch.bool else labels
