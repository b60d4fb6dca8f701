"""Rules on every term: is there a gradient, is it a number, does it depend on the batch size, does it edit anything."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from harness.auditing.audit_thresholds import AuditThresholds
from harness.auditing.dependencies import TermProbe, Undecided
from harness.auditing.findings import loss_source, make_finding, source_line
from harness.auditing.isolation import copies, preserved_rng, preserved_state
from harness.auditing.probe import LossProbe, replace_with_leaves
from harness.auditing.probe_values import activation_of, random_values
from harness.auditing.recorder import TensorRecorder, TensorSite, TracedOperation, hooked_model
from harness.diagnosis.finding import Finding
from harness.diagnosis.severity import Severity

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
    """ "no_gradient", "zero_gradient" or "": looked for on the data and at values spread over the layers' outputs."""
    natural = subject.probe.evaluate()
    tensor = natural.terms[subject.term]
    if not isinstance(tensor, Tensor) or not tensor.requires_grad:
        return "no_gradient"
    parameters = [each for each in subject.probe.model.parameters() if each.requires_grad]
    if any(_moves(each) for each in natural.gradient(subject.term, parameters)):
        return ""
    for seed in range(3):
        leaves: list[Tensor] = []
        sites = [TensorSite(name) for name, _ in subject.probe.natural]
        changes = {site: replace_with_leaves(_everywhere(seed), leaves) for site in sites}
        if any(_moves(each) for each in subject.probe.evaluate(changes).gradient(subject.term, leaves)):
            return ""
    return "zero_gradient"


def _everywhere(seed: int) -> Callable[[Tensor, int], Tensor]:
    return lambda values, index: random_values(values, "none", 3.0, seed + 7 * index)


def _moves(gradient: Tensor) -> bool:
    return bool((gradient != 0).any())  # NaN counts: it is no zero


def gradient_rule(subject: TermProbe, operations: list[TracedOperation], bounds: AuditThresholds) -> list[Finding]:
    """A term without a graph, or with a gradient that is exactly zero."""
    if not subject.inert:
        return []
    sites = [TensorSite(name) for name in subject.layers] or [TensorSite(name) for name, _ in subject.probe.natural]
    place = (
        source_line(operations, sites, CUTS, last=True)
        or source_line(operations, sites, COMPARISONS)
        or loss_source(subject.probe.case)
    )
    what = f"{subject.term} = {subject.base:.4g}"
    if subject.inert == "no_gradient":
        evidence = f"{what} carries no graph: no parameter can feel it"
        remedy = "use a differentiable stand-in for the count: the mean of a sigmoid code, or L1 on a ReLU code"
    else:
        evidence = (
            f"{what} has a graph, and its gradient is exactly 0 on the data and at values spread over every layer"
        )
        remedy = "a step has no slope: average the values themselves (L1, a sigmoid's mean), or pass the gradient straight through"
    return [
        make_finding(
            subject.inert,
            subject.term,
            evidence,
            "the term is printed and trains nothing",
            remedy,
            {"value": subject.base},
            place=place,
        )
    ]


def outside_domain(subject: TermProbe, operations: list[TracedOperation], bounds: AuditThresholds) -> list[Finding]:
    """NaN or infinity where a training run can come."""
    for situation, value in situations(subject):
        if not math.isfinite(value):
            place = source_line(operations, [subject.site], ()) if subject.site else None
            return [
                make_finding(
                    "outside_domain",
                    subject.term,
                    f"{subject.term} is {value} {situation}",
                    "one such batch turns every parameter into NaN",
                    "keep the argument of log, sqrt or a division inside its domain: a sigmoid's mean, or a clamp away from 0 and 1",
                    place=place,
                )
            ]
    return _gradient_outside(subject)


def situations(subject: TermProbe, soft: bool = True) -> list[tuple[str, float]]:
    """Where a training run can come, in words, and the term there; `soft` keeps sigmoids away from 0 and 1."""
    probe, code = subject.probe, subject.probe.code
    found = [("on the data at initialisation", subject.base)]
    if subject.term == "reconstruction" or code.site is None:
        return found
    if code.site in subject.direct and code.activation in RELU_FAMILY:
        off = subject.at({code.site: _silenced}).value(subject.term)
        found.append(("for a unit that is zero on every row", off))
    layers = subject.layers if not subject.at_bottleneck else (code.site.layer,)
    for factor in (3.0, 10.0):
        changes = {TensorSite(name): (lambda values, index, f=factor: values * f) for name in layers}
        scaled = probe.evaluate(changes, soft=soft).value(subject.term)
        found.append((f"for pre-activations {factor:g} times the observed ones", scaled))
    return found


def _silenced(values: Tensor, index: int) -> Tensor:
    keep = torch.ones_like(values)
    keep[:, 0] = 0
    return values * keep


def _gradient_outside(subject: TermProbe) -> list[Finding]:
    code = subject.probe.code
    if code.site not in subject.direct or code.activation not in RELU_FAMILY or subject.inert or code.site is None:
        return []
    leaves: list[Tensor] = []
    at = subject.at(
        {code.site: replace_with_leaves(lambda v, i: _silenced(random_values(v, code.activation), i), leaves)}
    )
    if all(bool(each.isfinite().all()) for each in at.gradient(subject.term, leaves)):
        return []
    return [
        make_finding(
            "outside_domain",
            subject.term,
            f"the gradient of {subject.term} is NaN or infinite for a unit that is zero on every row, though its value is a number",
            "once a unit is dead, its NaN gradient reaches the weights",
            "add a small constant under the square root, or use torch.linalg.vector_norm, whose gradient at 0 is 0",
            severity=Severity.RISK,
        )
    ]


def batch_size_rule(subject: TermProbe, operations: list[TracedOperation], bounds: AuditThresholds) -> list[Finding]:
    """A term that grows with the number of rows, the rows' distribution being the same."""
    rows = subject.probe.batch[: max(2, len(subject.probe.batch) // 4)]
    sizes = [len(rows), 2 * len(rows), 4 * len(rows)]
    values = [
        subject.probe.evaluate(batch=rows.repeat(k, *[1] * (rows.dim() - 1))).value(subject.term) for k in (1, 2, 4)
    ]
    if not any(values) and subject.site is not None:  # silent on the data: the same question of livelier values
        values = [_repeated(subject, subject.site, rows, k) for k in (1, 2, 4)]
    values = [abs(each) for each in values]
    if not all(math.isfinite(each) for each in values):
        raise Undecided(f"{subject.term} is not finite on {sizes} rows")
    if max(values) <= 1e-12:
        raise Undecided(f"{subject.term} is 0 on the data at initialisation")
    if min(values) <= 1e-12 * max(values):
        raise Undecided(f"{subject.term} is 0 at some batch size: its logarithm has no slope")
    slope = math.log(values[2] / values[0]) / math.log(4)
    if abs(slope) <= bounds.batch_slope:
        return []
    numbers = {"slope": slope, **{f"at_{size}": value for size, value in zip(sizes, values, strict=True)}}
    shown = ", ".join(f"{value:.4g} at {size} rows" for size, value in zip(sizes, values, strict=True))
    return [
        make_finding(
            "depends_on_batch_size",
            subject.term,
            f"{subject.term} is {shown}, the same rows repeated: d log term / d log batch size = {slope:.2f}",
            "its weight beside a mean changes with the batch size, and so does the best weight",
            "average over the rows instead of adding them up, or divide by the number of rows",
            numbers,
            place=loss_source(subject.probe.case),
        )
    ]


def _repeated(subject: TermProbe, site: TensorSite, rows: Tensor, times: int) -> float:
    def change(found: Tensor, index: int) -> Tensor:
        values = random_values(found[: len(rows)], activation_of(site), 1.0, 91 + index)
        return found * 0 + values.repeat(times, *[1] * (found.dim() - 1))

    batch = rows.repeat(times, *[1] * (rows.dim() - 1))
    return subject.probe.evaluate({site: change}, batch=batch).value(subject.term)


def edits_in_place(probe: LossProbe) -> list[Finding]:
    """Evaluating the loss changed activations of the model, parameters, or the data.

    Buffers are the model's own: running statistics are kept there, by a layer or by the loss.
    """
    rows, parameters = probe.batch.clone(), list(probe.model.named_parameters())
    before = copies([each for _, each in parameters])
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
            "what is trained, or measured next, is no longer what the model computed",
            "work on a copy (`.clone()`), or write the expression without assignment",
            place=loss_source(probe.case),
        )
    ]


def _evaluated_on(probe: LossProbe, rows: Tensor) -> list[str]:
    recorder = TensorRecorder(probe.layers)
    keywords = {name: probe.case.numbers[name] for name in probe.case.loss_keywords()}
    with preserved_rng(0), preserved_state(probe.model), hooked_model(probe.model, probe.layers, recorder):
        probe.case.losses(probe.model, rows, **keywords)
    touched = [
        recorder.site_of.get(id(tensor)) for tensor, version in recorder.record.made if tensor._version > version
    ]
    return [f"an activation of the model (from {site.layer})" for site in touched[:1] if site is not None]


RELU_FAMILY = ("relu", "leaky_relu", "elu", "gelu", "silu", "softplus")
