"""Rules on the weight of a penalty, with a corrected weight that is tried before it is advised."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

from torch import Tensor, nn

from harness.auditing.audit_thresholds import AuditThresholds
from harness.auditing.dependencies import TermProbe, layers_after
from harness.auditing.finding_collector import FindingCollector
from harness.auditing.findings import make_finding
from harness.auditing.gradient_ratios import GradientRatios, Watch, gradient_ratios, train_probe
from harness.auditing.probe import LossProbe, make_probe, replace_with_leaves
from harness.auditing.rules_gradient import flat_finding, is_flat
from harness.auditing.rules_use import silences_the_code
from harness.auditing.trace import TensorSite
from harness.auditing.weight_keywords import WeightKeyword, has_gradient, weight_keyword
from harness.case import Case
from harness.diagnosis.finding import Finding
from harness.diagnosis.severity import Severity

TRIALS = 3  # of new weights
FLAT_ROWS = 64  # on which a gradient is looked for
TAKEN_AWAY = 0.01  # of the ratio at the bottleneck
NEAR = 1.5  # a ratio between 1/1.5 and 1.5 ends the search


@dataclass(frozen=True)
class Judgment:
    """A verdict on the weight of a penalty, and the probe that it rests on.

    Args:
        rule: "dominates" or "negligible".
        severity: severity of the finding.
        probe: function of the ratios by probe that returns the judged probe.
        meaning: meaning of the finding.
        trains: True if the judged ratio needs training.
    """

    rule: str
    severity: Severity
    probe: Callable[[dict[int, float]], int]
    meaning: str
    trains: bool = True


@dataclass(frozen=True)
class Advice:
    """A factor for a term's weight and the ratio measured with it.

    Args:
        factor: factor of the present weight.
        ratio: judged ratio with the new weight; NaN where it was not tried.
        probe: number of steps after which the ratio was measured.
        lever: number of the case to change; None where the loss has none for this term.
    """

    factor: float
    ratio: float
    probe: int
    lever: WeightKeyword | None

    @property
    def then(self) -> float:
        """New value of the number."""
        assert self.lever is not None
        return _digits(self.factor * self.lever.now)

    def text(self) -> str:
        """Return the remedy in words."""
        moment = f"after {self.probe} steps" if self.probe else "at initialization"
        reached = f"; the ratio is then {self.ratio:.2g} {moment}" if math.isfinite(self.ratio) else ""
        if self.lever is None:
            return f"multiply this term by {self.factor:.3g} in losses{reached}"
        name = self.lever.keyword
        shared = f"; {name} weighs {' and '.join(self.lever.beside)} too" if self.lever.beside else ""
        return f"multiply {name} by {self.factor:.3g}: {name} = {self.then:g}{reached}{shared}"

    def numbers(self) -> dict[str, float]:
        """Return the advice as numbers: `factor`, and the value of the number `now` and `then`."""
        trial = {"ratio_then": self.ratio} if math.isfinite(self.ratio) else {}
        values = {} if self.lever is None else {"now": self.lever.now, "then": self.then}
        return {"factor": self.factor, **values, **trial}


def check_weights(
    case: Case,
    models: list[nn.Module],
    rows: Tensor,
    collector: FindingCollector,
    terms: list[str],
    during_training: bool,
    watch: Watch | None = None,
    gain: Callable[[], tuple[float, float]] | None = None,
) -> None:
    """Run `dominates` and `negligible` on every penalty with a gradient.

    `gain` returns the use of the code after the training that `watch` sees.
    """
    inert = {term for term, rule in collector.rules if rule in ("no_gradient", "zero_gradient")}
    penalties = [term for term in terms if term != case.objective and term not in inert]
    ratios: dict[str, GradientRatios] = {}

    def measure() -> list[Finding]:
        ratios.update(gradient_ratios(case, models, rows, penalties, during_training, watch=watch))
        return []

    collector.run("dominates", None, measure if penalties else list)
    for term, term_ratios in ratios.items():
        if during_training and _at_floor(term_ratios) and (term, "misses_bottleneck") not in collector.rules:
            collector.run("negligible", term, partial(_without_effect, case, models[0], rows, term, term_ratios))
            continue
        if reason := _why_undecided(case, term, term_ratios, collector, during_training):
            collector.add_undecided("negligible" if term_ratios.ratios else "dominates", term, reason)
        if term_ratios.has_gradient:
            check = partial(weight_findings, case, models, rows, term, term_ratios, collector.bounds)
            collector.run("dominates", term, check)
        judged = {(term, "dominates"), (term, "negligible"), (term, "zero_gradient")} & collector.rules
        judged |= {(case.objective, "cut_encoder")} & collector.rules  # the main term does not shape the code
        if during_training and not judged and not term_ratios.stopped and gain is not None:
            check = partial(silences_the_code, case, models, rows, term, gain(), term_ratios.cost, collector.bounds)
            collector.run("dominates", term, check)


def _at_floor(ratios: GradientRatios) -> bool:
    """True if no parameter has a gradient at any probe, although the term has one at other values."""
    return bool(ratios.ratios) and not ratios.trains and not ratios.stopped and len(ratios.ratios) > 1


def _without_effect(case: Case, model: nn.Module, rows: Tensor, term: str, ratios: GradientRatios) -> list[Finding]:
    """Return the finding on a term without a gradient at every probe: cut off, or at the floor of a clamp."""
    return _flat(case, model, rows, term, ratios) or [_floor_finding(case, term, ratios)]


def _flat(case: Case, model: nn.Module, rows: Tensor, term: str, ratios: GradientRatios) -> list[Finding]:
    """Find a term whose gradient is 0, or rounding, whatever the parameters and the rows."""
    with make_probe(case, model, rows[:FLAT_ROWS]) as probe:
        subject = TermProbe(probe, term, probe.evaluate().value(term))
        return [flat_finding(subject, list(ratios.ratios))] if is_flat(subject) else []


def _floor_finding(case: Case, term: str, ratios: GradientRatios) -> Finding:
    """Return the finding on a clamped or hinged term: a risk where the term is 0, since its condition holds then."""
    holds = not any(ratios.values)
    probes = ", ".join("initialization" if probe == 0 else f"{probe} steps" for probe in ratios.ratios)
    return make_finding(
        "negligible",
        term,
        f"{term} is at its floor of {min(ratios.values):.4g} at every probe ({probes}): its gradient is 0, and so is the"
        f" ratio of gradient norms at {case.bottleneck}",
        "its condition holds already, so the term has no effect so far"
        if holds
        else "the term has no effect on training",
        "lower the floor, raise the margin, or remove the term",
        {**{f"ratio_at_{probe}": 0.0 for probe in ratios.ratios}, "floor": min(ratios.values)},
        Severity.RISK if holds else Severity.FAULT,
    )


def _why_undecided(
    case: Case, term: str, ratios: GradientRatios, collector: FindingCollector, during_training: bool
) -> str:
    """Return the reason why the weight of a term cannot be judged in full, or ""."""
    if not ratios.ratios and not ratios.finite:
        return f"the gradient of {term} at the bottleneck is NaN or infinite, so there is no ratio"
    if not ratios.ratios:
        return f"the main term {case.objective} has no gradient at the bottleneck, so there is no ratio"
    if not ratios.has_gradient and (term, "misses_bottleneck") in collector.rules:
        return "the penalty has no gradient at the bottleneck, as misses_bottleneck says"
    if ratios.stopped:
        return ratios.stopped
    if not ratios.has_gradient and case.weight(case.numbers) == 0:
        return f"{case.penalty_weight} = 0 multiplies the term, so it has no weight to judge"
    if not ratios.has_gradient:
        return "the term has no gradient at the bottleneck: it is on parameters, or on another layer"
    if not during_training and 0 < ratios.at(0) < collector.bounds.negligible_risk:
        return f"the ratio is {ratios.at(0):.3g} at initialization; later ratios need training"
    return ""


def weight_findings(
    case: Case, models: list[nn.Module], rows: Tensor, term: str, weights: GradientRatios, bounds: AuditThresholds
) -> list[Finding]:
    """Find a weight that is too large (`dominates`) or too small (`negligible`), and the number to change."""
    ratios = weights.medians()
    judgment = judge_weights(ratios, bounds)
    if judgment is None and _is_taken_away(weights, bounds):
        return [_taken_away(case, term, weights)]
    if judgment is None or (judgment.rule == "negligible" and weights.stopped):
        return []  # beside a main term that grows beyond all numbers, every penalty is small
    if judgment.rule == "negligible" and _acts_after(case, models[0], rows, term, weights, bounds):
        return []
    if judgment.rule == "negligible" and judgment.severity == Severity.FAULT:  # so small a gradient may be rounding
        flat = _flat(case, models[0], rows, term, weights)
        if flat:
            return flat
    ratios_text = ", ".join(
        f"{value:.3g} {'at initialization' if probe == 0 else f'after {probe} steps'}"
        for probe, value in ratios.items()
    )
    advice = _advise(case, models, rows, term, weights, judgment)
    result = make_finding(
        judgment.rule,
        term,
        f"the gradient norm of {term} divided by that of {case.objective}, at {case.bottleneck}: {ratios_text}",
        judgment.meaning,
        "change its weight in losses" if advice is None else advice.text(),
        {**{f"ratio_at_{probe}": ratio for probe, ratio in ratios.items()}, **(advice.numbers() if advice else {})},
        judgment.severity,
    )
    change = {advice.lever.keyword: advice.then} if advice is not None and advice.lever is not None else {}
    return [replace(result, change=change)]


def _acts_after(
    case: Case, model: nn.Module, rows: Tensor, term: str, weights: GradientRatios, bounds: AuditThresholds
) -> bool:
    """True if the penalty is not negligible in layers after the bottleneck, such as those of a second latent, in the end."""
    with (
        train_probe(case, model, rows, max(weights.ratios), 0) as (trained, batch),
        make_probe(case, trained, batch) as probe,
    ):
        return ratio_after(probe, term) >= bounds.negligible_risk


def ratio_after(probe: LossProbe, term: str) -> float:
    """Return the gradient norm of a term divided by that of the sum of the other terms that depend on the bottleneck.

    Over parameters after the bottleneck that both reach: in a head that this term alone trains, it competes with no other one.
    0 without such parameters.
    """
    if probe.code.site is None:
        return 0.0
    site, leaves = TensorSite(probe.code.site.layer), list[Tensor]()
    after, natural = layers_after(probe), probe.evaluate()
    modules = [module for module, name in probe.layers.items() if name in after]
    parameters = [value for module in modules for value in module.parameters() if value.requires_grad]
    cut = probe.evaluate({site: replace_with_leaves(lambda values, index: values.detach(), leaves)})
    weight = float(probe.case.weight(probe.case.numbers))
    gradients = {
        name: [(1.0 if name == probe.case.objective else weight) * g for g in natural.gradient(name, parameters)]
        for name in natural.terms
        if name == term or any(bool((g != 0).any()) for g in cut.gradient(name, leaves))
    }
    own = gradients.pop(term)
    rest = [sum(parts[1:], start=parts[0]) for parts in zip(*gradients.values(), strict=True)]
    pairs = [(g, r) for g, r in zip(own, rest, strict=False) if bool(g.any()) and bool(r.any())]
    norms = [math.sqrt(sum(float(values.pow(2).sum()) for values in side)) for side in zip(*pairs, strict=True)]
    return norms[0] / norms[1] if norms else 0.0


def _is_taken_away(weights: GradientRatios, bounds: AuditThresholds) -> bool:
    """True if after every probe less than a hundredth of the penalty's gradient at the bottleneck comes to parameters."""
    shares = {probe: median(values) for probe, values in weights.at_parameters.items()}
    return len(shares) > 1 and all(
        share < min(bounds.negligible_risk, TAKEN_AWAY * weights.at(probe)) for probe, share in shares.items()
    )


def _taken_away(case: Case, term: str, weights: GradientRatios) -> Finding:
    probes = {probe: median(values) for probe, values in weights.at_parameters.items()}
    shares = ", ".join(
        f"{share:.2g} {'at initialization' if probe == 0 else f'after {probe} steps'}"
        for probe, share in probes.items()
    )
    return make_finding(
        "negligible",
        term,
        f"the gradient norm of {term} divided by that of {case.objective}: {weights.at(0):.3g} at {case.bottleneck}, but at"
        f" the parameters before it only {shares}: hardly any of the gradient passes the operations before the code",
        "a normalization fixes what the term measures (the mean square of a batch-normalized unit is 1), so it has no"
        " effect on training",
        "penalize the values before the normalization, or something that it leaves free, such as absolute values",
        {f"ratio_at_{probe}": share for probe, share in probes.items()},
    )


def judge_weights(ratios: dict[int, float], bounds: AuditThresholds) -> Judgment | None:
    """Judge the ratios by probe; None where the weight is acceptable."""
    if not ratios or all(math.isnan(ratio) for ratio in ratios.values()):
        return None
    birth, least, most = ratios.get(0, math.nan), min(ratios.values()), max(ratios.values())
    heavy, light = (
        "at the bottleneck the penalty's gradient dominates that of the main term",
        "the penalty has almost no influence on training",
    )
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
    """Search for the weight at which the judged ratio is near 1, by the secant method on log scales."""
    probe = judgment.probe(weights.medians())
    ratio = weights.at(probe)
    if not ratio > 0 or not math.isfinite(ratio):
        return None
    lever = _weight_keyword(case, models, rows, term, weights, 1 / ratio)
    points = [(0.0, math.log(ratio))]  # log of the factor, log of the ratio with it
    best: Advice | None = None
    factor = _rounded(1 / ratio, lever)
    for _ in range(_trials(weights, judgment)):
        changed, scales = _with_factor(case, term, factor, lever)
        ratios = gradient_ratios(changed, models, rows, [term], judgment.trains, scales)[term].medians()
        probe = judgment.probe(ratios) if ratios else 0
        trial_ratio = ratios.get(probe, math.nan)
        if not trial_ratio > 0 or not math.isfinite(trial_ratio):
            break
        points.append((math.log(factor), math.log(trial_ratio)))
        if best is None or abs(math.log(trial_ratio)) < abs(math.log(best.ratio)):
            best = Advice(factor, trial_ratio, probe, lever)
        if abs(math.log(trial_ratio)) <= math.log(NEAR):
            break
        factor = _rounded(math.exp(_secant(points[-2], points[-1])), lever)
    return best or Advice(factor, math.nan, probe, lever)


def _trials(weights: GradientRatios, judgment: Judgment) -> int:
    """Return the number of weights to try within the work budget of the audit."""
    if not judgment.trains:
        return TRIALS
    return 0 if weights.stopped else min(TRIALS, int(1 / max(weights.cost, 1e-9)) - 1)


def _secant(first: tuple[float, float], second: tuple[float, float]) -> float:
    """Zero of the line through two points, with its slope limited to 0.2 to 5."""
    slope = (second[1] - first[1]) / (second[0] - first[0]) if second[0] != first[0] else 1.0
    return second[0] - second[1] / min(max(slope, 0.2), 5.0)


def _rounded(factor: float, lever: WeightKeyword | None) -> float:
    """Round the factor so that the new number has three digits and the text states the number that was tried."""
    now = 1.0 if lever is None else lever.now
    return _digits(factor * now) / now


def _digits(value: float) -> float:
    return float(f"{value:.3g}")


def _with_factor(case: Case, term: str, factor: float, lever: WeightKeyword | None) -> tuple[Case, dict[str, float]]:
    if lever is None:
        return case, {term: factor}
    return replace(case, numbers={**case.numbers, lever.keyword: _digits(factor * lever.now)}), {}


def _weight_keyword(
    case: Case, models: list[nn.Module], rows: Tensor, term: str, weights: GradientRatios, factor: float
) -> WeightKeyword | None:
    """Return the number that weighs the term, at the first probe and model with a gradient."""
    steps = next((probe for probe, ratio in weights.medians().items() if ratio > 0), 0)
    for seed, start in enumerate(models):
        with train_probe(case, start, rows, steps, seed) as (model, batch):
            if has_gradient(case, model, batch, term):
                return weight_keyword(case, model, batch, term, factor)
    return None
