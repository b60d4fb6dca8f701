"""Run of an audit: build the case's models, probe its loss, and run every rule."""

import time
from contextlib import ExitStack
from dataclasses import replace

import torch
from torch import Tensor, nn

from harness.auditing.audit_result import Audit, by_gravity
from harness.auditing.audit_thresholds import AUDIT_THRESHOLDS, AuditThresholds
from harness.auditing.dependencies import TermProbe, inspect_term
from harness.auditing.finding_collector import FindingCollector
from harness.auditing.findings import loss_source
from harness.auditing.gradient_ratios import steps_with_gradient, train_probe
from harness.auditing.isolation import preserved_rng, uncompiled
from harness.auditing.loss_state import schedule_keywords
from harness.auditing.probe import LossProbe, has_schedule, make_probe
from harness.auditing.rule_table import check_least, check_term
from harness.auditing.rules_gradient import edits_in_place, gradient_status, outside_domain
from harness.auditing.rules_initialization import dead_at_birth, input_offset, symmetric_init
from harness.auditing.rules_model import undeclared_posterior
from harness.auditing.rules_optimizer import optimizer_parameters, unregistered_parameters
from harness.auditing.rules_output import clipped_errors, output_range
from harness.auditing.rules_precision import finite_constants, outside_by_rounding
from harness.auditing.rules_rows import mixed_rows
from harness.auditing.rules_training import TrainingWatch, check_training, watch_constant, watch_numbers
from harness.auditing.rules_weight import check_weights
from harness.auditing.trace import TracedOperation
from harness.case import Case, build_optimizer, check_target
from harness.data import split_of
from harness.errors import HarnessError
from harness.loss_terms import bind_losses
from harness.models import build_model, cast_floats, own_precision
from harness.user_code import guarded

Exact = dict[str, tuple[TermProbe, dict[float, float]]]  # term -> its float64 probe and its values at some constants
ROWS = 64  # rows of a probe's batch
FEW_ROWS = 16  # below which a probe would say little
BIRTH_ROWS = 2048  # rows on which units that never fire are counted
BIRTH_SEEDS = 8


def audit(
    case: Case,
    during_training: bool = True,
    seeds: int = 3,
    bounds: AuditThresholds = AUDIT_THRESHOLDS,
    rows: Tensor | None = None,
) -> Audit:
    """Check that every loss term does what its author intends, by replacements, gradients and permutations.

    Args:
        case: any case; its model, gradients, buffers, mode and the global random state are restored.
        during_training: train copies for 300 steps per seed, to compare gradient norms after 50 and 300 steps.
        seeds: number of initializations to probe.
        bounds: thresholds of the rules.
        rows: training rows `[sample, *feature]`, if they are loaded already.

    Returns:
        Findings by severity (fault, risk, note), and the rules that could not be decided, with the reason.

    Raises:
        HarnessError: when the case cannot be built, read or evaluated at all.
    """
    started = time.monotonic()
    if not case.has_losses:
        raise HarnessError(
            f"{case.name}: audit: expected a case with losses=..., got one that trains by fit=... alone; an audit needs the"
            " loss terms, to replace what they read and to differentiate them. The trained layer itself can be judged by"
            " `harness diagnose`"
        )
    with guarded(), preserved_rng(), ExitStack() as opened:
        check_target(case)
        case, rows = _with_targets(case, rows)
        models = _models(case, rows, seeds)
        opened.enter_context(uncompiled())  # a compiled model or loss exists by now
        build_optimizer(case, models[0])  # here, so that an error is raised and not recorded as undecided
        collector = FindingCollector(bounds)
        watch = TrainingWatch(case, rows[:BIRTH_ROWS])
        terms, evaluations, exact = _first_model(case, models[0], rows, collector, during_training, watch)
        _other_models(case, models[1:], rows, collector)
        evaluations += _in_own_precision(case, models[0], rows, exact, collector)
        _model_rules(case, models, rows, collector, watch)
        check_weights(case, models, rows, collector, terms, during_training, watch, lambda: watch.gain)
        check_training(case, models, rows, _batch(case, models[0], rows), collector, watch, during_training)
    source = loss_source(case)
    return Audit(
        case.name,
        by_gravity(collector.findings),
        tuple(collector.undecided),
        tuple(terms),
        str(source) if source else "",
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
    rows = train.inputs if rows is None else rows
    if "target" not in case.supplied_keywords():
        return case, rows
    # as numbers, `step` and `progress` stay keywords of the bound loss, so that its schedule is seen
    schedule = dict.fromkeys(schedule_keywords(case), 0)
    bound = bind_losses(replace(case, numbers={**schedule, **case.numbers}), train.targets, rows=train.inputs)
    return replace(case, losses=bound.losses), rows


def _models(case: Case, rows: Tensor, seeds: int) -> list[nn.Module]:
    models = [build_model(case, seed, rows[:4]) for seed in range(max(1, seeds))]
    return models[:1] if any(model is models[0] for model in models[1:]) else models


def _batch(case: Case, model: nn.Module, rows: Tensor) -> Tensor:
    """Return rows for a probe: a batch of the training size where that is smaller, since a loss may need it."""
    batch_size = case.training()["batch_size"]
    count = min(batch_size if FEW_ROWS <= batch_size < ROWS else ROWS, len(rows))
    size = sum(parameter.numel() for parameter in model.parameters())
    count = count if size < 2e7 else min(count, 16)
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:count]]


def _first_model(
    case: Case,
    model: nn.Module,
    rows: Tensor,
    collector: FindingCollector,
    during_training: bool,
    watch: TrainingWatch,
) -> tuple[list[str], int, Exact]:
    with make_probe(case, model, _batch(case, model, rows)) as probe:
        if probe.dtype != torch.float64:
            precision = str(probe.dtype).removeprefix("torch.")
            reason = f"the case cannot be evaluated in float64; probes ran in {precision}, which hides small effects"
            collector.add_undecided("float64", None, reason)
        terms = [case.objective, *probe.penalties()]
        operations = probe.evaluate(lines=True).record.operations
        collector.run("edits_in_place", None, lambda: edits_in_place(probe))
        objective_layers: tuple[str, ...] = ()
        exact: Exact = {}
        inert: list[tuple[TermProbe, list[TracedOperation]]] = []
        checked: list[tuple[TermProbe, list[TracedOperation]]] = []
        for term in terms:
            subject = _inspected(probe, term, collector)
            if subject is None:
                continue
            subject.cache["objective_layers"] = objective_layers
            objective_layers = subject.layers if term == case.objective else objective_layers
            if subject.inert and (during_training or has_schedule(probe)):
                inert.append((subject, operations))
                continue
            check_term(subject, operations, collector)
            checked.append((subject, operations))
            if probe.dtype == torch.float64:
                exact[term] = subject, {} if subject.inert else _constants(subject)
        _check_scheduled(inert, rows, collector)
        if {(case.objective, "no_gradient"), (case.objective, "zero_gradient")} & collector.rules:
            for subject, operations in checked:  # a penalty beside a constant main term is what trains the model
                check_least(subject, operations, collector)
        collector.run("output_range", case.objective, lambda: output_range(probe, rows, collector.bounds))
        collector.run("escape", case.objective, lambda: clipped_errors(probe))
        collector.run("mixed_rows", None, lambda: mixed_rows(probe, collector.bounds))
        collector.run("undeclared_posterior", None, lambda: undeclared_posterior(probe))
        collector.run("unused_number", None, lambda: watch_numbers(watch, probe))
        return terms, probe.evaluations, exact


def _check_scheduled(
    inert: list[tuple[TermProbe, list[TracedOperation]]], rows: Tensor, collector: FindingCollector
) -> None:
    """Check terms without a gradient at initialization, after training where a schedule gives them one."""
    if not inert:
        return
    case, model = inert[0][0].probe.case, inert[0][0].probe.model
    names = [subject.term for subject, _ in inert]
    rows = cast_floats(rows, inert[0][0].probe.dtype)
    try:
        with guarded():
            steps, stopped = steps_with_gradient(case, model, rows, names)
    except Exception:  # the case cannot be trained, so only the initialization counts
        steps, stopped = {}, ""
    for subject, operations in inert:
        if subject.term in steps:
            _check_after(subject, steps[subject.term], rows, collector)
        elif stopped and has_schedule(subject.probe):
            reason = f"the gradient is 0 at initialization and follows a schedule; {stopped}"
            collector.add_undecided(subject.inert, subject.term, reason)
        else:
            check_term(subject, operations, collector)


def _check_after(subject: TermProbe, steps: int, rows: Tensor, collector: FindingCollector) -> None:
    """Check a term in the state after `steps` training steps."""
    case, model = subject.probe.case, subject.probe.model
    with (
        train_probe(case, model, rows, steps, 0) as (trained, _),
        make_probe(case, trained, _batch(case, trained, rows)) as probe,
    ):
        probe.step = steps
        later = _inspected(probe, subject.term, collector)
        if later is not None:
            later.cache["objective_layers"] = subject.cache["objective_layers"]
            check_term(later, probe.evaluate(lines=True).record.operations, collector)


def _constants(subject: TermProbe) -> dict[float, float]:
    try:
        return finite_constants(subject)
    except Exception:  # the user's code failed at a constant
        return {}


def _in_own_precision(case: Case, model: nn.Module, rows: Tensor, exact: Exact, collector: FindingCollector) -> int:
    """Check the rounding of every term in the precision of training; return the number of evaluations."""
    terms = [term for term in exact if (term, "outside_domain") not in collector.rules]
    if not terms or own_precision(model) == torch.float64:
        return 0
    with make_probe(case, model, _batch(case, model, rows), widest=False) as probe:
        operations = probe.evaluate(lines=True).record.operations
        for term in terms:
            exact_subject, constants = exact[term]
            subject = replace(exact_subject, probe=probe, base=probe.evaluate().value(term), cache={})
            collector.run(
                "outside_domain",
                term,
                lambda subject=subject, constants=constants: outside_by_rounding(subject, constants, operations),  # type: ignore[misc]
            )
        return probe.evaluations


def _inspected(probe: LossProbe, term: str, collector: FindingCollector) -> TermProbe | None:
    try:
        with guarded():
            subject = inspect_term(probe, term)
            subject.inert = gradient_status(subject)
            return subject
    except Exception as error:
        reason = f"the term cannot be differentiated: {type(error).__name__}: {error}"
        collector.add_undecided("all rules", term, reason)
        return None


def _other_models(case: Case, models: list[nn.Module], rows: Tensor, collector: FindingCollector) -> None:
    """Check the domain of terms at the other initializations; a finding of the first one is not repeated."""
    for model in models:
        with make_probe(case, model, _batch(case, model, rows)) as probe:
            for term in [case.objective, *probe.penalties()]:
                if (term, "outside_domain") not in collector.rules:
                    subject = TermProbe(probe, term, probe.evaluate().value(term))
                    collector.run(
                        "outside_domain",
                        term,
                        lambda subject=subject: outside_domain(subject, [], collector.bounds),  # type: ignore[misc]
                    )


def _model_rules(
    case: Case, models: list[nn.Module], rows: Tensor, collector: FindingCollector, watch: TrainingWatch
) -> None:
    sample, bounds = rows[:BIRTH_ROWS], collector.bounds
    missing = range(len(models), BIRTH_SEEDS) if len(models) >= 3 else ()
    more_models = [*models, *(build_model(case, seed, rows[:4]) for seed in missing)]
    collector.run("optimizer_misses_parameters", None, lambda: optimizer_parameters(case, models[0]))
    collector.run(
        "optimizer_misses_parameters",
        None,
        lambda: unregistered_parameters(case, models[0], _batch(case, models[0], rows)),
    )
    collector.run("symmetric_init", None, lambda: symmetric_init(case, models, sample))
    collector.run("dead_at_birth", None, lambda: dead_at_birth(case, more_models, sample, bounds))
    collector.run("input_offset", None, lambda: input_offset(case, models, sample, bounds))
    collector.run("constant_at_birth", None, lambda: watch_constant(watch, more_models))
