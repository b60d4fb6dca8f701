"""The rule on terms that diverge by rounding alone: finite in float64, not in the precision in which a model trains."""

import math
from collections.abc import Mapping

import torch

from harness.auditing.dependencies import TermProbe
from harness.auditing.findings import make_finding, source_line
from harness.auditing.probe_values import RANGES, activation_of, value_levels
from harness.auditing.recorder import TensorSite, TracedOperation
from harness.auditing.rules_gradient import situations
from harness.diagnosis.finding import Finding
from harness.diagnosis.severity import Severity

HALVINGS = 12  # of what lies between 0 and a constant: its edge is known to three digits


def finite_constants(subject: TermProbe) -> dict[float, float]:
    """Constants put at the layer that the term reads -> the term, where it is finite.

    None where an activation bounds what it reads; a normalisation on the way makes nothing of a constant.
    """
    site = subject.site
    if site is None or subject.term == "reconstruction" or math.isfinite(RANGES[activation_of(site)][1]):
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
    """NaN or infinity in the model's own precision, where float64 finds a number.

    Args:
        subject: the term under a probe in the model's own precision.
        exact: constant at the term's layer -> the term in float64, as `finite_constants` finds it.
        operations: the calls of the loss, for the line of source.
    """
    precision = str(subject.probe.dtype).removeprefix("torch.")
    for place, (situation, value) in enumerate(situations(subject, soft=False)):
        if not math.isfinite(value):
            evidence = f"in {precision}, {subject.term} is {value} {situation}; in float64 it is a number"
            return [_rounded(subject, evidence, operations, severity=Severity.RISK if place else None)]
    for constant, value in exact.items():
        if not math.isfinite(_at_constant(subject, constant)):
            edge = _edge(subject, constant)
            evidence = (
                f"in {precision}, {subject.term} is not finite once {subject.site.layer if subject.site else ''} is"
                f" {edge:.3g} on every row; at {constant:g} it is {value:.4g} in float64"
            )
            return [_rounded(subject, evidence, operations, {"from": edge}, severity=Severity.RISK)]
    return []


def _edge(subject: TermProbe, constant: float) -> float:
    """The constant of least size, between 0 and this one, from which on the term is not finite."""
    finite, edge = 0.0, constant
    for _ in range(HALVINGS):
        middle = (finite + edge) / 2
        finite, edge = (middle, edge) if math.isfinite(_at_constant(subject, middle)) else (finite, middle)
    return edge


def _rounded(
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
        "it diverges by rounding alone, and one such batch turns every parameter into NaN",
        "take logarithms before the rounding: `harness.penalties.bernoulli_kl_of_logits` for the mean of a sigmoid, else"
        " `logsigmoid`, `log1p`, `logsumexp`",
        numbers,
        severity,
        source_line(operations, [subject.site]) if subject.site else None,
    )
