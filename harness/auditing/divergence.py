"""Divergence of a training probe: the first loss or gradient that is NaN or infinite."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Divergence:
    """The first value of a training that is not finite.

    Args:
        step: number of updates before it.
        term: loss term that is not finite, or whose gradient is not.
        value: value of the term at that step.
        previous: value of the term one step earlier; NaN at the first step.
        parameter: name of a parameter at which the gradient is not finite, while the term is; else "".
    """

    step: int
    term: str
    value: float
    previous: float
    parameter: str = ""


def find_divergence(
    model: nn.Module,
    step: int,
    total: Tensor,
    terms: Mapping[str, Any],
    previous: Mapping[str, Any],
    again: Callable[[], Mapping[str, Any]],
) -> Divergence | None:
    """Return the divergence of a step after its backward pass; None where loss and gradients are finite.

    Args:
        model: with the gradients of the step.
        step: number of updates before it.
        total: loss of the step.
        terms: loss terms of the step.
        previous: loss terms of the step before, empty at the first one.
        again: evaluates the terms once more, with a graph.
    """
    if math.isfinite(float(total.detach()) + float(_largest_gradient(model))):
        return None
    before = {name: _number(term) for name, term in previous.items()}
    for name, term in terms.items():
        if not math.isfinite(_number(term)):
            return Divergence(step, name, _number(term), before.get(name, math.nan))
    parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
    for name, term in again().items():
        if isinstance(term, Tensor) and term.requires_grad:
            gradients = torch.autograd.grad(term.sum(), list(parameters.values()), allow_unused=True, retain_graph=True)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None and not bool(gradient.isfinite().all()):
                    return Divergence(step, name, _number(term), before.get(name, math.nan), parameter)
    name = max(terms, key=lambda term: abs(_number(terms[term])))  # only the sum overflows
    return Divergence(step, name, _number(terms[name]), before.get(name, math.nan))


def _largest_gradient(model: nn.Module) -> Tensor:
    """Return the largest absolute entry of all gradients; NaN if any is NaN."""
    gradients = [value.grad for value in model.parameters() if value.grad is not None and value.grad.numel()]
    dense = [gradient for gradient in gradients if not gradient.is_sparse]
    return torch.nn.utils.get_total_norm(dense, math.inf) if dense else torch.zeros(())


def _number(term: Any) -> float:
    return float(term.detach().sum()) if isinstance(term, Tensor) else float(term)
