"""Which torch calls are activations, which keep a value's trail, and which end it."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def activation_name(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
    """The activation that a torch call is, or None.

    >>> activation_name(torch.clamp, (torch.zeros(1),), {"min": 0})
    'relu'
    """
    if func in CLAMPS:
        low = args[1] if len(args) > 1 else kwargs.get("min")
        return "relu" if isinstance(low, int | float) and low == 0 else None
    return NAMES.get(func)


def in_place(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call changes what it is given."""
    name = getattr(func, "__name__", "")
    return bool(kwargs.get("inplace")) or (name.endswith("_") and not name.endswith("__"))


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "gelu": F.gelu,
    "silu": F.silu,
    "softplus": F.softplus,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "none": lambda values: values,
}

CLAMPS = {torch.clamp, torch.clip, torch.clamp_, torch.clamp_min, torch.clamp_min_}
CLAMPS |= {Tensor.clamp, Tensor.clip, Tensor.clamp_, Tensor.clip_, Tensor.clamp_min, Tensor.clamp_min_}

NAMES: dict[Callable[..., Any], str] = {
    **dict.fromkeys((F.relu, F.relu_, F.relu6, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_), "relu"),
    **dict.fromkeys((F.threshold,), "relu"),
    **dict.fromkeys((F.leaky_relu, F.leaky_relu_, F.prelu, F.rrelu, Tensor.prelu, torch.prelu), "leaky_relu"),
    **dict.fromkeys((F.elu, F.elu_, F.celu, F.selu, torch.selu, torch.celu), "elu"),
    F.gelu: "gelu",
    **dict.fromkeys((F.silu, F.mish), "silu"),
    F.softplus: "softplus",
    **dict.fromkeys((F.sigmoid, torch.sigmoid, torch.sigmoid_, Tensor.sigmoid, Tensor.sigmoid_), "sigmoid"),
    **dict.fromkeys((torch.special.expit, F.hardsigmoid), "sigmoid"),
    **dict.fromkeys((F.tanh, torch.tanh, torch.tanh_, Tensor.tanh, Tensor.tanh_, F.hardtanh, F.softsign), "tanh"),
}

NORMALISATIONS: set[Callable[..., Any]] = {
    *(F.batch_norm, F.layer_norm, F.instance_norm, F.group_norm, F.rms_norm, F.local_response_norm, F.normalize),
}

PASSED_THROUGH: set[Callable[..., Any]] = {
    *NORMALISATIONS,
    *(F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout),
    *(torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze, torch.permute, torch.transpose, torch.clone),
    *(torch.unflatten, Tensor.unflatten, torch.movedim, Tensor.movedim, torch.swapaxes, Tensor.swapaxes, Tensor.type),
    *(Tensor.flatten, Tensor.reshape, Tensor.squeeze, Tensor.unsqueeze, Tensor.permute, Tensor.transpose, Tensor.clone),
    *(Tensor.view, Tensor.contiguous, Tensor.to, Tensor.float, Tensor.double, Tensor.half, Tensor.bfloat16, Tensor.t),
    *(Tensor.T.__get__, Tensor.mT.__get__),  # type: ignore[attr-defined]
}

PARAMETRIC: set[Callable[..., Any]] = {
    *(F.linear, F.bilinear, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d),
    *(torch.matmul, torch.mm, torch.bmm, torch.addmm, torch.baddbmm, torch.einsum, F.multi_head_attention_forward),
    *(Tensor.matmul, Tensor.mm, Tensor.bmm, Tensor.__matmul__, F.embedding, F.scaled_dot_product_attention),
    *(torch.conv1d, torch.conv2d, torch.conv3d, torch.conv_transpose1d, torch.conv_transpose2d),
}
