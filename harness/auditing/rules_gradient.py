"""Rules on every term: gradient, finite values, dependence on the batch size, edits in place."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from harness.auditing.audit_thresholds import AuditThresholds
from harness.auditing.dependencies import TermProbe, Undecided
from harness.auditing.findings import loss_source, make_finding, source_line
from harness.auditing.isolation import copies, isolated, preserved_rng, preserved_state
from harness.auditing.loss_state import loss_arguments, preserved_loss
from harness.auditing.probe import LossProbe, differs, replace_with_leaves
from harness.auditing.probe_values import activation_of, random_outputs, random_values
from harness.auditing.recorder import TensorRecorder, hooked_model
from harness.auditing.rules_reach import MOVES, moved
from harness.auditing.trace import Change, TensorSite, TracedOperation
from harness.auditing.weight_keywords import zero_keywords
from harness.case import Case
from harness.diagnosis.finding import Finding
from harness.diagnosis.severity import Severity
from harness.measures.units import RELU_FAMILY
from harness.models import cast_floats
from harness.user_code import guarded

ROUNDING_OF_A_VALUE = 1e-12  # relative to the value of the term, or to 1 if the term is smaller
SHRINKS = 1e-3  # float64 to float32; rounding gives about 2e-9, the ratio of their epsilons, and a true gradient 1
WIDE_SCALES = (1e-3, 30.0, 1e3, 1e6)  # of random outputs
LEVELS = (-15.0, -5.0, 5.0, 15.0)  # of constant outputs; a sigmoid is then within 1 % of its ends
WIDE_MOVES = ((2, 10.0), (3, 100.0))  # random changes of all parameters, as `MOVES`
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
    """Return "no_gradient", "zero_gradient" or "".

    Gradients are taken on the data, at random outputs of all layers, at outputs large enough for a hinge, and with
    random changes of all parameters. A gradient that is rounding counts as zero.
    """
    probe = subject.probe
    tensor = probe.evaluate().terms[subject.term]
    if not isinstance(tensor, Tensor) or not tensor.requires_grad:
        return "no_gradient"
    values: list[float] = []
    for change in (None, *(random_outputs(seed) for seed in range(3))):
        if _has_true_gradient(subject, change, values):
            return ""
    wide = [random_outputs(5, scale) for scale in WIDE_SCALES] + [_constant_outputs(level) for level in LEVELS]
    if any(_has_true_gradient(subject, change, values, finite=True) for change in wide):
        return ""  # a hinge that is inactive on the data
    for seed, size in MOVES:
        with moved(list(probe.model.parameters()), size, seed):
            if _has_true_gradient(subject, None, values, finite=True):
                return ""  # a penalty on parameters that starts at its minimum
    subject.cache["constant"] = not any(subject.differs(value, subject.base) for value in values)
    return "zero_gradient"


def is_flat(subject: TermProbe) -> bool:
    """True if no parameter has a gradient of the term, whatever the parameters and the rows.

    The gradient may be there at outputs that are put into single layers, as where two paths cancel: the rest behind a
    straight-through step is `code - (code + (entries - code).detach())`. A clamped or hinged term has a gradient at
    some of the random parameters or rows.
    """
    probe = subject.probe
    parameters, rows = list(probe.model.parameters()), probe.batch
    batches = [rows, differs(rows, lambda values: values * 10), differs(rows, lambda values: -3 * values.flip(0))]
    changes = [moved(parameters, size, seed) for seed, size in (*MOVES, *WIDE_MOVES)]
    changes += [_leveled(parameters, level) for level in LEVELS]
    try:
        for change in changes:
            with change:
                for batch in batches:
                    probe.batch = batch
                    if _has_true_gradient(subject, None, [], finite=True):
                        return False
    finally:
        probe.batch = rows
    return True


@contextmanager
def _leveled(parameters: Sequence[nn.Parameter], level: float) -> Iterator[None]:
    """Set all biases to a level and shrink all weights, as where a sigmoid is near one of its ends on every row."""
    before = copies(parameters)
    for parameter in parameters:
        parameter.data = parameter.data * 0.01 if parameter.dim() > 1 else torch.full_like(parameter.data, level)
    try:
        yield
    finally:
        for parameter, value in zip(parameters, before, strict=True):
            parameter.data = value


def _has_true_gradient(subject: TermProbe, change: Change | None, values: list[float], finite: bool = False) -> bool:
    """True if the term has a gradient here that is not rounding; NaN counts as a gradient unless `finite` is set.

    The value of the term is appended to `values` where it is finite.
    """
    try:
        with guarded():
            gradients, value = _gradients(subject.probe, subject.term, change)
    except Exception:
        if finite:  # such an output is beyond the loss: a decomposition of a constant matrix
            return False
        raise
    if math.isfinite(value):
        values.append(value)
    if not any(_is_nonzero(gradient) for gradient in gradients):
        return False
    exact = _norm(gradients)
    if not math.isfinite(exact):
        return not finite
    return not _is_rounding(subject, change, exact, value)


def _is_rounding(subject: TermProbe, change: Change | None, exact: float, value: float) -> bool:
    """True if a gradient shrinks with the precision: its norm in float64 is below 0.001 of its norm in float32."""
    probe = subject.probe
    if probe.dtype != torch.float64:
        return False
    try:
        with guarded(), isolated(probe.model, torch.float32):
            batch = cast_floats(probe.batch, torch.float32)
            narrow = replace(probe, batch=batch, dtype=torch.float32, natural={}, observed={}, evaluations=0)
            rounded = _norm(_gradients(narrow, subject.term, change)[0])
            probe.evaluations += narrow.evaluations
    except Exception:  # the loss cannot be evaluated in float32
        return False
    if not math.isfinite(rounded):
        return False
    # the float32 gradient is 0 by chance, or below the smallest float32 number
    bound = ROUNDING_OF_A_VALUE * max(1.0, abs(value)) if rounded == 0.0 else SHRINKS * rounded
    is_rounding = exact <= bound
    if is_rounding:
        subject.cache.setdefault("rounding", (exact, rounded))
    return is_rounding


def _gradients(probe: LossProbe, term: str, change: Change | None) -> tuple[list[Tensor], float]:
    """Return the gradients of the term and its value: at the parameters, or at the changed outputs of all layers."""
    if change is None:
        evaluation = probe.evaluate()
        leaves: list[Tensor] = [parameter for parameter in probe.model.parameters() if parameter.requires_grad]
    else:
        leaves = []
        names = dict.fromkeys(probe.layers.values())
        evaluation = probe.evaluate({TensorSite(name): replace_with_leaves(change, leaves) for name in names})
    return evaluation.gradient(term, leaves), evaluation.value(term)


def _norm(gradients: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float(gradient.double().pow(2).sum()) for gradient in gradients))


def _constant_outputs(level: float) -> Change:
    return lambda values, index: torch.full_like(values, level)


def _is_nonzero(gradient: Tensor) -> bool:
    return bool((gradient != 0).any())  # NaN counts as nonzero


def flat_finding(subject: TermProbe, probes: Sequence[int]) -> Finding:
    """Return the finding on a term for which `is_flat` holds, at these probes of a training."""
    steps = f", and after {' and '.join(str(probe) for probe in probes if probe)} training steps" if any(probes) else ""
    return make_finding(
        "zero_gradient",
        subject.term,
        f"{subject.term} = {subject.base:.4g} is in the graph, but its gradient at every parameter is 0, or rounding, on the data"
        f"{steps}, with {len(MOVES) + len(WIDE_MOVES) + len(LEVELS)} changes of all parameters, and on scaled rows",
        "the term is logged but has no effect on training",
        "look for paths that cancel (the rest behind a straight-through step is taken from the quantized values before it:"
        " `code - entries.detach()`), or for a mean over an axis that always adds up to the same number",
        {"value": subject.base},
        source=loss_source(subject.probe.case),
    )


def gradient_rule(subject: TermProbe, operations: list[TracedOperation], bounds: AuditThresholds) -> list[Finding]:
    """Find a term without a graph, or with a gradient that is zero but for rounding."""
    if not subject.inert:
        return []
    if name := _zero_weight(subject):
        return [_switched_off(subject, name)]
    sites = [TensorSite(name) for name in subject.layers] or [TensorSite(name) for name, _ in subject.probe.natural]
    source = (
        source_line(operations, sites, CUTS, last=True)
        or source_line(operations, sites, COMPARISONS)
        or loss_source(subject.probe.case)
    )
    quantity = f"{subject.term} = {subject.base:.4g}"
    if subject.inert == "no_gradient":
        evidence = f"{quantity} is detached from the autograd graph: no parameter receives a gradient from it"
        remedy = (
            "replace the count by a differentiable term: the mean of a sigmoid code, or L1 on a ReLU code"
            if any(operation.name in COMPARISONS and _reads(operation, sites) for operation in operations)
            else "take it from the code itself, without `.detach()`, `.item()`, numpy or `torch.no_grad()`"
        )
    elif subject.cache.get("constant"):
        exact, rounded = cast(tuple[float, float], subject.cache.get("rounding", (0.0, 0.0)))
        norms = f" but for rounding: its gradient has norm {exact:.2g} in float64 and {rounded:.2g} in float32"
        evidence = (
            f"{quantity} is constant{norms if exact else ': its gradient is 0'}, and random outputs of every layer leave"
            " its value unchanged"
        )
        remedy = "check its axes (a softmax that is averaged or summed over its own axis is constant), or remove it"
    else:
        evidence = f"{quantity} is in the graph, but its gradient is exactly 0 on the data and at random outputs of every layer"
        remedy = "a hard threshold has zero gradient; use the mean of a sigmoid, L1, or a straight-through estimator"
    if subject.term == subject.probe.case.objective:
        remedy = _remedy_of_the_main_term(subject)
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


def _remedy_of_the_main_term(subject: TermProbe) -> str:
    if subject.inert == "no_gradient":
        remedy = "take it from the model's output, without `.detach()`, `.item()`, numpy or `torch.no_grad()`"
    elif subject.cache.get("constant"):
        remedy = (
            "check its axes (a softmax over an axis of one number, or one that is averaged or summed over its own axis, is"
            " constant) and what it compares (a tensor with its own copy is at distance 0)"
        )
    else:
        remedy = (
            "a hard threshold has zero gradient: train on the values before it, or use a straight-through estimator"
        )
    case = subject.probe.case
    declared = case.objective != Case.objective or len(subject.probe.penalties()) == 0
    return remedy if declared else f"{remedy}; or name the term that trains the model: harness.Case(..., objective=...)"


def _zero_weight(subject: TermProbe) -> str:
    """Return the keyword of `losses` whose value 0 takes the term's gradient away, or ""."""
    case = subject.probe.case
    for name in zero_keywords(case):
        probe = replace(subject.probe, case=replace(case, numbers={**case.numbers, name: 1.0}))
        try:
            with guarded():
                if not gradient_status(TermProbe(probe, subject.term, subject.base)):
                    return name
        except Exception:  # the loss refuses the number
            continue
    return ""


def _switched_off(subject: TermProbe, name: str) -> Finding:
    case = subject.probe.case
    return make_finding(
        subject.inert,
        subject.term,
        f"{subject.term} = {subject.base:.4g} has no gradient, because {name} is 0; with {name} = 1 it has one",
        "the term is switched off, so it has no effect on training",
        f"set {name} to another value than 0, or leave the term out",
        {"value": subject.base, name: 0.0},
        None if subject.term == case.objective else Severity.NOTE,
        source=loss_source(case),
    )


def _reads(operation: TracedOperation, sites: list[TensorSite]) -> bool:
    return any(operation.site.layer == site.layer for site in sites)


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


def _lowered(values: Tensor, index: int) -> Tensor:
    """Return pre-activations with one unit that is off on every row."""
    values[:, 0] = -100.0
    return values


def _gradient_outside(subject: TermProbe) -> list[Finding]:
    code = subject.probe.code
    if code.site not in subject.direct or code.activation not in RELU_FAMILY or subject.inert or code.site is None:
        return []
    # at the layer's output: a ReLU has the gradient 0 where it is 0, whatever comes to it from the term
    leaves: list[Tensor] = []
    site = TensorSite(code.site.layer)
    evaluation = subject.at({site: replace_with_leaves(lambda v, i: _lowered(random_values(v, "none"), i), leaves)})
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
    if abs(slope) <= bounds.batch_slope or not _is_power(values, math.copysign(bounds.batch_slope, slope)):
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


def _is_power(values: list[float], least: float) -> bool:
    """True if values at 1, 2 and 4 times the rows rise or fall as a power of their number, plus a constant.

    The exponent must be beyond `least`. The logarithm of a number of pairs (InfoNCE) has the exponent 0: it rises by an
    equal amount at every doubling. Values that only scatter rise and fall, or have an exponent of the wrong sign.
    """
    first, second = values[1] - values[0], values[2] - values[1]
    if first * second <= 0:
        return False
    exponent = math.log2(second / first)
    return exponent >= least if least > 0 else exponent <= least


def _on_repeated_rows(subject: TermProbe, site: TensorSite, rows: Tensor, times: int) -> float:
    def change(current: Tensor, index: int) -> Tensor:
        values = random_values(current[: len(rows)], activation_of(site), 1.0, 91 + index)
        return current * 0 + values.repeat(times, *[1] * (current.dim() - 1))

    batch = rows.repeat(times, *[1] * (rows.dim() - 1))
    return subject.probe.evaluate({site: change}, batch=batch).value(subject.term)


def edits_in_place(probe: LossProbe) -> list[Finding]:
    """Find activations, parameters or data that the evaluation of the loss changes.

    Buffers may change: a layer or the loss keeps running statistics there. So may a parameter that no term's gradient
    reaches, such as a codebook that follows a moving average.
    """
    rows, parameters = probe.batch.clone(), list(probe.model.named_parameters())
    before = copies([parameter for _, parameter in parameters])
    edited = _evaluated_on(probe, rows)
    changed = [name for (name, now), then in zip(parameters, before, strict=True) if not torch.equal(now, then)]
    for (_, now), then in zip(parameters, before, strict=True):
        now.data = then
    edited += [name for name in changed if _has_gradient_at(probe, name)]
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


def _has_gradient_at(probe: LossProbe, name: str) -> bool:
    """True if the gradient of some term reaches a parameter on the data."""
    parameter = dict(probe.model.named_parameters())[name]
    if not parameter.requires_grad:
        return False
    evaluation = probe.evaluate()
    return any(_is_nonzero(evaluation.gradient(term, [parameter])[0]) for term in evaluation.terms)


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
