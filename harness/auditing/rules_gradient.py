"""Rules on every term: gradient, finite values, dependence on the batch size, edits in place."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from harness.auditing.audit_thresholds import AuditThresholds
from harness.auditing.dependencies import TermProbe, Undecided
from harness.auditing.findings import loss_source, make_finding, source_line
from harness.auditing.isolation import copies, preserved_rng, preserved_state
from harness.auditing.loss_state import loss_arguments, preserved_loss
from harness.auditing.probe import LossProbe, replace_with_leaves
from harness.auditing.probe_values import activation_of, random_values
from harness.auditing.recorder import TensorRecorder, TensorSite, TracedOperation, hooked_model
from harness.diagnosis.finding import Finding
from harness.diagnosis.severity import Severity
from harness.measures.units import RELU_FAMILY

CUTS = (
    "item",
    "detach",
    "numpy",
    "tolist",
    "data",
    "round",
    "sign",
    "floor",
    "ceil",
    "__setitem__",
    "heaviside",
    "bool",
)
COMPARISONS = ("gt", "__gt__", "lt", "__lt__", "ge", "__ge__", "le", "__le__", "ne", "__ne__", "count_nonzero")


def gradient_status(subject: TermProbe) -> str:
    """Return "no_gradient", "zero_gradient" or "", by gradients on the data and at random outputs of all layers."""
    natural = subject.probe.evaluate()
    tensor = natural.terms[subject.term]
    if not isinstance(tensor, Tensor) or not tensor.requires_grad:
        return "no_gradient"
    parameters = [gradient for gradient in subject.probe.model.parameters() if gradient.requires_grad]
    if any(_is_nonzero(gradient) for gradient in natural.gradient(subject.term, parameters)):
        return ""
    for seed in range(3):
        leaves: list[Tensor] = []
        sites = [TensorSite(name) for name, _ in subject.probe.natural]
        changes = {site: replace_with_leaves(_random_outputs(seed), leaves) for site in sites}
        if any(_is_nonzero(gradient) for gradient in subject.probe.evaluate(changes).gradient(subject.term, leaves)):
            return ""
    return "zero_gradient"


def _random_outputs(seed: int) -> Callable[[Tensor, int], Tensor]:
    return lambda values, index: random_values(values, "none", 3.0, seed + 7 * index)


def _is_nonzero(gradient: Tensor) -> bool:
    return bool((gradient != 0).any())  # NaN counts as nonzero


def gradient_rule(subject: TermProbe, operations: list[TracedOperation], bounds: AuditThresholds) -> list[Finding]:
    """Find a term without a graph, or with a gradient that is exactly zero."""
    if not subject.inert:
        return []
    sites = [TensorSite(name) for name in subject.layers] or [TensorSite(name) for name, _ in subject.probe.natural]
    source = (
        source_line(operations, sites, CUTS, last=True)
        or source_line(operations, sites, COMPARISONS)
        or loss_source(subject.probe.case)
    )
    quantity = f"{subject.term} = {subject.base:.4g}"
    if subject.inert == "no_gradient":
        evidence = f"{quantity} is detached from the autograd graph: no parameter receives a gradient from it"
        remedy = "replace the count by a differentiable term: the mean of a sigmoid code, or L1 on a ReLU code"
    else:
        evidence = f"{quantity} is in the graph, but its gradient is exactly 0 on the data and at random outputs of every layer"
        remedy = "a hard threshold has zero gradient; use the mean of a sigmoid, L1, or a straight-through estimator"
    return [
        make_finding(
            subject.inert,
            subject.term,
            evidence,
            "the term is logged but has no effect on training",
            remedy,
            {"value": subject.base},
            source=source,
        )
    ]


def outside_domain(subject: TermProbe, operations: list[TracedOperation], bounds: AuditThresholds) -> list[Finding]:
    """Find NaN or infinity at values that training can reach."""
    for situation, value in situations(subject):
        if not math.isfinite(value):
            source = source_line(operations, [subject.site], ()) if subject.site else None
            return [
                make_finding(
                    "outside_domain",
                    subject.term,
                    f"{subject.term} is {value} {situation}",
                    "one such batch sets every parameter to NaN",
                    "keep the arguments of log, sqrt and divisions within their domain: use the mean of a sigmoid, or clamp away from 0 and 1",
                    source=source,
                )
            ]
    return _gradient_outside(subject)


def situations(subject: TermProbe, soft: bool = True) -> list[tuple[str, float]]:
    """Return situations that training can reach, in words, and the term there; `soft` keeps sigmoids off 0 and 1."""
    probe, code = subject.probe, subject.probe.code
    values = [("on the data at initialization", subject.base)]
    if subject.term == probe.case.objective or code.site is None:
        return values
    if code.site in subject.direct and code.activation in RELU_FAMILY:
        off = subject.at({code.site: _silenced}).value(subject.term)
        values.append(("for a unit that is zero on every row", off))
    layers = subject.layers if not subject.at_bottleneck else (code.site.layer,)
    for factor in (3.0, 10.0):
        changes = {TensorSite(name): (lambda values, index, f=factor: values * f) for name in layers}
        scaled = probe.evaluate(changes, soft=soft).value(subject.term)
        values.append((f"for pre-activations {factor:g} times the observed ones", scaled))
    return values


def _silenced(values: Tensor, index: int) -> Tensor:
    keep = torch.ones_like(values)
    keep[:, 0] = 0
    return values * keep


def _gradient_outside(subject: TermProbe) -> list[Finding]:
    code = subject.probe.code
    if code.site not in subject.direct or code.activation not in RELU_FAMILY or subject.inert or code.site is None:
        return []
    leaves: list[Tensor] = []
    evaluation = subject.at(
        {code.site: replace_with_leaves(lambda v, i: _silenced(random_values(v, code.activation), i), leaves)}
    )
    if all(bool(gradient.isfinite().all()) for gradient in evaluation.gradient(subject.term, leaves)):
        return []
    return [
        make_finding(
            "outside_domain",
            subject.term,
            f"the gradient of {subject.term} is NaN or infinite for a unit that is zero on every row, although its value is finite",
            "one dead unit is enough to set the weights to NaN",
            "add a small constant under the square root, or use torch.linalg.vector_norm, whose gradient at 0 is 0",
            severity=Severity.RISK,
        )
    ]


def batch_size_rule(subject: TermProbe, operations: list[TracedOperation], bounds: AuditThresholds) -> list[Finding]:
    """Find a term that grows with the number of rows while their distribution stays the same."""
    rows = subject.probe.batch[: max(2, len(subject.probe.batch) // 4)]
    sizes = [len(rows), 2 * len(rows), 4 * len(rows)]
    values = [
        subject.probe.evaluate(batch=rows.repeat(k, *[1] * (rows.dim() - 1))).value(subject.term) for k in (1, 2, 4)
    ]
    if not any(values) and subject.site is not None:  # 0 on the data: measured at random values instead
        values = [_on_repeated_rows(subject, subject.site, rows, k) for k in (1, 2, 4)]
    values = [abs(value) for value in values]
    if not all(math.isfinite(value) for value in values):
        raise Undecided(f"{subject.term} is not finite on {sizes} rows")
    if max(values) <= 1e-12:
        raise Undecided(f"{subject.term} is 0 on the data at initialization")
    if min(values) <= 1e-12 * max(values):
        raise Undecided(f"{subject.term} is 0 at some batch size, so its logarithm has no slope")
    slope = math.log(values[2] / values[0]) / math.log(4)
    if abs(slope) <= bounds.batch_slope:
        return []
    numbers = {"slope": slope, **{f"at_{size}": value for size, value in zip(sizes, values, strict=True)}}
    values_text = ", ".join(f"{value:.4g} at {size} rows" for size, value in zip(sizes, values, strict=True))
    return [
        make_finding(
            "depends_on_batch_size",
            subject.term,
            f"{subject.term} is {values_text} (the same rows repeated): d log term / d log batch size = {slope:.2f}",
            "relative to a term that is averaged over rows, its weight changes with the batch size",
            "average over the rows instead of summing, or divide by the number of rows",
            numbers,
            source=loss_source(subject.probe.case),
        )
    ]


def _on_repeated_rows(subject: TermProbe, site: TensorSite, rows: Tensor, times: int) -> float:
    def change(current: Tensor, index: int) -> Tensor:
        values = random_values(current[: len(rows)], activation_of(site), 1.0, 91 + index)
        return current * 0 + values.repeat(times, *[1] * (current.dim() - 1))

    batch = rows.repeat(times, *[1] * (rows.dim() - 1))
    return subject.probe.evaluate({site: change}, batch=batch).value(subject.term)


def edits_in_place(probe: LossProbe) -> list[Finding]:
    """Find activations, parameters or data that the evaluation of the loss changes.

    Buffers may change: a layer or the loss keeps running statistics there.
    """
    rows, parameters = probe.batch.clone(), list(probe.model.named_parameters())
    before = copies([parameter for _, parameter in parameters])
    edited = _evaluated_on(probe, rows)
    edited += [name for (name, now), then in zip(parameters, before, strict=True) if not torch.equal(now, then)]
    for (_, now), then in zip(parameters, before, strict=True):
        now.data = then
    if not torch.equal(rows, probe.batch):
        edited.append("the batch")
    if not edited:
        return []
    return [
        make_finding(
            "edits_in_place",
            None,
            f"evaluating the loss changes {', '.join(edited)}",
            "training and later measurements use the changed values instead of those that the model computed",
            "work on a copy (`.clone()`), or replace the assignment by an expression",
            source=loss_source(probe.case),
        )
    ]


def _evaluated_on(probe: LossProbe, rows: Tensor) -> list[str]:
    recorder = TensorRecorder(probe.layers)
    keywords = loss_arguments(probe.case, probe.step, probe.steps)
    with (
        preserved_rng(0),
        preserved_state(probe.model),
        preserved_loss(probe.case.losses),
        hooked_model(probe.model, probe.layers, recorder),
    ):
        probe.case.losses(probe.model, rows, **keywords)
    touched = [
        recorder.site_of.get(id(tensor)) for tensor, version in recorder.record.tensors if tensor._version > version
    ]
    return [f"an activation of the model (from {site.layer})" for site in touched[:1] if site is not None]
