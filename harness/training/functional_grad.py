"""The gradient of one member below `vmap`, as `torch.func.grad` takes it, without its two seconds in every process.

`torch.func.grad` loads torch's compiler at its first call, only to switch it off. Its own building blocks do not.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._functorch.eager_transforms import (
    _create_differentiable,
    _undo_create_differentiable,
    _wrap_all_tensors,
    grad_increment_nesting,
)
from torch.utils._pytree import tree_map_

from harness.training.program import State


def gradient_and_value(function: Callable[..., tuple[Tensor, Any]]) -> Callable[..., tuple[State, tuple[Tensor, Any]]]:
    """`torch.func.grad_and_value(function, has_aux=True)`: the same operations, so the same bits.

    Args:
        function: (parameters by name, anything else) -> (scalar, more tensors).

    >>> gradient_and_value(lambda p: (p["a"] ** 2, {}))({"a": torch.tensor(3.0)})
    ({'a': tensor(6.)}, (tensor(9.), {}))
    """

    def both(parameters: State, *others: Any) -> tuple[State, tuple[Tensor, Any]]:
        with grad_increment_nesting() as level, torch.enable_grad():
            parameters, *others = _differentiable((parameters, *others), level)
            total, more = function(parameters, *others)
            found = dict(zip(parameters, _gradients(total, list(parameters.values())), strict=True))
            return _given_back((found, (total, more)), level)

    return both


def gradients_of(function: Callable[[Any], tuple[State, list[Tensor]]]) -> Callable[[Any], dict[str, list[Tensor]]]:
    """The gradient of every scalar at tensors that are met on the way to it, by its name.

    Args:
        function: tensors, nested -> (scalars by name, the tensors at which they are differentiated).

    >>> gradients_of(lambda x: ({"a": 2 * x, "b": torch.tensor(1.0)}, [x]))(torch.tensor(3.0))
    {'a': [tensor(2.)], 'b': [tensor(0.)]}
    """

    def every(point: Any) -> dict[str, list[Tensor]]:
        with grad_increment_nesting() as level, torch.enable_grad():
            (point,) = _differentiable((point,), level)
            scalars, met = function(point)
            return _given_back({name: _gradients(scalar, met) for name, scalar in scalars.items()}, level)

    return every


def _differentiable(arguments: tuple[Any, ...], level: int) -> Any:
    """The arguments one level down, the first of them being what is differentiated by."""
    wrapped = _wrap_all_tensors(arguments, level)
    tree_map_(partial(_create_differentiable, level=level), wrapped[0])
    return wrapped


def _given_back(results: Any, level: int) -> Any:
    return _undo_create_differentiable(results, level)


def _gradients(scalar: Tensor, points: list[Tensor]) -> list[Tensor]:
    """Zeros where the scalar does not depend on a point."""
    if not scalar.requires_grad or not points:
        return [torch.zeros_like(point) for point in points]
    # with a graph of its own, or the backward pass would run without the gradients that a loss takes inside
    found = torch.autograd.grad(scalar, points, create_graph=True, allow_unused=True)
    return [torch.zeros_like(point) if each is None else each for point, each in zip(points, found, strict=True)]
