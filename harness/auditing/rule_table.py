"""Table of the rules on loss terms, in the order in which they run."""

from collections.abc import Callable
from functools import partial

from harness.auditing.audit_thresholds import AuditThresholds
from harness.auditing.dependencies import TermProbe
from harness.auditing.finding_collector import FindingCollector
from harness.auditing.rules_gradient import batch_size_rule, gradient_rule, outside_domain
from harness.auditing.rules_location import (
    index_addressing,
    misses_bottleneck,
    not_the_code_in_use,
    wrong_axis,
    wrong_layer,
)
from harness.auditing.rules_model import bypass
from harness.auditing.rules_objective import objective_collapse
from harness.auditing.rules_reach import cut_encoder
from harness.auditing.rules_rows import unpaired_rows
from harness.auditing.rules_shape import (
    collapse_optimum,
    escape,
    pushes_active_units_down,
    unbounded,
    unreachable_target,
)
from harness.auditing.trace import TracedOperation
from harness.diagnosis.finding import Finding

TermRule = Callable[[TermProbe, list[TracedOperation], AuditThresholds], list[Finding]]

EVERY_TERM: dict[str, TermRule] = {
    "no_gradient": gradient_rule,
    "outside_domain": outside_domain,
    "depends_on_batch_size": batch_size_rule,
    "unpaired_rows": unpaired_rows,
}

PENALTY: dict[str, TermRule] = {
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


def check_term(subject: TermProbe, operations: list[TracedOperation], collector: FindingCollector) -> None:
    """Run the rules on one term."""
    objective = subject.probe.case.objective
    is_objective = subject.term == objective
    is_constant = subject.inert == "zero_gradient" and bool(subject.cache.get("constant"))  # explains all other facts
    rules: dict[str, TermRule] = EVERY_TERM if is_objective or is_constant else {**EVERY_TERM, **PENALTY}
    for name, rule in rules.items():
        if subject.inert and name in NEEDS_GRADIENT:
            continue
        collector.run(name, subject.term, lambda rule=rule: rule(subject, operations, collector.bounds))  # type: ignore[misc]
    if is_objective:
        check_least(subject, operations, collector)
        collector.run("bypass", subject.term, lambda: bypass(subject, collector.bounds))
        collector.run("cut_encoder", subject.term, lambda: cut_encoder(subject, operations))


def check_least(subject: TermProbe, operations: list[TracedOperation], collector: FindingCollector) -> None:
    """Run the rule on the least value of a main term, or of a penalty that trains beside a constant main term."""
    if (subject.term, "collapse_optimum") not in collector.rules:
        check = partial(objective_collapse, subject, operations, collector.bounds)
        collector.run("collapse_optimum", subject.term, check)
