"""The weight of a penalty beside the reconstruction: gradient norms at the bottleneck, at birth and while it trains."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from harness.auditing.isolation import isolated, preserved_rng, preserved_state
from harness.case import Case, build_optimizer
from harness.models import precision_for
from harness.remedies.gradients import bottleneck_outputs, gradient_norm

PROBES = (0, 50, 300)
BATCHES = 3
MOST_WORK = 5e10  # additions and multiplications a seed: seconds; counted, so that a busy machine decides nothing
PASSES = 30  # over every parameter in an optimiser's step, about
Scales = Mapping[str, float]  # term -> what it is multiplied by, beside the case's own numbers


@dataclass
class GradientRatios:
    """Ratios of gradient norms, penalty to reconstruction, by probe: one value a batch and seed.

    Args:
        ratios: probe -> its values.
        stopped: why the training ended before the last probe, or "".
        cost: the share of `MOST_WORK` that the training of a seed took; 0 where nothing was trained.
    """

    ratios: dict[int, list[float]] = field(default_factory=dict)
    stopped: str = ""
    cost: float = 0.0

    def at(self, probe: int) -> float:
        """The median at a probe; NaN where neither term has a gradient there."""
        return median(self.ratios[probe]) if self.ratios.get(probe) else math.nan

    def medians(self) -> dict[int, float]:
        """Probe -> median ratio."""
        return {probe: self.at(probe) for probe in self.ratios}


def harness_keyword(case: Case) -> str | None:
    """The keyword by which the harness multiplies the penalties; None where the loss weighs itself."""
    return None if case.weighs_itself else case.penalty_weight


def gradient_ratios(
    case: Case,
    models: list[nn.Module],
    rows: Tensor,
    terms: list[str],
    train: bool,
    scales: Scales | None = None,
) -> dict[str, GradientRatios]:
    """The ratios of every penalty at birth and, with `train`, after some steps of a plain loop; models stay as found."""
    weights = {term: GradientRatios() for term in terms}
    for seed, model in enumerate(models):
        with isolated(model), preserved_rng(seed):
            loop = ProbeLoop(case, model, rows, seed, scales or {})
            for step in loop.reach(PROBES if train else PROBES[:1]):
                for _ in range(BATCHES):
                    _measure(loop, weights, step)
            for each in weights.values():
                each.stopped = loop.stopped or each.stopped
                each.cost = max(each.cost, loop.work / MOST_WORK)
    return weights


@contextmanager
def train_probe(
    case: Case, model: nn.Module, rows: Tensor, steps: int, seed: int
) -> Iterator[tuple[nn.Module, Tensor]]:
    """The model of a seed as `gradient_ratios` has it after so many steps, and a batch; it is given back untouched."""
    with isolated(model), preserved_rng(seed):
        loop = ProbeLoop(case, model, rows, seed, {})
        for step in loop.reach(tuple(probe for probe in PROBES if probe <= steps)):
            batches = [loop.batch() for _ in range(BATCHES)]
            if step == steps:
                yield model, batches[0]
                return
        raise AssertionError(f"no probe is after {steps} steps")


class ProbeLoop:
    """A plain training loop of one borrowed model, which stops at probes and where it would take too much work."""

    def __init__(self, case: Case, model: nn.Module, rows: Tensor, seed: int, scales: Scales) -> None:
        self.case, self.model, self.rows, self.scales = case, model, rows, scales
        self.stopped, self.work = "", 0.0
        self._size = min(int(case.training()["batch_size"]), len(rows))
        self._draw = torch.Generator().manual_seed(seed)

    def batch(self) -> Tensor:
        """The next rows of the loop's own draw."""
        return self.rows[torch.randint(len(self.rows), (self._size,), generator=self._draw)]

    def reach(self, probes: tuple[int, ...]) -> Iterator[int]:
        """Train from one probe to the next; yield the number of steps at each that is affordable."""
        self.model.train()
        last = max(probes)
        optimiser = _optimiser(self.case, self.model) if last else None  # making one loads torch's compiler, seconds
        for step in range(max(probes) + 1):
            if step in probes:
                yield step
            if step >= last or optimiser is None:
                break
            with FlopCounterMode(display=False) if step == 0 else nullcontext() as work:
                self._step(optimiser)
            if isinstance(work, FlopCounterMode):
                a_step = max(1, work.get_total_flops() + PASSES * sum(each.numel() for each in self.model.parameters()))
                last = min(last, max(1, int(MOST_WORK / a_step)))  # from the first step: a property of the case alone
                self.work = float(a_step * last)
        if step < max(probes):
            self.stopped = f"training was stopped after {step} steps: more would take this model minutes"

    def terms(self, batch: Tensor) -> dict[str, Any]:
        """The loss terms of a batch, each times its scale."""
        keywords = {name: self.case.numbers[name] for name in self.case.loss_keywords()}
        terms = self.case.losses(self.model, batch.clone(), **keywords)
        return {name: term * self.scales[name] if name in self.scales else term for name, term in terms.items()}

    def _step(self, optimiser: torch.optim.Optimizer) -> None:
        total = self.case.total(self.terms(self.batch()), self.case.numbers)
        optimiser.zero_grad()
        total.backward()
        optimiser.step()


def _optimiser(case: Case, model: nn.Module) -> torch.optim.Optimizer:
    parameters = [each for each in model.parameters() if each.requires_grad]
    return build_optimizer(case, model) or torch.optim.Adam(parameters, lr=float(case.training()["learning_rate"]))


def _measure(loop: ProbeLoop, weights: Mapping[str, GradientRatios], step: int) -> None:
    case = loop.case
    with preserved_state(loop.model):  # a counter that the loss keeps for its warm-up counts steps, not looks
        terms, outputs = watched_terms(case, loop.model, loop.batch(), loop.terms)
    keyword = harness_keyword(case)
    weight = 1.0 if keyword is None else float(case.numbers.get(keyword, 1.0))
    reference = gradient_norm(terms["reconstruction"], outputs)
    for name, each in weights.items():
        own = weight * gradient_norm(terms[name], outputs)
        if reference > 0 and math.isfinite(own):
            each.ratios.setdefault(step, []).append(abs(own) / reference)


def watched_terms(
    case: Case, model: nn.Module, batch: Tensor, terms: Callable[[Tensor], dict[str, Any]]
) -> tuple[dict[str, Any], list[Tensor]]:
    """The loss terms of a batch, and what the bottleneck returned meanwhile: places at which to differentiate."""
    nudge = torch.zeros((), dtype=precision_for(model, batch), device=batch.device, requires_grad=True)
    with bottleneck_outputs(model, case.bottleneck, nudge) as outputs:
        return terms(batch), outputs
