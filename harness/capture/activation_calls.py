"""Tables of torch calls: activations, calls that keep a value the same value, and calls that read it.

A function that is zero for negative values fires where z > 0 and counts as a ReLU, whatever it does above zero. ReLU6,
which torch writes as `hardtanh(0, 6)`, is one of them. A hard tanh with a negative lower end counts as a tanh. A function
outside the table, such as Hardswish or a clamp at -1, counts as none of them: the activation of its values is `none`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def activation_name(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
    """Return the name of the activation that a torch call applies, or None.

    >>> activation_name(torch.clamp, (torch.zeros(1),), {"min": 0})
    'relu'
    >>> activation_name(F.hardtanh, (torch.zeros(1), 0, 6), {})
    'relu'
    """
    if func in (F.hardtanh, F.hardtanh_):
        return "relu" if (args[1] if len(args) > 1 else kwargs.get("min_val", -1)) == 0 else "tanh"
    if func in CLAMPS:
        low = args[1] if len(args) > 1 else kwargs.get("min")
        return "relu" if isinstance(low, int | float) and low == 0 else None
    return NAMES.get(func)


def takes_units(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Return True for a call that selects units, in any order, and keeps all samples in their order.

    A call that selects or reorders rows makes another batch; its result is no longer the bottleneck's output row by row.

    >>> value = torch.zeros(5, 4)
    >>> takes_units(Tensor.__getitem__, (value, (slice(None), None)), {})
    True
    >>> takes_units(Tensor.__getitem__, (value, slice(3)), {})
    False
    """
    if func is Tensor.__getitem__:
        return _keeps_samples(_index(args[1]), args[0].dim())
    if func not in PIECES:
        return False
    position = PIECES[func]
    return bool((args[position] if len(args) > position else kwargs.get("dim", 0)) % args[0].dim())


def passes_through(func: Callable[..., Any], args: tuple[Any, ...]) -> bool:
    """Return True for a call whose result has all units of its argument in their order, in any shape or normalization."""
    if func is not Tensor.__getitem__:
        return func in PASSED_THROUGH
    index = _index(args[1])
    return _keeps_samples(index, args[0].dim()) and all(
        entry is None or entry is Ellipsis or _is_all(entry) for entry in index
    )


def _index(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)


def _keeps_samples(index: tuple[Any, ...], axes: int) -> bool:
    first = index[0] if index else Ellipsis
    if first is Ellipsis:
        return sum(entry is not None and entry is not Ellipsis for entry in index) < axes
    return _is_all(first)


def _is_all(index: Any) -> bool:
    return isinstance(index, slice) and index.start is None and index.stop is None and index.step is None


def same_for_all(operand: Any, value: Tensor) -> bool:
    """Return True for an operand that is the same for every sample: a number, a parameter, a mean over the batch.

    The shape decides, since under `vmap` a parameter is a tensor like any other. The output of another layer, as in a
    residual sum, has a sample axis. In a batch of one sample, an operand of the value's shape counts as such an output.

    >>> same_for_all(torch.zeros(4), torch.zeros(5, 4)), same_for_all(torch.zeros(5, 4), torch.zeros(5, 4))
    (True, False)
    """
    if not isinstance(operand, Tensor):
        return isinstance(operand, int | float)
    return operand.dim() < value.dim() or (operand.dim() == value.dim() and len(operand) == 1 < len(value))


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
    **dict.fromkeys((F.threshold, torch.threshold, torch.threshold_), "relu"),
    **dict.fromkeys((F.leaky_relu, F.leaky_relu_, F.prelu, F.rrelu, Tensor.prelu, torch.prelu), "leaky_relu"),
    **dict.fromkeys((torch.rrelu, torch.rrelu_), "leaky_relu"),
    **dict.fromkeys((F.elu, F.elu_, F.celu, F.selu, torch.selu, torch.celu, torch.selu_, torch.celu_), "elu"),
    F.gelu: "gelu",
    **dict.fromkeys((F.silu, F.mish), "silu"),
    F.softplus: "softplus",
    **dict.fromkeys((F.sigmoid, torch.sigmoid, torch.sigmoid_, Tensor.sigmoid, Tensor.sigmoid_), "sigmoid"),
    **dict.fromkeys((torch.special.expit, F.hardsigmoid), "sigmoid"),
    **dict.fromkeys((F.tanh, torch.tanh, torch.tanh_, Tensor.tanh, Tensor.tanh_, F.softsign), "tanh"),
}

NORMALISATIONS: set[Callable[..., Any]] = {
    *(F.batch_norm, F.layer_norm, F.instance_norm, F.group_norm, F.rms_norm, F.local_response_norm, F.normalize),
}

RESHAPES: set[Callable[..., Any]] = {
    *(torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze, torch.permute, torch.transpose, torch.ravel),
    *(torch.unflatten, Tensor.unflatten, torch.movedim, Tensor.movedim, torch.swapaxes, Tensor.swapaxes),
    *(Tensor.flatten, Tensor.reshape, Tensor.squeeze, Tensor.unsqueeze, Tensor.permute, Tensor.transpose, Tensor.t),
    *(Tensor.view, Tensor.view_as, Tensor.reshape_as, Tensor.ravel, Tensor.expand, Tensor.expand_as),
    *(Tensor.T.__get__, Tensor.mT.__get__),  # type: ignore[attr-defined]
}

PASSED_THROUGH: set[Callable[..., Any]] = {
    *NORMALISATIONS,
    *RESHAPES,
    *(F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout),
    *(torch.clone, Tensor.clone, Tensor.contiguous, Tensor.type, Tensor.to, Tensor.float, Tensor.double, Tensor.half),
    *(Tensor.bfloat16, torch.nan_to_num, Tensor.nan_to_num),
}

# position of the axis among the arguments
PIECES: dict[Callable[..., Any], int] = {
    **dict.fromkeys((torch.chunk, Tensor.chunk, torch.split, Tensor.split, torch.tensor_split), 2),
    **dict.fromkeys((Tensor.tensor_split,), 2),
    **dict.fromkeys((torch.narrow, Tensor.narrow, torch.select, Tensor.select, torch.unbind, Tensor.unbind), 1),
}

# calls that select other units for each sample, and calls that put selected units back among zeros
CHOICES: set[Callable[..., Any]] = {torch.topk, Tensor.topk, torch.gather, Tensor.gather}
SCATTERS: set[Callable[..., Any]] = {torch.scatter, Tensor.scatter, Tensor.scatter_}

JOINS: set[Callable[..., Any]] = {torch.cat, torch.concat, torch.concatenate}

DIVISIONS: set[Callable[..., Any]] = {
    *(torch.div, Tensor.div, Tensor.div_, torch.true_divide, Tensor.true_divide, Tensor.true_divide_),
}

PRODUCTS: set[Callable[..., Any]] = {torch.mul, Tensor.mul, torch.multiply, Tensor.multiply}

SHIFTS: set[Callable[..., Any]] = {
    *DIVISIONS,
    *PRODUCTS,
    *(torch.add, Tensor.add, Tensor.add_, Tensor.mul_),
    *(torch.sub, Tensor.sub, Tensor.sub_, torch.subtract, Tensor.subtract, torch.rsub, Tensor.__rsub__),
}

PARAMETRIC: set[Callable[..., Any]] = {
    *(F.linear, F.bilinear, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d),
    *(torch.matmul, torch.mm, torch.bmm, torch.addmm, torch.baddbmm, torch.einsum, F.multi_head_attention_forward),
    *(Tensor.matmul, Tensor.mm, Tensor.bmm, Tensor.__matmul__, F.embedding, F.scaled_dot_product_attention),
    *(torch.conv1d, torch.conv2d, torch.conv3d, torch.conv_transpose1d, torch.conv_transpose2d),
    *(torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu),
    *(torch.lstm_cell, torch.gru_cell, torch.rnn_tanh_cell, torch.rnn_relu_cell),
    *(F.embedding_bag, Tensor.__rmatmul__, torch.addmv, torch.mv, Tensor.mv, Tensor.addmm),
}
