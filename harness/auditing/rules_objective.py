"""Rule on the objective as a whole: is a constant code as good as the best code?"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from harness.auditing.audit_thresholds import AuditThresholds
from harness.auditing.dependencies import TermProbe
from harness.auditing.findings import loss_source, make_finding
from harness.auditing.isolation import copies
from harness.auditing.probe import Evaluation, LossProbe
from harness.auditing.trace import Change, TensorSite, TracedOperation
from harness.diagnosis.finding import Finding
from harness.diagnosis.severity import Severity

STEPS = 120  # of Adam in each descent
DRAWS = 16  # of noise at the ends of a descent
RATE = 0.05
TOLERANCE = 0.02  # of the fall from the start: two descents that end this close are equal
SLOPE_STEP = 1e-5
SLOPE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Descents:
    """Ends of the descents on the whole objective.

    Where the objective draws noise, every step of a descent has a draw of its own, and an end is a mean over new draws:
    one draw for all steps could be learned by heart.

    Args:
        start: the objective on the data at initialization.
        constant: the least value with one constant code for all rows.
        free: the least value with a free code per row.
    """

    start: float
    constant: float
    free: float

    @property
    def constant_is_least(self) -> bool:
        """True if a constant code lowers the objective as far as a free code does."""
        if not all(math.isfinite(value) for value in (self.start, self.constant, self.free)):
            return False
        fall = self.start - min(self.constant, self.free)
        return fall > 1e-6 * max(1.0, abs(self.start)) and self.constant <= self.free + TOLERANCE * fall


def objective_collapse(subject: TermProbe, operations: list[TracedOperation], bounds: AuditThresholds) -> list[Finding]:
    """Find an objective that compares nothing with the data and whose least value is a constant code."""
    probe, site = subject.probe, subject.probe.code.site
    if site is None or subject.inert or not subject.follows or _compares_with_the_batch(probe):
        return []
    sites = [TensorSite(name) for name in (site.layer, *subject.beside)]
    descents = _descents(probe, sites)
    if not descents.constant_is_least:
        return []
    normalized = any("norm" in name for name in site.chain)
    detached = _reads_a_detached_code(probe, sites)
    sure = not normalized and not detached
    guard = "a stop-gradient on the code" if detached else "the normalization before the code"
    return [
        make_finding(
            "collapse_optimum",
            subject.term,
            f"descents on all terms together start at {descents.start:.4g} and reach {descents.constant:.4g} with one"
            f" constant code for all rows, {descents.free:.4g} with a free code per row",
            "a constant code minimizes the objective, and no term opposes it"
            if sure
            else f"a constant code minimizes the objective; only {guard} keeps training away from it",
            "add a stop-gradient with a predictor, negative pairs, or a variance and covariance term"
            if sure
            else f"keep {guard}",
            {"start": descents.start, "constant": descents.constant, "free": descents.free},
            severity=Severity.RISK if sure else Severity.NOTE,
            source=loss_source(probe.case),
        )
    ]


def _total(probe: LossProbe, evaluation: Evaluation) -> Tensor:
    total = probe.case.total(evaluation.terms, probe.case.numbers)
    return total.sum() if isinstance(total, Tensor) else torch.tensor(float(total))


def _compares_with_the_batch(probe: LossProbe) -> bool:
    """True if the terms change with the batch while the outputs of all layers are fixed, as with a target or labels."""
    base = float(_total(probe, probe.evaluate(hold=True)).detach())
    batches = [probe.batch.flip(0), probe.batch.roll(1, 0)]
    if probe.batch.is_floating_point():
        batches.append(probe.batch.flip(0) * 2 + 1)
    for batch in batches:
        try:
            value = float(_total(probe, probe.evaluate(hold=True, batch=batch)).detach())
        except Exception:  # labels in the batch that the loss refuses once they are changed
            return True
        if abs(value - base) > 1e-6 * max(abs(value), abs(base), 1e-12):
            return True
    return False


def _descents(probe: LossProbe, sites: list[TensorSite]) -> Descents:
    draws = _draws(probe)
    start = _mean(probe, dict, draws)
    calls = [call for call in probe.evaluate().record.calls if TensorSite(call.name) in sites]
    outputs = [call.before.detach() for call in calls]
    names = [call.name for call in calls]
    means = {name: output.mean(0, keepdim=True) for name, output in zip(names, outputs, strict=True)}
    spread = max([float(output.std(correction=0)) for output in outputs] + [1e-3])
    noise = torch.Generator().manual_seed(0)

    def draw(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=noise, dtype=torch.float64).to(like)

    constant = min(
        _descend(probe, names, {name: mean + scale * draw(mean) for name, mean in means.items()}, None, draws)
        for scale in (0.0, max(1.0, spread))
    )
    free = min(
        _descend(probe, names, None, [output + scale * draw(output) for output in outputs], draws)
        for scale in (0.0, max(1.0, spread))
    )
    return Descents(start, constant, free)


def _draws(probe: LossProbe) -> list[int]:
    """Return the seeds of the draws at the end of a descent; none where the objective draws nothing."""
    first, second = (float(_total(probe, probe.evaluate(seed=seed)).detach()) for seed in (0, 1))
    return [] if first == second else list(range(STEPS, STEPS + DRAWS))


def _mean(probe: LossProbe, changes: Callable[[], dict[TensorSite, Change]], draws: list[int]) -> float:
    """Return the mean of the objective over the draws, or the objective where there are none."""
    values = [float(_total(probe, probe.evaluate(changes(), seed=seed)).detach()) for seed in draws or [0]]
    return sum(values) / len(values)


def _descend(
    probe: LossProbe, names: list[str], shared: dict[str, Tensor] | None, own: list[Tensor] | None, draws: list[int]
) -> float:
    """Descend on all terms over the code and the parameters after it; return the least value, or that at the end.

    Args:
        probe: the probe.
        names: layers of the calls, in order.
        shared: start of one constant row per layer, or None.
        own: start of every call's output, or None.
        draws: seeds of the noise at the end, if the objective draws noise.
    """
    leaves = list((shared if shared is not None else {}).values()) if own is None else own
    leaves = [leaf.clone().requires_grad_(True) for leaf in leaves]
    by_name = dict(zip(shared or {}, leaves, strict=False))
    changes = partial(_put, names, by_name, leaves if own is not None else None)
    parameters = [parameter for parameter in probe.model.parameters() if parameter.requires_grad]
    originals = copies(parameters)
    optimizer = torch.optim.Adam([*leaves, *parameters], lr=RATE)
    least = math.inf
    try:
        for step in range(STEPS):
            total = _total(probe, probe.evaluate(changes(), seed=step if draws else 0))
            value = float(total.detach())
            if not math.isfinite(value) or not total.requires_grad:
                break
            least = min(least, value)
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
        return _mean(probe, changes, draws) if draws and math.isfinite(value) else least
    finally:
        with torch.no_grad():
            for parameter, original in zip(parameters, originals, strict=True):
                parameter.copy_(original)
                parameter.grad = None


def _put(names: list[str], shared: dict[str, Tensor], own: list[Tensor] | None) -> dict[TensorSite, Change]:
    queue = iter(own or [])

    def change(name: str) -> Change:
        if own is not None:
            return lambda values, index: values * 0 + next(queue)
        return lambda values, index: values * 0 + shared[name]

    return {TensorSite(name): change(name) for name in dict.fromkeys(names)}


def _reads_a_detached_code(probe: LossProbe, sites: list[TensorSite]) -> bool:
    """True if the gradient at the code is not the slope of the value: some place reads the code detached."""
    calls = [call for call in probe.evaluate().record.calls if TensorSite(call.name) in sites]
    names, outputs = [call.name for call in calls], [call.before.detach() for call in calls]
    leaves = [output.clone().requires_grad_(True) for output in outputs]
    total = _total(probe, probe.evaluate(_put(names, {}, leaves)))
    if not total.requires_grad:
        return True
    gradients = torch.autograd.grad(total, leaves, allow_unused=True)
    generator = torch.Generator().manual_seed(1)
    for _ in range(2):
        directions = [torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x) for x in outputs]
        slope = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True) if g is not None)
        ahead, back = (_total_at(probe, names, outputs, directions, step) for step in (SLOPE_STEP, -SLOPE_STEP))
        measured = (ahead - back) / (2 * SLOPE_STEP)
        if abs(measured - slope) > SLOPE_TOLERANCE * max(abs(measured), abs(slope), 1e-9):
            return True
    return False


def _total_at(
    probe: LossProbe, names: list[str], outputs: list[Tensor], directions: list[Tensor], step: float
) -> float:
    moved = [output + step * direction for output, direction in zip(outputs, directions, strict=True)]
    return float(_total(probe, probe.evaluate(_put(names, {}, moved))).detach())
