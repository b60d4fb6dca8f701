"""Search for the number of a case that weighs a loss term, by changing every number and measuring the gradient."""

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from harness.auditing.gradient_ratios import ProbeLoop, harness_keyword, watched_terms
from harness.auditing.isolation import preserved_rng, preserved_state
from harness.auditing.loss_state import preserved_loss
from harness.case import Case

TOLERANCE = 1e-3  # relative deviation of a float32 gradient from exact proportionality
NOISIEST = 0.1  # relative difference of two equal evaluations above which nothing is decided
SUPPLIED = ("target", "step", "progress")  # keywords that the harness supplies, not numbers of the case


@dataclass(frozen=True)
class WeightKeyword:
    """A number of the case to which a term's gradient is proportional.

    Args:
        keyword: name in `Case.numbers`.
        now: present value.
        beside: other penalties that it weighs.
    """

    keyword: str
    now: float
    beside: tuple[str, ...] = ()


def weight_keyword(case: Case, model: nn.Module, batch: Tensor, term: str, factor: float) -> WeightKeyword | None:
    """Return the number that weighs `term` and the fewest other penalties; None where there is none.

    A keyword of the loss weighs the term if the term's gradient at the bottleneck is proportional to it, from half of
    its value to twice, and at `factor` times, while that of the main term is unchanged. The harness's own keyword
    multiplies every penalty, if the case declares it.

    Args:
        model: a model at which the term has a gradient.
        factor: factor that the advice will name.
    """
    levers = [
        lever for name in _candidates(case) if (lever := _weight_from_keyword(case, model, batch, term, factor, name))
    ]
    keyword = harness_keyword(case)
    if keyword is not None and _number(case.numbers.get(keyword)) is not None:
        penalties = tuple(name for name in _term_gradients(case, model, batch) if name not in (case.objective, term))
        levers.append(WeightKeyword(keyword, float(case.numbers[keyword]), penalties))
    return min(levers, key=lambda lever: len(lever.beside), default=None)


def has_gradient(case: Case, model: nn.Module, batch: Tensor, term: str) -> bool:
    """True if the term has a gradient at the bottleneck; a zero gradient is proportional to every number."""
    return bool((_term_gradients(case, model, batch)[term] != 0).any())


def zero_keywords(case: Case) -> list[str]:
    """Return keywords of the loss whose value is the number 0."""
    values = {name: _value(case, name) for name in _keywords(case)}
    return [name for name, value in values.items() if _is_plain(value) and value == 0]


def _candidates(case: Case) -> list[str]:
    """Return keywords of the loss with a finite value other than 0."""
    return [name for name in _keywords(case) if _number(_value(case, name)) is not None]


def _keywords(case: Case) -> list[str]:
    """Return keywords of the loss: those of the case, then those with a default."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(case.losses).parameters.items()}
    return [*case.loss_keywords(), *(name for name in defaults if name not in case.numbers and name not in SUPPLIED)]


def _value(case: Case, name: str) -> Any:
    return case.numbers[name] if name in case.numbers else inspect.signature(case.losses).parameters[name].default


def _number(value: Any) -> float | None:
    """Return the value as a finite nonzero number, else None."""
    return float(value) if _is_plain(value) and math.isfinite(value) and value != 0 else None


def _is_plain(value: Any) -> bool:
    return (isinstance(value, Real) and not isinstance(value, bool)) or (isinstance(value, Tensor) and not value.ndim)


def _weight_from_keyword(
    case: Case, model: nn.Module, batch: Tensor, term: str, factor: float, name: str
) -> WeightKeyword | None:
    now = _number(_value(case, name))
    assert now is not None
    first, again = _term_gradients(case, model, batch), _term_gradients(case, model, batch)
    noise = {key: _distance(again[key], pull, pull) for key, pull in first.items()}
    if not noise[term] <= NOISIEST:
        return None
    beside: dict[str, None] = {}
    for times in (0.5, 2.0, factor):
        try:
            moved = _term_gradients(replace(case, numbers={**case.numbers, name: now * times}), model, batch)
        except Exception:  # the loss refuses the number, which may be a count
            return None
        bound = {key: TOLERANCE + 4 * noise[key] for key in first}
        if not _distance(moved[term], times * first[term], times * first[term]) <= bound[term]:
            return None
        changed = [key for key in first if not _distance(moved[key], first[key], first[key]) <= bound[key]]
        if case.objective in changed:
            return None
        beside |= dict.fromkeys(key for key in changed if key != term)
    return WeightKeyword(name, now, tuple(beside))


def _term_gradients(case: Case, model: nn.Module, batch: Tensor) -> Mapping[str, Tensor]:
    """Return every term's gradient at the bottleneck as one vector; the value of a term without gradient."""
    loop = ProbeLoop(case, model, batch, 0, {})
    with preserved_rng(0), preserved_state(model), preserved_loss(case.losses):
        terms, outputs = watched_terms(case, model, batch, loop.terms)
    return {name: _term_gradient(term, outputs) for name, term in terms.items()}


def _term_gradient(term: Any, outputs: list[Tensor]) -> Tensor:
    value = term.detach().double().reshape(1) if isinstance(term, Tensor) else torch.tensor([float(term)]).double()
    if not isinstance(term, Tensor) or not term.requires_grad or not outputs:
        return value
    gradients = torch.autograd.grad(term.sum(), outputs, retain_graph=True, allow_unused=True)
    flat = [gradient.double().reshape(-1) for gradient in gradients if gradient is not None]
    return torch.cat(flat) if flat else value


def _distance(first: Tensor, second: Tensor, size: Tensor) -> float:
    """||first - second|| / ||size||: 0 if all are 0, infinite if only the size is 0 or the shapes differ."""
    if first.shape != second.shape:
        return math.inf
    difference, norm = float((first - second).norm()), float(size.norm())
    return difference / norm if norm else (0.0 if difference == 0 else math.inf)
