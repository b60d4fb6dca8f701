"""Rule on terms that diverge by rounding alone: finite in float64, not in the model's own precision."""

import math
from collections.abc import Mapping

import torch

from harness.auditing.dependencies import TermProbe
from harness.auditing.findings import make_finding, source_line
from harness.auditing.probe_values import RANGES, activation_of, value_levels
from harness.auditing.rules_gradient import situations
from harness.auditing.trace import TensorSite, TracedOperation
from harness.diagnosis.finding import Finding
from harness.diagnosis.severity import Severity

HALVINGS = 12  # of the interval between 0 and a constant, which gives three digits


def finite_constants(subject: TermProbe) -> dict[float, float]:
    """Return the finite values of the term by constants at the layer that it reads.

    Empty where the activation before the term is bounded.
    """
    site = subject.site
    if site is None or subject.term == subject.probe.case.objective or math.isfinite(RANGES[activation_of(site)][1]):
        return {}
    constants = [sign * level for sign in (1, -1) for level in value_levels("none")]
    terms = {constant: _at_constant(subject, constant) for constant in constants}
    return {constant: term for constant, term in terms.items() if math.isfinite(term)}


def _at_constant(subject: TermProbe, constant: float) -> float:
    assert subject.site is not None
    layer = TensorSite(subject.site.layer)
    return subject.value(layer, torch.full_like(subject.shape(layer), constant))


def outside_by_rounding(
    subject: TermProbe, exact: Mapping[float, float], operations: list[TracedOperation]
) -> list[Finding]:
    """Find NaN or infinity in the model's own precision at values where float64 is finite.

    Args:
        subject: the term under a probe in the model's own precision.
        exact: the term in float64 by constants at its layer, from `finite_constants`.
        operations: calls of the loss, for the line of source.
    """
    precision = str(subject.probe.dtype).removeprefix("torch.")
    for position, (situation, value) in enumerate(situations(subject, soft=False)):
        if not math.isfinite(value):
            evidence = f"in {precision}, {subject.term} is {value} {situation}; in float64 it is finite"
            return [_rounding_finding(subject, evidence, operations, severity=Severity.RISK if position else None)]
    for constant, value in exact.items():
        if not math.isfinite(_at_constant(subject, constant)):
            edge = _edge(subject, constant)
            evidence = (
                f"in {precision}, {subject.term} is not finite once {subject.site.layer if subject.site else ''} is"
                f" {edge:.3g} on every row; at {constant:g} it is {value:.4g} in float64"
            )
            return [_rounding_finding(subject, evidence, operations, {"from": edge}, severity=Severity.RISK)]
    return []


def _edge(subject: TermProbe, constant: float) -> float:
    """Return the smallest constant between 0 and `constant` at which the term is not finite."""
    finite, edge = 0.0, constant
    for _ in range(HALVINGS):
        middle = (finite + edge) / 2
        finite, edge = (middle, edge) if math.isfinite(_at_constant(subject, middle)) else (finite, middle)
    return edge


def _rounding_finding(
    subject: TermProbe,
    evidence: str,
    operations: list[TracedOperation],
    numbers: Mapping[str, float] | None = None,
    severity: Severity | None = None,
) -> Finding:
    return make_finding(
        "outside_domain",
        subject.term,
        evidence,
        "it diverges by rounding alone, and one such batch sets every parameter to NaN",
        "take the logarithm before rounding: `harness.penalties.bernoulli_kl_of_logits` for the mean of a sigmoid, else"
        " `logsigmoid`, `log1p`, `logsumexp`",
        numbers,
        severity,
        source_line(operations, [subject.site]) if subject.site else None,
    )
