"""Rule on what a penalty leaves of the code: the code is used without the penalty, and not used with it."""

import math
from dataclasses import dataclass

from torch import Tensor, nn

from harness.auditing.audit_thresholds import AuditThresholds
from harness.auditing.findings import make_finding
from harness.auditing.gradient_ratios import MOST_WORK, PROBES, ProbeLoop, Scales
from harness.auditing.isolation import isolated, preserved_rng
from harness.auditing.loss_state import preserved_loss
from harness.auditing.probe import make_probe
from harness.case import Case
from harness.diagnosis.finding import Finding

SEEDS = 2
MOST_STEPS = 1000
FACTORS = (0.3, 0.1, 0.03, 0.01)  # of the penalty's weight, tried in this order
BATCHES = 4


@dataclass(frozen=True)
class CodeUse:
    """Test of a trained model for its need of the code of each row.

    Args:
        value: main term on the data.
        gain: by how much the main term rises when the codes are exchanged between rows.
        steps: training steps.
        complete: False if the training ended early.
    """

    value: float
    gain: float
    steps: int
    complete: bool = True


def code_gain(case: Case, model: nn.Module, batches: list[Tensor]) -> tuple[float, float]:
    """Return the main term on the data, and its rise when the codes are rolled by one row; means over batches."""
    values, gains = [], []
    for batch in batches:
        with make_probe(case, model, batch) as probe:
            if probe.code.site is None:
                return math.nan, math.nan
            base = probe.evaluate().value(case.objective)
            rolled = probe.evaluate({probe.code.site: lambda values, index: values.roll(1, 0)}).value(case.objective)
        values.append(base)
        gains.append(rolled - base)
    return sum(values) / len(values), sum(gains) / len(gains)


def use_after_training(case: Case, model: nn.Module, rows: Tensor, seed: int, scales: Scales, steps: int) -> CodeUse:
    """Train a copy with the terms multiplied by `scales`, and measure the use of its code."""
    with isolated(model), preserved_rng(seed), preserved_loss(case.losses):
        loop = ProbeLoop(case, model, rows, seed, scales)
        for _ in loop.reach((steps,)):
            pass
        value, gain = code_gain(case, model, [loop.batch() for _ in range(BATCHES)])
        return CodeUse(value, gain, loop.step, loop.step == steps)


def silences_the_code(
    case: Case,
    models: list[nn.Module],
    rows: Tensor,
    term: str,
    first_gain: tuple[float, float],
    cost: float,
    bounds: AuditThresholds,
) -> list[Finding]:
    """Find a penalty with which training leaves the code unused, although it is used without the penalty.

    Args:
        case: any case.
        models: initializations of the case.
        rows: training rows `[sample, *feature]`.
        term: the penalty.
        first_gain: main term and `code_gain` after the last training probe; a code in use ends the rule here.
        cost: work of 300 steps as a share of what an audit may take.
        bounds: thresholds of the rules.
    """
    value, gain = first_gain
    if not (math.isfinite(value) and math.isfinite(gain)) or abs(gain) > bounds.unused_gain * abs(value):
        return []
    steps = _affordable(case, rows, cost)
    if steps < PROBES[-1]:
        return []
    pairs: list[tuple[CodeUse, CodeUse]] = []
    for seed, model in enumerate(models[:SEEDS]):
        free = use_after_training(case, model, rows, seed, {term: 0.0}, steps)
        if not (free.complete and free.gain > bounds.used_gain * abs(free.value)):
            return []
        use = use_after_training(case, model, rows, seed, {}, steps)
        if not (use.complete and use.gain < bounds.silenced * free.gain):
            return []
        pairs.append((use, free))
    factor = _recovers(case, models[0], rows, term, pairs[0][1], steps, bounds)
    advice = (
        f"multiply {term} by {factor:g} in losses: the code is then used" if factor else f"lower the weight of {term}"
    )
    if case.posterior is not None:
        advice += "; or warm it up from 0 (`warmup`), or give each unit free bits (`free_bits`)"
    use, free = pairs[0]
    return [
        make_finding(
            "dominates",
            term,
            f"after {steps} steps, exchanging the codes between rows raises {case.objective} by {use.gain:.3g} (it is"
            f" {use.value:.3g}); trained without {term}, by {free.gain:.3g} (from {free.value:.3g}), in"
            f" {len(pairs)} of {len(pairs)} initializations",
            f"with this weight of {term}, the code carries nothing that the main term uses",
            advice,
            {
                "gain": use.gain,
                "gain_without": free.gain,
                "steps": float(steps),
                **({"factor": factor} if factor else {}),
            },
        )
    ]


def _affordable(case: Case, rows: Tensor, cost: float) -> int:
    """Return the steps that all trainings of this rule can take within the work of an audit."""
    training = case.training()
    steps = int(training["epochs"]) * math.ceil(len(rows) / min(int(training["batch_size"]), len(rows)))
    affordable = int(PROBES[-1] / max(cost, PROBES[-1] / MOST_WORK))
    return min(max(steps, PROBES[-1]), MOST_STEPS, affordable)


def _recovers(
    case: Case, model: nn.Module, rows: Tensor, term: str, free: CodeUse, steps: int, bounds: AuditThresholds
) -> float:
    """Return the first factor of the weight with which the code is used again; 0 where none of them helps."""
    for factor in FACTORS:
        use = use_after_training(case, model, rows, 0, {term: factor}, steps)
        if use.gain > bounds.recovered * free.gain:
            return factor
    return 0.0
