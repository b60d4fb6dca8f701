"""The weight of a penalty beside the reconstruction: gradient norms at the bottleneck, at birth and while it trains."""

import math
from contextlib import nullcontext
from dataclasses import dataclass, field
from statistics import median

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from harness.auditing.borrowing import borrowed, same_randomness
from harness.auditing.bounds import Bounds
from harness.auditing.reporting import finding
from harness.auditing.requesting import optimizer_of
from harness.capture import submodule
from harness.case import Case
from harness.diagnosis.findings import Finding
from harness.remedies.gradients import gradient_norm

PROBES = (0, 50, 300)
BATCHES = 3
MOST_WORK = 5e10  # additions and multiplications a seed: seconds; counted, so that a busy machine decides nothing
PASSES = 30  # over every parameter in an optimiser's step, about


@dataclass
class Weights:
    """Ratios of gradient norms, penalty to reconstruction, by probe: one value a batch and seed."""

    ratios: dict[int, list[float]] = field(default_factory=dict)
    stopped: str = ""

    def at(self, probe: int) -> float:
        """The median at a probe; NaN where neither term has a gradient there."""
        return median(self.ratios[probe]) if self.ratios.get(probe) else math.nan


def weigh(case: Case, models: list[nn.Module], rows: Tensor, terms: list[str], train: bool) -> dict[str, Weights]:
    """The ratios of every penalty at birth and, with `train`, after some steps of a plain loop; models stay as found."""
    found = {term: Weights() for term in terms}
    for seed, model in enumerate(models):
        with borrowed(model), same_randomness(seed):
            model.train()
            _follow(case, model, rows, found, PROBES if train else PROBES[:1], seed)
    return found


def _follow(
    case: Case, model: nn.Module, rows: Tensor, found: dict[str, Weights], probes: tuple[int, ...], seed: int
) -> None:
    size = min(int(case.training()["batch_size"]), len(rows))
    draw, last = torch.Generator().manual_seed(seed), max(probes)
    optimiser = _optimiser(case, model) if last else None  # making one loads torch's compiler, two seconds
    for step in range(max(probes) + 1):
        if step in probes:
            for _ in range(BATCHES):
                _measure(case, model, _rows(rows, size, draw), found, step)
        if step >= last or optimiser is None:
            break
        with FlopCounterMode(display=False) if step == 0 else nullcontext() as work:
            _step(case, model, optimiser, _rows(rows, size, draw))
        if isinstance(work, FlopCounterMode):
            last = min(last, _affordable(model, work))
    if step < max(probes):
        for each in found.values():
            each.stopped = f"training was stopped after {step} steps: more would take this model minutes"


def _affordable(model: nn.Module, work: FlopCounterMode) -> int:
    """How many training steps are within bounds, from what the first one did: a property of the case alone."""
    a_step = work.get_total_flops() + PASSES * sum(each.numel() for each in model.parameters())
    return max(1, int(MOST_WORK / max(1, a_step)))


def _rows(rows: Tensor, size: int, draw: torch.Generator) -> Tensor:
    return rows[torch.randint(len(rows), (size,), generator=draw)]


def _optimiser(case: Case, model: nn.Module) -> torch.optim.Optimizer:
    parameters = [each for each in model.parameters() if each.requires_grad]
    return optimizer_of(case, model) or torch.optim.Adam(parameters, lr=float(case.training()["learning_rate"]))


def _terms(case: Case, model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    keywords = {name: case.numbers[name] for name in case.loss_keywords()}
    return dict(case.losses(model, batch.clone(), **keywords))


def _step(case: Case, model: nn.Module, optimiser: torch.optim.Optimizer, batch: Tensor) -> None:
    total = case.total(_terms(case, model, batch), case.numbers)
    optimiser.zero_grad()
    total.backward()
    optimiser.step()


def _measure(case: Case, model: nn.Module, batch: Tensor, found: dict[str, Weights], step: int) -> None:
    outputs: list[Tensor] = []
    handle = _listen(case, model, outputs)
    try:
        terms = _terms(case, model, batch)
    finally:
        handle.remove()
    weight = float(case.weight(case.numbers))
    reference = gradient_norm(terms["reconstruction"], outputs)
    for name, each in found.items():
        own = weight * gradient_norm(terms[name], outputs)
        if reference > 0 and math.isfinite(own):
            each.ratios.setdefault(step, []).append(abs(own) / reference)


def _listen(case: Case, model: nn.Module, outputs: list[Tensor]) -> torch.utils.hooks.RemovableHandle:
    which = case.bottleneck

    def hook(module: nn.Module, args: object, output: object) -> object:
        value = output if isinstance(output, Tensor) else None
        if value is None and isinstance(output, tuple | list):
            position = int(which.removeprefix("out:")) if which.startswith("out:") else 0
            value = output[position] if isinstance(output[position], Tensor) else None
        if value is None or not value.requires_grad:
            return None
        outputs.append(value)
        return value.clone() if isinstance(output, Tensor) else None  # an in-place activation must not disturb it

    module = model if which.startswith("out:") else submodule(model, which)
    return module.register_forward_hook(hook, prepend=True)


def judged(case: Case, term: str, weights: Weights, bounds: Bounds) -> list[Finding]:
    """`dominates` or `negligible`, with the ratio at every probe."""
    seen = {probe: weights.at(probe) for probe in weights.ratios}
    if not seen or all(math.isnan(each) for each in seen.values()):
        return []
    birth, least, most = seen.get(0, math.nan), min(seen.values()), max(seen.values())
    numbers = {f"ratio_at_{probe}": value for probe, value in seen.items()}
    shown = ", ".join(
        f"{value:.3g} {'at birth' if probe == 0 else f'after {probe} steps'}" for probe, value in seen.items()
    )
    evidence = f"the gradient of {term} at {case.bottleneck} has {shown} times the norm of the reconstruction's"
    if birth > bounds.dominates_birth or (len(seen) > 1 and least > bounds.dominates_always):
        severity = "fault" if birth > bounds.dominates_fault else "risk"
        return [
            finding(
                "dominates",
                term,
                evidence,
                "the reconstruction is hardly heard there",
                _advice(case, birth, "lower"),
                numbers,
                severity,
            )
        ]
    if len(seen) > 1 and most < bounds.negligible_risk:
        severity = "fault" if most < bounds.negligible_fault else "risk"
        return [
            finding(
                "negligible",
                term,
                evidence,
                "it decides next to nothing",
                _advice(case, birth, "raise"),
                numbers,
                severity,
            )
        ]
    return []


def _advice(case: Case, ratio: float, direction: str) -> str:
    """The weight of the penalties, and the value at which both terms have the same norm."""
    name = case.penalty_weight
    if not (ratio > 0 and math.isfinite(ratio)):
        return f"{direction} {name or 'its weight'}: it has no effect here"
    if name is None:
        return f"{direction} its weight: {1 / ratio:.3g} times the present one matches the two norms at birth"
    return f"{direction} {name}: {float(case.numbers.get(name, 1.0)) / ratio:.3g} matches the two norms at birth"
