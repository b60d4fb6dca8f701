"""Rules that rest on the training probes: codes that stay constant, losses that diverge, and what no gradient reaches."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from harness.auditing.dependencies import Undecided
from harness.auditing.divergence import Divergence
from harness.auditing.finding_collector import FindingCollector
from harness.auditing.findings import make_finding
from harness.auditing.gradient_ratios import PROBES, ProbeLoop
from harness.auditing.isolation import bottleneck_pass, isolated, preserved_rng, preserved_state
from harness.auditing.loss_state import preserved_loss
from harness.auditing.probe import LossProbe, make_probe
from harness.auditing.probe_values import RANGES
from harness.auditing.rules_numbers import (
    changes_state,
    evaluated,
    gradients_of,
    has_effect,
    numbers_without_effect,
    unmet_reads,
    unused_number,
)
from harness.auditing.rules_reach import (
    ReachedParameters,
    Terms,
    encoder_parameters,
    tied_parameters,
    unreached_parameters,
)
from harness.auditing.rules_use import code_gain
from harness.capture import code_of, flatten_units
from harness.case import Case
from harness.diagnosis.finding import Finding
from harness.diagnosis.severity import Severity
from harness.measures.constancy import is_constant
from harness.measures.units import RELU_FAMILY
from harness.user_code import failure, guarded

SATURATED = 1e-3  # distance of every value to the nearer end of the range, as a share of the range
SAMPLE = 64  # rows on which gradients are looked for


@dataclass
class TrainingWatch:
    """Observations at the training probes of all seeds, collected while the loops train.

    Args:
        case: any case.
        sample: rows on which a code is called constant.
        constant: True if the code is constant at every initialization.
        numbers: keywords of `losses` without an effect so far.
        unmet: those of them that `losses` reads on a branch that the first probe did not take.
        reached: parameters without a gradient so far.
        stays_constant: for every trained seed, True if the code is still constant after the last probe.
        divergences: first value of a training that is not finite, by seed.
        probes: number of probes so far by seed.
        gain: main term and its rise when codes are exchanged between rows, after the last probe of the first seed.
        stopped: reason why a training ended before the last probe, or "".
        failed: reason why a probe failed, or "".
    """

    case: Case
    sample: Tensor
    constant: bool = False
    numbers: list[str] = field(default_factory=list)
    unmet: set[str] = field(default_factory=set)
    reached: ReachedParameters = field(default_factory=ReachedParameters)
    stays_constant: list[bool] = field(default_factory=list)
    divergences: dict[int, Divergence] = field(default_factory=dict)
    probes: dict[int, int] = field(default_factory=dict)
    gain: tuple[float, float] = (math.nan, math.nan)
    stopped: str = ""
    failed: str = ""

    @property
    def suspects(self) -> bool:
        """True if another seed may show more than divergence."""
        return bool(self.constant or self.numbers or self.reached.without_gradient)

    def look(self, loop: ProbeLoop, seed: int, step: int) -> None:
        """Look at the model of a loop at a probe; a failure is recorded."""
        self.probes[seed] = self.probes.get(seed, 0) + 1
        try:
            with guarded():
                self._look(loop, seed, step)
        except Undecided:
            self.numbers = []
        except Exception as error:  # the user's code failed under a probe
            self.failed = failure(error)

    def _look(self, loop: ProbeLoop, seed: int, step: int) -> None:
        batch = loop.rows[:SAMPLE]
        if self.reached.without_gradient is None or self.reached.without_gradient:
            self.reached.look(self.case, loop.model, evaluated(self.case, loop, batch))
            if step == 0:
                self.reached.start(loop.model)
            else:
                self.reached.compare(loop.model)
                self.reached.follow(loop.model, lambda: evaluated(self.case, loop, batch), 1e-4)
        if step == PROBES[-1] and seed == 0:
            batches = [loop.rows[start : start + SAMPLE] for start in (0, SAMPLE, 2 * SAMPLE)]
            with preserved_state(loop.model), preserved_loss(self.case.losses):
                self.gain = code_gain(self.case, loop.model, [batch for batch in batches if len(batch) > 1])
        if self.constant and step == PROBES[-1]:
            self.stays_constant.append(has_constant_code(self.case, loop.model, self.sample))
        if step and self.numbers:

            def evaluate(case: Case) -> tuple[Terms, Callable[[], list[Tensor]]]:
                terms = evaluated(case, loop, batch)
                return terms, lambda: gradients_of(loop.model, terms)

            self.numbers = [name for name in self.numbers if not has_effect(self.case, name, evaluate)]

    def end(self, loop: ProbeLoop, seed: int) -> None:
        """Record how the training of a seed ended."""
        self.stopped = loop.stopped or self.stopped
        if loop.divergence is not None:
            self.divergences[seed] = loop.divergence

    def why_undecided(self, during_training: bool) -> str:
        """Return the reason why the last probe is missing, or ""."""
        if self.failed:
            return f"the probe {self.failed}"
        if not during_training:
            return "only training tells whether it stays so"
        complete = any(count == len(PROBES) for count in self.probes.values())
        return "" if complete else self.stopped or "no training reached the last probe"

    def looks(self, during_training: bool) -> str:
        """Return the probes in words."""
        words = f"at {len(self.probes)} initialization{'s' if len(self.probes) != 1 else ''}"
        return f"{words} and after {' and '.join(map(str, PROBES[1:]))} training steps" if during_training else words


def watch_numbers(watch: TrainingWatch, probe: LossProbe) -> list[Finding]:
    """Note the keywords of `losses` without an effect at the first probe; the training probes look at them again."""
    watch.numbers = numbers_without_effect(probe)
    watch.numbers = [name for name in watch.numbers if not changes_state(probe, name)]
    if watch.numbers:
        watch.unmet = unmet_reads(probe.case, watch.numbers, probe.evaluate)
    return []


def watch_constant(watch: TrainingWatch, models: list[nn.Module]) -> list[Finding]:
    """Note a code that is constant at every initialization; the last training probe looks at it again."""
    watch.constant = all(has_constant_code(watch.case, model, watch.sample) for model in models)
    return []


def check_training(
    case: Case,
    models: list[nn.Module],
    rows: Tensor,
    batch: Tensor,
    collector: FindingCollector,
    watch: TrainingWatch,
    during_training: bool,
) -> None:
    """Run the rules that rest on training probes, after the trainings that `dominates` needs.

    Args:
        case: any case.
        models: initializations of the case.
        rows: training rows `[sample, *feature]`.
        batch: rows of the float64 probe.
        collector: findings so far.
        watch: observations so far; a case without penalties is trained here.
        during_training: False if no probe trains.
    """
    if not watch.probes:
        collector.run("diverges", None, lambda: _train(case, models, rows, watch, during_training))
    inert = {str(term) for term, rule in collector.rules if rule in ("no_gradient", "zero_gradient")}
    collector.run("diverges", None, lambda: diverges(watch, collector.rules))
    collector.run("constant_at_birth", None, lambda: constant_at_birth(watch, models, during_training))

    def check_parameters() -> list[Finding]:
        names = watch.reached.without_gradient
        if not names:
            return []
        if reason := watch.why_undecided(during_training):
            raise Undecided(f"no term has a gradient at {', '.join(sorted(names)[:6])} so far; {reason}")
        tied = tied_parameters(models[0], names)
        with make_probe(case, models[0], batch) as probe:
            rules = {rule for _, rule in collector.rules}
            constant = bool({"constant_at_birth", "dead_at_birth"} & rules)
            cut = "cut_encoder" in rules or constant
            explained = set(encoder_parameters(probe)) if cut and probe.code.site is not None else set()
            looks = watch.looks(during_training)
            return unreached_parameters(probe, watch.reached, inert, explained, tied, looks, zero_explained=constant)

    collector.run("unreached_parameter", None, check_parameters)

    def check_numbers() -> list[Finding]:
        reason = watch.why_undecided(during_training) if during_training else ""
        if watch.numbers and reason:
            raise Undecided(f"{', '.join(watch.numbers)} had no effect so far; {reason}")
        steps = f", and after {' and '.join(map(str, PROBES[1:]))} training steps" if during_training else ""
        return unused_number(case, watch.numbers, inert, watch.unmet, steps)

    collector.run("unused_number", None, check_numbers)


def _train(case: Case, models: list[nn.Module], rows: Tensor, watch: TrainingWatch, train: bool) -> list[Finding]:
    """Train the first model, and the other ones where the first leaves a suspicion."""
    for seed, model in enumerate(models):
        if seed and not watch.suspects:
            break
        with isolated(model), preserved_rng(seed), preserved_loss(case.losses):
            loop = ProbeLoop(case, model, rows, seed, {})
            for step in loop.reach(PROBES if train else PROBES[:1]):
                watch.look(loop, seed, step)
            watch.end(loop, seed)
    return []


def diverges(watch: TrainingWatch, rules: set[tuple[str | None, str]]) -> list[Finding]:
    """Report trainings that met NaN or infinity, one finding for each term."""
    findings: list[Finding] = []
    for term in dict.fromkeys(divergence.term for divergence in watch.divergences.values()):
        seeds = [seed for seed, divergence in watch.divergences.items() if divergence.term == term]
        first = watch.divergences[seeds[0]]
        if first.step == 0 and (term, "outside_domain") in rules:
            continue  # the same fact, at the initial weights
        rate = float(watch.case.training()["learning_rate"])
        numbers = {"step": float(first.step), "value": first.value, "previous": first.previous, "seed": float(seeds[0])}
        findings.append(
            make_finding(
                "diverges",
                term,
                f"{_divergence_in_words(first)}, in the training of seed {seeds[0]};"
                f" {len(seeds)} of {len(watch.probes)} trainings meet NaN or infinity in {term}",
                "the next update turns parameters into NaN, and the training is lost",
                f"a lower learning rate (it is {rate:g}), scaled inputs or clipped gradients where the values grow from step to"
                " step; bound what is exponentiated (clamp a log-variance); else keep the argument of log, sqrt or a division"
                " inside its domain",
                {**numbers, "trainings": float(len(seeds))},
            )
        )
    return findings


def _divergence_in_words(divergence: Divergence) -> str:
    earlier = f"it was {divergence.previous:.4g} one step earlier" if math.isfinite(divergence.previous) else ""
    if divergence.parameter:
        return (
            f"the gradient of {divergence.term} at {divergence.parameter} is not finite at step {divergence.step},"
            f" where {divergence.term} is {divergence.value:.4g}{f' ({earlier})' if earlier else ''}"
        )
    return f"{divergence.term} is {divergence.value:.4g} at step {divergence.step}{f' ({earlier})' if earlier else ''}"


def constant_at_birth(watch: TrainingWatch, models: list[nn.Module], during_training: bool) -> list[Finding]:
    """Report a code that is constant at every initialization: a fault where 300 training steps leave it constant."""
    if not watch.constant:
        return []
    bottleneck, rows = watch.case.bottleneck, len(watch.sample)
    if reason := watch.why_undecided(during_training):
        raise Undecided(f"the code of {bottleneck} is constant at initialization; {reason}")
    evidence = f"every unit of {bottleneck} is constant on {rows} rows at every initialization"
    numbers = {"rows": float(rows), "trainings": float(len(watch.stays_constant))}
    if all(watch.stays_constant):
        return [
            make_finding(
                "constant_at_birth",
                None,
                f"{evidence}, and after {PROBES[-1]} steps in {len(watch.stays_constant)} of {len(models)} trainings",
                "the code does not depend on the input, so the decoder can only learn one output for all rows",
                _constant_remedy(watch, models[0]),
                numbers,
            )
        ]
    varying = len(watch.stays_constant) - sum(watch.stays_constant)
    return [
        make_finding(
            "constant_at_birth",
            None,
            f"{evidence}; after {PROBES[-1]} steps it varies in {varying} of {len(watch.stays_constant)} trainings",
            "training moves the code away from its constant start, as for a layer that is initialized with zeros",
            "nothing to do, if the start is intended",
            numbers,
            severity=Severity.NOTE,
        )
    ]


def _constant_remedy(watch: TrainingWatch, model: nn.Module) -> str:
    """Return the remedy for a constant code: of a saturated activation, or of a weak signal."""
    code, activation = _code_values(watch.case, model, watch.sample)
    low, high = RANGES.get(activation or "none", RANGES["none"])
    if activation == "softmax" and code.shape[-1] == 1:
        return "more than one unit: a softmax over one unit is always 1"
    if math.isfinite(low + high):
        nearest = torch.minimum(code - low, high - code) / (high - low)
        if float(nearest.max()) < SATURATED:
            return f"smaller initial weights and biases, or a normalization before the {activation}, which is saturated"
    return "larger initial weights, a normalization before the code, or fewer steps between input and code"


def _code_values(case: Case, model: nn.Module, rows: Tensor) -> tuple[Tensor, str | None]:
    """Return the code on the rows in eval mode, and the name of its activation."""
    view = bottleneck_pass(case, model, rows)
    return code_of(view, case.bottleneck), view.activation


def has_constant_code(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if every unit of the code is constant on the rows up to rounding, in eval mode.

    A code of the ReLU family that fires on no row is dead instead, which `dead_at_birth` reports.
    """
    code, activation = _code_values(case, model, rows)
    if not code.is_floating_point() or not code.dim() or len(code) != len(rows) or len(rows) < 2:
        return False
    values = flatten_units(code)
    if activation in RELU_FAMILY and bool((values <= 0).all()):
        return False
    return bool(is_constant(values).all())
