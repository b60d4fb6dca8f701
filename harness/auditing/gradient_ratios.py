"""Gradient norms of the penalties at the bottleneck, relative to the main term, at initialization and during training."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from harness.auditing.divergence import Divergence, find_divergence
from harness.auditing.isolation import isolated, preserved_rng, preserved_state
from harness.auditing.loss_state import loss_arguments, preserved_loss
from harness.case import Case, training_optimizer
from harness.models import precision_for
from harness.remedies.gradients import bottleneck_outputs, gradient_norm
from harness.training.schedules import make_scheduler

PROBES = (0, 50, 300)
BATCHES = 3
MOST_WORK = (
    5e10  # additions and multiplications per seed, a few seconds; counted, so that the result does not depend on load
)
PASSES = 30  # over every parameter in an optimizer step, approximately
Scales = Mapping[str, float]  # term -> factor beside the case's own numbers


@dataclass
class GradientRatios:
    """Ratios of gradient norms, penalty to main term, by probe: one value per batch and seed.

    Args:
        ratios: probe -> its values.
        at_parameters: probe -> the same ratios at the parameters that the penalty reaches. Far below `ratios` where a
            normalization before the code takes the gradient away.
        stopped: reason why the training ended before the last probe, or "".
        trains: True if any parameter has a gradient of the penalty at any probe.
        values: values of the penalty.
        finite: False if a gradient of the penalty was NaN or infinite.
        cost: share of `MOST_WORK` used to train one seed; 0 without training.
    """

    ratios: dict[int, list[float]] = field(default_factory=dict)
    at_parameters: dict[int, list[float]] = field(default_factory=dict)
    stopped: str = ""
    trains: bool = False
    values: list[float] = field(default_factory=list)
    finite: bool = True
    cost: float = 0.0

    def at(self, probe: int) -> float:
        """Return the median at a probe; NaN where the main term has no gradient there."""
        return median(self.ratios[probe]) if self.ratios.get(probe) else math.nan

    @property
    def has_gradient(self) -> bool:
        """True if the penalty has a gradient in some batch at some probe."""
        return any(any(values) for values in self.ratios.values())

    def medians(self) -> dict[int, float]:
        """Return the median ratio by probe."""
        return {probe: self.at(probe) for probe in self.ratios}


class Watch(Protocol):
    """An observer of the training probes."""

    def look(self, loop: "ProbeLoop", seed: int, step: int) -> None:
        """Look at the model of a loop at a probe."""

    def end(self, loop: "ProbeLoop", seed: int) -> None:
        """Look at a loop that has ended."""


def harness_keyword(case: Case) -> str | None:
    """Return the keyword by which the harness multiplies the penalties; None where the loss weighs itself."""
    return None if case.weighs_itself else case.penalty_weight


def gradient_ratios(
    case: Case,
    models: list[nn.Module],
    rows: Tensor,
    terms: list[str],
    train: bool,
    scales: Scales | None = None,
    watch: "Watch | None" = None,
) -> dict[str, GradientRatios]:
    """Measure the ratios of every penalty at initialization and, with `train`, during a plain loop; models are restored."""
    weights = {term: GradientRatios() for term in terms}
    for seed, model in enumerate(models):
        with isolated(model), preserved_rng(seed), preserved_loss(case.losses):
            loop = ProbeLoop(case, model, rows, seed, scales or {})
            for step in loop.reach(PROBES if train else PROBES[:1]):
                if watch is not None:
                    watch.look(loop, seed, step)
                for _ in range(BATCHES):
                    _measure(loop, weights, step)
            for term_ratios in weights.values():
                term_ratios.stopped = loop.stopped or term_ratios.stopped
                term_ratios.cost = max(term_ratios.cost, loop.work / MOST_WORK)
            if watch is not None:
                watch.end(loop, seed)
    return weights


@contextmanager
def train_probe(
    case: Case, model: nn.Module, rows: Tensor, steps: int, seed: int
) -> Iterator[tuple[nn.Module, Tensor]]:
    """Yield a batch and the model of a seed as `gradient_ratios` trains it for `steps` steps; the model is restored."""
    with isolated(model), preserved_rng(seed), preserved_loss(case.losses):
        loop = ProbeLoop(case, model, rows, seed, {})
        for step in loop.reach(tuple(probe for probe in PROBES if probe <= steps)):
            batches = [loop.batch() for _ in range(BATCHES)]
            if step == steps:
                yield model, batches[0]
                return
        raise AssertionError(f"steps: expected one of {PROBES}, got {steps}")


def steps_with_gradient(case: Case, model: nn.Module, rows: Tensor, terms: Sequence[str]) -> tuple[dict[str, int], str]:
    """Train the model of seed 0, and find the first probe at which each of `terms` has a gradient.

    Returns:
        The number of steps by term, and the reason why the training ended early, or "".
    """
    steps: dict[str, int] = {}
    with isolated(model), preserved_rng(0), preserved_loss(case.losses):
        loop = ProbeLoop(case, model, rows, 0, {})
        for step in loop.reach(PROBES):
            with preserved_state(model), preserved_loss(case.losses):
                values = loop.terms(loop.batch())
            for term in terms:
                if term not in steps and _has_gradient(values[term], model):
                    steps[term] = step
            if len(steps) == len(terms):
                break
        return steps, loop.stopped


def _has_gradient(value: Any, model: nn.Module) -> bool:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not isinstance(value, Tensor) or not value.requires_grad:
        return False
    gradients = torch.autograd.grad(value, parameters, allow_unused=True, retain_graph=True)
    return any(gradient is not None and bool((gradient != 0).any()) for gradient in gradients)


class ProbeLoop:
    """Plain training loop of one model, with the case's scheduler and clipping.

    It pauses at probes and ends where it would take too much work.
    """

    def __init__(self, case: Case, model: nn.Module, rows: Tensor, seed: int, scales: Scales) -> None:
        self.case, self.model, self.rows, self.scales = case, model, rows, scales
        self.stopped, self.work, self.step = "", 0.0, 0
        self.divergence: Divergence | None = None
        self._previous: Mapping[str, Any] = {}
        self._scheduler: Any = None
        self._size = min(int(case.training()["batch_size"]), len(rows))
        self.steps = int(case.training()["epochs"]) * math.ceil(len(rows) / self._size)
        self._draw = torch.Generator().manual_seed(seed)

    def batch(self) -> Tensor:
        """Draw the next rows with the loop's own generator."""
        return self.rows[torch.randint(len(self.rows), (self._size,), generator=self._draw)]

    def reach(self, probes: tuple[int, ...]) -> Iterator[int]:
        """Train from one probe to the next; yield the number of steps at every affordable probe."""
        self.model.train()
        last = max(probes)
        optimizer = (
            training_optimizer(self.case, self.model) if last else None
        )  # the first optimizer loads torch's compiler, which takes seconds
        self._scheduler = None if optimizer is None else make_scheduler(self.case, optimizer, self.steps)
        for step in range(max(probes) + 1):
            if step in probes:
                yield step
            if step >= last or optimizer is None:
                break
            with _work_counter() if step == 0 else nullcontext() as work:
                self._step(optimizer)
            if self.divergence is not None:
                self.stopped = (
                    f"training stopped after {step} steps: {self.divergence.term} or its gradient is not finite"
                )
                return
            if isinstance(work, FlopCounterMode):
                step_work = max(
                    1, work.get_total_flops() + PASSES * sum(parameter.numel() for parameter in self.model.parameters())
                )
                last = min(
                    last, max(1, int(MOST_WORK / step_work))
                )  # counted at the first step: a property of the case alone
                self.work = float(step_work * last)
        if step < max(probes):
            self.stopped = f"training stopped after {step} steps: this model would need minutes for more"

    def terms(self, batch: Tensor) -> dict[str, Any]:
        """Return the loss terms of a batch, multiplied by their scales."""
        terms = self.case.losses(self.model, batch.clone(), **loss_arguments(self.case, self.step, self.steps))
        return {name: term * self.scales[name] if name in self.scales else term for name, term in terms.items()}

    def _step(self, optimizer: torch.optim.Optimizer) -> None:
        batch = self.batch()
        terms = self.terms(batch)
        total = self.case.total(terms, self.case.numbers)
        optimizer.zero_grad()
        total.backward()
        again = partial(self.terms, batch)
        self.divergence = find_divergence(self.model, self.step, total, terms, self._previous, again)
        if self.divergence is None:
            if self.case.clip is not None:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.case.clip)
            optimizer.step()
            if self._scheduler is not None:
                self._scheduler.step()
        self._previous = {name: term.detach() if isinstance(term, Tensor) else term for name, term in terms.items()}
        self.step += 1


class _NoModules(nullcontext[None]):
    """Stand-in for the counter's tracker of modules, whose hooks refuse a loss that calls `autograd.grad`."""

    parents = frozenset({"Global"})


def _work_counter() -> FlopCounterMode:
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _NoModules()  # type: ignore[assignment]
    return counter


def _measure(loop: ProbeLoop, weights: Mapping[str, GradientRatios], step: int) -> None:
    case = loop.case
    with (
        preserved_state(loop.model),
        preserved_loss(case.losses),
    ):  # a warm-up counter in the loss counts training steps, not measurements
        terms, outputs = watched_terms(case, loop.model, loop.batch(), loop.terms)
    keyword = harness_keyword(case)
    weight = 1.0 if keyword is None else float(case.numbers.get(keyword, 1.0))
    reference = gradient_norm(terms[case.objective], outputs)
    for name, ratios in weights.items():
        norm = weight * gradient_norm(terms[name], outputs)
        value = terms[name]
        ratios.values.append(float(value.detach() if isinstance(value, Tensor) else value))
        ratios.trains = ratios.trains or norm != 0 or _has_gradient(terms[name], loop.model)
        ratios.finite = ratios.finite and math.isfinite(norm)
        if reference > 0 and math.isfinite(norm):
            ratios.ratios.setdefault(step, []).append(abs(norm) / reference)
            if norm != 0:
                at_parameters = weight * _parameter_ratio(value, terms[case.objective], loop.model)
                ratios.at_parameters.setdefault(step, []).append(abs(at_parameters))


def _parameter_ratio(penalty: Tensor, main: Tensor, model: nn.Module) -> float:
    """Return the ratio of gradient norms at the parameters that the penalty reaches; NaN where the main term has none."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(penalty.sum(), parameters, allow_unused=True, retain_graph=True)
    reached = [parameter for parameter, gradient in zip(parameters, gradients, strict=True) if gradient is not None]
    if not reached:
        return math.nan
    main_gradients = torch.autograd.grad(main.sum(), reached, allow_unused=True, retain_graph=True)
    reference = _norm(main_gradients)
    return _norm(gradients) / reference if reference > 0 else math.nan


def _norm(gradients: Sequence[Tensor | None]) -> float:
    return math.sqrt(sum(float(gradient.double().pow(2).sum()) for gradient in gradients if gradient is not None))


def watched_terms(
    case: Case, model: nn.Module, batch: Tensor, terms: Callable[[Tensor], dict[str, Any]]
) -> tuple[dict[str, Any], list[Tensor]]:
    """Return the loss terms of a batch and the bottleneck's outputs, at which they can be differentiated."""
    nudge = torch.zeros((), dtype=precision_for(model, batch), device=batch.device, requires_grad=True)
    with bottleneck_outputs(model, case.bottleneck, nudge) as outputs:
        return terms(batch), outputs
