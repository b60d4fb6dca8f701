"""Padding masks of sequences, declared or among the arguments of a model."""

import inspect
from typing import Any

from torch import Tensor, nn

from harness.watching.layer_names import unit_axis_of

# True or 1 for real positions; the other names are True for padding, as in torch.nn.Transformer
REAL = ("attention_mask",)
PADDING = ("src_key_padding_mask", "key_padding_mask", "padding_mask")


def padding_mask(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    code: Tensor,
    unit_axis: int | None,
    layer: nn.Module,
    declared: Tensor | None = None,
) -> Tensor | None:
    """Return `[sample, position]`, True where a position is no padding; None where nothing is masked.

    Args:
        model: the model that was called with `args` and `kwargs`; `attention_mask`, `src_key_padding_mask`,
            `key_padding_mask` and `padding_mask` among its arguments are read.
        code: activations of the layer; a mask of another size is ignored.
        unit_axis: declared axis of the units, or None.
        layer: the layer.
        declared: a mask that is given, True where a position is no padding.
    """
    if code.dim() != 3:
        return None
    axis = unit_axis_of(layer, code, unit_axis)
    positions = (len(code), code.shape[3 - axis])
    if declared is not None:
        return declared.bool() if tuple(declared.shape) == positions else None
    if not kwargs and len(args) < 2:
        return None
    arguments = {**dict(zip(_argument_names(model), args, strict=False)), **kwargs}
    for name in (*REAL, *PADDING):
        mask = arguments.get(name)
        if isinstance(mask, Tensor) and tuple(mask.shape) == positions and not mask.is_floating_point():
            real = mask.bool() if name in REAL else ~mask.bool()
            nothing = real.device.type == "cpu" and bool(real.all())  # elsewhere the question would wait for the device
            return None if nothing else real.detach().clone()
    return None


def _argument_names(model: nn.Module) -> list[str]:
    try:
        return list(inspect.signature(model.forward).parameters)
    except (TypeError, ValueError):
        return []
