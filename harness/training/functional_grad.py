"""Gradient of one member under `vmap`: `torch.func.grad` without its import time of two seconds per process.

`torch.func.grad` loads torch's compiler at its first call, only to disable it. Its building blocks do not.
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


def gradient_and_value(
    function: Callable[..., tuple[Tensor, Any]], unreached: set[str] | None = None
) -> Callable[..., tuple[State, tuple[Tensor, Any]]]:
    """Return `torch.func.grad_and_value(function, has_aux=True)`: the same operations, so the same bits.

    Args:
        function: (parameters by name, anything else) -> (scalar, more tensors).
        unreached: filled at each call with the names of parameters that the scalar does not depend on; their gradients
            are zeros.

    >>> gradient_and_value(lambda p: (p["a"] ** 2, {}))({"a": torch.tensor(3.0)})
    ({'a': tensor(6.)}, (tensor(9.), {}))
    """

    def gradient_with_value(parameters: State, *arguments: Any) -> tuple[State, tuple[Tensor, Any]]:
        with grad_increment_nesting() as level, torch.enable_grad():
            parameters, *arguments = _differentiable((parameters, *arguments), level)
            total, auxiliary = function(parameters, *arguments)
            points = list(parameters.values())
            slopes = _slopes(total, points)
            if unreached is not None:
                unreached.clear()
                unreached.update(name for name, slope in zip(parameters, slopes, strict=True) if slope is None)
            gradients = dict(zip(parameters, _filled(slopes, points), strict=True))
            return _unwrapped((gradients, (total, auxiliary)), level)

    return gradient_with_value


def gradients_of(function: Callable[[Any], tuple[State, list[Tensor]]]) -> Callable[[Any], dict[str, list[Tensor]]]:
    """Return a function that gives the gradients of named scalars at intermediate tensors.

    Args:
        function: nested tensors -> (scalars by name, the tensors at which they are differentiated).

    >>> gradients_of(lambda x: ({"a": 2 * x, "b": torch.tensor(1.0)}, [x]))(torch.tensor(3.0))
    {'a': [tensor(2.)], 'b': [tensor(0.)]}
    """

    def gradients(point: Any) -> dict[str, list[Tensor]]:
        with grad_increment_nesting() as level, torch.enable_grad():
            (point,) = _differentiable((point,), level)
            scalars, points = function(point)
            gradients = {name: _filled(_slopes(scalar, points), points) for name, scalar in scalars.items()}
            return _unwrapped(gradients, level)

    return gradients


def _differentiable(arguments: tuple[Any, ...], level: int) -> Any:
    """Wrap the arguments for this level; the first is differentiated with respect to."""
    wrapped = _wrap_all_tensors(arguments, level)
    tree_map_(partial(_create_differentiable, level=level), wrapped[0])
    return wrapped


def _unwrapped(results: Any, level: int) -> Any:
    return _undo_create_differentiable(results, level)


def _slopes(scalar: Tensor, points: list[Tensor]) -> list[Tensor | None]:
    """Return the gradient at each point, None where the scalar does not depend on the point."""
    if not scalar.requires_grad or not points:
        return [None] * len(points)
    # create_graph: a loss may take gradients of its own, which the backward pass has to differentiate
    return list(torch.autograd.grad(scalar, points, create_graph=True, allow_unused=True))


def _filled(gradients: list[Tensor | None], points: list[Tensor]) -> list[Tensor]:
    """Return the gradients with zeros for None."""
    return [
        torch.zeros_like(point) if gradient is None else gradient
        for point, gradient in zip(points, gradients, strict=True)
    ]
