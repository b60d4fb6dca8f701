"""The audit itself: build the case's models, probe its loss, ask every rule, and put what they say together."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from harness.auditing.audit_result import Audit, by_gravity
from harness.auditing.audit_thresholds import AUDIT_THRESHOLDS, AuditThresholds
from harness.auditing.dependencies import TermProbe, Undecided, inspect_term
from harness.auditing.findings import loss_source
from harness.auditing.gradient_ratios import GradientRatios, gradient_ratios
from harness.auditing.isolation import preserved_rng
from harness.auditing.probe import LossProbe, make_probe
from harness.auditing.recorder import TracedOperation
from harness.auditing.rules_gradient import (
    batch_size_rule,
    edits_in_place,
    gradient_rule,
    gradient_status,
    outside_domain,
)
from harness.auditing.rules_initialization import dead_at_birth, input_offset, symmetric_init
from harness.auditing.rules_location import (
    index_addressing,
    misses_bottleneck,
    not_the_code_in_use,
    wrong_axis,
    wrong_layer,
)
from harness.auditing.rules_model import bypass, optimizer, output_range
from harness.auditing.rules_precision import finite_constants, outside_by_rounding
from harness.auditing.rules_shape import (
    collapse_optimum,
    escape,
    pushes_active_units_down,
    unbounded,
    unreachable_target,
)
from harness.auditing.rules_weight import weight_findings
from harness.case import Case, build_optimizer, check_target
from harness.data import split_of
from harness.data.rows import Split
from harness.diagnosis.finding import Finding
from harness.diagnosis.severity import Severity
from harness.loss_terms import bind_losses
from harness.models import build_model, own_precision
from harness.remedies import RemedyNotApplicable, apply_remedies
from harness.user_code import failure, guarded

Rule = Callable[[TermProbe, list[TracedOperation], AuditThresholds], list[Finding]]
Exact = dict[str, tuple[TermProbe, dict[float, float]]]  # term -> what is known of it, its values at some constants
ROWS = 64  # rows of a probe's batch
BIRTH_ROWS = 2048  # rows on which units are looked for that never fire
BIRTH_SEEDS = 8


class FindingCollector:
    """Collects findings; what stops a rule is recorded beside its name, never raised and never silent."""

    def __init__(self, bounds: AuditThresholds) -> None:
        self.bounds = bounds
        self.findings: list[Finding] = []
        self.undecided: list[Finding] = []

    def ask(self, rule: str, term: str | None, question: Callable[[], list[Finding]]) -> None:
        """Ask one rule."""
        try:
            with guarded():
                self.findings += question()
        except Undecided as reason:
            self.leave(rule, term, str(reason))
        except Exception as error:  # the user's code met a probe that it cannot take
            self.leave(rule, term, f"the probe {failure(error)}")

    def leave(self, rule: str, term: str | None, reason: str) -> None:
        """Record that a rule could not be decided."""
        self.undecided.append(
            Finding(rule, Severity.UNDECIDED, reason.splitlines()[0][:300] if reason else "", term=term)
        )

    @property
    def rules(self) -> set[tuple[str | None, str]]:
        """(term, rule) of what was found so far."""
        return {(each.term, each.rule) for each in self.findings}


def audit(
    case: Case,
    during_training: bool = True,
    seeds: int = 3,
    bounds: AuditThresholds = AUDIT_THRESHOLDS,
    rows: Tensor | None = None,
) -> Audit:
    """Does each loss term do what its author thinks? Found by probing: cuts, replacements, gradients, permutations.

    Args:
        case: any case; its model, gradients, buffers, mode and the global random state stay as they are.
        during_training: also train copies for 300 steps a seed, to weigh the terms after 50 and 300 steps.
        seeds: how many initialisations are looked at.
        bounds: what the rules compare with.
        rows: training rows `[sample, *feature]` where they are at hand already.

    Returns:
        Findings by severity (fault, risk, note), and the rules that could not be decided, with the reason.

    Raises:
        HarnessError: when the case cannot be built, read or evaluated at all.
    """
    started = time.monotonic()
    with guarded(), preserved_rng():
        check_target(case)
        case, rows = _with_targets(case, rows)
        models = _models(case, rows, seeds)
        build_optimizer(case, models[0])  # before a rule could take its failure for a probe's
        bench = FindingCollector(bounds)
        terms, evaluations, exact = _first_model(case, models[0], rows, bench)
        _other_models(case, models[1:], rows, bench)
        evaluations += _in_own_precision(case, models[0], rows, exact, bench)
        _model_rules(case, models, rows, bench)
        _scale_rules(case, models, rows, bench, [each for each in terms if each != "reconstruction"], during_training)
    place = loss_source(case)
    return Audit(
        case.name,
        by_gravity(bench.findings),
        tuple(bench.undecided),
        tuple(terms),
        str(place) if place else "",
        len(models),
        during_training,
        evaluations,
        round(time.monotonic() - started, 3),
        bounds,
    )


def _with_targets(case: Case, rows: Tensor | None) -> tuple[Case, Tensor]:
    """Return the case with the targets of its training rows bound to its loss, and the rows."""
    if rows is not None and not case.supplied_keywords():
        return case, rows
    train = split_of(case).train
    return bind_losses(case, train.targets, rows=train.inputs), train.inputs if rows is None else rows


def _models(case: Case, rows: Tensor, seeds: int) -> list[nn.Module]:
    models = [build_model(case, seed, rows[:4]) for seed in range(max(1, seeds))]
    return models[:1] if any(model is models[0] for model in models[1:]) else models


def _batch(rows: Tensor, model: nn.Module) -> Tensor:
    count = min(ROWS, len(rows))
    size = sum(each.numel() for each in model.parameters())
    count = count if size < 2e7 else min(count, 16)
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:count]]


def _first_model(case: Case, model: nn.Module, rows: Tensor, bench: FindingCollector) -> tuple[list[str], int, Exact]:
    with make_probe(case, model, _batch(rows, model)) as probe:
        if probe.dtype != torch.float64:
            bench.leave(
                "float64",
                None,
                f"the case cannot be evaluated in float64; probes ran in {str(probe.dtype).removeprefix('torch.')}, small"
                " effects are not seen",
            )
        terms = ["reconstruction", *probe.penalties()]
        operations = probe.evaluate(lines=True).record.operations
        bench.ask("edits_in_place", None, lambda: edits_in_place(probe))
        read: tuple[str, ...] = ()
        exact: Exact = {}
        for term in terms:
            found = _subject(probe, term, bench)
            if found is None:
                continue
            found.cache["reconstruction_layers"] = read
            read = found.layers if term == "reconstruction" else read
            _term_rules(found, operations, bench)
            if probe.dtype == torch.float64:
                exact[term] = found, {} if found.inert else _constants(found)
        bench.ask("output_range", "reconstruction", lambda: output_range(probe, rows, bench.bounds))
        return terms, probe.evaluations, exact


def _constants(found: TermProbe) -> dict[float, float]:
    try:
        return finite_constants(found)
    except Exception:  # the user's code met a constant that it cannot take
        return {}


def _in_own_precision(case: Case, model: nn.Module, rows: Tensor, exact: Exact, bench: FindingCollector) -> int:
    """Ask what rounding makes of each term in the precision in which the model is trained; how often it was evaluated."""
    terms = [term for term in exact if (term, "outside_domain") not in bench.rules]
    if not terms or own_precision(model) == torch.float64:
        return 0
    with make_probe(case, model, _batch(rows, model), widest=False) as probe:
        operations = probe.evaluate(lines=True).record.operations
        for term in terms:
            known, constants = exact[term]
            found = replace(known, probe=probe, base=probe.evaluate().value(term), cache={})
            bench.ask(
                "outside_domain",
                term,
                lambda found=found, constants=constants: outside_by_rounding(found, constants, operations),  # type: ignore[misc]
            )
        return probe.evaluations


def _subject(probe: LossProbe, term: str, bench: FindingCollector) -> TermProbe | None:
    try:
        with guarded():
            found = inspect_term(probe, term)
            found.inert = gradient_status(found)
            return found
    except Exception as error:
        bench.leave("all rules", term, f"the term cannot be differentiated: {type(error).__name__}: {error}")
        return None


def _term_rules(found: TermProbe, operations: list[TracedOperation], bench: FindingCollector) -> None:
    mine: dict[str, Rule] = EVERY_TERM if found.term == "reconstruction" else {**EVERY_TERM, **PENALTY}
    for name, rule in mine.items():
        if found.inert and name in NEEDS_GRADIENT:
            continue
        bench.ask(name, found.term, lambda rule=rule: rule(found, operations, bench.bounds))  # type: ignore[misc]
    if found.term == "reconstruction":
        bench.ask("bypass", found.term, lambda: bypass(found, bench.bounds))


def _other_models(case: Case, models: list[nn.Module], rows: Tensor, bench: FindingCollector) -> None:
    """Other initialisations may leave the domain of a term; what the first one showed is not said twice."""
    for model in models:
        with make_probe(case, model, _batch(rows, model)) as probe:
            for term in ["reconstruction", *probe.penalties()]:
                if (term, "outside_domain") not in bench.rules:
                    found = TermProbe(probe, term, probe.evaluate().value(term))
                    bench.ask("outside_domain", term, lambda found=found: outside_domain(found, [], bench.bounds))  # type: ignore[misc]


def _model_rules(case: Case, models: list[nn.Module], rows: Tensor, bench: FindingCollector) -> None:
    few = rows[:BIRTH_ROWS]
    many = (
        models
        if len(models) < 3
        else [*models, *(build_model(case, seed, rows[:4]) for seed in range(len(models), BIRTH_SEEDS))]
    )
    bench.ask("optimizer_misses_parameters", None, lambda: optimizer(case, models[0]))
    bench.ask("symmetric_init", None, lambda: symmetric_init(case, models, few))
    bench.ask("dead_at_birth", None, lambda: dead_at_birth(case, many, few, bench.bounds))
    bench.ask("input_offset", None, lambda: input_offset(case, models, few, bench.bounds))


def _scale_rules(
    case: Case, models: list[nn.Module], rows: Tensor, bench: FindingCollector, terms: list[str], during_training: bool
) -> None:
    silent = {term for term, rule in bench.rules if rule in ("no_gradient", "zero_gradient")}
    terms = [term for term in terms if term not in silent]
    found: dict[str, GradientRatios] = {}

    def trained() -> list[Finding]:
        found.update(gradient_ratios(case, models, rows, terms, during_training))
        return []

    bench.ask("dominates", None, trained if terms else list)
    for term, weights in found.items():
        if (term, "misses_bottleneck") in bench.rules and not any(any(each) for each in weights.ratios.values()):
            bench.leave(
                "negligible", term, "the penalty has no gradient at the bottleneck, which misses_bottleneck says"
            )
            continue
        if not weights.ratios:
            bench.leave("dominates", term, "the reconstruction has no gradient at the bottleneck, so there is no ratio")
        if weights.stopped:
            bench.leave("negligible", term, weights.stopped)
        elif not during_training and 0 < weights.at(0) < bench.bounds.negligible_risk:
            bench.leave(
                "negligible",
                term,
                f"the ratio is {weights.at(0):.3g} at birth; only training tells whether it stays so",
            )
        if any(any(each) for each in weights.ratios.values()):
            ask = partial(weight_findings, case, models, rows, term, weights, bench.bounds)
            bench.ask("dominates", term, ask)
        elif weights.ratios:
            bench.leave(
                "negligible", term, "it has no gradient at the bottleneck: a penalty on parameters, or of another layer"
            )


EVERY_TERM: dict[str, Rule] = {
    "no_gradient": gradient_rule,
    "outside_domain": outside_domain,
    "depends_on_batch_size": batch_size_rule,
}

PENALTY: dict[str, Rule] = {
    "misses_bottleneck": misses_bottleneck,
    "wrong_layer": wrong_layer,
    "wrong_axis": wrong_axis,
    "not_the_code_in_use": not_the_code_in_use,
    "unreachable_target": unreachable_target,
    "collapse_optimum": collapse_optimum,
    "pushes_active_units_down": pushes_active_units_down,
    "unbounded": unbounded,
    "escape": escape,
    "index_addressing": index_addressing,
}

NEEDS_GRADIENT = ("unreachable_target", "collapse_optimum", "pushes_active_units_down", "escape")


def audit_levels(
    case: Case,
    levels: Iterable[str],
    split: Split | None = None,
    others: Mapping[str, Any] | None = None,
    bounds: AuditThresholds = AUDIT_THRESHOLDS,
) -> dict[str, Audit]:
    """The audit of the case under every level of `penalty`; a level that the model refuses is left out.

    Args:
        case: any case.
        levels: levels of the factor `penalty`.
        split: the case's rows where they are at hand already (of another data set, say).
        others: levels of other factors that hold throughout, such as a grid's baseline.
        bounds: what the rules compare with.
    """
    split = split or split_of(case)
    found: dict[str, Audit] = {}
    for level in dict.fromkeys(str(each) for each in levels):
        try:
            treated = apply_remedies(case, {**(others or {}), "penalty": level}, split)
        except RemedyNotApplicable:
            continue
        found[level] = audit(treated, during_training=False, seeds=1, bounds=bounds, rows=split.train.inputs)
    return found


def as_manifest(audits: Mapping[str, Audit]) -> dict[str, list[dict[str, Any]]]:
    """The findings of each level as plain JSON values: what a results folder keeps under `audit`."""
    return {level: [each.to_dict() for each in found.findings] for level, found in audits.items()}
