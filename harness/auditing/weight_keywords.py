"""The number of a case that weighs one loss term: found by changing each number and following the term's gradient."""

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
from harness.case import Case

TOLERANCE = 1e-3  # of a gradient in float32, relative, against exact proportionality
NOISIEST = 0.1  # two equal evaluations that differ by more tell nothing
SUPPLIED = ("target", "step", "progress")  # keywords that are no numbers of the case


@dataclass(frozen=True)
class WeightKeyword:
    """A number of the case to which a term's gradient is proportional.

    Args:
        keyword: its name in `Case.numbers`.
        now: its value.
        beside: other penalties that change with it.
    """

    keyword: str
    now: float
    beside: tuple[str, ...] = ()


def weight_keyword(case: Case, model: nn.Module, batch: Tensor, term: str, factor: float) -> WeightKeyword | None:
    """The number that weighs `term` and the fewest other penalties; None where the loss has none for it.

    A keyword of the loss weighs the term if the term's gradient at the bottleneck is proportional to it, from half of
    its value to twice, and at `factor` times, while the reconstruction's stays. The harness's own keyword multiplies
    every penalty, if the case declares it.

    Args:
        model: borrowed, at a state where the term has a gradient.
        factor: by what the advice will multiply.
    """
    levers = [lever for name in _candidates(case) if (lever := _tried(case, model, batch, term, factor, name))]
    keyword = harness_keyword(case)
    if keyword is not None and _number(case.numbers.get(keyword)) is not None:
        others = tuple(name for name in _pulls(case, model, batch) if name not in ("reconstruction", term))
        levers.append(WeightKeyword(keyword, float(case.numbers[keyword]), others))
    return min(levers, key=lambda lever: len(lever.beside), default=None)


def with_weight(case: Case, model: nn.Module, batch: Tensor, term: str) -> bool:
    """True where the term has a gradient at the bottleneck: without one, it would seem proportional to anything."""
    return bool((_pulls(case, model, batch)[term] != 0).any())


def _candidates(case: Case) -> list[str]:
    """Keywords of the loss that hold a number: those of the case, then those with a default of their own."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(case.losses).parameters.items()}
    names = [*case.loss_keywords(), *(name for name in defaults if name not in case.numbers and name not in SUPPLIED)]
    return [name for name in names if _number(_value(case, name)) is not None]


def _value(case: Case, name: str) -> Any:
    return case.numbers[name] if name in case.numbers else inspect.signature(case.losses).parameters[name].default


def _number(value: Any) -> float | None:
    """A finite number that can be multiplied."""
    plain = (isinstance(value, Real) and not isinstance(value, bool)) or (isinstance(value, Tensor) and not value.ndim)
    return float(value) if plain and math.isfinite(value) and value != 0 else None


def _tried(case: Case, model: nn.Module, batch: Tensor, term: str, factor: float, name: str) -> WeightKeyword | None:
    now = _number(_value(case, name))
    assert now is not None
    first, again = _pulls(case, model, batch), _pulls(case, model, batch)
    noise = {other: _distance(again[other], pull, pull) for other, pull in first.items()}
    if not noise[term] <= NOISIEST:
        return None
    beside: dict[str, None] = {}
    for times in (0.5, 2.0, factor):
        try:
            moved = _pulls(replace(case, numbers={**case.numbers, name: now * times}), model, batch)
        except Exception:  # a number of another kind, such as a count, which the loss refuses
            return None
        bound = {other: TOLERANCE + 4 * noise[other] for other in first}
        if not _distance(moved[term], times * first[term], times * first[term]) <= bound[term]:
            return None
        changed = [other for other in first if not _distance(moved[other], first[other], first[other]) <= bound[other]]
        if "reconstruction" in changed:
            return None
        beside |= dict.fromkeys(other for other in changed if other != term)
    return WeightKeyword(name, now, tuple(beside))


def _pulls(case: Case, model: nn.Module, batch: Tensor) -> Mapping[str, Tensor]:
    """Each term's gradient at the bottleneck, as one vector; of a term without one, its value."""
    loop = ProbeLoop(case, model, batch, 0, {})
    with preserved_rng(0), preserved_state(model):
        terms, outputs = watched_terms(case, model, batch, loop.terms)
    return {name: _pull(term, outputs) for name, term in terms.items()}


def _pull(term: Any, outputs: list[Tensor]) -> Tensor:
    value = term.detach().double().reshape(1) if isinstance(term, Tensor) else torch.tensor([float(term)]).double()
    if not isinstance(term, Tensor) or not term.requires_grad or not outputs:
        return value
    gradients = torch.autograd.grad(term.sum(), outputs, retain_graph=True, allow_unused=True)
    flat = [gradient.double().reshape(-1) for gradient in gradients if gradient is not None]
    return torch.cat(flat) if flat else value


def _distance(one: Tensor, other: Tensor, size: Tensor) -> float:
    """||one - other|| / ||size||: 0 where all are 0, infinite where only the size is, or the shapes differ."""
    if one.shape != other.shape:
        return math.inf
    difference, norm = float((one - other).norm()), float(size.norm())
    return difference / norm if norm else (0.0 if difference == 0 else math.inf)
