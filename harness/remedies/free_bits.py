"""Free bits for the author's own KL term: its share of the units' divergences, and the term with a floor per unit."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from harness.capture import BottleneckTap, eval_mode, flatten_units
from harness.case import Case
from harness.loss_terms import bind_losses, check_terms
from harness.models import build_model
from harness.remedies.not_applicable import RemedyNotApplicable
from harness.remedies.posterior import kl_per_unit, log_variance, posterior_of

SAME = 1e-3  # relative difference of two ratios that count as equal: rounding of float32 sums
SMALLEST = 1e-6  # nats, below which a ratio to a divergence is rounding


@dataclass(frozen=True)
class KlTerm:
    """The term of a loss that is a multiple of the sum of the units' KL divergences.

    Args:
        name: name of the term.
        scale: the multiple, where all of `numbers` are 1 and, with `sums_rows`, per row.
        numbers: numbers of the case that multiply the term.
        sums_rows: True if the loss adds the rows of a batch instead of averaging them.
    """

    name: str
    scale: float
    numbers: tuple[str, ...]
    sums_rows: bool

    def value(self, divergences: Tensor, free_bits: Any, numbers: Mapping[str, Any], rows: int) -> Tensor:
        """Return the term with a floor of `free_bits` nats per unit."""
        term = self.scale * with_floor(divergences, free_bits).sum() * (rows if self.sums_rows else 1)
        for name in self.numbers:
            term = term * numbers[name]
        return term


def with_floor(divergences: Tensor, free_bits: Any) -> Tensor:
    """Return the divergences with a floor, in nats.

    >>> with_floor(torch.tensor([0.1, 2.0]), 0.5)
    tensor([0.5000, 2.0000])
    """
    return torch.maximum(divergences, torch.as_tensor(free_bits, dtype=divergences.dtype, device=divergences.device))


def kl_term(case: Case, rows: Tensor, targets: Tensor | None = None, calls_model: bool = True) -> KlTerm:
    """Find the KL term of a case's loss by its ratio to the divergences of the posterior, on a few rows.

    Args:
        case: a case with a posterior.
        rows: its rows, `[sample, *feature]`.
        targets: targets of the rows, for a loss that names `target`.
        calls_model: True if the loss calls the model as a whole; else it calls parts of it.

    Raises:
        RemedyNotApplicable: when no single term is such a multiple at every weight, step and batch size.
    """
    if not calls_model and str(case.posterior).startswith("out:"):
        raise RemedyNotApplicable(
            f"free_bits: the log-variances are the output {case.posterior} of the model, which the loss does not call;"
            " name the module that returns them in Case.posterior"
        )
    measured = _KlRatios(case, targets, calls_model)
    rows = rows[:4]
    numbers = {name: float(value) or 1.0 for name, value in case.numbers.items()}
    ratios, again = measured(rows, numbers), measured(rows, numbers, seed=1)
    names = [name for name, ratio in ratios.items() if ratio and _same(ratio, again[name])]
    if len(names) != 1:
        raise RemedyNotApplicable(
            f"free_bits: expected one penalty that is a multiple of the posterior's KL divergence from N(0, 1),"
            f" got {', '.join(names) or 'none'}"
        )
    name, ratio = names[0], ratios[names[0]]
    if not _same(measured(rows, numbers, step=1000, progress=0.75)[name], ratio):
        raise RemedyNotApplicable(f"free_bits: the loss changes the weight of {name} during training; use `warmup`")
    fewer = measured(rows[:2], numbers)[name]
    sums_rows = _same(2 * fewer, ratio)
    if not sums_rows and not _same(fewer, ratio):
        raise RemedyNotApplicable(f"free_bits: the weight of {name} depends on the number of rows")
    factors = []
    for key in case.loss_keywords():
        doubled = measured(rows, {**numbers, key: 2 * numbers[key]})[name]
        if _same(doubled, 2 * ratio):
            factors.append(key)
        elif not _same(doubled, ratio):
            raise RemedyNotApplicable(f"free_bits: the number {key} changes {name} in another way than by a factor")
    scale = ratio / math.prod(numbers[key] for key in factors) / (len(rows) if sums_rows else 1)
    return KlTerm(name, scale, tuple(factors), sums_rows)


@dataclass(frozen=True)
class _KlRatios:
    """Each penalty divided by the sum of the units' divergences; 0 for a sum that is too small."""

    case: Case
    targets: Tensor | None
    calls_model: bool

    def __call__(
        self, rows: Tensor, numbers: Mapping[str, float], seed: int = 0, step: int = 0, progress: float = 0.0
    ) -> dict[str, float]:
        case = self.case
        bound = bind_losses(replace(case, numbers=dict(numbers)), self.targets, step, progress)
        model = build_model(case, seed, rows)
        tap = BottleneckTap(model, case.bottleneck, everywhere=not self.calls_model)
        with torch.no_grad(), eval_mode(model), torch.random.fork_rng():
            with tap, log_variance(case, model) as log_variances:
                terms = bound.losses(model, rows, **bound.loss_arguments(bound.numbers))
            total = float(divergences_of(case, tap.passes[0], log_variances).sum())
        penalties = {name: float(value) for name, value in check_terms(case, terms).items() if name != case.objective}
        return {name: value / total if total > SMALLEST else 0.0 for name, value in penalties.items()}


def divergences_of(case: Case, forward: Any, log_variances: list[Tensor]) -> Tensor:
    """Return the KL divergence of each unit from N(0, 1) in a forward pass, `[unit]`."""
    mean = flatten_units(forward.code)
    return kl_per_unit(mean, posterior_of(case, forward.outputs, log_variances, mean))


def _same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=SAME)
