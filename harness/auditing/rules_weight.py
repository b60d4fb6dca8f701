"""The rules on a penalty's weight, and the number that would set it right: tried before it is advised."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor, nn

from harness.auditing.audit_thresholds import AuditThresholds
from harness.auditing.findings import make_finding
from harness.auditing.gradient_ratios import GradientRatios, gradient_ratios, train_probe
from harness.auditing.weight_keywords import WeightKeyword, weight_keyword, with_weight
from harness.case import Case
from harness.diagnosis.finding import Finding
from harness.diagnosis.severity import Severity

TRIALS = 3  # of a new weight
NEAR = 1.5  # a ratio between 1/1.5 and 1.5 is near enough to 1 to stop at


@dataclass(frozen=True)
class Judgment:
    """A rule's judgment of a penalty's weight, and the probe by whose ratio it judges.

    Args:
        rule: "dominates" or "negligible".
        severity: how grave it is.
        probe: picks, among the ratios by probe, the one that is judged.
        meaning: in words.
        trains: whether that ratio is known only after training.
    """

    rule: str
    severity: Severity
    probe: Callable[[dict[int, float]], int]
    meaning: str
    trains: bool = True


@dataclass(frozen=True)
class Advice:
    """The factor for a term's weight, and the ratio that it was seen to bring about.

    Args:
        factor: times the present weight.
        ratio: the judged ratio with it; NaN where it could not be tried.
        probe: after how many steps that ratio is met.
        lever: the number of the case to change; None where the loss names none for this term.
    """

    factor: float
    ratio: float
    probe: int
    lever: WeightKeyword | None

    @property
    def then(self) -> float:
        """The new value of the lever's number."""
        assert self.lever is not None
        return _digits(self.factor * self.lever.now)

    def text(self) -> str:
        """The remedy in words."""
        where = f"after {self.probe} steps" if self.probe else "at birth"
        reached = f"; the ratio is then {self.ratio:.2g} {where}" if math.isfinite(self.ratio) else ""
        if self.lever is None:
            return f"multiply this term by {self.factor:.3g} in losses{reached}"
        name = self.lever.keyword
        shared = f"; {name} weighs {' and '.join(self.lever.beside)} too" if self.lever.beside else ""
        return f"multiply {name} by {self.factor:.3g}: {name} = {self.then:g}{reached}{shared}"

    def numbers(self) -> dict[str, float]:
        """The advice as numbers: `factor`, and of the number to change its value `now` and `then`."""
        tried = {"ratio_then": self.ratio} if math.isfinite(self.ratio) else {}
        values = {} if self.lever is None else {"now": self.lever.now, "then": self.then}
        return {"factor": self.factor, **values, **tried}


def weight_findings(
    case: Case, models: list[nn.Module], rows: Tensor, term: str, weights: GradientRatios, bounds: AuditThresholds
) -> list[Finding]:
    """`dominates` or `negligible`, with the ratio at every probe and the number to change."""
    ratios = weights.medians()
    judgment = judge_weights(ratios, bounds)
    if judgment is None:
        return []
    shown = ", ".join(
        f"{value:.3g} {'at birth' if probe == 0 else f'after {probe} steps'}" for probe, value in ratios.items()
    )
    advice = _advise(case, models, rows, term, weights, judgment)
    result = make_finding(
        judgment.rule,
        term,
        f"the gradient of {term} at {case.bottleneck} has {shown} times the norm of the reconstruction's",
        judgment.meaning,
        "it has no effect here: change its weight in losses" if advice is None else advice.text(),
        {**{f"ratio_at_{probe}": ratio for probe, ratio in ratios.items()}, **(advice.numbers() if advice else {})},
        judgment.severity,
    )
    change = {advice.lever.keyword: advice.then} if advice is not None and advice.lever is not None else {}
    return [replace(result, change=change)]


def judge_weights(ratios: dict[int, float], bounds: AuditThresholds) -> Judgment | None:
    """Judge the ratios by probe; None where the weight is neither too large nor too small."""
    if not ratios or all(math.isnan(ratio) for ratio in ratios.values()):
        return None
    birth, least, most = ratios.get(0, math.nan), min(ratios.values()), max(ratios.values())
    heavy, light = "the reconstruction is hardly heard there", "it decides next to nothing"
    if birth > bounds.dominates_birth:
        severity = Severity.FAULT if birth > bounds.dominates_fault else Severity.RISK
        return Judgment("dominates", severity, lambda ratios: 0, heavy, False)
    if len(ratios) > 1 and least > bounds.dominates_always:
        return Judgment("dominates", Severity.RISK, _least, heavy)
    if len(ratios) > 1 and most < bounds.negligible_risk:
        severity = Severity.FAULT if most < bounds.negligible_fault else Severity.RISK
        return Judgment("negligible", severity, _most, light)
    return None


def _least(ratios: dict[int, float]) -> int:
    return min(ratios, key=lambda probe: ratios[probe])


def _most(ratios: dict[int, float]) -> int:
    return max(ratios, key=lambda probe: ratios[probe])


def _advise(
    case: Case, models: list[nn.Module], rows: Tensor, term: str, weights: GradientRatios, judgment: Judgment
) -> Advice | None:
    """The weight at which the judged ratio is near 1: the first guess, and steps along the secant on log scales."""
    probe = judgment.probe(weights.medians())
    ratio = weights.at(probe)
    if not ratio > 0 or not math.isfinite(ratio):
        return None
    lever = _lever(case, models, rows, term, weights, 1 / ratio)
    points = [(0.0, math.log(ratio))]  # log of the factor, log of the ratio with it
    best: Advice | None = None
    factor = _rounded(1 / ratio, lever)
    for _ in range(_trials(weights, judgment)):
        changed, scales = _weighed(case, term, factor, lever)
        ratios = gradient_ratios(changed, models, rows, [term], judgment.trains, scales)[term].medians()
        probe = judgment.probe(ratios) if ratios else 0
        tried = ratios.get(probe, math.nan)
        if not tried > 0 or not math.isfinite(tried):
            break
        points.append((math.log(factor), math.log(tried)))
        if best is None or abs(math.log(tried)) < abs(math.log(best.ratio)):
            best = Advice(factor, tried, probe, lever)
        if abs(math.log(tried)) <= math.log(NEAR):
            break
        factor = _rounded(math.exp(_secant(points[-2], points[-1])), lever)
    return best or Advice(factor, math.nan, probe, lever)


def _trials(weights: GradientRatios, judgment: Judgment) -> int:
    """Number of weights that may be tried: trainings share with the first probe the work that the audit may take."""
    if not judgment.trains:
        return TRIALS
    return 0 if weights.stopped else min(TRIALS, int(1 / max(weights.cost, 1e-9)) - 1)


def _secant(first: tuple[float, float], second: tuple[float, float]) -> float:
    """Zero of the line through two points, its slope taken to lie between 0.2 and 5."""
    slope = (second[1] - first[1]) / (second[0] - first[0]) if second[0] != first[0] else 1.0
    return second[0] - second[1] / min(max(slope, 0.2), 5.0)


def _rounded(factor: float, lever: WeightKeyword | None) -> float:
    """The factor at which the new number has three digits, so that the number in the text is the one that was tried."""
    now = 1.0 if lever is None else lever.now
    return _digits(factor * now) / now


def _digits(value: float) -> float:
    return float(f"{value:.3g}")


def _weighed(case: Case, term: str, factor: float, lever: WeightKeyword | None) -> tuple[Case, dict[str, float]]:
    if lever is None:
        return case, {term: factor}
    return replace(case, numbers={**case.numbers, lever.keyword: _digits(factor * lever.now)}), {}


def _lever(
    case: Case, models: list[nn.Module], rows: Tensor, term: str, weights: GradientRatios, factor: float
) -> WeightKeyword | None:
    """The number that weighs the term, looked for where it has a gradient: at the first such probe and model."""
    steps = next((probe for probe, ratio in weights.medians().items() if ratio > 0), 0)
    for seed, start in enumerate(models):
        with train_probe(case, start, rows, steps, seed) as (model, batch):
            if with_weight(case, model, batch, term):
                return weight_keyword(case, model, batch, term, factor)
    return None
